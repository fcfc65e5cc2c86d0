"""One request and its response: what their two records tell.

Filled on the request's thread, by `hooks`; rendered where the records are written. By then nothing changes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextvars import Context as Variables
from time import perf_counter
from typing import Any, Protocol

from flask import Request

from flask_asynclog import fields
from flask_asynclog.context import Context
from flask_asynclog.exchangerecord import ExchangeRecord, HookEvent
from flask_asynclog.headers import decoded, visible
from flask_asynclog.held import HeldRecords
from flask_asynclog.requestparts import RequestParts
from flask_asynclog.source import KEYS, Source
from flask_asynclog.values import IMMUTABLE, error_text, show_error


class ExchangeEvent(HookEvent, Protocol):
    """What there is to log of an exchange. Not a record yet: most become one where they are written."""

    @property
    def exchange(self) -> Exchange:
        """Whose event it is."""
        ...


class Exchange(RequestParts):
    """A request, from its coming to its response; and the event of its coming.

    Texts and numbers, nothing that belongs to a server. What most exchanges never set, the class has.
    """

    message: str = "Request %s"
    function: str = "preprocess_request"
    levelno = logging.INFO
    #: Whether it is to make no records.
    silent = False
    #: Whether it is among those that are logged in any case.
    sampled = True
    #: Whether records of it come to our queue only, see `EventLogger.alone`.
    alone = False
    #: Whether that is so, and there is nothing to decide about its response if that is whole.
    plain = False
    #: Whether all of the response is there when it is handed over.
    ordinary = False
    #: Bytes that the app has written itself, and when it began, of `time.perf_counter`.
    written = 0
    first_write: float | None = None
    #: Of an exception that nobody handled, ``TYPE: text``, its type and text.
    error: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    #: The same of one that came when the response was logged already.
    late_error: str | None = None
    #: Whether it may only have been a way to answer, as ``abort(404)`` is: the status tells.
    may_be_answer = False
    #: The thread it runs on, its number and its name; ``None``: nobody wants to know.
    thread: int | None = None
    thread_name: str | None = None
    #: The user who is logged in, as far as the view knows.
    user: str | None = None
    #: Records below the normal level, until it is known whether they are wanted.
    held: HeldRecords | None = None
    #: The context variables of the request, for a record that is made when they are gone.
    variables: Variables | None = None
    #: Where its context was pushed by hand, the id of the request object, and what is to be current behind it.
    pushed_for: int | None = None
    outer: Context | None = None
    #: What was bound before it began.
    _context: Context | None = None
    #: Of `fields`, when somebody has asked.
    _fields: dict[str, object] | None = None

    def __init__(self, source: Source, request_id: str | None, created: float) -> None:
        self.source = source
        self.request_id = request_id
        #: When it came in, in seconds since the epoch, and of `time.perf_counter`.
        self.created = created
        self.started = perf_counter()
        # What every exchange is asked for: of the class, each look takes four times as long.
        self.drains = None
        #: Whether `begin` was called.
        self.begun = False
        #: Whether the response is known, or that there is none.
        self.responded = False
        #: Status and `Content-Length` of a response that is still to be sent.
        self.to_come: tuple[str, str | None, Sequence[tuple[str, str]]] | None = None

    def begin(self, request: Request, fields: bool, thread: bool) -> None:
        """Keep what is to be logged of ``request``.

        :param fields: all of it, rather than what the text lines have.
        :param thread: also which thread it runs on.
        """
        self.method = request.method
        self.path = path = request.path
        self.target = (
            request.scheme,
            request.environ.get("HTTP_HOST"),
            request.server,
            request.root_path,
            path,
            request.query_string,
        )
        if fields:  # each look into the environment is a miss of the processor's cache
            self.sent_client = request.remote_addr or None
            self.rule = request.url_rule
            self.sent = tuple(map(request.environ.get, self.source.keys))
        if thread:
            self.note_thread()
        self.begun = True

    def note_thread(self) -> None:
        """Keep which thread this is."""
        self.thread = threading.get_ident()
        self.thread_name = threading.current_thread().name

    def note_error(self, error: BaseException) -> None:
        """Keep an exception that nobody handled, as text."""
        self.error, self.error_type, self.error_message = show_error(error), type(error).__qualname__, error_text(error)

    def forget_error(self) -> None:
        """It was the answer, and no failure."""
        self.error = self.error_type = self.error_message = None

    @property
    def exchange(self) -> Exchange:
        """Itself, as of `ExchangeEvent`."""
        return self

    @property
    def context(self) -> Context:
        """Itself, as of `Event`, unless something was bound before it began."""
        return self._context or self

    @context.setter
    def context(self, context: Context | None) -> None:
        self._context = context

    @property
    def shown_context(self) -> Context:
        """See `HookEvent`."""
        return self.context.redacted(self.source.redactor)

    @property
    def name(self) -> str:
        """Of the logger."""
        return self.source.logger

    def __str__(self) -> str:
        return self.text()

    def text(self) -> str:
        """What the message says of it."""
        identity = f" id={self.without_matches(self.request_id)}" if self.request_id else ""
        return f"{self.method} {self.url}{identity}"

    def __repr__(self) -> str:  # what others show of a record's arguments
        return str(self) if self.begun else super().__repr__()

    def summary(self) -> tuple[float, str, int, str]:
        """See `Event`."""
        return self.created, self.source.logger, logging.INFO, f"Request {self.text()}"

    def fields(self) -> dict[str, object]:
        """By OpenTelemetry's names."""
        known = self._fields
        if known is None:  # both records are asked
            known = self._fields = self._read_fields()
        # Whoever gets them may change them.
        return {name: value.copy() if type(value) is list else value for name, value in known.items()}

    def _read_fields(self) -> dict[str, object]:
        known = fields.read_all(fields.REQUEST, self)
        kept = () if self.sent is None else self.sent[len(KEYS) :]
        for name, value in zip(self.source.request_headers, kept, strict=False):
            if value is not None:
                shown = self.source.redactor.value(name, visible(decoded(value)))
                known[f"http.request.header.{name}"] = [shown]
        return known

    def record(self) -> logging.LogRecord:
        """The ``Request`` record."""
        return ExchangeRecord(self)

    def __reduce__(self) -> tuple[Any, ...]:
        # As of `recordfields.event_fields`.
        return dict, (self.fields(),)

    @property
    def holder(self) -> HeldRecords | None:
        """See `Context.holder`."""
        return self.held


IMMUTABLE.add(Exchange)
