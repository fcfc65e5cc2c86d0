"""The formatters: exactly one line per record, whatever the text; JSON that is the same with and without orjson."""

from __future__ import annotations

import datetime
import decimal
import enum
import http
import importlib.util
import json
import logging
import math
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from flask import Flask
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flask_asynclog import AsyncLog, jsonvalues
from flask_asynclog.formatters import JSONFormatter, TextFormatter
from flask_asynclog.listener import BatchQueueListener
from flask_asynclog.queue import RecordQueue
from flask_asynclog.records import STANDARD_ATTRIBUTES, snapshot
from flask_asynclog.rotating import BatchRotatingFileHandler
from formats import assert_one_line, make_record
from support import HANG, assert_conserved, log_lines

MakeApp = Callable[..., tuple[Flask, AsyncLog]]

NASTY = "a\nb\r\nc\x0bd\x0ce\x1cf\x1dg\x1eh\x85i\u2028j\u2029k\x1b[31ml\x00m\x7fn\x9bo\ud800p\udcffq\tr"

#: All of Unicode, lone surrogates included, with more of what ends lines than chance would bring.
ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()) | st.sampled_from(NASTY), max_size=20)

needs_orjson = pytest.mark.skipif(importlib.util.find_spec("orjson") is None, reason="orjson is not installed")


def caught(text: str) -> tuple[Any, Any, Any]:
    """An exception with a traceback."""
    try:
        raise ValueError(text)
    except ValueError:
        return sys.exc_info()


def joined(text: str) -> str:
    """``text`` as JSON can carry it: two surrogates that stand together are one character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


@pytest.fixture(params=[pytest.param(True, marks=needs_orjson, id="orjson"), pytest.param(False, id="json")])
def either_json(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test with and without orjson."""
    if not request.param:
        monkeypatch.setattr(jsonvalues, "orjson", None)


# One line.


@given(message=ANY_TEXT, argument=ANY_TEXT, extra=ANY_TEXT, name=ANY_TEXT, thread=ANY_TEXT, error=ANY_TEXT)
@example(message=NASTY, argument=NASTY, extra=NASTY, name=NASTY, thread=NASTY, error=NASTY)
@settings(deadline=None, database=None, max_examples=300)
def test_any_record_is_one_line(message: str, argument: str, extra: str, name: str, thread: str, error: str) -> None:
    """Whatever text is in message, arguments, extra, names, exception and stack; in JSON nothing of it is changed."""
    record = make_record(
        message.replace("%", "%%") + "%s", argument, name=name, threadName=thread, exc_info=caught(error),
        stack_info=f"Stack:\n{extra}", extra_field=extra, **{f"extra {extra}": extra},
    )  # fmt: skip
    everything = "%(asctime)s %(name)s %(threadName)s %(extra_field)s %(message)s"
    for formatter, tabs in [
        (TextFormatter(), False),
        (TextFormatter(everything), False),
        (TextFormatter(everything.replace(" ", "\t")), True),
        (TextFormatter(datefmt="%H\n%M"), False),
    ]:
        assert_one_line(formatter.format(snapshot(record)), tabs=tabs)
    line = JSONFormatter().format(snapshot(record))
    assert_one_line(line)
    document = json.loads(line)
    assert document["message"] == joined(message + argument)
    assert document["logger"] == joined(name)
    assert document["thread.name"] == joined(thread)
    assert document["extra_field"] == document[joined(f"extra {extra}")] == joined(extra)
    assert document["exception.message"] == joined(error)
    assert document["exception.stacktrace"].endswith(joined(f"ValueError: {error}" if error else "ValueError"))
    assert document["stack"] == joined(f"Stack:\n{extra}")


@pytest.mark.parametrize("format", ["text", "json", "%(message)s\t%(field)s"])
def test_nasty_text_through_the_file(make_app: MakeApp, format: str) -> None:
    """End to end: each record is one line of the file, in order, and the file is UTF-8."""
    app, asynclog = make_app(format=format)
    for number in range(10):
        app.logger.warning("%d %s", number, NASTY, extra={"field": NASTY})
    try:
        raise ValueError(NASTY)
    except ValueError:
        app.logger.exception(NASTY, stack_info=True, extra={"field": NASTY})
    assert asynclog.flush(HANG)
    lines = log_lines(Path("app.log"))
    assert len(lines) == 11
    for line in lines:
        assert_one_line(line, tabs="\t" in format)
    if format == "json":
        assert [json.loads(line)["message"] for line in lines] == [f"{n} {NASTY}" for n in range(10)] + [NASTY]
    assert_conserved(asynclog.stats())


# Text.


def test_the_default_text_line() -> None:
    """Time, logger, level, message, as in Flask's usual recipe."""
    record = make_record("a %s", "b", created=1_700_000_000.25, msecs=250.0)
    local = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(1_700_000_000))
    assert TextFormatter().format(record) == f"{local},250 - demo - INFO - a b"


def test_a_traceback_follows_on_the_same_line() -> None:
    """Message, traceback and stack, each after an escaped line end; all frames are there."""
    record = make_record("a", exc_info=caught("b"), stack_info="Stack (most recent call last):\n  c")
    message, first, *rest = TextFormatter("%(message)s").format(record).split("\\n")
    assert (message, first) == ("a", "Traceback (most recent call last):")
    assert rest[-3:] == ["ValueError: b", "Stack (most recent call last):", "  c"]
    assert any("raise ValueError(text)" in line for line in rest)


def test_the_request_id_in_a_format() -> None:
    """``%(request_id)s`` works in and outside requests."""
    formatter = TextFormatter("%(request_id)s %(message)s")
    assert formatter.format(make_record("x", request_id="abc")) == "abc x"
    assert formatter.format(make_record("x")) == "- x"


def test_tabs_are_kept_only_where_they_are_the_formats() -> None:
    """A tab-separated format stays a table: the tabs of messages are escaped."""
    assert TextFormatter("%(name)s\t%(message)s").format(make_record("a\tb")) == "demo\ta\\tb"
    assert TextFormatter("%(name)s %(message)s").format(make_record("a\tb")) == "demo a\\tb"


@pytest.mark.parametrize("fmt", ["%(message)s\n", "\x1b[1m%(message)s", "no field", "%(message", "\u2028%(message)s"])
def test_formats_that_cannot_be(fmt: str) -> None:
    """Line ends and control characters in the format itself, and what is no format."""
    with pytest.raises(ValueError, match=r"format|control"):
        TextFormatter(fmt)


#: Anywhere in a second, with the places where something is rounded or a new one begins.
FRACTIONS = st.floats(0, 1, exclude_max=True) | st.sampled_from(
    [0.0, 0.001, 0.9994, 0.9995, 0.99951, 0.9999999, math.nextafter(1, 0)]
)


@given(st.lists(st.builds(float.__add__, st.integers(0, 2**31).map(float), FRACTIONS), min_size=1, max_size=8))
@example([1_700_000_000.9999, 1_700_000_001.0, 1_700_000_000.9999])
@settings(deadline=None, database=None, max_examples=300)
def test_times_are_those_of_logging(times: list[float]) -> None:
    """The kept second gives what `logging.Formatter` gives, across seconds, forth and back."""
    ours, theirs = TextFormatter("%(asctime)s"), logging.Formatter("%(asctime)s")
    for created in times:
        record = make_record(created=created, msecs=(created - int(created)) * 1000)
        assert ours.format(record) == theirs.format(record)


def test_times_of_records_as_they_come() -> None:
    """Also for the milliseconds that `LogRecord` itself makes of the clock."""
    ours, theirs = TextFormatter("%(asctime)s"), logging.Formatter("%(asctime)s")
    for _ in range(2000):
        record = make_record()
        assert ours.format(record) == theirs.format(record)


def test_the_usual_ways_to_change_the_time() -> None:
    """``datefmt``, ``converter`` and the class attributes of `logging.Formatter` work as they do there."""

    class Ours(TextFormatter):
        converter = time.gmtime
        default_time_format = "%d.%m.%Y"
        default_msec_format = "%s/%03d"

    class Theirs(logging.Formatter):
        converter = time.gmtime
        default_time_format = "%d.%m.%Y"
        default_msec_format = "%s/%03d"

    record = make_record(created=1_700_000_000.25, msecs=250.0)
    for datefmt in (None, "%H:%M"):
        assert Ours("%(asctime)s", datefmt).format(record) == Theirs("%(asctime)s", datefmt).format(record)


# JSON.


def test_the_fields_of_a_json_line(either_json: None) -> None:
    """Names, order and types of what every record has."""
    record = make_record("a %s", "b", created=1_700_000_000.25, process=7, threadName="main", user=42)
    record.thread, record.lineno = 9, 0
    document = json.loads(JSONFormatter().format(record))
    timestamp = document.pop("timestamp")
    assert datetime.datetime.fromisoformat(timestamp).timestamp() == 1_700_000_000.25
    assert document == {
        "level": "INFO", "logger": "demo", "message": "a b", "process.pid": 7, "thread.id": 9,
        "thread.name": "main", "user": 42,
    }  # fmt: skip


@given(st.lists(st.floats(0, 4e9), min_size=1, max_size=4))
@example([0.0, 0.9999999, 1.0])
@settings(deadline=None, database=None, max_examples=200)
def test_timestamps_are_the_records_time(times: list[float]) -> None:
    """ISO 8601 with microseconds and offset: it names the moment of the record, and it sorts."""
    formatter = JSONFormatter()
    for created in times:
        timestamp = json.loads(formatter.format(make_record(created=created)))["timestamp"]
        moment = datetime.datetime.fromisoformat(timestamp)
        assert moment.tzinfo is not None
        assert abs((moment - datetime.datetime.fromtimestamp(created, datetime.UTC)).total_seconds()) < 2e-6
        assert len(timestamp) == len("2026-11-22T15:00:00.123456+00:00")


@pytest.mark.parametrize(
    ("zone", "winter", "summer"),
    [
        ("UTC0", "+00:00", "+00:00"),
        ("IST-5:30", "+05:30", "+05:30"),
        ("NST3:30NDT,M3.2.0,M11.1.0", "-03:30", "-02:30"),
    ],
)
def test_timestamps_in_other_zones(monkeypatch: pytest.MonkeyPatch, zone: str, winter: str, summer: str) -> None:
    """Local time with the offset that it had then, summer and winter."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        formatter = JSONFormatter()
        for created, offset in ((1_700_000_000.5, winter), (1_720_000_000.5, summer), (1_700_000_000.5, winter)):
            timestamp = formatter.formatTime(make_record(created=created))
            assert timestamp.endswith(offset)
            assert datetime.datetime.fromisoformat(timestamp).timestamp() == created
    finally:
        monkeypatch.undo()
        time.tzset()


def test_exceptions_and_stacks_in_json(either_json: None) -> None:
    """Type, message and traceback as fields, the traceback with its line ends."""
    record = make_record("a", exc_info=caught("b: c"), stack_info="Stack:\n  d")
    document = json.loads(JSONFormatter().format(snapshot(record)))
    assert document["exception.type"] == "ValueError"
    assert document["exception.message"] == "b: c"
    assert document["exception.stacktrace"].splitlines()[0] == "Traceback (most recent call last):"
    assert document["exception.stacktrace"].splitlines()[-1] == "ValueError: b: c"
    assert document["stack"] == "Stack:\n  d"


def test_exceptions_without_a_queue() -> None:
    """As the formatter of an ordinary handler, where the record still has its exception: the same fields."""
    record = make_record("a", exc_info=caught("b: c"))
    direct, queued = (json.loads(JSONFormatter().format(r)) for r in (record, snapshot(record)))
    assert direct["exception.stacktrace"] == queued["exception.stacktrace"]
    assert direct == queued


RESERVED = ["timestamp", "level", "logger", "message", "process.pid", "thread.name"]
NAMES = (
    st.sampled_from([*RESERVED, "request_id", "stack", "exception.type", "exception.message", "exception.stacktrace"])
    .flatmap(lambda name: st.sampled_from([name, f"extra.{name}", f"extra.extra.{name}", f"_{name}"]))
    | st.sampled_from(["_exception", "exception", "extra", "args_", "taskname"])
    | ANY_TEXT
)  # fmt: skip


@given(
    st.lists(NAMES.map(joined).filter(lambda name: name not in STANDARD_ATTRIBUTES), unique=True, max_size=6),
    st.booleans(),
)
@example(["level", "timestamp", "thread.name", "logger", "process.pid"], False)
@example(["_exception"], False)
@example(["_exception", "exception.type", "stack"], True)
@example(["extra.level", "level"], False)
@example(["level", "extra.level"], False)
@settings(deadline=None, database=None, max_examples=300)
def test_extra_fields_arrive_whatever_their_names(names: list[str], failing: bool) -> None:
    """Under their own name, or with ``extra.`` before it where the name is taken; none lost or in another's place."""
    fields: dict[str, Any] = {"exc_info": caught("x"), "stack_info": "Stack"} if failing else {}
    extra = {name: number for number, name in enumerate(names)}
    plain = json.loads(JSONFormatter().format(snapshot(make_record("x", created=1.0, **fields))))
    document = json.loads(JSONFormatter().format(snapshot(make_record("x", created=1.0, **fields, **extra))))
    assert {key: document.pop(key) for key in plain} == plain
    arrived = {names[number]: key for key, number in document.items()}
    assert len(arrived) == len(names)
    for name, key in arrived.items():
        assert key == name or (key.startswith("extra.") and key.endswith(f".{name}"))


def test_reserved_names_in_extra_through_the_logger(make_app: MakeApp) -> None:
    """What a user writes as ``extra`` with names that our JSON has: both values are there."""
    app, asynclog = make_app(format="json")
    app.logger.warning(
        "x", extra={"level": "high", "logger": "mine", "timestamp": 0, "thread.name": "t", "_exception": "e"}
    )
    assert asynclog.flush(HANG)
    (document,) = [json.loads(line) for line in log_lines(Path("app.log"))]
    assert (document["level"], document["extra.level"]) == ("WARNING", "high")
    assert (document["logger"], document["extra.logger"]) == (app.name, "mine")
    assert (document["extra.timestamp"], document["extra.thread.name"]) == (0, "t")
    assert document["_exception"] == "e"
    assert_conserved(asynclog.stats())


class Color(enum.Enum):
    """An ordinary enumeration."""

    RED = "red"


class Number(enum.IntEnum):
    """An enumeration of numbers."""

    ONE = 1


class Ratio(float):
    """A subclass of float, as numpy has one."""

    __slots__ = ()


class Word(str):
    """A subclass of str, as markupsafe has one."""

    __slots__ = ()


VALUES = [
    "é\u2028", 1, -(2**63), 2**64, 10**30, 1.5, 1e16, 1e-7, -0.0, True, None, b"bytes \xff", 1j, Word("word"),
    Ratio(1.5), float("nan"), float("inf"), Color.RED, Number.ONE, decimal.Decimal("1.10"), uuid.UUID(int=1),
    PurePosixPath("/a"),
    datetime.datetime(2026, 1, 2, 3, 4, 5), datetime.datetime(2026, 1, 2, 3, 4, 5, 6, datetime.UTC),
    datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=-3, minutes=-30))),
    datetime.date(2026, 1, 2), datetime.time(1, 2, 3, 4), datetime.time(1, 2, tzinfo=datetime.UTC),
    datetime.timedelta(1),
    [1, [2.5, None]], {"a": {"b": [True]}}, {1: "int", None: "none", 1.5: "float"}, {True: "bool"}, {b"k": 1}, (1, 2),
    {3},
    object, range(3), bytearray(b"a"), "\ud800", {"\ud800": "\udfff"},
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_of_extra_are_legal_json(either_json: None, value: object) -> None:
    """Every value becomes JSON as RFC 8259 has it (no NaN, no Infinity)."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    line = JSONFormatter().format(snapshot(make_record("x", value=value, list=[value])))
    document = json.loads(line, parse_constant=refuse)
    assert_one_line(line)
    assert document["list"] == [document["value"]]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (float("nan"), None),
        (float("-inf"), None),
        (2**70, 2**70),
        (b"a\xff", "a\\xff"),
        (decimal.Decimal("1.10"), "1.10"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (uuid.UUID(int=1), str(uuid.UUID(int=1))),
        (PurePosixPath("/a"), "/a"),
        (datetime.datetime(2026, 1, 2, 3, 4, 5, 6, datetime.UTC), "2026-01-02T03:04:05.000006+00:00"),
        (datetime.timedelta(1), "datetime.timedelta(days=1)"),
        (Word("word"), "word"),
        (Color.RED, "Color.RED"),
        (http.HTTPStatus.OK, 200),
        ({True: 1, None: 2, 2.5: 3, 4: 5}, {"true": 1, "null": 2, "2.5": 3, "4": 5}),
        ({"a": [float("nan"), {1: True}]}, {"a": [None, {"1": True}]}),
    ],
    ids=repr,
)
def test_how_values_look(either_json: None, value: object, shown: object) -> None:
    """What a reader of the log gets for values that JSON has no type for."""
    assert json.loads(JSONFormatter().format(snapshot(make_record("x", value=value))))["value"] == shown


def written_by_json(monkeypatch: pytest.MonkeyPatch, record: logging.LogRecord) -> str:
    """The line as it is without orjson."""
    with monkeypatch.context() as patch:
        patch.setattr(jsonvalues, "orjson", None)
        return JSONFormatter().format(record)


@needs_orjson
@pytest.mark.parametrize("queued", [True, False], ids=["snapshot", "direct"])
@pytest.mark.parametrize("spoiled", [False, True], ids=["alone", "beside what orjson refuses"])
def test_with_and_without_orjson(monkeypatch: pytest.MonkeyPatch, queued: bool, spoiled: bool) -> None:
    """A log does not change its shape when the extra is installed, nor with what else is in the record."""
    beside = {"nan": float("nan"), "surrogate": "\ud800", "big": 2**70} if spoiled else {}
    different: list[object] = []
    for value in VALUES:
        record = make_record("x", value=value, **beside)
        record = snapshot(record) if queued else record
        fast, plain = JSONFormatter().format(record), written_by_json(monkeypatch, record)
        if fast != plain:
            different.append((value, fast, plain))
    assert different == []


@needs_orjson
@pytest.mark.parametrize("other", [float("nan"), 2**70, "\ud800", {1j: 1}], ids=ascii)
def test_what_else_is_in_the_record_does_not_matter(other: object) -> None:
    """A value looks the same beside one that orjson refuses."""
    different: list[object] = []
    for value in VALUES:
        alone, beside = (
            json.loads(JSONFormatter().format(snapshot(make_record("x", value=value, other=o))))["value"]
            for o in ("", other)
        )
        if json.dumps(alone) != json.dumps(beside):
            different.append((value, alone, beside))
    assert different == []


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | st.binary(max_size=4) | st.datetimes()
    | st.dates() | st.times() | st.decimals() | st.uuids(),
    lambda children: st.lists(children, max_size=3)
    | st.dictionaries(ANY_TEXT | st.integers() | st.booleans() | st.none() | st.floats(), children, max_size=3),
    max_leaves=6,
)  # fmt: skip


@needs_orjson
@given(JSON_VALUES)
@example({"a": math.nan, "b": {True: 1, None: 2, 1.5: 3}})
@example(datetime.time(0, 0, 0, 10_000))  # orjson 3.13.0 writes 00:00:00.10000
@settings(deadline=None, database=None, max_examples=200)
def test_any_value_with_and_without_orjson(value: object) -> None:
    """Both writers give the same document for whatever ``extra`` may hold, nested and mixed."""
    record = snapshot(make_record("x", value=value, created=1.0))
    fast = JSONFormatter().format(record)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonvalues, "orjson", None)
        plain = JSONFormatter().format(record)
    for line in (fast, plain):
        assert_one_line(line)
    assert fast == plain


# A formatter of the user's own.


def test_a_formatter_of_the_users_own(make_app: MakeApp) -> None:
    """``FORMAT`` takes any `logging.Formatter`; it sees the record with its message and extra."""

    class Shout(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return f"{record.levelname}!{record.getMessage().upper()}!{record.user}"

    app, asynclog = make_app(format=Shout())
    app.logger.warning("a %s", ["b"], extra={"user": 7})
    assert asynclog.flush(HANG)
    assert log_lines(Path("app.log")) == ["WARNING!A ['B']!7"]
    assert_conserved(asynclog.stats())


def test_a_formatter_that_raises(make_app: MakeApp, capsys: pytest.CaptureFixture[str]) -> None:
    """The records are written all the same, in plain text with the reason; it is said once."""

    class Moody(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            if "bad" in record.getMessage():
                raise LookupError("do not like it")
            return super().format(record)

    app, asynclog = make_app(format=Moody("%(message)s"))
    for message in ("one", "bad two", "three", "bad four"):
        app.logger.warning(message)
    assert asynclog.flush(HANG)
    one, two, three, four = log_lines(Path("app.log"))
    assert (one, three) == ("one", "three")
    assert two.endswith(" - WARNING - bad two [not formatted: LookupError: do not like it]")
    assert four.endswith(" - WARNING - bad four [not formatted: LookupError: do not like it]")
    assert capsys.readouterr().err.count("do not like it") == 1
    assert asynclog.stats().written == 4
    assert_conserved(asynclog.stats())


class OutOfPlace(logging.LogRecord):
    """A record whose message is to be had on the thread that logs only."""

    def getMessage(self) -> str:
        if threading.current_thread() is not threading.main_thread():
            raise LookupError("out of place")
        return super().getMessage()


def test_a_record_that_raises_where_it_is_written(make_app: MakeApp) -> None:
    """It has a line, with what it was logged with and the reason."""
    app, asynclog = make_app(format="%(levelname)s %(message)s")
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(OutOfPlace)
    try:
        app.logger.warning("a %s", "b")
    finally:
        logging.setLogRecordFactory(before)
    assert asynclog.flush(HANG)
    assert log_lines(Path("app.log")) == ["WARNING a %s ('b',) [not formatted: LookupError: out of place]"]
    assert asynclog.stats().written == 1
    assert_conserved(asynclog.stats())


def test_a_formatter_that_raises_does_not_show_in_other_files() -> None:
    """Behind one queue, the files with other formatters have the record as it was logged."""

    class Broken(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            raise LookupError("broken")

    sinks = [BatchRotatingFileHandler(name) for name in ("one.log", "two.log")]
    for sink, formatter in zip(sinks, (Broken(), TextFormatter("%(msg)s | %(message)s")), strict=True):
        sink.setFormatter(formatter)
    queue = RecordQueue()
    listener = BatchQueueListener(queue, *sinks)
    queue.put(make_record("a %s", "b"))
    assert listener.stop(HANG)
    for sink in sinks:
        sink.close()
    assert log_lines(Path("one.log"))[0].endswith(" - a b [not formatted: LookupError: broken]")
    assert log_lines(Path("two.log")) == ["a %s | a b"]
