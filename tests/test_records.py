"""Snapshots: a record made safe for another thread, with the original untouched."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import json
import logging
import pathlib
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest
from flask import Flask, g, request, session
from werkzeug.datastructures import EnvironHeaders, Headers
from werkzeug.local import LocalProxy

from flask_asynclog import AsyncLog, context
from flask_asynclog.formatters import JSONFormatter, TextFormatter
from flask_asynclog.handlers import AsyncQueueHandler
from flask_asynclog.queue import RecordQueue
from flask_asynclog.recordfields import complete
from flask_asynclog.records import render, snapshot
from flask_asynclog.values import freeze
from support import HANG, assert_conserved, log_lines, run_python

MakeApp = Callable[..., tuple[Flask, AsyncLog]]


def make_record(
    message: object, *args: object, extra: dict[str, object] | None = None, **fields: Any
) -> logging.LogRecord:
    """A record as `Logger` makes it."""
    record = logging.getLogger("records").makeRecord(
        "records", logging.INFO, __file__, 1, message, args, fields.pop("exc_info", None), "function", extra,
        fields.pop("sinfo", None),
    )  # fmt: skip
    record.__dict__.update(fields)
    return record


def lonely_logger(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """A logger of no other handlers, to be called in a test's body: pytest's raise what `logging` would print."""
    logger = logging.getLogger("lonely")
    monkeypatch.setattr(logger, "propagate", False)
    return logger


def text_of(record: logging.LogRecord) -> str:
    """The message and traceback of a record as the text format writes them."""
    return TextFormatter("%(message)s").format(record)


class Broken:
    """An object whose every text raises."""

    def __str__(self) -> NoReturn:
        raise RuntimeError("in str")

    def __repr__(self) -> NoReturn:
        raise RuntimeError("in repr")


class Told:
    """An object that says which thread asked for its text."""

    def __init__(self) -> None:
        self.asked_by: set[int] = set()

    def __str__(self) -> str:
        self.asked_by.add(threading.get_ident())
        return "told"

    __repr__ = __str__


# Content.


def test_a_snapshot_has_the_same_content() -> None:
    """All attributes, of the same class; not the same object, and not the same dictionary."""
    record = make_record("a %s %d", "b", 3, extra={"user": 7, "nothing": None})
    copied = snapshot(record)
    assert copied is not record
    assert copied.__dict__ == record.__dict__
    assert copied.__dict__ is not record.__dict__
    assert type(copied) is type(record)
    assert copied.getMessage() == "a b 3"


def error_with_traceback() -> tuple[Any, Any, Any]:
    try:
        raise ValueError("no: such luck")
    except ValueError:
        return sys.exc_info()


@pytest.mark.parametrize(
    "record",
    [
        make_record("plain"),
        make_record("%s %s", [1], {"a": [2]}),
        make_record("%(a)s", {"a": [1]}),
        make_record(["not", "text"]),
        make_record("x", extra={"list": [1, [2]], "set": {1}, "object": object(), "nested": {"a": {"b": [1]}}}),
        make_record("x", exc_info=error_with_traceback()),
        make_record("x", sinfo="Stack:\n  here"),
        make_record("%d", "not a number"),
        make_record("%s", Broken(), extra={"broken": Broken()}),
    ],
    ids=lambda record: repr(record.msg),
)
@pytest.mark.parametrize("through", ["snapshot", "handler"])
def test_the_original_is_not_touched(make_app: MakeApp, record: logging.LogRecord, through: str) -> None:
    """Other handlers see the record as if ours did not exist: the same attributes with the same objects."""
    before = dict(record.__dict__)
    if through == "handler":
        app, asynclog = make_app()
        app.extensions["asynclog"].pipeline.handler.handle(record)
        assert asynclog.flush(HANG)
        assert asynclog.stats().written == 1
        assert_conserved(asynclog.stats())
    else:
        snapshot(record, TextFormatter())
    assert record.__dict__.keys() == before.keys()
    assert all(record.__dict__[name] is value for name, value in before.items())


# What changes after the call does not change the line.


def test_arguments_changed_later_do_not_change_the_line() -> None:
    """Message and arguments count as they were at the time of the call."""
    items, mapping, message = [1], {"key": "old"}, ["message"]
    records = [make_record("%s", items), make_record("%(key)s", mapping), make_record(message)]
    copied = [snapshot(record) for record in records]
    items.append(2)
    mapping["key"] = "new"
    message.append("new")
    assert [text_of(record) for record in copied] == ["[1]", "old", "['message']"]


def test_extra_changed_later_does_not_change_the_record() -> None:
    """Containers at any depth are copies."""
    deep: dict[str, Any] = {"list": [1], "dict": {"inner": {"set": {1}}}, "deque": (1, [2]), "bytes": bytearray(b"a")}
    copied = snapshot(make_record("x", extra={"deep": deep}))
    expected = json.dumps(copied.__dict__["deep"])
    deep["list"].append(2)
    deep["dict"]["inner"]["set"].add(2)
    deep["deque"][1].append(3)
    deep["bytes"].extend(b"b")
    deep["new"] = 1
    assert json.dumps(copied.__dict__["deep"]) == expected
    assert copied.__dict__["deep"]["dict"] == {"inner": {"set": [1]}}
    assert copied.__dict__["deep"]["bytes"] == "bytearray(b'a')"


@pytest.mark.parametrize("where", ["logger", "handler"])
@pytest.mark.parametrize("extra", [1, 2, 3])
@pytest.mark.parametrize("lacking", ["thread", "processName", list(vars(logging.makeLogRecord({})))[-1]])
def test_extra_of_a_record_that_lacks_something(where: str, extra: int, lacking: str) -> None:
    """A filter took an attribute away, as of asyncio's task for tidier JSON: what is added is copied all the same."""

    def take_away(record: logging.LogRecord) -> bool:
        del record.__dict__[lacking]
        return True

    queue = RecordQueue()
    handler, logger = AsyncQueueHandler(queue), logging.Logger("lacking")
    logger.addHandler(handler)
    (logger if where == "logger" else handler).addFilter(take_away)
    value = {"a": 1}
    logger.info("x", extra={f"user{number}": value for number in range(extra)})
    value["a"] = 2
    (record,) = queue.take(10)
    assert [record.__dict__[f"user{number}"] for number in range(extra)] == [{"a": 1}] * extra
    handler.close()


@pytest.mark.parametrize("name", ["exc_text", "stack_info"])
def test_patterns_and_a_record_that_lacks_something(make_alone: MakeApp, name: str) -> None:
    """Such a record costs at most itself, not its batch."""
    app, asynclog = make_alone(format="%(name)s %(message)s", redact_patterns=[r"\d{16}"], flush_interval=60.0)
    app.logger.info("the thread runs")
    assert asynclog.flush(HANG)

    def take_away(record: logging.LogRecord) -> bool:
        del record.__dict__[name]
        return True

    app.logger.info("before 4111111111111111")
    app.logger.addFilter(take_away)
    app.logger.info("lacking")
    app.logger.removeFilter(take_away)
    app.logger.info("after")
    asynclog.flush(HANG)
    lines = [line.partition(" ")[2] for line in log_lines(Path("app.log")) if "lacking" not in line]
    assert lines == ["the thread runs", "before [REDACTED]", "after"]
    assert_conserved(asynclog.stats())


def test_patterns_and_what_a_filter_adds_to_a_request_record(make_app: MakeApp) -> None:
    """The message is no longer that of the request alone, which has no secrets any more."""
    app, asynclog = make_app(format="%(name)s %(message)s", redact_patterns=[r"\d{16}"], request_id_header=None)

    def add(record: logging.LogRecord) -> bool:
        record.msg = f"card=4111111111111111 {record.msg}"
        return True

    app.logger.addFilter(add)
    app.test_client().get("/nowhere")
    app.logger.removeFilter(add)
    assert asynclog.flush(HANG)
    lines = [line.split()[1:3] for line in log_lines(Path("app.log"))]
    assert lines == [["card=[REDACTED]", "Request"], ["card=[REDACTED]", "Response"]]


def test_objects_become_text_on_the_callers_thread(make_app: MakeApp) -> None:
    """Objects of other libraries (database sessions, requests) are never asked by the listener's thread."""
    app, asynclog = make_app(format="json")
    message, argument, extra = Told(), Told(), Told()
    app.logger.warning(message)
    app.logger.warning("%s", argument)
    app.logger.warning("x", extra={"field": extra, "list": [extra]})
    assert asynclog.flush(HANG)
    for told in (message, argument, extra):
        assert told.asked_by == {threading.get_ident()}
    documents = [json.loads(line) for line in log_lines(Path("app.log"))]
    assert [d["message"] for d in documents] == ["told", "told", "x"]
    assert (documents[2]["field"], documents[2]["list"]) == ("told", ["told"])
    assert_conserved(asynclog.stats())


class Color(enum.Enum):
    """An ordinary enumeration."""

    RED = 1


@pytest.mark.parametrize(
    "value",
    [
        "text",
        1,
        2**70,
        1.5,
        True,
        None,
        b"bytes",
        1j,
        datetime.datetime(2026, 1, 2, 3, 4, 5, 6, datetime.UTC),
        datetime.date(2026, 1, 2),
        datetime.time(1, 2),
        datetime.timedelta(1),
        decimal.Decimal("1.10"),
        uuid.UUID(int=1),
        pathlib.PurePosixPath("/a"),
        Color.RED,
    ],
    ids=repr,
)
def test_immutable_values_are_kept(value: object) -> None:
    """What cannot change is not copied: formatters get the value itself."""
    assert freeze(value) is value
    assert freeze([value]) == [value]
    assert snapshot(make_record("x", extra={"value": value})).__dict__["value"] is value


def test_containers_become_plain_ones() -> None:
    """Every mapping becomes a dict, every other container a list, keys that no format has their text."""
    assert freeze(collections.OrderedDict(a=collections.ChainMap({"b": 1}))) == {"a": {"b": 1}}
    assert freeze((1, frozenset({2}), {}.keys())) == [1, [2], []]
    assert freeze({(1, 2): 3, 4: 5, None: 6}) == {"(1, 2)": 3, 4: 5, None: 6}


def test_containers_with_names_keep_them() -> None:
    """Headers and named tuples: names tell what is secret, and their ``repr`` would show it."""
    credentials = collections.namedtuple("credentials", "user password")
    assert freeze([credentials("bob", "hunter2")]) == [{"user": "bob", "password": "hunter2"}]
    headers = EnvironHeaders({"HTTP_AUTHORIZATION": "Basic eA==", "HTTP_HOST": "h", "wsgi.version": (1, 0)})
    assert freeze(headers) == {"Authorization": "Basic eA==", "Host": "h"}
    assert freeze(Headers([("Via", "a"), ("X-A", "1"), ("Via", "b")])) == {"Via": "a, b", "X-A": "1"}


def test_endless_nesting_ends() -> None:
    """A cycle, or a depth that nobody reads, is cut: a record stays small, and nothing recurses for ever."""
    cycle: list[object] = []
    cycle.append(cycle)
    frozen = freeze(cycle)
    depth = 0
    while isinstance(frozen, list):
        frozen, depth = frozen[0], depth + 1
    assert frozen == "…"
    assert depth == 8


# Objects of others that raise.


class BrokenMapping(Mapping[str, object]):
    """A mapping that changes while it is read."""

    def __getitem__(self, key: str) -> object:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("dictionary changed size during iteration")

    def __len__(self) -> int:
        return 1


class StrRaises(Exception):
    """An exception without text."""

    def __str__(self) -> NoReturn:
        raise RuntimeError("in str")


def test_objects_that_raise_still_give_a_line(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """As message, argument, extra value, key, exception: what can be said of the record is said."""
    lonely = lonely_logger(monkeypatch)
    _, asynclog = make_app(loggers=[lonely.name], format="json")
    lonely.warning(Broken())
    lonely.warning("a %s", Broken())
    lonely.warning("b %r", Broken())
    lonely.warning("c", extra={"broken": Broken(), "list": [Broken()], "mapping": BrokenMapping()})
    try:
        raise StrRaises
    except StrRaises:
        lonely.exception("d")
    assert asynclog.flush(HANG)
    found = [json.loads(line) for line in log_lines(Path("app.log"))]
    assert len(found) == 5
    assert found[0]["message"].startswith("<Broken: repr() raised RuntimeError> ")
    assert found[1]["message"] == "a %s <tuple: repr() raised RuntimeError> [not formatted: RuntimeError: in str]"
    assert found[2]["message"].startswith("b %r ")
    assert found[3]["broken"] == "<Broken: repr() raised RuntimeError>"
    assert found[3]["list"] == ["<Broken: repr() raised RuntimeError>"]
    assert found[3]["mapping"] == "<BrokenMapping: RuntimeError: dictionary changed size during iteration>"
    assert found[4]["exception.type"] == "StrRaises"
    assert "StrRaises" in found[4]["exception.stacktrace"]
    assert asynclog.stats().written == 5
    assert_conserved(asynclog.stats())


@pytest.mark.parametrize(
    ("message", "args"),
    [
        ("%d", ("x",)),
        ("%s", ("x", "y")),
        ("%s %s", ("x",)),
        ("%(a)s", ("x",)),
        ("%(a)s", ({"b": 1},)),
        ("100%", ("x",)),
        ("%q", ("x",)),
        ("%d", ([1],)),
        ("no place", ("x",)),
    ],
)
@pytest.mark.parametrize("format", ["text", "json"])
def test_arguments_that_do_not_fit(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, message: str, args: tuple[Any, ...], format: str
) -> None:
    """A mistake in a logging call gives a line with message, arguments and the reason, not a traceback on stderr."""
    lonely = lonely_logger(monkeypatch)
    _, asynclog = make_app(loggers=[lonely.name], format=format)
    lonely.warning(message, *args)
    lonely.warning("next")
    assert asynclog.flush(HANG)
    line, following = log_lines(Path("app.log"))
    text = json.loads(line)["message"] if format == "json" else line.partition(" - WARNING - ")[2]
    assert text.startswith(f"{message} ")
    assert repr(args[0])[1:-1] in text
    assert "[not formatted: " in text
    assert "next" in following
    assert asynclog.stats().written == 2
    assert_conserved(asynclog.stats())


def test_render_never_raises() -> None:
    """The message of any record, whatever is wrong with it."""
    assert render(make_record("%d", "x")).startswith("%d ('x',) [not formatted: TypeError: ")
    assert render(make_record(Broken())).endswith(" [not formatted: RuntimeError: in str]")
    assert render(make_record("%s", "x")) == "x"


class BrokenText(str):
    """A text that does not become one."""

    __slots__ = ()
    __str__ = __repr__ = Broken.__str__  # type: ignore[assignment]


def test_a_text_that_raises_is_shown_by_its_characters() -> None:
    """As message, as argument, as a key."""
    text = BrokenText("text")
    assert render(snapshot(make_record(text))).startswith("text ")
    assert render(snapshot(make_record("%s", text))).startswith("%s ")
    assert freeze({text: 1}) == {"text": 1}


# Values bound to the request.


def test_proxies_are_resolved_in_the_request(make_app: MakeApp) -> None:
    """`request`, `session`, `g` and other proxies in message, arguments and extra are read where they are bound."""
    app, asynclog = make_app(format="json")
    app.secret_key = "x"
    user = LocalProxy(lambda: g.user)

    @app.get("/<name>")
    def view(name: str) -> str:
        g.user = name
        session["cart"] = [1, 2]
        app.logger.info("%s %s", request, user, extra={"user": user, "kept": session, "deep": {"args": request.args}})
        app.logger.info(user)
        session["cart"].append(3)
        return "x"

    app.test_client().get("/bob?a=1")
    assert asynclog.flush(HANG)
    _, first, second, _ = [json.loads(line) for line in log_lines(Path("app.log"))]
    assert first["message"] == "<Request 'http://localhost/bob?a=1' [GET]> bob"
    assert first["user"] == "bob"
    assert first["kept"] == {"cart": [1, 2]}
    assert first["deep"] == {"args": {"a": "1"}}
    assert second["message"] == "bob"
    assert_conserved(asynclog.stats())


def test_proxies_outside_their_context(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unbound proxy costs no record: the line says so."""
    lonely = lonely_logger(monkeypatch)
    _, asynclog = make_app(loggers=[lonely.name], format="json")
    lonely.warning("at %s", request, extra={"user": LocalProxy(lambda: g.user), "request": request})
    assert asynclog.flush(HANG)
    (document,) = [json.loads(line) for line in log_lines(Path("app.log"))]
    assert document["message"].startswith("at ")
    assert document["user"].startswith("<unbound: ")
    assert document["request"].startswith("<unbound: ")
    assert_conserved(asynclog.stats())


@pytest.mark.parametrize("error", [AttributeError, KeyError, ZeroDivisionError])
def test_proxies_that_raise(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    """Nobody has logged in, so ``current_user`` raises: the record is there all the same."""

    def load() -> NoReturn:
        raise error("nobody")

    lonely = lonely_logger(monkeypatch)
    _, asynclog = make_app(loggers=[lonely.name], format="json")
    user = LocalProxy(load)
    lonely.warning("by %s at %d", user, 7)
    lonely.warning("with it", extra={"user": user, "deep": [{"user": user}]})
    assert asynclog.flush(HANG)
    first, second = [json.loads(line) for line in log_lines(Path("app.log"))]
    assert first["message"].startswith("by ")
    assert error.__name__ in first["message"]
    assert error.__name__ in second["user"]
    assert error.__name__ in second["deep"][0]["user"]
    assert_conserved(asynclog.stats())


def test_the_request_id_is_taken_from_the_context() -> None:
    """In a request every record gets its id; one given by the caller wins; outside there is none."""
    outer = context.current.get()
    context.current.set(context.Context("abc"))
    inside = snapshot(make_record("x"))
    own = snapshot(make_record("x", extra={"request_id": "own"}))
    context.current.set(outer)
    outside = snapshot(make_record("x"))
    for record, request_id in ((inside, "abc"), (own, "own"), (outside, None)):
        assert json.loads(JSONFormatter().format(record)).get("request_id") == request_id
        assert TextFormatter("%(request_id)s %(message)s").format(record) == f"{request_id or '-'} x"
        assert complete(record).__dict__.get("request_id") == request_id


# Tracebacks.


class ShoutingFormatter(logging.Formatter):
    """A formatter with its own way of tracebacks."""

    def formatException(self, ei: Any) -> str:
        return f"!!! {ei[1]} !!!"


def test_a_traceback_becomes_text() -> None:
    """The frames, which keep all their locals alive, do not go through the queue."""
    copied = snapshot(make_record("x", exc_info=error_with_traceback()))
    assert copied.exc_info is None
    assert copied.exc_text is not None
    assert copied.exc_text.startswith("Traceback (most recent call last):\n")
    assert copied.exc_text.endswith("ValueError: no: such luck")
    document = json.loads(JSONFormatter().format(copied))
    assert (document["exception.type"], document["exception.message"]) == ("ValueError", "no: such luck")


def test_the_formatters_own_tracebacks_count() -> None:
    """A custom ``formatException`` is used, on the caller's thread."""
    record = make_record("x", exc_info=error_with_traceback())
    assert snapshot(record, ShoutingFormatter()).exc_text == "!!! no: such luck !!!"


def test_another_handlers_cached_traceback_is_not_taken_over() -> None:
    """`logging` keeps the first formatter's text on the record (cpython#137790); ours writes its own."""
    record = make_record("x", exc_info=error_with_traceback())
    ShoutingFormatter().format(record)
    assert record.exc_text == "!!! no: such luck !!!"
    copied = snapshot(record)
    assert copied.exc_info is None
    assert copied.exc_text is not None
    assert copied.exc_text.startswith("Traceback (most recent call last)")
    assert "Traceback (most recent call last)" in text_of(record)
    assert record.exc_text == "!!! no: such luck !!!"


def test_a_traceback_that_is_text_already_is_kept() -> None:
    """Records from another process (`socketserver`, `makeLogRecord`) come with text only."""
    record = make_record("x", exc_text="Traceback: there")
    assert text_of(snapshot(record)) == "x\\nTraceback: there"


def test_no_exception_after_all(make_app: MakeApp) -> None:
    """``logger.exception`` without an exception, as the standard library shows it."""
    app, asynclog = make_app()
    app.logger.exception("x")
    assert asynclog.flush(HANG)
    (line,) = log_lines(Path("app.log"))
    assert line.endswith(" - ERROR - x\\nNoneType: None")
    assert_conserved(asynclog.stats())


@pytest.mark.parametrize(
    "exc_info", [True, (), (1,), "text", ValueError("by hand"), (ValueError, None, None)], ids=repr
)
def test_exc_info_made_by_hand(make_app: MakeApp, exc_info: object) -> None:
    """Records made without a logger may hold anything there; the record arrives."""
    app, asynclog = make_app()
    record = make_record("x")
    record.exc_info = exc_info  # type: ignore[assignment]
    app.extensions["asynclog"].pipeline.handler.handle(record)
    assert asynclog.flush(HANG)
    (line,) = log_lines(Path("app.log"))
    assert " - INFO - x" in line
    assert_conserved(asynclog.stats())


def test_exception_groups_and_causes(make_app: MakeApp) -> None:
    """Everything that a traceback shows is in the one line."""
    app, asynclog = make_app()
    try:
        try:
            raise ExceptionGroup("several", [ValueError("one"), TypeError("two")])
        except ExceptionGroup as error:
            raise LookupError("outer") from error
    except LookupError:
        app.logger.exception("x")
    assert asynclog.flush(HANG)
    (line,) = log_lines(Path("app.log"))
    for part in (
        "ValueError: one",
        "TypeError: two",
        "several (2 sub-exceptions)",
        "direct cause",
        "LookupError: outer",
    ):
        assert part in line
    assert_conserved(asynclog.stats())


# Records of other classes.


class BraceRecord(logging.LogRecord):
    """A record with ``{}`` messages, as the logging cookbook has them."""

    def getMessage(self) -> str:
        message = str(self.msg)
        return message.format(*self.args) if self.args else message


class PrefixedRecord(logging.LogRecord):
    """Puts something before each message, each time that it is asked."""

    def getMessage(self) -> str:
        return f"[job 7] {super().getMessage()}"


class PrivateSlot(logging.LogRecord):
    """With a slot of a private name."""

    __slots__ = ("__other",)


class PrivateSlots(PrivateSlot):
    """And with a single one."""

    __slots__ = "one"


class SlottedRecord(logging.LogRecord):
    """A record with an attribute outside its dictionary."""

    __slots__ = ("secret",)

    def getMessage(self) -> str:
        return f"{self.secret} {super().getMessage()}"


@pytest.mark.parametrize("args", [("a", 1), (["a"], 1)], ids=["immutable", "mutable"])
def test_a_record_class_with_its_own_message(args: tuple[object, ...]) -> None:
    """``getMessage`` of the class counts, once, also when the record is rendered on the caller's thread."""
    record = BraceRecord("records", logging.INFO, __file__, 1, "{} and {}", args, None)
    assert text_of(snapshot(record)) == f"{args[0]} and 1"
    record = PrefixedRecord("records", logging.INFO, __file__, 1, "%s and %s", args, None)
    assert text_of(snapshot(snapshot(record))) == f"[job 7] {args[0]} and 1"


def test_braces_in_arguments_are_not_formatted_again() -> None:
    """What a client sent is data, not a format."""
    record = BraceRecord("records", logging.INFO, __file__, 1, "{}", (["{0} {x}"],), None)
    assert text_of(snapshot(record)) == "['{0} {x}']"
    record = make_record("%s", ["100% %s"])
    assert text_of(snapshot(record)) == "['100% %s']"


def test_a_record_class_with_slots() -> None:
    """Attributes outside the dictionary arrive as well."""
    record = SlottedRecord("records", logging.INFO, __file__, 1, "x %s", ("y",), None)
    record.secret = "slot"
    assert text_of(snapshot(record)) == "slot x y"
    private = PrivateSlots("records", logging.INFO, __file__, 1, "x", (), None)
    private.one, private._PrivateSlot__other = ["a"], ["b"]  # type: ignore[attr-defined]
    copied: Any = snapshot(private)
    private.one.append("later")
    assert (copied.one, copied._PrivateSlot__other) == (["a"], ["b"])
    assert copied.__dict__ is not private.__dict__


def test_a_record_factory_of_before_the_import(tmp_path: Path) -> None:
    """What it adds is added: copied, shown, and without secrets."""
    code = """
import json, logging
tenants = ["a"]
class Added(logging.LogRecord):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.tenants, self.password = tenants, "s3cret"
logging.setLogRecordFactory(Added)
from flask_asynclog.handlers import AsyncRotatingFileHandler
handler = AsyncRotatingFileHandler("app.log", format="json")
logging.getLogger().addHandler(handler)
logging.getLogger().warning("x")
tenants.append("later")
handler.close()
document = json.loads(open("app.log").read())
assert (document["tenants"], document["password"]) == (["a"], "[REDACTED]"), document
"""
    run_python(code, cwd=tmp_path)


def test_a_record_factory_that_our_own_records_would_break(tmp_path: Path) -> None:
    """They are not made by it: the report of drops is written, and the thread goes on."""
    code = """
import logging
from flask_asynclog.handlers import AsyncRotatingFileHandler
handler = AsyncRotatingFileHandler("app.log", queue_size=5, flush_interval=60)
logger = logging.getLogger("mine")
logger.addHandler(handler)
class Strict(logging.LogRecord):
    def __init__(self, name, *args, **kwargs):
        super().__init__(name, *args, **kwargs)
        self.part = {"mine": 1}[name]
logging.setLogRecordFactory(Strict)
for _ in range(50):
    logger.warning("x")
handler.flush()
stats = handler.stats()
assert stats.dropped and not stats.restarts and not stats.pending, stats
handler.close()
"""
    run_python(code, cwd=tmp_path)
    assert any("dropped" in line for line in log_lines(tmp_path / "app.log"))


def test_a_record_factory(make_app: MakeApp) -> None:
    """`logging.setLogRecordFactory` works: its class, its attributes."""
    app, asynclog = make_app(format="json")
    before = logging.getLogRecordFactory()

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = BraceRecord(*args, **kwargs)
        record.tenant = "acme"
        return record

    logging.setLogRecordFactory(factory)
    try:
        app.logger.warning("{} {}", "a", [1])  # noqa: PLE1205
    finally:
        logging.setLogRecordFactory(before)
    assert asynclog.flush(HANG)
    (document,) = [json.loads(line) for line in log_lines(Path("app.log"))]
    assert (document["message"], document["tenant"]) == ("a [1]", "acme")
    assert_conserved(asynclog.stats())
