"""The caller's side of the queue: runs on whichever thread logs."""

from __future__ import annotations

import logging
import logging.handlers
import sys
from collections.abc import Callable
from typing import Any, cast

from flask_asynclog.queue import RecordQueue
from flask_asynclog.records import show_error, snapshot
from flask_asynclog.report import Once

_once = Once()


def handle_without_lock(handler: logging.Handler, record: logging.LogRecord) -> Any:
    """What `logging.Handler.handle` does, without the handler's lock; a filter that raises goes to ``handleError``."""
    try:
        passed: Any = handler.filter(record)
    except Exception:
        handler.handleError(record)
        return False
    if passed:
        # From Python 3.12 a filter may answer with another record.
        handler.emit(passed if isinstance(passed, logging.LogRecord) else record)
    return passed


class AsyncQueueHandler(logging.handlers.QueueHandler):
    """Puts a snapshot of each record into a `RecordQueue`; microseconds, no I/O, no lock.

    Level and filters apply as in every handler; both run on the caller's thread. A formatter set on
    this handler is used for tracebacks only (its ``formatException``), since they must become text here.
    The record itself is neither changed nor kept.

    Any thread, signal handlers and finalizers included. The handler's own lock is never taken for a record.
    """

    queue: RecordQueue  # type: ignore[assignment]  # the stdlib annotates its own queues

    def __init__(self, queue: RecordQueue) -> None:
        super().__init__(cast(Any, queue))
        #: Called when somebody else closes this handler: `logging.config` does so before it reconfigures.
        self.on_close: Callable[[], None] | None = None

    def handle(self, record: logging.LogRecord) -> Any:
        """Filter ``record`` and put its snapshot into the queue. A filter that raises costs the record only."""
        return handle_without_lock(self, record)

    def emit(self, record: logging.LogRecord) -> None:
        """Put the snapshot of ``record`` into the queue; a failure is counted and said once, never raised."""
        try:
            self.enqueue(self.prepare(record))
        except Exception:
            self.handleError(record)

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """The snapshot of ``record``, safe for another thread."""
        return snapshot(record, self.formatter)

    def enqueue(self, record: logging.LogRecord) -> None:
        """Put a snapshot into the queue; the overflow policy decides when it is full."""
        self.queue.put(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Count a record that could not be read as dropped (``unreadable``) and say so once."""
        self.queue.refuse(record.levelno, "unreadable")
        error = sys.exc_info()[1]
        if error is not None:
            _once.say("unreadable", f"a record of logger {record.name!r} was dropped: {show_error(error)}")

    def close(self) -> None:
        """Forget the handler's registration with `logging`. Records sent later are still accepted."""
        super().close()
        if self.on_close is not None:
            self.on_close()
