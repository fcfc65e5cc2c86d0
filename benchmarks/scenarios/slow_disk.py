"""Latency of requests while the disk stalls again and again, and what becomes of the records."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import app, slowdisk
from benchmarks.block import PREAMBLE
from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.openloop import even
from benchmarks.results import Blocks, Row
from benchmarks.scenario import Measured, Parameters, Plan, Scenario
from benchmarks.sink import Expected
from benchmarks.statistics import Estimate, Target, percentiles

CODE = PREAMBLE + "from benchmarks.scenarios.slow_disk import paced\npaced(*sys.argv[1:])\n"


def measure(contender: Contender, parameters: Parameters, directory: Path) -> Measured:
    """The app in a process with the slow disk preloaded."""
    library = slowdisk.build(directory.parent)
    stalls = slowdisk.environment(
        library, str(directory), parameters["stall"], parameters["period"], time.monotonic() + 1.0
    )
    result = directory.parent / "paced.json"
    task = json.dumps(dict(parameters))
    command = [sys.executable, "-c", CODE, contender.name, task, str(directory), str(result)]
    subprocess.run(command, env={**os.environ, **stalls}, stdin=subprocess.DEVNULL, check=True)
    found = json.loads(result.read_text())
    if found["expected"] is not None:
        found["expected"] = Expected(**found["expected"])
    return Measured(**found)


def paced(name: str, task: str, logs: str, result: str) -> None:
    """The process: requests at planned moments, one after the other; each logs a WARNING too."""
    contender, parameters, directory = CONTENDERS[name], json.loads(task), Path(logs)
    made, its = app.make(contender, directory)
    moments = even(parameters["rate"], parameters["seconds"])
    environs = app.environs("r", len(moments), "warn")
    for environ in app.environs("warm", 50):
        app.answer(made, environ)
    gc.collect()  # once in a process's life Python goes through all that was imported: not while it is measured
    began = time.perf_counter() + 0.05
    micro: list[float] = []
    for moment, environ in zip(moments, environs, strict=True):
        due = began + moment
        while (wait := due - time.perf_counter()) > 0:
            time.sleep(wait)
        app.answer(made, environ)
        micro.append((time.perf_counter() - due) * 1e6)
    dropped = its.dropped()
    its.close()
    found = percentiles(micro)
    expected = expected_of(contender, app.expected_of_requests(contender, its, {"r": len(moments)}, "warn"), its)
    measured = Measured({"p50": found["p50"], "p99.9": found["p99.9"]}, found, expected, dropped)
    Path(result).write_text(json.dumps(asdict(measured)))


def expected_of(contender: Contender, expected: Expected, its: Any) -> Expected | None:
    """With the requests that warmed up, whose view logs nothing."""
    if not contender.writes:
        return None
    warmed = app.expected_of_requests(contender, its, {"warm": 50})
    unmarked = {kind: count + warmed.unmarked.get(kind, 0) for kind, count in expected.unmarked.items()}
    return Expected({**expected.marked, **warmed.marked}, unmarked)


def conclude(blocks: Blocks) -> list[Row]:
    """Above no logging; and what is missing at WARNING."""
    rows = blocks.rows_above("p99.9", "p99.9 of a request while the disk stalls, above none", "µs", Target(1000.0))
    lost = [
        block.landed.missing_by_kind.get("record/warned", 0)
        for block in blocks.blocks
        if block.contender == "ours" and block.landed is not None
    ]
    if lost:
        found = Estimate(sum(lost), sum(lost), sum(lost), len(lost))
        rows.append(blocks.row("ours", "records at WARNING that are missing", "", found, None, Target(0.0)))
    return rows


SCENARIO = Scenario(
    name="slow_disk",
    question="What does a disk that stalls do to requests?",
    contenders=("none", "file", "ours"),
    reference="none",
    quick=Plan(1, {"rate": 500, "seconds": 5.0, "stall": 0.5, "period": 2.5}),
    full=Plan(12, {"rate": 1000, "seconds": 20.0, "stall": 2.0, "period": 10.0}),
    measure=measure,
    conclude=conclude,
    unavailable=slowdisk.unavailable,
)
