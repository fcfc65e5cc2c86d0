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

#: Seconds that a record may wait for others before it is written, and that whoever writes may rest in between.
GATHERED, ASLEEP = 0.12, 0.05


def times_of(made: Flask, environs: Iterator[app.Environ]) -> list[float]:
    """Requests one after the other, without a server: µs of each."""
    return [app.timed(made, environ) * 1e6 for environ in environs]


def in_a_row(made: Flask, environs: Iterator[app.Environ], count: int) -> tuple[float, float]:
    """The median of so many requests; and CPU of each, until whatever writes has caught up by itself. Both in µs."""
    cpu = time.process_time()
    times = times_of(made, islice(environs, count))
    time.sleep(GATHERED)
    settle(moment=ASLEEP)
    return median(times), (time.process_time() - cpu) / count * 1e6


def in_a_burst(made: Flask, its: Logging, environs: Iterator[app.Environ], count: int) -> float:
    """The median of so few requests that whatever writes comes to it afterwards, in µs."""
    found = median(times_of(made, islice(environs, count)))
    its.flush()
    settle()
    return found


def measure(contender: Contender, parameters: Parameters, directory: Path) -> Measured:
    """Requests by turns with those of an app that does not log; and many in a row, for the percentiles."""
    made, its = app.make(contender, directory)
    bare, nothing = app.make(CONTENDERS["none"], directory)
    if parameters.get("hooked"):
        for each in (made, bare):
            each.secret_key = "of a benchmark"
            each.before_request(lambda: None)
            each.after_request(lambda response: response)
    warm, count, turns, size, burst = (parameters[name] for name in ("warm", "requests", "turns", "size", "burst"))
    times_of(made, app.environs("warm", warm))
    times_of(bare, app.environs("bare", warm))
    gc.collect()  # once in a process's life Python goes through all that was imported: not while it is measured
    choose = random.Random(parameters["seed"])
    ahead, others = app.environs("turn", turns * (size + burst)), app.environs("bare", turns * (size + burst))
    rows = by_turns(lambda: in_a_row(made, ahead, size), lambda: in_a_row(bare, others, size), turns, choose)
    bursts = by_turns(
        lambda: in_a_burst(made, its, ahead, burst), lambda: in_a_burst(bare, nothing, others, burst), turns, choose
    )
    found = percentiles(times_of(made, app.environs("r", count)))
    dropped = its.dropped()
    its.close()
    expected = app.expected_of_requests(contender, its, {"warm": warm, "turn": turns * (size + burst), "r": count})
    turns_of = {
        "p50": [(one, other) for (one, _), (other, _) in rows],
        "cpu": [(one, other) for (_, one), (_, other) in rows],
        "burst": bursts,
    }
    return Measured({"p99": found["p99"]}, found, expected, dropped, turns_of)


def conclude(blocks: Blocks) -> list[Row]:
    """Above no logging, and ours by the usual recipe."""
    rows = blocks.rows_of_turns("p50", "a request, p50, many in a row, above none", "µs", Target(8.0))
    rows.append(blocks.row_by("file", "p50", "p50 above none, many in a row, by that of file", Target(0.16)))
    rows += blocks.rows_of_turns("burst", "a request, p50, bursts of 200, above none", "µs", Target(8.0))
    rows.append(blocks.row_by("file", "burst", "p50 above none, bursts of 200, by that of file", Target(0.16)))
    rows += blocks.rows_above("cpu", "CPU of a request, listener included, above none", "µs")
    rows.append(blocks.row_by("file", "cpu", "CPU above none, by that of file", Target(0.35)))
    return rows + blocks.rows_above("p99", "a request, p99, many in a row, above none", "µs")


SCENARIO = Scenario(
    name="requests",
    question="What do both records of a request cost?",
    contenders=(
        "none", "null", "file", "clh", "stdlib", "stdlib-simple", "loguru", "logxide", "picologging", "ours",
    ),
    reference="none",
    quick=Plan(2, {"warm": 200, "requests": 1000, "turns": 4, "size": 1000, "burst": 200}, NOT_QUICK),
    full=Plan(8, {"warm": 300, "requests": 4000, "turns": 16, "size": 1000, "burst": 200}),
    measure=measure,
    conclude=conclude,
)  # fmt: skip
