"""The process of one block, and how it is started: the contender is alone in it, and so are its files.

The process finds this package by its place, not by ``sys.path``: what is measured is the installed flask_asynclog.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.results import Block
from benchmarks.sink import Expected, log_files, verify

PACKAGE = Path(__file__).resolve().parent

#: Put before the code of any process that needs this package.
PREAMBLE = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("benchmarks", {file!r}, submodule_search_locations=[{directory!r}])
package = sys.modules["benchmarks"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
""".format(file=str(PACKAGE / "__init__.py"), directory=str(PACKAGE))

CODE = PREAMBLE + "from benchmarks.block import child\nchild(sys.argv[1])\n"


def run(block: Block, scenario: str, parameters: dict[str, Any], limit: float) -> Block:
    """Measure ``block`` in a process of its own, count what landed when that has ended, and fill the block in."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="asynclog-bench-") as name:
        directory = Path(name)
        (directory / "logs").mkdir()
        task = {"scenario": scenario, "contender": block.contender, "parameters": parameters}
        (directory / "task.json").write_text(json.dumps(task))
        with (directory / "stderr").open("wb") as stderr:
            # A session of its own: at the time limit its own children end with it.
            process = subprocess.Popen(
                [sys.executable, "-c", CODE, name], cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=stderr, start_new_session=True,
            )  # fmt: skip
            try:
                process.wait(limit)
            except subprocess.TimeoutExpired:
                block.error = f"not done within {limit:.0f} s"
            finally:
                if process.poll() is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        found = directory / "measured.json"
        if not block.error and (process.returncode or not found.exists()):
            said = (directory / "stderr").read_text(errors="replace").strip().splitlines()
            block.error = f"exit status {process.returncode}: {said[-1] if said else 'nothing said'}"
        if not block.error:
            measured = json.loads(found.read_text())
            block.figures, block.turns, block.percentiles = (
                measured[name] for name in ("figures", "turns", "percentiles")
            )
            block.dropped = measured["dropped"]
            if measured["expected"] is not None:
                block.landed = verify(log_files(directory / "logs"), Expected(**measured["expected"]))
    block.seconds = round(time.monotonic() - started, 3)
    return block


def child(name: str) -> None:
    """The process: measure and write down what was found. Exit handlers run after that, as in any program."""
    from benchmarks.contenders import CONTENDERS

    directory = Path(name)
    task = json.loads((directory / "task.json").read_text())
    scenario = importlib.import_module(f"benchmarks.scenarios.{task['scenario']}").SCENARIO
    measured = scenario.measure(CONTENDERS[task["contender"]], task["parameters"], directory / "logs")
    (directory / "measured.json").write_text(json.dumps(asdict(measured)))
