"""A full queue in front of a file that cannot be written: what is dropped, how it is counted and reported."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask

from flask_asynclog import AsyncLog, Stats, dropreport
from support import HANG, assert_conserved, log_lines, wait_for

MakeApp = Callable[..., tuple[Flask, AsyncLog]]

#: The line about drops: how many since the last one, then the counts since the start.
REPORT = re.compile(r" - flask_asynclog - WARNING - dropped ([\d,]+) records; in all so far: (.*)\n")


@contextlib.contextmanager
def held() -> Iterator[None]:
    """The lock of the log is with somebody else."""
    with open(".__app.lock", "a", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def stuck(asynclog: AsyncLog) -> None:
    """Have the listener take one record and fail to write it: the queue behind it is empty, and stays as it gets."""
    assert asynclog.flush(HANG)
    retries = asynclog.stats().retries
    logging.getLogger("overflow.first").error("in hand")
    wait_for(lambda: asynclog.stats().retries > retries)


def reports() -> list[tuple[int, str]]:
    """All reports of drops in the log, so far: how many are new, and the counts."""
    # Not `log_lines`: who reads while somebody writes may see half of a write.
    found = REPORT.findall(Path("app.log").read_text())
    return [(int(new.replace(",", "")), counts) for new, counts in found]


def messages() -> list[str]:
    """What the test logged, as it stands in the log."""
    lines = (line.split(" - ", 3) for line in log_lines(Path("app.log")))
    return [message for _, name, _, message in lines if name == "overflow"]


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """The logger whose records `messages` returns."""
    logger = logging.getLogger("overflow")
    yield logger
    logger.propagate = True


def small(make_app: MakeApp, **options: object) -> AsyncLog:
    """An app with a queue for 100 records and a short patience with the lock."""
    defaults = {"loggers": ["overflow"], "queue_size": 100, "lock_timeout": 0.01, "block_timeout": 0.0}
    _, asynclog = make_app(**(defaults | options))
    logging.getLogger("overflow").propagate = False  # pytest need not collect so many
    return asynclog


@pytest.mark.parametrize("overflow", ["drop_new", "drop_old", "block"])
def test_a_thousand_overflows(make_app: MakeApp, logger: logging.Logger, overflow: str) -> None:
    """1,000 records too many: exact counts, and one line in the log that says so, by itself, once writing resumes."""
    asynclog = small(make_app, overflow=overflow)
    with held():
        stuck(asynclog)
        for number in range(1080):
            logger.info("%d", number)
        stats = asynclog.stats()
        assert (stats.accepted, stats.dropped, stats.pending, stats.written) == (1081, 1000, 81, 0)
    wait_for(reports)
    assert reports() == [(1000, "1,000 INFO (queue full)")]
    kept = range(1000, 1080) if overflow == "drop_old" else range(80)
    assert messages() == [str(number) for number in kept]
    assert asynclog.stop(HANG)
    stats = asynclog.stats()
    assert_conserved(stats)
    assert stats.dropped == 1000
    assert stats.dropped_by == {"queue_full": {"INFO": 1000}}
    assert stats.written == len(log_lines(Path("app.log"))) == 1 + 80 + 1
    assert len(reports()) == 1


@pytest.mark.parametrize("overflow", ["drop_new", "block"])
def test_warnings_have_the_last_fifth(make_app: MakeApp, logger: logging.Logger, overflow: str) -> None:
    """Records below WARNING are refused from 80 % on, WARNING and above only when the queue is full."""
    asynclog = small(make_app, overflow=overflow)
    with held():
        stuck(asynclog)
        for number in range(80):
            logger.info("info %d", number)
        assert asynclog.stats().dropped == 0
        logger.info("one too many")
        assert asynclog.stats().dropped_by == {"queue_full": {"INFO": 1}}
        for number, level in enumerate([logging.WARNING, logging.ERROR, logging.CRITICAL, logging.WARNING] * 5):
            logger.log(level, "warning %d", number)
        assert asynclog.stats().dropped == 1
        logger.warning("one too many")
        logger.critical("one too many")
        expected = {"queue_full": {"INFO": 1, "WARNING": 1, "CRITICAL": 1}}
        assert asynclog.stats().dropped_by == expected
    assert asynclog.flush(HANG)
    assert messages() == [f"info {n}" for n in range(80)] + [f"warning {n}" for n in range(20)]
    wait_for(reports)
    assert reports() == [(3, "1 INFO (queue full), 1 WARNING (queue full), 1 CRITICAL (queue full)")]
    assert asynclog.stop(HANG)
    assert_conserved(asynclog.stats())


def test_drop_old_keeps_the_newest(make_app: MakeApp, logger: logging.Logger) -> None:
    """Under ``drop_old`` the oldest records below WARNING go; with none of them left, the oldest of the others."""
    asynclog = small(make_app, overflow="drop_old")
    with held():
        stuck(asynclog)
        for number in range(90):
            logger.info("info %d", number)
        assert asynclog.stats().dropped_by == {"queue_full": {"INFO": 10}}
        for number in range(50):
            logger.warning("warning %d", number)
        assert asynclog.stats().dropped_by == {"queue_full": {"INFO": 40}}
        for number in range(50, 105):
            logger.warning("warning %d", number)
        assert asynclog.stats().dropped_by == {"queue_full": {"INFO": 90, "WARNING": 5}}
        logger.info("nothing below WARNING is left to make room for it")
    assert asynclog.flush(HANG)
    assert messages() == [f"warning {number}" for number in range(5, 105)]
    assert asynclog.stop(HANG)
    stats = asynclog.stats()
    assert_conserved(stats)
    assert stats.dropped_by == {"queue_full": {"INFO": 91, "WARNING": 5}}


def test_block_waits_for_room(make_app: MakeApp, logger: logging.Logger) -> None:
    """Under ``block`` a call that finds the queue full returns once there is room, and nothing is lost."""
    asynclog = small(make_app, overflow="block", block_timeout=60)
    with held():
        stuck(asynclog)
        for number in range(80):
            logger.info("%d", number)
        caller = threading.Thread(target=logger.info, args=("last",))
        caller.start()
        caller.join(0.1)  # it waits by now, as a rule
        assert caller.is_alive()
        assert asynclog.stats().dropped == 0
    started = time.monotonic()
    caller.join(HANG)
    assert time.monotonic() - started < 30
    assert asynclog.stop(HANG)
    assert messages() == [*map(str, range(80)), "last"]
    stats = asynclog.stats()
    assert_conserved(stats)
    assert stats.dropped == 0


def test_block_waits_no_longer_than_asked(make_app: MakeApp, logger: logging.Logger) -> None:
    """Under ``block`` a call gives up after ``block_timeout``; its record is counted as dropped."""
    asynclog = small(make_app, overflow="block", block_timeout=0.2)
    with held():
        stuck(asynclog)
        for number in range(80):
            logger.info("%d", number)
        started = time.monotonic()
        logger.info("one too many")
        assert 0.2 <= time.monotonic() - started < 30
        assert asynclog.stats().dropped == 1
    assert asynclog.stop(HANG)
    assert messages() == [str(number) for number in range(80)]
    assert_conserved(asynclog.stats())


def test_nothing_waits_but_block(make_app: MakeApp, logger: logging.Logger) -> None:
    """Unless asked to wait, no call does: 20,000 calls on a full queue behind a held lock, however long it is held."""
    asynclog = small(make_app, block_timeout=60)
    with held():
        stuck(asynclog)
        for _ in range(10_000):
            logger.info("info")
            logger.error("error")
        assert asynclog.stats().written == 0
    assert asynclog.stop(HANG)
    stats = asynclog.stats()
    assert_conserved(stats)
    assert stats.dropped_by == {"queue_full": {"INFO": 10_000 - 40, "ERROR": 10_000 - 60}}


@pytest.mark.parametrize("overflow", ["drop_new", "drop_old", "block"])
def test_many_threads_on_a_small_queue(make_app: MakeApp, logger: logging.Logger, overflow: str) -> None:
    """4 threads that log faster than the file is written: what is in the log is what was counted as written."""
    asynclog = small(make_app, overflow=overflow, queue_size=50, block_timeout=0.001, lock_timeout=5)
    threads, each = 4, 5000

    def log(thread: int) -> None:
        for number in range(each):
            logger.log(logging.WARNING if number % 10 == 0 else logging.INFO, "%d-%d", thread, number)

    workers = [threading.Thread(target=log, args=(thread,)) for thread in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(HANG)
    assert asynclog.stop(HANG)
    stats = asynclog.stats()
    assert_conserved(stats)
    found = messages()
    assert len(set(found)) == len(found), "a record came twice"
    assert stats.written == len(log_lines(Path("app.log"))) == len(found) + len(reports())
    assert stats.accepted == threads * each + len(reports())
    assert threads * each == len(found) + stats.dropped
    assert sum(new for new, _ in reports()) == stats.dropped
    for thread in range(threads):
        numbers = [int(message.split("-")[1]) for message in found if message.startswith(f"{thread}-")]
        assert numbers == sorted(numbers)


def test_drops_that_go_on_are_reported_now_and_then(
    make_app: MakeApp, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While drops go on there is a report every so many seconds; together they tell of every drop."""
    monkeypatch.setattr(dropreport, "REPORT_EVERY", 0.3)
    monkeypatch.setattr(dropreport, "REPORT_QUIET", HANG)
    asynclog = small(make_app, queue_size=1, flush_interval=0.0)
    deadline = time.monotonic() + HANG
    while len(reports()) < 3:
        for _ in range(100):
            logger.info("one of many")
        assert time.monotonic() < deadline
    assert asynclog.stop(HANG)
    stats = asynclog.stats()
    assert_conserved(stats)
    assert sum(new for new, _ in reports()) == stats.dropped
    assert reports()[-1][1] == f"{stats.dropped:,} INFO (queue full)"


def test_each_time_of_overflow_is_reported_once(make_app: MakeApp, logger: logging.Logger) -> None:
    """Two times of overflow with a recovery between: two lines, each with its own number, the second with both."""
    asynclog = small(make_app)
    for turn, drops in enumerate((7, 20), start=1):
        with held():
            stuck(asynclog)
            for number in range(80 + drops):
                logger.info("%d", number)
        wait_for(lambda: len(reports()) == turn)  # noqa: B023
    assert reports() == [(7, "7 INFO (queue full)"), (20, "27 INFO (queue full)")]
    assert asynclog.stop(HANG)
    assert_conserved(asynclog.stats())


def test_without_drops_there_is_no_report(make_app: MakeApp, logger: logging.Logger) -> None:
    """A queue that was full to the last place, but not beyond, has nothing to report."""
    asynclog = small(make_app)
    with held():
        stuck(asynclog)
        for number in range(80):
            logger.info("%d", number)
        for number in range(20):
            logger.error("%d", number)
    assert asynclog.stop(HANG)
    assert reports() == []
    stats = asynclog.stats()
    assert_conserved(stats)
    assert stats == Stats(accepted=101, written=101, batches=stats.batches, retries=stats.retries)
