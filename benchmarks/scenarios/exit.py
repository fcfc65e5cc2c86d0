"""How long a process takes to end with records still waiting."""

from __future__ import annotations

import time
from pathlib import Path

from flask import Flask

from benchmarks.contenders import Contender
from benchmarks.results import Blocks, Row
from benchmarks.scenario import Measured, Parameters, Plan, Scenario
from benchmarks.sink import Expected, mark


def measure(contender: Contender, parameters: Parameters, directory: Path) -> Measured:
    """Log as fast as can be, then close: the time of both."""
    its = contender.start(Flask("bench"), directory, requests=False)
    info, text = its.info, its.message("record %s of %s")
    marks = [mark("e", number) for number in range(parameters["records"])]
    began = time.perf_counter()
    for item in marks:
        info(text, item, "exit")
    logged = time.perf_counter()
    dropped = its.dropped()
    its.close()
    ended = time.perf_counter()
    figures = {"drain": (ended - logged) * 1000, "whole": (ended - began) * 1000}
    return Measured(figures, {}, Expected({"record/e": len(marks)}, {}), dropped)


def conclude(blocks: Blocks) -> list[Row]:
    """As they are."""
    return blocks.rows_plain("drain", "from the last call to the end", "ms") + blocks.rows_plain(
        "whole", "from the first call to the end", "ms"
    )


SCENARIO = Scenario(
    name="exit",
    question="How long does the drain at exit take?",
    contenders=("file", "clh", "stdlib", "stdlib-simple", "loguru", "ours"),
    reference="file",
    quick=Plan(1, {"records": 20_000}),
    full=Plan(4, {"records": 40_000}),
    measure=measure,
    conclude=conclude,
)
