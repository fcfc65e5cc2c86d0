"""Where the entries of a queue wait, in the order of their acceptance. No locks: `collections.deque` is atomic.

`Lane` is all that most queues need. `LevelLanes` can also give up the oldest entry below WARNING, without a search.
Callers add; `LevelLanes.drop` may run on their threads too; everything else is for the one thread that drains.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import repeat, starmap
from operator import itemgetter
from typing import Generic, TypeVar

from flask_asynclog.stats import Counter

Entry = TypeVar("Entry")


class Lane(Generic[Entry]):
    """Entries one after the other."""

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque()
        #: How many were taken out, less those given back.
        self.taken = 0
        #: Odd while some are on their way back.
        self._givings = 0

    def __len__(self) -> int:
        return len(self.entries)

    def take(self, most: int, into: list[Entry]) -> None:
        """Move up to ``most`` entries, the oldest first, to the end of ``into``."""
        count = min(most, len(self.entries))
        before = len(into)
        try:
            # All in C: no signal handler that raises comes between the taking of an entry and its keeping.
            into.extend(starmap(self.entries.popleft, repeat((), count)))
        finally:
            self.taken += len(into) - before

    def give_back(self, entries: Iterable[Entry]) -> None:
        """Put back what was taken last, as the oldest."""
        returned = list(entries)
        returned.reverse()
        count, extend = len(returned), self.entries.extendleft
        self._givings += 1
        try:
            self.taken -= count
            extend(returned)
        finally:
            self._givings += 1

    def entered(self) -> int:
        """How many wait, or were taken out; what is on its way may be missing. Any thread."""
        # In this order: what is taken meanwhile is missing, never counted twice.
        return self._settled(lambda: self.taken + len(self.entries))

    def mark(self) -> int:
        """A mark behind all that waits now, for `passed`. Any thread."""
        # In this order: what is taken meanwhile makes it a later mark, never an earlier one.
        return self._settled(lambda: len(self.entries) + self.taken)

    def _settled(self, look: Callable[[], int]) -> int:
        """What ``look`` returns while nothing is on its way back: that is microseconds, or this thread, interrupted."""
        for _ in range(100):
            before = self._givings
            seen = look()
            if before == self._givings and not before % 2:
                return seen
        return look()

    def passed(self, mark: int) -> bool:
        """Whether all that waited at ``mark`` is gone."""
        return self.taken >= mark or not self.entries


class LevelLanes(Generic[Entry]):
    """Two lanes, for what is below WARNING and for the rest; tickets tell the order between them."""

    def __init__(self) -> None:
        self.ordinary: Lane[tuple[int, Entry]] = Lane()
        self.important: Lane[tuple[int, Entry]] = Lane()
        self._tickets = Counter()

    def __len__(self) -> int:
        return len(self.ordinary.entries) + len(self.important.entries)

    def entered(self) -> int:
        """As of `Lane`."""
        return self.ordinary.entered() + self.important.entered()

    def entries(self) -> list[Entry]:
        """All that waits, the oldest first."""
        both = [*self.ordinary.entries, *self.important.entries]
        return [entry for _, entry in sorted(both, key=itemgetter(0))]

    def add(self, entry: Entry, *, important: bool) -> None:
        """Add one. Any thread."""
        (self.important if important else self.ordinary).entries.append((self._tickets.tick(), entry))

    def drop(self, *, important: bool) -> Entry | None:
        """Remove the oldest below WARNING; with ``important``, the oldest of the rest if there is none. Any thread."""
        lane = self.ordinary
        if important and not lane:
            lane = self.important
        entry = _popleft(lane.entries)
        return None if entry is None else entry[1]

    def take(self, most: int, into: list[Entry]) -> None:
        """As of `Lane`."""
        goal = len(into) + most
        ordinary, important = self.ordinary, self.important
        while len(into) < goal:
            before = len(into)
            # Ordinary entries with a ticket below this one go first. Read before the important lane: whatever a thread
            # put there before an entry with such a ticket is in that lane by now.
            bound = self._tickets.value
            head = _head(important.entries)
            while len(into) < goal and _take_if(ordinary, bound if head is None else head, into):
                pass
            if head is not None and len(into) < goal:
                _take_if(important, head + 1, into)
            if len(into) == before and not ordinary and not important:
                break

    def give_back(self, entries: Iterable[tuple[Entry, bool]]) -> None:
        """Put back what was taken last, each with whether it is important, as the oldest."""
        for ticket, (entry, is_important) in enumerate(reversed(list(entries)), 1):
            (self.important if is_important else self.ordinary).give_back([(-ticket, entry)])

    def mark(self) -> tuple[int, int]:
        """As of `Lane`."""
        return self.ordinary.mark(), self.important.mark()

    def passed(self, mark: tuple[int, int]) -> bool:
        """As of `Lane`."""
        return self.ordinary.passed(mark[0]) and self.important.passed(mark[1])


# Between a look at a lane and the use of what was seen, a caller's drop may empty it.


def _head(entries: deque[tuple[int, Entry]]) -> int | None:
    try:
        return entries[0][0]
    except IndexError:
        return None


def _popleft(entries: deque[tuple[int, Entry]]) -> tuple[int, Entry] | None:
    try:
        return entries.popleft()
    except IndexError:
        return None


def _take_if(lane: Lane[tuple[int, Entry]], bound: int, into: list[Entry]) -> bool:
    """Take the oldest of a lane if its ticket is below ``bound``: the one that was seen there may be gone."""
    entry = _popleft(lane.entries)
    if entry is None:
        return False
    if entry[0] >= bound:
        lane.entries.appendleft(entry)
        return False
    into.append(entry[1])
    lane.taken += 1
    return True
