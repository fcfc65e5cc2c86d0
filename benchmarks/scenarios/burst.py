"""What is kept of a burst larger than the queue, and whether what is not kept is counted."""

from __future__ import annotations

import time
from pathlib import Path

from flask import Flask

from benchmarks.contenders import Contender
from benchmarks.results import Blocks, Row
from benchmarks.scenario import Measured, Parameters, Plan, Scenario
from benchmarks.scenarios.memory import resident
from benchmarks.scenarios.memory import unavailable as no_memory
from benchmarks.sink import Expected, mark
from benchmarks.statistics import Estimate, Target


def measure(contender: Contender, parameters: Parameters, directory: Path) -> Measured:
    """More records than the queue holds, as fast as they come, every hundredth at WARNING."""
    its = contender.start(Flask("bench"), directory, requests=False)
    text, count = its.message("record %s of %s"), parameters["records"]
    ordinary = [mark("b", number) for number in range(count)]
    warned = [mark("warned", number) for number in range(count // 100)]
    before = resident()
    began = time.perf_counter()
    for number, item in enumerate(ordinary):
        its.info(text, item, "a burst")
        if number % 100 == 99:
            its.warning(text, warned[number // 100], "a burst")
    seconds = time.perf_counter() - began
    held = resident() - before
    dropped = its.dropped()
    its.close()
    expected = Expected({"record/b": count, "record/warned": len(warned)}, {})
    figures = {"each": seconds / (count + len(warned)) * 1e6, "MiB": held / 2**20}
    return Measured(figures, {}, expected, dropped)


def conclude(blocks: Blocks) -> list[Row]:
    """Kept records, and those of ours that are missing without having been counted."""
    for block in blocks.blocks:
        if block.landed is not None:
            block.figures["kept"] = 100 * block.landed.found / max(1, block.landed.expected)
            block.figures["warned"] = float(block.landed.missing_by_kind.get("record/warned", 0))
            block.figures["unsaid"] = float(abs(block.landed.missing - (block.dropped or 0)))
    rows = blocks.rows_plain("kept", "records kept", "%")
    for figure, text in (("warned", "records at WARNING missing"), ("unsaid", "missing and counted differ by")):
        found = blocks.plain("ours", figure)
        if found is not None:
            worst = max(blocks.values("ours", figure).values())
            target = Target(0.0)
            rows.append(blocks.row("ours", text, "", Estimate(worst, worst, worst, found.count), None, target))
    return (
        rows
        + blocks.rows_plain("each", "one record of the burst", "µs")
        + blocks.rows_plain("MiB", "memory at its end, above its begin", "MiB")
    )


SCENARIO = Scenario(
    name="burst",
    question="What is kept of a burst that the queue does not hold?",
    contenders=("file", "stdlib", "ours"),
    reference="file",
    quick=Plan(1, {"records": 120_000}),
    full=Plan(2, {"records": 200_000}),
    measure=measure,
    conclude=conclude,
    unavailable=no_memory,
    lossless=False,
)
