"""`RecordQueue`: its policies against a model, the order of each thread's records, exact counts under threads."""

from __future__ import annotations

import contextvars
import logging
import random
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from types import FrameType
from typing import TypeAlias

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from flask_asynclog.context import Context, current
from flask_asynclog.lanes import Lane, LevelLanes, _take_if
from flask_asynclog.queue import OWN_RECORDS, RecordQueue
from support import HANG, run_threads

POLICIES = ("drop_new", "drop_old", "block")
TraceFunction: TypeAlias = Callable[[FrameType, str, object], "TraceFunction | None"]
LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)


def record(levelno: int = logging.INFO, name: str = "queue") -> logging.LogRecord:
    """A record of a level, of another process; its name tells where it is from."""
    return logging.makeLogRecord({"name": name, "levelno": levelno, "process": 1})


class QueueModel(RuleBasedStateMachine):
    """`RecordQueue` on one thread against a list that is searched from end to end."""

    @initialize(size=st.integers(1, 12), overflow=st.sampled_from(POLICIES))
    def start(self, size: int, overflow: str) -> None:
        """One queue and its model."""
        self.queue = RecordQueue(size, overflow, block_timeout=0.0, flush_level=logging.ERROR)
        self.overflow = overflow
        self.size, self.ordinary_size = size, max(1, int(size * 0.8))
        self.waiting: list[logging.LogRecord] = []
        self.accepted = self.taken = 0
        self.dropped: dict[tuple[str, int], int] = {}
        self.marks: list[tuple[tuple[int, int], list[logging.LogRecord]]] = []

    def drop(self, levelno: int) -> None:
        key = ("queue_full", levelno)
        self.dropped[key] = self.dropped.get(key, 0) + 1

    @rule(levelno=st.sampled_from(LEVELS))
    def put(self, levelno: int) -> None:
        """A record comes in; on a full queue the policy decides."""
        new = record(levelno)
        self.queue.put(new)
        self.accepted += 1
        important = levelno >= logging.WARNING
        if len(self.waiting) >= (self.size if important else self.ordinary_size):
            ordinary = [old for old in self.waiting if old.levelno < logging.WARNING]
            victims = ordinary or (self.waiting if important else [])
            if self.overflow != "drop_old" or not victims:
                self.drop(levelno)
                return
            victim = victims[0]
            self.waiting.remove(victim)
            self.drop(victim.levelno)
        self.waiting.append(new)

    @rule(most=st.integers(1, 15))
    def take(self, most: int) -> None:
        """Records come out, the oldest first."""
        expected, self.waiting = self.waiting[:most], self.waiting[most:]
        assert self.queue.take(most) == expected
        self.taken += len(expected)

    @rule()
    def mark(self) -> None:
        """A flush begins: the records that wait now are the ones to be passed."""
        self.marks.append((self.queue.mark(), list(self.waiting)))

    @rule()
    def reset(self) -> None:
        """A forked child: nothing waits, nothing is counted."""
        self.queue.reset()
        self.waiting, self.accepted, self.taken, self.dropped, self.marks = [], 0, 0, {}, []

    @invariant()
    def nothing_is_passed_too_early(self) -> None:
        """A mark is passed only when none of its records waits; without drops, as soon as none does."""
        for mark, records in self.marks:
            gone = not any(old in self.waiting for old in records)
            passed = self.queue.passed(mark)
            assert gone or not passed
            if not self.waiting or self.overflow != "drop_old":
                assert passed == gone

    @invariant()
    def counts_are_exact(self) -> None:
        """Every record is taken, dropped or waiting."""
        assert len(self.queue) == len(self.waiting) <= self.size
        assert self.queue.stats().accepted == self.accepted
        assert self.queue.tally.drops.counts() == self.dropped
        assert self.accepted == self.taken + len(self.waiting) + sum(self.dropped.values())
        assert (self.queue.half_filled >= 1) == (len(self.waiting) >= max(1, self.size // 2))


QueueModel.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
test_the_queue_is_its_model = QueueModel.TestCase


@pytest.mark.parametrize("overflow", POLICIES)
def test_counts_are_exact_under_threads(overflow: str, switching: None) -> None:
    """8 producers and one consumer: accepted = taken + dropped + waiting, and no more than one record too many each."""
    queue = RecordQueue(200, overflow, block_timeout=0.0)
    producers, each = 8, 3000
    taken: list[logging.LogRecord] = []
    ended = threading.Event()

    def produce(number: int) -> None:
        levels = random.Random(number).choices(LEVELS, k=each)
        for position, levelno in enumerate(levels):
            queue.put(record(levelno))
            if position == each * 2 // 3:
                ended.set()  # at the end nobody takes: the queue is as full as it gets

    def consume() -> None:
        while not ended.is_set():
            taken.extend(queue.take(64))
            time.sleep(0.0005)  # slower than the producers: the queue is full most of the time

    consumer = threading.Thread(target=consume)
    consumer.start()
    run_threads(*(partial(produce, number) for number in range(producers)))
    consumer.join(HANG)
    drops = queue.tally.drops.counts()
    assert queue.stats().accepted == producers * each
    assert sum(drops.values()) > 0
    assert {reason for reason, _ in drops} == {"queue_full"}
    assert producers * each == len(taken) + len(queue) + sum(drops.values())
    assert len({id(one) for one in taken}) == len(taken)
    assert queue.size <= len(queue) <= queue.size + producers


@pytest.mark.parametrize("overflow", POLICIES)
def test_each_threads_records_stay_in_order(overflow: str, switching: None) -> None:
    """Whatever the levels, and whatever is dropped: of two records of one thread the first comes out first."""
    queue = RecordQueue(100, overflow, block_timeout=0.0)
    producers, each = 4, 8000
    taken: list[logging.LogRecord] = []
    ended = threading.Event()

    def produce(number: int) -> None:
        levels = random.Random(number).choices((logging.INFO, logging.INFO, logging.WARNING), k=each)
        for position, levelno in enumerate(levels):
            queue.put(logging.makeLogRecord({"name": str(number), "levelno": levelno, "lineno": position}))

    def consume() -> None:
        sizes = random.Random(0)
        while not ended.is_set() or len(queue):
            taken.extend(queue.take(sizes.randint(1, 256)))

    consumer = threading.Thread(target=consume)
    consumer.start()
    run_threads(*(partial(produce, number) for number in range(producers)))
    ended.set()
    consumer.join(HANG)
    assert producers * each == len(taken) + queue.tally.drops.total()
    for number in range(producers):
        positions = [one.lineno for one in taken if one.name == str(number)]
        wrong = [pair for pair in pairwise(positions) if pair[0] >= pair[1]]
        assert wrong == [], f"{len(wrong)} of {len(positions)} records of thread {number} are out of order"


@pytest.mark.parametrize("overflow", POLICIES)
def test_order_whatever_comes_between(overflow: str) -> None:
    """A caller that logs at any point of `take`, between any two instructions of it, finds its records in order."""
    take_with(RecordQueue(), 0, lambda: None)  # Python 3.12 shows instructions from the second call on
    step = steps = 1
    while step <= steps:
        queue = RecordQueue(5, overflow, block_timeout=0.0)
        for position, levelno in enumerate((logging.INFO, logging.WARNING, logging.INFO, logging.INFO, logging.INFO)):
            queue.put(logging.makeLogRecord({"levelno": levelno, "lineno": position}))

        def log(queue: RecordQueue = queue) -> None:
            levels = (logging.WARNING, *6 * (logging.INFO,), logging.WARNING, logging.INFO)
            for position, levelno in enumerate(levels, start=5):
                queue.put(logging.makeLogRecord({"levelno": levelno, "lineno": position}))

        taken, steps = take_with(queue, step, log)
        while rest := queue.take(256):
            taken += rest
        positions = [one.lineno for one in taken]
        assert positions == sorted(positions), f"logged before instruction {step} of {steps}: {positions}"
        assert len(taken) + queue.tally.drops.total() == queue.stats().accepted == 14
        step += 1
    assert steps > 50


#: Where records leave the queue.
TAKING = {function.__code__ for function in (RecordQueue.take, Lane.take, LevelLanes.take, _take_if)}


def take_with(queue: RecordQueue, step: int, log: Callable[[], None]) -> tuple[list[logging.LogRecord], int]:
    """``queue.take()``, with ``log`` run by another thread before its instruction number ``step``; and their number."""
    steps = 0

    def count(frame: FrameType, event: str, _: object) -> TraceFunction | None:
        nonlocal steps
        if frame.f_code not in TAKING:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            steps += 1
            if steps == step:
                run_threads(log)
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        taken = queue.take(256)
    finally:
        sys.settrace(before)
    return taken, steps


def test_warnings_go_last_under_drop_old() -> None:
    """No WARNING is dropped while a record below it waits; then the oldest of them goes."""
    queue = RecordQueue(10, "drop_old")
    infos = [record(logging.INFO) for _ in range(8)]
    warnings = [record(logging.WARNING) for _ in range(13)]
    for one in [*infos[:4], *warnings[:2], *infos[4:], *warnings[2:12]]:
        queue.put(one)
    # 22 records for 10 places: the 8 INFO went first, then the 2 oldest WARNING.
    assert queue.tally.drops.counts() == {("queue_full", logging.INFO): 8, ("queue_full", logging.WARNING): 2}
    queue.put(record(logging.INFO))
    assert queue.tally.drops.counts()["queue_full", logging.INFO] == 9, "an INFO pushed a WARNING out"
    queue.put(warnings[12])
    assert queue.take(20) == warnings[3:]


@pytest.mark.parametrize("overflow", POLICIES)
def test_a_queue_of_one_record(overflow: str) -> None:
    """The smallest queue takes any record when it is empty, and one only."""
    queue = RecordQueue(1, overflow, block_timeout=0.0)
    for levelno in LEVELS:
        queue.put(record(levelno))
        assert [one.levelno for one in queue.take(5)] == [levelno]
    queue.put(record(logging.INFO))
    queue.put(record(logging.INFO))
    assert len(queue) == 1
    assert queue.tally.drops.total() == 1


def test_block_waits_until_there_is_room() -> None:
    """Under ``block`` a caller goes on as soon as the listener has made room, and its record is not lost."""
    queue = RecordQueue(10, "block", block_timeout=HANG)
    for _ in range(8):
        queue.put(record())
    last = record()
    caller = threading.Thread(target=queue.put, args=(last,))
    started = time.monotonic()
    caller.start()
    caller.join(0.1)  # it waits by now, as a rule
    assert caller.is_alive()
    assert len(queue) == 8, "the queue took more than its share"
    queue.take(1)
    caller.join(HANG)
    assert time.monotonic() - started < HANG / 2
    assert queue.take(10)[-1] is last
    assert queue.tally.drops.total() == 0


def test_block_gives_up_after_its_timeout() -> None:
    """Under ``block`` a caller waits no longer than asked; its record is dropped and counted."""
    queue = RecordQueue(10, "block", block_timeout=0.2)
    for _ in range(10):
        queue.put(record(logging.WARNING))
    started = time.monotonic()
    queue.put(record(logging.ERROR))
    assert 0.2 <= time.monotonic() - started < HANG / 2
    assert queue.tally.drops.counts() == {("queue_full", logging.ERROR): 1}


def test_block_does_not_wait_in_the_draining_thread() -> None:
    """The thread that drains cannot wait for itself: its own record is dropped at once."""
    queue = RecordQueue(1, "block", block_timeout=HANG)
    queue.put(record())
    queue.consumer = threading.get_ident()
    started = time.monotonic()
    queue.put(record())
    assert time.monotonic() - started < HANG / 2
    assert queue.tally.drops.counts() == {("queue_full", logging.INFO): 1}


def test_its_own_records_that_find_no_room_are_not_counted_twice() -> None:
    """As dropped for the full queue, and as waiting in it: the next records of the others would pass for its own."""
    queue = RecordQueue(10)
    queue.consumer = threading.get_ident()
    draining = contextvars.copy_context()
    draining.run(current.set, Context(drains=queue))
    for _ in range(8):
        queue.put(record())
    for _ in range(OWN_RECORDS):
        draining.run(queue.put, record())
    assert queue.tally.drops.counts() == {("queue_full", logging.INFO): OWN_RECORDS}
    queue.take(8)
    for _ in range(8):  # as many as the others had
        draining.run(queue.put, record())
    assert len(queue) == 8


def test_the_draining_thread_logs_no_more_than_the_others() -> None:
    """A sink that answers every record with one of its own runs dry: the number of its own records is bounded."""
    queue = RecordQueue(1000)
    queue.consumer = threading.get_ident()
    others = contextvars.copy_context()
    draining = contextvars.copy_context()
    draining.run(current.set, Context(drains=queue))
    put_own = partial(draining.run, queue.put)
    for _ in range(OWN_RECORDS + 10):
        put_own(record())
    assert len(queue) == OWN_RECORDS
    assert queue.tally.drops.counts() == {("logged_by_listener", logging.INFO): 10}
    while batch := queue.take(50):  # every record answered with another one
        for _ in batch:
            put_own(record())
    assert queue.stats().accepted < 3 * OWN_RECORDS
    # The others' records allow for new ones.
    others.run(queue.put, record())
    queue.take(1)
    put_own(record())
    assert len(queue) == 1
    # What drains another queue is one of the others.
    elsewhere = RecordQueue()
    for _ in range(OWN_RECORDS + 10):
        draining.run(elsewhere.put, record())
    assert len(elsewhere) == OWN_RECORDS + 10
    # So is another thread, or task, that a sink has given a copy of the draining thread's context.
    elsewhere.consumer = -1
    draining.run(current.set, Context(drains=elsewhere))
    for _ in range(OWN_RECORDS + 10):
        draining.run(elsewhere.put, record())
    assert len(elsewhere) == 2 * (OWN_RECORDS + 10)


def test_who_wakes_the_listener() -> None:
    """One wake-up for the first record, one for an urgent or a half-full queue, none for any record between."""
    woken: list[int] = []
    queue = RecordQueue(10, flush_level=logging.ERROR)
    queue.wake = lambda: woken.append(len(queue))
    queue.sleeping()
    queue.put(record())
    queue.put(record())
    assert woken == [1], "asleep: the first record wakes, the second does not"
    assert queue.gathering()
    queue.put(record())
    queue.put(record())
    queue.put(record())
    assert woken == [1]
    queue.put(record())
    assert woken == [1, 6], "gathering: half of the queue wakes"
    assert not queue.gathering(), "half of the queue is no time to gather"
    queue.take(10)
    assert queue.gathering()
    queue.put(record(logging.ERROR))
    queue.put(record(logging.ERROR))
    assert woken == [1, 6, 1], "gathering: the first urgent record wakes"
    assert not queue.gathering()
    queue.working()
    queue.put(record(logging.CRITICAL))
    assert woken == [1, 6, 1], "at work: nothing wakes"
    for _ in range(8):
        queue.put(record())
    assert woken == [1, 6, 1, 8], "at work, and the queue almost full: once, to see whether the listener lives"


@pytest.mark.parametrize("size", [2**31 - 1, sys.maxsize], ids=["2 to the 31st", "the largest"])
def test_a_queue_without_a_bound_wakes_for_urgent_records(size: int) -> None:
    """As any other, however many records are the half of it."""
    woken: list[int] = []
    queue = RecordQueue(size, flush_level=logging.ERROR)
    queue.wake = lambda: woken.append(len(queue))
    assert queue.gathering()
    queue.put(record(logging.ERROR))
    assert woken == [1]


def test_reset_drops_what_was_inherited() -> None:
    """A forked child's queue is empty, at zero, and its first record wakes."""
    woken: list[int] = []
    queue = RecordQueue(4, "drop_old")
    queue.wake = lambda: woken.append(1)
    queue.working()
    for _ in range(6):
        queue.put(record(logging.ERROR))
    woken.clear()
    queue.reset()
    assert len(queue) == 0
    assert queue.take(10) == []
    assert not queue.urgent
    assert queue.stats().accepted == queue.stats().dropped == 0
    queue.put(record())
    assert woken == [1]


@pytest.mark.parametrize("overflow", POLICIES)
def test_reset_keeps_what_the_child_has_logged(overflow: str) -> None:
    """A fork that was noticed late: the child's own records are the ones that wait, in their order."""
    queue = RecordQueue(10, overflow)
    own = [logging.makeLogRecord({"levelno": levelno}) for levelno in (logging.INFO, logging.ERROR, logging.INFO)]
    for one in (record(), own[0], record(logging.ERROR), own[1], own[2]):
        queue.put(one)
    queue.reset()
    assert queue.stats().accepted == queue.stats().pending == 3
    assert queue.take(10) == own


def test_another_policy_under_way() -> None:
    """What waits stays, in its order, and the new policy counts from then on."""
    queue = RecordQueue(10, "drop_new")
    records = [logging.makeLogRecord({"levelno": levelno}) for levelno in 3 * (logging.INFO, logging.WARNING)]
    for policy, one in zip(2 * ("drop_new", "drop_old", "block"), records, strict=True):
        queue.configure(10, policy, 0.0, logging.CRITICAL)
        queue.put(one)
    mark = queue.mark()
    taken = queue.take(4)
    assert not queue.passed(mark)
    taken += queue.take(4)
    assert queue.passed(mark)
    assert sorted(map(id, taken)) == sorted(map(id, records))
    queue.configure(2, "drop_old", 0.0, logging.CRITICAL)
    for one in records[:4]:
        queue.put(one)
    assert queue.take(4) == [records[1], records[3]]
    assert queue.tally.drops.counts() == {("queue_full", logging.INFO): 2}


class Interrupted(deque[int]):
    """Lets something happen while its length is looked at: before that, or behind."""

    happens: Callable[[], None] | None = None
    before = False

    def __len__(self) -> int:
        length = super().__len__()
        happens, self.happens = self.happens, None
        if happens is not None:
            happens()
        return super().__len__() if self.before else length


@pytest.mark.parametrize("before", [True, False])
def test_giving_back_while_somebody_looks(before: bool) -> None:
    """What was taken and comes back is counted once, and a flush that begins meanwhile waits for it."""
    for look in (Lane[int].entered, Lane[int].mark):
        lane = Lane[int]()
        lane.entries = entries = Interrupted(range(3))
        taken: list[int] = []
        lane.take(3, taken)
        entries.happens, entries.before = partial(lane.give_back, taken), before
        assert look(lane) == 3
        assert list(entries) == [0, 1, 2]
        assert not lane.passed(lane.mark())
