"""Two things measured in one process, by turns: what disturbs the machine for a while disturbs both.

Blocks are seconds apart, and on a shared machine those may differ by more than what is looked for.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import TypeAlias, TypeVar

#: What two turns took, the one's first.
Pair: TypeAlias = tuple[float, float]
#: Of a turn.
Result = TypeVar("Result")
#: Share of a moment in which a process that has caught up is at work.
IDLE = 0.1
#: A turn that took so many times as long as the quick ones of its kind had less of the machine: where two virtual
#: processors share a core, each has some two thirds of it while both are at work, for moments or for minutes.
SLOW = 1.2
#: Seconds of such a moment, and how long to wait for one.
MOMENT, PATIENCE = 0.002, 2.0


def settle(cpu: Callable[[], float] = time.process_time, moment: float = MOMENT, patience: float = PATIENCE) -> None:
    """Wait until there is nothing done in the background any more.

    :param cpu: CPU time used so far, in seconds; by default by this process.
    :param moment: seconds without work that are enough.
    :param patience: longest wait, in seconds.
    """
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        before = cpu()
        time.sleep(moment)
        if cpu() - before < moment * IDLE:
            return


def by_turns(
    one: Callable[[], Result],
    other: Callable[[], Result],
    count: int,
    choose: random.Random,
    rest: Callable[[], object] = settle,
) -> list[tuple[Result, Result]]:
    """So many turns of each, in pairs; each is the first of every other pair, which of them at first is left to chance.

    :param rest: called before each turn: what went before has to catch up.
    """
    found: list[tuple[Result, Result]] = []
    order = choose.sample((one, other), 2)
    for _ in range(count):
        taken: dict[Callable[[], Result], Result] = {}
        for turn in order:
            rest()
            taken[turn] = turn()
        found.append((taken[one], taken[other]))
        order.reverse()
    return found


def difference(pairs: Sequence[Pair]) -> float:
    """Median of what the two of a pair differ by."""
    return median(one - other for one, other in pairs)


def at_full_speed(pairs: Sequence[Pair], quick: Pair) -> list[Pair]:
    """Those in which both had all of the machine; ``quick`` is what each takes in its quick turns."""
    return [pair for pair in pairs if pair[0] <= SLOW * quick[0] and pair[1] <= SLOW * quick[1]]
