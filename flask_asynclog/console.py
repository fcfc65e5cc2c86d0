"""The console: stderr as a sink behind the queue, on the listener's thread."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from flask_asynclog.report import PATIENCE, write_stderr


class ConsoleHandler(logging.Handler):
    """Mirrors batches to whatever ``sys.stderr`` is at that moment.

    A mirror only: lines that stderr does not take (a closed terminal, a pipe that nobody reads) are not tried again
    and do not count as failed; nobody waits for it, once it was found stuck, until it takes lines again.
    """

    def __init__(self) -> None:
        super().__init__()
        self._stuck = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, as any handler does."""
        self.write_batch(self.format_batch([record]))

    def format_batch(self, records: Sequence[logging.LogRecord]) -> list[str]:
        """One line per record."""
        return [self.format(record) for record in records]

    def write_batch(self, lines: Sequence[str]) -> int:
        """Write all lines; returns their number."""
        text = "".join(f"{line}\n" for line in lines)
        self._stuck = not write_stderr(text, 0 if self._stuck else PATIENCE)
        return len(lines)
