"""What a record costs when several threads log at once."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from flask import Flask

from benchmarks.contenders import Contender
from benchmarks.results import Blocks, Row
from benchmarks.scenario import Measured, Parameters, Plan, Scenario
from benchmarks.sink import Expected, mark

THREADS = (1, 2, 4, 8)


def measure(contender: Contender, parameters: Parameters, directory: Path) -> Measured:
    """The same number of records in all, by more and more threads; time until the last of them has returned."""
    its = contender.start(Flask("bench"), directory, requests=False)
    info, text = its.info, its.message("record %s of %s")
    total = parameters["records"]
    figures: dict[str, float] = {}
    expected: dict[str, int] = {}

    def log(marks: list[str], together: threading.Barrier) -> None:
        together.wait(60)
        for item in marks:
            info(text, item, "a thread")

    for number in THREADS:
        together = threading.Barrier(number + 1)
        threads: list[threading.Thread] = []
        for each in range(number):
            tag = f"t{number}.{each}"
            expected[f"record/{tag}"] = total // number
            marks = [mark(tag, item) for item in range(total // number)]
            threads.append(threading.Thread(target=log, args=(marks, together), daemon=True))
        for thread in threads:
            thread.start()
        together.wait(60)
        began = time.perf_counter()
        for thread in threads:
            thread.join(60)
        figures[f"by{number}"] = (time.perf_counter() - began) / total * 1e6
        time.sleep(parameters["pause"])
    dropped = its.dropped()
    its.close()
    return Measured(figures, {}, Expected(expected, {}) if contender.writes else None, dropped)


def conclude(blocks: Blocks) -> list[Row]:
    """Above the null handler, for each number."""
    rows: list[Row] = []
    for number in THREADS:
        rows += blocks.rows_above(f"by{number}", f"one record of {number} thread{'s' * (number > 1)}, above null", "µs")
    return rows


SCENARIO = Scenario(
    name="threads",
    question="What does a record cost when several threads log?",
    contenders=("null", "file", "stdlib", "stdlib-simple", "loguru", "ours"),
    reference="null",
    quick=Plan(2, {"records": 2_000, "pause": 0.1}, without=("stdlib-simple",)),
    full=Plan(5, {"records": 8_000, "pause": 0.2}),
    measure=measure,
    conclude=conclude,
)
