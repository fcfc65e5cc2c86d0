"""%-formats: every name of the tables of fields, in requests and outside, as text and as number; TABs as columns."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from flask_asynclog import AsyncLog, ConfigError, bind, fields
from flask_asynclog.context import Context
from flask_asynclog.formatters import JSONFormatter, TextFormatter
from flask_asynclog.records import CONTEXT, snapshot
from flask_asynclog.source import Source
from formats import assert_one_line, make_outcome, make_record
from support import HANG, assert_conserved, log_lines

MakeApp = Callable[..., tuple[Flask, AsyncLog]]
ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()) | st.sampled_from("\t\n\x1b"), max_size=20)
TABLES = (*fields.CONTEXT, *fields.REQUEST, *fields.RESPONSE)
NAMES = [(field.name, name) for field in TABLES for name in dict.fromkeys((field.name, field.short)) if name]


def full_outcome() -> Any:
    """A response that has every field."""
    outcome = make_outcome(
        "503 SERVICE UNAVAILABLE", source=Source("demo", sample_rate=0.5), REMOTE_ADDR="192.0.2.1",
        HTTP_USER_AGENT="curl/8", HTTP_REFERER="http://r.example/", QUERY_STRING="a=1", CONTENT_LENGTH="7",
        HTTP_TRACEPARENT=f"00-{'a' * 32}-{'b' * 16}-01",
    )  # fmt: skip
    exchange = outcome.exchange
    exchange.rule = Flask("x").url_rule_class("/hello/<name>", endpoint="shop.hello")
    exchange.user, exchange.error, exchange.error_type, exchange.error_message = "u1", "E: m", "E", "m"
    outcome.sent, outcome.first_byte, outcome.aborted = 27, 0.0001, True
    return outcome


@pytest.mark.parametrize(("field", "name"), NAMES)
def test_every_name(field: str, name: str) -> None:
    """It stands for what JSON has under the field's name; alone in a format, too."""
    outcome = full_outcome()
    document = json.loads(JSONFormatter().format_entry(outcome))
    expected = document[field][0] if isinstance(document[field], list) else document[field]
    assert TextFormatter(f"%({name})s").format_entry(outcome) == str(expected)
    assert TextFormatter(f"%(levelname)s %({name})-40s|").format(outcome.record()) == f"ERROR {expected!s:40}|"


@pytest.mark.parametrize(("field", "name"), NAMES)
def test_every_name_where_there_is_none(field: str, name: str) -> None:
    """``-`` outside of requests, 0 where a number is wanted."""
    for record in (make_record("x"), snapshot(make_record("x"), context=Context())):
        assert TextFormatter(f"%({name})s").format(record) == "-"
        assert TextFormatter(f"%({name})5s|%({name})d|%({name}).1f|%({name})x").format(record) == "    -|0|0.0|0"
        assert TextFormatter(f"%({name})r|%({name})a").format(record) == "-|-"
        assert TextFormatter(f"%({name})c").format(record) == "-"


@pytest.mark.parametrize("deleted", [False, True])
def test_the_name_of_the_task(make_app: MakeApp, deleted: bool) -> None:
    """Is there from Python 3.12 on; where there is none, or a filter has deleted it, it is ``-``."""
    app, asynclog = make_app(format="%(levelname)s %(taskName)s %(message)s")

    def tidy(record: logging.LogRecord) -> bool:
        vars(record).pop("taskName", None)
        return True

    if deleted:
        app.logger.addFilter(tidy)
    app.logger.warning("x")
    app.logger.removeFilter(tidy)
    assert asynclog.flush(HANG)
    known = "None" if "taskName" in vars(make_record()) else "-"
    assert log_lines(Path("app.log")) == [f"WARNING {'-' if deleted else known} x"]
    assert_conserved(asynclog.stats())


def test_numbers() -> None:
    """They are numbers: widths, precisions and signs work."""
    outcome = full_outcome()
    line = TextFormatter("%(status)05d %(duration).3f %(bytes)+d %(port)x %(first_byte)e").format_entry(outcome)
    assert line == "00503 0.001 +27 50 1.000000e-04"


def test_a_record_in_a_request(make_app: MakeApp) -> None:
    """Has the request's fields, not yet those of the response; outside it has none."""
    app, asynclog = make_app(
        format="%(method)s %(path)s %(query)s %(route)s %(endpoint)s %(client)s %(status)s %(bytes)d %(message)s"
    )

    @app.get("/hello/<name>")
    def hello(name: str) -> str:
        app.logger.warning("hello")
        return name

    app.test_client().get("/hello/bob?a=1&token=x")
    app.logger.warning("outside")
    assert asynclog.flush(HANG)
    known = "GET /hello/bob a=1&token=[REDACTED] /hello/<name> hello 127.0.0.1"
    request, ordinary, response, outside = log_lines(Path("app.log"))
    assert request.startswith(f"{known} - 0 Request GET ")
    assert ordinary == f"{known} - 0 hello"
    assert response.startswith(f"{known} 200 3 Response 200 OK ")
    assert outside == "- - - - - - - 0 outside"
    assert_conserved(asynclog.stats())


def test_headers(make_app: MakeApp) -> None:
    """Those that the options name, by their names in whatever case; of the response in its own record."""
    app, asynclog = make_app(
        format="%(http.request.header.X-Tenant)s %(http.response.header.x-out)s %(http.request.header.x-other)s",
        request_headers=["X-Tenant"], response_headers=["X-Out"],
    )  # fmt: skip

    @app.get("/")
    def view() -> tuple[str, dict[str, str]]:
        app.logger.warning("x")
        return "x", {"X-Out": "7"}

    app.test_client().get("/", headers={"X-Tenant": "acme", "X-Other": "1"})
    app.logger.warning("outside")
    assert asynclog.flush(HANG)
    assert log_lines(Path("app.log")) == ["acme - -", "acme - -", "acme 7 -", "- - -"]


def test_bound_and_extra_values(make_app: MakeApp) -> None:
    """``extra`` wins over a field of the request, that over a bound value; bound lists stay whole."""
    app, asynclog = make_app(format="%(path)s %(order)s %(user)s %(items)s %(status)s")
    with bind(path="bound", order=7, items=[], user="bob", status="new"):
        app.logger.warning("x")
        app.logger.warning("x", extra={"path": "extra", "order": [1, 2], "items": [3, 4]})
    assert asynclog.flush(HANG)
    assert log_lines(Path("app.log")) == ["bound 7 bob [] new", "extra [1, 2] bob [3, 4] new"]
    assert_conserved(asynclog.stats())


def test_names_with_other_characters(make_app: MakeApp) -> None:
    """Hyphens, dots and blanks: whatever `bind` and ``extra`` take."""
    app, asynclog = make_app(format="%(user-id)s %(a.b)d %(c d)s")
    with bind(**{"user-id": "u1", "a.b": 2}):
        app.logger.warning("x", extra={"c d": 3})
    assert asynclog.flush(HANG)
    assert log_lines(Path("app.log")) == ["u1 2 3"]


@pytest.mark.parametrize("format", ["%(url.path)s", "%(http.response.status_code)03d", "%(path)s"])
def test_formats_of_one_field(make_app: MakeApp, format: str) -> None:
    """Are formats."""
    make_app(format=format)


@pytest.mark.parametrize("format", ["%%(path)s", "%()s", "%(path)", "%(path)y", "%(process)*d", "%(path)s %d"])
def test_formats_that_cannot_be(make_app: MakeApp, format: str) -> None:
    """Without a field, or with something that is none."""
    with pytest.raises(ConfigError, match="ASYNCLOG_FORMAT"):
        make_app(format=format)


def test_the_record_stays_as_it_is() -> None:
    """What a format shows of the request is no ``extra`` to the next handler's formatter."""
    record = snapshot(make_record("a\tb", tag="c\td"), context=make_outcome().exchange)
    before = [*record.__dict__.items()]
    assert TextFormatter("%(method)s\t%(path)s\t%(message)s\t%(tag)s\t%(nothing)s").format(record) == (
        "GET\t/hello/bob\ta\\tb\tc\\td\t-"
    )
    after = {name: value for name, value in record.__dict__.items() if name != "message"}
    assert [*after.items()] == before
    assert "path" not in json.loads(JSONFormatter().format(record))


# TABs.


class Tabbed:
    """An object whose text has one."""

    def __str__(self) -> str:
        return "o\tp"


@given(ANY_TEXT, ANY_TEXT, ANY_TEXT, ANY_TEXT, ANY_TEXT)
def test_columns_stay_columns(path: str, agent: str, message: str, name: str, error: str) -> None:
    """Between TABs there are as many columns as the format has, whatever is in the values, and in a traceback."""
    outcome = make_outcome(HTTP_USER_AGENT=agent.encode("utf-8", "surrogatepass").decode("latin-1"))
    outcome.exchange.path = f"/{path}"
    ordinary = make_record("%s", message, name=name, tag=Tabbed(), levelname=error)
    ordinary.__dict__[CONTEXT] = outcome.exchange
    ordinary.exc_text, ordinary.stack_info = error, f"Stack\t{error}"
    simple = make_record("%s", message, name=name, levelname=error)
    for fmt in (
        "%(path)s\t%(user_agent)s\t%(message)s\t%(tag)s\t%(name)s",
        "%(asctime)s\t%(name)s\t%(levelname)s\t%(message)s\t%(message)s",
    ):
        formatter = TextFormatter(fmt)
        for line in (
            formatter.format_entry(outcome), formatter.format(outcome.record()), formatter.format(ordinary),
            formatter.format(simple), formatter.format_entry(dict(vars(simple))),
        ):  # fmt: skip
            assert line.count("\t") == 4
            assert_one_line(line, tabs=True)


def test_a_tab_in_the_date() -> None:
    """Is the format's own."""
    record = make_record("x", created=0.0)
    assert TextFormatter("%(asctime)s\t%(message)s", "%d\t%m").format(record).count("\t") == 2


def test_a_subclass() -> None:
    """``formatMessage`` of a subclass is asked, with the fields in the record."""

    class Loud(TextFormatter):
        def formatMessage(self, record: logging.LogRecord) -> str:
            return super().formatMessage(record).upper()

    assert Loud("%(path)s %(message)s").format_entry(make_outcome()).startswith("/HELLO/BOB RESPONSE 200 OK")
