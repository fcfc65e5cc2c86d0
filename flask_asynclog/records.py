"""A record made safe to be read later by another thread.

`snapshot` runs in the caller's thread, while the request is still there. The record that other handlers see is never
touched: what changes, changes in the copy.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Any, NamedTuple, cast

from flask_asynclog.context import Context, here
from flask_asynclog.redaction import REDACTED, Redactor
from flask_asynclog.values import IMMUTABLE, error_text, freeze, show, show_error

_new = object.__new__


def new_record(fields: Mapping[str, Any] = MappingProxyType({})) -> logging.LogRecord:
    """A record with these attributes, made by no factory: what an app's adds is not ours to have, and it may raise."""
    record = logging.LogRecord("", logging.NOTSET, "", 0, "", (), None)
    record.__dict__.update(fields)
    return record


_plain = list(vars(new_record()))
#: Number of attributes of a record that nobody has added any to.
PLAIN = len(_plain)
#: The last of them: where it is gone (``taskName`` makes some people's JSON untidy), as many may be others.
LAST = _plain[-1]
#: Attributes that every record has, or gets from a formatter; all others came by ``extra``, a filter or a factory.
STANDARD_ATTRIBUTES = frozenset(_plain) | {"message", "asctime", "taskName"}

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

_plain_formatter = logging.Formatter()


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


def snapshot(
    record: logging.LogRecord, formatter: logging.Formatter | None = None, context: Context | None = None
) -> logging.LogRecord:
    """A record of the same class with the same content, safe to be formatted on another thread.

    The message is rendered here if its arguments may change, mutable ``extra`` values are copied, values bound to the
    request are resolved, and the traceback becomes text (by ``formatter``, so a custom ``formatException`` counts).
    Where a class of its own made the message (``getMessage``), the copy is a plain record: it would make it again.
    Never raises for what a user's object does in ``__str__``, ``__repr__`` or ``__mod__``.

    :param formatter: makes text of a traceback.
    :param context: the one it is logged in; ``None``: the current one.
    """
    fields = record.__dict__.copy()
    args, kind = record.args, type(record)
    if type(record.msg) is not str or (args and not _all_immutable(args)):
        text = render(record)
        if makes_own_message(record):
            kind = logging.LogRecord  # what it makes of a message, it has made
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
    return copied(record, fields, kind)


def copied(
    record: logging.LogRecord, fields: dict[str, Any], kind: type[logging.LogRecord] | None = None
) -> logging.LogRecord:
    """A record of the same class, or of ``kind``, with these attributes; those in slots are copied."""
    copy: logging.LogRecord = _new(kind or type(record))
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
        slots: str | Iterable[str] = cls.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            private = slot.startswith("__") and not slot.endswith("__")
            name = f"_{cls.__name__.lstrip('_')}{slot}" if private else slot
            if hasattr(record, name):
                setattr(copied, name, freeze(getattr(record, name)))


def own_record(text: str, *args: object) -> logging.LogRecord:
    """A WARNING of this library itself, for its own log."""
    return new_record(
        {"name": "flask_asynclog", "levelno": logging.WARNING, "levelname": "WARNING", "msg": text, "args": args}
    )


def _all_immutable(args: object) -> bool:
    if type(args) is not tuple:  # a single mapping for %(name)s
        return False
    return all(type(value) in IMMUTABLE for value in cast("tuple[object, ...]", args))


def makes_own_message(record: logging.LogRecord) -> bool:
    """Whether its class makes messages in its own way: of a text that it has made, it would make another one."""
    return type(record).getMessage is not logging.LogRecord.getMessage


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
