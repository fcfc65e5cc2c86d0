"""Threads and signals of the operating system: by themselves, and below gevent and eventlet in real processes."""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from flask_asynclog.native import NativeThread, Signal, poll
from support import HANG, PRINT_STATS, assert_conserved, log_lines, read_stats, run_python, run_threads, wait_for


def test_a_signal_set_before_the_wait() -> None:
    """It is kept for whoever waits next, once however often it was set."""
    one = Signal()
    one.set()
    one.set()
    assert one.wait(HANG)
    assert not one.wait(0)


def test_a_signal_that_nobody_sets() -> None:
    """The wait ends after its time, and not before; a negative time is none."""
    began = time.monotonic()
    assert not Signal().wait(0.1)
    assert time.monotonic() - began >= 0.09
    assert not Signal().wait(-1)


def test_a_signal_wakes_another_thread() -> None:
    """One thread waits without limit, another one sets."""
    there, back = Signal(), Signal()

    def answer() -> None:
        assert there.wait()
        back.set()

    def ask() -> None:
        there.set()
        assert back.wait_as_caller(HANG)

    run_threads(answer, ask)


def test_a_signal_set_by_a_signal_handler() -> None:
    """A handler sets it in the middle of ``set`` and ``wait`` of the same thread: no deadlock, nothing raised."""
    one, handled = Signal(), []
    previous = signal.signal(signal.SIGALRM, lambda *_: (handled.append(1), one.set()))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
        deadline = time.monotonic() + HANG
        while len(handled) < 500:
            one.set()
            assert one.wait(HANG)
            assert time.monotonic() < deadline
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def test_poll() -> None:
    """True as soon as the condition holds, False when the time is over."""
    answers = iter([False, False, True])
    assert poll(lambda: next(answers), None)
    assert not poll(lambda: False, 0.01)
    assert poll(lambda: True, 0)


def test_a_native_thread() -> None:
    """It is alive from its start to its end, has a name, and any number of threads may wait for it."""
    gate = threading.Event()
    seen: list[tuple[str, NativeThread]] = []

    def work(this: NativeThread) -> None:
        seen.append((threading.current_thread().name, this))
        assert gate.wait(HANG)

    thread = NativeThread(work, name="native")
    thread.join(0)  # not started: nothing to wait for
    assert not thread.is_alive()
    thread.start()
    assert thread.is_alive()
    thread.join(0.01)
    assert thread.is_alive()
    run_threads(lambda: thread.join(HANG), lambda: thread.join(HANG), gate.set)
    assert not thread.is_alive()
    thread.join(HANG)
    assert seen == [("native", thread)]


def test_an_exception_out_of_a_native_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is for `threading.excepthook`; the thread has ended all the same."""
    caught: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: caught.append(args.exc_type))
    thread = NativeThread(lambda _: 1 // 0, name="native")  # type: ignore[arg-type,return-value]
    thread.start()
    thread.join(HANG)
    wait_for(lambda: not thread.is_alive())
    assert caught == [ZeroDivisionError]


# Greenlets.

LIBRARIES = {
    "gevent": """
def patch():
    import gevent.monkey
    gevent.monkey.patch_all()
def spawn(function, *args):
    import gevent
    return gevent.spawn(function, *args)
def join(greenlets):
    import gevent
    gevent.joinall(greenlets, raise_error=True)
""",
    "eventlet": """
import warnings
warnings.simplefilter("ignore")
def patch():
    import eventlet
    eventlet.monkey_patch()
def spawn(function, *args):
    import eventlet
    return eventlet.spawn(function, *args)
def join(greenlets):
    for greenlet in greenlets:
        greenlet.wait()
""",
}
#: The sink notes its thread, and sleeps for a second, natively, at a record that asks for it.
GREEN = """
import logging, os, sys, time, threading
native_sleep, native_id = time.sleep, threading.get_native_id
AT_FIRST
from flask import Flask
from flask_asynclog import AsyncLog
app = Flask("green")
asynclog = AsyncLog(app, format="%(message)s", flush_interval=0.001)
logger = logging.getLogger("green")
writers = set()

def slow(record):
    writers.add(native_id())
    if record.getMessage() == "stall":
        native_sleep(1)
    return True

app.extensions["asynclog"].pipeline.sink.addFilter(slow)
AFTERWARDS
ticks, done = [], []

def tick():
    while not done:
        ticks.append(time.monotonic())
        time.sleep(0.005)

ticker = spawn(tick)

def work():
    try:
        for wait in (asynclog.flush, asynclog.stop):
            time.sleep(0.02)
            logger.info("stall")
            before = len(ticks)
            assert wait(60)
            print("TICKS", len(ticks) - before, flush=True)
    finally:
        done.append(1)

def log(name):
    for number in range(200):
        logger.info("%s %d", name, number)
        if number % 20 == 0:
            time.sleep(0)

join([spawn(work)])
join([ticker, *[spawn(log, name) for name in "abcdefgh"]])
assert asynclog.flush(60)
assert native_id() not in writers, "the sink runs on the hub's thread"
stats = asynclog.stats()
assert stats.inline == 0
print_stats(stats)
logger.info("ends")
"""
WHEN = {
    "before the import": ("patch()", ""),
    "after the import": ("", "patch()"),
    "after the first record": ("", 'logger.info("first"); assert asynclog.flush(60); patch()'),
    "after a fork": (
        "",
        'logger.info("parent"); pid = os.fork()\n'
        "if pid: sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
        "patch()",
    ),
}


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("library", LIBRARIES)
def test_greenlets(tmp_path: Path, library: str, when: str) -> None:
    """Whenever it was patched: a slow sink stalls no greenlet, nor does who waits for it; nothing is lost or said."""
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    first, then = WHEN[when]
    code = PRINT_STATS + LIBRARIES[library] + GREEN.replace("AT_FIRST", first).replace("AFTERWARDS", then)
    result = run_python(code, cwd=tmp_path, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    if library == "gevent" or first:  # eventlet has words of its own for late patching
        assert result.stderr == ""
    assert "flask_asynclog" not in result.stderr
    ticks = [int(line.split()[1]) for line in result.stdout.splitlines() if line.startswith("TICKS")]
    assert len(ticks) == 2
    assert min(ticks) >= 20, "200 would fit into the second; a hub that is stalled has one or two"
    assert_conserved(read_stats(result.stdout))
    lines = log_lines(tmp_path / "app.log")
    counts = Counter(line.split()[0] for line in lines)
    assert counts["stall"] == 2
    assert counts["ends"] == 1
    for name in "abcdefgh":
        assert [line for line in lines if line.startswith(name + " ")] == [f"{name} {number}" for number in range(200)]
