"""Latency of requests to gunicorn at 70 % of what it can do, open loop."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import app, openloop, serving
from benchmarks.contenders import CONTENDERS, Contender, Logging
from benchmarks.results import Blocks, Row
from benchmarks.scenario import Measured, Parameters, Plan, Scenario
from benchmarks.sink import Expected, mark
from benchmarks.statistics import Target, percentiles

#: Of what the server can do.
LOAD = 0.7


def paths(tag: str, view: str) -> Iterator[str]:
    """Paths without end, each with a mark of its own."""
    number = 0
    while True:
        yield f"/{view}/{mark(tag, number)}"
        number += 1


def saturation(contender: str, seconds: float, view: str, *, requests: bool) -> float:
    """Answers per second of the server with nothing in its way."""
    with tempfile.TemporaryDirectory(prefix="asynclog-bench-") as name:
        (Path(name) / "logs").mkdir()
        with serving.serve(contender, Path(name) / "logs", requests=requests) as server:
            openloop.closed_loop(server.port, min(0.5, seconds), paths("warm", view))
            return openloop.closed_loop(server.port, seconds, paths("c", view))


def prepare(parameters: Parameters) -> dict[str, Any]:
    """Find the rate: the same for all contenders."""
    found = saturation("none", parameters["calibrate"], "item", requests=False)
    return {"saturation": found, "rate": LOAD * found}


def load(
    contender: Contender,
    parameters: Parameters,
    directory: Path,
    view: str,
    rates: Sequence[float],
    *,
    requests: bool,
) -> tuple[list[dict[str, float]], Expected | None]:
    """One server under planned loads, one after the other; the plans are the same for all contenders of a round.

    :returns: the percentiles of each load, and what is to be in the files.
    """
    counts: dict[str, int] = {}
    found: list[dict[str, float]] = []
    with serving.serve(contender.name, directory, requests=requests) as server:
        for number, rate in enumerate(rates):
            warm, moments = openloop.even(rate, 0.25), openloop.poisson(rate, parameters["seconds"], parameters["seed"])
            for tag, plan in ((f"warm{number}", warm), (f"r{number}", moments)):
                answers = openloop.open_loop(server.port, plan, paths(tag, view))
                if answers.failed:
                    raise RuntimeError(f"{answers.failed} of {len(plan)} requests were not answered")
                counts[tag] = len(answers.latencies)
                if plan is moments:
                    found.append(percentiles([each * 1e6 for each in answers.latencies]))
    its = Logging(own_requests=contender.name == "ours")
    return found, app.expected_of_requests(contender, its, counts, view) if requests else None


def measure(contender: Contender, parameters: Parameters, directory: Path) -> Measured:
    """The small view, both records of each request."""
    rates, requests = [parameters["rate"]], contender.name != "none"
    (found,), expected = load(contender, parameters, directory, "item", rates, requests=requests)
    return Measured({"p50": found["p50"], "p99": found["p99"]}, found, expected)


def conclude(blocks: Blocks) -> list[Row]:
    """By no logging."""
    rows: list[Row] = []
    for name in blocks.contenders:
        if name != blocks.reference:
            found, floor = blocks.quotient(name, blocks.reference, "p99")
            target = Target(1.05, floor_suffices=True) if name == "ours" else None
            rows.append(blocks.row(name, "p99 by that of none", "ratio", found, floor, target, 1.0))
    return rows + blocks.rows_plain("p99", "p99", "µs") + blocks.rows_plain("p50", "p50", "µs")


def unavailable() -> str:
    """Needs the server."""
    return serving.unavailable() or CONTENDERS["none"].unavailable()


SCENARIO = Scenario(
    name="served",
    question="What does logging add to the p99 of a server at 70 % of its capacity?",
    contenders=("none", "file", "clh", "stdlib", "ours"),
    reference="none",
    quick=Plan(3, {"calibrate": 1.5, "seconds": 1.2}, without=("clh", "stdlib")),
    full=Plan(6, {"calibrate": 4.0, "seconds": 3.0}),
    measure=measure,
    conclude=conclude,
    prepare=prepare,
    unavailable=unavailable,
)
