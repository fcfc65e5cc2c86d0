"""`BatchQueueListener`: when its thread starts, sleeps, writes and ends; flush and stop; any handler behind it."""

from __future__ import annotations

import io
import logging
import logging.handlers
import pickle
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flask_asynclog.handlers import AsyncQueueHandler
from flask_asynclog.listener import BatchQueueListener
from flask_asynclog.queue import RecordQueue
from support import HANG, PRINT_STATS, assert_conserved, log_lines, read_stats, run_python, run_threads, wait_for

#: A flush interval that no test waits for.
NEVER = 3600.0


class Pipe:
    """A logger, its queue and its listener."""

    def __init__(self, name: str, handlers: Sequence[logging.Handler], flush_interval: float, **queue: object) -> None:
        self.queue = RecordQueue(**queue)  # type: ignore[arg-type]
        self.listener = BatchQueueListener(self.queue, *handlers, flush_interval=flush_interval)
        self.handler = AsyncQueueHandler(self.queue)
        self.logger = logging.getLogger(name)
        self.logger.propagate = False
        self.logger.setLevel(logging.DEBUG)
        self.logger.addHandler(self.handler)

    def stats(self) -> object:
        """The counters of this moment."""
        return self.queue.stats()


MakePipe = Callable[..., Pipe]


@pytest.fixture
def make_pipe(request: pytest.FixtureRequest) -> Iterator[MakePipe]:
    """Make a logger with a listener and handlers behind it; stopped at the end, and every record accounted for."""
    made: list[Pipe] = []

    def make(*handlers: logging.Handler, flush_interval: float = 0.01, **queue: object) -> Pipe:
        made.append(Pipe(f"{request.node.originalname}-{len(made)}", handlers, flush_interval, **queue))
        return made[-1]

    yield make
    for pipe in made:
        pipe.logger.removeHandler(pipe.handler)
        pipe.handler.close()
        pipe.listener.stop(HANG)
        wait_for(lambda: not listener_threads())
        assert_conserved(pipe.stats())


class Kept(logging.Handler):
    """Keeps the messages it gets, and the threads they came on; may be held up by ``gate``."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self.threads: set[threading.Thread] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message, once the gate is open."""
        self.entered.set()
        assert self.gate.wait(HANG)
        self.threads.add(threading.current_thread())
        self.messages.append(record.getMessage())


class Batches(logging.Handler):
    """Takes batches, and keeps them."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[str]] = []

    def format_batch(self, records: Sequence[logging.LogRecord]) -> list[str]:
        """The messages."""
        return [record.getMessage() for record in records]

    def write_batch(self, lines: Sequence[str]) -> int:
        """Keep a batch."""
        self.batches.append(list(lines))
        return len(lines)

    @property
    def messages(self) -> list[str]:
        """All messages, in the order of their coming."""
        return [line for batch in self.batches for line in batch]


def listener_threads() -> list[threading.Thread]:
    """The listeners' threads that run now."""
    return [thread for thread in threading.enumerate() if thread.name == "flask_asynclog"]


# The thread.


def test_nothing_runs_before_the_first_record(make_pipe: MakePipe) -> None:
    """The thread starts with the first record, not before."""
    sink = Kept()
    pipe = make_pipe(sink)
    assert listener_threads() == []
    assert not pipe.listener.running
    pipe.logger.info("first")
    assert pipe.listener.running
    assert pipe.listener.flush(HANG)
    assert sink.messages == ["first"]
    assert sink.threads == set(listener_threads())


def test_one_thread_however_many_race_for_the_first_record(make_pipe: MakePipe, switching: None) -> None:
    """32 threads log the first record at once: one listener thread starts, and takes them all."""
    sink = Kept()
    pipe = make_pipe(sink)
    for turn in range(20):
        sink.gate.clear()
        sink.threads.clear()
        sink.messages.clear()
        run_threads(*(partial(pipe.logger.info, "%d", number) for number in range(32)))
        running = listener_threads()
        assert len(running) == 1, f"turn {turn}"
        sink.gate.set()
        assert pipe.listener.flush(HANG)
        assert sink.threads == set(running)
        assert sorted(map(int, sink.messages)) == list(range(32))
        assert pipe.listener.stop(HANG)
        assert not pipe.listener.running


def test_start_is_idempotent(make_pipe: MakePipe, switching: None) -> None:
    """`start` by hand, from many threads at once and again, makes one thread."""
    sink = Kept()
    pipe = make_pipe(sink)
    for turn in range(1, 21):
        run_threads(*8 * [pipe.listener.start])
        running = listener_threads()
        assert len(running) == 1, f"turn {turn}"
        pipe.listener.start()
        assert listener_threads() == running
        pipe.logger.info("one")
        assert pipe.listener.flush(HANG)
        assert sink.messages == turn * ["one"]
        assert pipe.listener.stop(HANG)


def test_stop_is_idempotent_and_the_next_record_restarts(make_pipe: MakePipe) -> None:
    """`stop` before any record, and twice, is fine; a record after it starts the thread again."""
    sink = Kept()
    pipe = make_pipe(sink, flush_interval=NEVER)
    assert pipe.listener.stop()
    for turn in range(3):
        pipe.logger.info("turn %d", turn)
        assert pipe.listener.stop(HANG)
        assert pipe.listener.stop()
        assert listener_threads() == []
        assert sink.messages[turn:] == [f"turn {turn}"]


def test_stop_from_several_threads_at_once(make_pipe: MakePipe) -> None:
    """Each of them returns when all is drained."""
    sink = Kept()
    pipe = make_pipe(sink, flush_interval=NEVER)
    answers: list[tuple[bool, int]] = []
    for turn in range(1, 11):
        for number in range(50):
            pipe.logger.info("%d", number)
        run_threads(*6 * [lambda: answers.append((pipe.listener.stop(HANG), len(sink.messages)))])
        assert len(sink.messages) == turn * 50
        assert answers == [(True, turn * 50)] * 6
        answers.clear()


def test_stop_while_others_log(make_pipe: MakePipe, switching: None) -> None:
    """`stop` again and again, from two threads, while two others log: nothing raises, is lost or comes twice."""
    sink = Batches()
    pipe = make_pipe(sink, flush_interval=0.0)
    done = threading.Event()
    each = 1500

    def log(number: int) -> None:
        pauses = random.Random(number)
        for position in range(each):
            pipe.logger.info("%d %d", number, position)
            if pauses.random() < 0.3:
                time.sleep(0.0003)  # let the queue run empty now and then, so that the thread ends and starts again

    def stop() -> None:
        while not done.is_set():
            pipe.listener.stop(HANG)

    def log_all() -> None:
        try:
            run_threads(partial(log, 0), partial(log, 1))
        finally:
            done.set()

    run_threads(log_all, stop, stop)
    assert pipe.listener.stop(HANG)
    assert sorted(sink.messages) == sorted(f"{number} {position}" for number in range(2) for position in range(each))
    for number in range(2):
        positions = [int(message.split()[1]) for message in sink.messages if message.startswith(f"{number} ")]
        assert positions == sorted(positions)


@pytest.mark.parametrize("overflow", ["drop_new", "drop_old"])
def test_an_urgent_record_behind_many_others(make_pipe: MakePipe, overflow: str) -> None:
    """It is written at once, with all before it, however many batches that makes."""
    sink = Batches()
    pipe = make_pipe(sink, flush_interval=NEVER, overflow=overflow)
    for number in range(1500):
        pipe.logger.info("%d", number)
    pipe.logger.error("urgent")
    wait_for(lambda: len(sink.messages) == 1501)
    assert sink.messages[-1] == "urgent"


def test_a_burst_waits_for_one_flush_interval(make_pipe: MakePipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has waited for the interval is written batch after batch; nobody waits for the interval again between."""
    sink = Batches()
    pipe = make_pipe(sink, flush_interval=0.5)
    gathered: list[int] = []
    gathering = RecordQueue.gathering

    def noted(queue: RecordQueue) -> bool:
        gathered.append(len(queue))
        return gathering(queue)

    monkeypatch.setattr(RecordQueue, "gathering", noted)
    for number in range(2000):
        pipe.logger.info("%d", number)
    wait_for(lambda: len(sink.messages) == 2000)
    assert len(sink.batches) >= 2000 / 256
    # On a machine where 2,000 calls take longer than the interval, what came later is gathered for itself.
    assert len(gathered) <= 3, gathered


def message(text: str) -> logging.LogRecord:
    """A record at INFO."""
    return logging.makeLogRecord({"levelno": logging.INFO, "msg": text})


def test_a_record_that_comes_as_the_thread_ends() -> None:
    """After the thread's last look at the queue and before its end: the record is written all the same, by itself."""

    class Ending(BatchQueueListener):
        late = 0

        def dequeue(self, block: bool) -> list[logging.LogRecord] | None:  # type: ignore[override]
            batch = super().dequeue(block)
            if batch is None and self.late < 3:
                self.late += 1
                run_threads(lambda: queue.put(message(f"late {self.late}")))
            return batch

    sink = Batches()
    queue = RecordQueue()
    listener = Ending(queue, sink, flush_interval=0.01)
    queue.put(message("first"))
    for turn in range(1, 4):
        listener.stop(HANG)
        wait_for(lambda: len(sink.messages) == turn + 1)  # noqa: B023
    assert sink.messages == ["first", "late 1", "late 2", "late 3"]
    assert listener.stop(HANG)
    wait_for(lambda: not listener.running)
    assert_conserved(queue.stats())


def test_stop_gives_up_on_a_sink_that_blocks(make_pipe: MakePipe) -> None:
    """With a deadline `stop` returns False, however long the sink blocks; afterwards all goes on as before."""
    sink = Kept()
    sink.gate.clear()
    pipe = make_pipe(sink)
    for number in range(10):
        pipe.logger.info("%d", number)
    assert sink.entered.wait(HANG)
    started = time.monotonic()
    assert pipe.listener.stop(0.3) is False
    assert 0.2 <= time.monotonic() - started < HANG / 2
    assert pipe.listener.stop(0.0) is False
    sink.gate.set()
    wait_for(lambda: not pipe.listener.running)
    assert_conserved(pipe.stats())
    pipe.logger.info("again")
    assert pipe.listener.flush(HANG)
    assert sink.messages[-1] == "again"


def test_stop_counts_what_it_gives_up(make_pipe: MakePipe) -> None:
    """What a stop with a deadline leaves unwritten is counted as failed, and neither written later nor pending."""

    class Broken(Batches):
        refuses = True
        refused = threading.Event()

        def write_batch(self, lines: Sequence[str]) -> int:
            if self.refuses:
                self.refused.set()
                raise OSError("no room")
            return super().write_batch(lines)

    sink = Broken()
    pipe = make_pipe(sink)
    for number in range(10):
        pipe.logger.info("%d", number)
    assert sink.refused.wait(HANG)
    assert pipe.listener.stop(0.3) is False
    stats = pipe.queue.stats()
    assert (stats.accepted, stats.written, stats.failed, stats.pending) == (10, 0, 10, 0)
    sink.refuses = False
    pipe.logger.info("again")
    assert pipe.listener.stop(HANG)
    assert sink.messages == ["again"]


# Flush.


def test_flush_returns_when_the_records_are_with_the_sink(make_pipe: MakePipe) -> None:
    """False while the sink holds them up, True once it has taken them; and at once when there is nothing."""
    sink = Kept()
    pipe = make_pipe(sink, flush_interval=NEVER)
    assert pipe.listener.flush(0.0), "nothing is pending"
    assert listener_threads() == [], "nothing to flush needs no thread"
    sink.gate.clear()
    for number in range(300):  # more than one batch
        pipe.logger.info("%d", number)
    assert pipe.listener.flush(0.2) is False
    assert sink.messages == []
    sink.gate.set()
    assert pipe.listener.flush(HANG)
    assert sink.messages == [str(number) for number in range(300)]
    assert pipe.listener.flush(0.0)


def test_many_threads_flush_their_first_record(make_pipe: MakePipe, switching: None) -> None:
    """Also while another thread is just starting the listener, each flush waits, and is right."""
    sink = Batches()
    pipe = make_pipe(sink, flush_interval=NEVER)

    def log_and_flush(number: int) -> None:
        pipe.logger.info("%d", number)
        assert pipe.listener.flush(HANG)
        assert str(number) in sink.messages

    for turn in range(20):
        run_threads(*(partial(log_and_flush, 8 * turn + number) for number in range(8)))
        assert pipe.listener.stop(HANG)


def test_flush_waits_for_what_is_under_way(make_pipe: MakePipe) -> None:
    """Also when somebody meanwhile could not wake the thread, or came second to start it: the next record does."""
    sink = Kept()
    sink.gate.clear()
    pipe = make_pipe(sink)
    pipe.logger.info("one")
    assert sink.entered.wait(HANG)
    pipe.queue.sleeping()
    assert not pipe.listener.flush(0.05)
    sink.gate.set()
    assert pipe.listener.flush(HANG)
    assert sink.messages == ["one"]


def test_flush_tells_of_records_given_up(make_pipe: MakePipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """False when a record accepted before the call failed meanwhile, also one that the sink had in hand already."""

    class Failing(Kept):
        def emit(self, record: logging.LogRecord) -> None:
            super().emit(record)
            if record.getMessage() == "bad":
                raise RuntimeError("not this one")

    sink = Failing()
    pipe = make_pipe(sink, flush_interval=NEVER)
    begun = threading.Event()
    wake = pipe.listener.wake
    monkeypatch.setattr(pipe.listener, "wake", lambda: (wake(), begun.set()))  # `flush` calls it when it has begun
    for messages in (["good", "bad", "good"], ["bad"]):
        sink.gate.clear()
        sink.entered.clear()
        for message in messages:
            pipe.logger.error(message)
        assert sink.entered.wait(HANG)
        begun.clear()
        opener = threading.Thread(target=lambda: begun.wait(HANG) and sink.gate.set())
        opener.start()
        assert pipe.listener.flush(HANG) is False
        opener.join(HANG)
    pipe.logger.info("good")
    assert pipe.listener.flush(HANG), "failures of before the flush do not count"


def test_flush_in_the_listeners_own_thread(make_pipe: MakePipe) -> None:
    """A sink that flushes its own listener gets False at once: it would wait for itself."""
    answers: list[bool] = []

    class Flushing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            answers.append(pipe.listener.flush(NEVER))
            answers.append(pipe.listener.stop(NEVER))

    pipe = make_pipe(Flushing())
    pipe.logger.info("one")
    assert pipe.listener.flush(HANG)
    assert answers == [False, False]


def test_flush_ends_while_others_log(make_pipe: MakePipe) -> None:
    """Other threads log without pause: a flush waits for what was logged before it, and no longer."""
    sink = Batches()
    pipe = make_pipe(sink)
    done = threading.Event()

    def log() -> None:
        while not done.is_set():
            pipe.logger.info("other")

    def flush() -> None:
        try:
            for number in range(10):
                pipe.logger.warning("mine %d", number)
                assert pipe.listener.flush(HANG)
                assert f"mine {number}" in sink.messages
        finally:
            done.set()

    run_threads(log, log, flush)


# Batches.


def test_the_flush_interval_gathers(make_pipe: MakePipe) -> None:
    """Records that come within one flush interval share a batch; a flush writes them."""
    sink = Batches()
    pipe = make_pipe(sink, flush_interval=NEVER)
    begin(pipe, sink)
    for number in range(20):
        pipe.logger.info("%d", number)
        time.sleep(0.005)  # the thread has time to write each of them, if it did not wait
    assert sink.batches == []
    assert pipe.listener.flush(HANG)
    assert sink.messages == [str(number) for number in range(20)]
    assert len(sink.batches) == 1
    assert pipe.queue.stats().batches == 2


def begin(pipe: Pipe, sink: Batches) -> None:
    """Have the thread started: what starts it is not kept waiting."""
    pipe.logger.info("begin")
    assert pipe.listener.flush(HANG)
    sink.batches.clear()


def test_the_flush_interval_ends(make_pipe: MakePipe) -> None:
    """A record waits for its interval, and is then written without a flush."""
    sink = Batches()
    pipe = make_pipe(sink, flush_interval=0.2)
    begin(pipe, sink)
    started = time.monotonic()
    pipe.logger.info("one")
    wait_for(lambda: sink.messages)
    assert time.monotonic() - started >= 0.2


@pytest.mark.parametrize("flush_level", [logging.ERROR, logging.INFO])
def test_the_flush_level_is_written_at_once(make_pipe: MakePipe, flush_level: int) -> None:
    """A record at the flush level does not wait for the interval, nor do those before it."""
    sink = Batches()
    pipe = make_pipe(sink, flush_interval=NEVER, flush_level=flush_level)
    begin(pipe, sink)
    for turn in range(3):
        pipe.logger.debug("waits %d", turn)
        pipe.logger.log(flush_level, "urgent %d", turn)
        wait_for(lambda: len(sink.messages) == 2 * (turn + 1))  # noqa: B023
        assert sink.messages[2 * turn :] == [f"waits {turn}", f"urgent {turn}"]
    pipe.logger.debug("left")
    assert len(sink.messages) == 6


def test_a_half_full_queue_does_not_wait(make_pipe: MakePipe) -> None:
    """Half of the queue is written whatever the interval: it would be full before long."""
    sink = Batches()
    pipe = make_pipe(sink, flush_interval=NEVER, size=1000)
    begin(pipe, sink)
    for number in range(499):
        pipe.logger.info("%d", number)
    assert sink.batches == []
    pipe.logger.info("499")
    pipe.logger.info("500")
    wait_for(lambda: sink.messages)


def test_the_idle_thread_sleeps(make_pipe: MakePipe) -> None:
    """Without records the thread does not wake up at all."""
    pipe = make_pipe(Batches(), flush_interval=0.01)
    pipe.logger.info("one")
    assert pipe.listener.flush(HANG)
    (thread,) = listener_threads()
    status = Path(f"/proc/self/task/{thread.native_id}/status")
    if not status.exists():
        pytest.skip("context switches are read from /proc")

    def asleep_for_a_second() -> bool:
        before = switches(status)
        time.sleep(1)
        return switches(status) == before

    wait_for(asleep_for_a_second, 20, "a second of sleep")


def switches(status: Path) -> str:
    """How often a thread has given up its processor by itself."""
    return next(line for line in status.read_text().splitlines() if line.startswith("voluntary_ctxt_switches"))


# Sinks.


def test_a_sink_that_logs_does_not_go_round_for_ever(make_pipe: MakePipe) -> None:
    """A sink that answers each record with one of its own gets some of them; then they are dropped, and it ends."""

    class Logging(Kept):
        def emit(self, record: logging.LogRecord) -> None:
            super().emit(record)
            pipe.logger.info("I got %s", record.levelname)

    sink = Logging()
    pipe = make_pipe(sink)
    for _ in range(5):
        pipe.logger.info("one")
    assert pipe.listener.flush(HANG)

    def unchanged_for_a_while() -> bool:
        before = pipe.stats()
        time.sleep(1.5)  # longer than the report of drops takes to come
        return pipe.stats() == before

    wait_for(unchanged_for_a_while, 20, "an end")
    stats = pipe.queue.stats()
    assert stats.dropped_by == {"logged_by_listener": {"INFO": stats.dropped}}
    assert stats.dropped > 0
    assert len(sink.messages) == stats.written < 1000


def test_a_failing_handler_costs_nobody_else(
    make_pipe: MakePipe, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that raises, even SystemExit, gets the next record all the same, and so do the others."""
    monkeypatch.setattr(logging, "raiseExceptions", False)

    class Failing(logging.Handler):
        seen = 0

        def emit(self, record: logging.LogRecord) -> None:
            self.seen += 1
            if self.seen % 3 == 0:
                raise SystemExit(f"record {self.seen}")
            if self.seen % 3 == 1:
                raise ValueError(f"record {self.seen}")

    failing, one, batch = Failing(), Kept(), Batches()
    pipe = make_pipe(failing, one, batch)
    for number in range(30):
        pipe.logger.info("%d", number)
    assert not pipe.listener.flush(HANG)
    assert pipe.listener.running
    assert failing.seen == 30
    assert one.messages == batch.messages == [str(number) for number in range(30)]
    stats = pipe.queue.stats()
    assert (stats.written, stats.failed) == (10, 20)
    assert capfd.readouterr().err.count("failed on a record") == 2, "each kind of failure is said once"


def test_a_prepare_that_raises_costs_its_record_only(capfd: pytest.CaptureFixture[str]) -> None:
    """A listener's subclass may have one; the others of the batch are written, and the thread goes on."""

    class Preparing(BatchQueueListener):
        def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
            if record.msg == "bad":
                raise ValueError("prepare")
            return record

    sink = Batches()
    queue = RecordQueue()
    listener = Preparing(queue, sink)
    for message in ("one", "bad", "two", "bad"):
        queue.put(logging.makeLogRecord({"msg": message, "levelno": logging.INFO}))
    assert not listener.flush(HANG)
    assert sink.messages == ["one", "two"]
    assert listener.running
    assert listener.stop(HANG)
    stats = queue.stats()
    assert (stats.accepted, stats.written, stats.failed, stats.pending, stats.restarts) == (4, 2, 2, 0, 0)
    assert capfd.readouterr().err.count("prepare() failed on a record: ValueError: prepare") == 1


def test_levels_of_handlers(make_pipe: MakePipe) -> None:
    """As in the standard library, the handlers' levels count only when asked for."""
    for respect in (False, True):
        errors, everything = Batches(), Kept()
        errors.setLevel(logging.ERROR)
        pipe = make_pipe(errors, everything)
        listener = BatchQueueListener(pipe.queue, errors, everything, respect_handler_level=respect)
        pipe.logger.info("info")
        pipe.logger.error("error")
        assert listener.stop(HANG)
        assert errors.messages == (["error"] if respect else ["info", "error"])
        assert everything.messages == ["info", "error"]


def test_a_stream_handler(make_pipe: MakePipe) -> None:
    """`logging.StreamHandler` behind the queue, its formatter included."""
    stream = io.StringIO()
    sink = logging.StreamHandler(stream)
    sink.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    pipe = make_pipe(sink)
    for number in range(100):
        pipe.logger.info("number %d", number)
    try:
        raise KeyError("k")
    except KeyError:
        pipe.logger.exception("at the end")
    assert pipe.listener.stop(HANG)
    lines = stream.getvalue().splitlines()
    assert lines[:100] == [f"INFO number {number}" for number in range(100)]
    assert lines[100] == "ERROR at the end"
    assert lines[-1] == "KeyError: 'k'"


def test_a_memory_handler(make_pipe: MakePipe) -> None:
    """`logging.handlers.MemoryHandler` keeps its records and passes them on."""
    target = Kept()
    memory = logging.handlers.MemoryHandler(capacity=10, target=target)
    pipe = make_pipe(memory)
    for number in range(25):
        pipe.logger.info("%d", number)
    assert pipe.listener.stop(HANG)
    assert target.messages == [str(number) for number in range(20)]
    memory.close()
    assert target.messages == [str(number) for number in range(25)]


def test_a_socket_handler(make_pipe: MakePipe) -> None:
    """`logging.handlers.SocketHandler` sends every record to a real server, with message, extra and traceback."""
    received: list[dict[str, object]] = []

    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as stream:
            while head := stream.read(4):
                (length,) = struct.unpack(">L", head)
                received.append(pickle.loads(stream.read(length)))

    with socket.create_server(("127.0.0.1", 0)) as server:
        receiver = threading.Thread(target=serve, args=(server,))
        receiver.start()
        sink = logging.handlers.SocketHandler("127.0.0.1", server.getsockname()[1])
        pipe = make_pipe(sink)
        for number in range(100):
            pipe.logger.info("number %d of %s", number, ["a", "list"], extra={"user": {"id": number}})
        try:
            raise KeyError("k")
        except KeyError:
            pipe.logger.exception("at the end")
        assert pipe.listener.stop(HANG)
        sink.close()
        receiver.join(HANG)
    assert not receiver.is_alive()
    assert [one["msg"] for one in received] == [f"number {n} of ['a', 'list']" for n in range(100)] + ["at the end"]
    assert [one["user"] for one in received[:100]] == [{"id": number} for number in range(100)]
    assert "KeyError: 'k'" in str(received[-1]["exc_text"])


# Signal handlers.

SIGNALS = """
import logging, signal, sys, time
from flask import Flask
from flask_asynclog import AsyncLog

asynclog = AsyncLog(Flask("signals"), format="%(message)s", flush_interval=0.001, queue_size=1_000_000)
logger = logging.getLogger("signals")
at_work = handled = 0

def on_alarm(signum, frame):
    global at_work, handled
    at_work += 1
    if at_work == 1:  # not a handler within a handler: the counting here is not atomic
        logger.log(logging.ERROR if handled % 3 == 0 else logging.INFO, "handler %d", handled)
        handled += 1
    at_work -= 1

signal.signal(signal.SIGALRM, on_alarm)
signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
logged = 0
deadline = time.monotonic() + 60
while handled < 3000 and time.monotonic() < deadline:
    logger.log(logging.ERROR if logged % 5 == 0 else logging.INFO, "main %d", logged)
    logged += 1
    if logged % 20 == 0:
        time.sleep(0.0002)  # the listener may sleep: the next record wakes it, in the main thread or in the handler
    if logged % 500 == 0:
        assert asynclog.flush(60)
    if logged % 1500 == 0:
        assert asynclog.stop(60)
signal.setitimer(signal.ITIMER_REAL, 0)
assert asynclog.stop(60)
print("COUNTS", logged, handled)
print_stats(asynclog.stats())
"""


def test_a_signal_handler_logs(tmp_path: Path) -> None:
    """SIGALRM at a high rate, whose handler logs, in the midst of everything the main thread does: no deadlock."""
    result = run_python(PRINT_STATS + SIGNALS, cwd=tmp_path)
    assert result.stderr == ""
    logged, handled = map(int, result.stdout.splitlines()[0].split()[1:])
    assert handled >= 3000
    stats = read_stats(result.stdout)
    assert_conserved(stats)
    assert stats["accepted"] == stats["written"] == logged + handled
    lines = log_lines(tmp_path / "app.log")
    for name, count in (("main", logged), ("handler", handled)):
        assert [line for line in lines if line.startswith(name)] == [f"{name} {number}" for number in range(count)]
    assert len(lines) == logged + handled


@pytest.mark.parametrize("levelno", [logging.INFO, logging.ERROR])
@pytest.mark.parametrize("where", ["append", "call"])
def test_a_signal_handler_raises_behind_the_append(make_pipe: MakePipe, levelno: int, where: str) -> None:
    """As those that end what takes too long: the record is written all the same, not only when another one comes."""
    sink = Kept()
    pipe = make_pipe(sink)
    pipe.logger.info("first")
    assert pipe.listener.flush(HANG)
    wait_for(lambda: pipe.queue.wake_at == 0)
    original = getattr(pipe.queue, where)

    def interrupted(argument: Any) -> None:
        setattr(pipe.queue, where, original)
        if where == "append":
            original(argument)
        raise KeyboardInterrupt

    setattr(pipe.queue, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        pipe.logger.log(levelno, "second")
    wait_for(lambda: sink.messages == ["first", "second"])
