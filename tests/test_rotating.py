"""`BatchRotatingFileHandler` by itself: what a batch costs, how it is cut, when and how the file is rotated."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import logging.handlers
import os
import queue
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_asynclog import AsyncLog, ConfigError
from flask_asynclog.rotating import BATCH_BYTES, BatchRotatingFileHandler, LockTimeout
from support import is_root, log_files, log_lines, run_python, wait_for

LOG = Path("app.log")
LOCK = Path(".__app.lock")
HandlerMaker = Callable[..., BatchRotatingFileHandler]

#: Put before a script: a handler whose lines are the bare messages.
PRELUDE = """
import logging, os, signal, sys, threading, time
from flask_asynclog.rotating import BatchRotatingFileHandler, LockTimeout
def make(**options):
    handler = BatchRotatingFileHandler("app.log", **options)
    handler.setFormatter(logging.Formatter("%(message)s"))
    return handler
def record(message):
    return logging.makeLogRecord({"msg": message})
"""


def records(*messages: str) -> list[logging.LogRecord]:
    return [logging.makeLogRecord({"msg": message}) for message in messages]


def new_handler(path: str | os.PathLike[str] = LOG, **options: object) -> BatchRotatingFileHandler:
    handler = BatchRotatingFileHandler(path, **options)  # type: ignore[arg-type]
    handler.setFormatter(logging.Formatter("%(message)s"))
    return handler


def sizes(path: Path = LOG) -> list[int]:
    return [file.stat().st_size for file in log_files(path)]


@pytest.fixture
def make_handler() -> Iterator[HandlerMaker]:
    """Make handlers that write bare messages to app.log; closed at the end of the test."""
    made: list[BatchRotatingFileHandler] = []

    def make(path: str | os.PathLike[str] = LOG, **options: object) -> BatchRotatingFileHandler:
        made.append(new_handler(path, **options))
        return made[-1]

    yield make
    for handler in made:
        handler.close()


# What a batch costs.


def test_a_batch_is_one_lock_and_one_write(make_handler: HandlerMaker) -> None:
    """A hundred records take as many locks, writes and looks at the size as one record does: one."""
    handler = make_handler(max_bytes=100_000, backup_count=3)
    handler.emit_batch(records("opens log and lock"))
    calls: list[tuple[str, int]] = []
    real_write, real_flock = os.write, fcntl.flock

    def write(fd: int, data: bytes) -> int:
        calls.append(("write", len(data)))
        return real_write(fd, data)

    def flock(fd: int, operation: int) -> None:
        calls.append(("flock", operation))
        real_flock(fd, operation)

    should_rollover = handler.shouldRollover

    def look(record: logging.LogRecord) -> bool:
        calls.append(("look", 0))
        return should_rollover(record)

    with (
        patch.object(os, "write", write),
        patch.object(fcntl, "flock", flock),
        patch.object(handler, "shouldRollover", look),
    ):
        handler.emit_batch(records("one"))
        for_one = calls.copy()
        calls.clear()
        handler.emit_batch(records(*map(str, range(100))))
    assert [name for name, _ in calls] == [name for name, _ in for_one]
    written = sum(len(str(n)) + 1 for n in range(100))
    assert [call for call in calls if call[0] != "flock"] == [("look", 0), ("write", written)]
    assert log_lines(LOG) == ["opens log and lock", "one", *map(str, range(100))]


def _strace_works() -> bool:
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-o", os.devnull, "true"], check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not _strace_works(), reason="needs strace, and the right to trace")
def test_the_system_calls_of_a_batch_do_not_grow_with_its_records() -> None:
    """Seen from the kernel: the same calls for 1 and for 100 records, one write to the log, one unlock of the lock."""
    code = (
        PRELUDE
        + """
handler = make(max_bytes=100_000, backup_count=3)
handler.emit_batch([record("opens")])
for count in 1, 100, 0:
    os.write(2, b"MARK\\n")
    if count:
        handler.emit_batch([record("x" * 50)] * count)
"""
    )
    command = ["strace", "-y", "-o", "trace", sys.executable, "-c", code]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    parts: list[list[str]] = []
    for line in Path("trace").read_text().splitlines():
        if '"MARK' in line:
            parts.append([])
        elif parts and (".log" in line or ".lock" in line):
            parts[-1].append(line)
    for_one, for_hundred = parts[0], parts[1]

    def names(lines: list[str]) -> list[str]:
        return [line.partition("(")[0] for line in lines]

    assert names(for_one) == names(for_hundred)
    (write,) = [line for line in for_hundred if line.startswith("write(")]
    assert write.endswith(" = 5100")
    assert len([line for line in for_hundred if "LOCK_UN" in line and ".lock>" in line]) == 1
    assert not [name for name in names(for_hundred) if "rename" in name or "open" in name]


# How batches are cut.


def test_a_batch_larger_than_the_file_may_be_is_split_between_records(make_handler: HandlerMaker) -> None:
    """No file exceeds max_bytes, every line is whole, the order is kept."""
    handler = make_handler(max_bytes=100, backup_count=50)
    lines = [f"record {n:03d} " + "x" * 8 for n in range(100)]
    handler.emit_batch(records(*lines))
    assert log_lines(LOG) == lines
    assert sizes() == [100] * 20


def test_a_record_larger_than_the_file_may_be_has_a_file_of_its_own(make_handler: HandlerMaker) -> None:
    """It is neither cut nor dropped, and takes nobody's file over the limit."""
    handler = make_handler(max_bytes=100, backup_count=50)
    lines = ["small", "L" * 250, "small again"]
    handler.emit_batch(records(*lines))
    assert log_lines(LOG) == lines
    assert sizes() == [6, 251, 12]


def test_a_batch_of_megabytes_is_written_in_parts_of_one(make_handler: HandlerMaker) -> None:
    """So that it does not hold the lock for long; without rotation too."""
    handler = make_handler(max_bytes=0)
    written: list[int] = []
    real = os.write

    def write(fd: int, data: bytes) -> int:
        written.append(len(data))
        return real(fd, data)

    lines = [f"{n:04d}" + "x" * 999 for n in range(3000)]
    with patch.object(os, "write", write):
        handler.emit_batch(records(*lines))
    assert max(written) <= BATCH_BYTES
    assert len(written) == 3
    assert log_lines(LOG) == lines


def test_an_empty_batch_writes_nothing(make_handler: HandlerMaker) -> None:
    """Not even an empty line."""
    handler = make_handler()
    handler.emit_batch([])
    assert not LOG.exists()


@settings(deadline=None, max_examples=60, database=None)
@given(
    batches=st.lists(st.lists(st.text(alphabet="aé漢", max_size=40), min_size=1, max_size=8), max_size=12),
    max_bytes=st.integers(1, 120),
    existing=st.text(alphabet="ab", max_size=150),
)
def test_any_batches_arrive_in_order_in_files_within_the_limit(
    batches: list[list[str]], max_bytes: int, existing: str
) -> None:
    """Whatever the lengths: nothing lost, doubled or out of order; only a single larger record exceeds max_bytes."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "app.log")
        expected = [existing] if existing else []
        path.write_text("".join(line + "\n" for line in expected))
        handler = new_handler(path, max_bytes=max_bytes, backup_count=1000)
        try:
            for batch in batches:
                handler.emit_batch(records(*batch))
        finally:
            handler.close()
        assert log_lines(path) == expected + [line for batch in batches for line in batch]
        for file in log_files(path):
            data = file.read_bytes()
            assert len(data) <= max_bytes or data.count(b"\n") == 1, (file.name, data)


# When and how the file is rotated.


def test_rotated_files_are_numbered_and_the_oldest_goes(make_handler: HandlerMaker) -> None:
    """NAME.1 is the newest; no more than backup_count are kept."""
    handler = make_handler(max_bytes=10, backup_count=3)
    for n in range(6):
        handler.emit_batch(records(f"record {n}"))
    assert {file.name: file.read_text() for file in log_files(LOG)} == {
        "app.log.3": "record 2\n", "app.log.2": "record 3\n", "app.log.1": "record 4\n", "app.log": "record 5\n",
    }  # fmt: skip


def test_rotation_moves_files_no_further_than_the_first_gap(make_handler: HandlerMaker) -> None:
    """A rotated file that somebody took away makes room: the older ones stay where they are."""
    handler = make_handler(max_bytes=10, backup_count=4)
    for n in range(4):
        handler.emit_batch(records(f"record {n}"))
    os.unlink("app.log.2")
    handler.emit_batch(records("record 4"))
    assert {file.name: file.read_text() for file in log_files(LOG)} == {
        "app.log.3": "record 0\n", "app.log.2": "record 2\n", "app.log.1": "record 3\n", "app.log": "record 4\n",
    }  # fmt: skip


def test_a_file_is_filled_up_to_the_last_byte(make_handler: HandlerMaker) -> None:
    """It is rotated before it would exceed the limit, not when it reaches it."""
    handler = make_handler(max_bytes=20, backup_count=3)
    for line in ("a" * 9, "b" * 9, "c"):
        handler.emit_batch(records(line))
    assert sizes() == [20, 2]


def test_without_a_limit_the_file_is_never_rotated(make_handler: HandlerMaker) -> None:
    """max_bytes=0, which needs no backup_count."""
    handler = make_handler(max_bytes=0, backup_count=0)
    for _ in range(10):
        handler.emit_batch(records("x" * 10_000))
    assert sizes() == [100_010]


@pytest.mark.parametrize("backup_count", [0, -1])
def test_a_limit_without_a_backup_is_refused(backup_count: int) -> None:
    """The parent class would truncate the live log; the error says what to do."""
    LOG.write_text("precious\n")
    with pytest.raises(ValueError, match=r"backup_count=.* with max_bytes=1000 .*keep at least 1 backup"):
        BatchRotatingFileHandler(LOG, max_bytes=1000, backup_count=backup_count)
    assert LOG.read_text() == "precious\n"


def test_a_log_that_is_there_already_is_continued(make_handler: HandlerMaker) -> None:
    """And rotated by what it holds, also when that is more than the limit."""
    LOG.write_text("old\n")
    handler = make_handler(max_bytes=20, backup_count=5)
    handler.emit_batch(records("new"))
    assert LOG.read_text() == "old\nnew\n"
    handler.close()
    LOG.write_text("o" * 50 + "\n")
    handler.emit_batch(records("newer"))
    assert log_lines(LOG) == ["o" * 50, "newer"]
    assert sizes() == [51, 6]


def test_a_torn_line_is_ended_before_its_file_is_rotated(make_handler: HandlerMaker) -> None:
    """Who reads NAME.1 and then NAME finds the torn line and the next record on lines of their own."""
    LOG.write_text("complete\nunfini")
    handler = make_handler(max_bytes=20, backup_count=5)
    handler.emit_batch(records("next record"))
    assert b"".join(file.read_bytes() for file in log_files(LOG)) == b"complete\nunfini\nnext record\n"
    assert len(log_files(LOG)) == 2


def test_ending_a_torn_line_takes_no_file_over_the_limit(make_handler: HandlerMaker) -> None:
    """The line end that a killed process left out counts as well."""
    LOG.write_text("torn")
    handler = make_handler(max_bytes=10, backup_count=5)
    handler.emit_batch(records("12345"))  # 4 + 6 bytes; 11 with the line end
    assert max(sizes()) <= 10
    assert log_lines(LOG) == ["torn", "12345"]


@pytest.mark.parametrize("mask", [0, 0o077])
def test_log_lock_and_rotated_files_have_the_mode_asked_for(make_handler: HandlerMaker, mask: int) -> None:
    """Whatever the umask, which itself is left alone."""
    before = os.umask(mask)
    try:
        handler = make_handler(max_bytes=10, backup_count=3)
        for _ in range(3):
            handler.emit_batch(records("12345678"))
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    files = [*log_files(LOG), LOCK]
    assert len(files) == 4
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o640}


def test_a_rotation_killed_after_any_rename_loses_and_doubles_nothing() -> None:
    """A process that ends between any two renames leaves all lines in place; the next writer goes on."""
    code = (
        PRELUDE
        + """
def die_after(renames):
    left = [renames]
    def dying(real):
        def rename(*names):
            if not left[0]:
                os._exit(9)
            left[0] -= 1
            real(*names)
        return rename
    os.replace, os.rename = dying(os.replace), dying(os.rename)

written = 0
for renames in range(12):
    # Four files to start with, then one rotation, cut off after so many renames.
    pid = os.fork()
    if pid == 0:
        handler = make(max_bytes=10, backup_count=1000)
        for n in range(4):
            handler.emit_batch([record(f"{renames:03d}-{n}")])
        die_after(renames)
        handler.emit_batch([record("unwritten")])
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(status), end=" ")
"""
    )
    statuses = run_python(code, cwd=Path.cwd()).stdout.split()
    assert statuses.count("9") >= 4
    expected = [f"{renames:03d}-{n}" for renames in range(12) for n in range(4)]
    assert sorted(line for line in log_lines(LOG) if line != "unwritten") == expected
    assert max(sizes()) <= 10


# Used as a handler of its own.


def test_it_is_an_ordinary_handler_without_a_queue(make_handler: HandlerMaker) -> None:
    """Level, filter and formatter apply; each record is in the file when the logging call returns."""
    handler = make_handler(max_bytes=200, backup_count=100)
    handler.setLevel(logging.WARNING)
    handler.addFilter(lambda record: "secret" not in record.getMessage())
    logger = logging.Logger("plain")
    logger.addHandler(handler)
    for n in range(100):
        logger.info("not this %d", n)
        logger.warning("secret %d", n)
        logger.error("this %d", n)
        assert log_lines(LOG)[-1] == f"this {n}"
    assert log_lines(LOG) == [f"this {n}" for n in range(100)]
    assert max(sizes()) <= 200


def test_a_record_it_cannot_format_goes_to_handleError(
    make_handler: HandlerMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with any handler: said on stderr, not raised, and the next record is written."""
    handler = make_handler()
    failed: list[logging.LogRecord] = []
    monkeypatch.setattr(logging.Handler, "handleError", lambda self, record: failed.append(record))
    logger = logging.Logger("plain")
    logger.addHandler(handler)
    logger.error("%d", "no number")
    logger.error("fine")
    assert [record.args for record in failed] == [("no number",)]
    assert log_lines(LOG) == ["fine"]


def test_it_stands_behind_a_stdlib_queue_listener(make_handler: HandlerMaker) -> None:
    """One record at a time, through rotations."""
    records_queue: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    logger = logging.Logger("queued")
    logger.addHandler(logging.handlers.QueueHandler(records_queue))
    listener = logging.handlers.QueueListener(records_queue, make_handler(max_bytes=100, backup_count=100))
    listener.start()
    for n in range(200):
        logger.error("record %d", n)
    listener.stop()
    assert log_lines(LOG) == [f"record {n}" for n in range(200)]
    assert len(log_files(LOG)) > 10


def test_threads_that_share_a_handler_write_one_after_the_other(make_handler: HandlerMaker) -> None:
    """Each thread's batches arrive whole and in order."""
    handler = make_handler(max_bytes=1000, backup_count=1000)

    def write(name: str) -> None:
        for n in range(100):
            handler.emit_batch(records(*(f"{name} {n:03d} {part}" for part in range(5))))

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = log_lines(LOG)
    for name in "abcd":
        expected = [f"{name} {n:03d} {part}" for n in range(100) for part in range(5)]
        assert [line for line in lines if line.startswith(name)] == expected
    assert len(lines) == 2000
    assert max(sizes()) <= 1000


def test_a_signal_handler_may_log_in_the_middle_of_a_write() -> None:
    """The thread that is writing is interrupted by a signal whose handler logs to the same file: no deadlock."""
    code = (
        PRELUDE
        + """
logger = logging.Logger("plain")
logger.addHandler(make())
interrupts = 0
def on_alarm(number, frame):
    global interrupts
    interrupts += 1
    logger.error("signal %d", interrupts)
    signal.setitimer(signal.ITIMER_REAL, 0.001)
signal.signal(signal.SIGALRM, on_alarm)
signal.setitimer(signal.ITIMER_REAL, 0.001)
written = 0
while interrupts < 300:
    logger.error("main %d", written)
    written += 1
signal.setitimer(signal.ITIMER_REAL, 0)
print(written, interrupts)
"""
    )
    written, interrupts = map(int, run_within(60, code).split())
    lines = log_lines(LOG)
    assert [line for line in lines if line.startswith("main")] == [f"main {n}" for n in range(written)]
    assert sorted(line for line in lines if line.startswith("signal")) == sorted(
        f"signal {n}" for n in range(1, interrupts + 1)
    )


def test_a_rotator_may_log_to_the_file_it_rotates() -> None:
    """Its record is written once the rotation is over, without giving the lock away half-way."""
    code = (
        PRELUDE
        + """
logger = logging.Logger("plain")
handler = make(max_bytes=30, backup_count=50)
logger.addHandler(handler)
def rotator(source, target):
    logger.error("rotating")
    os.rename(source, target)
handler.rotator = rotator
for n in range(20):
    logger.error("record %d", n)
"""
    )
    run_within(60, code)
    lines = log_lines(LOG)
    assert [line for line in lines if line != "rotating"] == [f"record {n}" for n in range(20)]
    assert len(log_files(LOG)) - 1 == lines.count("rotating") > 5
    assert max(sizes()) <= 30


#: Put before a script: interrupts writes by an action, at any point where a signal handler may run.
INTERRUPTING = (
    PRELUDE
    + """
handler = make(max_bytes=int(sys.argv[1]), backup_count=5)

def interrupted(points, write, action):
    # CPython looks for signals when it enters a function and when a call into C returns: numbered from 1. Returns
    # how many of them the write had.
    passed = 0
    def profile(frame, event, arg):
        nonlocal passed
        if event in ("call", "c_return"):
            passed += 1
            if passed in points:
                sys.setprofile(None)
                try:
                    action()
                finally:
                    sys.setprofile(profile)
    sys.setprofile(profile)
    try:
        write()
    finally:
        sys.setprofile(None)
    return passed

def write(message):
    handler.emit_batch([record(message)])

def times_written(message):
    files = ["app.log", *(f"app.log.{n}" for n in range(1, 6))]
    return "".join(open(file).read() for file in files if os.path.exists(file)).splitlines().count(message)

write("opens")
points = interrupted((), lambda: write("counts"), None)
print(points)
"""
)
#: Without rotation, and with one at each write.
in_any_write = pytest.mark.parametrize("max_bytes", [0, 10])


def assert_nothing_found(code: str, max_bytes: int, *args: object) -> None:
    """Run an interrupting script, which prints the number of points and then what is wrong."""
    points, *wrong = run_within(60, code, max_bytes, *args).splitlines()
    assert wrong == []
    assert int(points) > 50


@in_any_write
@pytest.mark.parametrize("twice", [0, 1])
def test_a_record_logged_at_any_point_of_a_write_is_written_with_it(max_bytes: int, twice: int) -> None:
    """By a signal handler, say; also when the writing of a record that came in the middle is interrupted again."""
    code = (
        INTERRUPTING
        + """
middle = points // 2 if int(sys.argv[2]) else 0
point = inner = 0
def log_inner():
    global inner
    inner += 1
    write(f"i {point} {inner}")
more = points
while point < more:
    point += 1
    inner = 0
    more = interrupted({middle, point}, lambda: write(f"o {point}"), log_inner)
    for message in [f"o {point}", *(f"i {point} {n}" for n in range(1, inner + 1))]:
        if times_written(message) != 1:
            print(f"{message!r} is there {times_written(message)} times after {point} of {more}")
"""
    )
    assert_nothing_found(code, max_bytes, twice)


@in_any_write
def test_a_close_at_any_point_of_a_write_loses_nothing(max_bytes: int) -> None:
    """By a signal handler that ends the program's logging: the interrupted record is written all the same."""
    code = (
        INTERRUPTING
        + """
closed = 0
for point in range(1, points + 1):
    write("opens")
    interrupted({point}, lambda: write(f"r {point}"), handler.close)
    closed += handler.stream is None and handler.stream_lock is None
    if times_written(f"r {point}") != 1:
        print("lost or doubled at", point)
if closed < points // 2:  # before the first lock is taken, closing comes too early
    print("closed only", closed)
"""
    )
    assert_nothing_found(code, max_bytes)


@in_any_write
def test_an_exception_at_any_point_of_a_write_leaves_no_lock_behind(max_bytes: int) -> None:
    """Ctrl-C, or a time limit by signal: afterwards the others can lock, and the next record is written, once."""
    code = (
        INTERRUPTING
        + """
import fcntl
def interrupt():
    raise KeyboardInterrupt
def held(path):
    if not os.path.exists(path):
        return False
    with open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
for point in range(1, points + 1):
    write("opens")
    try:
        interrupted({point}, lambda: write(f"1 {point}"), interrupt)
        print("not interrupted at", point)
    except KeyboardInterrupt:
        pass
    if held(".__app.lock") or held("app.log"):
        print("held after", point)
    write(f"2 {point}")
    if times_written(f"1 {point}") > 1 or times_written(f"2 {point}") != 1:
        print("lost or doubled at", point)
"""
    )
    assert_nothing_found(code, max_bytes)


def run_within(seconds: float, code: str, *args: object) -> str:
    """Run ``code``; fail at once, with all stacks, when it has not ended within ``seconds``: far beyond its need."""
    guard = f"import faulthandler; faulthandler.dump_traceback_later({seconds}, exit=True)\n"
    return run_python(guard + code, *args, cwd=Path.cwd()).stdout


# Closing and forking.


def test_it_opens_again_after_close(make_handler: HandlerMaker) -> None:
    """As CLH does: a record logged late, at exit, is not lost. Closing twice is harmless."""
    handler = make_handler()
    handler.emit_batch(records("one"))
    handler.close()
    handler.close()
    assert handler.stream is None
    assert handler.stream_lock is None
    handler.emit_batch(records("two"))
    assert log_lines(LOG) == ["one", "two"]


def test_close_from_another_thread_while_batches_are_written(make_handler: HandlerMaker) -> None:
    """Nobody waits, nothing is lost or torn, and in the end nothing is open."""
    handler = make_handler(max_bytes=2000, backup_count=1000)
    closed = written = 0

    def write() -> None:
        nonlocal written
        while closed < 300:
            handler.emit_batch(records(f"record {written}", "second line"))
            written += 1

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        handler.close()
        closed += 1
        time.sleep(0)
    handler.close()
    assert log_lines(LOG) == [line for n in range(written) for line in (f"record {n}", "second line")]
    assert handler.stream is None
    assert handler.stream_lock is None


def test_close_during_a_write_leaves_closing_to_the_writer(make_handler: HandlerMaker) -> None:
    """Closing does not wait for a writer that waits for its disk; the writer closes when it is through."""
    handler = make_handler(max_bytes=10, backup_count=3)
    inside, go_on = threading.Event(), threading.Event()
    waited: list[bool] = []

    def rotator(source: str, target: str) -> None:
        inside.set()
        waited.append(go_on.wait(10))
        os.rename(source, target)

    handler.rotator = rotator
    handler.emit_batch(records("first"))
    writer = threading.Thread(target=handler.emit_batch, args=(records("second"),))
    writer.start()
    try:
        assert inside.wait(60)
        handler.close()  # returns although the writer is in the middle of it
    finally:
        go_on.set()
        writer.join()
    assert waited == [True]
    assert log_lines(LOG) == ["first", "second"]
    assert handler.stream is None
    assert handler.stream_lock is None


def test_a_child_forked_during_a_write_has_handles_of_its_own() -> None:
    """It gives up the parent's at once, without giving back the parent's lock, and waits for that lock as others do."""
    code = (
        PRELUDE
        + """
handler = make(max_bytes=10, backup_count=3, lock_timeout=0.1)
inside, go_on = threading.Event(), threading.Event()
def rotator(source, target):
    inside.set()
    go_on.wait()
    os.rename(source, target)
handler.rotator = rotator
handler.emit_batch([record("first")])
writer = threading.Thread(target=handler.emit_batch, args=([record("second")],))
writer.start()
inside.wait()
report, go = os.pipe(), os.pipe()
pid = os.fork()
if pid == 0:
    signal.alarm(60)  # the child too ends when it hangs
    assert handler.stream is None and handler.stream_lock is None
    handler.rotator = None
    try:
        handler.emit_batch([record("third")])
    except LockTimeout:
        os.write(report[1], b"locked out")
    os.read(go[0], 1)
    handler.emit_batch([record("third")])
    os._exit(0)
print(os.read(report[0], 100).decode(), flush=True)
go_on.set()
writer.join()
os.write(go[1], b"!")
_, status = os.waitpid(pid, 0)
handler.rotator = None
handler.emit_batch([record("fourth")])
print(os.waitstatus_to_exitcode(status))
"""
    )
    assert run_within(60, code) == "locked out\n0\n"
    assert log_lines(LOG) == ["first", "second", "third", "fourth"]


def test_descriptors_do_not_leak_over_a_thousand_rotations(make_handler: HandlerMaker) -> None:
    """The number of open descriptors is the same after 1,000 rotations."""
    handler = make_handler(max_bytes=10, backup_count=2)
    handler.emit_batch(records("opens"))
    before = len(os.listdir("/dev/fd"))
    for n in range(1000):
        handler.emit_batch(records(f"rec {n:04d}"))
    assert handler.num_rollovers == 1000
    assert len(os.listdir("/dev/fd")) == before


# The lock.


def test_the_wait_for_the_lock_is_bounded_and_names_the_holder(make_handler: HandlerMaker) -> None:
    """LockTimeout, an OSError, after lock_timeout; nothing is written; the next attempt succeeds."""
    handler = make_handler(lock_timeout=0.2)
    handler.emit_batch(records("before"))
    with LOCK.open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        started = time.monotonic()
        with pytest.raises(LockTimeout, match=re.escape(str(LOCK))) as raised:
            handler.emit_batch(records("refused"))
        assert time.monotonic() - started >= 0.2
    assert isinstance(raised.value, OSError)
    if os.path.exists("/proc/locks"):
        assert re.search(rf" held by process {os.getpid()} for more than \d+\.\d s", str(raised.value))
    handler.emit_batch(records("after"))
    assert log_lines(LOG) == ["before", "after"]


def test_a_deadline_ends_a_wait_for_the_lock_that_is_under_way(make_handler: HandlerMaker) -> None:
    """What `stop(timeout)` uses: from another thread, however long lock_timeout is."""
    handler = make_handler(lock_timeout=3600)
    handler.emit_batch(records("before"))
    errors: list[BaseException] = []

    def write() -> None:
        try:
            handler.emit_batch(records("refused"))
        except OSError as error:
            errors.append(error)

    with LOCK.open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        writer = threading.Thread(target=write)
        writer.start()
        handler.wait_no_longer_than(time.monotonic())
        wait_for(lambda: not writer.is_alive(), what="the end of the wait")
    assert [type(error) for error in errors] == [LockTimeout]
    handler.wait_no_longer_than(None)
    handler.emit_batch(records("after"))
    assert log_lines(LOG) == ["before", "after"]


def test_a_lock_file_deleted_while_its_lock_is_held_does_not_let_a_second_writer_in() -> None:
    """A cleaner of temporary files takes the lock file from under a rotation: the others still wait for its end."""
    code = (
        PRELUDE
        + """
handler = make(max_bytes=10, backup_count=3)
handler.emit_batch([record("first")])
def rotator(source, target):
    print("rotating", flush=True)
    sys.stdin.readline()
    os.rename(source, target)
handler.rotator = rotator
handler.emit_batch([record("second")])
"""
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "rotating\n"
            LOCK.unlink()
            handler = new_handler(max_bytes=10, backup_count=3, lock_timeout=0.2)
            try:
                with pytest.raises(LockTimeout):
                    handler.emit_batch(records("third"))
                process.communicate("go on\n", timeout=60)
                handler.emit_batch(records("third"))
            finally:
                handler.close()
        finally:
            process.kill()
    assert log_lines(LOG) == ["first", "second", "third"]


def test_a_rotation_that_finds_the_new_file_held_does_not_write_to_it(make_handler: HandlerMaker) -> None:
    """Who was faster, with a new lock file, is writing there: LockTimeout, and nothing is written past its lock."""
    handler = make_handler(max_bytes=10, backup_count=3, lock_timeout=0.1)
    handler.emit_batch(records("first"))
    with contextlib.ExitStack() as others:

        def rotator(source: str, target: str) -> None:
            os.rename(source, target)
            fcntl.flock(others.enter_context(open(source, "w")), fcntl.LOCK_EX)

        handler.rotator = rotator
        with pytest.raises(LockTimeout, match=re.escape(str(LOG.absolute()))):
            handler.emit_batch(records("second"))
        assert LOG.read_bytes() == b""
    handler.emit_batch(records("second"))
    assert log_lines(LOG) == ["first", "second"]


def test_a_rotation_that_finds_the_new_file_filled_rotates_again(make_handler: HandlerMaker) -> None:
    """Who was faster, with a new lock file, has written to it: it does not exceed the limit either."""
    handler = make_handler(max_bytes=10, backup_count=5)

    def rotator(source: str, target: str) -> None:
        os.rename(source, target)
        handler.rotator = None
        Path(source).write_text("faster\n")

    handler.emit_batch(records("first"))
    handler.rotator = rotator
    handler.emit_batch(records("second"))
    assert log_lines(LOG) == ["first", "faster", "second"]
    assert max(sizes()) <= 10


# At start-up.


def refused_at_start(**options: object) -> str:
    """The text of the ConfigError that `AsyncLog` raises, in a process of its own: a hang fails."""
    code = f"""
from flask import Flask
from flask_asynclog import AsyncLog, ConfigError
try:
    AsyncLog(Flask("demo"), **{options!r})
except ConfigError as error:
    print(error)
"""
    return run_python(code, cwd=Path.cwd()).stdout


@pytest.mark.parametrize("path", [LOG, LOCK])
@pytest.mark.parametrize("target", ["victim", "missing"])
def test_symbolic_links_are_refused_for_log_and_lock(path: Path, target: str) -> None:
    """With an error that names the link and says what to do; the link's target is not touched."""
    Path("victim").write_text("untouched")
    path.symlink_to(target)
    with pytest.raises(ConfigError, match=r"is a symbolic link. Links are not followed: name the real file") as raised:
        AsyncLog(Flask("demo"))
    assert str(Path.cwd() / path) in str(raised.value)
    assert Path("victim").read_text() == "untouched"
    assert not Path("missing").exists()


@pytest.mark.parametrize("path", [LOG, LOCK])
def test_a_fifo_is_refused_without_hanging(path: Path) -> None:
    """For log and lock."""
    os.mkfifo(path)
    text = refused_at_start()
    assert text.startswith("ASYNCLOG_FILENAME=")
    assert f"{path} gives the error not a regular file" in text


def test_a_limit_without_a_backup_is_refused_by_the_extension() -> None:
    """With the names of the options."""
    text = refused_at_start(max_bytes=1000, backup_count=0)
    assert text.startswith("ASYNCLOG_BACKUP_COUNT=0 is not allowed with ASYNCLOG_MAX_BYTES=1000")
    assert not LOG.exists()


@pytest.mark.skipif(is_root(), reason="permissions do not bind root")
def test_a_directory_that_is_not_writable_is_refused() -> None:
    """With the user's id and what to do."""
    directory = Path("locked")
    directory.mkdir(mode=0o500)
    text = refused_at_start(filename="locked/app.log")
    assert f"is not writable for user id {os.geteuid()}" in text
    assert f"Give this user write permission for {Path.cwd() / directory}" in text


def test_a_missing_directory_is_made(make_handler: HandlerMaker) -> None:
    """With all of its parents."""
    handler = make_handler("some/where/app.log")
    handler.check()
    handler.emit_batch(records("one"))
    assert log_lines(Path("some/where/app.log")) == ["one"]


def test_checking_a_file_leaves_nothing_open_and_waits_for_nobody(make_handler: HandlerMaker) -> None:
    """A lock that another process holds is fine: the file works."""
    handler = make_handler(lock_timeout=3600)
    handler.check()
    assert LOG.read_bytes() == b""
    with LOCK.open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        handler.check()
    assert handler.stream is None
    assert handler.stream_lock is None
