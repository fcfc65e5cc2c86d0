"""How long the import takes beyond Flask's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.contenders import Contender
from benchmarks.results import Blocks, Row
from benchmarks.scenario import Measured, Parameters, Plan, Scenario
from benchmarks.statistics import Target

CODE = """
import sys, time
import flask
began = time.perf_counter()
__import__(sys.argv[1])
print((time.perf_counter() - began) * 1000)
"""

#: What each contender's users import.
MODULES = {"clh": "concurrent_log_handler", "loguru": "loguru", "ours": "flask_asynclog"}


def measure(contender: Contender, parameters: Parameters, directory: Path) -> Measured:
    """The least of a few interpreters: what comes on top is not the import's."""
    command = [sys.executable, "-c", CODE, MODULES[contender.name]]
    times = [
        float(subprocess.run(command, cwd=directory, capture_output=True, text=True, check=True).stdout)
        for _ in range(parameters["times"])
    ]
    return Measured({"ms": min(times)})


def conclude(blocks: Blocks) -> list[Row]:
    """As they are: Flask is imported before."""
    return blocks.rows_plain("ms", "import beyond Flask's own", "ms", Target(60.0))


SCENARIO = Scenario(
    name="imports",
    question="How long does the import take?",
    contenders=("clh", "loguru", "ours"),
    reference="ours",
    quick=Plan(1, {"times": 3}),
    full=Plan(4, {"times": 5}),
    measure=measure,
    conclude=conclude,
)
