"""Formatters: a record becomes exactly one line.

Run on the listener's thread (or in the caller of a handler used without a queue). Safe to share between threads.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import json
import logging
import math
import operator
import pathlib
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from flask_asynclog.escaping import escape, escape_json
from flask_asynclog.records import (
    CONTEXT,
    EVENT,
    INTERNAL_ATTRIBUTES,
    STANDARD_ATTRIBUTES,
    Entry,
    Event,
    complete,
    event_fields,
    exception_summary,
    request_id_field,
    restore,
)
from flask_asynclog.values import DEEPEST, show

try:
    import orjson
except ImportError:  # the "fast" extra is not installed: the same lines, slower
    orjson = None  # type: ignore[assignment]

#: The format of Flask's usual recipe.
TEXT_FORMAT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"


#: A field of a %-format: ``%(name)s`` with flags, width, precision; or ``%%``.
_FIELD = re.compile(r"%(?:\((?P<name>[^)]*)\)(?P<rest>[#0+ -]*\d*(?:\.\d+)?[diouxXeEfFgGcrsa])|%)")
#: Fields of a format that are ``-`` where a record has no such thing.
_CONTEXT_FIELDS = {"request_id": "-"}
#: Fields of a format that an event has without a record of it.
_EVENT_FIELDS = frozenset({"asctime", "levelname", "message", "name"})


class EntryFormatter(logging.Formatter):
    """Formats what waits in the queue, too; finds request id and parts of an event where such a record has them."""

    #: Whether the lines tell threads.
    shows_threads = True

    def format_entry(self, entry: Entry) -> str:
        """The line of the record that `records.restore` makes of ``entry``."""
        return self.format(restore(entry))


class TextFormatter(EntryFormatter):
    """One line of text per record; control characters, those of tracebacks included, are escaped.

    :param fmt: a ``%(…)s`` format of `logging.Formatter`; ``%(request_id)s`` is ``-`` outside requests.
    :param datefmt: a `time.strftime` format; ``None`` gives ``2026-11-22 15:00:00,123``.
    :raises ValueError: if ``fmt`` is not a valid format, or has a line end in it.
    """

    def __init__(self, fmt: str = TEXT_FORMAT, datefmt: str | None = None) -> None:
        super().__init__(fmt, datefmt, defaults=_CONTEXT_FIELDS)
        if escape(fmt, keep_tabs=True) != fmt:
            raise ValueError("control characters other than TAB in the format: a record is one line")
        self._keep_tabs = "\t" in fmt
        self._uses_time = self.usesTime()
        #: Second, millisecond, and their texts: half the cost of a line otherwise.
        self._stamp = (-1, -1.0, "", "")
        names = [match["name"] for match in _FIELD.finditer(fmt) if match["name"] is not None]
        self._needs_context = not _CONTEXT_FIELDS.keys().isdisjoint(names)
        # "%(a)s %(b)s" with a dictionary takes twice as long as "%s %s" with a tuple.
        self._positional = _FIELD.sub(lambda match: "%%" if match["name"] is None else f"%{match['rest']}", fmt)
        self._values: Callable[[Mapping[str, object]], Any] | None = None
        untouched = all(
            getattr(type(self), name) is getattr(TextFormatter, name)
            for name in ("format", "formatMessage", "formatTime", "formatException", "formatStack")
        )
        self.shows_threads = not untouched or "%(thread" in fmt
        if untouched and len(names) > 1 and not (self._needs_context or datefmt or "%" in _FIELD.sub("", fmt)):
            self._values = operator.itemgetter(*names)
        self._knows_events = self._values is not None and _EVENT_FIELDS.issuperset(names)

    def format(self, record: logging.LogRecord) -> str:
        """The record on one line; a traceback follows the message after an escaped line end."""
        fields = record.__dict__
        if self._is_simple(fields) and record.__class__ is logging.LogRecord:
            return self._simple_line(fields)
        message = record.getMessage()
        # Tabs of the message are always escaped; further down they may be the format's own.
        fields["message"] = escape(message) if self._keep_tabs else message
        if self._uses_time:
            fields["asctime"] = self.formatTime(record, self.datefmt)
        line = self.formatMessage(complete(record) if self._needs_context else record)
        for part in (exception_text(self, record), record.stack_info):
            if part:
                line = f"{line}\n{part}"
        return escape(line, keep_tabs=self._keep_tabs)

    def format_entry(self, entry: Entry) -> str:
        """See `EntryFormatter`."""
        if isinstance(entry, dict):
            return self._simple_line(entry) if self._is_simple(entry) else self.format(restore(entry))
        if isinstance(entry, logging.LogRecord):
            return self.format(entry)
        return self._event_line(entry) if self._knows_events else self.format(restore(entry))

    # In a third of the time, for what most records are.

    def _is_simple(self, fields: Mapping[str, object]) -> bool:
        return self._values is not None and not (fields["exc_info"] or fields["exc_text"] or fields["stack_info"])

    def _simple_line(self, fields: dict[str, Any]) -> str:
        message, args = str(fields["msg"]), fields["args"]
        return self._finish(fields, message % args if args else message, fields["created"], fields["msecs"])

    def _event_line(self, event: Event) -> str:
        created = event.created
        fields: dict[str, Any] = {"name": event.name, "levelname": logging.getLevelName(event.levelno)}
        return self._finish(fields, event.message % event, created, int((created - int(created)) * 1000))

    def _finish(self, fields: dict[str, Any], message: str, created: float, milliseconds: float) -> str:
        assert self._values is not None
        fields["message"] = escape(message) if self._keep_tabs else message
        if self._uses_time:
            fields["asctime"] = self._time(created, milliseconds)
        line = self._positional % self._values(fields)
        # One pass in C over what nearly every line is.
        return line if line.isprintable() else escape(line, keep_tabs=self._keep_tabs)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """As in `logging.Formatter`."""
        return super().formatTime(record, datefmt) if datefmt else self._time(record.created, record.msecs)

    def _time(self, created: float, milliseconds: float) -> str:
        # Half the cost of a line: so the text is kept, for a second, and for a millisecond.
        second = int(created)
        known, known_milliseconds, date, text = self._stamp
        if known != second:
            date = time.strftime(self.default_time_format, self.converter(second))
        elif known_milliseconds == milliseconds:
            return text
        text = self.default_msec_format % (date, milliseconds) if self.default_msec_format else date
        self._stamp = (second, milliseconds, date, text)
        return text


class JSONFormatter(EntryFormatter):
    """One JSON object per record, on one line, in UTF-8.

    Keys: ``timestamp`` (ISO 8601, microseconds, UTC offset), ``level``, ``logger``, ``message``, ``process.pid``,
    ``thread.name``; ``request_id`` in requests; ``exception.type``, ``exception.message`` and
    ``exception.stacktrace`` (OpenTelemetry's names) and ``stack`` where there is one; then every ``extra``
    value under its own name, or as ``extra.NAME`` where that name is one of the above.

    Uses ``orjson`` when it is installed (the ``fast`` extra).
    """

    def __init__(self) -> None:
        super().__init__()
        self._second = (-1, "", "")

    def format(self, record: logging.LogRecord) -> str:
        """The record as a JSON object on one line."""
        fields: dict[str, object] = {
            "timestamp": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process.pid": record.process,
            "thread.name": record.threadName,
        }
        exception = exception_summary(record)
        if exception is not None:
            fields["exception.type"], fields["exception.message"] = exception
        traceback = exception_text(self, record)
        if traceback:
            fields["exception.stacktrace"] = traceback
        if record.stack_info:
            fields["stack"] = record.stack_info
        added = record.__dict__
        if CONTEXT in added and "request_id" not in added:
            fields.update(request_id_field(added))
        if EVENT in added:
            fields.update(event_fields(added))
        for name, value in added.items():
            if name not in STANDARD_ATTRIBUTES and name not in INTERNAL_ATTRIBUTES:
                while name in fields:
                    name = f"extra.{name}"  # noqa: PLW2901
                fields[name] = _json_value(value)
        return escape_json(_dumps(fields))

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """ISO 8601 in local time with microseconds and offset; ``datefmt`` has no meaning here."""
        second = math.floor(record.created)
        known, text, offset = self._second
        if known != second:
            local = time.localtime(second)
            text = time.strftime("%Y-%m-%dT%H:%M:%S", local)
            offset = time.strftime("%z", local)
            offset = f"{offset[:3]}:{offset[3:]}"
            self._second = (second, text, offset)
        return f"{text}.{int((record.created - second) * 1_000_000):06d}{offset}"


def exception_text(formatter: logging.Formatter, record: logging.LogRecord) -> str | None:
    """The record's traceback as text.

    Not kept on the record: another handler's formatter may write tracebacks in its own way (cpython#137790).
    """
    if record.exc_info:
        return formatter.formatException(record.exc_info)
    return record.exc_text


def _dumps(fields: dict[str, object]) -> str:
    if orjson is not None:
        try:
            return orjson.dumps(fields).decode()
        except TypeError:  # lone surrogates, integers beyond 64 bits
            pass
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def _json_value(value: object, depth: int = 0) -> object:
    """``value`` in JSON's own types, so that every JSON writer makes the same of it."""
    if value is None or type(value) in (str, int, bool):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, enum.Enum):
        return str(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, (decimal.Decimal, uuid.UUID, pathlib.PurePath)):
        return str(value)
    if depth < DEEPEST:
        if isinstance(value, Mapping):
            items = cast("Mapping[object, object]", value).items()
            return {_json_key(key): _json_value(item, depth + 1) for key, item in items}
        if isinstance(value, (list, tuple)):
            return [_json_value(item, depth + 1) for item in cast("Sequence[object]", value)]
    return show(value)


def _json_key(key: object) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    return json.dumps(key) if key is None or isinstance(key, bool) else show(key)
