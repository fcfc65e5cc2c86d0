"""The draining side: one thread per process takes batches from the queue and hands them to the handlers.

All handlers of a listener run on its thread, one batch at a time.
"""

from __future__ import annotations

import logging
import logging.handlers
import math
import threading
import time
from typing import Any, cast

from flask_asynclog import lifecycle
from flask_asynclog.delivery import Delivery
from flask_asynclog.dropreport import DropReport
from flask_asynclog.flushes import Flushes, Signal
from flask_asynclog.queue import RecordQueue
from flask_asynclog.records import show_error
from flask_asynclog.report import say

#: Records per batch: past about a hundred, larger ones cost as much per record and hold the lock longer.
BATCH_RECORDS = 256
#: Seconds the GIL is given away between two slices of a batch, while there is time.
SLICE_PAUSE = 0.0002
#: Seconds after which a start of the thread that is still under way has been interrupted.
START_PATIENCE = 5.0
#: Longest that `drain`, in a caller's thread, waits for a sink that does not take records, in seconds.
DRAIN_PATIENCE = 1.0


class BatchQueueListener(logging.handlers.QueueListener):
    """Drains a `RecordQueue` in batches, on a thread that starts with the first record.

    A `BatchHandler` (the rotating file, the console) gets each batch as lines, and is tried again with back-off while
    it raises OSError; every other handler gets the records one by one. What raises, a handler, a formatter, a
    filter, costs its own record at most, is counted as ``failed`` and said once; the thread goes on.

    :param queue: the queue; the listener attaches itself to it.
    :param handlers: where the records go. With several, a record counts as written when all have taken it.
    :param respect_handler_level: as in `logging.handlers.QueueListener`.
    :param flush_interval: longest a record waits for others to share its batch, in seconds.
    :param shutdown_timeout: longest drain at exit, in seconds; what is left is counted as failed and said on stderr.

    A forked child starts with an empty queue and no thread: its own first record starts its own.
    """

    queue: RecordQueue  # type: ignore[assignment]  # the stdlib annotates its own queues
    _thread: threading.Thread | None

    def __init__(
        self,
        queue: RecordQueue,
        *handlers: logging.Handler,
        respect_handler_level: bool = False,
        flush_interval: float = 0.1,
        shutdown_timeout: float = 5.0,
    ) -> None:
        if not isinstance(queue, RecordQueue):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"queue must be a flask_asynclog.queue.RecordQueue, not {type(queue).__name__}")
        super().__init__(cast(Any, queue), *handlers, respect_handler_level=respect_handler_level)
        self.flush_interval = flush_interval
        self.shutdown_timeout = shutdown_timeout
        self._reset()
        queue.wake = self.wake
        lifecycle.register(self)

    def _reset(self) -> None:
        self._thread = None
        #: Held by whoever drains: the thread, or a caller of `drain`.
        self._draining = threading.Lock()
        self._start_lock = threading.Lock()
        self._start_refused_at: float | None = None
        self._signal = Signal()
        self._flushes = Flushes(self.queue)
        self._stopping = False
        self._give_up_at = math.inf
        self._gather_until = 0.0
        self._exit_at = 0.0
        #: Records failed before the stop under way, and the time it was given.
        self._stop_begun: tuple[int, float | None] | None = None
        self._drop_report = DropReport(self.queue.tally.drops)
        self._delivery = Delivery(
            self.handlers,
            self.queue.tally,
            respect_handler_level=self.respect_handler_level,
            pause=self._pause,
            wait=self._rest,
        )

    def after_fork_in_child(self) -> None:
        """Drop what was inherited: thread, waiters and records are the parent's."""
        self.queue.reset()
        self._reset()

    # Any thread.

    def wake(self) -> None:
        """Have the queue looked at soon: start the thread if it does not run. Where none can start, drain here."""
        self._signal.set()
        if not self.running:
            self.start()

    def start(self) -> None:
        """Start the thread; does nothing when it runs. Nobody waits: who comes second leaves it to the first."""
        if not self._start_lock.acquire(blocking=False):
            self._doubt_start_lock()
            return
        try:
            self._start_refused_at = None
            started = self.running or self._start_thread()
        finally:
            self._start_lock.release()
        if not started:  # looked at after the release: whoever came second has left its record in the queue
            self.drain()

    def _doubt_start_lock(self) -> None:
        # A signal handler that raised right behind the acquire leaves the lock held for ever: no start takes so long.
        now = time.monotonic()
        if self._start_refused_at is None:
            self._start_refused_at = now
        elif now - self._start_refused_at > START_PATIENCE:
            self._start_refused_at = None
            self._start_lock = threading.Lock()

    def _start_thread(self) -> bool:
        if lifecycle.exiting():
            return False
        self._stopping = False
        self._give_up(None)
        lifecycle.register_exit(self)
        self._signal = Signal()  # made together with the thread: gevent may have patched both meanwhile, or neither
        thread = self._thread = threading.Thread(target=self.run, name="flask_asynclog", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is about to end, or there are no threads to be had
            self._thread = None
            return False
        except BaseException:  # no memory; or a signal handler raised: if the thread runs all the same, it says so
            if thread.ident is None:
                self._thread = None
            raise
        return True

    @property
    def running(self) -> bool:
        """Whether the thread runs."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until everything accepted before this call is with the handlers.

        :param timeout: longest wait in seconds.
        :returns: ``False`` if the time ran out, if records were given up meanwhile, or on the listener's own thread.
        """
        if self.queue.consumer == threading.get_ident():
            return False
        if self.queue.idle:
            return True
        flush = self._flushes.add()
        if self._thread is not None or len(self.queue):
            self.wake()
        if self._thread is None and self.queue.pending == 0:  # nothing to do, or done in this thread
            return True
        flush.done.wait(timeout)
        return flush.complete

    def enqueue_sentinel(self) -> None:
        """Ask the thread to end when the queue is empty."""
        self._stopping = True
        self._signal.set()

    def stop(self, timeout: float | None = None) -> bool:  # type: ignore[override]
        """Drain, then end the thread. Idempotent; the next record starts it again.

        :param timeout: longest wait in seconds; what is not written by then is counted as failed and said
            on stderr. ``None``: no limit.
        :returns: whether everything was drained in time.
        """
        thread = self.begin_stop(timeout)
        if thread is threading.current_thread():
            return False
        if thread is None:
            self.drain()
        else:
            thread.join(timeout)
        begun, self._stop_begun = self._stop_begun, None
        failed_before, given = begun or (self.queue.tally.failed, timeout)
        left = self.queue.tally.failed - failed_before
        if thread is None or thread.is_alive():
            left += self.queue.pending
        if left:
            say(f"{left} records were not written within {given or 0:.1f} s, the time to drain at exit or in stop()")
        return not left

    def begin_stop(self, timeout: float | None) -> threading.Thread | None:
        """Tell the thread to drain within ``timeout`` seconds and to end; do not wait. Returns it, if there is one."""
        if self._stop_begun is None:
            self._stop_begun = (self.queue.tally.failed, timeout)
        patience = time.monotonic() + 1
        while (thread := self._thread) is not None and not thread.is_alive() and time.monotonic() < patience:
            time.sleep(0.001)  # another thread is about to start it; or this one is, interrupted by a signal handler
        if thread is None or not thread.is_alive():
            return None
        # The thread gives up a little earlier, so that what it gives up is counted when stop() returns.
        self._give_up(None if timeout is None else time.monotonic() + timeout - min(0.2, timeout / 10))
        self.enqueue_sentinel()
        return thread

    def begin_exit(self) -> None:
        """Begin to drain at exit: all listeners at the same time."""
        self._exit_at = time.monotonic() + self.shutdown_timeout
        self.begin_stop(self.shutdown_timeout)

    def at_exit(self) -> None:
        """Drain within ``shutdown_timeout`` of `begin_exit`."""
        self.stop(max(0.0, self._exit_at - time.monotonic()))

    def drain(self) -> None:
        """Drain in the calling thread, for when no thread can run any more. Bounded: a second per broken sink."""
        queue = self.queue
        while len(queue) and self._draining.acquire(blocking=False):
            try:
                queue.consumer = threading.get_ident()
                queue.working()
                self._stopping = True
                self._give_up(time.monotonic() + DRAIN_PATIENCE)
                while batch := queue.take(BATCH_RECORDS):
                    self.handle(batch)
                self._report_drops(final=True)
            finally:
                self._give_up(None)
                queue.consumer = None
                queue.sleeping()
                self._draining.release()

    def _give_up(self, deadline: float | None) -> None:
        self._give_up_at = math.inf if deadline is None else deadline
        self._delivery.give_up_at(deadline)

    # The listener's thread, or the one that calls drain().

    def run(self) -> None:
        """The thread: batch after batch until `stop`."""
        queue = self.queue
        with self._draining:
            self._thread = threading.current_thread()
            queue.consumer = threading.get_ident()
            queue.working()
            try:
                while (batch := self.dequeue(True)) is not None:
                    self.handle(batch)
            except BaseException as error:
                say(f"the listener thread ended: {show_error(error)}; the next record starts it again")
            finally:
                queue.consumer = None
                self._flushes.end()
                self._thread = None
        queue.sleeping()
        if len(queue):  # came after the last look, when a thread was still at work
            self.wake()

    def dequeue(self, block: bool) -> list[logging.LogRecord] | None:  # type: ignore[override]
        """The next batch, oldest first; ``None``, the sentinel, when `stop` was asked for and nothing is left.

        With ``block`` it waits for records, and then up to the flush interval for more of them; without, the
        batch may be empty.
        """
        queue = self.queue
        while True:
            self._flushes.serve()
            if self._stopping and time.monotonic() >= self._give_up_at:
                self._abandon_queue()
            if not len(queue):
                due = self._report_drops(final=self._stopping)
                if self._stopping:
                    return None
                if not block:
                    return []
                queue.sleeping()
                if not len(queue) and not self._wanted():
                    self._signal.wait(due)
                queue.working()
                self._gather_until = time.monotonic() + self.flush_interval
                continue
            if block and not self._wanted():
                left = self._gather_until - time.monotonic()
                if left > 0 and queue.gathering():
                    self._signal.wait(left)
                queue.working()
            self._gather_until = time.monotonic() + self.flush_interval
            return queue.take(BATCH_RECORDS)

    def handle(self, batch: list[logging.LogRecord]) -> None:  # type: ignore[override]
        """Hand a batch to every handler; what became of its records is counted. Never raises."""
        self._delivery.deliver([self.prepare(record) for record in batch])
        self._report_drops()

    def _pause(self) -> None:
        """Let the other threads run while there is time.

        Not when the queue fills up: each time that the GIL is given away beside a busy thread costs a switch interval
        of 5 ms, which made 2,000 records/s of 24,000.
        """
        if not self._wanted() and not self.queue.crowded:
            time.sleep(SLICE_PAUSE)

    def _rest(self, seconds: float) -> None:
        """Wait before the next attempt of a write, unless somebody wakes."""
        self._signal.wait(seconds)

    def _wanted(self) -> bool:
        return self._stopping or bool(self._flushes)

    def _abandon_queue(self) -> None:
        while batch := self.queue.take(BATCH_RECORDS):
            self.queue.tally.settle(0, len(batch))

    def _report_drops(self, *, final: bool = False) -> float | None:
        """Write the line about drops if it is due; returns when to look again, in seconds."""
        due = self._drop_report.due(final=final)
        if due != 0:
            return due
        self.queue.tally.reports += 1
        self._delivery.deliver([self._drop_report.record()])
        return None
