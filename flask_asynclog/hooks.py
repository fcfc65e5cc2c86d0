"""The request hooks: one record when a request comes in, one when its response goes out.

Run on the request's thread. A hook never fails a request: its own errors are said once.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from flask import (
    Flask,
    Response,
    got_request_exception,
    request,
    request_finished,
    request_started,
)
from werkzeug.wsgi import get_current_url

from flask_asynclog import context
from flask_asynclog.config import Settings
from flask_asynclog.pipeline import Pipeline
from flask_asynclog.records import show_error
from flask_asynclog.report import Once

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_once = Once()
_Function = TypeVar("_Function", bound=Callable[..., Any])


def _harmless(function: _Function) -> _Function:
    """A failure in ``function`` is said once and ends there; the hook passes on what it was given."""

    @functools.wraps(function)
    def wrapper(self: object, *args: Any, **kwargs: Any) -> Any:
        try:
            return function(self, *args, **kwargs)
        except Exception as error:
            _once.say(f"{function.__name__} {type(error)}", f"{function.__name__}() failed: {show_error(error)}")
            return args[0] if args else None

    return wrapper  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


@dataclass(slots=True)
class _Exchange:
    """One request under way. Lives in its WSGI environment."""

    started: float | None
    request_id: str | None
    outer_request_id: str | None
    method: str
    path: str
    response: Response | None = None
    error: BaseException | None = None
    #: Whether there is nothing to log any more.
    responded: bool = False


class RequestHooks:
    """The hooks of one app.

    The request is begun by `request_started`, which comes before any function that may end it, and by
    ``before_request`` where somebody runs only those. The response is logged at `request_finished`, behind all
    after_request functions and the saving of the session; where an exception prevents that, in the teardown, and
    where another teardown function prevents that, around the whole app. Once, whichever comes first.
    """

    def __init__(self, app: Flask, settings: Settings, pipeline: Pipeline, logger: logging.Logger) -> None:
        self._pipeline = pipeline
        self._logger = logger
        self._log_requests = "request" in settings.request_events
        self._log_responses = "response" in settings.request_events
        self._excludes = settings.excludes
        self._header = settings.request_id_header
        self._environ_header = "HTTP_" + (self._header or "").upper().replace("-", "_")
        self._trust = settings.trust_request_id
        self._key = f"flask_asynclog.exchange.{id(self):x}"
        # First on the way in, last on the way out: after_request and teardown functions run in reverse order. In the
        # teardown the record comes early, before another function can prevent it, and the id goes last.
        app.before_request(self.before_request)
        _move_to_front(app.before_request_funcs[None])
        app.after_request(self.after_request)
        _move_to_front(app.after_request_funcs[None])
        app.teardown_request(self.teardown_request)
        app.teardown_request(self.restore_request_id)
        _move_to_front(app.teardown_request_funcs[None])
        request_started.connect(self.request_started, app)
        got_request_exception.connect(self.got_request_exception, app)
        request_finished.connect(self.request_finished, app)
        self._served_key = f"{self._key}.served"
        self._wsgi_app = app.wsgi_app
        app.wsgi_app = self.wsgi_app  # type: ignore[method-assign]

    def request_started(self, app: Flask, **_: object) -> None:
        """Begin the exchange; log ``Request GET http://…``."""
        self.before_request()

    @_harmless
    def before_request(self) -> None:
        """The same, unless it is begun already."""
        environ = request.environ
        if self._key in environ:
            return
        if self._pipeline.reconfigured:
            self._pipeline.repair()
        exchange = self._begin(perf_counter())
        if self._log_requests and not exchange.responded and self._logger.isEnabledFor(logging.INFO):
            self._logger.info(
                "Request %s %s%s",
                exchange.method,
                get_current_url(environ),
                _suffix(exchange),
                extra=_extra(exchange, {}),
            )

    @_harmless
    def after_request(self, response: Response) -> Response:
        """Echo the request id; the response is returned as it came."""
        exchange = self._exchange()
        exchange.response = response
        if self._header and exchange.request_id:
            response.headers.setdefault(self._header, exchange.request_id)
        return response

    @_harmless
    def got_request_exception(self, app: Flask, exception: BaseException, **_: object) -> None:
        """Keep the exception that makes this response a 500; what was the response before is not."""
        exchange = self._exchange()
        exchange.error, exchange.response = exception, None

    @_harmless
    def request_finished(self, app: Flask, response: Response, **_: object) -> None:
        """Log ``Response 200 OK …``."""
        exchange = self._exchange()
        exchange.response = response
        self._respond(exchange)

    @_harmless
    def teardown_request(self, error: BaseException | None) -> None:
        """Log the response of a request whose exception left Flask, while its context is still there.

        ``error`` is not looked at: it may be that of a copied context, in a thread that the request outlives.
        """
        exchange: _Exchange | None = request.environ.get(self._key)
        if exchange is not None and exchange.error is not None:
            self._respond(exchange)

    def wsgi_app(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """The app, with an end that nothing prevents: the response is logged, the context has its former id back."""
        outer_request_id = context.request_id.get()
        exchange: _Exchange | None
        # An environ may come back: that of the request around this one, copied, or that of a first try.
        former = environ.pop(self._key, None)
        environ[self._served_key] = True
        try:
            return self._wsgi_app(environ, start_response)
        except BaseException as error:
            exchange = environ.get(self._key)
            if exchange is not None:
                exchange.error, exchange.response = exchange.error or error, None
            raise
        finally:
            self.finish_request(environ.get(self._key))
            if former is not None:
                environ[self._key] = former
            context.request_id.set(outer_request_id)

    @_harmless
    def restore_request_id(self, error: BaseException | None) -> None:
        """Give the context its former request id back, where it was pushed by hand: otherwise `wsgi_app` does."""
        exchange: _Exchange | None = request.environ.get(self._key)
        if exchange is not None and self._served_key not in request.environ:
            context.request_id.set(exchange.outer_request_id)

    @_harmless
    def finish_request(self, exchange: _Exchange | None) -> None:
        """Log the response if nothing else has."""
        if exchange is not None:
            self._respond(exchange)

    def _begin(self, started: float | None) -> _Exchange:
        environ = request.environ
        request_id, outer_request_id = None, context.request_id.get()
        if self._header:
            claimed = environ.get(self._environ_header, "")
            trusted = self._trust and context.well_formed_request_id(claimed)
            request_id = claimed if trusted else context.new_request_id()
            context.request_id.set(request_id)
        exchange = environ[self._key] = _Exchange(started, request_id, outer_request_id, request.method, request.path)
        exchange.responded = self._excludes(request.path) is not None
        return exchange

    def _exchange(self) -> _Exchange:
        exchange: _Exchange | None = request.environ.get(self._key)
        return self._begin(None) if exchange is None else exchange

    def _respond(self, exchange: _Exchange) -> None:
        if exchange.responded:
            return
        exchange.responded = True
        response, error = exchange.response, exchange.error
        level = logging.INFO if error is None else logging.ERROR
        if not self._log_responses or not self._logger.isEnabledFor(level):
            return
        status, code = "500 INTERNAL SERVER ERROR", 500
        if response is not None:
            status, code = response.status, response.status_code
        fields: dict[str, object] = {"http.response.status_code": code}
        details = f"{exchange.method} {exchange.path}"
        if exchange.started is not None:
            duration = perf_counter() - exchange.started
            fields["http.server.request.duration"] = round(duration, 6)
            details += f" {duration * 1000:.2f}ms"
        size = None if response is None else _body_size(response)
        if size is not None:
            fields["http.response.body.size"] = size
            details += f" {size}B"
        details += _suffix(exchange)
        if error is not None:
            fields["error.type"] = type(error).__qualname__
            details += f" {show_error(error)}"
        # Flask logs the traceback of an exception that it answers; of one that leaves it, nobody would.
        left = error is not None and response is None
        self._logger.log(
            level, "Response %s %s", status, details, extra=_extra(exchange, fields), exc_info=error if left else None
        )


def _move_to_front(functions: list[Any]) -> None:
    functions.insert(0, functions.pop())


def _suffix(exchange: _Exchange) -> str:
    return f" id={exchange.request_id}" if exchange.request_id else ""


def _extra(exchange: _Exchange, fields: dict[str, object]) -> dict[str, object]:
    fields["http.request.method"] = exchange.method
    fields["url.path"] = exchange.path
    if exchange.request_id:
        fields["request_id"] = exchange.request_id
    return fields


def _body_size(response: Response) -> int | None:
    """Bytes of the body where they are known without reading it: a stream is not touched."""
    if response.is_sequence:
        return response.calculate_content_length()
    return response.content_length
