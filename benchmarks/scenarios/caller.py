"""What one record costs its caller above a handler that does nothing, call by call."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter_ns

from flask import Flask

from benchmarks.contenders import CONTENDERS, NOT_QUICK, Contender
from benchmarks.pairs import by_turns, settle
from benchmarks.results import Blocks, Row
from benchmarks.scenario import Measured, Parameters, Plan, Scenario
from benchmarks.sink import Expected, mark
from benchmarks.statistics import Target, percentiles


def times_of(info: Callable[..., object], text: str, marks: Iterable[str]) -> list[float]:
    """One call for each of ``marks``: µs of each."""
    times: list[int] = []
    for item in marks:
        began = perf_counter_ns()
        info(text, item, "bench")
        times.append(perf_counter_ns() - began)
    return [each / 1000 for each in times]


def measure(contender: Contender, parameters: Parameters, directory: Path) -> Measured:
    """Bursts of calls, each call timed; between bursts the other side catches up.

    The median call by turns with one to a handler that does nothing; the other figures are of bursts alone.
    """
    app, bare = Flask("bench"), Flask("bare")
    its = contender.start(app, directory, requests=False)
    null = CONTENDERS["null"].open(bare, directory)
    bare.logger.propagate = False  # there may be handlers on root
    bursts, turns, size = (parameters[name] for name in ("bursts", "turns", "size"))
    marks = [mark("c", number) for number in range((bursts + turns) * size)]
    ahead = iter(marks)
    text = its.message("record %s of %s")
    micro: list[float] = []
    for burst in range(bursts):
        times = times_of(its.info, text, islice(ahead, size))
        micro += times if burst else []  # the first one warms up
        time.sleep(parameters["pause"])

    def rest() -> None:
        its.flush()
        settle()

    pairs = by_turns(
        lambda: median(times_of(its.info, text, islice(ahead, size))),
        lambda: median(times_of(null.info, "record %s of %s", marks[:size])),
        turns,
        random.Random(parameters["seed"]),
        rest,
    )
    dropped = its.dropped()
    its.close()
    found = percentiles(micro)
    expected = Expected({"record/c": len(marks)}, {}) if contender.writes else None
    figures = {"p99": found["p99"], "p99.9": found["p99.9"], "mean": sum(micro) / len(micro)}
    return Measured(figures, found, expected, dropped, {"p50": pairs})


def conclude(blocks: Blocks) -> list[Row]:
    """The median call above the null handler's; ours also by the standard library's."""
    rows = blocks.rows_of_turns("p50", "one record, p50, above null", "µs", Target(0.5))
    for other in ("stdlib", "stdlib-simple"):
        rows.append(blocks.row_by(other, "p50", f"the same, by that of {other}", Target(0.10)))
    for figure in ("mean", "p99", "p99.9"):
        rows += blocks.rows_above(figure, f"one record, {figure}, above null", "µs")
    return rows


SCENARIO = Scenario(
    name="caller",
    question="What does one record cost its caller?",
    contenders=(
        "null", "bare", "file", "clh", "stdlib", "stdlib-simple", "loguru", "logxide", "picologging", "ours",
    ),
    reference="null",
    quick=Plan(3, {"bursts": 6, "turns": 10, "size": 500, "pause": 0.02}, NOT_QUICK),
    full=Plan(20, {"bursts": 11, "turns": 20, "size": 1000, "pause": 0.04}),
    measure=measure,
    conclude=conclude,
)  # fmt: skip
