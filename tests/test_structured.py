"""JSON, ECS and logfmt: which fields there are, what they are called, and what becomes of values and names."""

from __future__ import annotations

import datetime
import enum
import json
import logging
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from flask import Flask, Response
from hypothesis import example, given
from hypothesis import strategies as st

from flask_asynclog import AsyncLog, bind, fields, jsonvalues
from flask_asynclog.context import Context, Span
from flask_asynclog.escaping import escape_json
from flask_asynclog.formatters import ECSFormatter, JSONFormatter, LogfmtFormatter, StructuredFormatter
from flask_asynclog.records import CONTEXT, snapshot
from flask_asynclog.source import Source
from formats import assert_one_line, make_outcome, make_record, read_json, read_logfmt
from support import HANG, assert_conserved, log_lines

MakeApp = Callable[..., tuple[Flask, AsyncLog]]

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)
#: A request with all that it can have.
FULL = {
    "REMOTE_ADDR": "192.0.2.1", "HTTP_USER_AGENT": "curl/8", "HTTP_REFERER": "http://r.example/?token=abc",
    "HTTP_HOST": "shop.example:8080", "SERVER_PROTOCOL": "HTTP/1.1", "CONTENT_LENGTH": "7",
    "QUERY_STRING": "a=1&password=hunter2", "HTTP_TRACEPARENT": f"00-{'a' * 32}-{'b' * 16}-01",
}  # fmt: skip


def caught(error: BaseException) -> Any:
    """``error`` with a traceback."""
    try:
        raise error
    except type(error):
        return sys.exc_info()


# The fields of a response.


def test_a_response_in_json() -> None:
    """Every field of a response, by OpenTelemetry's names, with its type."""
    outcome = make_outcome("503 SERVICE UNAVAILABLE", **FULL)
    outcome.exchange.user = "u1"
    document = read_json(JSONFormatter().format_entry(outcome))
    assert re.fullmatch(r"2027-01-15T\d\d:\d\d:00\.124690[+-]\d\d:\d\d", document.pop("timestamp"))
    assert isinstance(document.pop("process.pid"), int)
    assert isinstance(document.pop("thread.id"), int)
    assert document == {
        "level": "ERROR",
        "logger": "demo",
        "message": f"Response 503 SERVICE UNAVAILABLE GET /hello/bob 1.23ms 27B id={'0' * 32}",
        "thread.name": "MainThread",
        "request_id": "0" * 32,
        "trace_id": "a" * 32,
        "span_id": "b" * 16,
        "http.request.method": "GET",
        "url.path": "/hello/bob",
        "url.query": "a=1&password=[REDACTED]",
        "url.scheme": "http",
        "client.address": "192.0.2.1",
        "user_agent.original": "curl/8",
        "http.request.header.referer": ["http://r.example/?token=[REDACTED]"],
        "server.address": "shop.example",
        "server.port": 8080,
        "network.protocol.version": "1.1",
        "http.request.body.size": 7,
        "http.response.status_code": 503,
        "http.server.request.duration": 0.001235,
        "http.response.body.size": 27,
        "error.type": "503",
        "user.id": "u1",
    }


def test_a_response_in_ecs() -> None:
    """The same by ECS's names: level in lower case, duration in whole nanoseconds, the referrer as text."""
    outcome = make_outcome("503 SERVICE UNAVAILABLE", **FULL)
    document = read_json(ECSFormatter().format_entry(outcome))
    assert list(document)[:4] == ["@timestamp", "log.level", "message", "ecs.version"]
    moment = datetime.datetime.fromisoformat(document.pop("@timestamp"))
    assert moment.timestamp() == pytest.approx(outcome.created, abs=2e-6)
    assert type(document["event.duration"]) is int
    for name in ("process.pid", "process.thread.id", "process.thread.name", "message"):
        document.pop(name)
    assert document == {
        "log.level": "error",
        "ecs.version": "8.11.0",
        "log.logger": "demo",
        "http.request.id": "0" * 32,
        "trace.id": "a" * 32,
        "span.id": "b" * 16,
        "http.request.method": "GET",
        "url.path": "/hello/bob",
        "url.query": "a=1&password=[REDACTED]",
        "url.scheme": "http",
        "client.address": "192.0.2.1",
        "user_agent.original": "curl/8",
        "http.request.referrer": "http://r.example/?token=[REDACTED]",
        "server.address": "shop.example",
        "server.port": 8080,
        "http.version": "1.1",
        "http.request.body.bytes": 7,
        "http.response.status_code": 503,
        "event.duration": 1_235_000,
        "http.response.body.bytes": 27,
        "error.type": "503",
    }


def test_a_response_in_logfmt() -> None:
    """The same as pairs: ``ts`` and ``msg``, the level in lower case, values in quotes where they need them."""
    outcome = make_outcome("404 NOT FOUND", **FULL)
    line = LogfmtFormatter().format_entry(outcome)
    assert line.startswith("ts=2027-01-15T")
    assert ' level=warning logger=demo msg="Response 404 NOT FOUND GET /hello/bob 1.23ms 27B id=' in line
    assert " http.request.method=GET url.path=/hello/bob " in line
    pairs, document = read_logfmt(line), read_json(JSONFormatter().format_entry(outcome))
    renamed = {"timestamp": "ts", "message": "msg"}
    for name, value in document.items():
        expected = value.lower() if name == "level" else value[0] if isinstance(value, list) else str(value)
        assert pairs.pop(renamed.get(name, name)) == expected
    assert pairs == {}


@pytest.mark.parametrize("make", [JSONFormatter, ECSFormatter])
def test_the_names_are_those_of_the_table(make: type[JSONFormatter | ECSFormatter]) -> None:
    """No format has a field that the table has not, and none of the table is missing from a record that has it all."""
    ecs = make is ECSFormatter
    response = make_outcome("500 INTERNAL SERVER ERROR", source=Source("demo", sample_rate=0.5), **FULL)
    exchange = response.exchange
    exchange.rule = Flask("x").url_rule_class("/hello/<name>", endpoint="shop.hello")
    exchange.user, exchange.error, exchange.error_type, exchange.error_message = "u", "E: m", "E", "m"
    response.sent, response.first_byte, response.aborted = 27, 0.0001, True
    named = {*read_json(make().format_entry(response))}
    ordinary = make_record(exc_info=caught(ValueError("x")), stack_info="Stack")
    ordinary.__dict__[CONTEXT] = exchange
    named |= {*read_json(make().format(ordinary))}
    known = {
        (field.ecs or field.name) if ecs else field.name
        for field in fields.BY_NAME.values()
        if field.ecs is not None or not ecs
    }
    assert named == (known | {"ecs.version"} if ecs else known)


def test_the_place_of_a_logging_call(make_app: MakeApp) -> None:
    """File, line and function of the call, in each format by its names."""
    record = make_record("x")
    record.lineno, record.pathname = 42, "/srv/app.py"
    document, ecs = (read_json(make().format(record)) for make in (JSONFormatter, ECSFormatter))
    assert [document[f"code.{name}"] for name in ("file.path", "line.number", "function.name")] == [
        "/srv/app.py", 42, "function",
    ]  # fmt: skip
    assert [ecs[f"log.origin.{name}"] for name in ("file.name", "file.line", "function")] == [
        "/srv/app.py", 42, "function",
    ]  # fmt: skip
    assert read_logfmt(LogfmtFormatter().format(record))["code.line.number"] == "42"


def test_exceptions() -> None:
    """Type, text and traceback are fields of their own."""
    record = snapshot(make_record("failed", exc_info=caught(KeyError("a\nb"))))
    document, ecs = (read_json(make().format(record)) for make in (JSONFormatter, ECSFormatter))
    pairs = read_logfmt(LogfmtFormatter().format(record))
    assert (document["exception.type"], document["exception.message"]) == ("KeyError", "'a\\nb'")
    assert document["exception.stacktrace"].startswith("Traceback (most recent call last):\n")
    assert (ecs["error.type"], ecs["error.message"]) == ("KeyError", "'a\\nb'")
    assert ecs["error.stack_trace"] == document["exception.stacktrace"] == pairs["exception.stacktrace"]
    assert "exception.type" not in ecs


def test_headers_of_one_name(make_app: MakeApp) -> None:
    """Request and response headers that the options name: lists in JSON, joined in logfmt, none lost."""
    documents: dict[str, dict[str, Any]] = {}
    for format in ("json", "logfmt"):
        app, asynclog = make_app(
            format=format, filename=f"{format}.log", request_events=["response"], request_logger="headers",
            loggers=["headers"], request_headers=["Accept"], response_headers=["Link", "Set-Cookie"],
        )  # fmt: skip

        @app.get("/")
        def index() -> Response:
            response = Response("x")
            response.headers.extend([("Link", "</a>"), ("Link", "</b>"), ("Set-Cookie", "id=1")])
            return response

        app.test_client().get("/", headers={"Accept": "text/html"})
        assert asynclog.flush(HANG)
        (line,) = log_lines(Path(f"{format}.log"))
        documents[format] = read_json(line) if format == "json" else read_logfmt(line)
        asynclog.close()
    prefix = "http.response.header."
    assert documents["json"][f"{prefix}link"] == ["</a>", "</b>"]
    assert documents["json"][f"{prefix}set-cookie"] == ["[REDACTED]"]
    assert documents["logfmt"][f"{prefix}link"] == "</a>, </b>"
    assert documents["logfmt"][f"{prefix}set-cookie"] == "[REDACTED]"
    assert documents["json"]["http.request.header.accept"] == ["text/html"]


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("caf\u00e9".encode(), "caf\u00e9"),
        ("\u042f\u043d\u0434\u0435\u043a\u0441".encode(), "\u042f\u043d\u0434\u0435\u043a\u0441"),
        (b"caf\xe9", "caf\\xe9"),
        (b"\xc3\x89 \xff", "\u00c9 \\xff"),
    ],
)
def test_headers_in_utf8(sent: bytes, shown: str) -> None:
    """A client's bytes are read as UTF-8; those that are none are shown as such."""
    header = sent.decode("latin-1")
    source = Source("demo", request_headers=["X-Name"])
    outcome = make_outcome(source=source, HTTP_USER_AGENT=header, HTTP_REFERER=header, HTTP_X_NAME=header)
    document = read_json(JSONFormatter().format_entry(outcome))
    assert document["user_agent.original"] == shown
    assert document["http.request.header.referer"] == document["http.request.header.x-name"] == [shown]


# Names of the user's own.


def test_bound_and_extra_names_in_logfmt() -> None:
    """What a key cannot have is ``_``; a name that is taken, or taken by that, gets ``extra.`` before it."""
    record = make_record("x", **{"a b": 1, "a_b": 2, "a=b": 3, "ts": 4, "level": 5, "": 6, "\u00e9": 7, "x.y-z": 8})
    context = Context()
    context.bound = {"msg": 9, "logger": 10}
    record.__dict__[CONTEXT] = context
    pairs = read_logfmt(LogfmtFormatter().format(record))
    assert (pairs["msg"], pairs["level"], pairs["logger"]) == ("x", "info", "demo")
    base = read_logfmt(LogfmtFormatter().format(make_record("x")))
    assert {name: value for name, value in pairs.items() if name not in base} == {
        "a_b": "1", "extra.a_b": "2", "extra.2.a_b": "3", "extra.ts": "4", "extra.level": "5", "_": "6",
        "extra._": "7", "x.y-z": "8", "extra.msg": "9", "extra.logger": "10",
    }  # fmt: skip


def test_many_names_that_become_one() -> None:
    """A client may have made them up: the line, and the work, grow as they do."""
    names = {chr(0x4E00 + number): number for number in range(2000)}
    line = LogfmtFormatter().format(make_record("x", **names))
    assert len(line) < 20 * len(names) + 1000
    pairs = read_logfmt(line)
    assert [pairs[name] for name in ("_", "extra._", "extra.2._", "extra.1999._")] == ["0", "1", "2", "1999"]
    taken = {"level": 1, "extra.level": 2, "extra.2.level": 3, "extra.3.level": 4, "lével": 5}
    document = read_json(JSONFormatter().format(make_record("x", **taken)))
    assert len({*document} & {*taken}) == 5
    assert {1, 2, 3, 4, 5} <= {value for value in document.values() if type(value) is int}


@pytest.mark.parametrize("formatter", [JSONFormatter(), ECSFormatter(), LogfmtFormatter()])
def test_names_that_are_no_text(formatter: StructuredFormatter) -> None:
    """`logging` takes them as ``extra``."""
    record = make_record("x")
    vars(record).update(cast("Any", {7: 8, None: 9}))
    line = formatter.format(record)
    pairs = read_logfmt(line) if isinstance(formatter, LogfmtFormatter) else read_json(line)
    assert str(pairs["7"]) == "8"


def test_names_of_ecs_objects() -> None:
    """Elasticsearch takes no document in which ``user`` is a value and ``user.id`` another: the value moves."""
    record = make_record("x", user=42, event=["a"], error={"code": "E1"}, url="http://x", color="red")
    document = read_json(ECSFormatter().format(record))
    assert (document["extra.user"], document["extra.event"], document["extra.url"]) == (42, ["a"], "http://x")
    assert (document["error"], document["color"]) == ({"code": "E1"}, "red")
    assert not {"user", "event", "url"} & {*document}
    assert read_json(JSONFormatter().format(record))["user"] == 42


def test_no_value_has_the_name_of_an_object() -> None:
    """Whatever is bound or comes by ``extra``: the beginnings of all our own names, too."""
    names = {field.ecs or field.name for field in fields.BY_NAME.values() if field.ecs is not None}
    added = {f"http.{side}.header" for side in ("request", "response")} | {"extra", "user"}
    added |= {name[:place] for name in names for place, character in enumerate(name) if character == "."}
    record = make_outcome(QUERY_STRING="a=1", HTTP_USER_AGENT="x").record()
    added -= {*vars(record)}  # ``process``
    vars(record).update(dict.fromkeys(added, "value"))
    document = read_json(ECSFormatter().format(record))
    assert all(document.pop(f"extra.{name}") == "value" for name in added)
    assert [(a, b) for a in document for b in document if b.startswith(f"{a}.")] == []


def test_no_ecs_field_is_a_value_and_an_object() -> None:
    """Of the table: no name is the beginning of another one, up to a dot, but for those within ``log.origin.file``."""
    names = {field.ecs or field.name for field in fields.BY_NAME.values() if field.ecs is not None}
    assert [(a, b) for a in names for b in names if b.startswith(f"{a}.")] == []


@pytest.mark.parametrize("make", [JSONFormatter, ECSFormatter, LogfmtFormatter])
def test_bound_values_and_who_overrides_them(make_app: MakeApp, make: Any) -> None:
    """`bind` adds to every record; ``extra`` of the same name wins; a request id of somebody's own is kept apart."""
    app, asynclog = make_app(format=make())
    with bind(user_name="bound", order=7):
        app.logger.info("one")
        app.logger.info("two", extra={"user_name": "extra", "request_id": "mine"})
    app.logger.info("three")
    assert asynclog.flush(HANG)
    read = read_logfmt if make is LogfmtFormatter else read_json
    one, two, three = map(read, log_lines(Path("app.log")))
    assert (one["user_name"], str(one["order"])) == ("bound", "7")
    assert (two["user_name"], two["request_id"]) == ("extra", "mine")
    assert "user_name" not in three
    assert_conserved(asynclog.stats())


# Values.


class Moody(enum.Enum):
    """Has no text."""

    X = 1

    def __str__(self) -> str:
        raise RuntimeError("no")


class Broken(Mapping[str, int]):
    """Raises when it is looked at."""

    def __getitem__(self, key: str) -> int:
        raise RuntimeError("no")

    def __iter__(self) -> Any:
        raise RuntimeError("no")

    def __len__(self) -> int:
        raise RuntimeError("no")

    def __repr__(self) -> str:
        return "<Broken>"


class Nameless:
    """Has no `repr` either."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


class Zone(datetime.tzinfo):
    """A time zone that raises."""

    def utcoffset(self, when: object) -> datetime.timedelta:
        raise RuntimeError("no")

    def __repr__(self) -> str:
        return "Zone()"


@pytest.mark.parametrize("make", [JSONFormatter, ECSFormatter, LogfmtFormatter])
@pytest.mark.parametrize("queued", [True, False], ids=["snapshot", "direct"])
@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Moody.X, "<Moody.X: 1>"),
        (Broken(), "<Broken>"),
        (Nameless(), "<Nameless: repr() raised RuntimeError>"),
        (datetime.time(1, tzinfo=Zone()), "datetime.time(1, 0, tzinfo=Zone())"),
        (10**5000, hex(10**5000)),
        (-(1 << 3000), hex(-(1 << 3000))),
        ("n\u00e4h", "n\u00e4h"),
        ("", ""),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_that_make_trouble(make: Any, queued: bool, value: object, shown: str) -> None:
    """They are shown by `repr`, at least; the rest of the record is there as ever."""
    record = make_record("x", value=value, other=1)
    line = make().format(snapshot(record) if queued else record)
    document = read_logfmt(line) if make is LogfmtFormatter else read_json(line)
    if queued and isinstance(value, Broken):
        shown = "<Broken: RuntimeError: no>"
    assert document["value"] == shown
    assert str(document["other"]) == "1"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"), ("", '""'), ("a b", '"a b"'), ("a=b", '"a=b"'), ('a"b', '"a\\"b"'), ("a\\b", '"a\\\\b"'),
        ("a\nb\tc", '"a\\nb\\tc"'), ("\x1b[31m", '"\\u001b[31m"'), ("\u2028\x85", '"\\u2028\\u0085"'),
        ("\udcff", '"\\udcff"'),
        ("\u00e9", '"\u00e9"'), (None, "null"), (True, "true"), (1.5, "1.5"), (1e-7, "1e-07"), (float("nan"), "null"),
        ({"a": [1, "b c"]}, '"{\\"a\\":[1,\\"b c\\"]}"'), ([1, 2], "[1,2]"), ({}, "{}"),
    ],
    ids=ascii,
)  # fmt: skip
def test_how_logfmt_writes_values(value: object, shown: str) -> None:
    """As go-logfmt reads them: bare, or as a JSON string; nested values as JSON within it."""
    assert LogfmtFormatter().format(snapshot(make_record("x", value=value))).endswith(f" value={shown}")


@given(st.dictionaries(ANY_TEXT, ANY_TEXT | st.none() | st.booleans() | st.integers() | st.lists(ANY_TEXT), max_size=4))
@example({"msg": "a", "ts": "b", "": "\\", '"': '"', "\ud800": "\udfff"})
def test_any_field_in_logfmt(extra: dict[str, Any]) -> None:
    """Read back by a strict parser: one pair for each field, texts as they were."""
    record = make_record("x")
    context = Context()
    context.bound = extra
    record.__dict__[CONTEXT] = context
    line = LogfmtFormatter().format(record)
    assert_one_line(line)
    pairs = read_logfmt(line)
    base = read_logfmt(LogfmtFormatter().format(make_record("x")))
    assert len(pairs) == len(base) + len(extra)
    values = [*pairs.values()][len(base) :]
    for shown, value in zip(values, extra.values(), strict=True):
        if isinstance(value, str):
            assert shown == value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


# With and without orjson.


@given(
    extra=st.dictionaries(ANY_TEXT, ANY_TEXT | st.floats() | st.integers() | st.none(), max_size=3),
    user_agent=st.binary(max_size=20),
    query=st.binary(max_size=20),
    seconds=st.floats(0, 100),
)
@example(extra={"a": float("inf"), "b": 2**70, "c": "\ud800"}, user_agent=b"\xff", query=b"\xff", seconds=1e-6)
def test_whole_records_with_and_without_orjson(
    extra: dict[str, Any], user_agent: bytes, query: bytes, seconds: float
) -> None:
    """The same bytes, in JSON and ECS, for responses and for ordinary records in a request and a trace."""
    pytest.importorskip("orjson")
    outcome = make_outcome(
        "500 X", source=Source("demo", sample_rate=0.1), HTTP_USER_AGENT=user_agent.decode("latin-1"),
        QUERY_STRING=query.decode("latin-1"),
    )  # fmt: skip
    outcome.seconds = seconds
    outcome.exchange.own_span = Span("a" * 32, "b" * 16)
    ordinary = make_record("x %s", "\x7f\u2028", exc_info=caught(ValueError("\x80")))
    ordinary.__dict__[CONTEXT] = context = outcome.exchange
    context.bound = extra
    for formatter in (JSONFormatter(), ECSFormatter()):
        for record in (outcome.record(), snapshot(ordinary)):
            fast = formatter.format(record)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(jsonvalues, "orjson", None)
                assert formatter.format(record) == fast
            assert_one_line(fast)
            read_json(fast)


def test_dumps_is_one_line() -> None:
    """What JSON leaves as it is and a terminal would not."""
    assert json.loads(jsonvalues.dumps("\x7f\x9b\u2028")) == "\x7f\x9b\u2028"
    assert escape_json(jsonvalues.dumps("\x7f")) == '"\\u007f"'


def test_levels_of_ones_own() -> None:
    """A level without a name, and one with a strange one."""
    record = make_record("x")
    record.levelno, record.levelname = 35, logging.getLevelName(35)
    assert read_logfmt(LogfmtFormatter().format(record))["level"] == "level 35"
    assert read_json(ECSFormatter().format(record))["log.level"] == "level 35"
