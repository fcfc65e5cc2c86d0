"""Formats with fields: JSON by OpenTelemetry's names or by ECS's, and logfmt.

Run where records are written. Safe to share between threads.
"""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from typing import cast

from flask_asynclog import fields
from flask_asynclog.jsonvalues import dumps, json_value
from flask_asynclog.recordfields import context_fields, context_of, event_fields
from flask_asynclog.records import (
    INTERNAL_ATTRIBUTES,
    STANDARD_ATTRIBUTES,
    exception_summary,
)
from flask_asynclog.textformat import EntryFormatter, exception_text

#: Where our own logging calls stand: an access line's, for one, is of no interest.
_PACKAGE = os.path.join(os.path.dirname(__file__), "")


class StructuredFormatter(EntryFormatter):
    """What formats with fields have in common: which fields there are, and the time."""

    def __init__(self) -> None:
        super().__init__()
        self._second = (-1, "", "")

    def fields(self, record: logging.LogRecord) -> dict[str, object]:
        """The fields of ``record``, by OpenTelemetry's names; those of `added_fields` are not among them."""
        record.message = record.getMessage()
        known: dict[str, object] = {fields.TIMESTAMP.name: self.formatTime(record)}
        known.update(fields.read_all(fields.RECORD, record))
        attributes = record.__dict__
        if record.lineno and not str(record.pathname).startswith(_PACKAGE):  # a logging call made it
            known.update(fields.read_all(fields.CODE, record))
        known.update(context_fields(context_of(attributes)))
        if "request_id" in attributes:  # of somebody who knows better
            known.pop("request_id", None)
        exception = exception_summary(record)
        if exception is not None:
            known.update(fields.read_all(fields.EXCEPTION, exception))
        for field, text in (
            (fields.STACKTRACE, exception_text(self, record)),
            (fields.STACK, record.stack_info),
        ):
            if text:
                known[field.name] = text
        known.update(event_fields(attributes))
        return known

    def added_fields(self, record: logging.LogRecord, known: Mapping[str, object]) -> dict[str, object]:
        """What was bound, and what came by ``extra``; as ``extra.NAME`` where a name is ``known`` or taken."""
        attributes = record.__dict__
        context = context_of(attributes)
        added: dict[str, object] = {}
        values: dict[str, object] = {} if context is None else dict(context.bound)
        values.update(
            (name, value)
            for name, value in attributes.items()
            if name not in STANDARD_ATTRIBUTES and name not in INTERNAL_ATTRIBUTES
        )
        numbers: dict[str, int] = {}
        for name, value in values.items():
            shown = plain = self.added_name(name, value)
            if shown in known or shown in added:
                shown = f"extra.{plain}"
            while shown in known or shown in added:  # numbered, as clients may have given the names
                number = numbers[plain] = numbers.get(plain, 1) + 1
                shown = f"extra.{number}.{plain}"
            added[shown] = json_value(value)
        return added

    def added_name(self, name: str, value: object) -> str:
        """What a name of the user's own becomes, unless it is taken."""
        return name

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


class JSONFormatter(StructuredFormatter):
    """One JSON object per record, on one line, in UTF-8: fields by OpenTelemetry's names.

    What was bound and every ``extra`` value comes under its own name, or as ``extra.NAME`` where a field has that name.
    Values that JSON has no type for are shown by `repr`, NaN and infinities are ``null``.

    Uses ``orjson`` when it is installed (the ``fast`` extra), which makes the same bytes.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as a JSON object on one line."""
        known = {
            name: json_value(value) if type(value) is float else value for name, value in self.fields(record).items()
        }
        known.update(self.added_fields(record, known))
        return dumps(known)


#: The version of ECS whose names these are.
ECS_VERSION = "8.11.0"


def _above(name: str) -> Iterator[str]:
    """``http.request`` and ``http`` of ``http.request.method``."""
    while (name := name.rpartition(".")[0]) != "":
        yield name


#: What ECS 8.11, or a record here, has fields below: a value of such a name would make Elasticsearch refuse the whole
#: document.
_OBJECTS = frozenset({
    "agent", "client", "cloud", "container", "data_stream", "destination", "device", "dll", "dns", "ecs", "email",
    "error", "event", "faas", "file", "group", "host", "http", "labels", "log", "network", "observer", "orchestrator",
    "organization", "package", "process", "registry", "related", "rule", "server", "service", "source", "span",
    "threat", "tls", "trace", "transaction", "url", "user", "user_agent", "volume", "vulnerability",
    "extra", "http.request.header", "http.response.header",
    *(above for field in fields.BY_NAME.values() if field.ecs is not None for above in _above(field.ecs or field.name)),
})  # fmt: skip


class ECSFormatter(StructuredFormatter):
    """The same by the names of the Elastic Common Schema 8.11, with ``event.duration`` in nanoseconds.

    A value of the name of an ECS object, as of ``extra={"user": 42}``, comes as ``extra.user``; a mapping stays there.
    """

    def added_name(self, name: str, value: object) -> str:
        """See `StructuredFormatter.added_name`."""
        return f"extra.{name}" if name in _OBJECTS and not isinstance(value, Mapping) else name

    def format(self, record: logging.LogRecord) -> str:
        """The record as a JSON object on one line."""
        # First the time, level, message and version, as Elastic's own formatters for Python have them.
        known: dict[str, object] = {"@timestamp": "", "log.level": "", "message": "", "ecs.version": ECS_VERSION}
        for name, value in self.fields(record).items():
            field = fields.BY_NAME.get(name)
            if field is None:
                known[name] = value
            elif field.ecs is not None:
                known[field.ecs or name] = field.to_ecs(value)
        known.update(self.added_fields(record, known))
        return dumps({name: json_value(value) if type(value) is float else value for name, value in known.items()})


#: What a key of logfmt cannot have: blanks, ``=``, ``"``, and what is no printable ASCII.
_no_key = re.compile(r"[^!#-<>-~]+")
#: Values that need no quotes.
_bare = re.compile(r"[!#-<>-\[\]-~]+").fullmatch
_LOGFMT_NAMES = {"timestamp": "ts", "message": "msg"}


class LogfmtFormatter(StructuredFormatter):
    r"""``key=value`` pairs by OpenTelemetry's names, with ``ts``, ``level`` in lower case, ``logger`` and ``msg``.

    Values with blanks, ``=``, ``"``, ``\`` or anything but printable ASCII are JSON strings, which is what go-logfmt
    reads. Nested values are JSON within such a string; several headers of one name are parted by commas. In names,
    what a key cannot have is ``_``.
    """

    def added_name(self, name: str, value: object) -> str:
        """See `StructuredFormatter.added_name`."""
        return _no_key.sub("_", str(name)) or "_"

    def format(self, record: logging.LogRecord) -> str:
        """The record on one line."""
        known = {_LOGFMT_NAMES.get(name, name): value for name, value in self.fields(record).items()}
        known["level"] = str(known.get("level", "")).lower()
        for name, value in known.items():
            if type(value) is list:
                known[name] = ", ".join(map(str, cast("list[object]", value)))
        known.update(self.added_fields(record, known))
        return " ".join(f"{key}={_logfmt_value(value)}" for key, value in known.items())


def _logfmt_value(value: object) -> str:
    text = dumps(cast(object, value)) if value is None or isinstance(value, (bool, dict, list)) else str(value)
    return text if _bare(text) else dumps(text)
