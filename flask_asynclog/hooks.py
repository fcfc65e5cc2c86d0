"""The request hooks: one record when a request comes in, one when its response goes out.

Run on the request's thread. A hook never fails a request: its own errors are said once.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from time import perf_counter
from types import TracebackType
from typing import Any, TypeVar

from flask import Flask, Response, got_request_exception, request
from werkzeug.wsgi import get_current_url

from flask_asynclog import context
from flask_asynclog.config import Settings
from flask_asynclog.pipeline import Pipeline
from flask_asynclog.records import show_error
from flask_asynclog.report import Once

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
    """One request under way. Lives in its WSGI environment, so nested requests have their own."""

    started: float | None
    request_id: str | None
    outer_request_id: str | None
    error: BaseException | None = None
    responded: bool = False


class RequestHooks:
    """The hooks of one app."""

    def __init__(self, app: Flask, settings: Settings, pipeline: Pipeline, logger: logging.Logger) -> None:
        self._pipeline = pipeline
        self._logger = logger
        self._log_requests = "request" in settings.request_events
        self._log_responses = "response" in settings.request_events
        self._header = settings.request_id_header
        self._environ_header = "HTTP_" + (self._header or "").upper().replace("-", "_")
        self._trust = settings.trust_request_id
        self._key = f"flask_asynclog.exchange.{id(self):x}"
        # First on the way in, last on the way out: after_request functions run in reverse order.
        app.before_request(self.before_request)
        _move_to_front(app.before_request_funcs[None])
        app.after_request(self.after_request)
        _move_to_front(app.after_request_funcs[None])
        # These run in reverse order as well: the record early, before a failing teardown function could prevent it;
        # the request id goes last, so that the others still log with it.
        app.teardown_request(self.teardown_request)
        app.teardown_request(self.restore_request_id)
        _move_to_front(app.teardown_request_funcs[None])
        got_request_exception.connect(self.note_exception, app)

    @_harmless
    def before_request(self) -> None:
        """Begin the exchange; log ``Request GET http://…``."""
        if self._pipeline.reconfigured:
            self._pipeline.repair()
        environ = request.environ
        exchange = environ[self._key] = self._begin(perf_counter())
        if self._log_requests and self._logger.isEnabledFor(logging.INFO):
            self._logger.info(
                "Request %s %s%s",
                request.method,
                get_current_url(environ),
                _suffix(exchange),
                extra=_extra(exchange, {"http.request.method": request.method, "url.path": request.path}),
            )

    @_harmless
    def after_request(self, response: Response) -> Response:
        """Log ``Response 200 OK …``, echo the request id; the response is returned as it came."""
        exchange = self._exchange()
        if self._header and exchange.request_id:
            response.headers.setdefault(self._header, exchange.request_id)
        self._respond(exchange, response.status, response.status_code, _body_size(response))
        return response

    @_harmless
    def teardown_request(self, error: BaseException | None) -> None:
        """Log the response of a request whose exception left Flask: no after_request function saw it."""
        exchange = self._exchange()
        if exchange.responded:
            return
        exchange.error = exchange.error or error
        if exchange.error is None:
            return  # a context pushed by hand: no request was served
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        raised = exchange.error
        self._respond(
            exchange,
            f"{status.value} {status.phrase.upper()}",
            status.value,
            None,
            (type(raised), raised, raised.__traceback__),
        )

    @_harmless
    def restore_request_id(self, error: BaseException | None) -> None:
        """Give the context its former request id back: none, or that of the request around this one."""
        exchange = request.environ.get(self._key)
        if exchange is not None:
            context.request_id.set(exchange.outer_request_id)

    @_harmless
    def note_exception(self, app: Flask, exception: BaseException, **_: object) -> None:
        """Keep the exception that makes this response a 500."""
        self._exchange().error = exception

    def _begin(self, started: float | None) -> _Exchange:
        outer = context.request_id.get()
        request_id = None
        if self._header:
            claimed = request.environ.get(self._environ_header, "")
            trusted = self._trust and context.well_formed_request_id(claimed)
            request_id = claimed if trusted else context.new_request_id()
            context.request_id.set(request_id)
        return _Exchange(started, request_id, outer)

    def _exchange(self) -> _Exchange:
        exchange: _Exchange | None = request.environ.get(self._key)
        if exchange is None:  # ended before before_request, by a URL value preprocessor for example
            exchange = request.environ[self._key] = self._begin(None)
        return exchange

    def _respond(
        self,
        exchange: _Exchange,
        status: str,
        code: int,
        size: int | None,
        exc_info: tuple[type[BaseException], BaseException, TracebackType | None] | None = None,
    ) -> None:
        if exchange.responded:
            return
        exchange.responded = True
        level = logging.INFO if exchange.error is None else logging.ERROR
        if not self._log_responses or not self._logger.isEnabledFor(level):
            return
        fields: dict[str, object] = {
            "http.request.method": request.method,
            "url.path": request.path,
            "http.response.status_code": code,
        }
        details = f"{request.method} {request.path}"
        if exchange.started is not None:
            duration = perf_counter() - exchange.started
            fields["http.server.request.duration"] = round(duration, 6)
            details += f" {duration * 1000:.2f}ms"
        if size is not None:
            fields["http.response.body.size"] = size
            details += f" {size}B"
        details += _suffix(exchange)
        if exchange.error is not None:
            fields["error.type"] = type(exchange.error).__qualname__
            details += f" {show_error(exchange.error)}"
        self._logger.log(level, "Response %s %s", status, details, extra=_extra(exchange, fields), exc_info=exc_info)


def _move_to_front(functions: list[Any]) -> None:
    functions.insert(0, functions.pop())


def _suffix(exchange: _Exchange) -> str:
    return f" id={exchange.request_id}" if exchange.request_id else ""


def _extra(exchange: _Exchange, fields: dict[str, object]) -> dict[str, object]:
    if exchange.request_id:
        fields["request_id"] = exchange.request_id
    return fields


def _body_size(response: Response) -> int | None:
    """Bytes of the body where they are known without reading it: a stream is not touched."""
    if response.is_sequence:
        return response.calculate_content_length()
    return response.content_length
