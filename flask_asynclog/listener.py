"""The thread of a process that drains a queue: started by the first record, ended by forks, `stop` and the exit.

Where there must not be a thread, whoever logs drains.
"""

from __future__ import annotations

import logging
import logging.handlers
import math
import time
from typing import Any, cast

from flask_asynclog import lifecycle
from flask_asynclog.drain import Drain
from flask_asynclog.entries import Entry
from flask_asynclog.inline import InlineDrain
from flask_asynclog.native import NativeThread, allocate_lock, get_ident, poll
from flask_asynclog.queue import RecordQueue
from flask_asynclog.redaction import Redactor
from flask_asynclog.report import say
from flask_asynclog.values import show_error

#: Seconds after which a start of the thread that is still under way has been interrupted.
START_PATIENCE = 5.0
#: Longest that a fork waits for what is queued to be written and for the thread to end, in seconds.
FORK_PATIENCE = 1.0


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
    ``inline`` and said once at DEBUG. A thread that died is started again by the next record, counted in
    ``restarts`` and reported in the log.
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
        self._redactor: Redactor | None = None
        self._reset()
        queue.wake = self.wake
        lifecycle.register(self)

    def _reset(self) -> None:
        self._worker: NativeThread | None = None
        own_prepare = type(self).prepare is not logging.handlers.QueueListener.prepare
        self._drain = Drain(
            self.queue,
            self.handlers,
            self.prepare if own_prepare else None,
            respect_handler_level=self.respect_handler_level,
        )
        self._drain.redact(self._redactor)
        self._inline = InlineDrain(self.queue, self._drain)
        self._start_lock = allocate_lock()
        self._start_refused_at: float | None = None
        #: When the time to drain at exit is over, of `time.monotonic`, once that has begun.
        self._exit_at = 0.0
        self._left_said = False
        #: Records failed before the stop under way, and the time it was given.
        self._stop_begun: tuple[int, float | None] | None = None
        #: What the last thread died of, if it did, until another one has taken its place.
        self._died_of: str | None = None

    def add_handler(self, handler: logging.Handler) -> None:
        """Have ``handler`` get the records too, from the next batch on, before the others: their retries take long."""
        self.queue.brief = False
        self.handlers = (handler, *self.handlers)
        self._drain.add_handler(handler)

    @property
    def takes_briefs(self) -> bool:
        """Whether no handler will want to know more of a plain record than an `entries.Brief` has."""
        return self._drain.takes_briefs

    @property
    def redactor(self) -> Redactor | None:
        """Takes secrets out of the records before the handlers get them; ``None``, as at first: nothing does."""
        return self._redactor

    @redactor.setter
    def redactor(self, redactor: Redactor | None) -> None:
        self._redactor = redactor
        self._drain.redact(redactor)

    # The start.

    def wake(self) -> None:
        """Have the queue looked at soon: start the thread if it does not run. Where none can start, drain here."""
        if not self.running and (reason := lifecycle.inline_reason()) is not None:
            self._write_inline(reason)
            return
        self._drain.signal.set()
        if not self.running:
            self.start()

    def start(self) -> None:
        """Start the thread; does nothing when it runs. Nobody waits: who comes second leaves it to the first."""
        lock = self._start_lock
        if not lock.acquire(blocking=False):
            self._doubt_start_lock()
            self.queue.sleeping()  # the next record looks again
            if self.queue.inline:
                self.drain()
            return
        reason = None
        try:
            self._start_refused_at = None
            if not self.running:
                reason = self._start_thread()
        finally:
            lock.release()
        if reason is not None:  # looked at after the release: whoever came second has left its record in the queue
            self._write_inline(reason)

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
        self._drain.go_on()
        self._drain.give_up_at(None)
        lifecycle.register_exit(self)
        if self._worker is not None and self._died_of is None:
            self._died_of = "killed, without a last word"
        self.queue.inline = False
        worker = self._worker = NativeThread(self._work, name="flask_asynclog")
        try:
            worker.start()
        except RuntimeError as error:  # the interpreter is about to end, or there are no threads to be had
            self._worker = None
            return f"no thread can be started: {error}"
        except BaseException:  # no memory; or a signal handler raised: if the thread runs all the same, it says so
            if not worker.begun:
                self._worker = None
            raise
        return None

    @property
    def running(self) -> bool:
        """Whether the thread runs."""
        worker = self._worker
        return worker is not None and worker.is_alive()

    # The thread.

    def _work(self, worker: NativeThread) -> None:
        """Batch after batch until `stop`."""
        queue = self.queue
        with self._inline.lock:
            self._worker = worker
            try:
                with self._drain:
                    self._report_death()
                    while (batch := self.dequeue(True)) is not None:
                        self.handle(batch)
            except BaseException as error:
                self._died_of = show_error(error)
                say(f"the listener thread ended: {self._died_of}; the next record starts it again")
            finally:
                self._worker = None
        queue.sleeping()
        if len(queue) and not lifecycle.exiting():  # came after the last look, when a thread was still at work
            self.wake()

    def _report_death(self) -> None:
        """Count that this thread takes the place of one that died, and say so in the log."""
        cause, self._died_of = self._died_of, None
        if cause is not None:
            self.queue.tally.restarts += 1
            self._drain.report("the listener thread died and was started again: %s", cause)

    def dequeue(self, block: bool) -> list[Entry] | None:  # type: ignore[override]
        """The next batch, oldest first; ``None``, the sentinel, when all that waited at `stop` has been taken.

        With ``block`` it waits for records, and then up to the flush interval for more of them; without, the
        batch may be empty.
        """
        return self._drain.next_batch(block=block, flush_interval=self.flush_interval)

    def handle(self, batch: list[Entry]) -> None:  # type: ignore[override]
        """Hand a batch to every handler; what became of its records is counted. Never raises."""
        self._drain.deliver(batch)

    # Waiting for it, and its end.

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
        flush = self._drain.flushes.add()
        timeout = self._time_left(timeout)
        if self._worker is not None or len(self.queue):
            self.wake()
        if self._worker is None and self.queue.pending == 0:  # nothing to do, or done in this thread
            return True
        flush.done.wait_as_caller(timeout)
        return flush.complete

    def enqueue_sentinel(self) -> None:
        """Ask the thread to end when all that waits now is written."""
        self._drain.stop_soon()

    def stop(self, timeout: float | None = None) -> bool:  # type: ignore[override]
        """Drain what was accepted before this call, then end the thread. Idempotent; the next record starts it again.

        :param timeout: longest wait in seconds; what is not written by then is counted as failed and said
            on stderr. ``None``: no limit.
        :returns: whether everything was drained in time.
        """
        lifecycle.check_process()
        if self.queue.consumer == get_ident():
            return False
        exiting = lifecycle.exiting()
        if exiting:
            timeout = self._time_left(math.inf if timeout is None else timeout)
        worker = self.begin_stop(timeout)
        if worker is None:
            flush = self._drain.flushes.add()
            self.drain(at_once=True)
            over = flush.done.wait_as_caller(timeout) and flush.passed  # by this thread, or by one that was at it
        else:
            worker.join(timeout, as_caller=not exiting)
            if exiting:
                self.drain()  # what came after the thread's last look
            over = not worker.is_alive()
        begun, self._stop_begun = self._stop_begun, None
        failed_before, given = begun or (self.queue.tally.failed, timeout)
        left = self.queue.tally.failed - failed_before
        if not over:
            left += self.queue.pending
        if left and not (exiting and self._left_said):
            say(f"{left} records were not written within {given or 0:.1f} s, the time to drain at exit or in stop()")
        self._left_said = exiting
        return not left

    def _time_left(self, timeout: float) -> float:
        """No more than what is left of the time to drain at exit: `logging` flushes and closes what we have ended."""
        if not lifecycle.exiting():
            return timeout
        return max(0.0, min(timeout, self._exit_at - time.monotonic()))

    def begin_stop(self, timeout: float | None) -> NativeThread | None:
        """Tell the thread to drain within ``timeout`` seconds and to end; do not wait. Returns it, if there is one."""
        if self._stop_begun is None:
            self._stop_begun = (self.queue.tally.failed, timeout)
        # Another thread may be about to start it; or this one is, interrupted by a signal handler.
        poll(lambda: (starting := self._worker) is None or starting.is_alive(), 1)
        worker = self._worker
        if worker is None or not worker.is_alive():
            return None
        # The thread gives up a little earlier, so that what it gives up is counted when stop() returns.
        self._drain.give_up_at(None if timeout is None else time.monotonic() + timeout - min(0.2, timeout / 10))
        self.enqueue_sentinel()
        return worker

    # Without a thread.

    def drain(self, *, at_once: bool = False) -> None:
        """Drain in the calling thread, where there is no other. Bounded, whatever the sink does.

        :param at_once: also when a caller found a moment ago that the sink does not take records.
        """
        self._inline.run(self._time_left(math.inf), at_once=at_once)

    def _write_inline(self, reason: str) -> None:
        self.queue.inline = True
        self.drain()
        self._inline.say(reason)

    # The process's forks and its end, as `lifecycle` tells them.

    def before_fork(self) -> None:
        """Write what waits and end the thread: a child has none, and a parent may be about to leave by `os._exit`.

        Bounded; a thread that a broken sink holds up goes on in the parent.
        """
        worker = self._worker
        if worker is None or self.queue.consumer == get_ident():
            return
        self.enqueue_sentinel()
        worker.join_in_kernel(FORK_PATIENCE)
        if worker.is_alive() and self._stop_begun is None:
            self._drain.go_on()

    def after_fork(self) -> None:
        """Go on with what was logged meanwhile."""
        if self._worker is None:
            self.queue.sleeping()  # whoever woke meanwhile was not heard
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
