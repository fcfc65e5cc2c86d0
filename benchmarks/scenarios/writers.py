"""One rotating file and 1, 2, 4, 8 processes that write to it, formatting included, through rotations."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from benchmarks.contenders import FORMAT, Contender
from benchmarks.results import Blocks, Row
from benchmarks.scenario import Measured, Parameters, Plan, Scenario
from benchmarks.sink import Expected, mark
from benchmarks.statistics import Target

PROCESSES = (1, 2, 4, 8)
#: Records that our listener takes at once.
BATCH = 256
#: Enough for everything: what a rotation erases cannot be counted.
BACKUPS = 100


def write_one_by_one(path: Path, records: list[logging.LogRecord], max_bytes: int) -> Callable[[], None]:
    """concurrent-log-handler: a record at a time, as it is made for."""
    from concurrent_log_handler import ConcurrentRotatingFileHandler

    handler = ConcurrentRotatingFileHandler(path, "a", max_bytes, BACKUPS)
    handler.setFormatter(logging.Formatter(FORMAT))

    def write() -> None:
        for record in records:
            handler.handle(record)
        handler.close()

    return write


def write_in_batches(path: Path, records: list[logging.LogRecord], max_bytes: int) -> Callable[[], None]:
    """Ours: batches, as its listener hands them over."""
    from flask_asynclog.rotating import BatchRotatingFileHandler

    handler = BatchRotatingFileHandler(path, max_bytes, BACKUPS)

    def write() -> None:
        for first in range(0, len(records), BATCH):
            handler.emit_batch(records[first : first + BATCH])
        handler.close()

    return write


def writer(name: str, path: Path, tag: str, count: int, max_bytes: int, together: Barrier, times: Any) -> None:
    """One process: its records are made before the start."""
    make = logging.getLogger("bench").makeRecord
    text, where = "record %s of %s", ("bench", logging.INFO, __file__, 1)
    records = [make(*where, text, (mark(tag, number), "a writer"), None) for number in range(count)]
    write = {"clh": write_one_by_one, "ours": write_in_batches}[name](path, records, max_bytes)
    together.wait(60)
    began = time.monotonic()
    write()
    times.put((began, time.monotonic()))


def measure(contender: Contender, parameters: Parameters, directory: Path) -> Measured:
    """The same number of records in all, by more and more processes, a log for each number."""
    context = multiprocessing.get_context("fork")
    figures: dict[str, float] = {}
    expected: dict[str, int] = {}
    total = parameters["records"]
    for number in PROCESSES:
        together, times = context.Barrier(number), context.Queue()
        path = directory / f"by{number}.log"
        started = []
        for each in range(number):
            tag = f"w{number}.{each}"
            expected[f"record/{tag}"] = total // number
            arguments = (contender.name, path, tag, total // number, parameters["max_bytes"], together, times)
            started.append(context.Process(target=writer, args=arguments, daemon=True))
        for process in started:
            process.start()
        spans = [times.get(timeout=100) for _ in started]
        for process in started:
            process.join(30)
        seconds = max(end for _, end in spans) - min(begin for begin, _ in spans)
        figures[f"rate{number}"] = sum(expected[f"record/w{number}.{each}"] for each in range(number)) / seconds
        figures[f"each{number}"] = seconds / total * 1e6
    figures["kept"] = figures[f"rate{PROCESSES[-1]}"] / figures["rate1"]
    figures["rotations"] = float(len(list(directory.glob("*.log.[0-9]*"))))
    return Measured(figures, {}, Expected(expected, {}))


def conclude(blocks: Blocks) -> list[Row]:
    """Ours by concurrent-log-handler for each number; and what many processes make of the rate of one."""
    rows: list[Row] = []
    for number in PROCESSES:
        found, floor = blocks.quotient("ours", "clh", f"rate{number}")
        text = f"records/s of {number} process{'es' * (number > 1)}, by those of clh"
        rows.append(blocks.row("ours", text, "ratio", found, floor, Target(10.0, at_most=False), 1.0))
    target = Target(1.0, at_most=False)
    rows += blocks.rows_plain("kept", "records/s of 8 processes by those of one", "ratio", target)
    for number in PROCESSES:
        rows += blocks.rows_plain(f"rate{number}", f"records/s of {number} process{'es' * (number > 1)}", "/s")
    return rows + blocks.rows_plain("rotations", "rotations", "")


SCENARIO = Scenario(
    name="writers",
    question="How many records a second go into one rotating file?",
    contenders=("clh", "ours"),
    reference="ours",
    quick=Plan(3, {"records": 16_000, "max_bytes": 400_000}),
    # With a quarter of that, ours is done in 0.07 s: most of that is how processes start.
    full=Plan(8, {"records": 160_000, "max_bytes": 1_000_000}),
    measure=measure,
    conclude=conclude,
)
