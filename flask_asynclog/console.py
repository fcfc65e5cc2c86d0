"""The console: stderr as a sink behind the queue, on the listener's thread."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from flask_asynclog.consoleformat import ConsoleFormatter, colours_wanted, is_terminal
from flask_asynclog.report import PATIENCE, write_stderr
from flask_asynclog.textformat import TextFormatter


class ConsoleHandler(logging.Handler):
    """Mirrors batches to whatever ``sys.stderr`` is at that moment.

    A mirror only: lines that stderr does not take (a closed terminal, a pipe that nobody reads) are not tried again
    and do not count as failed; nobody waits for it, once it was found stuck, until it takes lines again.
    """

    def __init__(self) -> None:
        super().__init__()
        self._stuck = False
        self._elsewhere = TextFormatter()
        self._plain, self._coloured = ConsoleFormatter(colours=False), ConsoleFormatter()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, as any handler does."""
        self.write_batch(self.format_batch([record]))

    def format(self, record: logging.LogRecord) -> str:
        """One record: for people where stderr is a terminal, elsewhere the line of the ``text`` format."""
        if self.formatter is not None:
            return super().format(record)
        if not is_terminal(sys.stderr):
            return self._elsewhere.format(record)
        return (self._coloured if colours_wanted() else self._plain).format(record)

    def format_batch(self, records: Sequence[logging.LogRecord]) -> list[str]:
        """One line per record."""
        return [self.format(record) for record in records]

    def write_batch(self, lines: Sequence[str]) -> int:
        """Write all lines; returns their number."""
        text = "".join(f"{line}\n" for line in lines)
        self._stuck = not write_stderr(text, 0 if self._stuck else PATIENCE)
        return len(lines)
