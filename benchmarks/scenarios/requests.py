"""What both records of a request cost: time of the request, and CPU of the whole process, listener included."""

from __future__ import annotations

import gc
import time
from pathlib import Path

from benchmarks import app
from benchmarks.contenders import Contender
from benchmarks.results import Blocks, Row
from benchmarks.scenario import Measured, Parameters, Plan, Scenario
from benchmarks.statistics import Target, percentiles


def measure(contender: Contender, parameters: Parameters, directory: Path) -> Measured:
    """Requests one after the other, without a server; CPU until all is in the file."""
    made, its = app.make(contender, directory)
    warm, count = parameters["warm"], parameters["requests"]
    for environ in app.environs("warm", warm):
        app.answer(made, environ)
    gc.collect()  # once in a process's life Python goes through all that was imported: not while it is measured
    cpu = time.process_time()
    micro = [app.timed(made, environ) * 1e6 for environ in app.environs("r", count)]
    dropped = its.dropped()
    its.close()
    cpu = (time.process_time() - cpu) / count * 1e6
    found = percentiles(micro)
    expected = app.expected_of_requests(contender, its, {"warm": warm, "r": count})
    return Measured({"p50": found["p50"], "p99": found["p99"], "cpu": cpu}, found, expected, dropped)


def conclude(blocks: Blocks) -> list[Row]:
    """Above no logging, and ours by the usual recipe."""
    rows = blocks.rows_above("p50", "a request, p50, above none", "µs", Target(8.0))
    found, floor = blocks.ratio("ours", "file", "p50")
    rows.append(blocks.row("ours", "p50 above none, by that of file", "ratio", found, floor, Target(0.16), 0.0))
    rows += blocks.rows_above("cpu", "CPU of a request, listener included, above none", "µs")
    found, floor = blocks.ratio("ours", "file", "cpu")
    rows.append(blocks.row("ours", "CPU above none, by that of file", "ratio", found, floor, Target(0.35), 0.0))
    return rows + blocks.rows_above("p99", "a request, p99, above none", "µs")


SCENARIO = Scenario(
    name="requests",
    question="What do both records of a request cost?",
    contenders=(
        "none", "null", "file", "clh", "stdlib", "stdlib-simple", "loguru", "logxide", "picologging", "ours",
    ),
    reference="none",
    quick=Plan(3, {"warm": 200, "requests": 2000}),
    full=Plan(10, {"warm": 300, "requests": 4000}),
    measure=measure,
    conclude=conclude,
)  # fmt: skip
