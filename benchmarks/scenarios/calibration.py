"""Whether the client sees what it should: a known pause of the server shows at the percentile that follows from it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import openloop, serving
from benchmarks.contenders import Contender
from benchmarks.results import Blocks, Row
from benchmarks.scenario import Measured, Parameters, Plan, Scenario
from benchmarks.scenarios.served import paths
from benchmarks.statistics import Target, percentile, percentiles


def predicted(pause: float, seconds: float) -> float:
    """The percentile at which half of the pause shows.

    Requests that come during the pause, ``pause / seconds`` of all, wait from all of it down to nothing, evenly.
    """
    return 100 * (1 - pause / 2 / seconds)


@contextlib.contextmanager
def paused(pids: Sequence[int], after: float, pause: float) -> Iterator[None]:
    """Stop the processes ``after`` seconds for ``pause`` seconds, on a thread; they run again at the end, whatever."""

    def stop_and_go() -> None:
        time.sleep(after)
        _signal(pids, signal.SIGSTOP)
        time.sleep(pause)
        _signal(pids, signal.SIGCONT)

    thread = threading.Thread(target=stop_and_go)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _signal(pids: Sequence[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def measure(contender: Contender, parameters: Parameters, directory: Path) -> Measured:
    """Evenly planned requests at a rate that is no load, and one pause in their midst."""
    seconds, pause, rate = parameters["seconds"], parameters["pause"], parameters["rate"]
    with serving.serve(contender.name, directory, requests=False) as server:
        openloop.open_loop(server.port, openloop.even(rate, 0.3), paths("warm", "item"))
        with paused(server.pids(), seconds / 4, pause):
            answers = openloop.open_loop(server.port, openloop.even(rate, seconds), paths("r", "item"))
    if answers.failed:
        raise RuntimeError(f"{answers.failed} requests were not answered")
    shown = percentile(answers.latencies, predicted(pause, seconds))
    micro = percentiles([each * 1e6 for each in answers.latencies])
    return Measured({"shown": shown / (pause / 2), "p50": micro["p50"]}, micro)


def conclude(blocks: Blocks) -> list[Row]:
    """Nothing of the pause may be hidden: what shows is no less than what was predicted."""
    text = "pause of the server that shows, by the predicted"
    return [blocks.row("none", text, "ratio", blocks.plain("none", "shown"), None, Target(0.95, at_most=False))]


SCENARIO = Scenario(
    name="calibration",
    question="Does the client see a pause of the server at the percentile that follows from it?",
    contenders=("none",),
    reference="none",
    quick=Plan(1, {"seconds": 2.0, "pause": 0.5, "rate": 200}),
    full=Plan(1, {"seconds": 8.0, "pause": 2.0, "rate": 200}),
    measure=measure,
    conclude=conclude,
    unavailable=serving.unavailable,
    paired=False,
)
