"""What is logged of a request, and how loud: levels by status, slow responses, samples, records held on demand."""

from __future__ import annotations

import contextlib
import contextvars
import json
import logging
import random
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, abort

from flask_asynclog import AsyncLog
from flask_asynclog.entries import Entry
from flask_asynclog.held import HeldRecords
from support import HANG, assert_conserved, log_lines, run_python, run_threads

MakeApp = Callable[..., tuple[Flask, AsyncLog]]


def documents(asynclog: AsyncLog, path: str = "app.log") -> list[dict[str, Any]]:
    """The JSON lines of the log."""
    assert asynclog.flush(HANG)
    return [json.loads(line) for line in log_lines(Path(path))] if Path(path).exists() else []


def messages(asynclog: AsyncLog) -> list[str]:
    """The first two words of each message."""
    return [" ".join(document["message"].split()[:2]) for document in documents(asynclog)]


@pytest.fixture(params=["alone", "beside others"])
def make(request: pytest.FixtureRequest) -> MakeApp:
    """Make an app whose records go directly into the queue, or as records by other handlers, too."""
    made: MakeApp = request.getfixturevalue("make_alone" if request.param == "alone" else "make_app")
    return made


def views(app: Flask) -> None:
    """One view for each end."""

    @app.get("/<int:status>")
    def answer(status: int) -> Response:
        app.logger.debug("about to answer %d", status)
        return Response("x", status)

    @app.get("/raise")
    def fail() -> str:
        app.logger.debug("about to fail")
        raise ValueError("no luck")

    @app.get("/abort/<int:status>")
    def give_up(status: int) -> str:
        abort(status)

    @app.get("/stream/<int:good>")
    def stream(good: int) -> Response:
        def generate() -> Iterator[bytes]:
            app.logger.debug("streaming")
            yield b"a"
            if not good:
                raise ValueError("broken stream")

        return Response(generate())


# Levels.


@pytest.mark.parametrize(
    ("path", "level"),
    [
        ("/200", "INFO"), ("/302", "INFO"), ("/404", "WARNING"), ("/499", "WARNING"), ("/500", "ERROR"),
        ("/503", "ERROR"), ("/abort/403", "WARNING"), ("/abort/502", "ERROR"), ("/nowhere", "WARNING"),
        ("/raise", "ERROR"), ("/stream/1", "INFO"),
    ],
)  # fmt: skip
def test_the_level_of_a_response_is_its_statuss(make: MakeApp, path: str, level: str) -> None:
    """From 500 on ERROR, from 400 on WARNING, otherwise INFO; the request's own record is INFO."""
    app, asynclog = make(format="json")
    views(app)
    assert app.test_client().get(path).data is not None
    levels = {document["message"].split()[0]: document["level"] for document in documents(asynclog)}
    assert (levels["Request"], levels["Response"]) == ("INFO", level)


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "ERROR"])
def test_the_level_of_client_errors_can_be_chosen(make: MakeApp, level: str) -> None:
    """Scanners make a public site's 404s worthless; an internal API's are mistakes."""
    app, asynclog = make(format="json", client_error_level=level, level="DEBUG")
    views(app)
    app.test_client().get("/404")
    app.test_client().get("/500")
    levels = [document["level"] for document in documents(asynclog) if document["message"].startswith("Response")]
    assert levels == [level, "ERROR"]


def test_client_errors_below_the_level_of_the_log(make: MakeApp) -> None:
    """Are not written, as any record below it; one that is slow is."""
    app, asynclog = make(format="json", client_error_level="DEBUG", request_events=["response"])
    views(app)
    for path in ("/404", "/200", "/nowhere"):
        app.test_client().get(path)
    assert messages(asynclog) == ["Response 200"]


@pytest.mark.parametrize("path", ["/200", "/404", "/500", "/stream/1"])
def test_a_slow_response_is_a_warning_at_least(make: MakeApp, path: str) -> None:
    """With a threshold of 0 everything is slow; one that is an ERROR stays one."""
    app, asynclog = make(format="json", slow_threshold=0, client_error_level="INFO")
    views(app)
    assert app.test_client().get(path).data is not None
    (response,) = [document for document in documents(asynclog) if document["message"].startswith("Response")]
    assert response["level"] == ("ERROR" if path == "/500" else "WARNING")


def test_an_ordinary_response_is_not_slow(make: MakeApp) -> None:
    """Below the threshold nothing changes."""
    app, asynclog = make(format="json", slow_threshold=86_400)
    views(app)
    app.test_client().get("/200")
    assert {document["level"] for document in documents(asynclog)} == {"INFO"}


@pytest.mark.parametrize("path", ["/200", "/404", "/500", "/raise", "/stream/1", "/nowhere"])
def test_excluded_paths(make: MakeApp, path: str) -> None:
    """Make no request records, whoever else listens; other paths do, and what the app logs is logged."""
    app, asynclog = make(format="json", exclude_paths=[path])
    views(app)
    assert app.test_client().get(path).data is not None
    app.test_client().get("/302")
    assert [message for message in messages(asynclog) if "Exception" not in message] == ["Request GET", "Response 302"]


#: What differs from request to request: ids, times, durations, addresses of objects.
VARIABLE = re.compile(
    r"\b[0-9a-f]{32}\b|\d+\.\d+ms|0x[0-9a-f]+|\d{4}-\d\d-\d\d[ T]\S+|\[[^]]+ [+-]\d{4}\]"
    r"|(?<=duration)\W+[\d.e-]+|(?<=first_byte)\W+[\d.e-]+"
)
PATHS = ("/200", "/302?token=x", "/404;sid=1", "/404", "/500", "/abort/503", "/raise", "/stream/1", "/stream/0")


@pytest.mark.parametrize("events", [("request", "response"), ("response",), ("request",), ()])
@pytest.mark.parametrize(
    "options",
    [
        {}, {"sample_rate": 0}, {"buffer_level": "DEBUG"}, {"slow_threshold": 0}, {"client_error_level": "DEBUG"},
        {"client_error_level": "ERROR", "sample_rate": 0}, {"level": "WARNING"}, {"redact_patterns": ["luck"]},
        {"level": "WARNING", "buffer_level": "INFO"}, {"response_headers": ["Content-Type"], "format": "logfmt"},
        {"format": "combined"}, {"format": "ecs"}, {"format": "%(status)s %(path)s %(query)s %(message)s"},
    ],
)  # fmt: skip
def test_the_same_lines_whoever_listens(make_alone: MakeApp, options: dict[str, Any], events: tuple[str, ...]) -> None:
    """The direct way into the queue is a short cut, and nothing else."""
    app, asynclog = make_alone(exclude_paths=["/20?"], request_events=events, console=False, **options)
    views(app)

    def lines() -> list[str]:
        known = len(all_lines())
        for path in PATHS:
            for method in ("GET", "HEAD"):
                with contextlib.suppress(ValueError):
                    assert app.test_client().open(path, method=method).data is not None
        return [VARIABLE.sub("", line) for line in all_lines()[known:]]

    def all_lines() -> list[str]:
        assert asynclog.flush(HANG)
        return log_lines(Path("app.log"))

    alone, other = lines(), logging.NullHandler()
    logging.getLogger().addHandler(other)
    try:
        assert lines() == alone
    finally:
        logging.getLogger().removeHandler(other)
    assert len(alone) >= len(events)


# Samples.


def test_a_sample_of_none_keeps_failures_and_slow_requests(make: MakeApp) -> None:
    """Both records of each, with the time at which the request came; client errors are no failures."""
    app, asynclog = make(format="json", sample_rate=0)
    views(app)
    client = app.test_client()
    for path in ("/200", "/404", "/raise", "/503", "/200"):
        assert client.get(path).data is not None
    assert messages(asynclog) == ["Exception on", "Request GET", "Response 500", "Request GET", "Response 503"]
    failed = [document for document in documents(asynclog) if document["message"].startswith("Re")]
    assert failed[0]["request_id"] == failed[1]["request_id"]
    assert failed[0]["timestamp"] <= failed[1]["timestamp"]
    assert [document["sample_rate"] for document in failed if "sample_rate" in document] == [1.0, 1.0]


def test_a_sample_of_requests_without_their_responses(make: MakeApp) -> None:
    """The request that fails is logged, though its response is not wanted."""
    app, asynclog = make(format="json", sample_rate=0, request_events=["request"])
    views(app)
    for path in ("/200", "/503", "/raise"):
        app.test_client().get(path)
    assert messages(asynclog) == ["Request GET", "Exception on", "Request GET"]


def test_a_slow_request_is_in_every_sample(make: MakeApp) -> None:
    """Slow is what the threshold says."""
    app, asynclog = make(format="json", sample_rate=0, slow_threshold=0)
    views(app)
    app.test_client().get("/200")
    assert messages(asynclog) == ["Request GET", "Response 200"]


def test_a_sample_is_of_requests_and_records_its_rate(make: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both records of a request or none; ordinary records are no matter of the sample."""
    app, asynclog = make(format="json", sample_rate=0.25, level="DEBUG")
    views(app)
    client = app.test_client()
    with monkeypatch.context() as patch:
        patch.setattr("flask_asynclog.requests.random", random.Random(4).random)
        for _ in range(200):
            client.get("/200")
    found = documents(asynclog)
    requests = [document for document in found if document["message"].startswith("Request ")]
    responses = [document for document in found if document["message"].startswith("Response ")]
    same = random.Random(4)
    assert len(requests) == len(responses) == sum(same.random() < 0.25 for _ in range(200))
    assert {document["request_id"] for document in requests} == {document["request_id"] for document in responses}
    assert {document["sample_rate"] for document in responses} == {0.25}
    assert sum(document["message"].startswith("about to") for document in found) == 200


def test_a_sample_in_an_app_that_seeds(make: MakeApp) -> None:
    """For an order that is the same for each user, as a rule: it decides nothing about the next request's records."""
    app, asynclog = make(sample_rate=0.5, request_events=["response"])

    @app.get("/")
    def view() -> str:
        random.seed(0)
        return "x"

    state = random.getstate()
    for _ in range(200):
        app.test_client().get("/")
    random.setstate(state)
    assert asynclog.flush(HANG)
    assert 50 < len(log_lines(Path("app.log"))) < 150


def test_forked_workers_throw_dice_of_their_own(tmp_path: Path) -> None:
    """What one of them leaves out, another may log."""
    code = """
import os
from flask_asynclog import requests
seen = []
for _ in range(3):
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, repr([requests.random() for _ in range(4)]).encode())
        os._exit(0)
    os.wait()
    seen.append(os.read(reading, 1000))
assert len(set(seen)) == 3, seen
"""
    run_python(code, cwd=tmp_path)


def test_without_a_sample_no_rate_is_recorded(make: MakeApp) -> None:
    """A rate of 1 says nothing."""
    app, asynclog = make(format="json")
    views(app)
    app.test_client().get("/200")
    assert not any("sample_rate" in document for document in documents(asynclog))


# Debug on demand.


@pytest.mark.parametrize("path", ["/500", "/raise", "/stream/0"])
def test_what_was_held_is_written_when_the_request_fails(make: MakeApp, path: str) -> None:
    """Before its response, in the order it was logged, with its own times and the request id."""
    app, asynclog = make(format="json", buffer_level="DEBUG")
    views(app)
    response = app.test_client().get("/200")
    try:
        failed = app.test_client().get(path)
        assert failed.data is not None
    except ValueError:
        assert path == "/stream/0"
    found = documents(asynclog)
    held = [document for document in found if document["level"] == "DEBUG" and document["logger"] == app.name]
    assert len(held) == 1
    assert held[0]["message"] in ("about to answer 500", "about to fail", "streaming")
    assert held[0]["request_id"] != response.headers["X-Request-ID"]
    last = next(document for document in found if document["message"].startswith("Response 500 ") or (
        document["message"].startswith("Response 200 ") and "stream" in document["message"]
    ))  # fmt: skip
    assert last["request_id"] == held[0]["request_id"]
    assert held[0]["timestamp"] <= last["timestamp"]
    assert found.index(held[0]) < found.index(last)
    assert_conserved(asynclog.stats())


def test_what_was_held_is_written_when_the_request_is_slow(make: MakeApp) -> None:
    """Slow is as good a reason."""
    app, asynclog = make(format="json", buffer_level="DEBUG", slow_threshold=0)
    views(app)
    app.test_client().get("/200")
    assert messages(asynclog) == ["Request GET", "about to", "Response 200"]


def test_what_was_held_is_forgotten_otherwise(make: MakeApp) -> None:
    """Neither written nor counted; nor are records outside of requests, nor those after the response."""
    app, asynclog = make(format="json", buffer_level="DEBUG")
    views(app)

    @app.teardown_request
    def afterwards(error: BaseException | None) -> None:
        app.logger.debug("torn down")

    app.logger.debug("outside")
    for path in ("/200", "/404", "/stream/1"):
        assert app.test_client().get(path).data is not None
    assert not [document for document in documents(asynclog) if document["level"] == "DEBUG"]
    assert asynclog.stats().accepted == 6


def test_records_after_the_response_of_a_failed_request(make: MakeApp) -> None:
    """It is known by then: they are written like others."""
    app, asynclog = make(format="json", buffer_level="DEBUG")
    views(app)

    @app.teardown_request
    def afterwards(error: BaseException | None) -> None:
        app.logger.debug("torn down")

    app.test_client().get("/500")
    assert messages(asynclog) == ["Request GET", "about to", "Response 500", "torn down"]


def test_only_so_many_are_held(make: MakeApp) -> None:
    """The last ones; how many older ones there were is said with them."""
    app, asynclog = make(format="json", buffer_level="DEBUG", buffer_size=10)

    @app.get("/")
    def view() -> Response:
        for number in range(25):
            app.logger.debug("step %d", number)
        return Response("x", 500)

    app.test_client().get("/")
    found = documents(asynclog)
    steps = [document["message"] for document in found if document["message"].startswith("step")]
    assert steps == [f"step {number}" for number in range(15, 25)]
    (said,) = [document for document in found if document["logger"] == "flask_asynclog"]
    assert said["message"] == "15 older records of this request were not held: ASYNCLOG_BUFFER_SIZE=10"
    assert said["level"] == "WARNING"
    assert said["request_id"] == found[0]["request_id"]


def test_the_buffer_takes_records_at_their_worth(make: MakeApp) -> None:
    """As any record: arguments as they were, tracebacks as text, extra values copied, secrets redacted."""
    app, asynclog = make(format="json", buffer_level="DEBUG")

    @app.get("/")
    def view() -> Response:
        changing = [1]
        app.logger.debug("%s", changing, extra={"kept": changing, "password": "hunter2"})
        changing.append(2)
        try:
            raise KeyError("lost")
        except KeyError:
            app.logger.debug("caught", exc_info=True)
        return Response("x", 500)

    app.test_client().get("/")
    first, second = [document for document in documents(asynclog) if document["level"] == "DEBUG"]
    assert (first["message"], first["kept"], first["password"]) == ("[1]", [1], "[REDACTED]")
    assert second["exception.type"] == "KeyError"


def test_threads_of_the_request_hold_for_it(make: MakeApp) -> None:
    """Those that run in a copy of its context."""
    app, asynclog = make(format="json", buffer_level="DEBUG")

    @app.get("/")
    def view() -> Response:
        contexts = [contextvars.copy_context() for _ in range(4)]
        run_threads(*(lambda c=context: c.run(app.logger.debug, "in a thread") for context in contexts))
        return Response("x", 500)

    app.test_client().get("/")
    held = [document for document in documents(asynclog) if document["message"] == "in a thread"]
    assert len(held) == 4
    assert len({document["request_id"] for document in held}) == 1


def test_an_excluded_path_that_fails(make: MakeApp) -> None:
    """Makes no request records, as ever; what it has held is written all the same."""
    app, asynclog = make(format="json", buffer_level="DEBUG", exclude_paths=["/*"])
    views(app)
    app.test_client().get("/500")
    assert messages(asynclog) == ["about to"]


@pytest.mark.parametrize("events", [(), ("request",)])
def test_without_response_records(make: MakeApp, events: tuple[str, ...]) -> None:
    """The judgement does not depend on them."""
    app, asynclog = make(format="json", buffer_level="DEBUG", request_events=events)
    views(app)
    app.test_client().get("/200")
    app.test_client().get("/500")
    held = [document["message"] for document in documents(asynclog) if document["level"] == "DEBUG"]
    assert held == ["about to answer 500"]


def test_levels_between(make: MakeApp) -> None:
    """Records at the normal level are written at once; those below the buffer's level are not made."""
    app, asynclog = make(format="json", level="WARNING", buffer_level="INFO")

    @app.get("/")
    def view() -> Response:
        for level in ("debug", "info", "warning"):
            getattr(app.logger, level)(level)
        return Response("x", 500)

    app.test_client().get("/")
    assert messages(asynclog) == ["warning", "Request GET", "info", "Response 500"]


def test_held_records_and_other_handlers() -> None:
    """A handler of somebody else on the same logger gets what its own level lets through, as ever."""
    seen: list[str] = []

    class Theirs(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())

    app = Flask("shared")
    asynclog = AsyncLog(app, buffer_level="DEBUG", flush_interval=0.01)
    handler = Theirs(level="INFO")
    app.logger.addHandler(handler)
    views(app)
    app.test_client().get("/200")
    app.logger.removeHandler(handler)
    asynclog.close()
    assert [message.split()[0] for message in seen] == ["Request", "Response"]


@pytest.mark.parametrize("order", ["first", "second"])
def test_one_of_two_apps_holds(make_app: MakeApp, order: str) -> None:
    """They share the file; the one that says nothing of it has its DEBUG records nowhere, in either order."""
    apps: dict[str, Flask] = {}
    for name in ("first", "second"):
        apps[name], asynclog = make_app(name, format="json", **({"buffer_level": "DEBUG"} if name == order else {}))
        views(apps[name])
    library = logging.getLogger("library")
    for app in apps.values():
        app.add_url_rule("/library", "library", lambda: (library.debug("in a library"), ("x", 500))[1])
        app.test_client().get("/500")
        app.test_client().get("/library")
    held = [(d["logger"], d["message"]) for d in documents(asynclog) if d["level"] == "DEBUG"]
    assert held == [(order, "about to answer 500"), ("library", "in a library")]


@pytest.mark.parametrize("error", [None, ValueError()])
def test_what_is_held_in_a_context_pushed_by_hand(make: MakeApp, error: Exception | None) -> None:
    """It has no response; it has failed if an exception ends it."""
    app, asynclog = make(format="json", buffer_level="DEBUG")
    with contextlib.suppress(ValueError), app.test_request_context("/"):
        app.preprocess_request()
        app.logger.debug("held back")
        if error is not None:
            raise error
    assert messages(asynclog) == ["Request GET"] + (["held back"] if error is not None else [])


def test_settling_amid_threads(switching: None) -> None:
    """Records that come while it becomes known are passed on, each once."""
    for wanted in (True, False):
        for _ in range(30):
            passed: list[Entry] = []
            held = HeldRecords(10_000, lambda entry, level, into=passed: into.append(entry))
            begun = threading.Barrier(3)

            def add(first: int, held: HeldRecords = held, begun: threading.Barrier = begun) -> None:
                begun.wait(HANG)
                for number in range(first, first + 200):
                    held.add({"levelno": 10, "number": number})

            def settle(held: HeldRecords = held, begun: threading.Barrier = begun, wanted: bool = wanted) -> None:
                begun.wait(HANG)
                held.settle(wanted=wanted)

            run_threads(lambda: add(0), lambda: add(1000), settle)
            numbers = sorted(entry["number"] for entry in passed if isinstance(entry, dict))
            assert numbers == ([*range(200), *range(1000, 1200)] if wanted else [])
