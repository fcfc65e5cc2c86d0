"""Text lines, and what all formatters here have in common.

Run on the listener's thread (or in the caller of a handler used without a queue). Safe to share between threads.
"""

from __future__ import annotations

import logging
import operator
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from flask_asynclog.entries import BRIEF, Entry, brief_fields, event_brief, restore
from flask_asynclog.escaping import escape, escape_all
from flask_asynclog.fields import find
from flask_asynclog.recordfields import context_of
from flask_asynclog.records import EVENT, STANDARD_ATTRIBUTES

#: The format of Flask's usual recipe.
TEXT_FORMAT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"


#: A field of a %-format: ``%(name)s`` with flags, width, precision; or ``%%``.
FIELD = re.compile(r"%(?:\((?P<name>[^)]+)\)(?P<rest>[#0+ -]*\d*(?:\.\d+)?[diouxXeEfFgGcrsa])|%)")
#: Fields of a format that an `entries.Brief` has. Not ``msg`` and ``args``: an event's are put together there.
_BRIEF_FIELDS = frozenset({"asctime", "message", *BRIEF}) - {"msg", "args"}
#: What every record has: not the name of its task, which came with Python 3.12 and which some people's filters delete.
_ALWAYS_THERE = STANDARD_ATTRIBUTES - {"taskName"}


class _Nothing(int):
    """What a %-format shows of what a record has not: ``-``, and 0 where it wants a number."""

    def __repr__(self) -> str:
        return "-"


_NOTHING = _Nothing()


class EntryFormatter(logging.Formatter):
    """Formats what waits in the queue, too; finds request id and parts of an event where such a record has them."""

    #: Whether the lines tell threads.
    shows_threads = True
    #: Whether they tell more of a request than its text does.
    shows_fields = True
    #: Whether they tell no more of a record without a traceback than an `entries.Brief` has.
    is_brief = False

    def format_entry(self, entry: Entry) -> str:
        """The line of the record that `entries.restore` makes of ``entry``."""
        return self.format(restore(entry))

    def format_entries(self, entries: Sequence[Entry]) -> list[str]:
        """The line of each."""
        return [self.format_entry(entry) for entry in entries]


class TextFormatter(EntryFormatter):
    """One line of text per record; control characters, those of tracebacks included, are escaped.

    :param fmt: a ``%(…)s`` format of `logging.Formatter`, that also knows the fields of requests by their names,
        ``%(url.path)s`` or ``%(path)s``, and what was bound or came by ``extra``. What a record has not is ``-``, or 0
        in a number's place.
    :param datefmt: a `time.strftime` format; ``None`` gives ``2026-11-22 15:00:00,123``.
    :raises ValueError: if ``fmt`` has no field, or a line end in it.
    """

    def __init__(self, fmt: str = TEXT_FORMAT, datefmt: str | None = None) -> None:
        found = [match for match in FIELD.finditer(fmt) if match["name"] is not None]
        if not found:
            raise ValueError(f"no field in the format {fmt!r}")
        if escape(fmt, keep_tabs=True) != fmt:
            raise ValueError("control characters other than TAB in the format: a record is one line")
        names = [match["name"] for match in found]
        added = {
            match["name"]: "-" if match["rest"][-1] == "c" else _NOTHING
            for match in found
            if match["name"] not in _ALWAYS_THERE
        }
        # Python's own check knows no names with dots.
        super().__init__(fmt, datefmt, validate=False, defaults=added)
        self._keep_tabs = "\t" in fmt
        self._uses_time = self.usesTime()
        #: Second, millisecond, and their texts: half the cost of a line otherwise.
        self._stamp = (-1, -1.0, "", "")
        #: Names of what may have a TAB that is not the format's.
        self._texts = tuple({*names} - {"asctime"}) if self._keep_tabs else ()
        #: Names of what is no attribute of every record.
        self._added = tuple(added)
        # "%(a)s %(b)s" with a dictionary takes twice as long as "%s %s" with a tuple.
        self._positional = FIELD.sub(lambda match: "%%" if match["name"] is None else f"%{match['rest']}", fmt)
        self._values: Callable[[Mapping[str, object]], Any] | None = None
        untouched = all(
            getattr(type(self), name) is getattr(TextFormatter, name)
            for name in (
                "format",
                "formatMessage",
                "formatTime",
                "formatException",
                "formatStack",
                "format_entry",
                "format_entries",
            )
        )
        self.shows_threads = not untouched or "%(thread" in fmt
        self.shows_fields = not untouched or bool(added)
        if untouched and len(names) > 1 and not (added or datefmt or "%" in FIELD.sub("", fmt)):
            self._values = operator.itemgetter(*names)
        # A string put together by name takes two thirds of the time of one by %.
        self._is_default = self._values is not None and fmt == TEXT_FORMAT
        self.is_brief = self._values is not None and _BRIEF_FIELDS.issuperset(names)

    def format(self, record: logging.LogRecord) -> str:
        """The record on one line; a traceback follows the message after an escaped line end."""
        fields = record.__dict__
        if self._is_simple(fields) and record.__class__ is logging.LogRecord:
            return self._simple_line(fields)
        fields["message"] = record.getMessage()
        if self._uses_time:
            fields["asctime"] = self.formatTime(record, self.datefmt)
        line = self._filled(record) if self._added or self._texts else self.formatMessage(record)
        line = escape(line, keep_tabs=self._keep_tabs)
        for part in (exception_text(self, record), record.stack_info):
            if part:
                line = f"{line}\\n{escape(part)}"
        return line

    def _filled(self, record: logging.LogRecord) -> str:
        """The format with what it names of the request, and without TABs of the values; the record stays as it is."""
        fields = record.__dict__
        event, context = fields.get(EVENT), context_of(fields)
        shown: dict[str, object] = {}
        for name in self._added:
            if name not in fields and (value := find(name, context, event)) is not None:
                shown[name] = value
        for name in self._texts:
            value = shown.get(name, fields.get(name, 0))
            if not isinstance(value, (int, float)):
                shown[name] = escape(str(value))
        before = {name: fields[name] for name in shown if name in fields}
        fields.update(shown)
        try:
            return self.formatMessage(record)
        finally:  # for other formatters, to which they would be ``extra``
            fields.update(before)
            for name in shown.keys() - before.keys():
                del fields[name]

    def format_entry(self, entry: Entry) -> str:
        """See `EntryFormatter`."""
        if isinstance(entry, dict):
            return self._simple_line(entry) if self._is_simple(entry) else self.format(restore(entry))
        if isinstance(entry, logging.LogRecord):
            return self.format(entry)
        if self._is_default:
            return self.format_entries([entry])[0]
        if not self.is_brief:
            return self.format(restore(entry))
        return self._simple_line(brief_fields(entry if isinstance(entry, tuple) else event_brief(entry)))

    def format_entries(self, entries: Sequence[Entry]) -> list[str]:
        """See `EntryFormatter`."""
        if not self._is_default:
            return super().format_entries(entries)
        # Without a call for each of most, and with one look at all lines for what is to be escaped.
        lines: list[str] = []
        # The last time's text is at hand here, too: a call of `_time` for each is a sixth of a line.
        second, known_milliseconds, _, time_text = self._stamp
        for entry in cast("Sequence[Any]", entries):
            kind: type[object] = type(entry)  # pyright: ignore[reportUnknownVariableType]
            if kind is tuple:
                _, _, created, milliseconds, name, level, message, args = entry
                if args:
                    message = message % args
            elif kind is dict or issubclass(kind, logging.LogRecord):
                lines.append(self.format_entry(entry))
                continue
            else:
                summary: tuple[float, str, int, str] = entry.summary()
                created, name, levelno, message = summary
                level, milliseconds = logging.getLevelName(levelno), int((created - int(created)) * 1000)
            if milliseconds != known_milliseconds or not second <= created < second + 1:
                time_text = self._time(created, milliseconds)
                second, known_milliseconds = int(created), milliseconds
            lines.append(f"{time_text} - {name} - {level} - {message}")
        return escape_all(lines)

    # In a third of the time, for what most records are.

    def _is_simple(self, fields: Mapping[str, object]) -> bool:
        return self._values is not None and not (fields["exc_info"] or fields["exc_text"] or fields["stack_info"])

    def _simple_line(self, fields: dict[str, Any]) -> str:
        message, args = str(fields["msg"]), fields["args"]
        if args:
            message = message % args
        if not self._is_default:
            return self._finish(fields, message, fields["created"], fields["msecs"])
        time_text = self._time(fields["created"], fields["msecs"])
        line = f"{time_text} - {fields['name']} - {fields['levelname']} - {message}"
        return line if line.isprintable() else escape(line)

    def _finish(self, fields: dict[str, Any], message: str, created: float, milliseconds: float) -> str:
        assert self._values is not None
        fields["message"] = message
        if self._uses_time:
            fields["asctime"] = self._time(created, milliseconds)
        values = self._values(fields)
        if self._keep_tabs:
            values = tuple([escape(value) if isinstance(value, str) else value for value in values])
        line = self._positional % values
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


def exception_text(formatter: logging.Formatter, record: logging.LogRecord) -> str | None:
    """The record's traceback as text.

    Not kept on the record: another handler's formatter may write tracebacks in its own way (cpython#137790).
    """
    if record.exc_info:
        return formatter.formatException(record.exc_info)
    return record.exc_text
