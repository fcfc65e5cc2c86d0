"""Latency of requests whose views log twenty records each, to gunicorn at 70 % of what it can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.contenders import Contender
from benchmarks.results import Blocks, Row
from benchmarks.scenario import Measured, Parameters, Plan, Scenario
from benchmarks.scenarios import served
from benchmarks.statistics import Target


def prepare(parameters: Parameters) -> dict[str, Any]:
    """The rate suits a server whose records go nowhere."""
    found = served.saturation("null", parameters["calibrate"], "many", requests=False)
    return {"saturation": found, "rate": served.LOAD * found}


def measure(contender: Contender, parameters: Parameters, directory: Path) -> Measured:
    """Twenty records of the view; both request records too, but not for the null handler, to its good."""
    return served.load(contender, parameters, directory, "many", requests=contender.name != "null")


def conclude(blocks: Blocks) -> list[Row]:
    """By the null handler."""
    rows: list[Row] = []
    for name in blocks.contenders:
        if name != blocks.reference:
            found, floor = blocks.quotient(name, blocks.reference, "p99")
            target = Target(1.1) if name == "ours" else None
            rows.append(blocks.row(name, "p99 by that of null", "ratio", found, floor, target, 1.0))
    return rows + blocks.rows_plain("p99", "p99", "µs") + blocks.rows_plain("p50", "p50", "µs")


SCENARIO = Scenario(
    name="twenty",
    question="What if each view logs twenty records?",
    contenders=("null", "file", "clh", "stdlib", "ours"),
    reference="null",
    quick=Plan(3, {"calibrate": 1.0, "seconds": 1.2}, without=("clh", "stdlib")),
    full=Plan(5, {"calibrate": 4.0, "seconds": 3.0}),
    measure=measure,
    conclude=conclude,
    prepare=prepare,
    unavailable=served.unavailable,
)
