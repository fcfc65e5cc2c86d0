"""How much later a thread comes back from I/O while the listener has more to do than it can."""

from __future__ import annotations

import time
from itertools import count
from pathlib import Path
from time import perf_counter_ns

from flask import Flask

from benchmarks.contenders import Contender
from benchmarks.results import Blocks, Row
from benchmarks.scenario import Measured, Parameters, Plan, Scenario
from benchmarks.sink import Expected, mark
from benchmarks.statistics import Target, percentiles

#: The I/O: a sleep gives the interpreter away and takes it back as a read does.
STEP = 0.001


def measure(contender: Contender, parameters: Parameters, directory: Path) -> Measured:
    """Fill the queue, then log some and sleep, again and again: before each sleep there is something left to write."""
    its = contender.start(Flask("bench"), directory, requests=False)
    info, text = its.info, its.message("record %s of %s")
    numbers = count()

    def log(number: int) -> None:
        for _ in range(number):
            info(text, mark("i", next(numbers)), "backlog")

    log(parameters["backlog"])
    micro: list[float] = []
    for _ in range(parameters["steps"]):
        log(parameters["each"])
        while its.waiting() < parameters["least"]:
            log(parameters["each"])
        began = perf_counter_ns()
        time.sleep(STEP)
        micro.append((perf_counter_ns() - began) / 1000)
    dropped = its.dropped()
    its.close()
    found = percentiles(micro)
    expected = Expected({"record/i": next(numbers)}, {}) if contender.writes else None
    return Measured({name: found[name] for name in ("p50", "p99")}, found, expected, dropped)


def conclude(blocks: Blocks) -> list[Row]:
    """Above a handler that does nothing."""
    return blocks.rows_above("p50", "return from a sleep of 1 ms, p50, above null", "µs", Target(100.0)) + (
        blocks.rows_above("p99", "return from a sleep of 1 ms, p99, above null", "µs")
    )


SCENARIO = Scenario(
    name="io_return",
    question="How much later does a thread return from I/O while the listener is saturated?",
    contenders=("null", "stdlib", "stdlib-simple", "loguru", "ours"),
    reference="null",
    quick=Plan(3, {"backlog": 10_000, "steps": 150, "each": 60, "least": 1000}, without=("stdlib", "loguru")),
    full=Plan(7, {"backlog": 20_000, "steps": 400, "each": 60, "least": 1000}),
    measure=measure,
    conclude=conclude,
)
