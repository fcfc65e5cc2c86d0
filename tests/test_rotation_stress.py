"""Guarantee 4 under load: many processes, one rotating file, and what other programs do to it meanwhile.

Every line says who wrote it and the how manieth of that writer it is; at the end the files are read back and counted.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

import pytest

from support import HANG, PRINT_STATS, assert_conserved, log_files, log_lines, read_stats, run_python, start_python

LOG = Path("app.log")
LOCK = Path(".__app.lock")

#: ``WRITER number records``: writes batches of 1 to 20 records for as long as there are records.
WRITER = """
import logging, random, sys
from flask_asynclog.rotating import BatchRotatingFileHandler

def handler(max_bytes):
    handler = BatchRotatingFileHandler("app.log", max_bytes=max_bytes, backup_count=10_000, lock_timeout=100)
    handler.setFormatter(logging.Formatter("%(message)s"))
    return handler

def batch(who, start, count):
    return [logging.makeLogRecord({"msg": f"{who} {n:06d} {'x' * (n % 50)}"}) for n in range(start, start + count)]
"""
WRITE = (
    WRITER
    + """
who, total = sys.argv[1], int(sys.argv[2])
chance = random.Random(int(who))
sink = handler(10_000)
print("ready", flush=True)
sys.stdin.readline()
n = 0
while n < total:
    count = min(total - n, chance.randint(1, 20))
    sink.emit_batch(batch(who, n, count))
    n += count
"""
)
LINE = re.compile(r"(\d+) (\d{6}) (x*)")


def parse(line: str) -> tuple[int, int]:
    """Who wrote the line, and its number; fails on a line that is torn or mixed with another one."""
    match = LINE.fullmatch(line)
    assert match is not None, f"a torn line: {line!r}"
    who, number, filling = int(match[1]), int(match[2]), match[3]
    assert len(filling) == number % 50, f"a torn line: {line!r}"
    return who, number


def assert_all_arrived(lines: list[str], writers: int, records: int, *, ordered: bool = True) -> None:
    """Each record of each writer is there exactly once, and each writer's in its order."""
    found = [parse(line) for line in lines]
    counts = Counter(found)
    doubled = [key for key, count in counts.items() if count > 1]
    assert not doubled, f"{len(doubled)} records doubled, such as {doubled[:5]}"
    lost = [(who, n) for who in range(writers) for n in range(records) if (who, n) not in counts]
    assert not lost, f"{len(lost)} records lost, such as {lost[:5]}"
    assert len(found) == writers * records
    if ordered:
        for writer in range(writers):
            assert [n for who, n in found if who == writer] == list(range(records))


def assert_no_file_exceeds(limit: int) -> None:
    too_large = {file.name: size for file in log_files(LOG) if (size := file.stat().st_size) > limit}
    assert not too_large


@contextmanager
def running(code: str, count: int, *args: object) -> Iterator[list[Popen[str]]]:
    """Start ``count`` processes with their number and ``args``, and let them go together when all are ready."""
    processes = [start_python(code, number, *args, cwd=Path.cwd()) for number in range(count)]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def finish(processes: list[Popen[str]]) -> list[tuple[str, str]]:
    """Wait for the end of all; stdout and stderr of each."""
    output: list[tuple[str, str]] = []
    for process in processes:
        out, err = process.communicate(timeout=HANG)
        assert process.returncode == 0, err
        output.append((out, err))
    return output


def test_eight_processes_twenty_thousand_records_each_through_a_hundred_rotations() -> None:
    """Through the whole pipeline: nothing lost, doubled or torn, per-process order, no file over the limit, 0640.

    Half of the processes run with umask 0, the others with 077.
    """
    code = (
        PRINT_STATS
        + """
import logging, os, sys
from flask import Flask
from flask_asynclog import AsyncLog
who = int(sys.argv[1])
os.umask(0o077 if who % 2 else 0)
app = Flask("stress")
asynclog = AsyncLog(app, format="%(message)s", max_bytes=40_000, backup_count=1000, lock_timeout=100)
print("ready", flush=True)
sys.stdin.readline()
for n in range(20_000):
    level = logging.ERROR if n % 97 == 0 else logging.INFO
    app.logger.log(level, "%d %06d %s", who, n, "x" * (n % 50))
assert asynclog.stop(100)
print_stats(asynclog.stats())
"""
    )
    with running(code, 8) as processes:
        output = finish(processes)
    for out, err in output:
        assert err == ""
        stats = read_stats(out)
        assert_conserved(stats)
        assert stats["written"] == 20_000
    assert_all_arrived(log_lines(LOG), 8, 20_000)
    assert_no_file_exceeds(40_000)
    files = log_files(LOG)
    assert len(files) > 100
    assert {stat.S_IMODE(file.stat().st_mode) for file in [*files, LOCK]} == {0o640}


@pytest.mark.parametrize("change", ["deleted", "replaced"])
def test_processes_exclude_each_other_also_when_the_lock_file_is_taken_away(change: str) -> None:
    """Deleted or replaced hundreds of times while eight processes write: nothing lost, doubled, torn or too large."""
    changes = 0
    with running(WRITE, 8, 3000) as processes:
        while any(process.poll() is None for process in processes):
            if change == "deleted":
                LOCK.unlink(missing_ok=True)
            else:
                Path("new.lock").touch()
                os.replace("new.lock", LOCK)
            changes += 1
            time.sleep(0.001)
        output = finish(processes)
    assert changes > 100
    assert {err for _, err in output} == {""}
    assert_all_arrived(log_lines(LOG), 8, 3000)
    assert_no_file_exceeds(10_000)


def test_nothing_is_lost_when_logrotate_moves_the_log_of_running_processes() -> None:
    """Lines go to the moved file until a writer sees that it was moved; then to a new one."""
    moved = 0
    with running(WRITE, 4, 3000) as processes:
        while any(process.poll() is None for process in processes):
            try:
                LOG.rename(f"moved-{moved:04d}")
                moved += 1
            except FileNotFoundError:
                pass  # nobody has written since
            time.sleep(0.005)
        finish(processes)
    assert moved > 5
    lines = log_lines(LOG)
    for file in sorted(Path.cwd().glob("moved-*")):
        lines += file.read_text().splitlines()
    assert_all_arrived(lines, 4, 3000, ordered=False)


def test_nothing_is_lost_when_the_directory_of_running_processes_is_moved_away() -> None:
    """Directory, log and lock are made again. A write that fails meanwhile is tried again; what breaks heals."""
    code = (
        PRINT_STATS
        + """
import sys
from flask import Flask
from flask_asynclog import AsyncLog
who = int(sys.argv[1])
app = Flask("stress")
asynclog = AsyncLog(
    app, filename="logs/app.log", format="%(message)s", max_bytes=10_000, backup_count=1000, lock_timeout=100
)
print("ready", flush=True)
sys.stdin.readline()
for n in range(3000):
    app.logger.info("%d %06d %s", who, n, "x" * (n % 50))
    if n % 10 == 9:
        assert asynclog.flush(100)
assert asynclog.stop(100)
print_stats(asynclog.stats())
"""
    )
    moved = 0
    with running(code, 4) as processes:
        while any(process.poll() is None for process in processes):
            try:
                Path("logs").rename(f"moved-{moved:04d}")
                moved += 1
            except FileNotFoundError:
                pass  # nobody has written since
            time.sleep(0.01)
        output = finish(processes)
    assert moved > 2
    for out, err in output:
        assert_conserved(read_stats(out))
        # Also a rotation may have been under way.
        for breaks, heals in (("does not take records", "takes records again"), ("cannot rotate", "is rotated again")):
            said = [breaks in line for line in err.splitlines() if breaks in line or heals in line]
            assert said == [True, False] * (len(said) // 2), err
    lines = [line for directory in [Path("logs"), *Path.cwd().glob("moved-*")] for line in log_lines(directory / LOG)]
    assert_all_arrived(lines, 4, 3000, ordered=False)


def test_writers_killed_at_any_moment_take_no_line_with_them_that_was_written() -> None:
    """SIGKILL in a loop of rotating writers: what was acknowledged is in some file exactly once, the rest at most once.

    A line that was being written when its process was killed may be left torn, on a line of its own.
    """
    kills = 120
    code = (
        WRITER
        + """
import os, signal, time
kills, chance = int(sys.argv[1]), random.Random(1)

def write_for_ever(who):
    sink = handler(1000)
    acknowledged = os.open(f"acknowledged-{who}", os.O_WRONLY | os.O_CREAT, 0o600)
    n = 0
    while True:
        sink.emit_batch(batch(who, n, 5))
        n += 5
        os.pwrite(acknowledged, b"%d" % n, 0)

def start(who):
    pid = os.fork()
    if pid == 0:
        try:
            write_for_ever(who)
        finally:
            os._exit(1)
    return pid

pids = [start(who) for who in range(4)]
for kill in range(kills):
    time.sleep(chance.uniform(0.001, 0.03))
    victim = chance.randrange(4)
    os.kill(pids[victim], signal.SIGKILL)
    _, status = os.waitpid(pids[victim], 0)
    assert os.WIFSIGNALED(status), status
    pids[victim] = start(4 + kill)
for pid in pids:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
handler(1000).emit_batch(batch(4 + kills, 0, 1))
"""
    )
    result = run_python(code, kills, cwd=Path.cwd())
    assert result.stderr == ""
    counts: Counter[tuple[int, int]] = Counter()
    torn: list[str] = []
    for line in log_lines(LOG):
        try:
            counts[parse(line)] += 1
        except AssertionError:
            torn.append(line)
    assert max(counts.values()) == 1
    acknowledged = {
        int(file.name.removeprefix("acknowledged-")): int(file.read_text() or 0)
        for file in Path.cwd().glob("acknowledged-*")
    }
    assert sum(acknowledged.values()) > 1000
    lost = [(who, n) for who, total in acknowledged.items() for n in range(total) if (who, n) not in counts]
    assert not lost
    assert len(torn) <= kills + 4
    assert all(re.fullmatch(r"\d+( \d{0,6}( x*)?)?", line) for line in torn), torn
    assert len(log_files(LOG)) > 50
    assert_no_file_exceeds(1000)


def test_forks_in_the_middle_of_writes_hang_nobody_and_lose_nothing() -> None:
    """150 children forked out of a process whose four threads write without pause, each child writing its own records.

    Without a queue: every fork hits a handler in use.
    """
    code = (
        WRITER
        + """
import os, signal, threading
signal.alarm(100)  # ends a process that hangs
sink = handler(10_000)
forking = True
written = [0] * 4

def write(who):
    while forking:
        sink.emit_batch(batch(who, written[who], 3))
        written[who] += 3

threads = [threading.Thread(target=write, args=(who,)) for who in range(4)]
for thread in threads:
    thread.start()
children = []
for child in range(4, 154):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(60)
            sink.emit_batch(batch(child, 0, 3))
            sink.emit_batch(batch(child, 3, 3))
            status = 0
        finally:
            os._exit(status)
    children.append(pid)
    if len(children) == 4:
        for pid in children:
            _, status = os.waitpid(pid, 0)
            assert status == 0, status
        children.clear()
forking = False
for thread in threads:
    thread.join()
print(*written)
"""
    )
    written = [*map(int, run_python(code, cwd=Path.cwd()).stdout.split()), *[6] * 150]
    expected = {(who, n) for who, total in enumerate(written) for n in range(total)}
    found = Counter(map(parse, log_lines(LOG)))
    assert max(found.values()) == 1
    assert set(found) == expected
    assert_no_file_exceeds(10_000)
