"""Runs one cell in a process of its own, with a limit, and leaves no process of it behind.

The process is `matrix.alone`, in the cell's empty directory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from matrix.cells import Cell, Result

#: Modules of this package that have cells, in the order of the table.
MODULES = (
    "gunicorn_cells", "green_cells", "user_cells", "servers", "uwsgi_cells", "processes", "forks", "celery_cells",
    "pytest_cells",
)  # fmt: skip
#: Seconds after which a cell hangs.
LIMIT = 300.0
#: Environment variable that marks every process of a cell, wherever it may have gone.
MARK = "MATRIX_CELL"
#: Set by a signal handler: what runs is ended, what has not begun does not.
interrupted = threading.Event()


@dataclass(frozen=True)
class Outcome:
    """What became of one cell: a result, or the reason why there is none."""

    cell: Cell
    result: Result | None = None
    skipped: str = ""
    error: str = ""
    #: How long all of it took, in seconds.
    took: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether all of it is as promised, or records were lost where the cell says that they may be."""
        if self.result is None:
            return False
        return self.result.passed or (bool(self.cell.limit) and self.result.otherwise_right)

    @property
    def failed(self) -> bool:
        """Whether it ran, or should have, and something is not as promised."""
        return not self.passed and not self.skipped

    @property
    def text(self) -> str:
        """It in a few words, for the table."""
        if self.skipped:
            return f"skipped: {self.skipped}"
        if self.passed:
            return self.cell.limit or "ok"
        return verdict(self.result) if self.result else self.error.strip().splitlines()[-1]

    @property
    def details(self) -> str:
        """All that is known of a failure."""
        known = [self.error.strip() or self.text]
        if self.result is not None:
            known += self.result.problems[:20]
            known += [f"lost: {tag}" for tag in self.result.lost[:10]]
            known += [f"doubled: {tag}" for tag in self.result.doubled[:10]]
        return "\n".join(known)


def verdict(result: Result) -> str:
    """What is wrong with a result, in a few words."""
    expected = len(list(result.expected))
    wrong = []
    if not expected:
        wrong.append("nothing was logged")
    if result.lost:
        wrong.append(f"lost {len(result.lost)} of {expected}")
    if result.doubled:
        wrong.append(f"doubled {len(result.doubled)} of {expected}")
    if result.seconds > result.allowed_seconds:
        wrong.append(f"ended after {result.seconds:.1f} s")
    if result.problems and not wrong:
        wrong.append(" ".join(result.problems[0].split())[:120])
    return ", ".join(wrong)


class Located(NamedTuple):
    """A cell and where it is defined, for the process that runs it to find."""

    module: str
    cell: Cell


def cells_of(module: str) -> list[Located]:
    """The cells of one module of this package. Raises ImportError."""
    return [Located(module, cell) for cell in importlib.import_module(f"matrix.{module}").CELLS]


def all_cells() -> tuple[list[Located], dict[str, str]]:
    """The cells of all modules; and the modules that cannot be imported, with the reason."""
    cells: list[Located] = []
    missing: dict[str, str] = {}
    for module in MODULES:
        try:
            cells += cells_of(module)
        except ImportError as error:
            missing[module] = str(error)
    return cells, missing


def run(located: Located, limit: float = LIMIT) -> Outcome:
    """Run a cell in a temporary directory, which anybody may enter, and which is gone afterwards.

    :param limit: seconds after which it is ended and has failed.
    """
    if interrupted.is_set():
        return Outcome(located.cell, error="interrupted")
    if absent := absent_modules(located.cell.needs):
        return Outcome(located.cell, skipped=f"no {', '.join(absent)}")
    began = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="matrix-"))
    directory.chmod(0o755)
    try:
        outcome = _run_in(directory, located, limit)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return dataclasses.replace(outcome, took=time.monotonic() - began)


def absent_modules(names: Iterable[str]) -> list[str]:
    """Those of the modules that are not installed."""
    return [name for name in names if importlib.util.find_spec(name) is None]


def _run_in(directory: Path, located: Located, limit: float) -> Outcome:
    module, cell = located
    place, answer, output = directory / "cell", directory / "answer.json", directory / "output"
    place.mkdir()
    with output.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "matrix.alone", module, cell.row, cell.event, str(answer)],
            cwd=place,
            env={**os.environ, MARK: str(place), "PYTHONPATH": search_path()},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    deadline = time.monotonic() + limit
    try:
        while process.poll() is None and time.monotonic() < deadline and not interrupted.is_set():
            time.sleep(0.02)
        hangs = process.poll() is None
    finally:
        left = end_processes(place)
        process.wait()
    said = output.read_text(errors="replace")
    if interrupted.is_set():
        return Outcome(cell, error="interrupted")
    if hangs:
        return Outcome(cell, error=f"{said}\nhangs: no end after {limit:.0f} s")
    if not answer.exists():
        return Outcome(cell, error=f"{said}\nended with status {process.returncode} and no result")
    outcome = read_answer(cell, json.loads(answer.read_text()))
    if outcome.result is not None and left:
        outcome.result.problems.append(f"left processes behind: {', '.join(left)}")
    return outcome


def search_path() -> str:
    """PYTHONPATH with the directory of this package in front."""
    inherited = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join(filter(None, [str(Path(__file__).resolve().parents[1]), inherited]))


def read_answer(cell: Cell, answer: dict[str, object]) -> Outcome:
    """What `matrix.alone` has written, read back."""
    result = answer.get("result")
    return Outcome(
        cell,
        result=Result(**result) if isinstance(result, dict) else None,
        skipped=str(answer.get("skipped", "")),
        error=str(answer.get("error", "")),
    )


def end_processes(place: Path, patience: float = 2.0) -> list[str]:
    """Kill every process of the cell that still runs after ``patience`` seconds; returns their command lines."""
    deadline = time.monotonic() + patience
    left: list[str] = []
    while found := _processes_of(place):  # again, for those that were forked meanwhile
        if time.monotonic() > deadline:
            for pid, command in found.items():
                left.append(command)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    return left


def _processes_of(place: Path) -> dict[int, str]:
    """Processes that carry the mark of the cell, or are in its directory, and their command lines. No zombies."""
    mark = f"{MARK}={place}".encode()
    found: dict[int, str] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            marked = mark in (process / "environ").read_bytes().split(b"\0")
            if marked or (process / "cwd").readlink().is_relative_to(place):
                found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except OSError:  # ended meanwhile, a zombie, or another user's
            continue
    return found
