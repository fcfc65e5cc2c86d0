"""gunicorn started by root with workers of another user: its master must not take the log away from them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

from matrix.cells import Cell, Result, Skipped
from matrix.gunicorn_cells import ALL, Event, end_by, hang_up, logs_at_import
from matrix.gunicorn_setup import Gunicorn
from support import is_root

#: nobody, nogroup.
USER = GROUP = 65534
#: What a worker without root's rights has to be able to do before anything is told about the log.
PROBE = """
import os, pathlib
import flask, flask_asynclog, gunicorn.app.wsgiapp, multiprocessing
pathlib.Path("probe").resolve().touch()
os.remove("probe")
"""


def as_user(event: Event, gunicorn: Gunicorn, directory: Path) -> Result:
    """The master is root's, workers and directory are the user's."""
    if not is_root():
        raise Skipped("not root")
    os.chown(directory, USER, GROUP)
    directory.chmod(0o755)
    if complaint := cannot_use(directory):
        raise Skipped(f"nobody cannot use this interpreter here: {complaint}")
    result = event(gunicorn, directory)
    owners = {file.name: file.stat().st_uid for file in directory.glob("booted-*")}
    result.problems += [f"{name} is of user {owner}" for name, owner in owners.items() if owner != USER]
    return result


def cannot_use(directory: Path) -> str:
    """Why the user cannot run this interpreter, or use the directory; empty if that works."""
    try:
        probe = subprocess.run(
            [sys.executable, "-c", PROBE], check=False, cwd=directory, user=USER, group=GROUP, extra_groups=[],
            capture_output=True, text=True,
        )  # fmt: skip
    except OSError as error:
        return str(error)
    return "" if probe.returncode == 0 else probe.stderr.strip().splitlines()[-1]


ROWS = [
    Gunicorn(each.worker, each.preload, options=("--user", str(USER), "--group", str(GROUP)), named=" --user nobody")
    for each in ALL
]
EVENTS: dict[str, tuple[Event, bool]] = {
    "SIGTERM": (partial(end_by, signal.SIGTERM), False),
    "SIGHUP 3 times under traffic": (hang_up, False),
    "logs at import, SIGTERM": (logs_at_import, True),
}

CELLS: list[Cell] = [
    Cell(gunicorn.row, event, partial(as_user, happen, gunicorn), needs=gunicorn.needs)
    for event, (happen, only_preloaded) in EVENTS.items()
    for gunicorn in ROWS
    if gunicorn.preload or not only_preloaded
]
