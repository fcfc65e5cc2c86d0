"""The draining side of a queue: batches are gathered, delivered, and given up when their time is over.

Runs on one thread at a time: the listener's, or where there must not be one, that of whoever logs.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable

from flask_asynclog.context import Context, get_current, set_current
from flask_asynclog.delivery import Delivery
from flask_asynclog.dropreport import DropReport
from flask_asynclog.entries import Entry, restore
from flask_asynclog.flushes import Flushes
from flask_asynclog.native import Signal, get_ident, sleep
from flask_asynclog.queue import Mark, RecordQueue
from flask_asynclog.records import own_record
from flask_asynclog.redaction import Redactor
from flask_asynclog.report import Once
from flask_asynclog.tracing import tracing
from flask_asynclog.values import show_error

#: Records per batch: past about a hundred, larger ones cost as much per record and hold the lock longer.
BATCH_RECORDS = 256
#: Seconds the GIL is given away between two slices of a batch.
SLICE_PAUSE = 0.0002
#: A pause so much longer, in seconds, tells of a thread that computes: Python lets it, for the switch interval of 5 ms.
LATE = 0.001
#: Beside such a thread every interruption costs it some 0.1 ms, however short, and us 5 ms. So they are few: so many
#: records in one go, and so many seconds between, fewer as the queue fills. Where that thread serves requests one after
#: the other, one in some hundred is held up.
RECORDS_IN_ONE_GO = 256
LATE_PAUSE = 0.04


class Drain:
    """What drains one queue into its handlers, in one process.

    :param queue: the queue.
    :param handlers: where its records go.
    :param prepare: called with each record before the handlers get what it returns; ``None``: they get the record.
    :param respect_handler_level: skip a handler whose level is above the record's.
    """

    def __init__(
        self,
        queue: RecordQueue,
        handlers: Iterable[logging.Handler],
        prepare: Callable[[logging.LogRecord], logging.LogRecord] | None,
        *,
        respect_handler_level: bool,
    ) -> None:
        #: Wakes the thread that drains.
        self.signal = Signal()
        #: Those who wait for it.
        self.flushes = Flushes(queue)
        self._queue = queue
        self._prepare = prepare
        self._stopping = False
        self._stop_mark: Mark | None = None
        self._give_up_at = math.inf
        self._gather_until = 0.0
        #: Behind what has waited long enough: it is taken before anything is gathered again.
        self._due = queue.mark()
        self._records_to_go = 0
        self._pause_seconds = SLICE_PAUSE
        self._context = Context(drains=queue)
        self._outer_context: Context | None = None
        self._drop_report = DropReport(queue.tally.drops)
        self._once = Once()
        self._delivery = Delivery(
            handlers,
            queue.tally,
            respect_handler_level=respect_handler_level,
            pause=self._pause,
            wait=self.signal.wait,
            writing=self._set_writing,
        )

    # Any thread.

    def stop_soon(self) -> None:
        """Ask for an end as soon as all that waits now has been taken."""
        self._stopping, self._stop_mark = True, None
        self.signal.set()

    def go_on(self) -> None:
        """Take that back."""
        self._stopping, self._stop_mark = False, None

    def give_up_at(self, deadline: float | None) -> None:
        """Count as failed what is not written by ``deadline`` of `time.monotonic`; ``None``: never give up."""
        self._give_up_at = math.inf if deadline is None else deadline
        self._delivery.give_up_at(deadline)

    def add_handler(self, handler: logging.Handler) -> None:
        """See `BatchQueueListener.add_handler`."""
        self._delivery.add_handler(handler)

    @property
    def takes_briefs(self) -> bool:
        """See `BatchQueueListener.takes_briefs`."""
        return self._prepare is None and self._delivery.takes_briefs

    def redact(self, redactor: Redactor | None) -> None:
        """Take secrets out of what comes, from now on."""
        self._delivery.redactor = redactor

    # Whoever drains.

    def __enter__(self) -> None:
        self._outer_context = get_current()
        set_current(self._context)  # what is logged from here on is ours
        self._queue.consumer = get_ident()
        self._queue.working()

    def __exit__(self, *_: object) -> None:
        self._queue.under_way = False
        self._queue.consumer = None
        set_current(self._outer_context)
        self.flushes.end()

    def next_batch(self, *, block: bool, flush_interval: float) -> list[Entry] | None:
        """The next batch, oldest first; ``None`` when all that waited at `stop_soon` has been taken.

        :param block: wait for records, and then for more of them; otherwise the batch may be empty.
        :param flush_interval: longest wait for more, in seconds.
        """
        queue = self._queue
        queue.under_way = False
        while True:
            self.flushes.serve()
            if self._stopping and self._passed_stop():
                self.report_drops(final=True)
                return None
            if not len(queue):
                due = self.report_drops()
                if not block:
                    return []
                queue.sleeping()
                if not len(queue) and not self._wanted():
                    self.signal.wait(due)
                queue.working()
                self._gather_until = time.monotonic() + flush_interval
                continue
            if queue.passed(self._due):
                if block and not self._wanted():
                    left = self._gather_until - time.monotonic()
                    if left > 0 and queue.gathering():
                        self.signal.wait(left)
                    queue.working()
                self._gather_until = time.monotonic() + flush_interval
                self._due = queue.mark()
            return queue.take_entries(BATCH_RECORDS)

    def deliver(self, batch: list[Entry]) -> None:
        """Hand a batch to every handler; what became of its records is counted. Never raises."""
        if not self._queue.careful and tracing():  # somebody has imported it meanwhile
            self._queue.be_careful()
        if self._queue.brief and not self.takes_briefs:  # somebody has given the file a filter or a formatter
            self._queue.brief = False
        self._delivery.deliver(self._prepared(batch))
        self.report_drops()

    def _prepared(self, batch: list[Entry]) -> list[Entry]:
        prepare = self._prepare
        if prepare is None:
            return batch
        prepared: list[Entry] = []
        failed = 0
        try:
            for entry in batch:
                try:
                    prepared.append(prepare(restore(entry)))
                except Exception as error:
                    failed += 1
                    self._once.say(f"prepare {type(error)}", f"prepare() failed on a record: {show_error(error)}")
        except BaseException:  # a signal handler's
            failed = len(batch)
            raise
        finally:
            self._queue.tally.failed += failed
        return prepared

    def report(self, text: str, *args: object) -> None:
        """Write a WARNING of this library into the log."""
        self._write_report(own_record(text, *args))

    def report_drops(self, *, final: bool = False) -> float | None:
        """Write the line about drops if it is due; returns when to look again, in seconds."""
        due = self._drop_report.due(final=final)
        if due != 0:
            return due
        self._write_report(self._drop_report.record())
        return None

    def _write_report(self, record: logging.LogRecord) -> None:
        queue = self._queue
        queue.tally.reports += 1
        before, queue.under_way = queue.under_way, True  # what a handler logs at this is as at any other record
        try:
            self._delivery.deliver([record])
        finally:
            queue.under_way = before

    def drain_inline(self, patience: float, *, keep: bool) -> bool:
        """Take and deliver all that waits now, in the thread of a caller.

        :param patience: longest wait for a handler that does not take records, in seconds.
        :param keep: leave in the queue what it has not taken by then, rather than count it as failed.
        :returns: whether the queue has been drained.
        """
        queue = self._queue
        self._stopping = True  # no pauses
        self.give_up_at(time.monotonic() + patience)
        try:
            mark = queue.mark()
            while not queue.passed(mark) and (batch := queue.take_entries(BATCH_RECORDS)):
                kept = self._delivery.deliver(self._prepared(batch), keep=keep, own_thread=False)
                queue.tally.inline += len(batch) - len(kept)
                if kept:
                    queue.give_back(kept)
                    return False
            self.report_drops(final=True)
            return True
        finally:
            self.give_up_at(None)

    def _passed_stop(self) -> bool:
        if time.monotonic() >= self._give_up_at:
            while batch := self._queue.take_entries(BATCH_RECORDS):
                self._queue.tally.settle(0, len(batch))
            return True
        if self._stop_mark is None:
            self._stop_mark = self._queue.mark()
        return self._queue.passed(self._stop_mark)

    def _pause(self, count: int) -> None:
        """Let the other threads run, those that come back from I/O first of all: ``count`` records were formatted."""
        if self._wanted():
            return
        self._records_to_go -= count
        if self._records_to_go > 0:
            return
        self._records_to_go = 0
        began = time.monotonic()
        sleep(self._pause_seconds)
        if time.monotonic() - began > self._pause_seconds + LATE:
            self._records_to_go = RECORDS_IN_ONE_GO
            self._pause_seconds = max(SLICE_PAUSE, LATE_PAUSE * (1 - self._queue.half_filled))
        else:
            self._pause_seconds = SLICE_PAUSE

    def _set_writing(self, writing: bool) -> None:
        self._queue.writing = writing

    def _wanted(self) -> bool:
        return self._stopping or bool(self.flushes)
