"""The request hooks: one record when a request comes in, one when its response goes out.

Run on the request's thread. A hook never fails a request: its own errors are said once.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from contextvars import copy_context
from functools import partial
from time import time
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, current_app, got_request_exception, request, request_tearing_down

from flask_asynclog import lifecycle
from flask_asynclog.config import Settings
from flask_asynclog.context import current
from flask_asynclog.eventlog import EventLogger
from flask_asynclog.exchange import Exchange, Outcome, Source
from flask_asynclog.pipeline import Pipeline
from flask_asynclog.report import Once
from flask_asynclog.requestid import new_request_id, well_formed_request_id
from flask_asynclog.values import show_error

if TYPE_CHECKING:
    from types import TracebackType

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

_once = Once()
#: Of the exchange, in the environ of its request.
_KEY = "flask_asynclog.exchange"


def _say(where: str, error: Exception) -> None:
    _once.say(f"{where} {type(error)}", f"{where}() failed: {show_error(error)}")


class RequestHooks:
    """The hooks of one app, around three of its methods.

    `wsgi_app` is the first to see a request and the last to see its end: the request id is there for all that is logged
    between. ``preprocess_request`` has the request's context, and comes before every function that may end the request:
    there it is logged. When Flask hands status and headers over to the server, still in that context, the response is
    what the client gets, whatever happened on its way: there it is logged, once. Where nothing is handed over, because
    an exception leaves the app, it is logged at that.

    Methods of the app rather than functions that it calls: for each of those Flask looks whether it is a coroutine,
    which costs a microsecond a request.
    """

    def __init__(self, app: Flask, settings: Settings, pipeline: Pipeline, logger: logging.Logger) -> None:
        self._source = Source(logger.name)
        self._pipeline = pipeline
        self._events = EventLogger(logger, pipeline.handler)
        self._accept = self._events.accept
        self._log_requests = "request" in settings.request_events
        self._log_responses = "response" in settings.request_events
        self._excludes = settings.excludes if settings.exclude_paths else None
        self._header = settings.request_id_header or ""
        self._lower_header = self._header.lower()
        self._environ_header = "HTTP_" + self._lower_header.upper().replace("-", "_")
        self._trust = settings.trust_request_id
        #: Whether the id of a request never depends on the request.
        self._new_ids = bool(self._header) and not self._trust
        self._by_hand = False
        #: uWSGI does not tell Python of its forks.
        self._forks_unseen = "uwsgi" in sys.modules
        got_request_exception.connect(self._on_exception, app)
        self._wsgi_app = app.wsgi_app
        app.wsgi_app = self.wsgi_app  # type: ignore[method-assign]
        self._preprocess_request = app.preprocess_request
        app.preprocess_request = self.preprocess_request  # type: ignore[method-assign]

    def wsgi_app(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """The app, with its records."""
        if self._forks_unseen:
            lifecycle.check_process()
        now = time()
        request_id = new_request_id(now) if self._new_ids else self._request_id(environ, now)
        exchange = Exchange(self._source, request_id, now)
        environ[_KEY] = exchange
        outer = current.get()
        current.set(exchange)
        try:
            body = self._wsgi_app(environ, partial(self._start_response, exchange, environ, start_response))
            if not exchange.responded and "HTTP_UPGRADE" in environ:
                self._upgraded(exchange, environ)
            return body
        except BaseException as error:
            if isinstance(error, StopIteration):  # what gunicorn is told when there is no more to do
                self._upgraded(exchange, environ)
            if not exchange.responded:
                self._fail(exchange, environ, error)
            raise
        finally:
            exchange.variables = None
            current.set(outer)

    def preprocess_request(self, *args: Any) -> Any:
        """Log ``Request GET http://…``, then do what the app does."""
        try:
            exchange = current.get()
            if type(exchange) is not Exchange or exchange.begun or exchange.source is not self._source:
                exchange = self._begin_by_hand()
            self._begin(exchange, request._get_current_object())  # type: ignore[attr-defined]
        except Exception as error:
            _say("preprocess_request", error)
        return self._preprocess_request(*args)

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
            request_id, id_header = exchange.request_id, self._lower_header
            for name, value in headers:
                lower = name.lower()
                if lower == "content-length":
                    size = value
                elif lower == id_header:
                    request_id = None
            if request_id is not None:
                headers = [*headers, (self._header, request_id)]  # a new one: theirs may serve other responses too
            if not exchange.begun:  # Flask had not come so far
                self._begin(exchange, Request(environ, populate_request=False))
        except Exception as error:
            _say("start_response", error)
        # Before it is logged: a server that refuses the headers makes a 500 of it.
        write = start_response(status, headers) if exc_info is None else start_response(status, headers, exc_info)
        if exchange.begun and not exchange.responded:
            exchange.responded = True
            if self._log_responses:
                try:
                    outcome = Outcome(exchange, status, size)
                    if exchange.alone:
                        self._accept(outcome, outcome.levelno)
                    else:
                        self._events.log(outcome)
                except Exception as error:
                    _say("start_response", error)
        return write

    def _request_id(self, environ: WSGIEnvironment, now: float) -> str | None:
        if not self._header:
            return None
        claimed = environ.get(self._environ_header, "")
        return claimed if self._trust and well_formed_request_id(claimed) else new_request_id(now)

    def _begin(self, exchange: Exchange, request: Request) -> None:
        pipeline = self._pipeline
        exchange.begin(request, thread=pipeline.shows_threads)
        if pipeline.reconfigured:
            pipeline.repair()
        if self._excludes is not None and self._excludes(exchange.path):
            exchange.responded = True
            return
        exchange.alone = self._events.alone(logging.INFO)
        if self._log_requests:
            if exchange.alone:
                self._accept(exchange, logging.INFO)
            else:
                self._events.log(exchange)

    def _fail(self, exchange: Exchange, environ: WSGIEnvironment, error: BaseException) -> None:
        """Log the response that the server makes of an exception, with its traceback, which nobody else logs."""
        try:
            if not exchange.begun:
                self._begin(exchange, Request(environ, populate_request=False))
            if exchange.responded:
                return
            exchange.responded = True
            if exchange.error is None:
                self._keep_error(exchange, error)
            if self._log_responses:
                outcome = Outcome(exchange, "500 INTERNAL SERVER ERROR", None)
                # As if its context were still there, for filters that look at it.
                run = exchange.variables.run if exchange.variables is not None else copy_context().run
                run(self._events.log, outcome, error)
        except Exception as own:
            _say("wsgi_app", own)

    def _upgraded(self, exchange: Exchange, environ: WSGIEnvironment) -> None:
        """Log the end of a WebSocket: Flask-Sock and others serve it within the request, beside ``start_response``."""
        try:
            upgraded = environ.get("HTTP_UPGRADE", "").lower() == "websocket"
            if upgraded and exchange.begun and exchange.error is None and not exchange.responded:
                exchange.responded = True
                if self._log_responses:
                    self._events.log(Outcome(exchange, "101 SWITCHING PROTOCOLS", None))
        except Exception as error:
            _say("wsgi_app", error)

    def _on_exception(self, app: Flask, exception: BaseException, **_: object) -> None:
        """An exception that nobody has handled: Flask answers it by a 500, or lets it out."""
        exchange = current.get()
        if isinstance(exchange, Exchange):
            self._keep_error(exchange, exception)

    def _keep_error(self, exchange: Exchange, error: BaseException) -> None:
        exchange.error, exchange.error_type = show_error(error), type(error).__qualname__

    # A context pushed by hand, and ``preprocess_request`` called in it; or that of a request whose app was called by a
    # generator, so that `wsgi_app` has returned already.

    def _begin_by_hand(self) -> Exchange:
        exchange = request.environ.get(_KEY)
        if type(exchange) is not Exchange or exchange.begun or exchange.source is not self._source:
            now = time()
            exchange = Exchange(self._source, self._request_id(request.environ, now), now)
        exchange.outer, exchange.pushed_for = current.get(), id(request._get_current_object())  # type: ignore[attr-defined]
        current.set(exchange)
        if not self._by_hand:
            self._by_hand = True
            request_tearing_down.connect(self._end_by_hand, current_app._get_current_object())  # type: ignore[attr-defined]
        return exchange

    def _end_by_hand(self, app: Flask, exc: BaseException | None = None, **_: object) -> None:
        number = id(request._get_current_object())  # type: ignore[attr-defined]
        served: object = request.environ.get(_KEY)
        # Each time that it was preprocessed.
        while isinstance(exchange := current.get(), Exchange) and exchange.pushed_for == number:
            if exc is not None and exchange is served:
                self._fail(exchange, request.environ, exc)
            exchange.variables = None
            current.set(exchange.outer)
