"""Lines for people in front of a terminal: aligned, and coloured by level and status.

Runs where records are written. Safe to share between threads.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TextIO

from flask_asynclog.escaping import escape
from flask_asynclog.outcome import Outcome
from flask_asynclog.records import EVENT
from flask_asynclog.textformat import EntryFormatter, exception_text

_RESET, _DIM = "\x1b[0m", "\x1b[2m"
#: By level, from the highest down.
_LEVELS = ((logging.CRITICAL, "\x1b[1;31m"), (logging.ERROR, "\x1b[31m"), (logging.WARNING, "\x1b[33m"),
           (logging.INFO, "\x1b[32m"))  # fmt: skip
#: By the first digit of the status.
_STATUS = {"2": "\x1b[32m", "3": "\x1b[36m", "4": "\x1b[33m", "5": "\x1b[31m"}


class ConsoleFormatter(EntryFormatter):
    """``15:00:00.123 INFO     demo: message``; tracebacks on lines of their own, each of them indented.

    What records contain is escaped as everywhere; the colours are the only escape sequences.

    :param colours: ``False``: the same without them.
    """

    def __init__(self, *, colours: bool = True) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """The record, coloured."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = next((colour for lowest, colour in _LEVELS if record.levelno >= lowest), _DIM)
        message = escape(record.getMessage())
        event = record.__dict__.get(EVENT)
        if isinstance(event, Outcome):
            status = escape(event.status)
            message = message.replace(status, self._painted(_STATUS.get(status[:1], ""), status), 1)
        line = (
            f"{self._painted(_DIM, f'{clock}.{int(record.msecs):03d}')} "
            f"{self._painted(level, f'{escape(record.levelname):8}')} "
            f"{self._painted(_DIM, f'{escape(record.name)}:')} {message}"
        )
        for part in (exception_text(self, record), record.stack_info):
            if part:
                line += "".join(f"\n    {escape(text)}" for text in part.splitlines())
        return line

    def _painted(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_RESET}" if self._colours and colour else text


def is_terminal(stream: TextIO | None) -> bool:
    """Whether people look at ``stream``."""
    try:
        return stream is not None and stream.isatty()
    except Exception:  # closed; an object with little more than write()
        return False


def colours_wanted() -> bool:
    """Whether nobody asks for plain text by ``NO_COLOR`` (no-color.org) or ``TERM``."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
