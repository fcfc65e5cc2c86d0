"""One request and its response: what their two records tell.

Filled on the request's thread, by `hooks`; rendered where the records are written. By then nothing changes.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Sequence
from contextvars import Context as Variables
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from flask import Request

from flask_asynclog import fields
from flask_asynclog.context import Context, Span
from flask_asynclog.exchangerecord import ExchangeRecord, HookEvent
from flask_asynclog.headers import decoded, number_of, visible
from flask_asynclog.held import HeldRecords
from flask_asynclog.source import KEYS, LENGTH, PROTOCOL, REFERER, TRACEPARENT, USER, USER_AGENT, Source
from flask_asynclog.tracing import parse_traceparent
from flask_asynclog.urls import Target, base_url, quoted_path, simple_path, simple_query
from flask_asynclog.values import IMMUTABLE, error_text, show_error

if TYPE_CHECKING:
    from werkzeug.routing import Rule

#: What a URL with a name and its value, or with a password, has in it.
_may_tell = re.compile("[=@%]").search

_Target: TypeAlias = tuple[str, str | None, tuple[str, int | None] | None, str, str, bytes]


class ExchangeEvent(HookEvent, Protocol):
    """What there is to log of an exchange. Not a record yet: most become one where they are written."""

    @property
    def exchange(self) -> Exchange:
        """Whose event it is."""
        ...


class Exchange(Context):
    """A request, from its coming to its response; and the event of its coming.

    Texts and numbers, nothing that belongs to a server. What most exchanges never set, the class has.
    """

    message: str = "Request %s"
    function: str = "preprocess_request"
    levelno = logging.INFO
    drains = None
    #: Whether `begin` was called.
    begun = False
    #: Whether the response is known, or that there is none.
    responded = False
    #: Whether it is to make no records.
    silent = False
    #: Whether it is among those that are logged in any case.
    sampled = True
    #: Whether records of it come to our queue only, see `EventLogger.alone`.
    alone = False
    #: Whether all of the response is there when it is handed over.
    ordinary = False
    #: Status and `Content-Length` of a response that is still to be sent.
    to_come: tuple[str, str | None, Sequence[tuple[str, str]]] | None = None
    #: Bytes that the app has written itself, and when it began, of `time.perf_counter`.
    written = 0
    first_write: float | None = None
    #: Of an exception that nobody handled, ``TYPE: text``, its type and text.
    error: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    #: The thread it runs on, its number and its name; ``None``: nobody wants to know.
    thread: int | None = None
    thread_name: str | None = None
    #: The user who is logged in, as far as the view knows.
    user: str | None = None
    #: Records below the normal level, until it is known whether they are wanted.
    held: HeldRecords | None = None
    #: Address of the client, as it is; the rule that it matched; of the environment, the values of the source's keys.
    #: ``None``: nobody wants to know.
    sent_client: str | None = None
    rule: Rule | None = None
    sent: tuple[Any, ...] | None = None
    #: The context variables of the request, for a record that is made when they are gone.
    variables: Variables | None = None
    #: Where its context was pushed by hand, the id of the request object, and what is to be current behind it.
    pushed_for: int | None = None
    outer: Context | None = None
    #: What was bound before it began.
    _context: Context | None = None

    def __init__(self, source: Source, request_id: str | None, created: float) -> None:
        self.source = source
        self.request_id = request_id
        #: When it came in, in seconds since the epoch, and of `time.perf_counter`.
        self.created = created
        self.started = perf_counter()

    def begin(self, request: Request, *, fields: bool, thread: bool) -> None:
        """Keep what is to be logged of ``request``.

        :param fields: all of it, rather than what the text lines have.
        :param thread: also which thread it runs on.
        """
        self.method = request.method
        self.path = path = request.path
        self.target: _Target = (
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
        return f"{self.method} {self.url}{self.suffix}"

    def __repr__(self) -> str:  # what others show of a record's arguments
        return str(self) if self.begun else super().__repr__()

    def fields(self) -> dict[str, object]:
        """By OpenTelemetry's names."""
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
        # As of `records.event_fields`.
        return dict, (self.fields(),)

    @property
    def suffix(self) -> str:
        """What the messages have of the request id."""
        return f" id={self.request_id}" if self.request_id else ""

    @property
    def holder(self) -> HeldRecords | None:
        """See `Context.holder`."""
        return self.held

    # The parts, by the names that `fields` reads them by.

    @property
    def url(self) -> str:
        """All of the URL, without control characters and secrets."""
        scheme, host, server, root_path, path, query = self.target
        redactor = self.source.redactor
        if not root_path and simple_path(path) and not redactor.patterns:
            base = base_url(scheme, host, server)
            if "@" not in base:
                if not query:
                    return base + path
                if simple_query(query):
                    return f"{base}{path}?{redactor.query(query.decode())}"
        target = Target._make(self.target)
        return self._without_secrets(f"{target.base}{target.relative}")

    @property
    def request_target(self) -> str:
        """Path and query as they stood in the request's first line, without secrets."""
        _, _, _, root_path, path, query = self.target
        target = quoted_path(self._without_secrets(root_path.rstrip("/") + path))
        if query:
            # A blank would end it there. All else is as it was sent.
            sent = query.decode("utf-8", "surrogateescape").replace(" ", "%20")
            target = f"{target}?{self.source.redactor.query(sent)}"
        return self.source.redactor.text(target)

    @property
    def shown_path(self) -> str:
        """The path, decoded, without secrets."""
        path = self.path
        return path if simple_path(path) and not self.source.redactor.patterns else self._without_secrets(path)

    @property
    def span(self) -> Span | None:
        """OpenTelemetry's, or that of the ``traceparent`` header."""
        header = self._kept(TRACEPARENT)
        return self.own_span or (parse_traceparent(header) if header else None)

    @property
    def query(self) -> str:
        """The query string, without secrets."""
        query = self.target[5].decode("utf-8", "backslashreplace")
        return self.source.redactor.query(query) if query else query

    @property
    def scheme(self) -> str:
        """``http`` or ``https``."""
        return self.target[0]

    @property
    def route(self) -> str | None:
        """The rule that the path matched."""
        return None if self.rule is None else self.rule.rule

    @property
    def endpoint(self) -> str | None:
        """The endpoint of the view."""
        return None if self.rule is None else str(self.rule.endpoint)

    @property
    def blueprint(self) -> str | None:
        """The blueprint of the view."""
        return (self.endpoint or "").rpartition(".")[0] or None

    @property
    def client(self) -> str | None:
        """Address of the client."""
        return self.without_matches(self.sent_client)

    @property
    def remote_user(self) -> str | None:
        """The user whom the server has checked."""
        return self.without_matches(decoded(self._kept(USER)))

    @property
    def user_agent(self) -> str | None:
        """What the client calls itself."""
        return visible(self.sent_user_agent)

    @property
    def sent_user_agent(self) -> str | None:
        """The same, with the bytes that are no UTF-8 as surrogates."""
        return self.without_matches(decoded(self._kept(USER_AGENT)))

    @property
    def referer(self) -> str | None:
        """Where the client comes from, without secrets."""
        return visible(self.sent_referer)

    @property
    def sent_referer(self) -> str | None:
        """The same, with the bytes that are no UTF-8 as surrogates."""
        text = decoded(self._kept(REFERER))
        return self.source.redactor.url(text) if text else None

    @property
    def server_address(self) -> str | None:
        """Name or address of the server, as the client called it."""
        return self.without_matches(Target._make(self.target).address)

    @property
    def server_port(self) -> int | None:
        """The port that the client called."""
        return Target._make(self.target).port

    @property
    def protocol(self) -> str:
        """``HTTP/1.1``."""
        return self._kept(PROTOCOL) or ""

    @property
    def protocol_version(self) -> str | None:
        """``1.1``."""
        return self.protocol.removeprefix("HTTP/") or None

    @property
    def body_size(self) -> int | None:
        """Bytes of the request's body, as of its header."""
        return number_of(self._kept(LENGTH))

    def _without_secrets(self, url: str) -> str:
        redactor = self.source.redactor
        return redactor.url(url) if redactor.patterns or _may_tell(url) else url

    def without_matches(self, text: str | None) -> str | None:
        """A text without what the patterns match."""
        redactor = self.source.redactor
        return redactor.text(text) if text and redactor.patterns else text

    def _kept(self, index: int) -> str | None:
        return None if self.sent is None else self.sent[index] or None


IMMUTABLE.add(Exchange)
