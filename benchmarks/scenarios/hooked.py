"""The same as `requests`, in an app that has something to do around each request.

Where Flask has nothing to do before or after a request, our hooks do not have it look for that: a part of what they
cost is made good by it. Here nothing is.
"""

from __future__ import annotations

from benchmarks.results import Blocks, Row
from benchmarks.scenario import Plan, Scenario
from benchmarks.scenarios import requests


def conclude(blocks: Blocks) -> list[Row]:
    """Above no logging, and ours by the usual recipe."""
    rows = blocks.rows_above("p50", "a request, p50, many in a row, above none", "µs")
    rows.append(blocks.row_by("file", "p50", "p50 above none, many in a row, by that of file"))
    rows += blocks.rows_above("burst", "a request, p50, bursts of 200, above none", "µs")
    return [*rows, blocks.row_by("file", "burst", "p50 above none, bursts of 200, by that of file")]


SCENARIO = Scenario(
    name="hooked",
    question="What do both records cost in an app with a session, and functions before and after requests?",
    contenders=("none", "file", "ours"),
    reference="none",
    quick=Plan(1, {**requests.SCENARIO.quick.parameters, "hooked": True}),
    full=Plan(6, {**requests.SCENARIO.full.parameters, "hooked": True}),
    measure=requests.measure,
    conclude=conclude,
)
