"""The draining side: one thread per process takes batches from the queue and hands them to the handlers.

All handlers of a listener run on its thread, one batch at a time; where there must not be a thread, on that of whoever
logs.
"""

from __future__ import annotations

import logging
import logging.handlers
import math
import time
from typing import Any, cast

from flask_asynclog import lifecycle
from flask_asynclog.delivery import Delivery
from flask_asynclog.dropreport import DropReport
from flask_asynclog.flushes import Flushes
from flask_asynclog.native import NativeThread, Signal, allocate_lock, get_ident, poll, sleep
from flask_asynclog.queue import RecordQueue
from flask_asynclog.records import own_record, show_error
from flask_asynclog.report import say

#: Records per batch: past about a hundred, larger ones cost as much per record and hold the lock longer.
BATCH_RECORDS = 256
#: Seconds the GIL is given away between two slices of a batch, while there is time.
SLICE_PAUSE = 0.0002
#: Seconds after which a start of the thread that is still under way has been interrupted.
START_PATIENCE = 5.0
#: Longest that a fork waits for what is queued to be written and for the thread to end, in seconds.
FORK_PATIENCE = 1.0
#: Longest that a caller that writes by itself waits for a sink that does not take records, in seconds: at the end of
#: the process, when there is no later; and before, when the first caller after the pause tries again.
LAST_PATIENCE = 1.0
INLINE_PATIENCE = 0.1
INLINE_PAUSE = 1.0


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

    The thread is one of the operating system, under gevent and eventlet as well. Before a fork of `os.fork` it
    drains and ends; parent and child start their own with their next record, the child with an empty queue.
    Where there must not be a thread (`lifecycle.inline_reason`), the caller writes at once, which is counted as
    ``inline`` and said once at DEBUG.
    """

    queue: RecordQueue  # type: ignore[assignment]  # the stdlib annotates its own queues

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
        self._worker: NativeThread | None = None
        #: Held by whoever drains: the thread, or a caller of `drain`.
        self._draining = allocate_lock()
        self._start_lock = allocate_lock()
        self._start_refused_at: float | None = None
        self._signal = Signal()
        self._flushes = Flushes(self.queue)
        #: Set when the thread is to end as soon as it has passed the mark, which it sets itself.
        self._stopping = False
        self._stop_mark: tuple[int, int] | None = None
        self._give_up_at = math.inf
        self._gather_until = 0.0
        self._exit_at = 0.0
        #: Records failed before the stop under way, and the time it was given.
        self._stop_begun: tuple[int, float | None] | None = None
        #: What the last thread died of, if it did, until another one has taken its place.
        self._died_of: str | None = None
        #: No caller tries a sink that did not take records before this time.
        self._inline_again_at = 0.0
        self._inline_said: set[str] = set()
        self._drop_report = DropReport(self.queue.tally.drops)
        self._delivery = Delivery(
            self.handlers,
            self.queue.tally,
            respect_handler_level=self.respect_handler_level,
            pause=self._pause,
            wait=self._rest,
        )

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
        reason = None
        try:
            self._start_refused_at = None
            if not self.running:
                reason = self._start_thread()
        finally:
            self._start_lock.release()
        if reason is not None:  # looked at after the release: whoever came second has left its record in the queue
            self.drain()
            self._say_inline(reason)

    def _doubt_start_lock(self) -> None:
        # A signal handler that raised right behind the acquire leaves the lock held for ever: no start takes so long.
        now = time.monotonic()
        if self._start_refused_at is None:
            self._start_refused_at = now
        elif now - self._start_refused_at > START_PATIENCE:
            self._start_refused_at = None
            self._start_lock = allocate_lock()

    def _start_thread(self) -> str | None:
        """Start it, or say why not."""
        reason = lifecycle.inline_reason()
        if reason is not None:
            return reason
        if lifecycle.forking():
            return None  # the parent goes on with what waits
        self._stopping, self._stop_mark = False, None
        self._give_up(None)
        lifecycle.register_exit(self)
        if self._worker is not None and self._died_of is None:
            self._died_of = "it was killed"  # it has not even come to its last words
        thread = self._worker = NativeThread(self._work, name="flask_asynclog")
        try:
            thread.start()
        except RuntimeError as error:  # the interpreter is about to end, or there are no threads to be had
            self._worker = None
            return f"no thread can be started: {error}"
        except BaseException:  # no memory; or a signal handler raised: if the thread runs all the same, it says so
            if not thread.begun:
                self._worker = None
            raise
        return None

    @property
    def running(self) -> bool:
        """Whether the thread runs."""
        thread = self._worker
        return thread is not None and thread.is_alive()

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until everything accepted before this call is with the handlers.

        :param timeout: longest wait in seconds.
        :returns: ``False`` if the time ran out, if records were given up meanwhile, or on the listener's own thread.
        """
        lifecycle.check_process()
        if self.queue.consumer == get_ident():
            return False
        if self.queue.idle:
            return True
        flush = self._flushes.add()
        if self._worker is not None or len(self.queue):
            self.wake()
        if self._worker is None and self.queue.pending == 0:  # nothing to do, or done in this thread
            return True
        flush.done.wait_as_caller(timeout)
        return flush.complete

    def enqueue_sentinel(self) -> None:
        """Ask the thread to end when all that waits now is written."""
        self._stopping, self._stop_mark = True, None
        self._signal.set()

    def stop(self, timeout: float | None = None) -> bool:  # type: ignore[override]
        """Drain what was accepted before this call, then end the thread. Idempotent; the next record starts it again.

        :param timeout: longest wait in seconds; what is not written by then is counted as failed and said
            on stderr. ``None``: no limit.
        :returns: whether everything was drained in time.
        """
        lifecycle.check_process()
        if self.queue.consumer == get_ident():
            return False
        thread = self.begin_stop(timeout)
        if thread is None:
            self.drain()
        else:
            thread.join(timeout, as_caller=not lifecycle.exiting())
            if lifecycle.exiting():
                self.drain()  # what came after the thread's last look
        begun, self._stop_begun = self._stop_begun, None
        failed_before, given = begun or (self.queue.tally.failed, timeout)
        left = self.queue.tally.failed - failed_before
        if thread is None or thread.is_alive():
            left += self.queue.pending
        if left:
            say(f"{left} records were not written within {given or 0:.1f} s, the time to drain at exit or in stop()")
        return not left

    def begin_stop(self, timeout: float | None) -> NativeThread | None:
        """Tell the thread to drain within ``timeout`` seconds and to end; do not wait. Returns it, if there is one."""
        if self._stop_begun is None:
            self._stop_begun = (self.queue.tally.failed, timeout)
        # Another thread may be about to start it; or this one is, interrupted by a signal handler.
        poll(lambda: (thread := self._worker) is None or thread.is_alive(), 1)
        thread = self._worker
        if thread is None or not thread.is_alive():
            return None
        # The thread gives up a little earlier, so that what it gives up is counted when stop() returns.
        self._give_up(None if timeout is None else time.monotonic() + timeout - min(0.2, timeout / 10))
        self.enqueue_sentinel()
        return thread

    def drain(self) -> None:
        """Drain in the calling thread, where there is no other. Bounded, whatever the sink does."""
        queue = self.queue
        # Others who log meanwhile leave their records to this thread. At exit it does not stay for ever.
        end = time.monotonic() + LAST_PATIENCE if lifecycle.exiting() else math.inf
        while len(queue) and self._may_write_inline() and self._draining.acquire(blocking=False):
            try:
                self._work_inline()
            finally:
                self._give_up(None)
                queue.consumer = None
                self._flushes.end()
                queue.sleeping()
                self._draining.release()
            if time.monotonic() > end:
                return

    def _may_write_inline(self) -> bool:
        return lifecycle.exiting() or time.monotonic() >= self._inline_again_at

    def _work_inline(self) -> None:
        queue, last = self.queue, lifecycle.exiting()
        queue.consumer = get_ident()
        queue.working()
        self._stopping = True
        self._give_up(time.monotonic() + (LAST_PATIENCE if last else INLINE_PATIENCE))
        mark = queue.mark()
        while not queue.passed(mark) and (batch := queue.take(BATCH_RECORDS)):
            kept = self._delivery.deliver([self.prepare(record) for record in batch], keep=not last)
            queue.tally.inline += len(batch) - len(kept)
            if kept:
                self._inline_again_at = time.monotonic() + INLINE_PAUSE
                queue.give_back(kept)
                return
        self._report_drops(final=True)

    def _say_inline(self, reason: str) -> None:
        if reason not in self._inline_said:
            self._inline_said.add(reason)
            logging.getLogger("flask_asynclog").debug("records are written by the thread that logs them: %s", reason)

    def _give_up(self, deadline: float | None) -> None:
        self._give_up_at = math.inf if deadline is None else deadline
        self._delivery.give_up_at(deadline)

    # The process's forks and end.

    def before_fork(self) -> None:
        """Write what waits and end the thread: a child has none, and a parent may be about to leave by `os._exit`.

        Bounded; a thread that a broken sink holds up goes on in the parent.
        """
        thread = self._worker
        if thread is None or self.queue.consumer == get_ident():
            return
        self.enqueue_sentinel()
        thread.join(FORK_PATIENCE, as_caller=False)
        if thread.is_alive() and self._stop_begun is None:
            self._stopping, self._stop_mark = False, None

    def after_fork_in_parent(self) -> None:
        """Go on with what other threads have logged meanwhile."""
        if len(self.queue):
            self.wake()

    def after_fork_in_child(self) -> None:
        """Drop what was inherited: thread, waiters and records are the parent's."""
        self.queue.reset()
        self._reset()

    def begin_exit(self) -> None:
        """Begin to drain at exit: all listeners at the same time."""
        self._exit_at = time.monotonic() + self.shutdown_timeout
        self.begin_stop(self.shutdown_timeout)

    def at_exit(self) -> None:
        """Drain within ``shutdown_timeout`` of `begin_exit`."""
        self.stop(max(0.0, self._exit_at - time.monotonic()))

    def leave_inline(self) -> None:
        """Have the thread end when it has drained. Who logs from then on writes by itself, if there is a reason to."""
        if self.running:
            self.enqueue_sentinel()

    @property
    def drained(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return self.queue.idle

    # The listener's thread, or the one that calls drain().

    def _work(self, thread: NativeThread) -> None:
        """The thread: batch after batch until `stop`."""
        queue = self.queue
        with self._draining:
            self._worker = thread
            queue.consumer = get_ident()
            queue.working()
            try:
                self._report_death()
                while (batch := self.dequeue(True)) is not None:
                    self.handle(batch)
            except BaseException as error:
                self._died_of = show_error(error)
                say(f"the listener thread ended: {self._died_of}; the next record starts it again")
            finally:
                queue.consumer = None
                self._flushes.end()
                self._worker = None
        queue.sleeping()
        if len(queue) and not lifecycle.exiting():  # came after the last look, when a thread was still at work
            self.wake()

    def _report_death(self) -> None:
        """Count that this thread takes the place of one that died, and say so in the log."""
        cause, self._died_of = self._died_of, None
        if cause is None:
            return
        tally = self.queue.tally
        tally.restarts += 1
        tally.reports += 1
        self._delivery.deliver([own_record("the listener thread died and was started again: %s", cause)])

    def dequeue(self, block: bool) -> list[logging.LogRecord] | None:  # type: ignore[override]
        """The next batch, oldest first; ``None``, the sentinel, when all that waited at `stop` has been taken.

        With ``block`` it waits for records, and then up to the flush interval for more of them; without, the
        batch may be empty.
        """
        queue = self.queue
        while True:
            self._flushes.serve()
            if self._stopping and self._passed_stop():
                self._report_drops(final=True)
                return None
            if not len(queue):
                due = self._report_drops()
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

    def _passed_stop(self) -> bool:
        if time.monotonic() >= self._give_up_at:
            while batch := self.queue.take(BATCH_RECORDS):
                self.queue.tally.settle(0, len(batch))
            return True
        if self._stop_mark is None:
            self._stop_mark = self.queue.mark()
        return self.queue.passed(self._stop_mark)

    def _pause(self) -> None:
        """Let the other threads run while there is time.

        Not when the queue fills up: each time that the GIL is given away beside a busy thread costs a switch interval
        of 5 ms, which made 2,000 records/s of 24,000.
        """
        if not self._wanted() and not self.queue.crowded:
            sleep(SLICE_PAUSE)

    def _rest(self, seconds: float) -> None:
        """Wait before the next attempt of a write, unless somebody wakes."""
        self._signal.wait(seconds)

    def _wanted(self) -> bool:
        return self._stopping or bool(self._flushes)

    def _report_drops(self, *, final: bool = False) -> float | None:
        """Write the line about drops if it is due; returns when to look again, in seconds."""
        due = self._drop_report.due(final=final)
        if due != 0:
            return due
        self.queue.tally.reports += 1
        self._delivery.deliver([self._drop_report.record()])
        return None
