"""Counters: exact whoever counts, and the law that ties them at every moment."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from flask_asynclog import AsyncLog, Stats
from flask_asynclog.queue import RecordQueue
from flask_asynclog.stats import Counter, Tally
from support import HANG, PRINT_STATS, assert_conserved, log_lines, read_stats, run_python, run_threads

MakeApp = Callable[..., tuple[Flask, AsyncLog]]
COUNTS = ("accepted", "written", "dropped", "failed", "pending", "batches", "retries")


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A logger whose records pytest does not collect, once a test has made it so."""
    logger = logging.getLogger("stats")
    yield logger
    logger.propagate = True


def test_a_counter_under_threads() -> None:
    """8 threads tick, another one reads: every tick gives another number, none is lost, the value never goes back."""
    counter = Counter()
    seen: list[int] = []
    numbers: list[list[int]] = [[] for _ in range(8)]
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            seen.append(counter.value)

    reader = threading.Thread(target=read)
    reader.start()
    run_threads(*(lambda mine=mine: mine.extend(counter.tick() for _ in range(20_000)) for mine in numbers))
    ended.set()
    reader.join(HANG)
    assert counter.value == 160_000
    assert sorted(itertools.chain(*numbers)) == list(range(160_000))
    assert seen == sorted(seen)


def test_drops_by_reason_and_level(switching: None) -> None:
    """Drops are counted for each reason and level; threads that count the first of a kind at once share it."""
    queue = RecordQueue()
    assert (queue.tally.drops.counts(), queue.tally.drops.total()) == ({}, 0)

    def refuse() -> None:
        for levelno in range(3000):
            queue.refuse(levelno, "unreadable")
        queue.refuse(logging.INFO, "queue_full")

    run_threads(*8 * [refuse])
    drops = queue.tally.drops
    assert drops.counts() == {("unreadable", n): 8 for n in range(3000)} | {("queue_full", logging.INFO): 8}
    assert drops.total() == 24_008
    assert_conserved(queue.stats())


def test_a_snapshot_names_levels() -> None:
    """`Stats.dropped_by` has the levels by name, those with names of their own and those without any."""
    queue = RecordQueue(1)
    for levelno in (logging.DEBUG, logging.INFO, 25, logging.INFO):
        queue.put(logging.makeLogRecord({"levelno": levelno}))
    stats = queue.stats()
    assert stats.dropped_by == {"queue_full": {"INFO": 2, "Level 25": 1}}
    assert (stats.accepted, stats.dropped, stats.pending) == (4, 3, 1)


def test_levels_of_one_name_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Stats.dropped_by` leaves none of them out."""
    for levelno in (25, 26):
        monkeypatch.setitem(logging._levelToName, levelno, "NOTICE")
    tally = Tally()
    for levelno in (25, 26, 26):
        tally.drops.tick("queue_full", levelno)
    assert tally.snapshot(lambda: 0).dropped_by == {"queue_full": {"NOTICE": 3}}


def test_a_look_in_the_midst_of_another() -> None:
    """Of another thread, or a signal handler: what the one has seen as accepted, the other does not take back."""
    tally = Tally()
    inner: list[Stats] = []

    def entered() -> int:
        inner.append(tally.snapshot(lambda: 7))
        return 5  # it was looked at before

    outer = tally.snapshot(entered)
    later = tally.snapshot(lambda: 6)  # one is on its way
    assert [stats.accepted for stats in (*inner, outer, later)] == [7, 7, 7]
    assert tally.snapshot(lambda: 8).accepted == 8


def test_the_law_holds_at_every_moment(make_app: MakeApp, logger: logging.Logger, switching: None) -> None:
    """Whoever looks, and when: accepted = written + dropped + failed + pending, and no count goes back."""

    class Choosy(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            if record.msg == "no":
                raise SystemExit("a formatter that wants to end the process")
            return super().format(record)

    _, asynclog = make_app(
        loggers=["stats"], queue_size=100, overflow="drop_old", flush_interval=0.0, format=Choosy("%(message)s")
    )
    logger.propagate = False
    seen: list[list[Stats]] = [[], []]
    ended = threading.Event()

    def look(seen: list[Stats]) -> None:
        while not ended.is_set():
            seen.append(asynclog.stats())

    def log() -> None:
        for number in range(4000):
            logger.log(logging.ERROR if number % 7 == 0 else logging.INFO, "no" if number % 5 == 0 else "yes")

    def log_and_stop() -> None:
        run_threads(log, log, log)
        asynclog.stop(HANG)
        ended.set()

    run_threads(partial(look, seen[0]), partial(look, seen[1]), log_and_stop)
    for stats in itertools.chain(*seen):
        assert stats.accepted == stats.written + stats.dropped + stats.failed + stats.pending
        assert stats.pending >= 0
        assert stats.dropped == sum(count for levels in stats.dropped_by.values() for count in levels.values())
    for earlier, later in itertools.chain(*map(itertools.pairwise, seen)):
        for name in ("accepted", "written", "dropped", "failed", "batches"):
            assert getattr(earlier, name) <= getattr(later, name)
    last = asynclog.stats()
    assert_conserved(last)
    assert last.failed > 0
    assert last.dropped > 0
    reports = sum(" records; in all so far: " in line for line in log_lines(Path("app.log")))
    assert last.accepted == 12_000 + reports
    assert last.written == len(log_lines(Path("app.log")))


stats = st.builds(
    Stats,
    **{name: st.integers(0, 10**6) for name in COUNTS},
    dropped_by=st.dictionaries(
        st.sampled_from(["queue_full", "unreadable"]),
        st.dictionaries(st.sampled_from(["INFO", "WARNING"]), st.integers(1, 100)),
    ),
)


@given(one=stats, other=stats)
def test_the_sum_of_two_queues(one: Stats, other: Stats) -> None:
    """Every count of a sum is the sum of the counts; the order does not matter; the summands stay as they are."""
    before = dataclasses.asdict(one), dataclasses.asdict(other)
    total = one + other
    assert total == other + one
    assert (dataclasses.asdict(one), dataclasses.asdict(other)) == before
    for name in COUNTS:
        assert getattr(total, name) == getattr(one, name) + getattr(other, name)
    for reason in {*one.dropped_by, *other.dropped_by, "never"}:
        for level in ("INFO", "WARNING"):
            parts = [part.dropped_by.get(reason, {}).get(level, 0) for part in (one, other, total)]
            assert parts[0] + parts[1] == parts[2]
    assert one + Stats() == one


def test_stats_cannot_be_changed() -> None:
    """A snapshot is what was: it has no way to be written to."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Stats().accepted = 1  # type: ignore[misc]


def test_stats_of_several_apps(make_app: MakeApp) -> None:
    """An extension sums up its apps' files; a file that two of them share counts once."""
    app, asynclog = make_app(filename="one.log", loggers=["one"])
    asynclog.init_app(Flask("same"), filename="one.log", loggers=["one"])
    asynclog.init_app(Flask("other"), filename="two.log", loggers=["two"])
    for _ in range(3):
        logging.getLogger("one").warning("x")
    logging.getLogger("two").warning("x")
    assert asynclog.flush(HANG)
    assert (asynclog.stats().accepted, asynclog.stats().written) == (4, 4)
    assert_conserved(asynclog.stats())
    assert app.extensions["asynclog"].stats().written == 3


def test_stats_without_a_pipeline() -> None:
    """Before any app, with the kill switch, and after `close`, all counts are zero."""
    asynclog = AsyncLog()
    assert asynclog.stats() == Stats()
    asynclog.init_app(Flask("off"), enabled=False)
    assert asynclog.stats() == Stats()
    asynclog.init_app(Flask("on"))
    logging.getLogger().warning("one")
    assert asynclog.stats().accepted == 1
    assert asynclog.close(HANG)
    assert asynclog.stats() == Stats()


UNREADABLE = """
import logging, sys, time
from flask_asynclog.handlers import AsyncQueueHandler
from flask_asynclog.listener import BatchQueueListener
from flask_asynclog.queue import RecordQueue

class Unreadable(AsyncQueueHandler):
    def prepare(self, record):
        raise ValueError("cannot be read")

queue = RecordQueue()
listener = BatchQueueListener(queue, logging.StreamHandler(sys.stdout))
logger = logging.getLogger("unreadable")
logger.addHandler(Unreadable(queue))
for _ in range(3):
    logger.error("one")
deadline = time.monotonic() + 10
while queue.stats().written == 0 and time.monotonic() < deadline:
    time.sleep(0.01)
listener.stop(60)
print_stats(queue.stats())
"""


def test_an_unreadable_record_is_counted_and_reported(tmp_path: Path) -> None:
    """A record that cannot be read is dropped: counted, said on stderr once, and reported in the log by itself."""
    result = run_python(PRINT_STATS + UNREADABLE, cwd=tmp_path)
    stats = read_stats(result.stdout)
    assert_conserved(stats)
    assert (stats["dropped"], stats["dropped_by"]) == (3, {"unreadable": {"ERROR": 3}})
    assert result.stdout.startswith("dropped 3 records; in all so far: 3 ERROR (unreadable)\n")
    assert stats["accepted"] == 4, "the three and the report"
    (line,) = result.stderr.splitlines()
    assert line.endswith("a record of logger 'unreadable' was dropped: ValueError: cannot be read")


INTERRUPTED = """
import logging, signal, time
from flask import Flask
from flask_asynclog import AsyncLog

class Interrupted(BaseException):
    pass

def on_alarm(signum, frame):
    global interrupts
    if armed:
        interrupts += 1
        raise Interrupted

asynclog = AsyncLog(Flask("interrupted"), format="%(message)s", flush_interval=0.0, queue_size=10_000_000)
logger = logging.getLogger("interrupted")
logger.info("first")
assert asynclog.flush(60)
armed, interrupts = False, 0
signal.signal(signal.SIGALRM, on_alarm)
signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
for _ in range(2000):
    try:
        armed = True
        while True:
            logger.info("x")
    except Interrupted:
        armed = False
    # The log goes on by itself.
    written = asynclog.stats().written
    logger.error("y")
    deadline = time.monotonic() + 20
    while asynclog.stats().written == written:
        assert time.monotonic() < deadline, f"asleep after {interrupts} interrupts: {asynclog.stats()}"
        time.sleep(0.00005)
signal.setitimer(signal.ITIMER_REAL, 0)
print(asynclog.stop(60), asynclog.stop(60))
print_stats(asynclog.stats())
"""


def test_an_exception_out_of_a_signal_handler(tmp_path: Path) -> None:
    """A timeout or Ctrl-C that hits in the middle of a logging call: its record counts wholly or not at all.

    And the log goes on.
    """
    result = run_python(PRINT_STATS + INTERRUPTED, cwd=tmp_path)
    stats = read_stats(result.stdout)
    assert_conserved(stats)
    assert stats["written"] == len(log_lines(tmp_path / "app.log"))
    assert result.stdout.startswith("True True\n")
    assert "not written" not in result.stderr
