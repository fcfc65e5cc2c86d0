"""Hostile requests and values through a real app, in all formats at once: one line per record, and every line is read.

What is checked for each format is what its readers need: columns, pairs, JSON. The rest of the tests say what is in
them.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask, Response
from flask import request as current_request
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_asynclog import AsyncLog, bind, jsonvalues
from flask_asynclog.entries import Entry
from flask_asynclog.formatters import (
    CombinedFormatter,
    ConsoleFormatter,
    ECSFormatter,
    EntryFormatter,
    JSONFormatter,
    LogfmtFormatter,
    TextFormatter,
)
from flask_asynclog.outcome import Outcome, SentOutcome
from flask_asynclog.records import EVENT
from formats import assert_one_line, read_combined, read_json, read_logfmt
from support import HANG, assert_conserved

NASTY = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\x1b\x00\x7f\x9b\ud800\udcff\t\"\\'= %[]{}|&;,#?/:@<>\u202e\xff\xa0"
ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()) | st.sampled_from(NASTY), max_size=20)
#: What a server hands over: one character per byte.
HEADER = st.binary(max_size=25).map(lambda data: data.decode("latin-1")) | st.text(
    st.sampled_from([c for c in NASTY if c <= "\xff"]), max_size=10
)
HEADERS = (
    "HTTP_USER_AGENT", "HTTP_REFERER", "HTTP_HOST", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_PREFIX", "HTTP_X_REQUEST_ID", "HTTP_X_NAME", "HTTP_COOKIE",
    "QUERY_STRING", "CONTENT_LENGTH", "REMOTE_USER", "SERVER_PROTOCOL", "REMOTE_ADDR", "HTTP_AUTHORIZATION",
)  # fmt: skip
ENVIRON = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(HEADERS, HEADER),
        "HTTP_TRACEPARENT": st.just(f"00-{'a' * 32}-{'b' * 16}-01") | HEADER,
        "PATH_INFO": HEADER.map("/{}".format),
        "REQUEST_METHOD": st.sampled_from(["GET", "HEAD", "POST", "PROPFIND", 'G"T\n']),
    },
)
VALUE = st.recursive(
    ANY_TEXT | st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(ANY_TEXT, inner, max_size=2),
    max_leaves=4,
)
ADDED = st.dictionaries(
    ANY_TEXT | st.sampled_from(["level", "logger", "ts", "user", "url.path", "status", "path", "extra.level"]),
    VALUE,
    max_size=3,
)
#: What `logging` refuses in ``extra``.
_REFUSED = {*vars(logging.makeLogRecord({})), "message", "asctime"}

OUTCOMES = {Outcome.__name__, SentOutcome.__name__}
TABBED = "%(asctime)s\t%(levelname)s\t%(client)s\t%(method)s\t%(path)s\t%(user_agent)s\t%(user)s\t%(message)s"
FORMATTERS: dict[str, EntryFormatter] = {
    "text": TextFormatter(),
    "json": JSONFormatter(),
    "ecs": ECSFormatter(),
    "logfmt": LogfmtFormatter(),
    "combined": CombinedFormatter(),
    "tabs": TextFormatter(TABBED),
    "fields": TextFormatter(
        "%(request_id)s %(trace_id)s %(span_id)s %(method)s %(query)r %(scheme)s %(route)s %(host)s %(port)d "
        "%(status)s %(bytes)d %(duration).3f %(protocol)s %(http.request.header.referer)s %(nothing)s %(message)s"
    ),
    "console": ConsoleFormatter(colours=False),
}


def is_record(entry: Entry) -> bool:
    """Whether it is no event on its direct way."""
    return isinstance(entry, logging.LogRecord)


class EveryFormat(EntryFormatter):
    """Makes the lines of all formats of each record, on the way that it has come; the file gets them in one."""

    def format_entry(self, entry: Entry) -> str:
        lines: dict[str, str] = {}
        for name, formatter in FORMATTERS.items():
            own = dict(entry) if isinstance(entry, dict) else entry
            lines[name] = formatter.format_entry(own)
            if name in ("json", "ecs") and jsonvalues.orjson is not None:
                own = dict(entry) if isinstance(entry, dict) else entry
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(jsonvalues, "orjson", None)
                    assert formatter.format_entry(own) == lines[name]
        event = None if isinstance(entry, dict) else vars(entry).get(EVENT) if is_record(entry) else entry
        return json.dumps({"kind": type(event).__name__, "direct": event is entry, "lines": lines})

    def format(self, record: logging.LogRecord) -> str:
        return self.format_entry(record)


Fuzzed = tuple[Flask, AsyncLog, dict[str, Any], Callable[[], list[dict[str, Any]]]]


@pytest.fixture(params=[True, False], ids=["directly", "as records"])
def fuzzed(
    request: pytest.FixtureRequest, tmp_path: Any
) -> Iterator[tuple[Flask, AsyncLog, dict[str, Any], Callable[[], list[dict[str, Any]]]]]:
    """An app behind a proxy, what its view does, and what its records became since the last look."""
    app = Flask("fuzzed")
    app.testing = False
    asynclog = AsyncLog(
        app, format=EveryFormat(), flush_interval=0.001, trust_request_id=True, request_headers=["X-Name"],
        response_headers=["X-Back"], max_bytes=0,
    )  # fmt: skip
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1, x_prefix=1)  # type: ignore[method-assign]
    doing: dict[str, Any] = {"direct": request.param}

    @app.route("/", defaults={"path": ""}, methods=["GET", "POST", "PROPFIND"])
    @app.route("/<path:path>", methods=["GET", "POST", "PROPFIND"])
    def view(path: str) -> Response:
        bind(**doing["bound"])
        app.logger.warning("%s", doing["message"], extra=doing["extra"])
        app.logger.warning(doing["message"].replace("%", "%%"))
        app.logger.warning("agent %s path %s", current_request.headers.get("User-Agent"), current_request.path)
        if doing["fails"]:
            raise RuntimeError(doing["message"])
        response = Response(path)
        response.headers["X-Back"] = "a\u00ff"
        return response

    seen = 0

    def records() -> list[dict[str, Any]]:
        nonlocal seen
        assert asynclog.flush(HANG)
        with (tmp_path / "app.log").open("rb") as log:
            log.seek(seen)
            new = log.read()
            seen = log.tell()
        return [json.loads(line) for line in new.splitlines()]

    yield app, asynclog, doing, records
    asynclog.close()


@contextlib.contextmanager
def listeners(app: Flask, direct: bool) -> Iterator[None]:
    """Nobody listens but we, if it is to be ``direct``."""
    root = logging.getLogger()
    ours = app.extensions["asynclog"].pipeline.handler
    others = [handler for handler in root.handlers if handler is not ours]
    if direct:
        root.handlers[:] = [ours]
    yield
    root.handlers[:] = [*others, ours]


def check(kind: str, lines: dict[str, str]) -> None:
    """All lines of one record."""
    for name, line in lines.items():
        if name == "console":
            first, *rest = line.split("\n")
            assert all(part.startswith("    ") for part in rest)
            for part in (first, *rest):
                assert_one_line(part)
        else:
            assert_one_line(line, tabs=name == "tabs")
    assert lines["tabs"].count("\t") == TABBED.count("\t")
    document, ecs, pairs = read_json(lines["json"]), read_json(lines["ecs"]), read_logfmt(lines["logfmt"])
    assert document["message"] == ecs["message"] == pairs["msg"]
    assert len(ecs) in (len(document) + 1, len(document))
    assert len(pairs) == len(document)
    names = {*ecs}
    assert not [name for name in names if "." in name and name.split(".")[0] in names and name.startswith("http.")]
    if kind in OUTCOMES:
        columns = read_combined(lines["combined"])
        assert columns.request.count(" ") == 2
        assert columns.client
    else:
        assert lines["combined"] == lines["text"]


@given(environ=ENVIRON, bound=ADDED, extra=ADDED, message=ANY_TEXT, fails=st.booleans())
@example(
    environ={"HTTP_HOST": "[::1", "PATH_INFO": "/\n\x1b", "HTTP_X_FORWARDED_FOR": 'a "b', "QUERY_STRING": "\n\x85\xff"},
    bound={"msg": NASTY, "ts": 1, "": {}, "user": [1]},
    extra={NASTY: NASTY, "level": 10**5000, "x": float("nan")},
    message=NASTY,
    fails=True,
)
@settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@pytest.mark.filterwarnings("ignore")
def test_whatever_clients_and_apps_send(
    fuzzed: Fuzzed, environ: dict[str, Any], bound: dict[str, Any], extra: dict[str, Any], message: str, fails: bool
) -> None:
    """Paths, queries, headers, bound and extra names and values, messages, exceptions: all formats stay readable."""
    app, asynclog, doing, records = fuzzed
    doing.update(bound=bound, message=message, fails=fails, extra={k: v for k, v in extra.items() if k not in _REFUSED})
    with listeners(app, doing["direct"]):
        app.test_client().open("/", environ_overrides=environ)
    found = records()
    assert len([record for record in found if record["kind"] in OUTCOMES]) == 1
    for record in found:
        assert "[not formatted" not in record["lines"]["text"]
        check(record["kind"], record["lines"])
    assert_conserved(asynclog.stats())


@pytest.mark.filterwarnings("ignore")
def test_the_requests_do_come_in(fuzzed: Fuzzed) -> None:
    """What the test above relies on: an ordinary request makes five records, one of them of its response."""
    app, _, doing, records = fuzzed
    doing.update(bound={"a": 1}, extra={"b": 2}, message="m", fails=False)
    with listeners(app, doing["direct"]):
        assert app.test_client().get("/x").status_code == 200
    found = records()
    assert len(found) == 5
    assert [record["kind"] for record in found] == ["Exchange", *["NoneType"] * 3, "SentOutcome"]
    assert [found[0]["direct"], found[-1]["direct"]] == [doing["direct"]] * 2
    for record in found:
        check(record["kind"], record["lines"])
