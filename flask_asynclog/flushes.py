"""Waiting for the other side: the signal that wakes a thread, and the flushes that wait for theirs.

A flush is asked for on any thread and answered by the thread that drains, between two batches.
"""

from __future__ import annotations

import threading
from collections import deque

from flask_asynclog.queue import RecordQueue


class Signal:
    """Wakes one waiting thread. Setting it takes no lock, so a signal handler may.

    A lock serves as a binary semaphore: held means not set. `threading.Event` would deadlock a handler that sets
    it in the middle of another ``set`` of the same thread.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Wake the waiting thread, or the next one to wait."""
        try:
            self._lock.release()
        except RuntimeError:  # set already
            return

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until set, or for ``timeout`` seconds; takes the signal back."""
        return self._lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout))


class Flush:
    """One flush under way."""

    __slots__ = ("complete", "done", "failed_before", "mark")

    def __init__(self, failed_before: int) -> None:
        #: Set when the flush is over.
        self.done = Signal()
        #: Whether everything before it was written.
        self.complete = False
        self.failed_before = failed_before
        self.mark: tuple[int, int] | None = None


class Flushes:
    """The flushes that wait for one queue to be drained past what it holds now."""

    def __init__(self, queue: RecordQueue) -> None:
        self._queue = queue
        self._waiting: deque[Flush] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self) -> Flush:
        """Ask for one. Any thread."""
        flush = Flush(self._queue.tally.failed)
        self._waiting.append(flush)
        return flush

    def serve(self) -> None:
        """Answer those whose mark was passed, mark the new ones. Only between two batches."""
        queue = self._queue
        for _ in range(len(self._waiting)):
            flush = self._waiting.popleft()
            if flush.mark is None:
                flush.mark = queue.mark()
            if queue.passed(flush.mark):
                flush.complete = queue.tally.failed == flush.failed_before
                flush.done.set()
            else:
                self._waiting.append(flush)

    def end(self) -> None:
        """Answer all of them, those that are not passed as incomplete: nothing drains any more."""
        self.serve()
        while self._waiting:
            self._waiting.popleft().done.set()
