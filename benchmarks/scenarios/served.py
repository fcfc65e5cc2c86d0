"""Latency of requests to gunicorn at 70 % of what it can do, open loop."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import app, openloop, serving
from benchmarks.contenders import CONTENDERS, Contender, Logging
from benchmarks.pairs import by_turns, settle
from benchmarks.results import Blocks, Row
from benchmarks.scenario import Measured, Parameters, Plan, Scenario
from benchmarks.sink import Expected, mark
from benchmarks.statistics import Target, percentile, percentiles

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


class Asker:
    """Puts planned loads on a server, and knows how often each mark was answered."""

    def __init__(self, server: serving.Server, view: str) -> None:
        self.server = server
        self.view = view
        #: Requests by their tag.
        self.counts: dict[str, int] = {}

    def ask(self, moments: Sequence[float]) -> list[float]:
        """A request at each of ``moments``; µs of each.

        :raises RuntimeError: if one is not answered.
        """
        tag = f"r{len(self.counts)}"
        answers = openloop.open_loop(self.server.port, moments, paths(tag, self.view))
        if answers.failed:
            raise RuntimeError(f"{answers.failed} of {len(moments)} requests were not answered")
        self.counts[tag] = len(answers.latencies)
        return [each * 1e6 for each in answers.latencies]

    def rest(self) -> None:
        """Let the server catch up."""
        settle(self.server.cpu, 0.1, 20.0)


@dataclass
class Loaded:
    """What a server did under one load, beside the one that it is compared with."""

    #: µs of its requests.
    micro: list[float]
    #: Its p99 by that of the other, the median of all pairs of turns.
    ratio: float


def by_turns_at(rate: float, its: Asker, other: Asker, parameters: Parameters, choose: random.Random) -> Loaded:
    """Both at this rate by turns; in each pair both have the same plan."""
    plans = [openloop.poisson(rate, parameters["seconds"], choose.getrandbits(32)) for _ in range(parameters["turns"])]
    one, another = iter(plans), iter(plans)
    for each in (its, other):
        each.ask(openloop.even(rate, 0.25))  # warms up

    def rest() -> None:
        its.rest()
        other.rest()

    pairs = by_turns(lambda: its.ask(next(one)), lambda: other.ask(next(another)), len(plans), choose, rest)
    ratio = median(percentile(mine, 99) / percentile(theirs, 99) for mine, theirs in pairs)
    return Loaded([each for mine, _ in pairs for each in mine], ratio)


def load(
    contender: Contender,
    reference: str,
    parameters: Parameters,
    directory: Path,
    view: str,
    rates: Sequence[float],
    *,
    requests: bool,
) -> tuple[list[Loaded], Expected | None]:
    """Two servers, the contender's and one with the reference, under planned loads.

    :param requests: whether there are records of requests, of the reference too.
    :returns: what came of each load, and what is to be in the contender's files.
    """
    beside = directory.parent / "reference"
    beside.mkdir()
    choose = random.Random(parameters["seed"])
    with (
        serving.serve(contender.name, directory, requests=requests) as server,
        serving.serve(reference, beside, requests=requests) as second,
    ):
        its, other = Asker(server, view), Asker(second, view)
        found = [by_turns_at(rate, its, other, parameters, choose) for rate in rates]
    own_requests = Logging(own_requests=contender.name == "ours")
    return found, app.expected_of_requests(contender, own_requests, its.counts, view) if requests else None


def measure(contender: Contender, parameters: Parameters, directory: Path) -> Measured:
    """The small view, both records of each request."""
    requests = contender.name != "none"
    (loaded,), expected = load(
        contender, "none", parameters, directory, "item", [parameters["rate"]], requests=requests
    )
    found = percentiles(loaded.micro)
    return Measured({"ratio": loaded.ratio, "p50": found["p50"], "p99": found["p99"]}, found, expected)


def conclude(blocks: Blocks) -> list[Row]:
    """By no logging."""
    target = Target(1.05, floor_suffices=True)
    rows = blocks.rows_by_reference("ratio", "p99 by that of none", target)
    return rows + blocks.rows_plain("p99", "p99", "µs") + blocks.rows_plain("p50", "p50", "µs")


def unavailable() -> str:
    """Needs the server."""
    return serving.unavailable() or CONTENDERS["none"].unavailable()


SCENARIO = Scenario(
    name="served",
    question="What does logging add to the p99 of a server at 70 % of its capacity?",
    contenders=("none", "file", "clh", "stdlib", "ours"),
    reference="none",
    quick=Plan(1, {"calibrate": 1.0, "seconds": 0.5, "turns": 2}, without=("clh", "stdlib")),
    full=Plan(7, {"calibrate": 4.0, "seconds": 1.0, "turns": 5}),
    measure=measure,
    conclude=conclude,
    prepare=prepare,
    unavailable=unavailable,
)
