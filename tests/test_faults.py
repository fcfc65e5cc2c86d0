"""Guarantee 7: whatever happens to disk, lock, files or handlers, the app goes on, nothing is lost silently, it heals.

Each test breaks something while records flow, and checks what is in the files, on stderr and in the counters.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask

from flask_asynclog import AsyncLog
from flask_asynclog.handlers import AsyncQueueHandler
from flask_asynclog.listener import BatchQueueListener
from flask_asynclog.queue import RecordQueue
from flask_asynclog.rotating import BatchRotatingFileHandler
from support import (
    HANG,
    PRINT_STATS,
    assert_conserved,
    is_root,
    log_files,
    log_lines,
    read_stats,
    run_python,
    start_python,
    wait_for,
)

LOG = Path("app.log")
LOCK = Path(".__app.lock")
AppMaker = Callable[..., tuple[Flask, AsyncLog]]

#: Longer than any test: what waits for this has hung.
FOR_EVER = 3600.0


def write(app: Flask, start: int, count: int) -> list[str]:
    """Log ``count`` records; returns their lines. No logging call raises or waits."""
    lines = [f"record {n:05d} " + "x" * 40 for n in range(start, start + count)]
    for line in lines:
        app.logger.info(line)
    return lines


def broken(asynclog: AsyncLog) -> None:
    """Wait until the file has refused a batch again and again."""
    before = asynclog.stats().retries

    def tried() -> bool:
        stats = asynclog.stats()
        assert stats.pending, "everything was written although that should be impossible"
        return stats.retries >= before + 3

    wait_for(tried, what="three more attempts to write")


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What the package has said on stderr, without who said it."""
    err = capsys.readouterr().err
    prefix = f"flask_asynclog[{os.getpid()}]: "
    assert all(line.startswith(prefix) for line in err.splitlines()), err
    return [line.removeprefix(prefix) for line in err.splitlines()]


def assert_broke_and_healed(lines: list[str], reason: str, path: Path = LOG) -> None:
    """Exactly one line about the break, which names file and reason, and one about the healing."""
    breaking, healing = lines
    assert breaking.startswith(f"{path.absolute()} does not take records: "), breaking
    assert reason in breaking, breaking
    assert healing.startswith(f"{path.absolute()} takes records again, after "), healing


def assert_all_written(asynclog: AsyncLog, count: int) -> None:
    stats = asynclog.stats()
    assert_conserved(stats)
    assert (stats.written, stats.failed, stats.dropped) == (count, 0, 0)


# The disk is full.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mounted = shutil.which("mount") is not None and is_root()
    if mounted:
        command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(directory)]
        mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
    if not mounted:
        pytest.skip("needs the right to mount")
    try:
        yield directory
    finally:
        # The lazy way when a failed test left files open: the mount must not outlive the test.
        for command in (["umount", str(directory)], ["umount", "-l", str(directory)]):
            if subprocess.run(command, check=False, capture_output=True).returncode == 0:
                break


def fill(directory: Path) -> Path:
    """Fill the file system to its last byte."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    return filler


@pytest.mark.parametrize("max_bytes", [0, 20_000])
def test_a_full_disk_tears_nothing_and_loses_nothing(
    make_app: AppMaker, small_disk: Path, max_bytes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Logging goes on while the disk is full; with room again, all records are there, whole, once, in order."""
    path = small_disk / "app.log"
    app, asynclog = make_app(filename=path, format="%(message)s", max_bytes=max_bytes, backup_count=100)
    lines = write(app, 0, 300)
    assert asynclog.flush()
    filler = fill(small_disk)
    lines += write(app, 300, 1000)
    broken(asynclog)
    assert log_lines(path) == lines[: asynclog.stats().written]  # no torn line, none beyond those counted
    lines += write(app, 1300, 500)
    broken(asynclog)
    assert asynclog.stats().pending >= 500
    filler.unlink()
    assert asynclog.flush(HANG)
    assert log_lines(path) == lines
    if max_bytes:
        assert max(file.stat().st_size for file in log_files(path)) <= max_bytes
    assert_broke_and_healed(said(capsys), os.strerror(errno.ENOSPC), path)
    assert_all_written(asynclog, len(lines))


def test_records_given_up_on_a_full_disk_are_counted(
    make_app: AppMaker, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`stop` returns by its deadline, says False, and exactly what is not in the file counts as failed."""
    path = small_disk / "app.log"
    app, asynclog = make_app(filename=path, format="%(message)s")
    lines = write(app, 0, 300)
    assert asynclog.flush()
    filler = fill(small_disk)
    lines += write(app, 300, 1000)
    started = time.monotonic()
    assert asynclog.stop(0.5) is False
    assert time.monotonic() - started < 0.5 + 10
    stats = asynclog.stats()
    assert_conserved(stats)
    assert stats.failed > 0
    written = log_lines(path)
    assert written == lines[: stats.written]
    filler.unlink()
    after = write(app, 1300, 10)
    assert asynclog.flush(HANG)
    assert log_lines(path) == written + after
    lines_said = said(capsys)
    assert lines_said.pop(1).startswith(f"{stats.failed} records were not written within 0.5 s")
    assert_broke_and_healed(lines_said, os.strerror(errno.ENOSPC), path)
    assert_conserved(asynclog.stats())


def test_a_short_line_on_a_full_disk_is_no_recovery(
    make_app: AppMaker, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report of the drops may find room where the records have not: what is lost then is not said to be over."""
    path = small_disk / "app.log"
    app, asynclog = make_app(filename=path, format="%(message)s" + "." * 200, queue_size=200)
    write(app, 0, 10)
    assert asynclog.flush()
    filler = fill(small_disk)
    write(app, 10, 1000)
    broken(asynclog)
    os.truncate(filler, filler.stat().st_size - 4096)
    assert asynclog.stop(0.5) is False
    assert "\ndropped " in path.read_text()
    breaking, given_up = said(capsys)
    assert "does not take records" in breaking
    assert given_up.startswith(f"{asynclog.stats().failed} records were not written within 0.5 s")
    filler.unlink()
    write(app, 2000, 10)
    assert asynclog.flush(HANG)
    (healing,) = said(capsys)
    assert "takes records again" in healing
    assert_conserved(asynclog.stats())


def test_a_limit_of_the_file_size_tears_nothing_and_loses_nothing() -> None:
    """The same by RLIMIT_FSIZE, which needs no rights: writes are cut short at the limit, then refused."""
    code = (
        PRINT_STATS
        + """
import os, resource, signal, sys, time
from flask import Flask
from flask_asynclog import AsyncLog
signal.alarm(100)  # ends a process that hangs
app = Flask("limited")
asynclog = AsyncLog(app, format="%(message)s", flush_interval=0.01)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_001, hard))
for n in range(1000):
    app.logger.info("record %05d %s", n, "x" * 40)
while asynclog.stats().retries < 5:
    time.sleep(0.01)
for n in range(1000, 1500):
    app.logger.info("record %05d %s", n, "x" * 40)
data = open("app.log", "rb").read()
print(len(data.splitlines()) == asynclog.stats().written, data[-1:] in (b"", b"\\n"), len(data) <= 20_001)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
assert asynclog.flush(100)
print_stats(asynclog.stats())
"""
    )
    result = run_python(code, cwd=Path.cwd())
    assert result.stdout.startswith("True True True\n")
    assert log_lines(LOG) == [f"record {n:05d} " + "x" * 40 for n in range(1500)]
    stats = read_stats(result.stdout)
    assert_conserved(stats)
    assert stats["written"] == 1500
    breaking, healing = result.stderr.splitlines()
    assert "app.log does not take records: " in breaking
    assert os.strerror(errno.EFBIG) in breaking
    assert "app.log takes records again, after " in healing


# The lock is not to be had.


@contextlib.contextmanager
def stopped_lock_holder(path: Path = LOG) -> Iterator[subprocess.Popen[str]]:
    """A writer stopped by SIGSTOP in the middle of a rotation, so with the lock; its record is "from the holder"."""
    code = """
import logging, os, sys
from flask_asynclog.rotating import BatchRotatingFileHandler
handler = BatchRotatingFileHandler(sys.argv[1], max_bytes=1, backup_count=10)
handler.setFormatter(logging.Formatter("%(message)s"))
def rotator(source, target):
    print("rotating", flush=True)
    sys.stdin.readline()
    os.rename(source, target)
handler.rotator = rotator
handler.emit_batch([logging.makeLogRecord({"msg": "from the holder"})])
"""
    with start_python(code, path, cwd=Path.cwd()) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "rotating\n"
            process.send_signal(signal.SIGSTOP)
            yield process
        finally:
            process.kill()


def test_a_stopped_lock_holder_stops_nobody_elses_logging(make_app: AppMaker) -> None:
    """Logging calls return; when the holder runs again, all is written, the holder's record too."""
    app, asynclog = make_app(format="%(message)s", lock_timeout=FOR_EVER)
    lines = write(app, 0, 10)
    assert asynclog.flush()
    with stopped_lock_holder() as holder:
        lines += write(app, 10, 1000)  # a call that waited for the lock would wait for the end of the test
        assert asynclog.flush(0.2) is False
        assert asynclog.stats().pending == 1000
        assert log_lines(LOG) == lines[:10]
        holder.send_signal(signal.SIGCONT)
        _, err = holder.communicate("go on\n", timeout=HANG)
        assert holder.returncode == 0, err
        assert asynclog.flush(HANG)
    assert [line for line in log_lines(LOG) if line != "from the holder"] == lines
    assert log_lines(LOG).count("from the holder") == 1
    assert_all_written(asynclog, len(lines))


def test_stop_returns_by_its_deadline_while_the_lock_holder_is_stopped(
    make_app: AppMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    """However long lock_timeout is. What is given up is counted; later records are written again."""
    app, asynclog = make_app(format="%(message)s", lock_timeout=FOR_EVER)
    before = write(app, 0, 10)
    assert asynclog.flush()
    with stopped_lock_holder() as holder:
        write(app, 10, 1000)
        started = time.monotonic()
        assert asynclog.stop(0.5) is False
        assert time.monotonic() - started < 0.5 + 10
        stats = asynclog.stats()
        assert_conserved(stats)
        assert (stats.written, stats.failed) == (10, 1000)
        holder.send_signal(signal.SIGCONT)
        holder.communicate("go on\n", timeout=HANG)
    after = write(app, 2000, 10)
    assert asynclog.flush(HANG)
    assert log_lines(LOG) == [*before, "from the holder", *after]
    breaking, given_up, healing = said(capsys)
    assert given_up.startswith("1000 records were not written within 0.5 s")
    assert f"LockTimeout: {LOCK.absolute()} held" in breaking
    assert "takes records again" in healing
    assert_conserved(asynclog.stats())


def test_writing_resumes_when_the_lock_holder_is_killed(make_app: AppMaker, capsys: pytest.CaptureFixture[str]) -> None:
    """The lock dies with its holder. Until then attempts time out: one line, which names the holder; none is lost."""
    app, asynclog = make_app(format="%(message)s", lock_timeout=0.05)
    lines = write(app, 0, 10)
    assert asynclog.flush()
    with stopped_lock_holder() as holder:
        lines += write(app, 10, 1000)
        broken(asynclog)
        holder.kill()
        holder.wait()
        assert asynclog.flush(HANG)
        pid = holder.pid
    assert log_lines(LOG) == lines
    by = f" by process {pid}" if os.path.exists("/proc/locks") else ""
    assert_broke_and_healed(said(capsys), f"LockTimeout: {LOCK.absolute()} held{by} for more than 0.")
    assert_all_written(asynclog, len(lines))


def test_a_killed_lock_holder_leaves_no_lock_with_its_forked_child(make_app: AppMaker) -> None:
    """A child shares its parent's open files: one that idles after the fork must not keep the dead parent's lock."""
    code = """
import logging, os, sys, threading
from flask_asynclog.rotating import BatchRotatingFileHandler
handler = BatchRotatingFileHandler("app.log", max_bytes=1, backup_count=10)
inside = threading.Event()
def rotator(source, target):
    inside.set()
    threading.Event().wait()
handler.rotator = rotator
record = logging.makeLogRecord({"msg": "from the holder"})
threading.Thread(target=handler.emit_batch, args=([record],), daemon=True).start()
inside.wait()
pid = os.fork()
if pid == 0:
    print(os.getpid(), flush=True)
sys.stdin.read()
"""
    app, asynclog = make_app(format="%(message)s", lock_timeout=FOR_EVER)
    lines = write(app, 0, 10)
    assert asynclog.flush()
    with start_python(code, cwd=Path.cwd()) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        try:
            lines += write(app, 10, 10)
            assert asynclog.flush(0.2) is False
            holder.kill()
            holder.wait()
            assert asynclog.flush(HANG)
            os.kill(child, 0)  # it is still there
        finally:
            os.kill(child, signal.SIGKILL)
    assert log_lines(LOG) == lines
    assert_all_written(asynclog, len(lines))


def test_a_process_ends_although_the_lock_holder_is_stopped() -> None:
    """Within shutdown_timeout; how many records were lost is said and nothing hangs in `logging.shutdown`."""
    code = """
import logging
from flask import Flask
from flask_asynclog import AsyncLog
app = Flask("ending")
AsyncLog(app, lock_timeout=3600, shutdown_timeout=0.5)
for n in range(100):
    app.logger.info("record %d", n)
"""
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = run_python(code, cwd=Path.cwd())
    breaking, end = result.stderr.splitlines()
    assert "LockTimeout" in breaking
    assert "100 records were not written within 0.5 s, the time to drain at exit or in stop()" in end
    assert log_lines(LOG) == []


@pytest.mark.parametrize("change", ["deleted", "replaced", "replaced by a directory"])
def test_the_lock_file_is_taken_away(make_app: AppMaker, change: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A new one is made and used; where none can be made, records wait until it can."""
    app, asynclog = make_app(format="%(message)s")
    lines = write(app, 0, 10)
    assert asynclog.flush()
    LOCK.unlink()
    if change == "replaced":
        LOCK.touch()
    elif change == "replaced by a directory":
        LOCK.mkdir()
    lines += write(app, 10, 10)
    if change == "replaced by a directory":
        broken(asynclog)
        LOCK.rmdir()
    assert asynclog.flush(HANG)
    assert log_lines(LOG) == lines
    assert LOCK.is_file()
    with LOCK.open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        write(app, 20, 10)
        assert asynclog.flush(0.2) is False  # it is this lock that counts
    assert asynclog.flush(HANG)
    if change == "replaced by a directory":
        assert_broke_and_healed(said(capsys), f"{os.strerror(errno.EISDIR)}: '{LOCK.absolute()}'")
    else:
        assert said(capsys) == []
    assert_all_written(asynclog, 30)


# Log and directory are taken away.


def test_the_log_is_deleted(make_app: AppMaker, capsys: pytest.CaptureFixture[str]) -> None:
    """Later records are in a new file, which has the right mode."""
    app, asynclog = make_app(format="%(message)s")
    write(app, 0, 10)
    assert asynclog.flush()
    LOG.unlink()
    lines = write(app, 10, 10)
    assert asynclog.flush()
    assert log_lines(LOG) == lines
    assert LOG.stat().st_mode & 0o777 == 0o640
    assert said(capsys) == []
    assert_all_written(asynclog, 20)


def test_the_log_is_moved_by_logrotate(make_app: AppMaker, capsys: pytest.CaptureFixture[str]) -> None:
    """Renamed, with or without a new file in its place (logrotate's ``create``): the new name is written to."""
    app, asynclog = make_app(format="%(message)s")
    lines = write(app, 0, 10)
    assert asynclog.flush()
    LOG.rename("moved-1")
    lines += write(app, 10, 10)
    assert asynclog.flush()
    LOG.rename("moved-2")
    LOG.touch()
    lines += write(app, 20, 10)
    assert asynclog.flush()
    files = [Path("moved-1"), Path("moved-2"), LOG]
    assert [line for file in files for line in file.read_text().splitlines()] == lines
    assert [len(file.read_text().splitlines()) for file in files] == [10, 10, 10]
    assert said(capsys) == []
    assert_all_written(asynclog, 30)


def test_the_log_is_copied_and_truncated(make_app: AppMaker, capsys: pytest.CaptureFixture[str]) -> None:
    """logrotate's ``copytruncate``: the file is filled from its start again, without a hole."""
    app, asynclog = make_app(format="%(message)s")
    lines = write(app, 0, 10)
    assert asynclog.flush()
    shutil.copy(LOG, "copy")
    os.truncate(LOG, 0)
    lines += write(app, 10, 10)
    assert asynclog.flush()
    assert Path("copy").read_text().splitlines() == lines[:10]
    assert log_lines(LOG) == lines[10:]
    assert said(capsys) == []
    assert_all_written(asynclog, 20)


@pytest.mark.parametrize("recreated", [True, False])
def test_the_directory_is_removed(make_app: AppMaker, recreated: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """With all in it; whether or not somebody makes it again, later records are in a new file there."""
    path = Path("logs/deep/app.log")
    app, asynclog = make_app(filename=path, format="%(message)s", max_bytes=1000, backup_count=50)
    write(app, 0, 100)
    assert asynclog.flush()
    shutil.rmtree("logs")
    if recreated:
        path.parent.mkdir(parents=True)
    lines = write(app, 100, 100)
    assert asynclog.flush(HANG)
    assert log_lines(path) == lines
    assert said(capsys) == []
    assert_all_written(asynclog, 200)


def test_the_directory_is_gone_and_cannot_be_made(make_app: AppMaker, capsys: pytest.CaptureFixture[str]) -> None:
    """Records wait in the queue until it can."""
    path = Path("logs/app.log")
    app, asynclog = make_app(filename=path, format="%(message)s")
    lines = write(app, 0, 10)
    assert asynclog.flush()
    path.parent.rename("moved")
    Path("logs").write_text("a file in its place")
    lines += write(app, 10, 1000)
    broken(asynclog)
    assert asynclog.stats().written == 10
    Path("logs").unlink()
    assert asynclog.flush(HANG)
    assert log_lines(Path("moved/app.log")) + log_lines(path) == lines
    assert_broke_and_healed(said(capsys), os.strerror(errno.ENOTDIR), path)
    assert_all_written(asynclog, len(lines))


@pytest.mark.parametrize("path", [LOG, LOCK])
@pytest.mark.parametrize("target", ["small", "larger than the limit", "missing", "the log itself"])
def test_a_symbolic_link_swapped_in_is_not_followed(
    make_app: AppMaker, path: Path, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written through it, nor is it rotated; records wait until it is removed, then all of them arrive."""
    app, asynclog = make_app(format="%(message)s", max_bytes=20_000, backup_count=10)
    lines = write(app, 0, 10)
    assert asynclog.flush()
    path.rename("aside")
    victim = Path({"the log itself": "aside"}.get(target, "victim"))
    if target == "small":
        victim.write_text("untouched\n")
    elif target == "larger than the limit":
        victim.write_text("untouched\n" * 10_000)
    content = victim.read_bytes() if victim.exists() else None
    path.symlink_to(victim)
    lines += write(app, 10, 100)
    broken(asynclog)
    assert (victim.read_bytes() if victim.exists() else None) == content
    assert path.is_symlink()
    path.unlink()
    Path("aside").rename(path)
    assert asynclog.flush(HANG)
    assert log_lines(LOG) == lines
    assert not any(file.is_symlink() for file in log_files(LOG))
    assert_broke_and_healed(said(capsys), f"{os.strerror(errno.ELOOP)}: '{path.absolute()}'")
    assert_all_written(asynclog, len(lines))


@pytest.mark.parametrize("path", [LOG, LOCK])
def test_a_fifo_swapped_in_is_not_waited_for(
    make_app: AppMaker, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody reads from it; records wait until it is removed."""
    app, asynclog = make_app(format="%(message)s")
    lines = write(app, 0, 10)
    assert asynclog.flush()
    path.rename("aside")
    os.mkfifo(path)
    lines += write(app, 10, 100)
    broken(asynclog)
    path.unlink()
    Path("aside").rename(path)
    assert asynclog.flush(HANG)
    assert log_lines(LOG) == lines
    assert_broke_and_healed(said(capsys), "not a regular file")
    assert_all_written(asynclog, len(lines))


# The file cannot be rotated.


def assert_rotation_broke_and_healed(lines: list[str], reason: str, path: Path) -> None:
    breaking, healing = lines
    assert breaking.startswith(f"cannot rotate {path.absolute()}: "), breaking
    assert reason in breaking, breaking
    assert "it grows beyond 1000 bytes until" in breaking
    assert healing == f"{path.absolute()} is rotated again"


def test_a_rotation_that_fails_is_said_once_and_loses_nothing(
    make_app: AppMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    """A directory is where the rotated file should go: the live file grows; rotation resumes when it is gone."""
    app, asynclog = make_app(format="%(message)s", max_bytes=1000, backup_count=1)
    Path("app.log.1/not empty").mkdir(parents=True)
    lines: list[str] = []
    for part in range(5):
        lines += write(app, part * 20, 20)
        assert asynclog.flush()
    assert LOG.read_text().splitlines() == lines
    assert LOG.stat().st_size > 5000
    shutil.rmtree("app.log.1")
    last = write(app, 100, 10)
    assert asynclog.flush()
    assert log_lines(LOG) == lines + last
    assert_rotation_broke_and_healed(said(capsys), os.strerror(errno.EISDIR), LOG)
    assert_all_written(asynclog, 110)


@pytest.mark.skipif(is_root(), reason="permissions do not bind root")
def test_a_rotation_in_a_read_only_directory_is_said_once_and_loses_nothing(
    make_app: AppMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    """The parent class would be silent about it."""
    path = Path("logs/app.log")
    app, asynclog = make_app(filename=path, format="%(message)s", max_bytes=1000, backup_count=100)
    path.parent.chmod(0o500)
    lines: list[str] = []
    try:
        for part in range(5):
            lines += write(app, part * 20, 20)
            assert asynclog.flush()
    finally:
        path.parent.chmod(0o700)
    assert path.read_text().splitlines() == lines
    lines += write(app, 100, 10)
    assert asynclog.flush()
    assert log_lines(path) == lines
    assert_rotation_broke_and_healed(said(capsys), os.strerror(errno.EACCES), path)
    assert_all_written(asynclog, 110)


# A formatter, a filter or a handler raises.


class Pipeline:
    """The parts put together by hand: a logger, the queue, the listener, and the file behind it."""

    def __init__(self, *handlers: logging.Handler) -> None:
        self.file = BatchRotatingFileHandler(LOG)
        self.file.setFormatter(logging.Formatter("%(message)s"))
        self.queue = RecordQueue()
        self.listener = BatchQueueListener(self.queue, *handlers, self.file, flush_interval=0.01)
        self.logger = logging.Logger("pipeline", logging.INFO)
        self.logger.addHandler(AsyncQueueHandler(self.queue))

    def log(self, count: int, bad: Callable[[int], bool]) -> None:
        for n in range(count):
            self.logger.info("%s %d", "bad" if bad(n) else "good", n)

    def stop(self) -> None:
        self.listener.stop(HANG)
        self.file.close()
        for handler in self.logger.handlers:
            handler.close()


@pytest.fixture
def make_pipeline() -> Iterator[Callable[..., Pipeline]]:
    made: list[Pipeline] = []

    def make(*handlers: logging.Handler) -> Pipeline:
        made.append(Pipeline(*handlers))
        return made[-1]

    yield make
    for pipeline in made:
        pipeline.stop()


def is_bad(n: int) -> bool:
    return n % 7 == 3


BAD = [f"bad {n}" for n in range(1000) if is_bad(n)]
GOOD = [f"good {n}" for n in range(1000) if not is_bad(n)]
EXCEPTIONS = [ValueError, OSError, MemoryError, SystemExit, KeyboardInterrupt]


def raise_if_bad(record: logging.LogRecord, exception: type[BaseException]) -> None:
    if record.getMessage().startswith("bad"):
        raise exception("no bad ones")


@pytest.mark.parametrize("exception", EXCEPTIONS)
def test_a_sink_that_raises_costs_nobody_else_a_record(
    make_pipeline: Callable[..., Pipeline], exception: type[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever it raises: the file behind it gets all records, the thread goes on, the count is exact, said once."""
    taken: list[str] = []

    class Raising(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise_if_bad(record, exception)
            taken.append(record.getMessage())
            return True

    pipeline = make_pipeline(Raising())
    pipeline.log(1000, is_bad)
    pipeline.listener.flush(HANG)
    assert taken == GOOD
    assert sorted(log_lines(LOG)) == sorted(GOOD + BAD)
    stats = pipeline.queue.stats()
    assert_conserved(stats)
    assert (stats.written, stats.failed) == (len(GOOD), len(BAD))
    (line,) = said(capsys)
    assert line.startswith(f"Raising failed on a record: {exception.__name__}: no bad ones")


@pytest.mark.parametrize("exception", EXCEPTIONS)
def test_a_filter_that_raises_costs_its_own_record_only(
    make_pipeline: Callable[..., Pipeline], exception: type[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    """A filter on the file's handler."""
    pipeline = make_pipeline()

    def filter_(record: logging.LogRecord) -> bool:
        raise_if_bad(record, exception)
        return True

    pipeline.file.addFilter(filter_)
    pipeline.log(1000, is_bad)
    pipeline.listener.flush(HANG)
    assert log_lines(LOG) == GOOD
    stats = pipeline.queue.stats()
    assert_conserved(stats)
    assert (stats.written, stats.failed) == (len(GOOD), len(BAD))
    (line,) = said(capsys)
    assert line.startswith(f"{LOG.absolute()} failed on a record: {exception.__name__}: no bad ones")


@pytest.mark.parametrize("exception", EXCEPTIONS)
def test_a_formatter_that_raises_costs_no_good_record(
    make_pipeline: Callable[..., Pipeline], exception: type[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    """What it raises an Exception for is written in the default format, with the reason; only an exit is lost."""

    class Raising(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            raise_if_bad(record, exception)
            return super().format(record)

    pipeline = make_pipeline()
    pipeline.file.setFormatter(Raising("%(message)s"))
    pipeline.log(1000, is_bad)
    pipeline.listener.flush(HANG)
    lines = log_lines(LOG)
    assert [line for line in lines if line.startswith("good")] == GOOD
    rescued = [line for line in lines if not line.startswith("good")]
    stats = pipeline.queue.stats()
    assert_conserved(stats)
    if issubclass(exception, Exception):
        assert [line.partition(" - INFO - ")[2] for line in rescued] == [
            f"{message} [not formatted: {exception.__name__}: no bad ones]" for message in BAD
        ]
        assert stats.failed == 0
    else:
        assert rescued == []
        assert stats.failed == len(BAD)
    assert len(said(capsys)) == 1


def test_a_sink_of_lines_that_raises_fails_its_batch_and_no_other(
    make_pipeline: Callable[..., Pipeline], capsys: pytest.CaptureFixture[str]
) -> None:
    """Something else than an OSError out of ``write_batch`` is not tried again: the batch counts as failed."""
    taken: list[str] = []

    class Lines(logging.Handler):
        def format_batch(self, records: list[logging.LogRecord]) -> list[str]:
            return [self.format(record) for record in records]

        def write_batch(self, lines: list[str]) -> int:
            if "bad 1" in lines:
                raise SystemExit("no")
            taken.extend(lines)
            return len(lines)

    pipeline = make_pipeline(Lines())
    for number, message in enumerate(["good 0", "bad 1", "good 2"]):
        pipeline.logger.info(message)
        assert pipeline.listener.flush(HANG) is (number != 1)
    assert taken == ["good 0", "good 2"]
    assert log_lines(LOG) == ["good 0", "bad 1", "good 2"]
    stats = pipeline.queue.stats()
    assert_conserved(stats)
    assert (stats.written, stats.failed) == (2, 1)
    assert len(said(capsys)) == 1


@pytest.mark.parametrize("renames_first", [False, True])
def test_a_rotator_that_raises_is_said_once_and_loses_nothing(
    make_pipeline: Callable[..., Pipeline], renames_first: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before or after its work is done. While nothing is renamed the live file grows; no rotated one does."""
    pipeline = make_pipeline()
    pipeline.file.maxBytes = 1000

    def rotator(source: str, target: str) -> None:
        if renames_first:
            os.rename(source, target)
        raise RuntimeError("not now")

    pipeline.file.rotator = rotator
    for _ in range(3):
        pipeline.log(100, lambda n: False)
        assert pipeline.listener.flush(HANG)
    assert len(log_files(LOG)) > 1 if renames_first else len(log_files(LOG)) == 1
    pipeline.file.rotator = os.rename
    pipeline.log(100, lambda n: False)
    assert pipeline.listener.flush(HANG)
    assert log_lines(LOG) == [f"good {n}" for n in range(100)] * 4
    if renames_first:
        assert max(file.stat().st_size for file in log_files(LOG)) <= 1000
    assert_rotation_broke_and_healed(said(capsys), "RuntimeError: not now", LOG)
    assert_conserved(pipeline.queue.stats())
