"""A record made safe to be read later by another thread.

Runs in the caller's thread, while the request is still there. The record that other handlers see is never
touched: what changes, changes in the snapshot.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import logging
import pathlib
import uuid
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple, cast

from werkzeug.local import LocalProxy

from flask_asynclog import context

#: Exact types whose values cannot change behind the record's back.
_IMMUTABLE = frozenset({str, int, float, bool, bytes, complex, type(None)})

#: Types kept as they are in ``extra``, subclasses included: immutable, and every format can show them.
_VALUES = (
    str,
    int,
    float,
    bytes,
    complex,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    decimal.Decimal,
    uuid.UUID,
    pathlib.PurePath,
    enum.Enum,
)

#: Attributes that every record has, or gets from a formatter; all others came by ``extra``, a filter or a factory.
STANDARD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
}

#: Attribute of a snapshot: the summary of the exception whose traceback is in ``exc_text``.
EXCEPTION = "_asynclog_exception"


#: Attribute of a snapshot: the formatter of the handler it came by, where that is not the file's.
FORMATTER = "_asynclog_formatter"


class ExceptionSummary(NamedTuple):
    """What a traceback's text does not tell apart."""

    type: str
    message: str


#: Levels of nesting that a value may have.
DEEPEST = 8
#: Values that one ``extra`` may have, those of its containers included.
MOST_VALUES = 10_000

_plain_formatter = logging.Formatter()


def snapshot(
    record: logging.LogRecord, formatter: logging.Formatter | None = None, *, own_formatter: bool = False
) -> logging.LogRecord:
    """A record of the same class with the same content, safe to be formatted on another thread.

    Costs one copy of the attributes' dictionary when message and arguments are immutable. Otherwise the message
    is rendered here, mutable ``extra`` values are copied, values bound to the request are resolved, and the
    traceback becomes text (by ``formatter``, so a custom ``formatException`` counts).
    Never raises for what a user's object does in ``__str__``, ``__repr__`` or ``__mod__``. With ``own_formatter`` the
    snapshot becomes a line by ``formatter``, whatever the file's is.
    """
    fields = record.__dict__.copy()
    args = record.args
    if type(record.msg) is not str or (args and not _all_immutable(args)):
        fields["msg"], fields["args"] = render(record), None
    if record.exc_info:
        fields.update(_exception_fields(record, formatter or _plain_formatter))
    for name in fields.keys() - STANDARD_ATTRIBUTES:
        if type(fields[name]) not in _IMMUTABLE and name not in (EXCEPTION, FORMATTER):
            fields[name] = freeze(fields[name])
    request_id = context.request_id.get()
    if request_id is not None:
        fields.setdefault("request_id", request_id)
    if own_formatter:
        fields[FORMATTER] = formatter
    copied: logging.LogRecord = object.__new__(type(record))
    copied.__dict__.update(fields)
    if type(record) is not logging.LogRecord:
        _copy_slots(record, copied)
    return copied


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
    return all(type(value) in _IMMUTABLE for value in cast("tuple[object, ...]", args))


def render(record: logging.LogRecord) -> str:
    """The message with its arguments; where they do not fit each other, both and the reason, never nothing."""
    try:
        return record.getMessage()
    except Exception as error:
        return f"{show(record.msg)} {show(record.args)} [not formatted: {show_error(error)}]"


def show(value: object) -> str:
    """``repr(value)``, or why it has none. Strings are shown as they are."""
    if isinstance(value, str):
        return value
    try:
        return repr(value)
    except Exception as error:
        return f"<{type(value).__name__}: repr() raised {type(error).__name__}>"


def show_error(error: BaseException) -> str:
    """``ValueError: text`` of an exception, also when its ``__str__`` raises."""
    text = _error_text(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _error_text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:
        return f"<str() raised {type(broken).__name__}>"


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
    return ExceptionSummary(type(value).__qualname__, _error_text(value))


def freeze(value: object, depth: int = 0, budget: list[int] | None = None) -> object:
    """A copy of ``value`` that no other thread changes: containers copied, other objects as their ``repr``.

    Proxies are resolved here, where their request is. Nesting beyond 8 levels and values beyond the first 10,000
    become ``"…"``, so that cycles and large objects cost a logging call milliseconds at most.
    """
    if type(value) in _IMMUTABLE:
        return value
    budget = [MOST_VALUES] if budget is None else budget
    try:
        if isinstance(value, LocalProxy):
            try:
                value = cast(Any, value)._get_current_object()
            except Exception as error:  # outside its context, as a rule
                return f"<unbound: {show_error(error).splitlines()[0]}>"
        if isinstance(value, _VALUES):
            return value
        if depth >= DEEPEST:
            return "…"
        if isinstance(value, Mapping):
            copied: dict[object, object] = {}
            for key, item in cast("Mapping[object, object]", value).items():
                budget[0] -= 1
                if budget[0] < 0:
                    copied["…"] = "…"
                    break
                copied[key if type(key) in _IMMUTABLE else show(key)] = freeze(item, depth + 1, budget)
            return copied
        if isinstance(value, (list, tuple, AbstractSet)):
            items: list[object] = []
            for item in cast("list[object]", value):
                budget[0] -= 1
                if budget[0] < 0:
                    items.append("…")
                    break
                items.append(freeze(item, depth + 1, budget))
            return items
    except Exception as error:  # changed while it was copied, or an object that raises when it is looked at
        kind = type(value).__name__  # pyright: ignore[reportUnknownArgumentType]
        return f"<{kind}: {show_error(error).splitlines()[0]}>"
    return show(value)
