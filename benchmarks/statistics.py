"""What becomes of the blocks' numbers: paired differences, their bootstrap interval, the A/A floor, the verdict."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

#: Share of the resamples that the interval covers.
COVERAGE = 0.95
#: With fewer rounds that share of the resamples covers less of what there is: seven have nine tenths of it. All of them
#: but this share, at either end, reach from the least to the greatest round.
FEW, FEW_TAIL = 8, 0.0025
#: With fewer rounds than that an effect is no more than seen.
FEWEST = 5
#: Resamples of one interval. The last digit of a bound is not worth more.
RESAMPLES = 2000
#: Percentiles that are reported of every distribution.
PERCENTILES = (50.0, 90.0, 99.0, 99.9)


def percentile(values: Sequence[float], percent: float) -> float:
    """The least of ``values`` that ``percent`` of them do not exceed (nearest rank); ``values`` need not be sorted."""
    if not values:
        raise ValueError("no values, no percentile")
    ordered = sorted(values)
    rank = math.ceil(round(percent * len(ordered) / 100, 6))  # 99.9 % of 1,000 is 999, not a trifle more
    return ordered[max(0, rank - 1)]


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """`PERCENTILES` and the maximum, by name: ``p50``, …, ``max``."""
    ordered = sorted(values)
    found = {f"p{percent:g}": percentile(ordered, percent) for percent in PERCENTILES}
    return found | {"max": ordered[-1]}


@dataclass(frozen=True)
class Estimate:
    """A median over blocks with its bootstrap interval."""

    value: float
    low: float
    high: float
    #: Blocks, or pairs of blocks, that it was made of.
    count: int


def first_median(rows: Sequence[Sequence[float]]) -> float:
    """Median of the first numbers of ``rows``."""
    return median(row[0] for row in rows)


def estimate(
    samples: Sequence[Sequence[float]],
    figure: Callable[[Sequence[Sequence[float]]], float] = first_median,
    seed: int = 0,
) -> Estimate:
    """``figure`` of all ``samples`` (one row of numbers for each round), and its bootstrap interval over the rounds.

    Rounds are resampled whole, so what was measured side by side stays side by side. A resample for which ``figure``
    has no value (a division by zero) is left out.
    """
    if not samples:
        raise ValueError("no rounds, no estimate")
    choose = random.Random(seed)
    found: list[float] = []
    for _ in range(RESAMPLES if len(samples) > 1 else 0):
        try:
            found.append(figure(choose.choices(samples, k=len(samples))))
        except ZeroDivisionError:
            continue
    value = figure(samples)
    if not found:
        return Estimate(value, value, value, len(samples))
    found.sort()
    tail = int((FEW_TAIL if len(samples) < FEW else (1 - COVERAGE) / 2) * len(found))
    return Estimate(value, found[tail], found[-1 - tail], len(samples))


def paired_difference(ones: Sequence[float], others: Sequence[float], seed: int = 0) -> Estimate:
    """Median of ``one - other``, round by round."""
    return estimate([(one - other,) for one, other in zip(ones, others, strict=True)], seed=seed)


def floor_of(differences: Sequence[float]) -> float:
    """What the same thing against itself comes to: no effect below it can be told from nothing.

    The greatest distance from zero in the bootstrap interval of the median difference. One round alone has no
    interval; its difference is all there is.
    """
    found = estimate([(difference,) for difference in differences])
    return max(abs(found.low), abs(found.high))


@dataclass(frozen=True)
class Target:
    """What a figure should come to."""

    bound: float
    #: Whether the bound is the most that it may be; otherwise it is the least.
    at_most: bool = True
    #: Whether a figure whose whole interval is inside the floor meets the target, whatever the bound.
    floor_suffices: bool = False


MET, NOT_MET, NOT_RESOLVED = "met", "not met", "not resolved"


def verdict(found: Estimate, floor: float | None, target: Target, neutral: float | None = None) -> str:
    """`MET` or `NOT_MET` if the whole interval, and the value give or take the floor, are on one side of the target.

    ``neutral`` is what the figure is when there is no effect: 0 for a difference, 1 for a quotient. Of an effect that
    was seen in a few rounds only, nobody knows how far it would be off in another.
    """
    if found.count < FEWEST and neutral is not None:
        return NOT_RESOLVED
    floor = floor or 0.0
    if target.floor_suffices and neutral is not None and neutral - floor <= found.low <= found.high <= neutral + floor:
        return MET
    low, high = min(found.low, found.value - floor), max(found.high, found.value + floor)
    if not target.at_most:
        low, high = -high, -low
    bound = target.bound if target.at_most else -target.bound
    if high <= bound:
        return MET
    return NOT_MET if low > bound else NOT_RESOLVED
