"""Blocks, the raw results, and rows, what is said of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from benchmarks.contenders import CONTENDERS
from benchmarks.pairs import Pair, at_full_speed, difference
from benchmarks.sink import Landed
from benchmarks.statistics import (
    NOT_MET,
    NOT_RESOLVED,
    Estimate,
    Target,
    estimate,
    floor_of,
    paired_difference,
    percentile,
    verdict,
)

#: Added to the name of a figure that is made of turns: that of all of them, those of a slow machine as well.
ALL_TURNS = ", all turns"
#: The percentile of all turns of a kind that is taken for one at full speed: not the least, which may be a freak.
QUICK = 5.0
#: Share of a block's pairs of turns that have to be at full speed, for the block to have a figure.
ENOUGH = 0.25


@dataclass
class Block:
    """One contender in one process of its own."""

    round: int
    contender: str
    #: The second run of the reference in a round: for the A/A floor.
    again: bool = False
    #: Place in its round.
    position: int = 0
    #: Figures by name.
    figures: dict[str, float] = field(default_factory=dict)
    #: By figure, what turns took: the contender's, and the other's.
    turns: dict[str, list[Pair]] = field(default_factory=dict)
    #: Latencies by percentile, in µs, for the plots.
    percentiles: dict[str, float] = field(default_factory=dict)
    landed: Landed | None = None
    #: Records that the contender said it had dropped.
    dropped: int | None = None
    seconds: float = 0.0
    error: str = ""

    def as_json(self) -> dict[str, Any]:
        """For the raw results."""
        return asdict(self)


@dataclass
class Row:
    """One line of a table."""

    scenario: str
    contender: str
    figure: str
    unit: str
    found: Estimate | None = None
    floor: float | None = None
    target: Target | None = None
    landed: str = ""
    #: What the figure is when there is no effect; ``None`` for a figure that is no effect of anything.
    neutral: float | None = None
    #: Records were lost that were to be there: no figure meets a target then.
    lost: bool = False

    @property
    def resolved(self) -> bool:
        """Whether there is an effect: larger than the floor, and none of its interval is without one."""
        if self.found is None or self.floor is None or self.neutral is None:
            return True
        beside = self.found.low > self.neutral or self.found.high < self.neutral
        return beside and abs(self.found.value - self.neutral) > self.floor

    @property
    def verdict(self) -> str:
        """``met``, ``not met``, ``not resolved``; for a row without a target whether there is an effect at all."""
        if self.found is None:
            return ""
        if self.target is not None and self.lost:
            return NOT_MET
        if self.target is not None:
            return verdict(self.found, self.floor, self.target, self.neutral)
        return "" if self.resolved else NOT_RESOLVED

    def as_json(self) -> dict[str, Any]:
        """For the raw results."""
        return asdict(self) | {"verdict": self.verdict, "resolved": self.resolved}


class Blocks:
    """All blocks of one scenario. The reference ran twice in each round."""

    def __init__(self, scenario: str, reference: str, blocks: Iterable[Block]) -> None:
        self.scenario = scenario
        self.reference = reference
        self.blocks = list(blocks)
        #: By figure and contender, how many pairs of turns were at full speed, and how many there were.
        self.pairs: dict[str, dict[str, tuple[int, int]]] = {}
        for figure in dict.fromkeys(figure for block in self.blocks for figure in block.turns):
            self._compare_turns(figure)

    def _compare_turns(self, figure: str) -> None:
        """Make a figure of the turns at full speed, for blocks with enough of them, and one of all turns."""
        its = [block for block in self.blocks if figure in block.turns]
        others = percentile([other for block in its for _, other in block.turns[figure]], QUICK)
        own: dict[str, list[float]] = {}
        for block in its:
            own.setdefault(block.contender, []).extend(one for one, _ in block.turns[figure])
        quick = {name: (percentile(values, QUICK), others) for name, values in own.items()}
        counts = self.pairs[figure] = {}
        for block in its:
            pairs = block.turns[figure]
            kept = at_full_speed(pairs, quick[block.contender])
            block.figures[figure + ALL_TURNS] = difference(pairs)
            block.figures.pop(figure, None)  # of an earlier look at the same turns
            if len(kept) >= len(pairs) * ENOUGH:
                block.figures[figure] = difference(kept)
            before = counts.get(block.contender, (0, 0))
            counts[block.contender] = before[0] + len(kept), before[1] + len(pairs)

    @property
    def contenders(self) -> list[str]:
        """Those with blocks, in the order of `benchmarks.contenders`, whatever others there are behind them."""
        names = dict.fromkeys(block.contender for block in self.blocks)
        return [name for name in CONTENDERS if name in names] + [name for name in names if name not in CONTENDERS]

    @property
    def others(self) -> list[str]:
        """All but the reference."""
        return [name for name in self.contenders if name != self.reference]

    def values(self, contender: str, figure: str, again: bool = False) -> dict[int, float]:
        """A figure by round."""
        return {
            block.round: block.figures[figure]
            for block in self.blocks
            if block.contender == contender and block.again == again and figure in block.figures
        }

    def together(self, *columns: dict[int, float]) -> list[tuple[float, ...]]:
        """The rounds that all ``columns`` have, a row of numbers each."""
        rounds = set.intersection(*map(set, columns)) if columns else set()
        return [tuple(column[number] for column in columns) for number in sorted(rounds)]

    def plain(self, contender: str, figure: str) -> Estimate | None:
        """The median of a figure itself."""
        rows = self.together(self.values(contender, figure))
        return estimate(rows) if rows else None

    def base(self, figure: str) -> dict[int, float]:
        """The reference's figure by round: the mean of its two blocks, which is nearer to it than either."""
        found: dict[int, list[float]] = {}
        for again in (False, True):
            for number, value in self.values(self.reference, figure, again).items():
                found.setdefault(number, []).append(value)
        return {number: sum(values) / len(values) for number, values in found.items()}

    def above(self, contender: str, figure: str) -> Estimate | None:
        """Median of the paired difference to the reference."""
        rows = self.together(self.values(contender, figure), self.base(figure))
        return paired_difference([row[0] for row in rows], [row[1] for row in rows]) if rows else None

    def floor(self, figure: str) -> float | None:
        """The reference against itself."""
        rows = self.together(self.values(self.reference, figure, True), self.values(self.reference, figure))
        return floor_of([one - other for one, other in rows]) if rows else None

    def floor_of_quotients(self, figure: str) -> float | None:
        """The same of a figure that is one by the reference's in each block: what the reference's own are off one.

        Of its first blocks or of its second ones, whichever are off more: a contender has as many.
        """
        halves = [self.values(self.reference, figure, again) for again in (False, True)]
        return max((floor_of([value - 1.0 for value in half.values()]) for half in halves if half), default=None)

    def ratio(self, one: str, other: str, figure: str) -> tuple[Estimate | None, float | None]:
        """``one`` by ``other``, both above the reference, and the floor of that."""
        rows = self.together(self.values(one, figure), self.values(other, figure), self.base(figure))
        return self._by(rows, lambda row: row[0] - row[2], lambda row: row[1] - row[2], figure)

    def quotient(self, one: str, other: str, figure: str) -> tuple[Estimate | None, float | None]:
        """``one`` by ``other``, as they are, and the floor of that."""
        rows = self.together(self.values(one, figure), self.values(other, figure))
        return self._by(rows, lambda row: row[0], lambda row: row[1], figure)

    def _by(
        self,
        rows: Sequence[tuple[float, ...]],
        above: Callable[[Sequence[float]], float],
        below: Callable[[Sequence[float]], float],
        figure: str,
    ) -> tuple[Estimate | None, float | None]:
        if not rows or not median(map(below, rows)):
            return None, None
        found = estimate(rows, lambda some: median(map(above, some)) / median(map(below, some)))
        floor = self.floor(figure)
        return found, None if floor is None else floor / abs(median(map(below, rows)))

    def landed(self, contender: str) -> str:
        """What became of the contender's records in all its blocks."""
        its = [block for block in self.blocks if block.contender == contender]
        parts = [block.landed for block in its if block.landed is not None]
        texts = [Landed.total(parts).text] if parts and sum(part.expected for part in parts) else []
        counted = [block.dropped for block in its if block.dropped]
        if counted:
            texts.append(f"{sum(counted):,} counted as dropped")
        errors = [block.error for block in its if block.error]
        if errors:
            texts.append(f"{len(errors)} of {len(its)} blocks failed: {errors[0]}")
        return "; ".join(texts)

    def row(
        self,
        contender: str,
        figure: str,
        unit: str,
        found: Estimate | None,
        floor: float | None = None,
        target: Target | None = None,
        neutral: float | None = None,
    ) -> Row:
        """A row about ``contender``."""
        return Row(self.scenario, contender, figure, unit, found, floor, target, self.landed(contender), neutral)

    def row_by(self, other: str, figure: str, text: str, target: Target | None = None) -> Row:
        """Ours by another contender, both above the reference."""
        found, floor = self.ratio("ours", other, figure)
        return self.row("ours", text, "ratio", found, floor, target, 0.0)

    def rows_above(self, figure: str, text: str, unit: str, target: Target | None = None) -> list[Row]:
        """What each contender's ``figure`` is above the reference's; the target is for ours."""
        return self._rows(self.others, self.above, figure, text, unit, self.floor(figure), target, 0.0)

    def rows_of_turns(self, figure: str, text: str, unit: str, target: Target | None = None) -> list[Row]:
        """The same of a figure that is made of turns, and ours with all turns: the target is for both."""
        rows = self.rows_above(figure, text, unit, target)
        name = figure + ALL_TURNS
        found, floor = self.above("ours", name), self.floor(name)
        return [*rows, self.row("ours", text + ALL_TURNS, unit, found, floor, target, 0.0)]

    def rows_by_reference(self, figure: str, text: str, target: Target | None = None) -> list[Row]:
        """Each contender's ``figure``, which is one by the reference's already; the target is for ours."""
        floor = self.floor_of_quotients(figure)
        return self._rows(self.others, self.plain, figure, text, "ratio", floor, target, 1.0)

    def rows_plain(self, figure: str, text: str, unit: str, target: Target | None = None) -> list[Row]:
        """Each contender's ``figure``, as it is; the floor is the reference's own."""
        rows = self._rows(self.contenders, self.plain, figure, text, unit, self.floor(figure), target, None)
        for row in rows:
            if row.contender != self.reference and row.target is None:
                row.floor = None
        return rows

    def _rows(
        self,
        names: Sequence[str],
        find: Callable[[str, str], Estimate | None],
        figure: str,
        text: str,
        unit: str,
        floor: float | None,
        target: Target | None,
        neutral: float | None,
    ) -> list[Row]:
        return [
            self.row(name, text, unit, find(name, figure), floor, target if name == "ours" else None, neutral)
            for name in names
        ]
