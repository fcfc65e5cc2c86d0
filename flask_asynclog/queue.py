"""The bounded queue between the callers' threads and the listener's.

No lock: callers append to a `collections.deque` (atomic) and count with `Counter`. A signal handler or a finalizer
may log in the middle of any of it, and a fork in the middle of it leaves nothing locked.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from os import getpid

from flask_asynclog import lifecycle
from flask_asynclog.native import get_ident
from flask_asynclog.records import show_error
from flask_asynclog.report import Once
from flask_asynclog.stats import Counter, Stats, Tally

#: Share of the queue open to records below WARNING: rsyslog and Logback draw the line in the same region.
ORDINARY_SHARE = 0.8

#: Records that the draining thread may log by itself before more of the others' have been drained.
OWN_RECORDS = 16

_once = Once()
_NEVER = sys.maxsize
_Lane = deque[tuple[int, logging.LogRecord]]


def _no_listener() -> None:
    """Stand-in for ``wake`` until a listener is attached."""


class RecordQueue:
    """A bounded first-in first-out queue of records that never makes its callers wait, unless asked to.

    Two lanes, one for records below WARNING and one for the others, are drained in the order of acceptance. So
    the choice of what to drop never searches: below WARNING records go from 80 % full, the oldest or
    the newest of them as the policy says; the others only when all of the queue is taken, and under
    ``drop_old`` only when no record below WARNING is left. Concurrent callers may overshoot ``size``
    by one record each.

    :param size: records held, from 1.
    :param overflow: ``drop_new``, ``drop_old`` or ``block``.
    :param block_timeout: seconds that `put` may wait under ``block``.
    :param flush_level: a record at or above it wakes the listener at once.

    Callers: `put`, on any thread. Everything from `take` on: the thread that drains, only.
    After a fork the child calls `reset`: it drops what it inherited, uncounted, since the parent writes it.
    """

    def __init__(
        self,
        size: int = 65_536,
        overflow: str = "drop_new",
        block_timeout: float = 0.1,
        flush_level: int = logging.ERROR,
    ) -> None:
        self.configure(size, overflow, block_timeout, flush_level)
        #: Called, on a caller's thread, when there is something to drain and the listener does not know.
        self.wake: Callable[[], None] = _no_listener
        # Not reset: a put under way when a signal handler forks has taken its ticket before.
        self._tickets = Counter()
        self.reset()

    def configure(self, size: int, overflow: str, block_timeout: float, flush_level: int) -> None:
        """Take other parameters, those of the class, from now on; no record is dropped for it."""
        self.size = size
        self.overflow = overflow
        self.block_timeout = block_timeout
        self.flush_level = flush_level
        self._ordinary_size = max(1, int(size * ORDINARY_SHARE))
        self._half = max(1, size // 2)
        self._at_work = max(1, self._ordinary_size - 1)

    def reset(self) -> None:
        """Start empty, with counters at zero and no listener at work."""
        self.tally = Tally()
        self.urgent = False
        #: Whether every record wakes: whoever logs writes.
        self.inline = False
        #: Thread that drains.
        self.consumer: int | None = None
        self._own_waiting = 0
        self._own_allowed = OWN_RECORDS
        self._ordinary: _Lane = deque()
        self._important: _Lane = deque()
        self._taken_ordinary = 0
        self._taken_important = 0
        # Number of waiting records at which `put` wakes the listener: 0 while it sleeps or is absent,
        # half of the queue while it gathers a batch; while it is at work, an almost full queue, once: a thread that
        # somebody killed in the middle of its work says nothing.
        self._wake_at = 0

    def __len__(self) -> int:
        return len(self._ordinary) + len(self._important)

    def put(self, record: logging.LogRecord) -> None:
        """Accept ``record``, or drop one as the policy says. Waits under ``block`` only."""
        if getpid() != lifecycle.pid:
            lifecycle.check_process()
        levelno = record.levelno
        tally = self.tally
        ticket = self._tickets.tick()
        waiting = len(self._ordinary) + len(self._important)
        important = levelno >= logging.WARNING
        if self.consumer == get_ident() and not self._accept_own():
            tally.drops.tick("logged_by_listener", levelno)
            return
        limit = self.size if important else self._ordinary_size
        if waiting >= limit and not self._make_room(important, limit):
            tally.drops.tick("queue_full", levelno)
            return
        (self._important if important else self._ordinary).append((ticket, record))
        if waiting >= self._wake_at or levelno >= self.flush_level:
            self._wake(levelno)

    @property
    def pending(self) -> int:
        """Records whose outcome is not known yet."""
        return self.stats().pending

    def stats(self) -> Stats:
        """The counters of this moment. Any thread."""
        lifecycle.check_process()
        return self.tally.snapshot(lambda: self._taken_ordinary + self._taken_important + len(self))

    def refuse(self, levelno: int, reason: str) -> None:
        """Count a record that cannot be taken at all."""
        self.tally.drops.tick(reason, levelno)
        self._wake(levelno)

    def _accept_own(self) -> bool:
        # Logged by the thread that drains: a finalizer's word that came at this moment is welcome. A sink that logs
        # whenever it gets a record would never come to an end: one such record per record of the others.
        if self._own_allowed <= 0:
            return False
        self._own_allowed -= 1
        self._own_waiting += 1
        return True

    def _make_room(self, important: bool, limit: int) -> bool:
        if self.overflow == "drop_old":
            lane = self._ordinary
            if important and not lane:
                lane = self._important
            victim = _popleft(lane)
            if victim is None:  # nothing below WARNING to give way; or the listener has just emptied the lane
                return len(self) < limit
            self.tally.drops.tick("queue_full", victim[1].levelno)
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

    def _wake(self, levelno: int) -> None:
        if levelno >= self.flush_level:
            self.urgent = True
        if not self.inline:
            if self._wake_at == _NEVER or (self._wake_at == self._at_work and len(self) < self._at_work):
                return
            self._wake_at = _NEVER
        try:
            self.wake()
        except Exception as error:  # the record is in the queue all the same; the next one wakes
            self._wake_at = 0
            _once.say("wake", f"the listener could not be woken: {show_error(error)}")
        except BaseException:
            self._wake_at = 0
            raise

    # The draining side.

    def sleeping(self) -> None:
        """From now on the next record wakes. Look at the queue once more before sleeping."""
        self._wake_at = 0

    def gathering(self) -> bool:
        """From now on an urgent record or a half-full queue wakes. Returns whether there is time to gather."""
        self._wake_at = 0 if self.inline else self._half
        return not self.urgent and len(self) < self._half

    def working(self) -> None:
        """From now on the listener looks by itself; it is woken only to see whether it lives."""
        self._wake_at = 0 if self.inline else self._at_work

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        # In this order: who drains sleeps, or has gone, only when what it took is settled.
        return not len(self) and self._wake_at == 0 and not (self.inline and self.consumer is not None)

    @property
    def crowded(self) -> bool:
        """Whether half of the queue is taken."""
        return len(self) >= self._half

    def take(self, most: int) -> list[logging.LogRecord]:
        """Up to ``most`` records, the oldest first; empty when none wait."""
        self.urgent = False
        ordinary, important = self._ordinary, self._important
        taken: list[logging.LogRecord] = []
        while len(taken) < most:
            before = len(taken)
            # Ordinary records with a ticket below this one go first. Read before the important lane: whatever a thread
            # put there before a record with such a ticket is in that lane by now.
            bound = self._tickets.value
            head = _head(important)
            while len(taken) < most and (record := self._pop_ordinary(bound if head is None else head)) is not None:
                taken.append(record)
            if head is not None and len(taken) < most and (record := self._pop_important(head)) is not None:
                taken.append(record)
            if len(taken) == before and not ordinary and not important:
                break
        own = min(self._own_waiting, len(taken))
        self._own_waiting -= own
        self._own_allowed = min(OWN_RECORDS, self._own_allowed + len(taken) - own)
        return taken

    def give_back(self, records: Sequence[logging.LogRecord]) -> None:
        """Put back what was taken last and could not be handed on; it comes first, in its order, at the next `take`."""
        for ticket, record in enumerate(reversed(records), 1):
            if record.levelno >= logging.WARNING:
                self._important.appendleft((-ticket, record))
                self._taken_important -= 1
            else:
                self._ordinary.appendleft((-ticket, record))
                self._taken_ordinary -= 1

    def _pop_ordinary(self, bound: int) -> logging.LogRecord | None:
        """The oldest record of its lane, if its ticket is below ``bound``."""
        entry = _popleft(self._ordinary)
        if entry is None:
            return None
        if entry[0] >= bound:
            self._ordinary.appendleft(entry)
            return None
        self._taken_ordinary += 1
        return entry[1]

    def _pop_important(self, ticket: int) -> logging.LogRecord | None:
        """The oldest record of its lane, if it is the one with this ``ticket``: a caller may have dropped that."""
        entry = _popleft(self._important)
        if entry is None:
            return None
        if entry[0] != ticket:
            self._important.appendleft(entry)
            return None
        self._taken_important += 1
        return entry[1]

    def mark(self) -> tuple[int, int]:
        """A mark behind all records that wait now, for `passed`. Any thread."""
        # In this order: what is taken meanwhile makes it a later mark, never an earlier one.
        return (
            len(self._ordinary) + self._taken_ordinary,
            len(self._important) + self._taken_important,
        )

    def passed(self, mark: tuple[int, int]) -> bool:
        """Whether all records that waited at ``mark`` have been taken, or dropped."""
        ordinary, important = mark
        return (self._taken_ordinary >= ordinary or not self._ordinary) and (
            self._taken_important >= important or not self._important
        )


# Between a look at a lane and the use of what was seen, a caller's drop_old may empty it.


def _head(lane: _Lane) -> int | None:
    try:
        return lane[0][0]
    except IndexError:
        return None


def _popleft(lane: _Lane) -> tuple[int, logging.LogRecord] | None:
    try:
        return lane.popleft()
    except IndexError:
        return None
