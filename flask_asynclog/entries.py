"""What waits in a queue for one record: as little as will do, which for most is not a record.

`capture` runs in the caller's thread, while the request is still there; `restore` where the record is written.
"""

from __future__ import annotations

import logging
import os
from typing import Any, Protocol, TypeAlias, cast

from flask_asynclog.context import Context
from flask_asynclog.records import CONTEXT, EVENT, FORMATTER, LAST, PLAIN, makes_own_message, new_record, snapshot
from flask_asynclog.values import IMMUTABLE

_new = object.__new__
#: The attributes that a `Brief` has, in its order.
BRIEF = ("levelno", "process", "created", "msecs", "name", "levelname", "msg", "args")
#: What all the others are where only that is known: nobody wanted to know when it was logged.
_UNKNOWN: dict[str, Any] = {
    **dict.fromkeys(vars(new_record())),
    "lineno": 0,
    "relativeCreated": 0.0,
    "pathname": "",
    "filename": "",
    "module": "",
}


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
        if record.__class__ is logging.LogRecord:
            return plain_attributes(record, context) or snapshot(record, formatter, context)
    return snapshot(record, formatter, context)


def plain_attributes(record: logging.LogRecord, context: Context | None) -> dict[str, Any] | None:
    """All that an ordinary record tells, copied; ``None``: it has more than a record has as a rule."""
    fields = record.__dict__.copy()
    if len(fields) != PLAIN or next(reversed(fields)) != LAST:
        return None
    if context is not None:
        fields[CONTEXT] = context
    return fields


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
            or makes_own_message(record)  # it may know more, of ``extra`` for one
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
