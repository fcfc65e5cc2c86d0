"""The console: stderr as a sink behind the queue, on the listener's thread."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any


class ConsoleHandler(logging.StreamHandler[Any]):
    """Mirrors batches to whatever ``sys.stderr`` is at that moment: one write per batch.

    A stderr that takes nothing more (a closed terminal, a broken pipe) ends the mirror's output, not the log:
    it is not tried again, and the records do not count as failed for it.
    """

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        #: Whether stderr has refused a batch.
        self.broken = False

    def format_batch(self, records: Sequence[logging.LogRecord]) -> list[str]:
        """One line per record."""
        return [self.format(record) for record in records]

    def write_batch(self, lines: Sequence[str]) -> int:
        """Write all lines; returns their number."""
        stream = sys.stderr
        if stream is not None:  # pyright: ignore[reportUnnecessaryComparison]  # pythonw, daemons
            text = "\n".join(lines) + "\n"
            encoding = getattr(stream, "encoding", None) or "utf-8"
            try:
                stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
                stream.flush()
            except (OSError, ValueError):
                self.broken = True
        return len(lines)
