"""The response of an exchange: what its record tells.

Made on the thread that hands it over or has sent it; rendered where the record is written. By then nothing changes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from time import perf_counter
from typing import Any

from flask_asynclog import fields
from flask_asynclog.context import Context
from flask_asynclog.exchange import Exchange
from flask_asynclog.exchangerecord import ExchangeRecord
from flask_asynclog.headers import number_of
from flask_asynclog.urls import without_blanks
from flask_asynclog.values import IMMUTABLE


def _text(status: object) -> str:
    return status.decode("latin-1") if isinstance(status, bytes) else str(status)


def has_body(method: str, status: object) -> bool:
    """Whether a response to ``method`` with ``status`` has a body: RFC 9110 §6.4.1."""
    text = status if type(status) is str else _text(status)
    return method != "HEAD" and not text.startswith(("1", "204", "304"))


def is_server_error(status: object) -> bool:
    """Whether ``status`` says that the server has failed."""
    return _text(status) >= "5"


class Outcome:
    """The response of an exchange; and the event that it is ready, or that there is none.

    :param status: ``200 OK``.
    :param size: bytes of the body, as of the header; ``None``: not known.
    :param context: the one it was logged in.
    """

    __slots__ = ("context", "exchange", "levelno", "seconds", "size", "status")

    message: str = "Response %s"
    function: str = "start_response"

    #: Bytes sent, seconds to the first of them, whether the client went: of a `SentOutcome`.
    sent: int | None = None
    first_byte: float | None = None
    aborted = False
    #: Headers that the options name, and their values.
    headers: Sequence[tuple[str, str]] = ()

    def __init__(self, exchange: Exchange, status: str, size: str | None, context: Context | None = None) -> None:
        self.exchange = exchange
        # Both as an app gave them, which may have another type than WSGI wants.
        self.size = size
        self.status = status = status if type(status) is str else _text(status)
        self.context = context or exchange
        #: From the coming of the request.
        self.seconds = seconds = perf_counter() - exchange.started
        source = exchange.source
        if status < "4" and seconds < source.slow_threshold and exchange.error is None:
            self.levelno = logging.INFO
        elif status >= "5" or exchange.error is not None:
            self.levelno = logging.ERROR
        else:
            client_error = source.client_error_level if status >= "4" else logging.INFO
            slow = logging.WARNING if seconds >= source.slow_threshold else logging.NOTSET
            self.levelno = max(client_error, slow)

    @property
    def created(self) -> float:
        """Seconds since the epoch."""
        return self.exchange.created + self.seconds

    @property
    def notable(self) -> bool:
        """Whether it failed or is slow: then it is logged whatever the sample, and what was held for it, too."""
        return self.levelno >= logging.ERROR or self.seconds >= self.exchange.source.slow_threshold

    @property
    def name(self) -> str:
        """Of the logger."""
        return self.exchange.source.logger

    @property
    def shown_context(self) -> Context:
        """See `HookEvent`."""
        return self.context.redacted(self.exchange.source.redactor)

    @property
    def thread(self) -> int | None:
        """See `HookEvent`."""
        return self.exchange.thread

    @property
    def thread_name(self) -> str | None:
        """See `HookEvent`."""
        return self.exchange.thread_name

    @property
    def code(self) -> int:
        """``200``; 0, as Werkzeug has it, where there is no number."""
        return number_of(self.status[:3].strip()) or 0

    @property
    def body_size(self) -> int | None:
        """Bytes of the body, where they are known: those that were sent."""
        if type(self) is SentOutcome:
            if self.sent is not None:
                return self.sent
            if self.aborted:
                return None
        return number_of(self.size) if has_body(self.exchange.method, self.status) else 0

    @property
    def error_type(self) -> str | None:
        """The exception's; the status where there was none, as OpenTelemetry has it."""
        if self.exchange.error_type is None and self.status.startswith("5"):
            return self.status[:3]
        return self.exchange.error_type

    @property
    def error_message(self) -> str | None:
        """The exception's text."""
        return self.exchange.without_matches(self.exchange.error_message) or None

    @property
    def user(self) -> str | None:
        """Who was logged in."""
        return self.exchange.without_matches(self.exchange.user)

    @property
    def sample_rate(self) -> float | None:
        """Which share of its like is logged."""
        rate = self.exchange.source.sample_rate
        return None if rate >= 1 else 1.0 if self.notable else rate

    def __str__(self) -> str:
        return self.text()

    def text(self) -> str:
        """What the message says of it."""
        exchange, status = self.exchange, self.status
        # What most are, in two thirds of the time: the number of the header, as it stands there.
        size: str | int | None = self.size
        if type(self) is not Outcome or type(size) is not str or status[:3] != "200" or exchange.method == "HEAD":
            size = self.body_size
        elif not (size.isdecimal() and size.isascii() and len(size) < 19):
            size = None
        shown_size = "" if size is None else f" {size}B"
        milliseconds = f"{self.seconds * 1000:.2f}ms"
        identity = f" id={exchange.request_id}" if exchange.request_id else ""
        if type(self) is Outcome and exchange.error is None and exchange.has_plain_path:
            return f"{status} {exchange.method} {exchange.path} {milliseconds}{shown_size}{identity}"
        aborted = " aborted" if self.aborted else ""
        error = "" if exchange.error is None else f" {exchange.error}"
        path = exchange.shown_path
        if " " in path or not path.isascii():
            path = without_blanks(path)
        text = f"{status} {exchange.method} {path} {milliseconds}{shown_size}{aborted}{identity}{error}"
        return exchange.source.redactor.text(text)

    def __repr__(self) -> str:  # what others show of a record's arguments, Sentry for one
        return str(self)

    def summary(self) -> tuple[float, str, int, str]:
        """See `Event`."""
        exchange = self.exchange
        return exchange.created + self.seconds, exchange.source.logger, self.levelno, f"Response {self.text()}"

    def fields(self) -> dict[str, object]:
        """By OpenTelemetry's names; the duration in seconds."""
        known = fields.read_all(fields.RESPONSE, self)
        known.update(self.exchange.fields())
        redactor = self.exchange.source.redactor
        for name, value in self.headers:
            shown = redactor.value(name, value)
            known.setdefault(f"http.response.header.{name.lower()}", []).append(shown)  # type: ignore[attr-defined]
        return known

    def record(self) -> logging.LogRecord:
        """The ``Response`` record."""
        return ExchangeRecord(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (self.fields(),)


class SentOutcome(Outcome):
    """One with more to tell: of how it was sent, or its headers."""

    __slots__ = ("aborted", "first_byte", "headers", "sent")

    def __init__(self, exchange: Exchange, status: str, size: str | None, context: Context | None = None) -> None:
        super().__init__(exchange, status, size, context)
        self.sent, self.first_byte, self.aborted, self.headers = None, None, False, ()


IMMUTABLE.update({Outcome, SentOutcome})
