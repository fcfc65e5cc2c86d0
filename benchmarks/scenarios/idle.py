"""How often a process that logs nothing wakes up."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from benchmarks import app
from benchmarks.contenders import Contender
from benchmarks.results import Blocks, Row
from benchmarks.scenario import Measured, Parameters, Plan, Scenario
from benchmarks.statistics import Target

TASKS = Path("/proc/self/task")


def wakeups() -> int:
    """Voluntary context switches so far of all threads but this one, which sleeps on purpose."""
    total = 0
    for task in TASKS.iterdir():
        if int(task.name) != threading.get_native_id():
            status = (task / "status").read_text()
            total += int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return total


def measure(contender: Contender, parameters: Parameters, directory: Path) -> Measured:
    """Some requests, a rest, and then a while in which nothing happens."""
    made, its = app.make(contender, directory)
    for environ in app.environs("r", 10):
        app.answer(made, environ)
    time.sleep(0.7)
    threads = len(os.listdir(TASKS))
    before, began = wakeups(), time.monotonic()
    time.sleep(parameters["seconds"])
    woken, seconds = wakeups() - before, time.monotonic() - began
    its.close()
    expected = app.expected_of_requests(contender, its, {"r": 10})
    return Measured({"wakeups": woken / seconds, "threads": float(threads - 1)}, {}, expected)


def conclude(blocks: Blocks) -> list[Row]:
    """As they are."""
    return blocks.rows_plain("wakeups", "wake-ups of an idle process", "/s", Target(0.0)) + blocks.rows_plain(
        "threads", "threads beside the app's", ""
    )


def unavailable() -> str:
    """Reads /proc."""
    return "" if TASKS.exists() else "no /proc to read context switches from"


SCENARIO = Scenario(
    name="idle",
    question="How often does an idle process wake up?",
    contenders=("none", "stdlib", "loguru", "logxide", "ours"),
    reference="none",
    quick=Plan(1, {"seconds": 1.0}, without=("logxide",)),
    full=Plan(1, {"seconds": 5.0}),
    measure=measure,
    conclude=conclude,
    unavailable=unavailable,
)
