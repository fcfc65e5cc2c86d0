"""The request hooks: one record when a request comes in, one when its response has gone out.

Run on the request's thread. A hook never fails a request: its own errors are said once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterable
from functools import partial, wraps
from sys import modules
from time import time
from typing import TYPE_CHECKING, Any, TypeGuard

from flask import Flask, Request, current_app, got_request_exception, request, request_tearing_down
from werkzeug.exceptions import HTTPException

from flask_asynclog import lifecycle
from flask_asynclog.body import has_all_parts
from flask_asynclog.config import Settings
from flask_asynclog.context import Context, get_current, running, set_current, set_if_running
from flask_asynclog.contextcopies import KEY
from flask_asynclog.eventlog import EventLogger
from flask_asynclog.exchange import Exchange
from flask_asynclog.login import current_user_id
from flask_asynclog.originals import after_request, only_calls_functions
from flask_asynclog.outcome import Outcome, is_server_error
from flask_asynclog.pipeline import Pipeline
from flask_asynclog.requestid import new_request_id, well_formed_request_id
from flask_asynclog.requests import RequestLog
from flask_asynclog.responses import ResponseLog, say_failure, write_to
from flask_asynclog.source import Source
from flask_asynclog.tracing import keep_span

if TYPE_CHECKING:
    from types import TracebackType

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


_current_request: Callable[[], Request] = request._get_current_object  # type: ignore[attr-defined]


class RequestHooks:
    """The hooks of one app, around four of its methods.

    `wsgi_app` is the first to see a request and the last to see its end: the request id is there for all that is logged
    between. ``preprocess_request`` has the request's context, and comes before every function that may end the request:
    there it is logged. ``process_response`` tells whether the response is whole. When Flask hands status and headers of
    such a one over to the server, still in that context, the response is what the client should get, whatever happened
    on its way: there it is logged, once. One that is still to be sent is logged at its end, which may be much later.
    Where nothing is handed over, because an exception leaves the app, it is logged at that. An exception that leaves
    the app later, of a ``teardown_request`` function for one, makes a 500 of it: it has a record of its own.

    A view that is a coroutine runs in a task, in a copy of the context; ``async_to_sync`` tells that copy from others.

    Methods of the app rather than functions that it calls: for each of those Flask looks whether it is a coroutine,
    which costs a microsecond a request. Both of Flask's own only look whether there is something to do; where there is
    nothing, they are not called, see `originals`.
    """

    def __init__(self, app: Flask, settings: Settings, pipeline: Pipeline, logger: logging.Logger) -> None:
        self._source = Source(
            logger.name,
            redactor=pipeline.redactor,
            request_headers=settings.request_headers,
            client_error_level=settings.client_error_level,
            slow_threshold=settings.slow_threshold,
            sample_rate=settings.sample_rate,
        )
        events = EventLogger(logger, pipeline.handler)
        self._accept = events.accept
        self._requests = RequestLog(settings, pipeline, events)
        self._responses = ResponseLog(settings, pipeline, events, requests=self._requests.wanted)
        self._header = settings.request_id_header or ""
        self._lower_header = self._header.lower()
        self._environ_header = "HTTP_" + self._lower_header.upper().replace("-", "_")
        self._trust = settings.trust_request_id
        #: Whether the id of a request never depends on the request.
        self._new_ids = bool(self._header) and not self._trust
        self._by_hand = False
        #: It does not tell Python of its forks, and sends the status when it has it.
        self._in_uwsgi = "uwsgi" in modules
        self._app = app
        self._may_be_idle = only_calls_functions(app)
        self._after_request = after_request(app)
        got_request_exception.connect(self._on_exception, app)
        #: The same for all requests: each look makes a method anew.
        self._starts_response = self._start_response
        self._wsgi_app = app.wsgi_app
        app.wsgi_app = self.wsgi_app  # type: ignore[method-assign]
        self._preprocess_request = app.preprocess_request
        app.preprocess_request = self.preprocess_request  # type: ignore[method-assign]
        self._async_to_sync = app.async_to_sync
        app.async_to_sync = self.async_to_sync  # type: ignore[method-assign]
        self._process_response = app.process_response
        app.process_response = self.process_response  # type: ignore[method-assign]

    def wsgi_app(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """The app, with its records."""
        if self._in_uwsgi:
            lifecycle.check_process()
        now = time()
        request_id = new_request_id(now) if self._new_ids else self._request_id(environ, now)
        exchange = Exchange(self._source, request_id, now)
        environ[KEY] = exchange
        outer = get_current()
        exchange.token = set_current(exchange)
        try:
            wsgi_app = self._wsgi_app  # loaded, then called: see `RecordQueue.append`
            body = wsgi_app(environ, partial(self._starts_response, exchange, environ, start_response))
            if not exchange.responded and "HTTP_UPGRADE" in environ and (exchange.begun or isinstance(body, list)):
                self._upgraded(exchange, environ)  # any other body may still call the app
            if exchange.responded and exchange.to_come is None:
                if not exchange.alone:
                    exchange.variables = None
                return body
            return self._responses.follow(exchange, environ, body, self._begin)
        except BaseException as error:
            # What gunicorn is told when there is no more to do.
            if not (isinstance(error, StopIteration) and self._upgraded(exchange, environ)):
                self._fail(exchange, environ, error)
            raise
        finally:
            set_current(outer)
            exchange.token = None  # the context it belongs to may have much in it

    def async_to_sync(self, func: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
        """What the app does, for a view or another function of Flask's that is a coroutine."""

        @wraps(func)
        def run(*args: Any, **kwargs: Any) -> Any:
            context = get_current()
            if context is None or not isinstance(context.origin, Exchange) or not set_if_running(context):
                return self._async_to_sync(func)(*args, **kwargs)

            async def in_request(*args: Any, **kwargs: Any) -> Any:
                with running(context):
                    return await func(*args, **kwargs)

            return self._async_to_sync(in_request)(*args, **kwargs)

        return run

    def preprocess_request(self, *args: Any) -> Any:
        """Log ``Request GET http://…``, then do what the app does."""
        try:
            exchange = get_current()
            if type(exchange) is not Exchange or exchange.begun or exchange.source is not self._source:
                exchange = self._bound_exchange(exchange) or self._begin_by_hand()
            self._requests.begin(exchange, _current_request())
        except Exception as error:
            say_failure("preprocess_request", error)
        app = self._app
        if self._may_be_idle and not (app.before_request_funcs or app.url_value_preprocessors):
            return None  # it looks for functions to call, for two microseconds
        return self._preprocess_request(*args)

    def process_response(self, response: Any, *more: Any) -> Any:
        """Do what the app does, and see whether all of the response is there."""
        after = self._after_request
        processed = more[-1] if more else response  # Flask's developers hand over the context first
        try:
            if after is None or not after.has_nothing(self._app):
                processed = self._process_response(response, *more)
        finally:  # Flask goes on with an error page that somebody could not process
            exchange = get_current()
            if type(exchange) is not Exchange and exchange is not None:
                exchange = exchange.origin
            if type(exchange) is Exchange and exchange.source is self._source:
                try:
                    body = processed.response
                    whole = type(body) is list or has_all_parts(body)  # the ordinary case without a call
                    exchange.ordinary = whole and not processed.direct_passthrough
                except AttributeError:  # whatever somebody's after_request returned
                    exchange.ordinary = False
        return processed

    def _start_response(
        self,
        exchange: Exchange,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        status: str,
        headers: list[tuple[str, str]],
        exc_info: ExcInfo | None = None,
    ) -> Any:
        """Add the request id to ``headers``; do what the server does, and log ``Response 200 OK …``."""
        size = None
        try:
            if type(headers) is not list:
                headers = list(headers)
            request_id = exchange.request_id
            for name, value in headers:
                if name == "Content-Length":
                    size = value
                elif name != "Content-Type":  # what Werkzeug's have, as it spells them; others are looked at again
                    lower = name.lower()
                    if lower == "content-length":
                        size = value
                    elif lower == self._lower_header:
                        request_id = None
            if request_id is not None:
                headers = [*headers, (self._header, request_id)]  # a new one: theirs may serve other responses too
            if not exchange.begun:  # Flask had not come so far
                self._requests.begin(exchange, Request(environ, populate_request=False))
        except Exception as error:
            say_failure("start_response", error)
        # Before it is logged: a server that refuses the headers makes a 500 of it.
        write = start_response(status, headers) if exc_info is None else start_response(status, headers, exc_info)
        try:
            if (
                exchange.plain and exchange.ordinary and not exchange.responded
                and "opentelemetry.trace" not in modules
            ):  # fmt: skip
                exchange.responded = True
                outcome = Outcome(exchange, status, size, get_current())
                accept = self._accept
                accept(outcome, outcome.levelno)
                return write
            if exchange.begun and (exchange.to_come is not None or not exchange.responded):
                self._respond(exchange, status, size, headers)
            elif exc_info is not None and exc_info[1] is not None:  # somebody around the app answers for it
                self._responses.fail(exchange, exc_info[1])
        except Exception as error:
            say_failure("start_response", error)
        return write if exchange.to_come is None else partial(write_to, exchange, write)

    def _respond(self, exchange: Exchange, status: str, size: str | None, headers: list[tuple[str, str]]) -> None:
        exchange.responded = True
        if exchange.may_be_answer and not is_server_error(status):
            exchange.forget_error()
        if self._requests.login:
            exchange.user = current_user_id()
        if "opentelemetry.trace" in modules:
            keep_span()
        if exchange.ordinary and exchange.to_come is None:
            self._responses.log(self._responses.outcome(exchange, status, size, get_current()), headers)
        else:
            exchange.to_come = status, size, headers

    def _request_id(self, environ: WSGIEnvironment, now: float) -> str | None:
        if not self._header:
            return None
        claimed = environ.get(self._environ_header, "")
        return claimed if self._trust and well_formed_request_id(claimed) else new_request_id(now)

    def _fail(self, exchange: Exchange, environ: WSGIEnvironment, error: BaseException) -> None:
        if self._begin(exchange, environ):
            self._responses.fail(exchange, error)

    def _begin(self, exchange: Exchange, environ: WSGIEnvironment) -> bool:
        """Log the request, if that has not been done: it has not come to Flask. Returns whether it could be."""
        try:
            if not exchange.begun:
                self._requests.begin(exchange, Request(environ, populate_request=False))
        except Exception as error:
            say_failure("wsgi_app", error)
        return exchange.begun

    def _upgraded(self, exchange: Exchange, environ: WSGIEnvironment) -> bool:
        """Log the end of a WebSocket, if it was one; Flask-SocketIO serves it in front of the app."""
        if str(environ.get("HTTP_UPGRADE")).lower() != "websocket":
            return False
        return self._begin(exchange, environ) and self._responses.upgraded(exchange)

    def _on_exception(self, app: Flask, exception: BaseException, **_: object) -> None:
        """An exception that nobody has handled: Flask answers it by a 500, or lets it out. Others tell of more."""
        exchange = _exchange()
        if exchange is not None:
            exchange.note_error(exception)
            exchange.may_be_answer = isinstance(exception, HTTPException)
            if exchange.may_be_answer:  # Flask-RESTful tells of each abort(), and answers it with its status
                exchange.plain = False
            keep_span()

    def _bound_exchange(self, context: Context | None) -> Exchange | None:
        """The one that somebody has bound something to, before it begins."""
        exchange = None if context is None else context.origin
        if not self._is_to_begin(exchange):
            return None
        exchange.context = context
        return exchange

    def _is_to_begin(self, exchange: object) -> TypeGuard[Exchange]:
        return type(exchange) is Exchange and not exchange.begun and exchange.source is self._source

    # A context pushed by hand, and ``preprocess_request`` called in it; or that of a request whose app was called by a
    # generator, so that `wsgi_app` has returned already.

    def _begin_by_hand(self) -> Exchange:
        exchange = request.environ.get(KEY)
        if not self._is_to_begin(exchange):
            now = time()
            exchange = Exchange(self._source, self._request_id(request.environ, now), now)
        exchange.outer, exchange.pushed_for = get_current(), id(_current_request())
        set_current(exchange)
        if not self._by_hand:
            self._by_hand = True
            request_tearing_down.connect(self._end_by_hand, current_app._get_current_object())  # type: ignore[attr-defined]
        return exchange

    def _end_by_hand(self, app: Flask, exc: BaseException | None = None, **_: object) -> None:
        number = id(_current_request())
        served: object = request.environ.get(KEY)
        # Each time that it was preprocessed.
        while (exchange := _exchange()) is not None and exchange.pushed_for == number:
            if exchange is not served:
                self._responses.settle(exchange, wanted=exc is not None)
            elif exc is not None and (exchange.to_come is not None or not exchange.responded):
                self._fail(exchange, request.environ, exc)
            exchange.variables = None
            set_current(exchange.outer)


def _exchange() -> Exchange | None:
    """The one whose context this is."""
    context = get_current()
    origin = None if context is None else context.origin
    return origin if isinstance(origin, Exchange) else None
