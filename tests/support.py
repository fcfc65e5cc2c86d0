"""What several test modules share: real processes, log files read back, waiting with a deadline."""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

#: Longest that anything may take here: far above what a slow machine needs. Only a hang reaches it.
HANG = 120.0


def wait_for(condition: Callable[[], object], timeout: float = HANG, what: str = "the condition") -> object:
    """Wait until ``condition()`` is true, and return what it returned; fail at the deadline."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {timeout} s")
        time.sleep(0.01)


def start_python(code: str, *args: object, cwd: Path, **popen: object) -> subprocess.Popen[str]:
    """Start ``code`` in a new interpreter and process group, with pipes for stdin, stdout and stderr."""
    options: dict[str, object] = {
        "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": cwd,
        "start_new_session": True,
    }  # fmt: skip
    options.update(popen)
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(command, **options)  # type: ignore[call-overload]


def run_python(
    code: str, *args: object, cwd: Path, check: bool = True, **popen: object
) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a new interpreter to its end; fails on a hang, and on an exit status that is not 0."""
    process = start_python(code, *args, cwd=cwd, **popen)
    try:
        out, err = process.communicate(timeout=HANG)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its children have the pipes as well
        out, err = process.communicate()
        raise AssertionError(f"hung; stdout:\n{out}\nstderr:\n{err}") from None
    if check:
        assert process.returncode == 0, f"exit status {process.returncode}; stdout:\n{out}\nstderr:\n{err}"
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run_threads(*targets: Callable[[], object]) -> None:
    """Run every target on a thread of its own, all at once, to the end; raises what one of them raised."""
    together = threading.Barrier(len(targets))
    errors: list[BaseException] = []

    def run(target: Callable[[], object]) -> None:
        together.wait(HANG)
        try:
            target()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(target,), daemon=True) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if errors:
        raise errors[0]


def log_files(path: Path) -> list[Path]:
    """The log and its rotated files, the oldest first."""
    rotated = [Path(name) for name in glob.glob(glob.escape(str(path)) + ".*")]
    rotated.sort(key=lambda file: -int(file.suffix[1:]))
    return [*rotated, path] if path.exists() else rotated


def log_lines(path: Path) -> list[str]:
    """All lines of the log and its rotated files, the oldest first; fails on a torn end of a file."""
    lines: list[str] = []
    for file in log_files(path):
        data = file.read_bytes()
        assert not data or data.endswith(b"\n"), f"{file} ends in a torn line: {data[-80:]!r}"
        lines += data.decode("utf-8").splitlines()
    return lines


@contextlib.contextmanager
def profiled(note: Callable[[FrameType, str, Any], object]) -> Iterator[None]:
    """Have the interpreter tell ``note`` of each call on this thread, as of `sys.setprofile`."""
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(before)


def lines_so_far(path: Path) -> list[str]:
    """The complete lines of a log that processes still write to; none when they have just moved its files."""

    def files() -> list[tuple[Path, int]]:
        return [(file, file.stat().st_ino) for file in log_files(path)]

    try:
        before = files()
        data = b"".join([file.read_bytes() for file, _ in before])
        moved = files() != before
    except FileNotFoundError:  # in the middle of a rotation
        moved = True
    return [] if moved else data.decode("utf-8", "replace").split("\n")[:-1]


def assert_conserved(stats: object, *, pending: int = 0) -> None:
    """Guarantee 1, with nothing left over: every accepted record has one known outcome."""
    get = stats.get if isinstance(stats, dict) else lambda name: getattr(stats, name)
    outcome = {name: get(name) for name in ("accepted", "written", "dropped", "failed", "pending")}
    assert outcome["pending"] == pending, outcome
    assert outcome["accepted"] == outcome["written"] + outcome["dropped"] + outcome["failed"] + pending, outcome


def read_stats(text: str) -> dict[str, int]:
    """The statistics that a script printed as a line ``STATS {json}``."""
    lines = [line for line in text.splitlines() if line.startswith("STATS ")]
    assert lines, f"no STATS line in {text!r}"
    stats: dict[str, int] = json.loads(lines[-1].removeprefix("STATS "))
    return stats


#: Put into a script: prints the statistics for `read_stats`.
PRINT_STATS = """
def print_stats(stats):
    import dataclasses, json
    print("STATS", json.dumps(dataclasses.asdict(stats)), flush=True)
"""


def open_fds() -> set[str]:
    """What the file descriptors of this process lead to, as far as they are files with a name."""
    names: set[str] = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            names.add(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            continue
    return names


def skip_without(module: str) -> None:
    """Skip the test if ``module`` is not installed. It is not imported: what it does to this process would stay."""
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # of its package
        found = None
    if found is None:
        pytest.skip(f"{module} is not installed")


def is_root() -> bool:
    """Whether the tests run with root's rights, which permissions do not bind."""
    return os.geteuid() == 0
