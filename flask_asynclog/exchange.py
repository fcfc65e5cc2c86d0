"""One request and its response: what their two records tell, and the records themselves.

Filled on the request's thread, by `hooks`; rendered where the records are written. By then nothing changes.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import threading
from contextvars import Context as Variables
from contextvars import copy_context
from time import perf_counter
from typing import Any, Protocol

from flask import Request
from werkzeug.sansio.utils import get_current_url, get_host

from flask_asynclog.context import Context
from flask_asynclog.records import CONTEXT, EVENT, Event, event_fields, request_id_field
from flask_asynclog.values import IMMUTABLE

#: Characters of a URL that nobody has to quote, or to decode.
_plain = re.compile(r"[\w/.~!$&'()*+,:;=@-]*", re.ASCII).fullmatch
_plain_query = re.compile(rb"[\w/.~!$&'()*+,:;=@?-]*").fullmatch
#: `logging` counts ``relativeCreated`` from here, seconds since the epoch.
_sample = logging.makeLogRecord({})
_STARTED = _sample.created - _sample.relativeCreated / 1000


class Source:
    """Whose exchanges they are: those of one app. Does not keep the app alive."""

    def __init__(self, logger: str) -> None:
        #: Name of the logger of their records.
        self.logger = logger


class ExchangeEvent(Event, Protocol):
    """What there is to log of an exchange. Not a record yet: most become one where they are written."""

    #: Name of the place in this library that logs it.
    function: str

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
    #: Whether there is nothing more to log.
    responded = False
    #: Whether records of it come to our queue only, see `EventLogger.alone`.
    alone = False
    #: Of an exception that nobody handled, ``TYPE: text``, and its type.
    error: str | None = None
    error_type: str | None = None
    #: The thread it runs on, its number and its name; ``None``: nobody wants to know.
    thread: int | None = None
    thread_name: str | None = None
    #: The context variables of the request, for a record that is made when they are gone.
    variables: Variables | None = None
    #: Where its context was pushed by hand, the id of the request object, and what is to be current behind it.
    pushed_for: int | None = None
    outer: Context | None = None

    def __init__(self, source: Source, request_id: str | None, created: float) -> None:
        self.source = source
        self.request_id = request_id
        #: When it came in, in seconds since the epoch, and of `time.perf_counter`.
        self.created = created
        self.started = perf_counter()

    def begin(self, request: Request, *, thread: bool) -> None:
        """Keep what is to be logged of ``request``; with ``thread``, also which one it runs on."""
        self.method = request.method
        self.path = path = request.path
        #: What `url` is made of.
        self.target: tuple[str, str | None, tuple[str, int | None] | None, str, str, bytes] = (
            request.scheme,
            request.environ.get("HTTP_HOST"),
            request.server,
            request.root_path,
            path,
            request.query_string,
        )
        if thread:
            self.note_thread()
        self.variables = copy_context()
        self.begun = True

    def note_thread(self) -> None:
        """Keep which thread this is."""
        self.thread = threading.get_ident()
        self.thread_name = threading.current_thread().name

    @property
    def exchange(self) -> Exchange:
        """Itself, as of `ExchangeEvent`."""
        return self

    @property
    def name(self) -> str:
        """Of the logger."""
        return self.source.logger

    def __str__(self) -> str:
        return f"{self.method} {self.url}{self.suffix}"

    def fields(self) -> dict[str, object]:
        """By OpenTelemetry's names."""
        return {"http.request.method": self.method, "url.path": self.path}

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
    def url(self) -> str:
        """All of the URL, without control characters."""
        scheme, host, server, root_path, path, query = self.target
        base = _base_url(scheme, host, server)
        if _plain(path) and (not root_path or _plain(root_path)):
            if not query:
                return f"{base}{root_path}{path}"
            if _plain_query(query):
                return f"{base}{root_path}{path}?{query.decode()}"
        # Quoted without a host, whatever that is made of.
        quoted = get_current_url("http", "h", root_path, path, query)
        return f"{base}{quoted.removeprefix('http://h')}"


@functools.lru_cache(256)
def _base_url(scheme: str, host_header: str | None, server: tuple[str, int | None] | None) -> str:
    try:
        host = get_host(scheme, host_header, server)
        return get_current_url(scheme, host)[:-1]
    except Exception:  # as of a host that is no IPv6 address: shown as it came
        return f"{scheme}://{host_header}"


@functools.lru_cache(1)
def _process_name(pid: int) -> str | None:
    """What `multiprocessing` calls this process; a record knows."""
    return logging.makeLogRecord({}).processName


class Outcome:
    """The response of an exchange; and the event that it is ready, or that there is none."""

    __slots__ = ("created", "exchange", "levelno", "seconds", "size", "status")

    message: str = "Response %s"
    function: str = "start_response"

    def __init__(self, exchange: Exchange, status: str, size: str | None) -> None:
        self.exchange = exchange
        #: ``200 OK``.
        self.status = status
        #: Bytes of the body, as of the header; ``None``: not known.
        self.size = size
        self.levelno = logging.INFO if exchange.error is None else logging.ERROR
        #: From the coming of the request.
        self.seconds = seconds = perf_counter() - exchange.started
        self.created = exchange.created + seconds

    @property
    def name(self) -> str:
        """Of the logger."""
        return self.exchange.source.logger

    @property
    def body_size(self) -> int | None:
        """Bytes of the body, where they are known."""
        # Both as an app gave them, which may have another type than WSGI wants.
        if self.size is not None and (size := str(self.size)).isdecimal():
            return int(size)
        return 0 if str(self.status).startswith(("1", "204", "304")) else None

    @property
    def status_code(self) -> int:
        """Number of the status; 0, as Werkzeug has it, where there is none."""
        try:
            return int(self.status[:3])
        except (TypeError, ValueError):
            return 0

    def __str__(self) -> str:
        exchange, size = self.exchange, self.body_size
        text = f"{self.status} {exchange.method} {exchange.path} {self.seconds * 1000:.2f}ms"
        if size is not None:
            text += f" {size}B"
        text += exchange.suffix
        return text if exchange.error is None else f"{text} {exchange.error}"

    def fields(self) -> dict[str, object]:
        """By OpenTelemetry's names; the duration in seconds."""
        exchange, size = self.exchange, self.body_size
        fields: dict[str, object] = {
            "http.response.status_code": self.status_code,
            "http.server.request.duration": round(self.seconds, 6),
        }
        if size is not None:
            fields["http.response.body.size"] = size
        if exchange.error is not None:
            fields["error.type"] = exchange.error_type
        fields.update(exchange.fields())
        return fields

    def record(self) -> logging.LogRecord:
        """The ``Response`` record."""
        return ExchangeRecord(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (self.fields(),)


class ExchangeRecord(logging.LogRecord):
    """A record of an `ExchangeEvent`, made without the walk up the stack that finds the place of a logging call.

    What the event tells can be had by name, ``getattr(record, "http.response.status_code")``, and costs nothing until
    somebody asks.
    """

    def __init__(self, event: ExchangeEvent) -> None:
        # Each of them, in one order: all these records, and their copies, share one table of names.
        exchange = event.exchange
        self.name = event.name
        self.msg = event.message
        self.args = (event,)
        self.levelname = logging.getLevelName(event.levelno)
        self.levelno = event.levelno
        self.pathname = __file__
        self.filename = _FILE
        self.module = _MODULE
        self.exc_info = None
        self.exc_text = None
        self.stack_info = None
        self.lineno = _LINE
        self.funcName = event.function
        self.created = created = event.created
        self.msecs = float(int((created - int(created)) * 1000))
        self.relativeCreated = (created - _STARTED) * 1000
        self.thread = exchange.thread
        self.threadName = exchange.thread_name
        self.process = os.getpid()
        self.processName = _process_name(self.process)
        for name in _OTHERS:
            setattr(self, name, None)
        self._asynclog_event = event
        self._asynclog_context = exchange

    def __getattr__(self, name: str) -> Any:
        fields = self.__dict__
        if not name.startswith("_") and EVENT in fields:
            known = event_fields(fields) | request_id_field(fields)
            if name in known:
                return known[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy, or what goes to another process: of the standard library's types, with all that the event tells.
        fields = {**self.__dict__, "msg": self.getMessage(), "args": None}
        for name, value in (event_fields(fields) | request_id_field(fields)).items():
            fields.setdefault(name, value)
        fields.pop(EVENT, None)
        fields.pop(CONTEXT, None)
        return logging.makeLogRecord, (fields,)


_FILE = os.path.basename(__file__)
_MODULE = _FILE.removesuffix(".py")
_LINE = Exchange.record.__code__.co_firstlineno
#: What newer Pythons have in a record, beside what is set here.
_OTHERS = [name for name in vars(_sample) if name not in ExchangeRecord.__init__.__code__.co_names]
IMMUTABLE.update({Exchange, Outcome})
