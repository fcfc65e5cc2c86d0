"""Cells that are wrong, each in its own way, and one that is right: what the tests hold the runner against."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from matrix.cells import Cell, Result, Skipped

TAGS = ["a", "b", "c"]
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def right(directory: Path) -> Result:
    """All that was expected is there, and the directory is empty at first."""
    return Result(TAGS, TAGS, problems=[file.name for file in directory.iterdir()])


def loses(directory: Path) -> Result:
    """One of three is missing."""
    return Result(TAGS, TAGS[:2])


def doubles(directory: Path) -> Result:
    """One of three is there twice."""
    return Result(TAGS, [*TAGS, "b"])


def raises(directory: Path) -> Result:
    """It fails on its way."""
    raise AssertionError("the server does not end")


def exits(directory: Path) -> Result:
    """It ends its process."""
    sys.exit(3)


def cannot(directory: Path) -> Result:
    """It has not the right to run."""
    raise Skipped("not root")


def hangs(directory: Path) -> Result:
    """It does not end, nor does a process that it has started."""
    subprocess.Popen(SLEEP, start_new_session=True)
    time.sleep(600)
    return right(directory)


def leaves_a_process(directory: Path) -> Result:
    """All right, but for a process that is still there, in a session of its own, elsewhere."""
    subprocess.Popen(SLEEP, start_new_session=True, cwd="/")
    return right(directory)


def sample(run: Callable[[Path], Result], *, needs: tuple[str, ...] = (), limit: str = "") -> Cell:
    """A cell with the name of its function as its row."""
    return Cell(run.__name__ + " with a limit" * bool(limit), "sample", run, needs=needs, limit=limit)


CELLS: list[Cell] = [
    *map(sample, (right, loses, doubles, raises, exits, cannot, hangs, leaves_a_process)),
    sample(loses, limit="one may be lost"),
    sample(doubles, limit="one may be lost"),
    Cell("needs", "sample", right, needs=("no_such_module",)),
]
