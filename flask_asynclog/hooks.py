"""The request hooks: one record when a request comes in, one when its response has gone out.

Run on the request's thread. A hook never fails a request: its own errors are said once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextvars import ContextVar, copy_context
from functools import partial
from random import random
from sys import modules
from time import perf_counter, time
from typing import TYPE_CHECKING, Any, cast

from flask import (
    Flask,
    Request,
    Response,
    current_app,
    g,
    got_request_exception,
    has_request_context,
    request,
    request_tearing_down,
    session,
)
from werkzeug.wsgi import ClosingIterator

from flask_asynclog import context as contexts
from flask_asynclog import lifecycle
from flask_asynclog.body import Sent, StreamedBody, watch_file
from flask_asynclog.combined import CombinedFormatter
from flask_asynclog.config import Settings
from flask_asynclog.context import Context, DerivedContext, current
from flask_asynclog.eventlog import EventLogger
from flask_asynclog.exchange import Exchange
from flask_asynclog.headers import number_of
from flask_asynclog.held import HeldRecords
from flask_asynclog.outcome import Outcome, SentOutcome, has_body
from flask_asynclog.pipeline import Pipeline
from flask_asynclog.records import own_record
from flask_asynclog.report import Once
from flask_asynclog.requestid import new_request_id, well_formed_request_id
from flask_asynclog.source import Source
from flask_asynclog.tracing import current_span, in_current_span
from flask_asynclog.values import error_text, show, show_error

if TYPE_CHECKING:
    from types import TracebackType

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

_once = Once()
#: Of the exchange, in the environ of its request.
_KEY = "flask_asynclog.exchange"


def _is_whole(response: Response) -> bool:
    """Whether all of a response is there before it is sent, though it is no list of parts."""
    body = response.response
    return not response.direct_passthrough and (
        isinstance(body, (list, tuple))
        # What Werkzeug makes of a page for an error.
        or (type(body) is ClosingIterator and "Content-Length" in response.headers)
    )


def _say(where: str, error: Exception) -> None:
    _once.say(f"{where} {type(error)}", f"{where}() failed: {show_error(error)}")


class RequestHooks:
    """The hooks of one app, around four of its methods.

    `wsgi_app` is the first to see a request and the last to see its end: the request id is there for all that is logged
    between. ``preprocess_request`` has the request's context, and comes before every function that may end the request:
    there it is logged. ``process_response`` tells whether the response is whole. When Flask hands status and headers of
    such a one over to the server, still in that context, the response is what the client gets, whatever happened on its
    way: there it is logged, once. One that is still to be sent is logged at its end, which may be much later. Where
    nothing is handed over, because an exception leaves the app, it is logged at that.

    Methods of the app rather than functions that it calls: for each of those Flask looks whether it is a coroutine,
    which costs a microsecond a request.
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
        self._pipeline = pipeline
        self._events = EventLogger(logger, pipeline.handler)
        self._accept = self._events.accept
        # A line of the combined format is a response.
        self._log_requests = "request" in settings.request_events and not isinstance(
            pipeline.sink.formatter, CombinedFormatter
        )
        self._log_responses = "response" in settings.request_events
        self._excludes = settings.excludes if settings.exclude_paths else None
        self._rate = settings.sample_rate
        self._held = settings.buffer_size if settings.buffer_level is not None else 0
        self._response_headers = frozenset(name.lower() for name in settings.response_headers)
        #: Whether Flask-Login is there; `None`: not known before the first request.
        self._login: bool | None = None
        #: Whether there is nothing to decide about a response.
        self._logs_all = self._log_responses and self._rate >= 1 and not (self._held or self._response_headers)
        self._header = settings.request_id_header or ""
        self._lower_header = self._header.lower()
        self._environ_header = "HTTP_" + self._lower_header.upper().replace("-", "_")
        self._trust = settings.trust_request_id
        #: Whether the id of a request never depends on the request.
        self._new_ids = bool(self._header) and not self._trust
        self._by_hand = False
        #: It does not tell Python of its forks, and sends the status when it has it.
        self._in_uwsgi = "uwsgi" in modules
        got_request_exception.connect(self._on_exception, app)
        self._wsgi_app = app.wsgi_app
        app.wsgi_app = self.wsgi_app  # type: ignore[method-assign]
        self._preprocess_request = app.preprocess_request
        app.preprocess_request = self.preprocess_request  # type: ignore[method-assign]
        self._process_response = app.process_response
        app.process_response = self.process_response  # type: ignore[method-assign]

    def wsgi_app(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """The app, with its records."""
        if self._in_uwsgi:
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
            if exchange.responded and exchange.to_come is None:
                exchange.variables = None
                return body
            return self._follow(exchange, environ, body)
        except BaseException as error:
            if isinstance(error, StopIteration):  # what gunicorn is told when there is no more to do
                self._upgraded(exchange, environ)
            self._fail(exchange, environ, error)
            raise
        finally:
            current.set(outer)

    def preprocess_request(self, *args: Any) -> Any:
        """Log ``Request GET http://…``, then do what the app does."""
        try:
            context = exchange = current.get()
            if type(exchange) is not Exchange and exchange is not None:  # somebody has bound something already
                exchange = exchange.origin
                if type(exchange) is Exchange and not exchange.begun:
                    exchange.context = context
            if type(exchange) is not Exchange or exchange.begun or exchange.source is not self._source:
                exchange = self._begin_by_hand()
            self._begin(exchange, request._get_current_object())  # type: ignore[attr-defined]
        except Exception as error:
            _say("preprocess_request", error)
        return self._preprocess_request(*args)

    def process_response(self, response: Response) -> Response:
        """Do what the app does, and see whether all of the response is there."""
        try:
            response = self._process_response(response)
        finally:  # Flask goes on with an error page that somebody could not process
            exchange = current.get()
            if type(exchange) is not Exchange and exchange is not None:
                exchange = exchange.origin
            if type(exchange) is Exchange and exchange.source is self._source:
                try:
                    ordinary = type(response.response) is list and not response.direct_passthrough
                    exchange.ordinary = ordinary or _is_whole(response)
                except AttributeError:  # whatever somebody's after_request returned
                    exchange.ordinary = False
        return response

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
            length = len(id_header)
            for name, value in headers:
                if len(name) == 14 and name.lower() == "content-length":
                    size = value
                elif len(name) == length and name.lower() == id_header:
                    request_id = None
            if request_id is not None:
                headers = [*headers, (self._header, request_id)]  # a new one: theirs may serve other responses too
            if not exchange.begun:  # Flask had not come so far
                self._begin(exchange, Request(environ, populate_request=False))
        except Exception as error:
            _say("start_response", error)
        # Before it is logged: a server that refuses the headers makes a 500 of it.
        write = start_response(status, headers) if exc_info is None else start_response(status, headers, exc_info)
        if exchange.begun and (exchange.to_come is not None or not exchange.responded):
            try:
                exchange.responded = True
                if self._login:
                    exchange.user = _user()
                if "opentelemetry.trace" in modules:
                    _keep_span()
                if exchange.ordinary and exchange.to_come is None:
                    kind = SentOutcome if self._response_headers else Outcome
                    outcome = kind(exchange, status, size, current.get())
                    if exchange.alone and self._logs_all:
                        self._accept(outcome, outcome.levelno)
                    else:
                        self._log_outcome(outcome, headers)
                else:
                    exchange.to_come = status, size, headers
            except Exception as error:
                _say("start_response", error)
        return write if exchange.to_come is None else partial(_write, exchange, write)

    def _log_outcome(
        self, outcome: Outcome, headers: Iterable[tuple[str, str]], error: BaseException | None = None
    ) -> None:
        """Log what came of a request, unless that is not wanted; in the request's context."""
        exchange = outcome.exchange
        if exchange.held is not None:
            self._settle(exchange, wanted=outcome.notable)
        if exchange.silent or not self._log_responses:
            return
        if not exchange.sampled:
            if not outcome.notable:
                return
            if self._log_requests:  # now that it is known
                self._log(exchange)
        if isinstance(outcome, SentOutcome):
            outcome.headers = [pair for pair in headers if pair[0].lower() in self._response_headers]
        self._log(outcome, error)

    def _log(self, event: Exchange | Outcome, error: BaseException | None = None) -> None:
        if error is None and event.exchange.alone:
            self._accept(event, event.levelno)
        else:
            self._events.log(event, error)

    def _settle(self, exchange: Exchange, *, wanted: bool) -> None:
        assert exchange.held is not None
        left_out = exchange.held.settle(wanted=wanted)
        if left_out:
            text = "%d older records of this request were not held: ASYNCLOG_BUFFER_SIZE=%d"
            self._pipeline.handler.handle(own_record(text, left_out, self._held))

    def _follow(self, exchange: Exchange, environ: WSGIEnvironment, body: Iterable[bytes]) -> Iterable[bytes]:
        """Log a response when it has been sent, which is now where all of it is there."""
        context, whole, end = current.get(), partial(_whole, exchange), partial(self._end, exchange)
        if isinstance(body, (list, tuple)):
            size, most = sum(map(len, body)), whole()
            end(Sent(size if most is None else min(size, most)))
            return body
        return body if watch_file(body, environ, context, whole, end) else StreamedBody(body, context, whole, end)

    def _end(self, exchange: Exchange, sent: Sent) -> None:
        try:
            to_come, exchange.to_come = exchange.to_come, None
            variables, exchange.variables = exchange.variables, None
            if sent.error is not None:
                self._keep_error(exchange, sent.error)
            first_byte = sent.first_byte if exchange.first_write is None else exchange.first_write
            if to_come is None and (sent.error is None or exchange.responded):
                return  # no status: it is the server that answers; or there was one at once
            unsent = first_byte is None and not (sent.aborted or self._in_uwsgi)
            if to_come is None or (sent.error is not None and unsent):
                # As of PEP 3333 no server has sent a status before the first byte.
                to_come, sent.size = ("500 INTERNAL SERVER ERROR", None, ()), None
            status, size, headers = to_come
            outcome = SentOutcome(exchange, status, size, current.get())
            outcome.sent, outcome.aborted = sent.size, sent.aborted
            if outcome.sent is not None:
                outcome.sent += exchange.written
            if first_byte is not None:
                outcome.first_byte = first_byte - exchange.started
            if exchange.alone or variables is None:
                self._log_outcome(outcome, headers, sent.error)
            else:  # as if its context were still there, for filters that look at it
                variables.run(self._log_afterwards, outcome, headers, sent.error)
        except Exception as error:
            _say("close", error)

    def _log_afterwards(
        self, outcome: Outcome, headers: Iterable[tuple[str, str]], error: BaseException | None = None
    ) -> None:
        current.set(outcome.context)  # in the copy
        self._log_outcome(outcome, headers, error)

    def _request_id(self, environ: WSGIEnvironment, now: float) -> str | None:
        if not self._header:
            return None
        claimed = environ.get(self._environ_header, "")
        return claimed if self._trust and well_formed_request_id(claimed) else new_request_id(now)

    def _begin(self, exchange: Exchange, request: Request) -> None:
        pipeline = self._pipeline
        exchange.alone = alone = self._events.alone(logging.INFO)
        exchange.begin(request, fields=pipeline.shows_fields or not alone, thread=pipeline.shows_threads)
        if not alone:
            exchange.variables = copy_context()
        if pipeline.reconfigured:
            pipeline.repair()
        if self._login is None:
            self._login = "flask_login" in modules
        if self._held:
            exchange.held = HeldRecords(self._held, pipeline.queue.accept)
        if self._excludes is not None and self._excludes(exchange.path):
            exchange.silent = True
            return
        if pipeline.queue.careful:
            exchange.own_span = current_span()
        if self._rate < 1 and random() >= self._rate:
            exchange.sampled = False
        elif self._log_requests:
            if alone:
                self._accept(exchange, logging.INFO)
            else:
                self._events.log(exchange)

    def _fail(self, exchange: Exchange, environ: WSGIEnvironment, error: BaseException) -> None:
        """Log the response that the server makes of an exception, with its traceback, which nobody else logs."""
        try:
            if not exchange.begun:
                self._begin(exchange, Request(environ, populate_request=False))
            if exchange.responded and exchange.to_come is None:
                return
            exchange.responded, exchange.to_come = True, None
            if exchange.error is None:
                self._keep_error(exchange, error)
            outcome = Outcome(exchange, "500 INTERNAL SERVER ERROR", None, current.get())
            # As if its context were still there, for filters that look at it.
            run = exchange.variables.run if exchange.variables is not None else copy_context().run
            exchange.variables = None  # they lead to the environment, and that back to the exchange
            run(self._log_afterwards, outcome, (), error)
        except Exception as own:
            _say("wsgi_app", own)
        finally:
            exchange.variables = None  # it may wait in the queue for long

    def _upgraded(self, exchange: Exchange, environ: WSGIEnvironment) -> None:
        """Log the end of a WebSocket: Flask-Sock and others serve it within the request, beside ``start_response``."""
        try:
            upgraded = environ.get("HTTP_UPGRADE", "").lower() == "websocket"
            if upgraded and exchange.begun and exchange.error is None and not exchange.responded:
                exchange.responded = True
                outcome = Outcome(exchange, "101 SWITCHING PROTOCOLS", None, current.get())
                self._log_outcome(outcome, ())
        except Exception as error:
            _say("wsgi_app", error)

    def _on_exception(self, app: Flask, exception: BaseException, **_: object) -> None:
        """An exception that nobody has handled: Flask answers it by a 500, or lets it out."""
        exchange = _exchange()
        if exchange is not None:
            self._keep_error(exchange, exception)
            _keep_span()

    def _keep_error(self, exchange: Exchange, error: BaseException) -> None:
        exchange.note_error(error, show_error(error), error_text(error))

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
        while (exchange := _exchange()) is not None and exchange.pushed_for == number:
            if exc is not None and exchange is served:
                self._fail(exchange, request.environ, exc)
            exchange.variables = None
            current.set(exchange.outer)


def _exchange() -> Exchange | None:
    """The one whose context this is."""
    context = current.get()
    origin = None if context is None else context.origin
    return origin if isinstance(origin, Exchange) else None


def _whole(exchange: Exchange) -> int | None:
    """Bytes that a body should have, beside what was written before it; ``None``: not known."""
    if exchange.to_come is None:
        return None
    status, size, _ = exchange.to_come
    whole = number_of(size) if has_body(exchange.method, status) else 0
    return None if whole is None else max(0, whole - exchange.written)


def _write(exchange: Exchange, write: Callable[[bytes], object], part: bytes) -> object:
    """What ``start_response`` returns, for apps that do not return their body."""
    if exchange.first_write is None and part:
        exchange.first_write = perf_counter()
    result = write(part)
    exchange.written += len(part)
    return result


def _keep_span() -> None:
    """Have what is logged from here to the end of the request, when its span may be over, belong to that span.

    OpenTelemetry's instrumentation of Flask begins it after the ``Request`` record, and ends it in teardown.
    """
    context = current.get()
    if context is not None and (spanned := in_current_span(context)) is not context:
        current.set(spanned)


def _user() -> str | None:
    """Flask-Login's user, if somebody has asked for one in this request: asking may read a database. Never raises.

    So may every attribute of a model's object, after a commit. What the session has of the user is the id itself.
    """
    try:
        user = getattr(g, "_login_user", None) if g else None
        if user is None or _is_anonymous(user):
            return None
        user_id = session.get("_user_id")
        if user_id is None:  # by a header, as a rule
            state = getattr(user, "_sa_instance_state", None)  # SQLAlchemy's
            if getattr(state, "expired", False) or not user.is_authenticated:
                return None
            user_id = user.get_id()
        return None if user_id is None else show(user_id)
    except Exception:  # somebody's own user, session or manager
        return None


def _is_anonymous(user: object) -> bool:
    kind = current_app.login_manager.anonymous_user  # type: ignore[attr-defined]
    if isinstance(user, modules["flask_login"].AnonymousUserMixin) or (isinstance(kind, type) and type(user) is kind):
        return True
    # A function may make them; then they are asked.
    return not isinstance(kind, type) and not cast(Any, user).is_authenticated


# In another thread, `flask.copy_current_request_context` brings Flask's context of the request, and no other variables.

#: The request's context, where code in such a copy has bound something.
_entered: ContextVar[Context | None] = ContextVar("flask_asynclog_entered", default=None)


def _find_in_copy(*, enter: bool = False) -> Context | None:
    exchange = request.environ.get(_KEY) if has_request_context() else None
    if not isinstance(exchange, Exchange):
        return None
    if exchange.responded and "werkzeug.debug.preserve_context" in request.environ:
        return None  # what a test's client keeps after the request is no copy
    if enter:
        request_tearing_down.connect(_leave_copy, current_app._get_current_object())  # type: ignore[attr-defined]
        _entered.set(exchange)
    context = DerivedContext(exchange, exchange.bound_last)
    context.copied = True
    return context


def _leave_copy(app: Flask, **_: object) -> None:
    entered, context = _entered.get(), current.get()
    if entered is not None and (context is None or context.origin is entered):
        _entered.set(None)
        current.set(None)


contexts.find_elsewhere = _find_in_copy
