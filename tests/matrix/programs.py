"""A cell that is one program: started, perhaps ended by a signal, and held against its ledger (see tagging.py)."""

from __future__ import annotations

import re
import shutil
import signal
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

from matrix.cells import Cell, Result, Skipped
from matrix.serving import Server, group_members, start
from support import HANG, log_lines, wait_for

#: Every program: its own code, with the app made ahead of it. A signal is sent when the file ``ready`` is there.
FRAME = """\
import atexit, concurrent.futures, gc, multiprocessing, os, signal, subprocess, sys, threading, time, warnings
from tagging import log, make_app, note

def ready():
    note("", "ready")

{first}
app, asynclog = make_app()
{code}
"""
#: Whether this is the first Python without a GIL, which some programs are too much for.
FREE_THREADED_313 = bool(sysconfig.get_config_var("Py_GIL_DISABLED")) and sys.version_info < (3, 14)
#: A traceback on stderr, for `Program.output`.
TRACEBACK = r"Traceback .*\n{}\n"


@dataclass(frozen=True)
class Program:
    """A program, how it is started, how it ends, and how it has to end."""

    #: As of `Cell`.
    row: str
    event: str
    code: str
    #: Records that it logs at least: a program that did nothing has shown nothing.
    records: int
    #: Code ahead of the app.
    first: str = ""
    #: Behind ``python``. The program is ``program.py``; ``CODE`` stands for its text.
    command: tuple[str, ...] = ("program.py",)
    stdin: str = ""
    #: Seconds that records wait to be written. As set here, only what the end of a process does counts.
    flush_interval: float = 60.0
    #: What it gets once it is ready.
    signal: signal.Signals | None = None
    #: As without the extension; by default that of the signal.
    status: int | None = None
    #: What it may write to stdout and stderr: a regular expression for all of it.
    output: str = ""
    #: As of `Cell`.
    quick: bool = False
    limit: str = ""
    #: Why this Python cannot run it, whatever it logs to.
    skip: str = ""

    @property
    def cell(self) -> Cell:
        """The cell that runs it."""
        return Cell(self.row, self.event, self.run, quick=self.quick, limit=self.limit)

    def run(self, directory: Path) -> Result:
        """Run it to its end, and to that of the processes that it has left behind (file ``detached``: their groups)."""
        if self.skip:
            raise Skipped(self.skip)
        shutil.copy(Path(__file__).with_name("tagging.py"), directory)
        code = FRAME.format(first=self.first, code=self.code)
        (directory / "program.py").write_text(code)
        (directory / "stdin").write_text(self.stdin)
        command = [sys.executable, *(code if word == "CODE" else word for word in self.command)]
        interval = str(self.flush_interval)
        with (
            open(directory / "stdin") as stdin,
            start(directory, command, stdin=stdin.fileno(), ASYNCLOG_FLUSH_INTERVAL=interval) as program,
        ):
            began = 0.0
            if self.signal is not None:
                program.wait_while_running((directory / "ready").exists, "it was ready")
                began = time.time()
                program.signal(self.signal)
            program.wait(time.monotonic())
            detached = [int(group) for group in lines_of(directory / "detached")]
            wait_for(lambda: not any(map(group_members, detached)), HANG / 4, "the end of those it has left behind")
            seconds = time.time() - (began or (directory / "ledger").stat().st_mtime)
        return self._result(program, seconds)

    def _result(self, program: Server, seconds: float) -> Result:
        expected = lines_of(program.directory / "ledger")
        status, output = program.process.returncode, program.output()
        problems = []
        wanted = -(self.signal or 0) if self.status is None else self.status
        if status != wanted:
            problems.append(f"exit status {status}, not {wanted}")
        if not re.fullmatch(self.output, output, re.DOTALL):
            problems.append(f"output: {output[-2000:]}")
        if len(expected) < self.records:
            problems.append(f"{len(expected)} records were logged, not {self.records}")
        return Result(expected, tags_of(program.directory / "tagged.log"), seconds, problems=problems)


def tags_of(path: Path) -> list[str]:
    """The tags in a log and its rotated files."""
    return re.findall(r"tag=([\w-]+)", "\n".join(log_lines(path)))


def lines_of(path: Path) -> list[str]:
    """The lines of a file that programs write by `tagging.note`; none when there is none."""
    return path.read_text().splitlines() if path.exists() else []
