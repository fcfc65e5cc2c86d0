"""What both records of a request cost: time of the request, and CPU of the whole process, listener included."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from statistics import median

from flask import Flask

from benchmarks import app
from benchmarks.contenders import CONTENDERS, NOT_QUICK, Contender, Logging
from benchmarks.pairs import by_turns, settle
from benchmarks.results import Blocks, Row
from benchmarks.scenario import Measured, Parameters, Plan, Scenario
from benchmarks.statistics import Target, percentiles


def times_of(made: Flask, environs: Iterator[app.Environ]) -> list[float]:
    """Requests one after the other, without a server: µs of each."""
    return [app.timed(made, environ) * 1e6 for environ in environs]


def turn(made: Flask, its: Logging, environs: Iterator[app.Environ], count: int) -> tuple[float, float]:
    """The median of so many requests; and CPU of each, until all is in the file. Both in µs."""
    cpu = time.process_time()
    times = times_of(made, islice(environs, count))
    its.flush()
    settle()
    return median(times), (time.process_time() - cpu) / count * 1e6


def measure(contender: Contender, parameters: Parameters, directory: Path) -> Measured:
    """Requests by turns with those of an app that does not log; and many in a row, for the percentiles."""
    made, its = app.make(contender, directory)
    bare, nothing = app.make(CONTENDERS["none"], directory)
    if parameters.get("hooked"):
        for each in (made, bare):
            each.secret_key = "of a benchmark"
            each.before_request(lambda: None)
            each.after_request(lambda response: response)
    warm, count, turns, size = (parameters[name] for name in ("warm", "requests", "turns", "size"))
    times_of(made, app.environs("warm", warm))
    times_of(bare, app.environs("bare", warm))
    gc.collect()  # once in a process's life Python goes through all that was imported: not while it is measured
    ahead, others = app.environs("turn", turns * size), app.environs("bare", turns * size)
    pairs = by_turns(
        lambda: turn(made, its, ahead, size),
        lambda: turn(bare, nothing, others, size),
        turns,
        random.Random(parameters["seed"]),
    )
    found = percentiles(times_of(made, app.environs("r", count)))
    dropped = its.dropped()
    its.close()
    expected = app.expected_of_requests(contender, its, {"warm": warm, "turn": turns * size, "r": count})
    turns_of = {name: [(one[at], other[at]) for one, other in pairs] for at, name in enumerate(("p50", "cpu"))}
    return Measured({"p99": found["p99"]}, found, expected, dropped, turns_of)


def conclude(blocks: Blocks) -> list[Row]:
    """Above no logging, and ours by the usual recipe."""
    rows = blocks.rows_above("p50", "a request, p50, above none", "µs", Target(8.0))
    rows.append(blocks.row_by("file", "p50", "p50 above none, by that of file", Target(0.16)))
    rows += blocks.rows_above("cpu", "CPU of a request, listener included, above none", "µs")
    rows.append(blocks.row_by("file", "cpu", "CPU above none, by that of file", Target(0.35)))
    return rows + blocks.rows_above("p99", "a request, p99, above none", "µs")


SCENARIO = Scenario(
    name="requests",
    question="What do both records of a request cost?",
    contenders=(
        "none", "null", "file", "clh", "stdlib", "stdlib-simple", "loguru", "logxide", "picologging", "ours",
    ),
    reference="none",
    quick=Plan(2, {"warm": 200, "requests": 1000, "turns": 10, "size": 200}, NOT_QUICK),
    full=Plan(16, {"warm": 300, "requests": 4000, "turns": 20, "size": 200}),
    measure=measure,
    conclude=conclude,
)  # fmt: skip
