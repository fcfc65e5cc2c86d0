"""The same as `requests`, in an app that has a function of its own before requests.

Without any, our hook does not have Flask look for some: a little of what it costs is made good by that.
"""

from __future__ import annotations

from benchmarks.results import Blocks, Row
from benchmarks.scenario import Plan, Scenario
from benchmarks.scenarios import requests


def conclude(blocks: Blocks) -> list[Row]:
    """Above no logging, and ours by the usual recipe."""
    rows = blocks.rows_above("p50", "a request, p50, above none", "µs")
    return [*rows, blocks.row_by("file", "p50", "p50 above none, by that of file")]


SCENARIO = Scenario(
    name="before",
    question="What do both records cost in an app that has a function before requests?",
    contenders=("none", "file", "ours"),
    reference="none",
    quick=Plan(1, {**requests.SCENARIO.quick.parameters, "before": True}),
    full=Plan(6, {**requests.SCENARIO.full.parameters, "before": True}),
    measure=requests.measure,
    conclude=conclude,
)
