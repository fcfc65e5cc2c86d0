"""Counters of one queue and the law that ties them.

``accepted = written + dropped + failed + pending``, in every process, at every moment. Callers' threads count
``dropped``; all other counts have a single writer, whoever drains;
what is pending is where it is, in the queue or in the batch under way.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


class Counter:
    """A count that is exact under threads and signal handlers without a lock.

    ``next()`` of an ``itertools.count`` is one C call: nothing can come between its reading and its
    adding, not another thread, not a signal handler that logs, not a garbage collection that logs.
    ``x += 1`` has no such promise, and a lock would deadlock the signal handler.
    """

    __slots__ = ("_ticks", "tick")

    def __init__(self) -> None:
        self._ticks = itertools.count()
        #: Adds one; returns the count before.
        self.tick = self._ticks.__next__

    @property
    def value(self) -> int:
        # The repr, "count(7)", is the one way to read the count without adding to it that every
        # supported version has (copying an iterator of itertools ended with Python 3.14).
        return int(repr(self._ticks)[len("count(") : -1])


class Drops:
    """Refused records, counted by reason and level. Any thread; no lock."""

    __slots__ = ("_counters",)

    def __init__(self) -> None:
        self._counters: dict[tuple[str, int], Counter] = {}

    def tick(self, reason: str, levelno: int) -> None:
        """Count one record refused for ``reason``."""
        key = (reason, levelno)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters.setdefault(key, Counter())  # atomic: the first one wins
        counter.tick()

    def counts(self) -> dict[tuple[str, int], int]:
        """The counts so far, by ``(reason, levelno)``."""
        return {key: counter.value for key, counter in self._counters.copy().items()}

    def total(self) -> int:
        """All drops so far."""
        return sum(self.counts().values())


class Tally:
    """What became of the records of one queue in one process, but for those that still wait in it."""

    __slots__ = ("_marks", "batches", "drops", "failed", "inline", "reports", "restarts", "retries", "written")

    def __init__(self) -> None:
        self.drops = Drops()
        #: Records that the listener made itself, about drops.
        self.reports = 0
        self.written = 0
        self.failed = 0
        self.batches = 0
        self.retries = 0
        #: Records taken by the thread that logged, where there must not be another.
        self.inline = 0
        #: Threads that took the place of one that died.
        self.restarts = 0
        #: The most that was seen as accepted, and what others are about to take away as less.
        self._marks = {0}

    def settle(self, written: int, failed: int) -> None:
        """Count the outcome of one batch. Only the thread that drains calls this."""
        self.written += written
        self.failed += failed
        self.batches += 1

    def snapshot(self, entered: Callable[[], int]) -> Stats:
        """A `Stats` of this moment; ``entered`` tells how many records are in the queue or were taken out of it.

        A record is counted where it is: dropped, waiting, taken, settled. So none can be accepted and then be missing,
        whatever interrupts a caller. One that is just on its way from one place to the next may be seen nowhere for
        that moment; no count goes back for it.
        """
        written, failed = self.written, self.failed
        by_reason: dict[str, dict[str, int]] = {}
        dropped = 0
        for (reason, levelno), count in self.drops.counts().items():
            levels, name = by_reason.setdefault(reason, {}), logging.getLevelName(levelno)
            levels[name] = levels.get(name, 0) + count  # several levels may have one name
            dropped += count
        accepted = self._highest(entered() + self.reports + dropped)
        return Stats(
            accepted=accepted,
            written=written,
            dropped=dropped,
            failed=failed,
            pending=accepted - written - dropped - failed,
            batches=self.batches,
            retries=self.retries,
            inline=self.inline,
            restarts=self.restarts,
            dropped_by=by_reason,
        )

    def _highest(self, seen: int) -> int:
        """The most that anybody has seen, whoever looks at the same time: what is less goes, the most stays."""
        marks = self._marks
        marks.add(seen)
        highest = max(marks.copy())
        for mark in marks.copy():
            if mark < highest:
                marks.discard(mark)
        return highest


@dataclass(frozen=True, slots=True)
class Stats:
    """What became of the records of this process since it started (or was forked).

    ``accepted = written + dropped + failed + pending`` always holds. ``batches`` and ``retries`` count batches,
    ``restarts`` threads, all others records.
    """

    #: Records that reached the handler: past levels and filters, dropped ones included.
    accepted: int = 0
    #: Records that every handler behind the queue has taken (for the file: its ``write`` returned).
    written: int = 0
    #: Records refused by the overflow policy, or that could not be read.
    dropped: int = 0
    #: Records that a handler gave up on: it raised, or the process stopped before the sink healed.
    failed: int = 0
    #: Records in the queue or in the batch under way.
    pending: int = 0
    #: Batches drained.
    batches: int = 0
    #: Attempts to write that failed and were repeated.
    retries: int = 0
    #: Records among ``written`` and ``failed`` that the thread which logged wrote itself, at once.
    inline: int = 0
    #: Times that the listener's thread died and was started again.
    restarts: int = 0
    #: ``dropped`` by reason and level name: ``{"queue_full": {"INFO": 1200}}``.
    dropped_by: Mapping[str, Mapping[str, int]] = field(default_factory=dict[str, Mapping[str, int]])

    def __add__(self, other: Stats) -> Stats:
        """The sum over two queues."""
        by_reason: dict[str, dict[str, int]] = {}
        for part in (self.dropped_by, other.dropped_by):
            for reason, levels in part.items():
                mine = by_reason.setdefault(reason, {})
                for level, count in levels.items():
                    mine[level] = mine.get(level, 0) + count
        return Stats(
            accepted=self.accepted + other.accepted,
            written=self.written + other.written,
            dropped=self.dropped + other.dropped,
            failed=self.failed + other.failed,
            pending=self.pending + other.pending,
            batches=self.batches + other.batches,
            retries=self.retries + other.retries,
            inline=self.inline + other.inline,
            restarts=self.restarts + other.restarts,
            dropped_by=by_reason,
        )
