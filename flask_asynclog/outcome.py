"""The response of an exchange: what its record tells.

Made on the thread that hands it over or has sent it; rendered where the record is written. By then nothing changes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from time import perf_counter

from flask_asynclog import fields
from flask_asynclog.context import Context
from flask_asynclog.exchange import Exchange
from flask_asynclog.exchangerecord import ExchangeRecord
from flask_asynclog.headers import number_of
from flask_asynclog.values import IMMUTABLE


class Outcome:
    """The response of an exchange; and the event that it is ready, or sent, or that there is none.

    :param status: ``200 OK``.
    :param size: bytes of the body, as of the header; ``None``: not known.
    :param context: the one it was logged in.
    """

    __slots__ = (
        "aborted", "context", "created", "exchange", "first_byte", "headers", "levelno", "seconds", "sent", "size",
        "status",
    )  # fmt: skip

    message: str = "Response %s"
    function: str = "start_response"

    def __init__(self, exchange: Exchange, status: str, size: str | None, context: Context | None = None) -> None:
        self.exchange = exchange
        self.status = status
        self.size = size
        self.context = context or exchange
        #: Bytes sent, seconds to the first of them, whether the client went: of a streamed response.
        self.sent: int | None = None
        self.first_byte: float | None = None
        self.aborted = False
        #: Those that the options name, and their values.
        self.headers: Sequence[tuple[str, str]] = ()
        #: From the coming of the request.
        self.seconds = seconds = perf_counter() - exchange.started
        self.created = exchange.created + seconds
        source = exchange.source
        if status[:1] == "5" or exchange.error is not None:
            self.levelno = logging.ERROR
        else:
            self.levelno = source.client_error_level if status[:1] == "4" else logging.INFO
            if seconds >= source.slow_threshold:
                self.levelno = max(self.levelno, logging.WARNING)

    @property
    def notable(self) -> bool:
        """Whether it failed or is slow: then it is logged whatever the sample, and what was held for it, too."""
        return self.levelno >= logging.ERROR or self.seconds >= self.exchange.source.slow_threshold

    @property
    def name(self) -> str:
        """Of the logger."""
        return self.exchange.source.logger

    @property
    def code(self) -> int | None:
        """``200``."""
        return number_of(self.status[:3])

    @property
    def body_size(self) -> int | None:
        """Bytes of the body, where they are known: those that were sent."""
        if self.sent is not None:
            return self.sent
        if self.exchange.method == "HEAD" or self.status.startswith(("1", "204", "304")):
            return 0
        return number_of(self.size)

    @property
    def error_type(self) -> str | None:
        """The exception's; the status where there was none, as OpenTelemetry has it."""
        if self.exchange.error_type is None and self.status.startswith("5"):
            return self.status[:3]
        return self.exchange.error_type

    @property
    def error_message(self) -> str | None:
        """The exception's text."""
        message = self.exchange.error_message
        return self.exchange.source.redactor.text(message) if message else None

    @property
    def user(self) -> str | None:
        """Who was logged in."""
        return self.exchange.user

    @property
    def sample_rate(self) -> float | None:
        """Which share of its like is logged."""
        rate = self.exchange.source.sample_rate
        return None if rate >= 1 else 1.0 if self.notable else rate

    def __str__(self) -> str:
        exchange, size = self.exchange, self.body_size
        text = f"{self.status} {exchange.method} {exchange.shown_path} {self.seconds * 1000:.2f}ms"
        if size is not None:
            text += f" {size}B"
        if self.aborted:
            text += " aborted"
        text += exchange.suffix
        text = text if exchange.error is None else f"{text} {exchange.error}"
        redactor = exchange.source.redactor
        return redactor.text(text) if redactor.patterns else text

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


IMMUTABLE.add(Outcome)
