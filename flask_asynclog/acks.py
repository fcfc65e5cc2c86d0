"""Which handlers have taken which records of a batch, and of what comes again after an earlier one.

Used by the one thread that delivers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flask_asynclog.entries import Entry


class Acks:
    """Of one batch at a time, by the indexes of its records: a handler takes each unless `fail` says otherwise."""

    def __init__(self) -> None:
        #: The handlers that have not taken a record, by `id`, by its index.
        self._owed: dict[int, set[int]] = {}
        #: Indexes of the records that were given up for lack of time.
        self._unsent: set[int] = set()
        #: What `keep` returned, by `id`, with the handlers that have not taken it.
        self._kept: dict[int, tuple[Entry, set[int]]] = {}
        #: Of records of this batch that it returned once, by index, the handlers that get them: others have them.
        self._again: dict[int, set[int]] = {}

    def begin(self, batch: list[Entry]) -> None:
        """Go on with another batch."""
        self._owed, self._unsent = {}, set()
        self._again = self._come_again(batch) if self._kept else {}

    def _come_again(self, batch: list[Entry]) -> dict[int, set[int]]:
        again: dict[int, set[int]] = {}
        for index, entry in enumerate(batch):
            known = self._kept.get(id(entry))
            if known is not None and known[0] is entry:
                again[index] = known[1]
        if again:  # otherwise the batch is a report of ours
            self._kept = {}
        return again

    @property
    def some_come_again(self) -> bool:
        """Whether there are records that some handlers have taken with an earlier batch."""
        return bool(self._again)

    def has_taken(self, handler: object, index: int) -> bool:
        """Whether a handler has taken a record with an earlier batch."""
        owed = self._again.get(index)
        return owed is not None and id(handler) not in owed

    def fail(self, handler: object, indexes: Iterable[int]) -> None:
        """A handler has not taken these."""
        for index in indexes:
            self._owed.setdefault(index, set()).add(id(handler))

    def give_up(self, handler: object, indexes: Sequence[int]) -> None:
        """A handler has not taken these for lack of time."""
        self._unsent.update(indexes)
        self.fail(handler, indexes)

    @property
    def failed(self) -> int:
        """How many records some handler has not taken."""
        return len(self._owed)

    def keep(self, batch: list[Entry]) -> list[Entry]:
        """Those of the batch that were given up for lack of time. When they come again, who has taken them is known."""
        if self._unsent:
            self._kept = {id(batch[index]): (batch[index], self._owed[index]) for index in self._unsent}
        return [batch[index] for index in sorted(self._unsent)]
