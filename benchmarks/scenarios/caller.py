"""What one record costs its caller above a handler that does nothing, call by call."""

from __future__ import annotations

import time
from pathlib import Path
from time import perf_counter_ns

from flask import Flask

from benchmarks.contenders import Contender
from benchmarks.results import Blocks, Row
from benchmarks.scenario import Measured, Parameters, Plan, Scenario
from benchmarks.sink import Expected, mark
from benchmarks.statistics import Target, percentiles


def measure(contender: Contender, parameters: Parameters, directory: Path) -> Measured:
    """Bursts of calls, each call timed; between bursts the other side catches up."""
    app = Flask("bench")
    its = contender.start(app, directory, requests=False)
    info, text = its.info, its.message("record %s of %s")
    bursts, size = parameters["bursts"], parameters["size"]
    marks = [mark("c", number) for number in range(bursts * size)]
    times: list[int] = []
    for burst in range(bursts):
        for item in marks[burst * size : (burst + 1) * size]:
            began = perf_counter_ns()
            info(text, item, "bench")
            times.append(perf_counter_ns() - began)
        time.sleep(parameters["pause"])
    dropped = its.dropped()
    its.close()
    micro = [each / 1000 for each in times[size:]]  # the first burst warms up
    found = percentiles(micro)
    figures = {name: found[name] for name in ("p50", "p99", "p99.9")}
    expected = Expected({"record/c": len(marks)}, {}) if contender.writes else None
    return Measured({**figures, "mean": sum(micro) / len(micro)}, found, expected, dropped)


def conclude(blocks: Blocks) -> list[Row]:
    """The median call above the null handler's; ours also by the standard library's."""
    rows = blocks.rows_above("p50", "one record, p50, above null", "µs", Target(0.5))
    for other in ("stdlib", "stdlib-simple"):
        found, floor = blocks.ratio("ours", other, "p50")
        rows.append(blocks.row("ours", f"the same, by that of {other}", "ratio", found, floor, Target(0.10), 0.0))
    for figure in ("mean", "p99", "p99.9"):
        rows += blocks.rows_above(figure, f"one record, {figure}, above null", "µs")
    return rows


SCENARIO = Scenario(
    name="caller",
    question="What does one record cost its caller?",
    contenders=(
        "null", "file", "clh", "stdlib", "stdlib-simple", "loguru", "logxide", "picologging", "ours",
    ),
    reference="null",
    quick=Plan(3, {"bursts": 6, "size": 500, "pause": 0.02}),
    full=Plan(10, {"bursts": 11, "size": 1000, "pause": 0.04}),
    measure=measure,
    conclude=conclude,
)  # fmt: skip
