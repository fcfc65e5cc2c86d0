"""Latency of requests whose views log twenty records each, to gunicorn at 30 % and at 70 % of what it can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.contenders import Contender
from benchmarks.results import Blocks, Row
from benchmarks.scenario import Measured, Parameters, Plan, Scenario
from benchmarks.scenarios import served
from benchmarks.statistics import Target, percentiles

#: Of what the server can do: one that has time, and one that is nearly at its end.
LOADS = (0.3, served.LOAD)
SHOWN = ("p99", "p50")


def prepare(parameters: Parameters) -> dict[str, Any]:
    """The rates suit a server whose records go nowhere."""
    found = served.saturation("null", parameters["calibrate"], "many", requests=True)
    return {"saturation": found}


def measure(contender: Contender, parameters: Parameters, directory: Path) -> Measured:
    """Twenty records of the view and both of the request; the null handler gets all of them, too."""
    rates = [share * parameters["saturation"] for share in LOADS]
    loaded, expected = served.load(contender, "null", parameters, directory, "many", rates, requests=True)
    figures: dict[str, float] = {}
    for share, each in zip(LOADS, loaded, strict=True):
        found = percentiles(each.micro)
        figures |= {f"{name} {share:.0%}": found[name] for name in SHOWN}
        figures[f"ratio {share:.0%}"] = each.ratio
    return Measured(figures, percentiles(loaded[-1].micro), expected)


def conclude(blocks: Blocks) -> list[Row]:
    """By the null handler."""
    rows: list[Row] = []
    for share in LOADS:
        rows += blocks.rows_by_reference(f"ratio {share:.0%}", f"p99 at {share:.0%}, by that of null", Target(1.1))
    for share in LOADS:
        for figure in SHOWN:
            rows += blocks.rows_plain(f"{figure} {share:.0%}", f"{figure} at {share:.0%}", "µs")
    return rows


SCENARIO = Scenario(
    name="twenty",
    question="What if each view logs twenty records?",
    contenders=("null", "bare", "file", "clh", "stdlib", "ours"),
    reference="null",
    quick=Plan(1, {"calibrate": 1.0, "seconds": 0.5, "turns": 2}, without=("clh", "stdlib")),
    full=Plan(7, {"calibrate": 4.0, "seconds": 1.0, "turns": 5}, without=("clh",)),
    measure=measure,
    conclude=conclude,
    prepare=prepare,
    unavailable=served.unavailable,
)
