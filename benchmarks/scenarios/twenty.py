"""Latency of requests whose views log twenty records each, to gunicorn at 30 % and at 70 % of what it can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.contenders import Contender
from benchmarks.results import Blocks, Row
from benchmarks.scenario import Measured, Parameters, Plan, Scenario
from benchmarks.scenarios import served
from benchmarks.statistics import Target

#: Of what the server can do: one that has time, and one that is nearly at its end.
LOADS = (0.3, served.LOAD)
SHOWN = ("p99", "p50")


def prepare(parameters: Parameters) -> dict[str, Any]:
    """The rates suit a server whose records go nowhere."""
    found = served.saturation("null", parameters["calibrate"], "many", requests=False)
    return {"saturation": found}


def measure(contender: Contender, parameters: Parameters, directory: Path) -> Measured:
    """Twenty records of the view; both request records too, but not for the null handler, to its good."""
    rates = [load * parameters["saturation"] for load in LOADS]
    requests = contender.name != "null"
    found, expected = served.load(contender, parameters, directory, "many", rates, requests=requests)
    figures = {f"{name} {load:.0%}": each[name] for load, each in zip(LOADS, found, strict=True) for name in SHOWN}
    return Measured(figures, found[-1], expected)


def conclude(blocks: Blocks) -> list[Row]:
    """By the null handler."""
    rows: list[Row] = []
    for load in LOADS:
        for name in blocks.contenders:
            if name != blocks.reference:
                found, floor = blocks.quotient(name, blocks.reference, f"p99 {load:.0%}")
                target = Target(1.1) if name == "ours" else None
                rows.append(blocks.row(name, f"p99 at {load:.0%}, by that of null", "ratio", found, floor, target, 1.0))
    for load in LOADS:
        for figure in SHOWN:
            rows += blocks.rows_plain(f"{figure} {load:.0%}", f"{figure} at {load:.0%}", "µs")
    return rows


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
