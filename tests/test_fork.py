"""Forks at any moment: a child hangs never, starts at zero, logs by itself, and writes nothing of its parent's."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from support import PRINT_STATS, assert_conserved, log_files, log_lines, read_stats, run_python

STORM = """
import atexit, gc, logging, os, signal, sys, threading, time, warnings
from flask import Flask
from flask_asynclog import AsyncLog

warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*multi-threaded.*fork")
FORKS, TOGETHER, PATIENCE = 500, 4, 60

asynclog = AsyncLog(
    Flask("storm"), filename="storm.log", format="%(message)s", flush_interval=0.001, queue_size=2000,
    max_bytes=100_000, backup_count=1000,
)
logger = logging.getLogger("storm")
done = False

def log(name):
    number = 0
    while not done:
        logger.log(logging.ERROR if number % 100 == 0 else logging.INFO, "parent %s %d", name, number)
        number += 1
        if number % 50 == 0:
            time.sleep(0.0005)  # let the forks have the GIL as well

sys.setswitchinterval(0.0005)  # or the forks would wait for the three threads most of the time
gc.freeze()  # cheaper forks, as in servers that fork
threads = [threading.Thread(target=log, args=(name,), daemon=True) for name in "abc"]
for thread in threads:
    thread.start()

def child(number):
    stats = asynclog.stats()
    if (stats.accepted, stats.written, stats.dropped, stats.failed, stats.pending) != (0, 0, 0, 0, 0):
        os._exit(10)
    logger.info("child %d", number)
    if number % 2:
        if not asynclog.flush(PATIENCE):
            os._exit(11)
    elif number % 20:
        atexit._run_exitfuncs()  # all of an ordinary end that matters here, in a tenth of the time
    else:
        sys.exit(0)
    stats = asynclog.stats()
    os._exit(0 if (stats.accepted, stats.written) == (1, 1) else 12)

running, statuses, hung = {}, {}, 0

def reap(limit):
    global hung
    while len(running) >= limit:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            number, _ = running.pop(pid)
            statuses[status] = statuses.get(status, 0) + 1
            continue
        for pid, (number, started) in running.items():
            if time.monotonic() - started > PATIENCE:
                hung += 1
                print("child", number, "hangs", flush=True)
                os.kill(pid, signal.SIGKILL)
                running[pid] = number, time.monotonic()
        time.sleep(0.0005)

for number in range(FORKS):
    if number % 10 == 0:
        asynclog.stop(0.05)  # forks while a thread starts are to be seen, too
    pid = os.fork()
    if pid == 0:
        child(number)
    running[pid] = number, time.monotonic()
    reap(TOGETHER)
reap(1)
done = True
for thread in threads:
    thread.join()
assert asynclog.stop(60)
print("STATUSES", statuses, "HUNG", hung)
print_stats(asynclog.stats())
"""


@pytest.mark.parametrize("part", range(1, 5))
def test_two_thousand_forks_in_the_midst_of_logging(tmp_path: Path, part: int) -> None:
    """Every child of a process whose threads log without pause logs its one record; nobody's record comes twice.

    2,000 forks in four parts.
    """
    result = run_python(PRINT_STATS + STORM, cwd=tmp_path)
    assert "STATUSES {0: 500} HUNG 0\n" in result.stdout
    # A stop with so short a deadline may find the lock with a child, and gives up what waits.
    said = re.findall(" does not take records: LockTimeout| takes records again| were not written", result.stderr)
    assert len(result.stderr.splitlines()) == len(said), result.stderr
    stats = read_stats(result.stdout)
    assert_conserved(stats)
    path = tmp_path / "storm.log"
    files = log_files(path)
    assert 2 < len(files) < 1000, "rotated, and nothing rotated away"
    assert max(file.stat().st_size for file in files) <= 100_000
    lines = log_lines(path)
    assert [line for line, count in Counter(lines).items() if count > 1] == []
    assert {line for line in lines if line.startswith("child ")} == {f"child {number}" for number in range(500)}
    parents = [line for line in lines if not line.startswith("child ")]
    assert len(parents) == stats["written"]
    known = sum("dropped" in line for line in parents)
    for name in "abc":
        numbers = [int(line.split()[2]) for line in parents if line.startswith(f"parent {name} ")]
        assert numbers == sorted(numbers)
        known += len(numbers)
    assert known == len(parents), "a line of nobody"


INHERITED = """
import fcntl, logging, os, sys, time
from flask import Flask
from flask_asynclog import AsyncLog

asynclog = AsyncLog(Flask("fork"), format="%(message)s", lock_timeout=0.05, shutdown_timeout=60)
logger = logging.getLogger("fork")
with open(".__app.lock", "a") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    for number in range(1000):
        logger.info("parent %d", number)
    while not asynclog.stats().retries:
        time.sleep(0.001)
    assert asynclog.stats().pending == 1000
    pid = os.fork()
    if pid == 0:
        lock.close()  # leaves the lock with the parent
        assert asynclog.stats().accepted == 0
        LOG
        sys.exit(0)
    CHECK
_, status = os.waitpid(pid, 0)
assert status == 0, status
assert asynclog.stop(60)
print_stats(asynclog.stats())
"""


@pytest.mark.parametrize("logs", [True, False], ids=["a child that logs", "a child that does not"])
def test_a_full_queue_at_a_fork(tmp_path: Path, logs: bool) -> None:
    """The records that wait when a process forks are the parent's: it writes them, once; the child does not."""
    code = INHERITED.replace("LOG\n", 'logger.info("child")\n' if logs else "pass\n").replace("CHECK\n", "pass\n")
    result = run_python(PRINT_STATS + code, cwd=tmp_path)
    stats = read_stats(result.stdout)
    assert_conserved(stats)
    assert stats["written"] == 1000
    lines = log_lines(tmp_path / "app.log")
    assert [line for line in lines if line != "child"] == [f"parent {number}" for number in range(1000)]
    assert lines.count("child") == logs


def test_the_parent_ends_before_it_could_write(tmp_path: Path) -> None:
    """A parent that gives up its records takes none from the child, which writes its own once the lock is free."""
    code = INHERITED.replace("LOG\n", 'logger.info("child")\n')
    code = code.replace(
        "CHECK\n", 'print("given up", asynclog.stop(0.1) is False)\n    print_stats(asynclog.stats())\n'
    )
    code = code.replace("assert asynclog.stats().written in (0, 1000)\n", "")
    result = run_python(PRINT_STATS + code, cwd=tmp_path)
    assert result.stdout.startswith("given up True\n")
    stats = read_stats(result.stdout)
    assert_conserved(stats)
    assert (stats["accepted"], stats["failed"]) == (1000, 1000)
    assert log_lines(tmp_path / "app.log") == ["child"]


LOCK_HELD = """
import logging, os, sys, threading
from flask import Flask
from flask_asynclog import AsyncLog

app = Flask("fork")
asynclog = AsyncLog(app, format="%(message)s", flush_interval=0.001, max_bytes=1000, backup_count=100, lock_timeout=60)
logger = logging.getLogger("fork")
parent, rotating, may_rotate = os.getpid(), threading.Event(), threading.Event()

def rotator(source, target):
    if os.getpid() == parent and not may_rotate.is_set():
        rotating.set()
        assert may_rotate.wait(60)
    os.replace(source, target)

app.extensions["asynclog"].pipeline.sink.rotator = rotator
for number in range(50):
    logger.info("parent %03d %s", number, 20 * "-")
assert rotating.wait(60)  # the listener holds the lock, in the midst of a rotation

pids, ends = [], []
for child in range(3):
    reader, writer = os.pipe()
    ends.append(reader)
    pids.append(os.fork())
    if pids[-1] == 0:
        for number in range(50):
            logger.info("child %d %03d %s", child, number, 20 * "-")
        os.write(writer, b"F" if asynclog.flush(0.2) else b".")  # the lock is still the parent's
        sys.exit(0 if asynclog.stop(60) else 1)
    os.close(writer)
answers = [os.read(reader, 1) for reader in ends]
assert asynclog.flush(0.0) is False
may_rotate.set()
statuses = [os.waitpid(pid, 0)[1] for pid in pids]
assert asynclog.stop(60)
print("ANSWERS", answers, "STATUSES", statuses)
print_stats(asynclog.stats())
"""


def test_a_fork_while_the_listener_holds_the_lock(tmp_path: Path) -> None:
    """Children made in the midst of the parent's rotation wait for their turn, and do not take its lock away."""
    result = run_python(PRINT_STATS + LOCK_HELD, cwd=tmp_path)
    assert "ANSWERS [b'.', b'.', b'.'] STATUSES [0, 0, 0]\n" in result.stdout
    assert "flask_asynclog[" not in result.stderr
    assert_conserved(read_stats(result.stdout))
    lines = log_lines(tmp_path / "app.log")
    for name in ("parent", "child 0", "child 1", "child 2"):
        expected = [f"{name} {number:03d} {20 * '-'}" for number in range(50)]
        assert [line for line in lines if line.startswith(name)] == expected
    assert len(lines) == 200
    assert max(file.stat().st_size for file in log_files(tmp_path / "app.log")) <= 1000


FAMILY = """
import logging, os, sys, threading
from flask import Flask
from flask_asynclog import AsyncLog

asynclog = AsyncLog(Flask("fork"), format="%(message)s", flush_interval=60)
logger = logging.getLogger("fork")

def fork(function):
    pid = os.fork()
    if pid == 0:
        try:
            function()
        finally:
            os._exit(0 if asynclog.stop(60) and asynclog.stats().accepted == 1 else 1)
    return os.waitpid(pid, 0)[1]

def child():
    logger.info("child")
    assert fork(lambda: logger.info("grandchild")) == 0

logger.info("parent")
statuses = []
thread = threading.Thread(target=lambda: statuses.append(fork(child)))
thread.start()
thread.join()
statuses.append(fork(child))
print(statuses)
assert asynclog.stop(60)
print_stats(asynclog.stats())
"""


def test_children_of_threads_and_grandchildren(tmp_path: Path) -> None:
    """A child forked by a thread, and a child's child, each with records that wait, log as any other process."""
    result = run_python(PRINT_STATS + FAMILY, cwd=tmp_path)
    assert result.stdout.startswith("[0, 0]\n")
    stats = read_stats(result.stdout)
    assert_conserved(stats)
    assert stats["accepted"] == 1
    counts = Counter(log_lines(tmp_path / "app.log"))
    assert counts == {"parent": 1, "child": 2, "grandchild": 2}


JOBS = """
import logging, multiprocessing, sys
from flask import Flask
from flask_asynclog import AsyncLog

asynclog = AsyncLog(
    Flask("jobs"), format="%(message)s", flush_interval=60, max_bytes=2000, backup_count=1000, filename="jobs.log"
)
logger = logging.getLogger("jobs")

def work(number):
    for line in range(100):
        logger.info("child %d %d", number, line)
    return asynclog.stats().accepted

def processes(context):
    children = [context.Process(target=work, args=(number,)) for number in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(100)
    assert [child.exitcode for child in children] == 4 * [0]

def pool(context):
    with context.Pool(2) as pool:
        pool.map(work, range(4), chunksize=1)
        pool.close()
        pool.join()

def main(how, method):
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(sys.argv[1:])
    logger.info("parent")
    {"processes": processes, "pool": pool}[how](context)
"""


@pytest.mark.parametrize("how", ["processes", "pool"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver", "forkserver with the module preloaded"])
def test_multiprocessing(tmp_path: Path, method: str, how: str) -> None:
    """Children of `multiprocessing`, however they are made, drain when their function returns."""
    (tmp_path / "jobs.py").write_text(JOBS)
    method, _, preload = method.partition(" ")
    modules = ["jobs"] if preload else []
    result = run_python(f"import jobs; jobs.main({how!r}, {method!r})", *modules, cwd=tmp_path)
    assert "flask_asynclog[" not in result.stderr
    counts = Counter(log_lines(tmp_path / "jobs.log"))
    assert counts == {"parent": 1} | {f"child {n} {line}": 1 for n in range(4) for line in range(100)}
