"""The end of a process: every ordinary one drains, within its time, and says what it could not write."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support import HANG, log_lines, run_python, start_python

#: Put into a script: an app whose records are still in the queue when the script ends.
APP = """
import atexit, logging, os, sys, threading, time
from flask import Flask
from flask_asynclog import AsyncLog

logger = logging.getLogger("exit")
def log(count, name="record"):
    for number in range(count):
        logger.info("%s %d", name, number)
"""
START = """
asynclog = AsyncLog(Flask("exit"), format="%(message)s", flush_interval=60)
"""


def records(count: int, name: str = "record") -> list[str]:
    """The lines that ``log(count, name)`` of a script leaves."""
    return [f"{name} {number}" for number in range(count)]


ENDS = {
    "the end of the script": ("", 0, ""),
    "sys.exit": ("sys.exit(3)", 3, ""),
    "sys.exit with a text": ("sys.exit('no more')", 1, "no more\n"),
    "an exception": ("raise KeyError('k')", 1, "KeyError: 'k'\n"),
    "sys.exit in a function of another thread": (
        "thread = threading.Thread(target=lambda: (log(10, 'thread'), sys.exit(9))); thread.start()",
        0,
        "",
    ),
    "an error in an atexit callback": ("atexit.register(lambda: 1 // 0)", 0, "ZeroDivisionError"),
}


@pytest.mark.parametrize("end", ENDS)
def test_an_ordinary_end_drains(tmp_path: Path, end: str) -> None:
    """However a script ends, its records are in the file, and its exit status and its error are its own."""
    code, status, error = ENDS[end]
    result = run_python(f"{APP}{START}log(1000)\n{code}", cwd=tmp_path, check=False)
    assert result.returncode == status
    assert error in result.stderr
    assert "flask_asynclog" not in result.stderr
    expected = records(1000)
    if "thread" in end:
        expected += records(10, "thread")
    assert log_lines(tmp_path / "app.log") == expected


def test_a_thread_that_ends_after_the_main_thread(tmp_path: Path) -> None:
    """The interpreter waits for ordinary threads; what they log meanwhile is drained as well."""
    code = f"""{APP}{START}
def late():
    threading.main_thread().join()
    log(500, "late")
log(500)
threading.Thread(target=late).start()
"""
    assert run_python(code, cwd=tmp_path).stderr == ""
    assert log_lines(tmp_path / "app.log") == records(500) + records(500, "late")


def test_records_of_atexit_callbacks(tmp_path: Path) -> None:
    """Callbacks registered before and after `AsyncLog`, which run after and before its drain, log as ever."""
    code = f"""{APP}
atexit.register(log, 10, "registered before")
{START}
atexit.register(log, 10, "registered after")
log(10)
atexit.register(log, 10, "registered last")
"""
    assert run_python(code, cwd=tmp_path).stderr == ""
    assert log_lines(tmp_path / "app.log") == [
        *records(10),
        *records(10, "registered last"),
        *records(10, "registered after"),
        *records(10, "registered before"),
    ]


@pytest.mark.parametrize("logged_before", [True, False], ids=["after others", "as the first"])
def test_records_of_finalizers(tmp_path: Path, logged_before: bool) -> None:
    """A ``__del__`` that runs when the interpreter ends logs like any other code."""
    code = f"""{APP}{START}
class Resource:
    def __del__(self, logger=logger):
        logger.info("resource freed")

resource = Resource()
cycle = Resource()
cycle.itself = cycle
{"log(10)" if logged_before else ""}
"""
    result = run_python(code, cwd=tmp_path)
    assert result.stderr == ""
    assert log_lines(tmp_path / "app.log") == [*records(10 if logged_before else 0), *2 * ["resource freed"]]


ON_AND_ON = """
def on_and_on():
    number = 0
    while True:
        logger.info("%d", number)
        number += 1
        PAUSE

threading.Thread(target=on_and_on, daemon=True).start()
time.sleep(0.3)
logger.warning("main ends")
"""


def test_a_thread_that_logs_at_exit(tmp_path: Path) -> None:
    """A daemon thread that logs now and then until the interpreter stops it leaves no gap in the log."""
    run_python(APP + START + ON_AND_ON.replace("PAUSE", "time.sleep(0.0005)"), cwd=tmp_path)
    lines = log_lines(tmp_path / "app.log")
    numbers = [int(line) for line in lines if line != "main ends"]
    assert numbers == list(range(len(numbers)))
    assert lines.count("main ends") == 1


def test_a_thread_that_logs_without_pause_at_exit(tmp_path: Path) -> None:
    """A daemon thread that logs faster than one can drain: the end comes in time, and what is missing was said."""
    start = START.replace(")\n", ", shutdown_timeout=1, queue_size=100_000_000)\n")
    begin = time.monotonic()
    result = run_python(APP + start + ON_AND_ON.replace("PAUSE", "pass"), cwd=tmp_path)
    assert time.monotonic() - begin < HANG / 2
    lines = log_lines(tmp_path / "app.log")
    numbers = [int(line) for line in lines if line != "main ends"]
    missing = {*range(max(numbers)), "main ends"} - {*numbers, *lines}
    said = re.findall(r"flask_asynclog\[\d+\]: (\d+) records were not written", result.stderr)
    assert len(result.stderr.splitlines()) == len(said) <= 1
    assert len(missing) <= sum(map(int, said))
    assert numbers == sorted(numbers)
    assert len(set(lines)) == len(lines)


def test_a_sink_that_is_broken_at_exit(tmp_path: Path) -> None:
    """With the lock in other hands the end comes after ``shutdown_timeout``, and stderr tells how many were lost."""
    code = f"""{APP}
asynclog = AsyncLog(Flask("exit"), format="%(message)s", shutdown_timeout=1)
log(10)
assert asynclog.flush(60)
print("ready", flush=True)
sys.stdin.readline()
log(1234, "lost")
print(time.monotonic(), flush=True)
"""
    process = start_python(code, cwd=tmp_path)
    try:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        with open(tmp_path / ".__app.lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            process.stdin.write("\n")
            process.stdin.flush()
            logged_at = float(process.stdout.readline())
            process.wait(HANG)
            taken = time.monotonic() - logged_at
        errors = process.communicate()[1]
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert taken < HANG / 4
    assert len(re.findall(r"flask_asynclog\[\d+\]: 1234 records were not written within 1.0 s, ", errors)) == 1, errors
    assert log_lines(tmp_path / "app.log") == records(10)


def test_the_end_waits_for_a_sink_that_heals(tmp_path: Path) -> None:
    """Within ``shutdown_timeout`` the drain goes on trying: nothing is lost if the lock comes free in time."""
    code = f"""{APP}
asynclog = AsyncLog(Flask("exit"), format="%(message)s", shutdown_timeout=60, lock_timeout=0.05)
print("ready", flush=True)
sys.stdin.readline()
log(1000)
atexit.register(lambda: print("ends", flush=True))  # runs before the drain
"""
    process = start_python(code, cwd=tmp_path)
    try:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        with open(tmp_path / ".__app.lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "ends\n"
            assert "does not take records" in process.stderr.readline()
        errors = process.communicate(timeout=HANG)[1]
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert "not written" not in errors
    assert log_lines(tmp_path / "app.log") == records(1000)


def test_ctrl_c(tmp_path: Path) -> None:
    """Ctrl-C that nobody handles drains; the exit status tells of the signal all the same."""
    code = f"""{APP}{START}
log(1000)
print("ready", flush=True)
while True:
    time.sleep(60)
"""
    process = start_python(code, cwd=tmp_path)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=HANG)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGINT
    assert log_lines(tmp_path / "app.log") == records(1000)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT, signal.SIGTERM])
def test_signals_in_the_middle_of_the_drain(tmp_path: Path, number: signal.Signals) -> None:
    """A handler that raises, Python's own or as gunicorn's, cuts nothing: the time to drain is bounded as it is."""
    code = f"""{APP}
import signal
asynclog = AsyncLog(Flask("exit"), format="%(message)s", shutdown_timeout=60, lock_timeout=0.05)
signal.signal(signal.SIGQUIT, lambda *_: sys.exit(0))
print("ready", flush=True)
sys.stdin.readline()
log(1000)
atexit.register(lambda: print("ends", flush=True))  # runs before the drain
"""
    process = start_python(code, cwd=tmp_path)
    try:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        with open(tmp_path / ".__app.lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            process.stdin.write("\n")
            process.stdin.flush()
            assert "does not take records" in process.stderr.readline()
            assert process.stdout.readline() == "ends\n"
            time.sleep(0.2)  # from there to the drain is not to be seen; sooner, the signal is one of the script's
            for _ in range(3):
                process.send_signal(number)
                time.sleep(0.05)
        errors = process.communicate(timeout=HANG)[1]
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert log_lines(tmp_path / "app.log") == records(1000)


def test_sigterm_that_the_app_turns_into_an_exit(tmp_path: Path) -> None:
    """A handler that raises SystemExit, as servers install it, makes an ordinary end, also in a logging call."""
    code = f"""{APP}{START}
import signal
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
log(1000)
print("ready", flush=True)
while True:
    logger.debug("below the level")
"""
    process = start_python(code, cwd=tmp_path)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=HANG)[1]
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 7
    assert errors == ""
    assert log_lines(tmp_path / "app.log") == records(1000)


STRICT = {"PYTHONDEVMODE": "1", "PYTHONWARNINGS": "error"}


@pytest.mark.parametrize(
    "code",
    [
        f"{START}log(1000)",
        f"{START}log(1000)\nasynclog.stop()\nlog(10)",
        f"{START}log(1000)\nasynclog.close()",
        f"{START}",
        f"atexit.register(log, 10, 'before')\n{START}log(10)",
        f"{START}asynclog.init_app(Flask('other'), filename='other.log', loggers=['other'])\nlog(10)",
    ],
    ids=["records", "stopped and again", "closed", "no records", "late records", "two files"],
)
def test_nothing_is_left_open(tmp_path: Path, code: str) -> None:
    """In development mode, with warnings as errors, a process ends without a word: no file is left open."""
    result = run_python(APP + code, cwd=tmp_path, env={**os.environ, **STRICT})
    assert result.stderr == ""
    assert (tmp_path / "app.log").exists()


def test_os_exit_loses_what_is_in_memory(tmp_path: Path) -> None:
    """``os._exit`` runs nothing: what a `flush` before it has written is there, the rest is not."""
    code = f"{APP}{START}log(10)\nassert asynclog.flush(60)\nlog(10, 'lost')\nos._exit(0)"
    run_python(code, cwd=tmp_path)
    assert log_lines(tmp_path / "app.log") == records(10)


def test_stderr_is_closed_at_exit(tmp_path: Path) -> None:
    """A process without stderr ends as any other, drained."""
    process = start_python(f"{APP}{START}log(1000)\nsys.stderr.close()", cwd=tmp_path, stderr=subprocess.DEVNULL)
    process.communicate(timeout=HANG)
    assert process.returncode == 0
    assert log_lines(tmp_path / "app.log") == records(1000)
