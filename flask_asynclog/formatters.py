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
import pathlib
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import cast

from flask_asynclog.escaping import escape, escape_json
from flask_asynclog.records import DEEPEST, EXCEPTION, FORMATTER, STANDARD_ATTRIBUTES, exception_summary, show

try:
    import orjson
except ImportError:  # the "fast" extra is not installed: the same lines, slower
    orjson = None  # type: ignore[assignment]

#: The format of Flask's usual recipe.
TEXT_FORMAT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"


class TextFormatter(logging.Formatter):
    """One line of text per record; control characters, those of tracebacks included, are escaped.

    :param fmt: a ``%(…)s`` format of `logging.Formatter`; ``%(request_id)s`` is ``-`` outside requests.
    :param datefmt: a `time.strftime` format; ``None`` gives ``2026-11-22 15:00:00,123``.
    :raises ValueError: if ``fmt`` is not a valid format, or has a line end in it.
    """

    def __init__(self, fmt: str = TEXT_FORMAT, datefmt: str | None = None) -> None:
        super().__init__(fmt, datefmt, defaults={"request_id": "-"})
        if escape(fmt, keep_tabs=True) != fmt:
            raise ValueError("control characters other than TAB in the format: a record is one line")
        self._keep_tabs = "\t" in fmt
        self._uses_time = self.usesTime()
        self._second = (-1, "")

    def format(self, record: logging.LogRecord) -> str:
        """The record on one line; a traceback follows the message after an escaped line end."""
        message = record.getMessage()
        # Tabs of the message are always escaped; further down they may be the format's own.
        record.message = escape(message) if self._keep_tabs else message
        if self._uses_time:
            record.asctime = self.formatTime(record, self.datefmt)
        line = self.formatMessage(record)
        for part in (exception_text(self, record), record.stack_info):
            if part:
                line = f"{line}\n{part}"
        return escape(line, keep_tabs=self._keep_tabs)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """As in `logging.Formatter`; the text of the second, half the cost of a line, is kept."""
        if datefmt:
            return super().formatTime(record, datefmt)
        second = int(record.created)
        known, text = self._second
        if known != second:
            text = time.strftime(self.default_time_format, self.converter(second))
            self._second = (second, text)
        return self.default_msec_format % (text, record.msecs) if self.default_msec_format else text


class JSONFormatter(logging.Formatter):
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
        for name, value in record.__dict__.items():
            if name not in STANDARD_ATTRIBUTES and name not in (EXCEPTION, FORMATTER):
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
