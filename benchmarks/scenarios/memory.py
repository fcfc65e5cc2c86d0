"""Memory of a queue full of request records."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import app
from benchmarks.contenders import Contender
from benchmarks.results import Blocks, Row
from benchmarks.scenario import Measured, Parameters, Plan, Scenario
from benchmarks.statistics import Target

#: Records below WARNING get 80 % of the queue: so large it has to be to hold `records` of them.
SHARE = 0.8


def resident() -> float:
    """Bytes of this process that are in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the lock of ``app.log``: nobody writes meanwhile. Ours and concurrent-log-handler share its name."""
    with (directory / ".__app.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def measure(contender: Contender, parameters: Parameters, directory: Path) -> Measured:
    """Fill the queue while nobody can write; then let it be written, and count."""
    count = parameters["records"]
    options: dict[str, Any] = {}
    if contender.name == "ours":
        options = {"queue_size": int(count / SHARE) + 1, "lock_timeout": 600, "shutdown_timeout": 60}
    made, its = app.make(contender, directory, **options)
    environs = app.environs("r", count // 2)
    for environ in app.environs("warm", 500):
        app.answer(made, environ)
    time.sleep(1.0)  # longer than any listener gathers
    with locked(directory):
        before = resident()
        for environ in environs:
            app.answer(made, environ)
        time.sleep(0.3)
        held = resident() - before
        dropped = its.dropped()
    its.close()
    expected = app.expected_of_requests(contender, its, {"warm": 500, "r": count // 2})
    return Measured({"MiB": held / 2**20, "each": held / count}, {}, expected, dropped)


def conclude(blocks: Blocks) -> list[Row]:
    """Above the empty queue."""
    return blocks.rows_plain("MiB", "a full queue above an empty one", "MiB", Target(64.0)) + blocks.rows_plain(
        "each", "one record in it", "bytes"
    )


def unavailable() -> str:
    """Reads /proc."""
    return "" if Path("/proc/self/statm").exists() else "no /proc to read the memory of a process from"


SCENARIO = Scenario(
    name="memory",
    question="How much memory does a full queue take?",
    contenders=("stdlib", "ours"),
    reference="ours",
    quick=Plan(1, {"records": 65_536}, without=("stdlib",)),
    full=Plan(2, {"records": 65_536}),
    measure=measure,
    conclude=conclude,
    unavailable=unavailable,
)
