"""The least that lines of text can cost in Python: what an asynchronous handler may be compared with, not used."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

#: Lines of one write.
LINES = 256


class BareHandler(logging.Handler):
    """Puts each line together in the caller, by one f-string, and writes many at a time.

    No lock, no thread, no rotation, no other process; nothing is escaped, a traceback is left out, an error is the
    caller's, and a write that takes long holds up whoever logs.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        self._lines: list[str] = []
        self._second, self._date = -1, ""

    def handle(self, record: logging.LogRecord) -> bool:
        """Without filters, and without the lock of `logging`."""
        second = int(record.created)
        if second != self._second:
            self._second, self._date = second, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        message = record.msg % record.args if record.args else record.msg
        lines = self._lines
        lines.append(f"{self._date},{int(record.msecs):03d} - {record.name} - {record.levelname} - {message}\n")
        if len(lines) >= LINES:
            self.flush()
        return True

    def flush(self) -> None:
        """Write what waits."""
        lines, self._lines = self._lines, []
        if lines:
            os.write(self._file, "".join(lines).encode())

    def close(self) -> None:
        """The same, and end; once."""
        self.flush()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        super().close()
