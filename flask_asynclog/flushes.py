"""Waiting for the other side: asked for on any thread, answered by the thread that drains, between two batches."""

from __future__ import annotations

from collections import deque

from flask_asynclog.native import Signal
from flask_asynclog.queue import Mark, RecordQueue


class Flush:
    """One flush under way."""

    __slots__ = ("complete", "done", "failed_before", "mark", "passed")

    def __init__(self, failed_before: int, mark: Mark) -> None:
        #: Set when the flush is over.
        self.done = Signal()
        #: Whether everything before it has been taken and settled.
        self.passed = False
        #: Whether all of that was written.
        self.complete = False
        self.failed_before = failed_before
        self.mark = mark


class Flushes:
    """The flushes that wait for one queue to be drained past what it holds now."""

    def __init__(self, queue: RecordQueue) -> None:
        self._queue = queue
        self._waiting: deque[Flush] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self) -> Flush:
        """Ask for one. Any thread."""
        flush = Flush(self._queue.tally.failed, self._queue.mark())
        self._waiting.append(flush)
        return flush

    def serve(self) -> None:
        """Answer those whose mark was passed. Only between two batches."""
        queue = self._queue
        for _ in range(len(self._waiting)):
            flush = self._waiting.popleft()
            if queue.passed(flush.mark):
                flush.passed = True
                flush.complete = queue.tally.failed == flush.failed_before
                flush.done.set()
            else:
                self._waiting.append(flush)

    def end(self) -> None:
        """Answer all of them, those that are not passed as incomplete: nothing drains any more."""
        self.serve()
        while self._waiting:
            self._waiting.popleft().done.set()
