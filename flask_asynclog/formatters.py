"""Formatters: a record becomes exactly one line.

Run on the listener's thread (or in the caller of a handler used without a queue). Safe to share between threads.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from typing import Any, cast

from flask_asynclog.escaping import escape, escape_json
from flask_asynclog.records import EXCEPTION, STANDARD_ATTRIBUTES, show

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
            text = time.strftime("%Y-%m-%d %H:%M:%S", self.converter(second))
            self._second = (second, text)
        return f"{text},{int(record.msecs):03d}"


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
        attributes = record.__dict__
        exception = attributes.get(EXCEPTION)
        if exception is not None:
            fields["exception.type"], fields["exception.message"] = exception
        traceback = exception_text(self, record)
        if traceback:
            fields["exception.stacktrace"] = traceback
        if record.stack_info:
            fields["stack"] = record.stack_info
        for name, value in attributes.items():
            if name not in STANDARD_ATTRIBUTES and name != EXCEPTION:
                fields[f"extra.{name}" if name in fields else name] = value
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
            return orjson.dumps(fields, default=_show_json, option=orjson.OPT_NON_STR_KEYS).decode()
        except (TypeError, ValueError):  # lone surrogates, integers beyond 64 bits
            pass
    try:
        return json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_show_json)
    except (TypeError, ValueError):  # NaN, infinity, keys that JSON has not
        return json.dumps(_legal_json(fields), ensure_ascii=False, separators=(",", ":"), default=_show_json)


def _show_json(value: object) -> object:
    if isinstance(value, str):  # orjson takes no subclasses of str
        return str(value)
    if hasattr(value, "isoformat"):
        return cast(Any, value).isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)


def _legal_json(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {show(key): _legal_json(item) for key, item in items}
    if isinstance(value, (list, tuple)):
        return [_legal_json(item) for item in cast("list[object]", value)]
    return value
