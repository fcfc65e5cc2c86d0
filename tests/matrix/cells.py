"""What one cell of the matrix is: a way to run the app, a way to end it, and what was found in the file afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path


class Skipped(Exception):
    """Raised by a cell that cannot be run here, for lack of a right: why."""


@dataclass
class Result:
    """What became of the tagged records of one cell.

    ``expected`` holds the tags that have to be in the file, each once: all that were answered to a client, or all that
    a process logged before it ended. ``found`` holds those that are there; more than expected is allowed for requests
    that got no answer, twice is not.
    """

    expected: Iterable[str]
    found: Iterable[str]
    #: Seconds from the ending signal, or from the last record, to the end of the process.
    seconds: float = 0.0
    #: Longest that the end may take, in seconds.
    allowed_seconds: float = 30.0
    #: What else is wrong: unexpected stderr, a wrong exit status. Empty when nothing is.
    problems: list[str] = field(default_factory=list)
    #: What else was measured, for the table.
    note: str = ""

    def __post_init__(self) -> None:
        self.expected, self.found = list(self.expected), list(self.found)

    @property
    def lost(self) -> list[str]:
        """Tags that should be in the file and are not."""
        found = set(self.found)
        return [tag for tag in self.expected if tag not in found]

    @property
    def doubled(self) -> list[str]:
        """Tags that are in the file more than once."""
        return [tag for tag, count in Counter(self.found).items() if count > 1]

    @property
    def otherwise_right(self) -> bool:
        """Whether nothing is wrong but, perhaps, that records are lost. Who expected nothing has not shown anything."""
        return bool(self.expected) and not self.doubled and not self.problems and self.seconds <= self.allowed_seconds

    @property
    def passed(self) -> bool:
        """Whether all of it is as promised."""
        return self.otherwise_right and not self.lost


@dataclass(frozen=True)
class Cell:
    """One cell: ``run`` gets an empty directory, starts real processes in it, and ends them."""

    #: What runs the app: ``gunicorn gthread --preload``. The row of the table.
    row: str
    #: What happens to it: ``SIGTERM``. The column, or the text beside the row.
    event: str
    run: Callable[[Path], Result]
    #: Part of the ordinary test suite. Few are: seconds each.
    quick: bool = False
    #: Modules without which the cell is skipped, and said to be.
    needs: tuple[str, ...] = ()
    #: Records that may be lost here, because nothing can be done about it, and why: shown in the table.
    limit: str = ""
