"""The bounded queue between the callers' threads and the listener's.

No lock: callers append to a `collections.deque` (atomic) and count with `Counter`. A signal handler or a finalizer
may log in the middle of any of it, and a fork in the middle of it leaves nothing locked.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

from flask_asynclog import lifecycle
from flask_asynclog.context import get_current
from flask_asynclog.entries import Entry, as_brief, level_of, process_of, restore
from flask_asynclog.lanes import Lane, LevelLanes
from flask_asynclog.native import get_ident
from flask_asynclog.report import Once
from flask_asynclog.stats import Stats, Tally
from flask_asynclog.values import show_error

#: Share of the queue open to records below WARNING: rsyslog and Logback draw the line in the same region.
ORDINARY_SHARE = 0.8

#: Records that the draining thread may log by itself before more of the others' have been drained.
OWN_RECORDS = 16

#: A place in the order of acceptance, see `RecordQueue.mark`.
Mark: TypeAlias = tuple[int, tuple[int, int]]

#: Waiting records from which on others wait as an `entries.Brief`, if nobody wants to know more and the draining thread
#: is at the disk: so many more may come while that stalls. What refers to other objects, Python's garbage collector
#: goes through again and again, and when there is a quarter more of it than before, through all that was ever imported.
#: Texts and numbers it lets go. To make them costs a request some 11 us: not where the thread only has not got to it.
MANY = 1024

_once = Once()
#: More than any queue holds. Of 30 bits: Python 3.11 compares longer numbers in a slower way.
_NEVER = (1 << 30) - 1


def _no_listener() -> None:
    """Stand-in for ``wake`` until a listener is attached."""


class RecordQueue:
    """A bounded first-in first-out queue of records that never makes its callers wait, unless asked to.

    Records below WARNING go from 80 % full, the oldest or the newest of them as the policy says; the others only when
    all of the queue is taken, and under ``drop_old`` only when no record below WARNING is left. The choice never
    searches. Concurrent callers may overshoot ``size`` by one record each.

    :param size: records held, from 1.
    :param overflow: ``drop_new``, ``drop_old`` or ``block``. ``drop_old`` costs each call a little more.
    :param block_timeout: seconds that `put` may wait under ``block``.
    :param flush_level: a record at or above it wakes the listener at once.

    Callers: `put`, on any thread. Everything from `take` on: the thread that drains, only.
    After a fork the child calls `reset`: it drops what it inherited, uncounted, since the parent writes it. A fork that
    Python is not told of is noticed when the listener is to be woken.
    """

    def __init__(
        self,
        size: int = 65_536,
        overflow: str = "drop_new",
        block_timeout: float = 0.1,
        flush_level: int = logging.ERROR,
    ) -> None:
        #: Called, on a caller's thread, when there is something to drain and the listener does not know.
        self.wake: Callable[[], None] = _no_listener
        #: Whether callers are to look at each record with care rather than just append it, see `AsyncQueueHandler`.
        self.careful = False
        #: Whether nobody will want to know more of a plain record than an `entries.Brief` has.
        self.brief = False
        self._start()
        self.configure(size, overflow, block_timeout, flush_level)

    def configure(self, size: int, overflow: str, block_timeout: float, flush_level: int) -> None:
        """Take other parameters, those of the class, from now on; no record is dropped for it."""
        self.size = size
        self.overflow = overflow
        self.block_timeout = block_timeout
        self.flush_level = flush_level
        self._ordinary_size = max(1, int(size * ORDINARY_SHARE))
        self._half = max(1, min(size, _NEVER) // 2)
        self._at_work = max(1, min(self._ordinary_size, _NEVER) - 1)
        #: With fewer waiting, `AsyncQueueHandler` just appends.
        self.easy = 0 if self.careful or overflow == "drop_old" else self._ordinary_size
        #: With fewer waiting, `accept` does.
        self._few = min(self.easy, MANY)

    def be_careful(self) -> None:
        """Have callers look at each record with care from now on."""
        self.careful, self.easy, self._few = True, 0, 0

    def reset(self) -> None:
        """Start anew in a forked child, with counters at zero, no listener at work, and none of the parent's records.

        Some may be the child's own: where Python is told of no fork, it is noticed later.
        """
        own = [entry for entry in [*self._level_lanes.entries(), *self.waiting] if process_of(entry) == os.getpid()]
        self._start()
        self._lane.give_back(own)
        self._lane.taken = 0

    def _start(self) -> None:
        self.tally = Tally()
        self.urgent = False
        #: Whether every record wakes: whoever logs writes.
        self.inline = False
        #: Thread that drains.
        self.consumer: int | None = None
        #: Whether it may have taken something that is not settled yet, or writes a report: otherwise it logs nothing.
        self.under_way = False
        #: Whether it is at a write, which takes long where the disk stalls.
        self.writing = False
        self._own_waiting = 0
        self._own_allowed = OWN_RECORDS
        self._lane: Lane[Entry] = Lane()
        #: For ``drop_old``. Both are in use only while the policy has just been changed.
        self._level_lanes: LevelLanes[Entry] = LevelLanes()
        self.waiting = self._lane.entries
        #: Appends to it. Where it is called often it is loaded into a variable first: Python 3.11 remembers where an
        #: attribute is, and a method; for a function in an attribute, called at once, it looks through the class each
        #: time.
        self.append = self.waiting.append
        #: Number of waiting records at which the next one wakes the listener: 0 while it sleeps or is absent,
        #: half of the queue while it gathers a batch; while it is at work, an almost full queue, once: a thread that
        #: somebody killed in the middle of its work says nothing.
        self.wake_at = 0

    def __len__(self) -> int:
        return len(self.waiting) + len(self._level_lanes)

    def put(self, record: logging.LogRecord) -> None:
        """Accept ``record``, or drop one as the policy says. Waits under ``block`` only."""
        context = get_current()
        if context is not None and context.drains is self:
            self.accept_own(record, record.levelno)
        else:
            self.accept(record, record.levelno)

    def accept(self, entry: Entry, levelno: int) -> bool:
        """The same for what `entries.capture` made of a record; returns whether it was accepted."""
        urgent = levelno >= self.flush_level  # first: a level that is no number must not be found when it is too late
        try:
            waiting = len(self.waiting)
            if waiting < self._few or (waiting < self.easy and not (self.writing and self.brief)):
                append = self.append
                append(entry)
            else:
                waiting = len(self)
                if not self._accept_if_room(entry, levelno, waiting):
                    return False
            # Behind the append: a listener that went to sleep meanwhile has seen the record, or we see that it sleeps.
            if urgent or waiting >= self.wake_at:
                self.call(urgent)
        except BaseException:  # a signal handler's
            self.call_after_interruption(urgent)
            raise
        return True

    def accept_own(self, entry: Entry, levelno: int) -> None:
        """The same for what the thread that drains has logged itself.

        A finalizer's word that came at this moment is welcome. A sink that logs whenever it gets a record would never
        come to an end: one such record per record of the others.
        """
        if self.consumer != get_ident():  # another thread, or task, that a sink has given a copy of its context
            self.accept(entry, levelno)
            return
        if self._own_allowed <= 0:
            self.tally.drops.tick("logged_by_listener", levelno)
            return
        self._own_allowed -= 1
        self._own_waiting += 1
        if not self.accept(entry, levelno):
            self._own_waiting -= 1

    def _accept_if_room(self, entry: Entry, levelno: int, waiting: int) -> bool:
        important = levelno >= logging.WARNING
        limit = self.size if important else self._ordinary_size
        if waiting >= limit and not self._make_room(important, limit):
            self.tally.drops.tick("queue_full", levelno)
            return False
        if self.writing and waiting >= MANY and self.brief:
            entry = as_brief(entry)
        if self.overflow == "drop_old":
            self._level_lanes.add(entry, important=important)
        else:
            self.append(entry)
        return True

    def _make_room(self, important: bool, limit: int) -> bool:
        if self.overflow == "drop_old":
            victim = self._level_lanes.drop(important=important)
            if victim is None:  # nothing below WARNING to give way; or the listener has just emptied the lane
                return len(self) < limit
            self.tally.drops.tick("queue_full", level_of(victim))
            return True
        if self.overflow == "block" and self.consumer != get_ident():
            return self._wait_for_room(limit)
        return False

    def _wait_for_room(self, limit: int) -> bool:
        # Looked at again and again rather than signalled: no lock to be held by a thread that a fork or
        # a signal handler leaves behind, and nothing for the listener to do per record.
        deadline = time.monotonic() + self.block_timeout
        while len(self) >= limit:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, 0.001))
        return True

    def call(self, urgent: bool) -> None:
        """Wake the listener, where that makes sense. Behind each append that found `wake_at` records waiting."""
        lifecycle.check_process()
        if urgent:
            self.urgent = True
        if not self.inline:
            if self.wake_at == _NEVER or (self.wake_at == self._at_work and len(self) < self._at_work):
                return
            self.wake_at = _NEVER
        try:
            self.wake()
        except Exception as error:  # the record is in the queue all the same; the next one wakes
            self.wake_at = 0
            _once.say("wake", f"the listener could not be woken: {show_error(error)}")
        except BaseException:
            self.wake_at = 0
            raise

    def call_after_interruption(self, urgent: bool) -> None:
        """The same where it may have been called, or not, and the record may wait, or not."""
        self.wake_at = 0
        self.call(urgent)

    @property
    def pending(self) -> int:
        """Records whose outcome is not known yet."""
        return self.stats().pending

    def stats(self) -> Stats:
        """The counters of this moment. Any thread."""
        lifecycle.check_process()
        return self.tally.snapshot(lambda: self._lane.entered() + self._level_lanes.entered())

    def refuse(self, levelno: object, reason: str) -> None:
        """Count a record that cannot be taken at all, whatever its level is."""
        known = levelno if isinstance(levelno, int) else logging.NOTSET
        self.tally.drops.tick(reason, known)
        self.call(known >= self.flush_level)

    # The draining side.

    def sleeping(self) -> None:
        """From now on the next record wakes. Look at the queue once more before sleeping."""
        self.wake_at = 0

    def gathering(self) -> bool:
        """From now on an urgent record or a half-full queue wakes. Returns whether there is time to gather."""
        self.wake_at = 0 if self.inline else self._half
        return not self.urgent and len(self) < self._half

    def working(self) -> None:
        """From now on the listener looks by itself; it is woken only to see whether it lives."""
        self.wake_at = 0 if self.inline else self._at_work

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        # In this order: what does not wait any more was taken before, or dropped. Anybody may set `wake_at` to 0.
        return not len(self) and not self.under_way and self.wake_at == 0

    @property
    def half_filled(self) -> float:
        """Which part of half the queue is taken: 1 when half is, 2 when all is."""
        return len(self) / self._half

    def take(self, most: int) -> list[logging.LogRecord]:
        """Up to ``most`` records, the oldest first; empty when none wait."""
        return [restore(entry) for entry in self.take_entries(most)]

    def take_entries(self, most: int) -> list[Entry]:
        """The same, as they waited."""
        self.urgent, self.under_way = False, True
        taken: list[Entry] = []
        # What is not in use any more is older.
        lanes: list[Lane[Entry] | LevelLanes[Entry]] = [self._level_lanes, self._lane]
        if self.overflow == "drop_old":
            lanes.reverse()
        try:
            for lane in lanes:
                lane.take(most - len(taken), taken)
        except BaseException:
            self.give_back(taken)
            raise
        own = min(self._own_waiting, len(taken))
        self._own_waiting -= own
        self._own_allowed = min(OWN_RECORDS, self._own_allowed + len(taken) - own)
        return taken

    def give_back(self, entries: Sequence[Entry]) -> None:
        """Put back what was taken last and could not be handed on; it comes first, in its order, at the next `take`."""
        if self.overflow == "drop_old":
            self._level_lanes.give_back((entry, level_of(entry) >= logging.WARNING) for entry in entries)
        else:
            self._lane.give_back(entries)

    def mark(self) -> Mark:
        """A mark behind all records that wait now, for `passed`. Any thread."""
        return self._lane.mark(), self._level_lanes.mark()

    def passed(self, mark: Mark) -> bool:
        """Whether all records that waited at ``mark`` have been taken, or dropped."""
        lane, level_lanes = mark
        return self._lane.passed(lane) and self._level_lanes.passed(level_lanes)
