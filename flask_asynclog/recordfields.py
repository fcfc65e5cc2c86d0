"""What a record tells beside its attributes, of its event and of its context; and all of it without secrets.

Runs where records are written, on copies. Pure functions otherwise.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableSequence
from typing import Any, cast

from flask_asynclog.context import Context
from flask_asynclog.entries import Entry, Event, restore
from flask_asynclog.fields import CONTEXT as CONTEXT_FIELDS
from flask_asynclog.fields import read_all
from flask_asynclog.records import (
    CONTEXT,
    EVENT,
    EXCEPTION,
    FORMATTER,
    INTERNAL_ATTRIBUTES,
    STANDARD_ATTRIBUTES,
    DictMessage,
    ExceptionSummary,
    copied,
    makes_own_message,
    render,
)
from flask_asynclog.redaction import REDACTED, Redactor


def complete(record: logging.LogRecord) -> logging.LogRecord:
    """A copy of the record, for formatters and handlers that know no more than those of `logging` do.

    The ids of the request and its trace, what was bound, and the parts of an event become attributes, unless there are
    such, in place of ours: whoever sends the record elsewhere sends plain values.
    """
    fields = record.__dict__.copy()
    context = context_of(fields)
    for name, value in {**event_fields(fields), **context_fields(context)}.items():
        fields.setdefault(name, value)
    if context is not None:
        for name, value in context.bound.items():
            if name not in INTERNAL_ATTRIBUTES:
                fields.setdefault(name, value)
    fields.pop(EVENT, None)
    fields.pop(CONTEXT, None)
    return copied(record, fields)


# Of a record that another process has sent, the event is the parts that it had, and the context is none.


def event_fields(fields: Mapping[str, Any]) -> dict[str, object]:
    """The parts of the event that a record tells of, by the record's attributes."""
    event = fields.get(EVENT)
    if isinstance(event, dict):
        return cast("dict[str, object]", event)
    return {} if event is None else cast("Event", event).fields()


def context_of(fields: Mapping[str, Any]) -> Context | None:
    """The context that a record was logged in, by the record's attributes."""
    context = fields.get(CONTEXT)
    return context if isinstance(context, Context) else None


def context_fields(context: Context | None) -> dict[str, object]:
    """The ids of the request and its trace, by name."""
    return {} if context is None else read_all(CONTEXT_FIELDS, context)


def redact(entries: MutableSequence[Entry], redactor: Redactor) -> None:
    """Take the secrets out of what was added to records, by name, and out of all texts, by pattern.

    The entries are changed: no other handler sees them. Events take them out themselves. Of a record that cannot be
    looked at, no more is left than what it says of itself, and why.
    """
    by_pattern = bool(redactor.patterns)
    if by_pattern:  # which was not so when these were logged
        entries[:] = [restore(entry) if type(entry) is tuple else entry for entry in entries]
    for index, entry in enumerate(entries):
        if type(entry) is tuple:
            continue
        if isinstance(entry, dict):  # as `capture` makes them: nothing was added to the record
            context = entry.get(CONTEXT)
            if not by_pattern and (context is None or not context.bound):
                continue
        elif not isinstance(entry, logging.LogRecord):
            continue
        try:
            entries[index] = _redacted(entry, redactor)
        except Exception as error:
            entries[index] = _hidden(entry, error)


def with_text(record: logging.LogRecord, text: str) -> logging.LogRecord:
    """A copy of the record with this message; an ordinary one if its class would make another message of it."""
    kind = logging.LogRecord if makes_own_message(record) else None
    return copied(record, {**vars(record), "msg": text, "args": None}, kind)


def _tells_event(fields: Mapping[str, Any]) -> bool:
    """Whether the message is that of an event, to which no filter has added anything."""
    event = fields.get(EVENT)
    return event is not None and fields["msg"] == getattr(event, "message", None) and fields["args"] == (event,)


def _unreadable(error: Exception) -> str:
    # Not what the error says: that may be the secret.
    return f"{REDACTED} [not readable: {type(error).__name__}]"


def _redacted(entry: dict[str, Any] | logging.LogRecord, redactor: Redactor) -> Entry:
    fields = entry if isinstance(entry, dict) else vars(entry)
    message = fields["msg"]
    try:
        if type(message) is DictMessage:
            fields["msg"] = message.redacted(redactor)
        elif redactor.patterns and not _tells_event(fields):
            record = restore(entry)
            text = redactor.text(render(record))
            if makes_own_message(record):
                entry = with_text(record, text)
                fields = vars(entry)
            else:
                fields["msg"], fields["args"] = text, None
    except Exception as error:  # integers of thousands of digits, which Python does not write
        entry = with_text(restore(entry), _unreadable(error))
        fields = vars(entry)
    if redactor.patterns:
        for name in ("exc_text", "stack_info"):
            if fields.get(name):  # a filter may have taken it away
                fields[name] = redactor.text(fields[name])
    context = context_of(fields)
    if context is not None and (context.bound or redactor.patterns):
        fields[CONTEXT] = context.redacted(redactor)
    summary = fields.get(EXCEPTION)
    if summary is not None and redactor.patterns:
        fields[EXCEPTION] = ExceptionSummary(summary.type, redactor.text(summary.message))
    for name in [*fields]:
        if name not in STANDARD_ATTRIBUTES and name not in INTERNAL_ATTRIBUTES:
            fields[name] = redactor.value(name, fields[name])
    return entry


def _hidden(entry: dict[str, Any] | logging.LogRecord, error: Exception) -> logging.LogRecord:
    """A record of which nothing is left that may have a secret."""
    fields = entry if isinstance(entry, dict) else vars(entry)
    left = {name: value for name, value in fields.items() if name in STANDARD_ATTRIBUTES or name == FORMATTER}
    left.update(msg=_unreadable(error), args=None, exc_info=None, exc_text=None, stack_info=None)
    left.update(dict.fromkeys(fields.keys() - left.keys() - INTERNAL_ATTRIBUTES, REDACTED))
    return restore(left)
