"""The handlers by the names that configurations use, and the one that needs no Flask.

`AsyncQueueHandler` is the caller's side of a hand-made pair; `AsyncRotatingFileHandler` is queue, thread and file in
one.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from flask_asynclog.config import HANDLER_OPTIONS, ConfigError, Settings, option_table
from flask_asynclog.pipeline import open_pipeline
from flask_asynclog.queuehandler import AsyncQueueHandler, accept, filtered
from flask_asynclog.stats import Stats

__all__ = ["AsyncQueueHandler", "AsyncRotatingFileHandler"]


class AsyncRotatingFileHandler(logging.Handler):
    """An asynchronous rotating file for ``dictConfig``, scripts and workers without Flask.

    ::

        {"class": "flask_asynclog.handlers.AsyncRotatingFileHandler", "filename": "app.log", "format": "json"}

    The thread starts with the first record of each process, a forked child starts clean, and the exit of the process
    drains, as with `AsyncLog`. Handlers and apps that name the same file share one queue, thread and file.
    A plain `logging.Handler`: ``dictConfig`` treats subclasses of ``QueueHandler`` differently in every version.

    :param filename: the log file.
    :param options: options of the configuration's table that are not about requests or loggers, lower case and without
        prefix. One that is not given is as an app, or another handler, that shares the file has it. Level, formatter
        and filters are set as on any handler; a formatter set replaces ``format`` for what comes by this handler.
    :raises ConfigError: for an unknown option, a value out of range, or a file that cannot be used.
    """

    def __init__(self, filename: str | os.PathLike[str], **options: Any) -> None:
        for name in options:
            if name in option_table() and name not in HANDLER_OPTIONS:
                raise ConfigError(f"{name}={options[name]!r}: an option of apps, not of a handler: give it to AsyncLog")
        settings = Settings.load({}, {"filename": filename, **options})
        self._decided: frozenset[str] = HANDLER_OPTIONS.intersection(options) - {"level"}
        self._pipeline = open_pipeline(settings, console=False, decided=self._decided)
        self._closed_once = False
        super().__init__()  # from here on logging knows it, and flushes it at exit
        if "level" in options:
            self.setLevel(settings.level)

    def handle(self, record: logging.LogRecord) -> Any:
        """Filter ``record`` and put a copy of it into the queue. Takes no lock."""
        passed = filtered(self, record)
        if passed is None:
            return False
        self.emit(passed)
        return passed

    def emit(self, record: logging.LogRecord) -> None:
        """Put a copy of ``record`` into the queue; never waits, unless ``overflow`` is ``block``."""
        try:
            formatter = self.formatter or self._pipeline.handler.formatter
            accept(self._pipeline.queue, record, formatter, own=self.formatter is not None)
        except Exception:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Count a record that could not be read, and say so once."""
        self._pipeline.handler.handleError(record)

    def flush(self) -> None:
        """Wait until what was logged is with the file, at most ``shutdown_timeout``."""
        self._pipeline.flush(self._pipeline.settings.shutdown_timeout)

    def reopen(self) -> None:
        """Have the file opened anew with the next batch. Not needed after it was moved or deleted: that is noticed.

        :raises OSError: there is no file any more, and none can be made.
        """
        self._pipeline.sink.close()
        self._pipeline.sink.make()

    def undecide(self) -> None:
        """Insist on no option any more: another handler or app that opens the same file may have others."""
        decided, self._decided = self._decided, frozenset[str]()
        self._pipeline.undecide(decided)

    @property
    def lock_filename(self) -> str:
        """The file whose lock the processes share."""
        return str(self._pipeline.sink.lockFilename)

    def on_open(self, function: Callable[[], None] | None) -> None:
        """Have ``function`` called each time that this process has opened the file: at first, and after a rotation.

        On the thread that writes; what it raises is said once.
        """
        self._pipeline.sink.on_open = function

    def close(self) -> None:
        """Drain and stop; a record that comes later starts again."""
        super().close()
        if not self._closed_once:
            self._closed_once = True
            self._pipeline.release(decided=self._decided)

    def stats(self) -> Stats:
        """The counters of this moment."""
        return self._pipeline.stats()
