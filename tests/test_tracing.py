"""Trace ids on records: from the ``traceparent`` header of the request, and from OpenTelemetry where it runs."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from flask_asynclog import AsyncLog, tracing
from flask_asynclog.context import Span
from flask_asynclog.tracing import parse_traceparent
from support import HANG, PRINT_STATS, assert_conserved, log_lines, read_stats, run_python, skip_without

MakeApp = Callable[..., tuple[Flask, AsyncLog]]
Document = dict[str, Any]

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{PARENT}-01"


def documents(asynclog: AsyncLog) -> list[Document]:
    """The lines so far, as JSON."""
    assert asynclog.flush(HANG)
    assert_conserved(asynclog.stats())
    return [json.loads(line) for line in log_lines(Path("app.log"))]


# The header, as of W3C Trace Context, Recommendation of 23 November 2021, section 3.2.


@pytest.mark.parametrize(
    "header",
    [
        VALID,
        f"00-{TRACE}-{PARENT}-00",
        f"00-{TRACE}-{PARENT}-ff",  # flags of later versions may be set, and are to be ignored
        f" {VALID}\t",  # blanks around a header's value are none of it
        f"01-{TRACE}-{PARENT}-01",  # a later version, that has no more
        f"01-{TRACE}-{PARENT}-01-",  # or has: behind a dash
        f"cc-{TRACE}-{PARENT}-01-what-the-future-will-be-like",
        f"fe-{TRACE}-{PARENT}-01",
    ],
)
def test_a_valid_header(header: str) -> None:
    """Version 00, or a later one that begins like it: both ids."""
    assert parse_traceparent(header) == Span(TRACE, PARENT)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "-",
        "---",
        TRACE,
        f"ff-{TRACE}-{PARENT}-01",  # "Version 0xff is invalid"
        f"00-{'0' * 32}-{PARENT}-01",  # "All bytes as zero … is considered an invalid value"
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",  # HEXDIGLC: lower case
        f"00-{TRACE}-{PARENT.upper()}-01",
        f"0A-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-0A",
        f"00-{TRACE}-{PARENT}-01-more",  # version 00 has four parts
        f"00-{TRACE}-{PARENT}-01-",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-",
        f"00-{TRACE}-{PARENT}-1",
        f"00-{TRACE}-{PARENT}-001",
        f"01-{TRACE}-{PARENT}-01more",  # a later version's parts are behind a dash
        f"01-{TRACE}-{PARENT}-01.more",
        f"0-{TRACE}-{PARENT}-01",
        f"000-{TRACE}-{PARENT}-01",
        f"00-{TRACE[:-1]}-{PARENT}-01",
        f"00-{TRACE}0-{PARENT}-01",
        f"00-{TRACE}-{PARENT[:-1]}-01",
        f"00-{TRACE}-{PARENT}0-01",
        f"00-{TRACE[:-1]}g-{PARENT}-01",
        f"00-{TRACE}-{PARENT[:-1]}x-01",
        f"0x-{TRACE}-{PARENT}-01",
        f"00_{TRACE}_{PARENT}_01",
        f"00 -{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01\n",
        f"\u0660\u0660-{TRACE}-{PARENT}-01",  # digits, but not of ASCII
        f"00-{'٤' * 32}-{PARENT}-01",
        f"{VALID},{VALID}",  # sent twice, as servers join it
        f"{VALID}, {VALID}",
        f'"{VALID}"',
    ],
)
def test_an_invalid_header(header: str) -> None:
    """Neither id: half of a trace is none."""
    assert parse_traceparent(header) is None


@given(st.text(max_size=80) | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.{0,9})?"))
def test_any_header_is_parsed(header: str) -> None:
    """Whatever comes, the answer is no exception; and two ids of hexadecimal digits, or none."""
    span = parse_traceparent(header)
    if span is not None:
        assert (len(span.trace_id), len(span.span_id)) == (32, 16)
        assert 0 not in (int(span.trace_id, 16), int(span.span_id, 16))
        assert f"-{span.trace_id}-{span.span_id}-" in header


def test_long_headers_are_not_remembered() -> None:
    """A client that makes up long ones, all different, takes no memory with that."""
    before = tracing._parse_known.cache_info().currsize  # pyright: ignore[reportPrivateUsage]
    for number in range(100):
        assert parse_traceparent(f"cc-{TRACE}-{PARENT}-01-{number}{'x' * 8000}") == Span(TRACE, PARENT)
    assert tracing._parse_known.cache_info().currsize == before  # pyright: ignore[reportPrivateUsage]


# Records of a request with the header.


def test_records_have_the_ids_of_the_header(make_app: MakeApp) -> None:
    """Both records of the request, and all between them; not the next request's, which has no header."""
    app, asynclog = make_app(format="json")
    app.add_url_rule("/", "view", lambda: app.logger.info("view") or "x")
    app.test_client().get("/", headers={"traceparent": VALID})
    app.logger.info("outside")
    app.test_client().get("/", headers={"traceparent": VALID.upper()})
    found = [(d.get("trace_id"), d.get("span_id")) for d in documents(asynclog)]
    assert found == [(TRACE, PARENT)] * 3 + [(None, None)] * 4


def test_the_ids_in_every_format(make_app: MakeApp) -> None:
    """By ECS's names, in logfmt, and in formats of your own, with ``-`` where there is no trace."""
    for name, format_, expected in (
        ("ecs.log", "ecs", f'"trace.id":"{TRACE}","span.id":"{PARENT}"'),
        ("logfmt.log", "logfmt", f" trace_id={TRACE} span_id={PARENT}"),
        ("own.log", "%(trace_id)s/%(span_id)s", f"{TRACE}/{PARENT}"),
    ):
        app, asynclog = make_app(name, filename=name, format=format_, loggers=(name,))
        app.test_client().get("/", headers={"traceparent": VALID})
        app.logger.warning("outside")
        assert asynclog.flush(HANG)
        request, response, outside = log_lines(Path(name))
        assert expected in request
        assert expected in response
        assert TRACE not in outside
    assert outside == "-/-"


# OpenTelemetry, in a process of its own: what it sets up is the process's, for good.

SDK = """
from flask import Flask
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from flask_asynclog import AsyncLog, bind

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("tests")

def ids(span):
    context = span.get_span_context()
    return [f"{context.trace_id:032x}", f"{context.span_id:016x}"]

def here():  # as a field of a record: what its ids have to be
    return {"expected": ids(trace.get_current_span())}
"""


def run_sdk(code: str, tmp_path: Path, before: str = SDK) -> tuple[list[Document], subprocess.CompletedProcess[str]]:
    """Run a script with the SDK that leaves ``app.log`` in JSON and prints its statistics."""
    skip_without("opentelemetry.sdk")
    done = run_python(PRINT_STATS + before + code, cwd=tmp_path)
    assert done.stderr == ""
    assert_conserved(read_stats(done.stdout))
    return [json.loads(line) for line in log_lines(tmp_path / "app.log")], done


def assert_ids_as_expected(found: list[Document]) -> None:
    """Each record that says which ids it has to have has those."""
    told = [d for d in found if "expected" in d]
    assert told
    for document in told:
        assert [document.get("trace_id", "0" * 32), document.get("span_id", "0" * 16)] == document["expected"], document


SPANS_IN_VIEWS = """
app = Flask("spans")
asynclog = AsyncLog(app, format="json")
log = app.logger.info

@app.get("/")
def view():
    log("before", extra=here())
    with tracer.start_as_current_span("outer"):
        log("outer", extra=here())
        bind(a=1)
        with tracer.start_as_current_span("inner"):
            log("inner", extra=here())
            app.logger.error("inner", exc_info=ArithmeticError(), extra=here())
        log("outer", extra=here())
    log("after", extra=here())
    return "x"

app.test_client().get("/")
with tracer.start_as_current_span("outside"):
    log("outside", extra=here())
log("none", extra=here())
asynclog.flush(60)
print_stats(asynclog.stats())
"""


def test_spans_inside_of_a_view(tmp_path: Path) -> None:
    """A record has the span that is current when it is logged, nested ones too, outside of requests as well."""
    found, _ = run_sdk(SPANS_IN_VIEWS, tmp_path)
    assert_ids_as_expected(found)
    by_message = {d["message"].split()[0]: d for d in found}
    assert {d["trace_id"] for d in found if d["message"] in ("outer", "inner")} == {by_message["outer"]["trace_id"]}
    assert "trace_id" not in by_message["before"]
    assert "trace_id" not in by_message["Response"]
    inside = [d for d in found if d["message"] not in ("outside", "none")]
    assert len({d["request_id"] for d in inside}) == 1
    assert by_message["inner"]["a"] == by_message["Response"]["a"] == 1


STEPS = """
import logging
from flask_asynclog.formatters import JSONFormatter
from flask_asynclog.handlers import AsyncQueueHandler
from flask_asynclog.listener import BatchQueueListener
from flask_asynclog.queue import RecordQueue
from flask_asynclog.rotating import BatchRotatingFileHandler

class Preparing(AsyncQueueHandler):
    def prepare(self, record):
        return super().prepare(record)

queue, file = RecordQueue(), BatchRotatingFileHandler("app.log")
file.setFormatter(JSONFormatter())
listener = BatchQueueListener(queue, file)
handler = Preparing(queue)
logging.getLogger().addHandler(handler)
with tracer.start_as_current_span("span"):
    logging.warning("in it", extra=here())
logging.warning("outside", extra=here())
listener.stop(60)
file.close()
print_stats(queue.stats())
"""


def test_the_steps_of_a_subclass_see_the_span(tmp_path: Path) -> None:
    """As `AsyncQueueHandler` itself does."""
    found, _ = run_sdk(STEPS, tmp_path)
    assert_ids_as_expected(found)
    assert ["trace_id" in document for document in found] == [True, False]


HEADER_AND_SPAN = """
app = Flask("spans")
asynclog = AsyncLog(app, format="json")

@app.get("/")
def view():
    app.logger.info("before")
    with tracer.start_as_current_span("span"):
        app.logger.info("span", extra=here())
    return "x"

app.test_client().get("/", headers={"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"})
asynclog.flush(60)
print_stats(asynclog.stats())
"""


def test_a_span_goes_before_the_header(tmp_path: Path) -> None:
    """Without a span of this process, the header's ids; within one, that span's."""
    found, _ = run_sdk(HEADER_AND_SPAN, tmp_path)
    assert_ids_as_expected(found)
    assert [d["trace_id"] == TRACE for d in found] == [True, True, False, True]


INSTRUMENTED = """
from opentelemetry import trace
from opentelemetry.instrumentation.flask import FlaskInstrumentor

order = ORDER
if order == "everywhere":
    FlaskInstrumentor().instrument()
    import flask
    Flask = flask.Flask
app = Flask("instrumented")
if order == "before":
    FlaskInstrumentor().instrument_app(app)
asynclog = AsyncLog(app, format="json")
if order == "after":
    FlaskInstrumentor().instrument_app(app)
log = app.logger.info

@app.get("/")
def view():
    log("view", extra=here())
    print("SERVER", *ids(trace.get_current_span()))
    with tracer.start_as_current_span("inner"):
        log("inner", extra=here())
    return "x"

@app.get("/stream")
def stream():
    print("SERVER", *ids(trace.get_current_span()))
    def generate():
        log("first")
        yield b"1"
        with tracer.start_as_current_span("own"):
            log("own", extra=here())
        yield b"2"
    return generate()

@app.get("/broken")
def broken():
    print("SERVER", *ids(trace.get_current_span()))
    raise ArithmeticError

app.teardown_request(lambda error: log("teardown"))
client = app.test_client()
client.get("/")
client.get("/", headers={"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"})
assert client.get("/stream").data == b"12"
client.get("/broken")
app.testing = True
try:
    client.get("/broken")
except ArithmeticError:
    log("between", extra=here())
asynclog.flush(60)
print_stats(asynclog.stats())
"""


@pytest.mark.parametrize("order", ["before", "after", "everywhere"])
def test_with_the_instrumentation_of_flask(tmp_path: Path, order: str) -> None:
    """Put around the app before us, after us, or into Flask: the Response record belongs to the request's span.

    The instrumentation begins the span after the Request record, which has the ids of the header, if any.
    """
    skip_without("opentelemetry.instrumentation.flask")
    found, done = run_sdk(f"ORDER = {order!r}\n" + INSTRUMENTED, tmp_path)
    assert_ids_as_expected(found)
    servers = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("SERVER")]
    assert len(servers) == 5
    responses = [[d["trace_id"], d["span_id"]] for d in found if d["message"].startswith("Response")]
    assert responses == servers
    assert servers[1][0] == TRACE
    requests = [(d.get("trace_id"), d.get("span_id")) for d in found if d["message"].startswith("Request")]
    assert requests == [(None, None), (TRACE, PARENT), (None, None), (None, None), (None, None)]
    (first,) = (d for d in found if d["message"] == "first")  # its span is over by then
    assert [first["trace_id"], first["span_id"]] == servers[2]
    for document in found:
        if document["message"] == "teardown":
            assert document["trace_id"] in [trace_id for trace_id, _ in servers]


MIDDLEWARE = """
from opentelemetry import trace

app = Flask("middleware")
asynclog = AsyncLog(app, format="json")
inner = app.wsgi_app

def traced(environ, start_response):
    with tracer.start_as_current_span("server") as span:
        print("SERVER", *ids(span))
        return inner(environ, start_response)

app.wsgi_app = traced
app.add_url_rule("/", "view", lambda: app.logger.info("view", extra=here()) or "x")
app.test_client().get("/")
asynclog.flush(60)
print_stats(asynclog.stats())
"""


def test_with_a_span_around_the_app(tmp_path: Path) -> None:
    """A middleware's span, as of `opentelemetry.instrumentation.wsgi`, is that of all records."""
    found, done = run_sdk(MIDDLEWARE, tmp_path)
    assert_ids_as_expected(found)
    (server,) = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("SERVER")]
    assert [[d["trace_id"], d["span_id"]] for d in found] == [server] * 3


LATE = """
import sys
from flask import Flask
from flask_asynclog import AsyncLog

app = Flask("late")
asynclog = AsyncLog(app, format="json", flush_interval=0.01)

@app.get("/first")
def first():
    app.logger.info("first")
    return "x"

@app.get("/second")
def second():
    with tracer.start_as_current_span("span"):
        app.logger.info("second", extra=here())
    return "x"

app.test_client().get("/first")
asynclog.flush(60)
assert "opentelemetry" not in sys.modules
"""


def test_imported_after_the_first_request(tmp_path: Path) -> None:
    """From the next batch or request on, records have the current span's ids."""
    code = SDK + "app.test_client().get('/second')\nasynclog.flush(60)\nprint_stats(asynclog.stats())\n"
    found, _ = run_sdk(code, tmp_path, before=LATE)
    assert_ids_as_expected(found)
    assert [d["message"].split()[0] for d in found] == ["Request", "first", "Response", "Request", "second", "Response"]
    assert "trace_id" in found[4]


def test_without_opentelemetry_nothing_of_it_is_imported(tmp_path: Path) -> None:
    """Neither at import nor in a request."""
    code = LATE + "print_stats(asynclog.stats())\n"
    done = run_python(PRINT_STATS + code, cwd=tmp_path)
    assert_conserved(read_stats(done.stdout))


API_ONLY = """
from flask import Flask
from opentelemetry import trace
from flask_asynclog import AsyncLog

app = Flask("api")
asynclog = AsyncLog(app, format="json")

@app.get("/")
def view():
    with trace.get_tracer("tests").start_as_current_span("no-op"):
        app.logger.info("view")
    return "x"

app.test_client().get("/")
app.test_client().get("/", headers={"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"})
asynclog.flush(60)
print_stats(asynclog.stats())
"""


def test_the_api_without_the_sdk(tmp_path: Path) -> None:
    """Its spans are none; the header's ids count."""
    skip_without("opentelemetry.trace")
    done = run_python(PRINT_STATS + API_ONLY, cwd=tmp_path, env={**os.environ, "OTEL_SDK_DISABLED": "true"})
    assert done.stderr == ""
    found = [json.loads(line) for line in log_lines(tmp_path / "app.log")]
    assert [d.get("trace_id") for d in found] == [None] * 3 + [TRACE] * 3


THREADS = """
import contextvars, threading
from opentelemetry import trace

app = Flask("threads")
asynclog = AsyncLog(app, format="json")

@app.get("/")
def view():
    with tracer.start_as_current_span("span"):
        copied = contextvars.copy_context()
        def work():
            app.logger.info("copied", extra=here())
            with tracer.start_as_current_span("of the thread"):
                app.logger.info("of the thread", extra=here())
        threads = [
            threading.Thread(target=copied.run, args=(work,)),
            threading.Thread(target=contextvars.Context().run, args=(app.logger.info, "plain")),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return "x"

app.test_client().get("/")
asynclog.flush(60)
print_stats(asynclog.stats())
"""


def test_on_threads(tmp_path: Path) -> None:
    """With a copy of the context a thread logs in the span of its request, without one in none."""
    found, _ = run_sdk(THREADS, tmp_path)
    assert_ids_as_expected(found)
    by_message = {d["message"]: d for d in found}
    assert by_message["copied"]["trace_id"] == by_message["of the thread"]["trace_id"]
    assert "trace_id" not in by_message["plain"]


BROKEN = """
import sys, types
sys.modules["opentelemetry.trace"] = types.ModuleType("opentelemetry.trace")  # half imported
from flask import Flask
from flask_asynclog import AsyncLog

app = Flask("broken")
asynclog = AsyncLog(app, format="json")
app.add_url_rule("/", "view", lambda: app.logger.info("view") or "x")
app.test_client().get("/")
asynclog.flush(60)
print_stats(asynclog.stats())
"""


def test_a_broken_opentelemetry_costs_no_record(tmp_path: Path) -> None:
    """Half imported, or of another make: records come without ids of spans."""
    done = run_python(PRINT_STATS + BROKEN, cwd=tmp_path)
    assert done.stderr == ""
    assert_conserved(read_stats(done.stdout))
    assert len(log_lines(tmp_path / "app.log")) == 3
