"""A record made safe to be read later by another thread.

`capture` and `snapshot` run in the caller's thread, while the request is still there; `restore` where the record is
written. The record that other handlers see is never touched: what changes, changes in the copy.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, NamedTuple, Protocol, TypeAlias, cast

from flask_asynclog.context import Context, here
from flask_asynclog.redaction import REDACTED, Redactor
from flask_asynclog.values import IMMUTABLE, error_text, freeze, show, show_error

#: Attributes that every record has, or gets from a formatter; all others came by ``extra``, a filter or a factory.
STANDARD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
}

#: Attribute of a copy: the summary of the exception whose traceback is in ``exc_text``.
EXCEPTION = "_asynclog_exception"
#: Attribute of a copy: the formatter of the handler it came by, where that is not the file's.
FORMATTER = "_asynclog_formatter"
#: Attribute of a copy: the `Context` it was logged in.
CONTEXT = "_asynclog_context"
#: Attribute of a record that tells of an `Event`.
EVENT = "_asynclog_event"
#: What a record may have beside what it is about.
INTERNAL_ATTRIBUTES = frozenset({EXCEPTION, FORMATTER, CONTEXT, EVENT})

_new = object.__new__
_plain = list(vars(logging.makeLogRecord({})))
#: Number of attributes of a record that nobody has added any to.
PLAIN = len(_plain)
#: The last of them: where it is gone (``taskName`` makes some people's JSON untidy), as many may be others.
LAST = _plain[-1]
_plain_formatter = logging.Formatter()
#: The attributes that a `Brief` has, in its order.
BRIEF = ("levelno", "process", "created", "msecs", "name", "levelname", "msg", "args")
#: What all the others are where only that is known: nobody wanted to know when it was logged.
_UNKNOWN: dict[str, Any] = {
    **dict.fromkeys(_plain),
    "lineno": 0,
    "relativeCreated": 0.0,
    "pathname": "",
    "filename": "",
    "module": "",
}


class ExceptionSummary(NamedTuple):
    """What a traceback's text does not tell apart."""

    type: str
    message: str


class DictMessage(dict[object, object]):
    """A message that is a dictionary, copied. Formatters that know such, structlog's for one, find its items."""

    def __init__(self, items: Mapping[object, object], text: str) -> None:
        super().__init__(items)
        #: What it was as text when it was logged.
        self.text = text

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple[Any, ...]:
        return DictMessage, (dict(self), self.text)

    def redacted(self, redactor: Redactor) -> DictMessage:
        """The same without secrets: by the names of its items and by patterns."""
        shown = redactor.value("", dict(self))
        if not isinstance(shown, dict):
            return DictMessage({}, REDACTED)
        items = cast("dict[object, object]", shown)
        return DictMessage(items, redactor.text(self.text if items == self else str(items)))


class Event(Protocol):
    """What a record tells of, as its one argument: rendered when it is formatted, unchanged from its logging on."""

    #: As of `logging.LogRecord`; the message without its argument.
    levelno: int
    message: str

    @property
    def created(self) -> float:
        """Seconds since the epoch."""
        ...

    @property
    def name(self) -> str:
        """Of the logger."""
        ...

    @property
    def context(self) -> Context:
        """The one it happened in."""
        ...

    def __str__(self) -> str:
        """What the message says of it."""
        ...

    def summary(self) -> tuple[float, str, int, str]:
        """When it happened, in seconds since the epoch, name of the logger, level and message."""
        ...

    def fields(self) -> dict[str, object]:
        """The parts of it, by the names that structured formats use."""
        ...

    def record(self) -> logging.LogRecord:
        """The record of it."""
        ...


#: What a plain line of text tells of a record: level, process, creation in seconds and its milliseconds, names of
#: logger and level, message and arguments. A third of the memory of all attributes, which counts: what waits pushes
#: other things out of the processor's cache.
Brief: TypeAlias = "tuple[int, int | None, float, float, str, str, str, Any]"
#: What waits in a queue for one record: all its attributes, which is what can be copied fastest; what a line of text
#: tells of it, where nobody wants to know more; a record; or the event that it will be of.
Entry: TypeAlias = "dict[str, Any] | Brief | logging.LogRecord | Event"


def capture(record: logging.LogRecord, context: Context | None, formatter: logging.Formatter | None = None) -> Entry:
    """What `restore` makes a `snapshot` of ``record`` from. For most records one copy of a dictionary."""
    if record.exc_info is None and type(record.msg) is str:
        args = record.args
        if args:
            if type(args) is not tuple:  # a single mapping for %(name)s
                return snapshot(record, formatter, context)
            for value in args:
                if type(value) not in IMMUTABLE:
                    return snapshot(record, formatter, context)
        fields = record.__dict__.copy()
        if len(fields) == PLAIN and next(reversed(fields)) == LAST and record.__class__ is logging.LogRecord:
            if context is not None:
                fields[CONTEXT] = context
            return fields
    return snapshot(record, formatter, context)


def as_brief(entry: Entry) -> Entry:
    """What a line of text tells of an entry, in a few values that refer to nothing else.

    The message of an event is put together now. The entry itself where a line has more to tell, where that is for
    others to say, or where it cannot be said: whoever writes it says why.
    """
    if isinstance(entry, tuple):
        return entry
    try:
        if not isinstance(entry, (dict, logging.LogRecord)):
            return event_brief(entry)
        record = restore(entry)
        fields = vars(record)
        if (
            fields["exc_info"]
            or fields["exc_text"]
            or fields["stack_info"]
            or FORMATTER in fields
            or type(fields["msg"]) is not str  # a dictionary, which has secrets by the names of its items
            or type(record).getMessage is not logging.LogRecord.getMessage  # it may know more, of ``extra`` for one
        ):
            return entry
        *values, message, args = (fields[name] for name in BRIEF)
        return cast(Brief, (*values, record.getMessage(), None) if EVENT in fields else (*values, message, args))
    except Exception:
        return entry


def event_brief(event: Event) -> Brief:
    """What a line of text tells of an event, with its message put together."""
    created, name, levelno, message = event.summary()
    level = logging.getLevelName(levelno)
    return levelno, os.getpid(), created, milliseconds_of(created), name, level, message, None


def milliseconds_of(created: float) -> float:
    """The whole milliseconds of a time in seconds, as a record has them beside it."""
    return float(int((created - int(created)) * 1000))


def brief_fields(brief: Brief) -> dict[str, Any]:
    """Its attributes by their names."""
    return dict(zip(BRIEF, brief, strict=True))


def format_by(entry: Entry, formatter: logging.Formatter) -> None:
    """Have a record that was captured become a line by ``formatter``, whatever the file's is."""
    fields = entry if isinstance(entry, dict) else vars(entry)
    fields[FORMATTER] = formatter


def has_formatter(entry: Entry) -> bool:
    """Whether `format_by` was called for it."""
    if isinstance(entry, dict):
        return FORMATTER in entry
    return isinstance(entry, logging.LogRecord) and FORMATTER in vars(entry)


def level_of(entry: Entry) -> int:
    """The record's level."""
    if isinstance(entry, tuple):
        return entry[0]
    return entry["levelno"] if isinstance(entry, dict) else entry.levelno


def process_of(entry: Entry) -> object:
    """Id of the process that logged it; ``None`` if that is not known.

    That of an event is this one: a process that serves requests forks no others to serve them.
    """
    if isinstance(entry, tuple):
        return entry[1]
    if isinstance(entry, dict):
        return entry.get("process")
    return getattr(entry, "process", None) if isinstance(entry, logging.LogRecord) else os.getpid()


def restore(entry: Entry) -> logging.LogRecord:
    """The record that was captured, or that tells of the event."""
    if isinstance(entry, dict):
        record: logging.LogRecord = _new(logging.LogRecord)
        record.__dict__ = entry
        return record
    if isinstance(entry, tuple):
        record = _new(logging.LogRecord)
        # No factory: of the thread that asks now, and of this moment, a record must not tell.
        record.__dict__.update(_UNKNOWN, **brief_fields(entry))
        return record
    return entry if isinstance(entry, logging.LogRecord) else entry.record()


def snapshot(
    record: logging.LogRecord, formatter: logging.Formatter | None = None, context: Context | None = None
) -> logging.LogRecord:
    """A record of the same class with the same content, safe to be formatted on another thread.

    The message is rendered here if its arguments may change, mutable ``extra`` values are copied, values bound to the
    request are resolved, and the traceback becomes text (by ``formatter``, so a custom ``formatException`` counts).
    Never raises for what a user's object does in ``__str__``, ``__repr__`` or ``__mod__``.

    :param formatter: makes text of a traceback.
    :param context: the one it is logged in; ``None``: the current one.
    """
    fields = record.__dict__.copy()
    args = record.args
    if type(record.msg) is not str or (args and not _all_immutable(args)):
        text = render(record)
        message: str | DictMessage = text
        if issubclass(type(record.msg), dict) and not args and isinstance(items := freeze(record.msg), dict):
            message = DictMessage(cast("dict[object, object]", items), text)
        fields["msg"], fields["args"] = message, None
    if record.exc_info:
        fields.update(_exception_fields(record, formatter or _plain_formatter))
    for name in _added(record, fields):
        fields[name] = freeze(fields[name])
    context = context or here()
    if context is not None:
        fields.setdefault(CONTEXT, context)
    return copied(record, fields)


def copied(record: logging.LogRecord, fields: dict[str, Any]) -> logging.LogRecord:
    """A record of the same class, with these attributes; those in slots are copied."""
    copy: logging.LogRecord = _new(type(record))
    copy.__dict__.update(fields)
    if type(record) is not logging.LogRecord:
        _copy_slots(record, copy)
    return copy


def _added(record: logging.LogRecord, fields: dict[str, object]) -> list[str]:
    """The attributes that came by ``extra``, a filter or a factory, and may change."""
    names: Iterable[str] = fields
    if type(record) is logging.LogRecord:
        added = islice(fields, PLAIN - 1, None)  # the standard ones are set first
        if next(added, None) == LAST:
            names = added
    return [
        name
        for name in names
        if type(fields[name]) not in IMMUTABLE and name not in STANDARD_ATTRIBUTES and name not in INTERNAL_ATTRIBUTES
    ]


def _copy_slots(record: logging.LogRecord, copied: logging.LogRecord) -> None:
    for cls in type(record).__mro__:
        for name in cls.__dict__.get("__slots__", ()):
            if hasattr(record, name):
                setattr(copied, name, freeze(getattr(record, name)))


def own_record(text: str, *args: object) -> logging.LogRecord:
    """A WARNING of this library itself, for its own log."""
    return logging.makeLogRecord(
        {"name": "flask_asynclog", "levelno": logging.WARNING, "levelname": "WARNING", "msg": text, "args": args}
    )


def _all_immutable(args: object) -> bool:
    if type(args) is not tuple:  # a single mapping for %(name)s
        return False
    return all(type(value) in IMMUTABLE for value in cast("tuple[object, ...]", args))


def render(record: logging.LogRecord) -> str:
    """The message with its arguments; where they do not fit each other, both and the reason, never nothing."""
    try:
        return record.getMessage()
    except Exception as error:
        return f"{show(record.msg)} {show(record.args)} [not formatted: {show_error(error)}]"


def _exception_fields(record: logging.LogRecord, formatter: logging.Formatter) -> dict[str, object]:
    exc_info = record.exc_info
    if not isinstance(exc_info, tuple) or len(exc_info) != 3:  # made by hand
        return {"exc_info": None}
    try:
        text = formatter.formatException(cast(Any, exc_info))
    except Exception as error:
        text = f"{show(exc_info[1])} [traceback not formatted: {show_error(error)}]"
    fields: dict[str, object] = {"exc_info": None, "exc_text": text}
    summary = exception_summary(record)
    if summary is not None:
        fields[EXCEPTION] = summary
    return fields


def exception_summary(record: logging.LogRecord) -> ExceptionSummary | None:
    """Type and message of the record's exception, of a snapshot or not; ``None`` without one."""
    kept = record.__dict__.get(EXCEPTION)
    if isinstance(kept, ExceptionSummary):
        return kept
    value = record.exc_info[1] if record.exc_info else None
    if value is None:
        return None
    return ExceptionSummary(type(value).__qualname__, error_text(value))
