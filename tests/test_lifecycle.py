"""When there must not be a thread, SIGTERM, a thread that dies, forks: each in a process of its own."""

from __future__ import annotations

import fcntl
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from support import HANG, PRINT_STATS, assert_conserved, log_lines, read_stats, run_python, start_python

#: Put into a script. Records wait for a minute, unless something has them written.
APP = (
    PRINT_STATS
    + """
import atexit, ctypes, logging, os, signal, sys, threading, time
from flask import Flask
from flask_asynclog import AsyncLog

logger = logging.getLogger("life")

def log(count, name="record"):
    for number in range(count):
        logger.info("%s %d", name, number)

def make(**options):
    return AsyncLog(Flask("life"), **{"format": "%(message)s", "flush_interval": 60, "level": "DEBUG", **options})

def threads():
    return [thread for thread in threading.enumerate() if thread.name == "flask_asynclog"]

def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
"""
)
INLINE = "records are written by the thread that logs them: "


def records(count: int, name: str = "record") -> list[str]:
    """The lines that ``log(count, name)`` of a script leaves."""
    return [f"{name} {number}" for number in range(count)]


def lines_and_reasons(path: Path) -> tuple[list[str], list[str]]:
    """The lines of a log but for those about writing inline, and the reasons that those give."""
    lines = log_lines(path)
    reasons = [line.removeprefix(INLINE) for line in lines if line.startswith(INLINE)]
    return [line for line in lines if not line.startswith(INLINE)], reasons


# Written at once, by the thread that logs.

UWSGI = """
import types
sys.modules["uwsgi"] = types.ModuleType("uwsgi")
"""
NO_THREADS = """
start = threading.Thread.start
def refuse(thread):
    if thread.name == "flask_asynclog":
        raise RuntimeError("can't start new thread")
    start(thread)
threading.Thread.start = refuse
"""
INLINE_REASONS = {
    "the reloader": ("os.environ['WERKZEUG_RUN_MAIN'] = 'true'", "the development reloader kills its processes"),
    "uWSGI": (UWSGI, "uWSGI ends its processes without telling Python"),
    "no threads to be had": (NO_THREADS, "no thread can be started: can't start new thread"),
}


@pytest.mark.parametrize("where", INLINE_REASONS)
def test_written_inline(tmp_path: Path, where: str) -> None:
    """Where there must not be a thread each record is in the file when the call returns, counted; said once."""
    first, reason = INLINE_REASONS[where]
    code = f"""{APP}{first}
asynclog = make()
for number in range(100):
    logger.info("record %d", number)
    assert f"record {{number}}\\n" in open("app.log").read()
assert threads() == []
print_stats(asynclog.stats())
"""
    result = run_python(code, cwd=tmp_path)
    assert result.stderr == ""
    assert lines_and_reasons(tmp_path / "app.log") == (records(100), [reason])
    stats = read_stats(result.stdout)
    assert_conserved(stats)
    assert stats["inline"] == stats["written"] == 101  # the line about it, too


def test_threads_that_are_to_be_had_again(tmp_path: Path) -> None:
    """What is written inline for lack of threads goes to a thread as soon as one can be started."""
    code = f"""{APP}{NO_THREADS}
asynclog = make()
log(5, "inline")
threading.Thread.start = start
log(5, "thread")
assert len(threads()) == 1
assert asynclog.stop(60)
print_stats(asynclog.stats())
"""
    stats = read_stats(run_python(code, cwd=tmp_path).stdout)
    assert (stats["inline"], stats["written"]) == (6, 11)
    assert lines_and_reasons(tmp_path / "app.log")[0] == records(5, "inline") + records(5, "thread")


def test_records_after_the_drain_at_exit(tmp_path: Path) -> None:
    """Callbacks that run after ours at the interpreter's exit write inline, which is counted and said once."""
    code = f"""{APP}
atexit.register(lambda: print_stats(asynclog.stats()))
atexit.register(log, 10, "late")
asynclog = make()
log(10)
atexit.register(log, 10, "early")
"""
    result = run_python(code, cwd=tmp_path)
    assert result.stderr == ""
    lines, reasons = lines_and_reasons(tmp_path / "app.log")
    assert lines == records(10) + records(10, "early") + records(10, "late")
    assert reasons == ["the process is ending"]
    stats = read_stats(result.stdout)
    assert_conserved(stats)
    assert (stats["inline"], stats["written"]) == (11, 31)


def test_many_threads_write_inline(tmp_path: Path) -> None:
    """Whoever finds another thread writing leaves its record to that one: none is lost, none doubled."""
    code = f"""{APP}
os.environ["WERKZEUG_RUN_MAIN"] = "true"
sys.setswitchinterval(1e-5)
asynclog = make()
workers = [threading.Thread(target=log, args=(500, name)) for name in "abcdefgh"]
for worker in workers: worker.start()
for worker in workers: worker.join()
assert asynclog.flush(60)
print_stats(asynclog.stats())
"""
    result = run_python(code, cwd=tmp_path)
    lines, reasons = lines_and_reasons(tmp_path / "app.log")
    assert len(reasons) == 1
    assert len(lines) == 4000
    for name in "abcdefgh":
        assert [line for line in lines if line.startswith(name)] == records(500, name)
    stats = read_stats(result.stdout)
    assert_conserved(stats)
    assert stats["inline"] == stats["written"] == 4001


def test_a_stuck_sink_inline(tmp_path: Path) -> None:
    """The lock in other hands holds a caller up for a fraction of a second, and not every one; it all comes later."""
    code = f"""{APP}
from flask_asynclog.inline import INLINE_PATIENCE, INLINE_PAUSE
os.environ["WERKZEUG_RUN_MAIN"] = "true"
asynclog = make()
log(1, "before")
print("ready", flush=True)
sys.stdin.readline()
began = time.monotonic()
log(200)
took = time.monotonic() - began
assert took < 5, took  # 200 times the patience are 20 s
assert asynclog.stats().pending == 200, asynclog.stats()
print("stuck", flush=True)
sys.stdin.readline()
time.sleep(INLINE_PAUSE)  # what nobody tries sooner than
log(1, "after")
assert asynclog.flush(60)
print_stats(asynclog.stats())
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
            assert process.stdout.readline() == "stuck\n", process.communicate()
        out, errors = process.communicate("\n", timeout=HANG)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, errors
    assert lines_and_reasons(tmp_path / "app.log")[0] == records(1, "before") + records(200) + records(1, "after")
    stats = read_stats(out)
    assert_conserved(stats)
    assert stats["failed"] == 0


# SIGTERM.

#: Short sleeps: a signal that comes as a sleep begins, while other threads want the GIL, is seen by Python at its end.
READY = """
print("ready", flush=True)
while True:
    time.sleep(0.05)
"""
OURS = "from flask_asynclog.lifecycle import _on_sigterm as ours\n"


def terminated(code: str, directory: Path) -> tuple[int, str, str]:
    """Run ``code`` until it is ready, send SIGTERM; exit status and the rest of stdout and stderr."""
    process = start_python(code, cwd=directory)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=HANG)
    finally:
        process.kill()
        process.communicate()
    return process.returncode, out, errors


def test_sigterm_drains(tmp_path: Path) -> None:
    """SIGTERM that nobody handles, in a sleep: all is written, and the process has ended by SIGTERM."""
    assert terminated(f"{APP}asynclog = make()\nlog(1000)\n{READY}", tmp_path) == (-signal.SIGTERM, "", "")
    assert log_lines(tmp_path / "app.log") == records(1000)


def test_sigterm_while_threads_log(tmp_path: Path) -> None:
    """Threads that log at SIGTERM leave no gap in their lines, whichever is the last of them."""
    code = f"""{APP}asynclog = make()
def on_and_on(name):
    number = 0
    while True:
        logger.info("%s %d", name, number)
        number += 1
        time.sleep(0.001)
for name in "ab":
    threading.Thread(target=on_and_on, args=(name,), daemon=True).start()
log(1000)
{READY}"""
    assert terminated(code, tmp_path)[0] == -signal.SIGTERM
    lines = lines_and_reasons(tmp_path / "app.log")[0]
    for name in ("record", "a", "b"):
        mine = [line for line in lines if line.split()[0] == name]
        assert mine == records(len(mine), name)
    assert lines.count("record 999") == 1


def test_sigterm_of_a_handler_from_before(tmp_path: Path) -> None:
    """Another's handler is called once, in its turn, may log, and decides on the exit status."""
    code = f"""{APP}
def before(number, frame):
    print("called", number, flush=True)
    log(5, "handler")
    sys.exit(5)
signal.signal(signal.SIGTERM, before)
asynclog = make()
log(100)
{READY}"""
    assert terminated(code, tmp_path) == (5, "called 15\n", "")
    assert lines_and_reasons(tmp_path / "app.log")[0] == records(100) + records(5, "handler")


def test_sigterm_of_a_handler_that_ends_by_the_signal(tmp_path: Path) -> None:
    """A handler that restores the default and sends the signal again, as uvicorn's does, loses nothing."""
    code = f"""{APP}
def before(number, frame):
    log(5, "handler")
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
signal.signal(signal.SIGTERM, before)
asynclog = make()
log(100)
print("ready", flush=True)
while True:
    time.sleep(0.01)
"""
    code = code.replace('    log(5, "handler")\n', '    log(5, "handler")\n    wait_for(lambda: asynclog.flush(60))\n')
    assert terminated(code, tmp_path)[0] == -signal.SIGTERM
    assert lines_and_reasons(tmp_path / "app.log")[0] == records(100) + records(5, "handler")


def test_a_handler_that_ignores_sigterm(tmp_path: Path) -> None:
    """Inline until the time to end is over; then a thread again, and nothing has gone missing."""
    code = f"""{APP}
from flask_asynclog import lifecycle
lifecycle.ENDING_SECONDS = 1.0
calls = []
signal.signal(signal.SIGTERM, lambda *_: calls.append(1))
asynclog = make()
log(10, "before")
os.kill(os.getpid(), signal.SIGTERM)
wait_for(lambda: calls and not threads())
log(10, "meanwhile")
meanwhile = asynclog.stats().inline
time.sleep(lifecycle.ENDING_SECONDS)
log(10, "afterwards")
assert len(threads()) == 1
assert calls == [1]
assert asynclog.stop(60)
print("INLINE", meanwhile, asynclog.stats().inline)
print_stats(asynclog.stats())
"""
    result = run_python(code, cwd=tmp_path)
    assert result.stdout.startswith("INLINE 11 11\n")
    lines, reasons = lines_and_reasons(tmp_path / "app.log")
    assert lines == records(10, "before") + records(10, "meanwhile") + records(10, "afterwards")
    assert reasons == ["SIGTERM has come"]
    assert_conserved(read_stats(result.stdout))


def test_whose_handler_of_sigterm_is_in_place(tmp_path: Path) -> None:
    """Ours where the default was, until `close`; nowhere else, and never on top of what came later."""
    code = f"""{APP}{OURS}
current = lambda: signal.getsignal(signal.SIGTERM)
theirs = lambda *_: None

one = make(handle_sigterm=False)
assert current() is signal.SIG_DFL
one.close()

thread = threading.Thread(target=lambda: made.append(make()))
made = []
thread.start()
thread.join()
assert current() is signal.SIG_DFL  # not the main thread
made.pop().close()

signal.signal(signal.SIGTERM, signal.SIG_IGN)
one = make()
assert current() is signal.SIG_IGN
one.close()
assert current() is signal.SIG_IGN

signal.signal(signal.SIGTERM, signal.SIG_DFL)
one, two = make(), make(filename="two.log")
assert current() is ours
one.close()
assert current() is ours  # the other one needs it
two.close()
assert current() is signal.SIG_DFL

signal.signal(signal.SIGTERM, theirs)
one = make()
assert current() is ours
one.close()
assert current() is theirs

signal.signal(signal.SIGTERM, signal.SIG_DFL)
one = make()
signal.signal(signal.SIGTERM, theirs)
log(10)
assert current() is theirs
one.close()
assert current() is theirs
"""
    assert run_python(code, cwd=tmp_path).stderr == ""


@pytest.mark.parametrize("options", ["", "handle_sigterm=False"], ids=["ignored", "turned off"])
def test_sigterm_that_is_ignored_stays_so(tmp_path: Path, options: str) -> None:
    """A process that ignores SIGTERM goes on as if nothing had come, with its thread."""
    code = f"""{APP}
signal.signal(signal.SIGTERM, signal.SIG_IGN)
asynclog = make({options})
log(10)
os.kill(os.getpid(), signal.SIGTERM)
log(10, "after")
assert len(threads()) == 1
assert asynclog.stats().inline == 0
"""
    run_python(code, cwd=tmp_path)
    assert log_lines(tmp_path / "app.log") == records(10) + records(10, "after")


def test_sigterm_in_a_forked_child(tmp_path: Path) -> None:
    """A child ends by its own SIGTERM, drained; its parent goes on, with a thread."""
    code = f"""{APP}
asynclog = make()
log(10, "parent")
reader, writer = os.pipe()
pid = os.fork()
if pid == 0:
    log(10, "child")
    os.write(writer, b".")
    while True:
        time.sleep(3600)
os.read(reader, 1)
os.kill(pid, signal.SIGTERM)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
log(10, "on")
assert len(threads()) == 1
assert asynclog.stats().inline == 0
"""
    run_python(code, cwd=tmp_path)
    assert log_lines(tmp_path / "app.log") == records(10, "parent") + records(10, "child") + records(10, "on")


# A thread that dies.

KILL = """
def kill(how=SystemExit):
    thread, = threads()
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(how)) == 1
    return thread
"""


def test_a_thread_that_was_killed(tmp_path: Path) -> None:
    """Killed while it sleeps, twice: the next record starts another one; each time is counted and reported, once."""
    code = f"""{APP}{KILL}
asynclog = make(flush_interval=0.001)
for turn in range(3):
    logger.info("record %d", turn)
    assert asynclog.flush(60)
    if turn < 2:
        thread = kill()
        logger.info("wakes %d", turn)  # a thread that waits for a lock looks at nothing before it is woken
        wait_for(lambda: not thread.is_alive() or asynclog.stats().restarts > turn)
assert asynclog.stop(60)
print_stats(asynclog.stats())
"""
    result = run_python(code, cwd=tmp_path)
    lines = log_lines(tmp_path / "app.log")
    reports = [line for line in lines if "the listener thread died" in line]
    assert len(reports) == 2, lines
    assert [line for line in lines if line not in reports] == ["record 0", "wakes 0", "record 1", "wakes 1", "record 2"]
    assert result.stderr.count("the listener thread ended") == len(result.stderr.splitlines()) == 2
    stats = read_stats(result.stdout)
    assert_conserved(stats)
    assert stats["restarts"] == 2


# Forks.


def test_a_parent_that_leaves_right_after_a_fork(tmp_path: Path) -> None:
    """As a daemon is made: what the parent has logged is written before the fork, once, and the child starts empty."""
    code = f"""{APP}
asynclog = make()
log(200, "parent")
if os.fork():
    os._exit(0)
assert asynclog.stats().accepted == 0
assert threads() == []
log(200, "child")
"""
    run_python(code, cwd=tmp_path, env={**os.environ, "PYTHONWARNINGS": "error"})
    # The pipes are the child's as well: run_python has waited for both.
    assert log_lines(tmp_path / "app.log") == records(200, "parent") + records(200, "child")


def test_a_fork_with_a_live_thread_warns_of_nothing(tmp_path: Path) -> None:
    """The thread is gone when the process forks: no DeprecationWarning on 3.12 and later."""
    code = f"""{APP}
asynclog = make()
for turn in range(20):
    logger.info("parent %d", turn)
    assert len(threads()) == 1
    pid = os.fork()
    if pid == 0:
        os._exit(len(threads()))
    assert os.waitpid(pid, 0)[1] == 0
assert asynclog.stats().written == 20
"""
    result = run_python(code, cwd=tmp_path, env={**os.environ, "PYTHONWARNINGS": "error::DeprecationWarning"})
    assert result.stderr == ""
    assert log_lines(tmp_path / "app.log") == records(20, "parent")


def test_a_fork_beside_a_stuck_sink(tmp_path: Path) -> None:
    """A fork waits for a sink that is stuck about a second, not for ever; the parent writes it all later, once."""
    code = f"""{APP}
import fcntl
asynclog = make(flush_interval=0.001, lock_timeout=60)
logger.info("first")
assert asynclog.flush(60)
with open(".__app.lock", "a") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    log(10)
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        lock.close()
        os._exit(asynclog.stats().accepted)
    took = time.monotonic() - began
    assert took < 20, took  # below the lock's 60 s by far
    assert os.waitpid(pid, 0)[1] == 0
    log(10, "after")
assert asynclog.flush(60)
print_stats(asynclog.stats())
"""
    result = run_python(code, cwd=tmp_path)
    assert log_lines(tmp_path / "app.log") == ["first", *records(10), *records(10, "after")]
    assert_conserved(read_stats(result.stdout))


def test_a_fork_in_a_filter_behind_the_queue(tmp_path: Path) -> None:
    """Our own thread forks: it cannot wait for itself; parent and child go on, and nothing comes twice."""
    code = f"""{APP}
app = Flask("life")
asynclog = AsyncLog(app, format="%(message)s", flush_interval=0.001)
def forks(record):
    if record.getMessage() == "record 5":
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    return True
app.extensions["asynclog"].pipeline.sink.addFilter(forks)
log(10)
assert asynclog.flush(60)
print_stats(asynclog.stats())
"""
    result = run_python(code, cwd=tmp_path, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    assert log_lines(tmp_path / "app.log") == records(10)
    assert_conserved(read_stats(result.stdout))


def test_a_fork_that_python_was_not_told_of(tmp_path: Path) -> None:
    """As uWSGI forks: the child notices by its pid, logs by a thread of its own, and leaves the parent's to it.

    No thread runs at that moment: without Python's own hooks a child may inherit the GIL's locks as they were.
    """
    code = f"""{APP}
fork = ctypes.PyDLL(None).fork  # keeps the GIL; runs no hooks
app = Flask("life")
asynclog = AsyncLog(app, format="%(message)s", flush_interval=60)
pipeline = app.extensions["asynclog"].pipeline
pipeline.queue.wake = lambda: None
log(100, "parent")
assert threads() == [] and asynclog.stats().pending == 100
pipeline.queue.wake = pipeline.listener.wake
pid = fork()
if pid == 0:
    app.test_client().get("/")  # before anything else
    log(100, "child")
    good = asynclog.stop(60) and asynclog.stats().written == asynclog.stats().accepted == 102
    os._exit(0 if good else 1)
assert os.waitpid(pid, 0)[1] == 0
assert asynclog.stop(60)
print_stats(asynclog.stats())
"""
    result = run_python(code, cwd=tmp_path)
    lines = log_lines(tmp_path / "app.log")
    begin, end = [line for line in lines if line.startswith(("Request ", "Response "))]
    assert begin.startswith("Request GET http://localhost/ ")
    assert end.startswith("Response 404 NOT FOUND GET / ")
    assert Counter(lines) == Counter([*records(100, "parent"), begin, end, *records(100, "child")])
    stats = read_stats(result.stdout)
    assert_conserved(stats)
    assert stats["written"] == 100
