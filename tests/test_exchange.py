"""Requests on their direct way into the queue: the same records as by any other way, and whoever listens hears them."""

from __future__ import annotations

import copy
import io
import json
import logging
import logging.handlers
import pickle
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import pytest
from flask import Flask, Request
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder

from flask_asynclog import AsyncLog
from flask_asynclog.entries import restore
from flask_asynclog.exchange import Exchange
from flask_asynclog.exchangerecord import ExchangeRecord
from flask_asynclog.formatters import CombinedFormatter, JSONFormatter, TextFormatter, make_formatter
from flask_asynclog.handlers import AsyncQueueHandler
from flask_asynclog.listener import BatchQueueListener
from flask_asynclog.outcome import Outcome
from flask_asynclog.queue import RecordQueue
from flask_asynclog.records import snapshot
from flask_asynclog.redaction import Redactor
from flask_asynclog.rotating import BatchRotatingFileHandler
from flask_asynclog.source import Source
from flask_asynclog.urls import without_blanks
from support import HANG, assert_conserved, log_lines

MakeApp = Callable[..., tuple[Flask, AsyncLog]]

PATHS = st.text(st.characters(codec="utf-8", exclude_characters="?#"), max_size=30)


def exchange_of(environ: dict[str, Any], *, thread: bool = True, source: Source | None = None) -> Exchange:
    """The exchange of a request with this environment."""
    exchange = Exchange(source or Source("demo"), "0" * 32, 1_800_000_000.123456)
    exchange.begin(Request(environ), fields=True, thread=thread)
    return exchange


@pytest.mark.parametrize("blank", [" ", "\u3000", "\xa0"])
def test_a_path_ends_at_a_blank(blank: str) -> None:
    """A client that asks for such a path does not write the rest of the line itself."""
    exchange = exchange_of(EnvironBuilder(f"/a{blank}9.99ms{blank}1B{blank}id=x").get_environ())
    words = re.split(r"\s", str(Outcome(exchange, "200 OK", "0")))
    assert words[:4] == ["200", "OK", "GET", quote(f"/a{blank}9.99ms{blank}1B{blank}id=x", safe="/=")]
    url = f"http://localhost{words[3]}"
    assert exchange.url == url
    assert exchange.record().getMessage().split() == ["Request", "GET", url, f"id={exchange.request_id}"]
    assert words[5:] == ["0B", f"id={'0' * 32}"]
    assert exchange.fields()["url.path"] == f"/a{blank}9.99ms{blank}1B{blank}id=x"


def test_patterns_reach_who_it_was() -> None:
    """Address, user, server: whatever a pattern matches is in no field and no access line."""
    source = Source("demo", redactor=Redactor((), [re.compile(r"[\w.]+@\w+|203\.0\.113\.\d+|shop\.example")]))
    environ = EnvironBuilder("/", "http://shop.example").get_environ()
    environ |= {"REMOTE_ADDR": "203.0.113.9", "REMOTE_USER": "bob@x", "HTTP_USER_AGENT": "bob@x"}
    exchange = exchange_of(environ, source=source)
    exchange.user = "eve@y"
    outcome = Outcome(exchange, "200 OK", "0")
    lines = [formatter.format_entry(outcome) for formatter in (JSONFormatter(), CombinedFormatter(), TextFormatter())]
    assert not [line for line in lines if re.search(r"bob@|eve@|203\.0|shop", line)]
    document = json.loads(lines[0])
    assert {document[name] for name in ("client.address", "user.id", "server.address", "user_agent.original")} == {
        "[REDACTED]"
    }
    assert lines[1].startswith("[REDACTED] - [REDACTED] [")


def test_who_gets_the_fields_may_change_them() -> None:
    """They are read once for both records; whoever changes his, in place too, changes nobody else's."""
    headers = {"X-Key": "abc", "Referer": "http://there/"}
    source = Source("demo", request_headers=["X-Key"])
    exchange = exchange_of(EnvironBuilder("/a", headers=headers).get_environ(), source=source)
    first = exchange.fields()
    assert first["http.request.header.x-key"] == ["abc"]
    untouched = copy.deepcopy(first)
    for value in first.values():
        if isinstance(value, list):
            value[:] = ["masked"]
    first["url.path"] = "/masked"
    assert exchange.fields() == untouched
    assert untouched.items() <= Outcome(exchange, "200 OK", "0").fields().items()


@pytest.mark.parametrize("length", ["9" * 18, "9" * 19, "9" * 5000, "1e3", "\u0661"])
def test_the_length_that_a_client_claims(length: str) -> None:
    """A number that no store of logs takes is none: with it, the client would keep its line out of there."""
    exchange = exchange_of({**EnvironBuilder().get_environ(), "CONTENT_LENGTH": length})
    assert exchange.body_size == (int(length) if length == "9" * 18 else None)


# What is rendered later is what it was.


@given(
    path=PATHS,
    root=st.just("") | PATHS.map("/r{}".format),
    query=st.binary(max_size=30).map(lambda data: data.decode("latin-1")),
    host=st.sampled_from(
        ["localhost", "example.org:8080", "EXAMPLE.org", "[::1]:80", "xn--bcher-kva.example", "", "a b"]
    ),
    scheme=st.sampled_from(["http", "https"]),
)
@settings(max_examples=400)
def test_the_url_is_werkzeugs(path: str, root: str, query: str, host: str, scheme: str) -> None:
    """Put together by hand where nothing has to be quoted, by Werkzeug elsewhere: the same URL."""
    environ = EnvironBuilder().get_environ()
    environ.update({
        "PATH_INFO": path.encode().decode("latin-1"), "SCRIPT_NAME": root.encode().decode("latin-1"),
        "QUERY_STRING": query, "HTTP_HOST": host, "wsgi.url_scheme": scheme,
    })  # fmt: skip
    # Chance makes passwords, too: /:secret@
    # And blanks of other kinds than Werkzeug quotes.
    expected = without_blanks(Request(environ).url)
    assert exchange_of(environ, source=Source("demo", redactor=Redactor(()))).url == expected


@pytest.mark.parametrize("host", ["[", "[::1", "h[", "a]:b"])
def test_a_host_that_makes_no_url(host: str) -> None:
    """Shown as it came, or left out, as Werkzeug has it; never an error."""
    environ = EnvironBuilder(path="/a b").get_environ()
    environ["HTTP_HOST"] = host
    assert exchange_of(environ).url.endswith("/a%20b")


@pytest.mark.parametrize("root", [":<", "a:b", "//[", "/\x00"])
def test_a_root_path_that_makes_no_url(root: str) -> None:
    """Such as a proxy takes over from a client's ``X-Forwarded-Prefix``: shown all the same."""
    environ = EnvironBuilder(path="/a b", query_string="c=d").get_environ()
    environ["SCRIPT_NAME"] = root
    exchange = exchange_of(environ)
    for url in (exchange.url, exchange.request_target):
        assert "a%20b?c=d" in url
        assert url.isprintable()
    assert Outcome(exchange, "200 OK", None).record().getMessage().startswith("Response 200 OK GET /a%20b ")


FORMATS = [
    TextFormatter(),
    TextFormatter("%(asctime)s\t%(name)s\t%(levelname)-8s\t%(message)s %%"),
    TextFormatter("%(levelname)s %(message)s"),
    TextFormatter("%(message)s"),
    TextFormatter("%(threadName)s %(thread)d %(process)d %(processName)s %(message)s"),
    TextFormatter("%(filename)s:%(lineno)d %(funcName)s %(module)s %(message)s"),
    TextFormatter("%(created)f %(msecs)03d %(relativeCreated)d %(levelno)d %(message)s"),
    TextFormatter("%(asctime)s %(message)s", "%H:%M"),
    TextFormatter("%(request_id)s %(message)s"),
    JSONFormatter(),
]


@pytest.mark.parametrize("formatter", FORMATS, ids=lambda formatter: str(formatter._fmt))
@pytest.mark.parametrize("status", ["200 OK", "204 NO CONTENT", "500 INTERNAL SERVER ERROR"])
def test_an_event_is_formatted_as_its_record(formatter: Any, status: str) -> None:
    """The short way from event to line, the record made of it, and that record's copy give the same line."""
    exchange = exchange_of(EnvironBuilder(path="/hello/b\u00f6b", query_string="a=1&b=%2F").get_environ())
    if status.startswith("5"):
        exchange.error, exchange.error_type = "ValueError: no\nluck", "ValueError"
    for event in (exchange, Outcome(exchange, status, None if status.startswith("204") else "27")):
        line = formatter.format_entry(event)
        assert line == formatter.format(event.record()) == formatter.format(restore(snapshot(event.record())))
        assert line.isprintable() or "\t" in line
        assert ("Request" if event is exchange else status) in line


def test_a_record_of_an_event_has_all_that_records_have() -> None:
    """Every attribute of an ordinary record, of the same type; the parts of the event by name."""
    exchange = exchange_of(EnvironBuilder(path="/x").get_environ())
    record, ordinary = Outcome(exchange, "201 CREATED", "4").record(), logging.makeLogRecord({})
    assert vars(ordinary).keys() <= vars(record).keys()
    assert isinstance(record, ExchangeRecord)
    assert record.getMessage().startswith("Response 201 CREATED GET /x ")
    assert record.__dict__["thread"] == threading.get_ident()
    assert (record.process, record.processName) == (ordinary.process, ordinary.processName)
    assert (record.pathname, record.module) == (__import__("flask_asynclog").exchangerecord.__file__, "exchangerecord")
    assert getattr(record, "http.response.status_code") == 201
    assert getattr(record, "url.path") == "/x"
    assert record.request_id == "0" * 32
    assert not hasattr(record, "nothing.of.that")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = record.nothing


# Whoever listens hears them as records.


class Kept(logging.Handler):
    """Keeps the records it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.records.append(record)


def kinds(records: list[logging.LogRecord]) -> list[str]:
    """The first words."""
    return [record.getMessage().split()[0] for record in records]


def ask(app: Flask) -> None:
    """Two requests."""
    for _ in range(2):
        assert app.test_client().options("/static/any").status_code == 200


def test_they_go_directly_where_nobody_listens(make_alone: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """No record is made of them on the request's thread."""
    app, asynclog = make_alone()
    made: list[str] = []
    init = ExchangeRecord.__init__
    monkeypatch.setattr(ExchangeRecord, "__init__", lambda *args: (made.append(args[1].message), init(*args))[1])
    ask(app)
    assert asynclog.flush(HANG)
    assert made == []
    assert len(log_lines(Path("app.log"))) == 4
    assert_conserved(asynclog.stats())


@pytest.mark.parametrize("where", ["root", "app.logger", "between"])
def test_another_handler_gets_them(make_alone: MakeApp, where: str) -> None:
    """On root, on the app's logger or on one between them, from the moment that it is there."""
    between = logging.getLogger("listened")
    app, asynclog = make_alone("listened.app" if where == "between" else "listened")
    logger = {"root": logging.getLogger(), "app.logger": app.logger, "between": between}[where]
    other = Kept()
    ask(app)
    logger.addHandler(other)
    ask(app)
    logger.removeHandler(other)
    ask(app)
    assert kinds(other.records) == ["Request", "Response"] * 2
    assert asynclog.flush(HANG)
    assert len(log_lines(Path("app.log"))) == 12
    assert_conserved(asynclog.stats())


@pytest.mark.parametrize("where", ["logger", "handler"])
def test_a_filter_gets_them(make_alone: MakeApp, where: str) -> None:
    """A filter of the logger or of our handler sees, changes and refuses them."""
    app, asynclog = make_alone(format="json")

    def responses_only(record: logging.LogRecord) -> bool:
        record.tenant = "acme"
        return record.getMessage().startswith("Response")

    filtered = app.logger if where == "logger" else app.extensions["asynclog"].pipeline.handler
    filtered.addFilter(responses_only)
    ask(app)
    filtered.removeFilter(responses_only)
    assert asynclog.flush(HANG)
    documents = [json.loads(line) for line in log_lines(Path("app.log"))]
    assert [(d["message"].split()[0], d["tenant"]) for d in documents] == [("Response", "acme")] * 2
    assert_conserved(asynclog.stats())


@pytest.fixture
def own_factory() -> Iterator[None]:
    """A record factory as OpenTelemetry's: it adds an attribute."""
    before = logging.getLogRecordFactory()

    def make(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = before(*args, **kwargs)
        record.trace = "abc"
        return record

    logging.setLogRecordFactory(make)
    yield
    logging.setLogRecordFactory(before)


def test_a_record_factory_makes_them(make_alone: MakeApp, own_factory: None) -> None:
    """What it adds is in the lines, beside all that they have otherwise."""
    app, asynclog = make_alone(format="json")
    ask(app)
    assert asynclog.flush(HANG)
    documents = [json.loads(line) for line in log_lines(Path("app.log"))]
    assert [(d["message"].split()[0], d["trace"], d["url.path"]) for d in documents] == [
        ("Request", "abc", "/static/any"),
        ("Response", "abc", "/static/any"),
    ] * 2


def test_who_replaces_call_handlers_sees_them(make_alone: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Sentry does, for its breadcrumbs."""
    seen: list[logging.LogRecord] = []
    call_handlers = logging.Logger.callHandlers

    def noted(logger: logging.Logger, record: logging.LogRecord) -> None:
        seen.append(record)
        call_handlers(logger, record)

    app, asynclog = make_alone()
    monkeypatch.setattr(logging.Logger, "callHandlers", noted)
    ask(app)
    assert kinds(seen) == ["Request", "Response"] * 2
    assert asynclog.flush(HANG)
    assert len(log_lines(Path("app.log"))) == 4


@pytest.mark.parametrize("listens", [False, True])
def test_who_replaces_make_record_makes_them(
    make_alone: MakeApp, monkeypatch: pytest.MonkeyPatch, listens: bool
) -> None:
    """As ddtrace does, to add the trace to each; whether somebody else listens or not."""
    make_record = logging.Logger.makeRecord

    def traced(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make_record(*args, **kwargs)
        record.trace = "abc"
        return record

    app, asynclog = make_alone(format="json")
    monkeypatch.setattr(logging.Logger, "makeRecord", traced)
    other = Kept()
    if listens:
        app.logger.addHandler(other)
    ask(app)
    app.logger.removeHandler(other)
    assert asynclog.flush(HANG)
    documents = [json.loads(line) for line in log_lines(Path("app.log"))]
    assert [(d["message"].split()[0], d["trace"]) for d in documents] == [("Request", "abc"), ("Response", "abc")] * 2


@pytest.mark.parametrize("change", ["setLevel", "disable", "disabled", "handler level"])
def test_levels_count(make_alone: MakeApp, change: str) -> None:
    """Of the logger, of `logging.disable`, of our handler; and a disabled logger logs nothing."""
    app, asynclog = make_alone()
    handler = app.extensions["asynclog"].pipeline.handler
    switch: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "setLevel": (lambda: app.logger.setLevel("WARNING"), lambda: app.logger.setLevel("NOTSET")),
        "disable": (lambda: logging.disable(logging.INFO), lambda: logging.disable(logging.NOTSET)),
        "disabled": (lambda: setattr(app.logger, "disabled", True), lambda: setattr(app.logger, "disabled", False)),
        "handler level": (lambda: handler.setLevel("WARNING"), lambda: handler.setLevel("INFO")),
    }
    switch[change][0]()
    ask(app)
    switch[change][1]()
    assert asynclog.flush(HANG)
    assert not Path("app.log").exists() or log_lines(Path("app.log")) == []
    ask(app)
    assert asynclog.flush(HANG)
    assert len(log_lines(Path("app.log"))) == 4


def test_threads_are_told_where_the_format_shows_them(make_alone: MakeApp) -> None:
    """The request's thread, not the one that writes."""
    app, asynclog = make_alone(format="%(threadName)s %(thread)d %(message)s")
    thread = threading.Thread(target=ask, args=(app,), name="serving")
    thread.start()
    thread.join(HANG)
    assert asynclog.flush(HANG)
    lines = log_lines(Path("app.log"))
    assert len(lines) == 4
    assert all(line.startswith(f"serving {thread.ident} ") for line in lines)


def test_threads_are_told_where_a_formatter_may_ask(make_alone: MakeApp) -> None:
    """One of the app's own, whose `format` says more than its format string."""

    class Telling(TextFormatter):
        def format(self, record: logging.LogRecord) -> str:
            return f"{record.threadName} {super().format(record)}"

    app, asynclog = make_alone(format=Telling())
    ask(app)
    assert asynclog.flush(HANG)
    assert [line.split()[0] for line in log_lines(Path("app.log"))] == [threading.current_thread().name] * 4


# Elsewhere.


@pytest.mark.parametrize("factory", [False, True])
def test_other_handlers_send_them_away(make_app: MakeApp, factory: bool, request: pytest.FixtureRequest) -> None:
    """To a process that need not have this library: all that the event tells goes with the record, as plain values."""
    if factory:
        request.getfixturevalue("own_factory")
    app, _ = make_app()
    sent: list[bytes] = []

    class Sending(logging.handlers.SocketHandler):
        def emit(self, record: logging.LogRecord) -> None:
            sent.append(self.makePickle(record)[4:])

    class Queueing(logging.handlers.QueueHandler):
        def enqueue(self, record: logging.LogRecord) -> None:
            sent.append(pickle.dumps(record))

    handlers = [Sending("localhost", 1), Queueing(cast("Any", None))]
    for handler in handlers:
        app.logger.addHandler(handler)
    with app.test_client() as client:
        client.get("/nowhere")
    for handler in handlers:
        app.logger.removeHandler(handler)
        handler.close()
    assert len(sent) == 4
    for pickled in sent:
        assert factory or b"flask_asynclog.exchange" not in pickled
        received = pickle.loads(pickled)
        record = logging.makeLogRecord(received) if isinstance(received, dict) else received
        document = json.loads(JSONFormatter().format(record))
        assert record.getMessage().startswith(("Request GET http://localhost/nowhere", "Response 404 NOT FOUND GET "))
        assert document["url.path"] == "/nowhere"
        assert not [name for name in document if name.startswith("extra.")]
        assert record.getMessage() in TextFormatter("%(request_id)s %(message)s").format(record)


def test_a_copy_of_a_record(make_app: MakeApp) -> None:
    """`copy.copy`, as formatters that colour lines make: the same line, whatever is done to it."""
    app, _ = make_app()
    kept = Kept()
    app.logger.addHandler(kept)
    ask(app)
    app.logger.removeHandler(kept)
    for record in kept.records:
        copied = copy.copy(record)
        assert copied.getMessage() == record.getMessage()
        assert getattr(copied, "url.path") == "/static/any"
        assert copied.__dict__["request_id"] == record.request_id
        assert json.loads(JSONFormatter().format(copied)) == json.loads(JSONFormatter().format(record))


@pytest.mark.parametrize("name", ["text", "json", "ecs", "logfmt", "combined", "%(status)s %(message)s"])
@pytest.mark.parametrize("first", ["handler", "formatter", "none"])
def test_formats_beside_handlers_of_others(make_app: MakeApp, name: str, first: str) -> None:
    """Whoever comes before, a handler of others or a file with a formatter of others: the line is the same."""
    logger = logging.Logger("beside")
    before: list[logging.Handler] = []
    if first != "none":
        before.append(logging.StreamHandler(io.StringIO()) if first == "handler" else BatchRotatingFileHandler("b.log"))
        before[0].setFormatter(logging.Formatter("%(message)s"))
    sinks = [BatchRotatingFileHandler(f"{number}.log") for number in range(2)]
    for sink in sinks:
        sink.setFormatter(make_formatter(name))
    app, _ = make_app(request_events=["response"])
    kept = Kept()
    app.logger.addHandler(kept)
    ask(app)
    app.logger.removeHandler(kept)
    queues = [RecordQueue(), RecordQueue()]
    listeners = [BatchQueueListener(queues[0], *before, sinks[0]), BatchQueueListener(queues[1], sinks[1])]
    logger.handlers = [AsyncQueueHandler(queue) for queue in queues]
    for record in kept.records:
        logger.handle(record)
    for listener, handler in zip(listeners, logger.handlers, strict=True):
        assert listener.stop(HANG)
        handler.close()
    for file in (*before, *sinks):
        file.close()
    mine, alone = (log_lines(Path(f"{number}.log")) for number in range(2))
    assert len(mine) == len(kept.records) > 0
    assert mine == alone


def test_a_file_without_a_queue_leaves_records_as_they_are(make_app: MakeApp) -> None:
    """Other handlers come after it, ours with the queue among them."""
    app, _ = make_app(request_events=["response"])
    file, kept = BatchRotatingFileHandler("first.log"), Kept()
    file.setFormatter(logging.Formatter("%(message)s"))
    app.logger.addHandler(file)
    app.logger.addHandler(kept)
    ask(app)
    app.logger.removeHandler(file)
    app.logger.removeHandler(kept)
    file.close()
    assert all(CombinedFormatter().format(record).startswith("127.0.0.1 - - [") for record in kept.records)


def test_a_handler_behind_the_queue_gets_plain_values(make_app: MakeApp) -> None:
    """One of the standard library's first, then one that writes JSON: each part is told once; and it can be sent."""
    stream, sink, kept = io.StringIO(), BatchRotatingFileHandler("behind.log"), Kept()
    sink.setFormatter(JSONFormatter())
    plain = logging.StreamHandler(stream)
    plain.setFormatter(logging.Formatter("%(request_id)s %(message)s"))
    queue = RecordQueue()
    listener = BatchQueueListener(queue, plain, kept, sink)
    app, _ = make_app()
    app.add_url_rule("/nowhere", "view", lambda: (app.logger.info("in the view"), "x")[1])
    handler = AsyncQueueHandler(queue)
    app.logger.addHandler(handler)
    ask_once = app.test_client().get("/nowhere")
    assert listener.stop(HANG)
    sink.close()
    app.logger.removeHandler(handler)
    handler.close()
    request_id = ask_once.headers["X-Request-ID"]
    documents = [json.loads(line) for line in log_lines(Path("behind.log"))]
    assert [d["message"].split()[0] for d in documents] == ["Request", "in", "Response"]
    assert {d["request_id"] for d in documents} == {request_id}
    assert not [name for d in documents for name in d if name.startswith("extra.")]
    assert [d.get("url.path") for d in documents] == ["/nowhere", None, "/nowhere"]
    assert [line.split()[0] for line in stream.getvalue().splitlines()] == [request_id] * 3
    sender = logging.handlers.SocketHandler("localhost", 1)
    assert all(b"flask_asynclog.exchange" not in sender.makePickle(record) for record in kept.records)
    sender.close()
