"""What a record costs, counted in things that no machine changes: calls, blocks of memory, waits, system calls.

A bound here is what was counted when it was set, with a little room; more means that something came into the fast path.
"""

from __future__ import annotations

import fcntl
import gc
import logging
import os
import resource
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from flask import Flask

import flask_asynclog
from flask_asynclog import AsyncLog
from flask_asynclog.rotating import BatchRotatingFileHandler
from support import HANG, log_lines, profiled

MakeApp = Callable[..., tuple[Flask, AsyncLog]]

PACKAGE = str(Path(flask_asynclog.__file__).parent)
#: The longest flush interval there is: no test waits for it.
NEVER = 60.0


Quiet = Callable[[], tuple[Flask, AsyncLog]]


@pytest.fixture
def quiet(make_alone: MakeApp) -> Quiet:
    """Make an app whose listener gathers for ever, in the body of a test."""

    def make() -> tuple[Flask, AsyncLog]:
        app, asynclog = make_alone(flush_interval=NEVER)
        app.add_url_rule("/<name>", "view", lambda name: name)
        app.logger.info("first")  # what comes before the thread runs is written at once, however late it starts
        assert asynclog.flush(HANG)
        return app, asynclog

    return make


def calls_of(function: Callable[[], object]) -> Counter[str]:
    """Functions of the package that are called on this thread while ``function`` runs."""
    called: Counter[str] = Counter()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            called[frame.f_code.co_name] += 1

    function()  # once before: the first record starts the thread
    with profiled(note):
        function()
    return called


def test_an_ordinary_record_is_one_call(quiet: Quiet) -> None:
    """Of our functions on the caller's thread: the handler's, which calls no other."""
    app, _ = quiet()
    assert calls_of(lambda: app.logger.info("%s %d", "x", 1)) == {"handle": 1}


def test_a_request_is_a_dozen_calls(quiet: Quiet) -> None:
    """With both its records and the request id; and one to see that Flask need not be called."""
    app, _ = quiet()
    client = app.test_client()
    called = calls_of(lambda: client.get("/x"))
    assert sum(called.values()) <= 13, called
    assert called["accept"] == 2


def instructions_of(function: Callable[[], object]) -> Counter[str]:
    """Instructions of the interpreter that the package's functions take on this thread while ``function`` runs."""
    counted: Counter[str] = Counter()

    def note(frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            counted[frame.f_code.co_name] += 1
        return note

    for _ in range(20):  # Python writes the code of what is called often anew
        function()
    before = sys.gettrace()
    sys.settrace(note)
    try:
        function()
    finally:
        sys.settrace(before)
    return counted


@pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="3.12 counts instructions only where it traced before")
def test_a_request_is_some_hundred_instructions(quiet: Quiet) -> None:
    """Most of what both records cost, where nothing has to be decided."""
    app, _ = quiet()
    client = app.test_client()
    counted = instructions_of(lambda: client.get("/x"))
    assert 300 < sum(counted.values()) <= 680, counted


@pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="3.12 counts instructions only where it traced before")
def test_a_logging_call_is_some_hundred_instructions(quiet: Quiet) -> None:
    """Most of what it costs its caller."""
    app, _ = quiet()
    counted = instructions_of(lambda: app.logger.info("%s of %s", "x", "y"))
    assert 80 < sum(counted.values()) <= 140, counted


def blocks_of(function: Callable[[], object], count: int) -> float:
    """Blocks of memory that each call leaves behind."""
    for _ in range(200):
        function()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(count):
        function()
    gc.collect()
    return (sys.getallocatedblocks() - before) / count


@pytest.mark.skipif(not hasattr(sys, "getallocatedblocks") or sys.getallocatedblocks() == 0, reason="not counted here")
def test_a_waiting_record_is_a_few_blocks(quiet: Quiet) -> None:
    """What its line shows, and the values of that which were made for it."""
    app, asynclog = quiet()
    blocks = blocks_of(lambda: app.logger.info("%s", "x"), 2000)
    assert asynclog.stats().pending >= 2000
    assert 1 < blocks < 7, blocks


@pytest.mark.skipif(not hasattr(sys, "getallocatedblocks") or sys.getallocatedblocks() == 0, reason="not counted here")
def test_a_waiting_request_is_a_few_blocks(quiet: Quiet) -> None:
    """Both records: one exchange, its response, and the texts that they share; nothing of the server's."""
    app, asynclog = quiet()
    client = app.test_client()
    blocks = blocks_of(lambda: client.get("/x"), 1000)
    assert asynclog.stats().pending >= 2000
    assert 2 < blocks < 19, blocks


def test_requests_that_wait_are_few_objects(quiet: Quiet) -> None:
    """To Python's garbage collector, while the disk stalls: when there are many more, it holds up all threads."""
    app, asynclog = quiet()
    app.extensions["asynclog"].pipeline.queue.writing = True
    client = app.test_client()
    kept: list[int] = []
    for count in (10, 1000, 2000):
        for _ in range(count):
            client.get("/x")
        gc.collect()
        kept.append(len(gc.get_objects()))
    assert asynclog.stats().pending >= 6000
    assert 500 < kept[1] - kept[0] < 3000, kept
    assert kept[2] - kept[1] < 100, kept


def test_logging_waits_for_nothing(quiet: Quiet) -> None:
    """20,000 records and 500 requests: the caller's thread gives up the processor a handful of times."""
    app, asynclog = quiet()
    client = app.test_client()
    client.get("/x")
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    for number in range(20_000):
        app.logger.info("%d", number)
    for _ in range(500):
        client.get("/x")
    waits = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before
    assert asynclog.stats().dropped == 0
    assert waits < 100, waits


def test_a_batch_is_one_write_under_two_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many records: the lock file and the log are locked and unlocked once, and one write."""
    handler = BatchRotatingFileHandler("batch.log")
    records = [logging.makeLogRecord({"name": "x", "levelname": "INFO", "msg": str(number)}) for number in range(256)]
    handler.emit_batch(records)
    done: Counter[str] = Counter()

    def counted(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            done[name] += 1
            return original(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for module, name in [*((os, name) for name in ("write", "open", "fstat", "stat", "replace")), (fcntl, "flock")]:
            patch.setattr(module, name, counted(name, getattr(module, name)))
        handler.emit_batch(records)
    handler.close()
    assert done["write"] == 1
    assert done["open"] == done["replace"] == 0
    assert done["flock"] <= 6, done  # two of them by concurrent-log-handler, on a lock that is held already
    assert done["stat"] + done["fstat"] <= 12, done
    assert len(log_lines(Path("batch.log"))) == 512


STRACED = """
import logging, os
from flask import Flask
from flask_asynclog import AsyncLog
app = Flask("straced")
asynclog = AsyncLog(app, flush_interval=60)
logger = logging.getLogger("straced")
logger.info("first")
assert asynclog.flush(60)
for number in range(2560):
    logger.info("%d", number)
assert asynclog.stop(60)
assert asynclog.stats().written == 2561
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_system_calls_of_ten_batches(tmp_path: Path) -> None:
    """Counted by the kernel: one write of the log for 256 records, and no system call of ours for a record."""
    trace = tmp_path / "trace"
    command = [
        "strace",
        "-f",
        "-s",
        "80",
        "-e",
        "trace=write,flock,futex",
        "-o",
        str(trace),
        sys.executable,
        "-c",
        STRACED,
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=HANG, check=False)
    if done.returncode and "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    calls = Counter(line.split("(")[0].split()[-1] for line in trace.read_text().splitlines() if "(" in line)
    lines = trace.read_text().splitlines()
    writes = [line for line in lines if " write(" in line and " - straced - INFO - " in line]
    assert 10 <= len(writes) <= 15, len(writes)
    assert calls["flock"] <= 8 * 16, calls
    assert calls["futex"] < 500, calls
