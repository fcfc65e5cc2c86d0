"""What a scenario is: contenders, how a block of one is measured, and what the blocks say together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.contenders import Contender
from benchmarks.pairs import Pair
from benchmarks.results import Blocks, Row
from benchmarks.sink import Expected

Parameters = Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """How much of a scenario is run."""

    rounds: int
    #: For `Scenario.measure`: counts and seconds.
    parameters: dict[str, Any] = field(default_factory=dict)
    #: Contenders that are left out.
    without: tuple[str, ...] = ()


@dataclass
class Measured:
    """What one block found."""

    figures: dict[str, float] = field(default_factory=dict)
    #: In µs.
    percentiles: dict[str, float] = field(default_factory=dict)
    #: What was logged; ``None`` where nothing is written.
    expected: Expected | None = None
    dropped: int | None = None
    #: Figures that are differences of turns: what the contender's took, and the other's.
    turns: dict[str, list[Pair]] = field(default_factory=dict)


@dataclass(frozen=True)
class Scenario:
    """One scenario; ``measure`` runs in a block's process, everything else in the command's."""

    name: str
    #: What it answers, in one line.
    question: str
    contenders: tuple[str, ...]
    #: The contender that runs twice in each round.
    reference: str
    quick: Plan
    full: Plan
    measure: Callable[[Contender, Parameters, Path], Measured]
    conclude: Callable[[Blocks], list[Row]]
    #: Adds to the parameters before the first round, such as a rate that suits the machine.
    prepare: Callable[[Parameters], dict[str, Any]] | None = None
    #: Why it cannot run here; empty when it can.
    unavailable: Callable[[], str] = lambda: ""
    #: Whether ours must lose nothing for its figures to count. Not where losses are what is measured.
    lossless: bool = True
    #: Whether the reference runs twice in each round, for the floor.
    paired: bool = True
    #: Seconds that one block may take.
    limit: float = 120.0
