"""Records below the normal level, kept while a request runs and written only if it fails or is slow.

Filled on the request's threads, settled on that which sends the response. No lock.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable

from flask_asynclog.entries import Entry, level_of


class HeldRecords:
    """What is held for one request: the last ``most`` records.

    :param most: records, from 1.
    :param accept: puts an entry of this level into the queue.
    """

    def __init__(self, most: int, accept: Callable[[Entry, int], object]) -> None:
        self._entries: deque[Entry] = deque(maxlen=most)
        self._accept = accept
        self._count = itertools.count().__next__
        #: Whether they are wanted; ``None``: not known yet.
        self._wanted: bool | None = None

    def add(self, entry: Entry) -> None:
        """Hold ``entry``; pass it on, or forget it, once it is known which."""
        if self._wanted is False:
            return
        self._count()
        self._entries.append(entry)
        if self._wanted is not None:  # by now
            self._settle()

    def settle(self, *, wanted: bool) -> int:
        """Put all of them into the queue, or forget them, and those that are still to come, too.

        :returns: how many older ones there was no room for.
        """
        if self._wanted is not None:
            return 0
        left_out = self._count() - len(self._entries)
        self._wanted = wanted
        self._settle()
        return left_out if wanted else 0

    def _settle(self) -> None:
        if not self._wanted:
            self._entries.clear()
        while self._entries:
            try:
                entry = self._entries.popleft()
            except IndexError:  # another thread was faster
                return
            self._accept(entry, level_of(entry))
