r"""Apache's and nginx's ``combined`` access log, for the tools that read it.

Runs where records are written. Safe to share between threads.
"""

from __future__ import annotations

import logging
import re
import time

from flask_asynclog.entries import Entry, restore
from flask_asynclog.outcome import Outcome
from flask_asynclog.records import EVENT
from flask_asynclog.textformat import EntryFormatter, TextFormatter

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
#: What Apache escapes: ``"``, ``\`` and every byte that is no printable ASCII.
_unsafe = re.compile(r'["\\\x00-\x1f\x7f-\xff]')
_SHORT = {
    '"': '\\"', "\\": "\\\\", "\b": "\\b", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v",
}  # fmt: skip


def _escaped(match: re.Match[str]) -> str:
    return _SHORT.get(match[0]) or f"\\x{ord(match[0]):02x}"


def escape_apache(text: str) -> str:
    r"""``text`` in UTF-8 as Apache's ``ap_escape_logitem`` writes it: ``\"``, ``\\``, ``\n``, ``\xhh`` for a byte."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        data = text.encode("utf-8", "surrogatepass")
    return _unsafe.sub(_escaped, data.decode("latin-1"))


def _column(value: str | None) -> str:
    return escape_apache(value or "-").replace(" ", "\\x20")


class CombinedFormatter(EntryFormatter):
    """``host - user [time] "request" status bytes "referer" "user agent"`` for each ``Response`` record.

    The time is that of the request, in local time. The user is that of the server or Flask-Login's, with blanks
    escaped, so that the columns stay. A record that is no response is a line of the ``text`` format, which
    tools that read this format count as invalid: let the file have a logger of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self._others = TextFormatter()
        self._second = (-1, "")

    def format_entry(self, entry: Entry) -> str:
        """See `EntryFormatter`."""
        return self.format_outcome(entry) if isinstance(entry, Outcome) else self.format(restore(entry))

    def format(self, record: logging.LogRecord) -> str:
        """The record on one line."""
        event = record.__dict__.get(EVENT)
        return self.format_outcome(event) if isinstance(event, Outcome) else self._others.format(record)

    def format_outcome(self, outcome: Outcome) -> str:
        """The line of a response."""
        exchange = outcome.exchange
        client, user = (_column(value) for value in (exchange.client, exchange.remote_user or outcome.user))
        method, protocol = _column(exchange.method), _column(exchange.protocol or "HTTP/1.0")
        referer, user_agent = exchange.sent_referer or "-", exchange.sent_user_agent or "-"
        return (
            f"{client} - {user} [{self._time(exchange.created)}] "
            f'"{method} {escape_apache(exchange.request_target)} {protocol}" '
            f'{outcome.code:03} {outcome.body_size or "-"} "{escape_apache(referer)}" "{escape_apache(user_agent)}"'
        )

    def _time(self, created: float) -> str:
        second = int(created)
        known, text = self._second
        if known != second:
            local = time.localtime(second)
            # Not by %b, which speaks the language of the locale.
            text = time.strftime(f"%d/{_MONTHS[local.tm_mon - 1]}/%Y:%H:%M:%S %z", local)
            self._second = (second, text)
        return text
