"""Guarantee 2 and 7: whatever happens around it, a logging call returns, the app goes on, and logging recovers."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from flask_asynclog import drain, queuehandler
from flask_asynclog.delivery import SLICE_LEAST, SLICE_MOST, Delivery
from flask_asynclog.drain import LATE_PAUSE, RECORDS_IN_ONE_GO, SLICE_PAUSE
from flask_asynclog.entries import Entry
from flask_asynclog.queue import RecordQueue
from flask_asynclog.report import Once
from flask_asynclog.stats import Tally
from support import HANG, PRINT_STATS, assert_conserved, log_lines, read_stats, run_python

LOG = Path("app.log")


def messages() -> list[str]:
    """The messages in the file."""
    return [line.split(" - ", 3)[3] for line in log_lines(LOG)]


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_a_thread_that_could_not_be_started_is_started_by_the_next_record(
    make_app, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    """No memory, or a Ctrl-C in the middle of the start: nothing is lost, nothing stays broken."""
    app, asynclog = make_app()
    start = threading.Thread.start

    def start_once_in_vain(thread: threading.Thread) -> None:
        if thread.name == "flask_asynclog" and failing.pop():
            raise error
        start(thread)

    failing = [False, True]
    monkeypatch.setattr(threading.Thread, "start", start_once_in_vain)
    if error is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            app.logger.info("one")
    else:
        app.logger.info("one")
    app.logger.info("two")
    assert asynclog.flush(HANG)
    assert messages() == ["one", "two"]
    assert asynclog.stop(HANG)
    assert_conserved(asynclog.stats())
    assert capsys.readouterr().err.count("could not be woken") == (error is MemoryError)


def test_stop_in_a_signal_handler_amid_the_start_of_the_thread_returns(tmp_path: Path) -> None:
    """The handler interrupts the very thread that is starting ours: stop() does not wait for it for ever."""
    result = run_python(
        PRINT_STATS
        + """
import os, signal, threading
from flask import Flask
from flask_asynclog import AsyncLog
app = Flask("demo")
asynclog = AsyncLog(app)
signal.signal(signal.SIGUSR1, lambda *_: print("stopped", asynclog.stop(2), flush=True))
start = threading.Thread.start
def interrupted(thread):
    os.kill(os.getpid(), signal.SIGUSR1)
    start(thread)
threading.Thread.start = interrupted
app.logger.info("one")
assert asynclog.flush(60)
print_stats(asynclog.stats())
""",
        cwd=tmp_path,
    )
    assert "stopped True" in result.stdout
    stats = read_stats(result.stdout)
    assert stats["written"] == 1
    assert_conserved(stats)


def test_what_refers_to_itself_costs_a_bounded_copy(make_app) -> None:
    """Objects that all refer to each other would be copied n to the power of 8 times: the copy has a budget."""
    app, asynclog = make_app(format="json")
    nodes: list[dict[str, object]] = [{"id": number} for number in range(100)]
    for node in nodes:
        node["peers"] = nodes
    app.logger.info("a graph", extra={"node": nodes[0], "rows": list(range(1_000_000)), "after": {"kept": 1}})
    assert asynclog.flush(HANG)
    (line,) = log_lines(LOG)
    assert len(line) < 1_000_000
    assert line.count("…") > 0
    assert_conserved(asynclog.stats())


def test_a_filter_that_raises_costs_its_record_only(
    make_app, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the caller: the view does not see it, the record is counted, it is said once."""
    monkeypatch.setattr(queuehandler, "_once", Once())  # whatever other tests had said
    app, asynclog = make_app(request_events=())

    def broken(record: logging.LogRecord) -> bool:
        if "bad" in record.getMessage():
            raise ValueError("a broken filter")
        return True

    (handler,) = [one for one in logging.getLogger().handlers if type(one).__module__.startswith("flask_asynclog")]
    handler.addFilter(broken)
    for message in ("good", "bad", "bad", "good"):
        app.logger.info(message)
    assert asynclog.stop(HANG)
    assert [message for message in messages() if "dropped" not in message] == ["good", "good"]
    assert asynclog.stats().dropped_by == {"unreadable": {"INFO": 2}}
    assert_conserved(asynclog.stats())
    assert capsys.readouterr().err.count("a broken filter") == 1


def test_a_stuck_stderr_holds_up_neither_the_file_nor_the_exit(tmp_path: Path) -> None:
    """A pipe that nobody reads, as stderr, with the console on: the file has all records, the process ends."""
    reading, writing = os.pipe()
    try:
        result = run_python(
            PRINT_STATS
            + """
from flask import Flask
from flask_asynclog import AsyncLog
app = Flask("demo")
asynclog = AsyncLog(app, console=True, shutdown_timeout=60)
for number in range(5000):
    app.logger.info("record %d %s", number, "x" * 100)
assert asynclog.flush(60)
print_stats(asynclog.stats())
app.logger.info("at the end")
""",
            cwd=tmp_path,
            stderr=writing,
        )
    finally:
        os.close(reading)
        os.close(writing)
    stats = read_stats(result.stdout)
    assert stats["written"] == 5000
    assert_conserved(stats)
    assert len(log_lines(tmp_path / "app.log")) == 5001


def test_all_files_are_drained_at_exit_at_the_same_time(tmp_path: Path) -> None:
    """Three files whose locks are held: each says its loss, all within one time-out, not one after the other."""
    result = run_python(
        """
import fcntl, logging, time, atexit
from flask_asynclog.handlers import AsyncRotatingFileHandler
begun = []
atexit.register(lambda: print("TOOK", time.monotonic() - begun[0]))
held = []
for name in "abc":
    handler = AsyncRotatingFileHandler(f"{name}.log", shutdown_timeout=5, lock_timeout=0.1)
    held.append(open(f".__{name}.lock"))
    fcntl.flock(held[-1], fcntl.LOCK_EX)
    logging.getLogger().addHandler(handler)
logging.warning("lost three times")
begun.append(time.monotonic())
""",
        cwd=tmp_path,
    )
    assert result.stderr.count("1 records were not written within 5.0 s") == 3
    took = float(result.stdout.split("TOOK ")[1].split()[0])
    assert took < 10, "two time-outs or more: one after the other"


def test_pauses_between_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """The listener gives the interpreter away after each slice; beside a thread that computes, seldom, for longer."""
    now, pauses, late = [0.0], list[float](), [False]

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds + 0.005 * late[0]

    monkeypatch.setattr(drain, "sleep", sleep)
    monkeypatch.setattr(drain.time, "monotonic", lambda: now[0])
    queue = RecordQueue(100)
    draining = drain.Drain(queue, [], None, respect_handler_level=False)

    def pauses_in(slices: int, *, is_late: bool) -> list[float]:
        pauses.clear()
        late[0] = is_late
        for _ in range(slices):
            draining._pause(16)
        return pauses[:]

    assert pauses_in(100, is_late=False) == [SLICE_PAUSE] * 100
    first, *others = pauses_in(16 * 10, is_late=True)
    assert first == SLICE_PAUSE
    assert others == [LATE_PAUSE] * 9, "there is time: nothing is about to be dropped"
    for _ in range(25):
        queue.put(logging.makeLogRecord({"levelno": logging.INFO}))
    assert pauses_in(16 * 10, is_late=True)[1:] == [LATE_PAUSE / 2] * 9, "a quarter full"
    for _ in range(40):
        queue.put(logging.makeLogRecord({"levelno": logging.INFO}))
    assert pauses_in(16 * 10, is_late=True)[1:] == [SLICE_PAUSE] * 9, "more than half full"
    pauses_in(RECORDS_IN_ONE_GO // 16, is_late=False)
    assert pauses_in(100, is_late=False) == [SLICE_PAUSE] * 100, "whoever computed has ended"
    draining.flushes.add()
    assert pauses_in(100, is_late=False) == [], "somebody waits"


def bare_delivery(handler: logging.Handler, tally: Tally, pause: Callable[[int], None]) -> Delivery:
    """Of one handler, without the thread and the queue that it has otherwise."""

    def nothing(_: object) -> None:
        pass

    return Delivery([handler], tally, respect_handler_level=False, pause=pause, wait=nothing, writing=nothing)


@pytest.mark.parametrize(
    ("each", "settled"),
    [(0.5e-6, SLICE_MOST), (1e-6, 64), (2e-6, 32), (10e-6, SLICE_LEAST), (1e-3, SLICE_LEAST)],
    ids="{} s".format,
)
def test_slices_take_as_long_as_they_may(monkeypatch: pytest.MonkeyPatch, each: float, settled: int) -> None:
    """However long a record takes: soon a slice takes between a half and all of 0.1 ms, within its bounds."""
    now, counts = [0.0], list[int]()
    monkeypatch.setattr("flask_asynclog.delivery.time.monotonic", lambda: now[0])

    class Timed(logging.Handler):
        def format_batch(self, records: Sequence[logging.LogRecord]) -> list[str]:
            now[0] += each * len(records)
            return [record.getMessage() for record in records]

        def write_batch(self, lines: Sequence[str]) -> int:
            return len(lines)

    tally = Tally()
    delivery = bare_delivery(Timed(), tally, counts.append)
    batch = [logging.makeLogRecord({"msg": "x"})] * 1000
    delivery.deliver(batch)
    assert tally.written == 1000
    assert counts[0] == SLICE_LEAST
    assert counts[-1] == settled
    assert counts.count(settled) > len(counts) / 2
    before = sum(counts)
    delivery.deliver(batch)
    assert sum(counts) > before + 1000 - 2 * settled, "the last slice of a batch counts as well"


def test_others_at_the_file_for_a_moment_are_no_news_to_a_caller_that_writes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it could not write within its 0.1 s is kept, in silence; where it goes on for longer, one line says so."""

    class Busy(logging.Handler):
        def format_batch(self, records: Sequence[logging.LogRecord]) -> list[str]:
            return [record.getMessage() for record in records]

        def write_batch(self, lines: Sequence[str]) -> int:
            raise TimeoutError("others are at it")

    delivery = bare_delivery(Busy(), Tally(), lambda _: None)
    delivery.give_up_at(0.0)
    batch = [logging.makeLogRecord({"msg": "kept"})]
    for _ in range(3):
        assert delivery.deliver(batch, keep=True, own_thread=False) == batch
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("flask_asynclog.delivery.SAY_AFTER", 0.0)
    for _ in range(3):
        assert delivery.deliver(batch, keep=True, own_thread=False) == batch
    assert capsys.readouterr().err.count("Busy does not take records: TimeoutError: others are at it") == 1


class Slow(logging.Handler):
    """Takes so many lines, and then none until it is told to."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count, self.lines = count, list[str]()

    def format_batch(self, records: Sequence[logging.LogRecord]) -> list[str]:
        """The messages."""
        return [record.getMessage() for record in records]

    def write_batch(self, lines: Sequence[str]) -> int:
        """Keep one line."""
        if len(self.lines) >= self.count:
            raise OSError("no more")
        self.lines.append(lines[0])
        return 1


class Each(logging.Handler):
    """Takes one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message."""
        self.lines.append(record.getMessage())


def test_what_comes_again_goes_to_those_who_have_not_taken_it() -> None:
    """To each handler once, however often the others do not take it; a report of ours may come in between."""
    each, quick, slow, stuck = Each(), Slow(100), Slow(2), Slow(0)
    tally = Tally()
    delivery = bare_delivery(each, tally, lambda _: None)
    for handler in (quick, slow, stuck):
        delivery.add_handler(handler)
    delivery.give_up_at(0.0)
    batch: list[Entry] = [logging.makeLogRecord({"msg": str(number)}) for number in range(4)]
    kept = delivery.deliver(batch, keep=True, own_thread=False)
    assert kept == batch
    stuck.count = 3
    assert delivery.deliver(kept, keep=True, own_thread=False) == batch[2:], "0 and 1 are with all"
    delivery.deliver([logging.makeLogRecord({"msg": "report"})], own_thread=False)
    slow.count = stuck.count = 100
    assert delivery.deliver([*batch[2:], logging.makeLogRecord({"msg": "4"})], keep=True, own_thread=False) == []
    for handler in (each, quick):
        assert handler.lines == ["0", "1", "2", "3", "report", "4"]
    for handler in (slow, stuck):
        assert handler.lines == ["0", "1", "2", "3", "4"]
    assert (tally.written, tally.failed) == (5, 1)


def test_the_console_beside_a_stuck_file_shows_what_whoever_logs_writes_once(tmp_path: Path) -> None:
    """Without a thread, what the file does not take is tried again; the console has had it."""
    result = run_python(
        PRINT_STATS
        + """
import fcntl, logging, os, time
from flask import Flask
from flask_asynclog import AsyncLog
from flask_asynclog.inline import INLINE_PAUSE
os.environ["WERKZEUG_RUN_MAIN"] = "true"
asynclog = AsyncLog(Flask("x"), format="%(message)s", console=True, level="INFO")
logger = logging.getLogger("x")
with open(".__app.lock", "ab") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    logger.info("first record")
    time.sleep(INLINE_PAUSE)
    logger.info("second record")
    assert asynclog.stats().pending == 2
time.sleep(INLINE_PAUSE)
logger.info("third record")
assert asynclog.flush(60)
print_stats(asynclog.stats())
""",
        cwd=tmp_path,
    )
    shown = [line.partition(" - INFO - ")[2] for line in result.stderr.splitlines() if " - INFO - " in line]
    assert shown == log_lines(tmp_path / "app.log") == ["first record", "second record", "third record"]
    assert_conserved(read_stats(result.stdout))
