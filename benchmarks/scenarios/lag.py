"""How long after a logging call its line is in the file."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

from flask import Flask

from benchmarks.contenders import Contender
from benchmarks.results import Blocks, Row
from benchmarks.scenario import Measured, Parameters, Plan, Scenario
from benchmarks.sink import Expected, mark
from benchmarks.statistics import percentiles

PATIENCE = 5.0


def measure(contender: Contender, parameters: Parameters, directory: Path) -> Measured:
    """Records now and then, at INFO and at ERROR; the file is looked at until it has grown by each."""
    its = contender.start(Flask("bench"), directory, requests=False)
    text, path = its.message("record %s of %s"), directory / "app.log"
    choose = random.Random(parameters["seed"])
    micro: dict[str, list[float]] = {"info": [], "error": []}
    its.info(text, mark("first", 0), "lag")
    time.sleep(0.3)
    for number in range(parameters["records"]):
        for level, log in (("info", its.info), ("error", its.error)):
            time.sleep(choose.uniform(0.0, 0.02))
            size = os.stat(path).st_size
            began = time.perf_counter()
            log(text, mark(level, number), "lag")
            while os.stat(path).st_size == size:
                time.sleep(0.0001)
                if time.perf_counter() - began > PATIENCE:
                    raise RuntimeError(f"a record was not in the file after {PATIENCE:.0f} s")
            micro[level].append((time.perf_counter() - began) * 1e6)
    its.close()
    figures = {f"{level} {name}": percentiles(times)[name] for level, times in micro.items() for name in ("p50", "max")}
    count = parameters["records"]
    expected = Expected({"record/first": 1, "record/info": count, "record/error": count}, {})
    return Measured(figures, percentiles(micro["info"]), expected)


def conclude(blocks: Blocks) -> list[Row]:
    """As they are."""
    rows: list[Row] = []
    for figure in ("info p50", "info max", "error p50"):
        level, _, name = figure.partition(" ")
        rows += blocks.rows_plain(figure, f"call to line in the file, {level.upper()}, {name}", "µs")
    return rows


SCENARIO = Scenario(
    name="lag",
    question="How long after the call is the line in the file?",
    contenders=("file", "stdlib", "loguru", "ours"),
    reference="file",
    quick=Plan(1, {"records": 10}),
    full=Plan(2, {"records": 60}),
    measure=measure,
    conclude=conclude,
)
