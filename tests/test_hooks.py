"""The request hooks: what is logged, in which order, exactly once."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    after_this_request,
    copy_current_request_context,
    got_request_exception,
    redirect,
    request,
    request_finished,
    send_file,
    session,
)
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException
from werkzeug.test import EnvironBuilder

from flask_asynclog import AsyncLog, context
from support import HANG, PRINT_STATS, assert_conserved, log_lines, read_stats, run_python

MakeApp = Callable[..., tuple[Flask, AsyncLog]]
Init = Callable[[Flask], AsyncLog]
Document = dict[str, Any]


class ViewError(Exception):
    """Raised by the views of these tests."""


def logged(asynclog: AsyncLog) -> list[str]:
    """The lines so far, every record accounted for."""
    assert asynclog.flush(HANG)
    assert_conserved(asynclog.stats())
    return log_lines(Path("app.log"))


def documents(asynclog: AsyncLog) -> list[Document]:
    """The lines so far, as JSON."""
    return [json.loads(line) for line in logged(asynclog)]


def messages(asynclog: AsyncLog) -> list[str]:
    """The messages so far, without durations and request ids."""
    return [" ".join(d["message"].split()[:3]) for d in documents(asynclog)]


def the(kind: str, asynclog: AsyncLog) -> Document:
    """The one request or response record in the log."""
    found = [d for d in documents(asynclog) if d["message"].startswith(f"{kind} ") and "url.path" in d]
    assert len(found) == 1, found
    return found[0]


def raise_view_error() -> ResponseReturnValue:
    raise ViewError("no such luck")


def get(app: Flask, path: str = "/", **options: Any) -> Response | None:
    """The response to a GET request; ``None`` if the app let an exception out."""
    with contextlib.suppress(Exception):
        return app.test_client().get(path, **options)
    return None


@pytest.fixture
def init() -> Iterator[Init]:
    """Put `AsyncLog` on an app that has functions registered already; closed at the end of the test."""
    made: list[AsyncLog] = []

    def init_app(app: Flask) -> AsyncLog:
        made.append(AsyncLog(app, format="json", flush_interval=0.01))
        return made[-1]

    yield init_app
    for asynclog in made:
        asynclog.close()


# Wording and fields.


def test_a_request_makes_two_records(make_app: MakeApp) -> None:
    """One line when the request comes in, one when the response goes out, with the wording of Flask's recipe."""
    app, asynclog = make_app()
    app.add_url_rule("/hello/<name>", "hello", lambda name: f"hello {name}")
    response = app.test_client().get("/hello/bob?x=1")
    request_line, response_line = logged(asynclog)
    request_id = response.headers["X-Request-ID"]
    assert f" - INFO - Request GET http://localhost/hello/bob?x=1 id={request_id}" in request_line
    assert " - INFO - Response 200 OK GET /hello/bob " in response_line
    assert response_line.endswith(f"ms 9B id={request_id}")


def test_the_fields_of_both_records(make_app: MakeApp) -> None:
    """In JSON the parts of the message are fields of their own, with OpenTelemetry's names."""
    app, asynclog = make_app(format="json")
    app.add_url_rule("/things/<int:n>", "thing", lambda n: ("made", 201), methods=["POST"])
    response = app.test_client().post("/things/7", data=b"x")
    first, second = documents(asynclog)
    for document in (first, second):
        assert document["logger"] == app.name
        assert document["level"] == "INFO"
        assert document["http.request.method"] == "POST"
        assert document["url.path"] == "/things/7"
        assert document["request_id"] == response.headers["X-Request-ID"]
    assert second["http.response.status_code"] == 201
    assert second["http.response.body.size"] == 4
    assert 0 <= second["http.server.request.duration"] < 60
    assert "http.response.status_code" not in first


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/nowhere", "GET", "404 NOT FOUND"),
        ("/only-get", "POST", "405 METHOD NOT ALLOWED"),
        ("/only-get", "OPTIONS", "200 OK"),
        ("/only-get", "HEAD", "200 OK"),
        ("/away", "GET", "302 FOUND"),
        ("/empty", "GET", "204 NO CONTENT"),
        ("/own", "GET", "299 Mine"),
        ("/static/missing.css", "GET", "404 NOT FOUND"),
    ],
)
def test_every_kind_of_answer_has_its_two_records(make_app: MakeApp, path: str, method: str, status: str) -> None:
    """Errors of routing, automatic methods, redirects and own status lines are requests like others."""
    app, asynclog = make_app(format="json")
    app.add_url_rule("/only-get", "only_get", lambda: "x", methods=["GET"])
    app.add_url_rule("/away", "away", lambda: redirect("/only-get"))
    app.add_url_rule("/empty", "empty", lambda: ("", 204))
    app.add_url_rule("/own", "own", lambda: Response("x", "299 Mine"))
    response = app.test_client().open(path, method=method)
    assert response.status == status
    first, second = documents(asynclog)
    assert first["message"].startswith(f"Request {method} http://localhost{path} id=")
    assert second["message"].startswith(f"Response {status} {method} {path} ")
    assert second["http.response.status_code"] == response.status_code


def test_blueprints_need_nothing(make_app: MakeApp) -> None:
    """A view of a nested blueprint is logged like one of the app, through `app.logger`."""
    app, asynclog = make_app(format="json")
    outer, inner = Blueprint("outer", __name__, url_prefix="/outer"), Blueprint("inner", __name__, url_prefix="/inner")
    inner.add_url_rule("/x", "x", lambda: "x")
    outer.register_blueprint(inner)
    app.register_blueprint(outer)
    app.test_client().get("/outer/inner/x")
    assert messages(asynclog) == ["Request GET http://localhost/outer/inner/x", "Response 200 OK"]
    assert {d["logger"] for d in documents(asynclog)} == {app.name}


@pytest.mark.parametrize(
    "hostile",
    [
        {"path": "/a%0d%0aResponse 200 OK GET /forged"},
        {"path": "/%1b[31mred"},
        {"path": "/caf%e9"},
        {"path": "/%ed%a0%80%e2%80%a8"},
        {"path": "/", "query_string": "q=\x1b[2J\r\nx"},
        {"path": "/", "headers": {"Host": "not a host/?\t<>"}},
        {"path": "/", "headers": {"Host": ""}},
        {"path": "/", "method": "BREW\x1b[2J"},
    ],
)
def test_hostile_requests_make_one_line_each(make_app: MakeApp, hostile: dict[str, Any]) -> None:
    """Whatever a client puts into path, query, host and method: two records, two lines, no control characters."""
    app, asynclog = make_app()
    app.test_client().open(**hostile)
    lines = logged(asynclog)
    assert len(lines) == 2
    assert " - INFO - Request " in lines[0]
    assert " - WARNING - Response 404 " in lines[1]
    assert all(line.isprintable() for line in lines)


def test_an_async_view_is_logged_like_others(tmp_path: Path) -> None:
    """An async view, which Flask runs in an event loop, logs with its request id."""
    pytest.importorskip("asgiref", reason="flask[async] is not installed")
    # In a process of its own: asgiref leaves a thread behind.
    done = run_python(PRINT_STATS + ASYNC_VIEWS, cwd=tmp_path)
    assert_conserved(read_stats(done.stdout))
    found = [json.loads(line) for line in log_lines(Path("app.log"))]
    inside, broken = found[:3], found[3:]
    assert [d["message"].split()[0] for d in found] == [
        "Request",
        "inside",
        "Response",
        "Request",
        "Exception",
        "Response",
    ]
    for records in (inside, broken):
        assert len({d["request_id"] for d in records}) == 1
    assert broken[-1]["http.response.status_code"] == 500
    assert broken[-1]["error.type"] == "ArithmeticError"


ASYNC_VIEWS = """
from flask import Flask
from flask_asynclog import AsyncLog

app = Flask("async_views")
asynclog = AsyncLog(app, format="json")

@app.get("/")
async def view():
    app.logger.info("inside")
    return "x"

@app.get("/broken")
async def broken():
    raise ArithmeticError

assert app.test_client().get("/").data == b"x"
assert app.test_client().get("/broken").status_code == 500
assert asynclog.flush(60)
print_stats(asynclog.stats())
"""


# First in, last out.


def test_ours_are_first_in_and_last_out(init: Init) -> None:
    """Whatever the others log, registered before or after, stands between our two lines, and has the request id."""
    app = Flask("order")
    log = app.logger.info

    def passing(label: str) -> Callable[[Response], Response]:
        def function(response: Response) -> Response:
            log(label)
            return response

        return function

    app.before_request(lambda: log("b1"))
    app.after_request(passing("a1"))
    asynclog = init(app)
    app.before_request(lambda: log("b2"))
    app.after_request(passing("a2"))
    blueprint = Blueprint("blueprint", __name__)
    blueprint.before_app_request(lambda: log("b3"))
    blueprint.before_request(lambda: log("b4"))
    blueprint.after_app_request(passing("a3"))
    blueprint.after_request(passing("a4"))

    @blueprint.get("/")
    def view() -> str:
        after_this_request(passing("a5"))
        log("view")
        return "x"

    app.register_blueprint(blueprint)
    app.test_client().get("/")
    assert messages(asynclog) == [
        "Request GET http://localhost/",
        "b1",
        "b2",
        "b3",
        "b4",
        "view",
        "a5",
        "a4",
        "a3",
        "a2",
        "a1",
        "Response 200 OK",
    ]
    assert len({d["request_id"] for d in documents(asynclog)}) == 1


@pytest.mark.parametrize("registered", ["before", "after", "blueprint"])
@pytest.mark.parametrize("ends", ["aborts", "returns"])
def test_a_before_request_that_ends_the_request(init: Init, registered: str, ends: str) -> None:
    """Another before_request that aborts or answers, wherever it is registered, hides neither record."""
    app = Flask("ends")

    def end() -> ResponseReturnValue:
        if ends == "aborts":
            abort(403)
        return "no", 403

    if registered == "before":
        app.before_request(end)
    asynclog = init(app)
    if registered == "after":
        app.before_request(end)
    blueprint = Blueprint("blueprint", __name__)
    if registered == "blueprint":
        blueprint.before_request(end)
    blueprint.add_url_rule("/", "view", lambda: "x")
    app.register_blueprint(blueprint)
    assert app.test_client().get("/").status_code == 403
    assert messages(asynclog) == ["Request GET http://localhost/", "Response 403 FORBIDDEN"]


@pytest.mark.parametrize("registered", ["before", "after"])
def test_a_url_value_preprocessor_that_aborts(init: Init, registered: str) -> None:
    """Flask runs these before every before_request function: both records are there all the same, with one id."""
    app = Flask("preprocessor")
    app.add_url_rule("/<lang>", "view", lambda lang: lang)

    def refuse(endpoint: str | None, values: dict[str, Any] | None) -> None:
        abort(404)

    if registered == "before":
        app.url_value_preprocessor(refuse)
    asynclog = init(app)
    if registered == "after":
        app.url_value_preprocessor(refuse)
    response = app.test_client().get("/xx")
    assert response.status_code == 404
    assert the("Response", asynclog)["request_id"] == response.headers["X-Request-ID"]
    assert messages(asynclog) == ["Request GET http://localhost/xx", "Response 404 NOT"]


@pytest.mark.parametrize("registered", ["before", "after"])
def test_an_after_request_that_replaces_the_response(init: Init, registered: str) -> None:
    """What counts is the response that leaves the app: its status is logged, and it has the request id."""
    app = Flask("replaces")

    def replace(response: Response) -> Response:
        return Response("other", 203)

    if registered == "before":
        app.after_request(replace)
    asynclog = init(app)
    if registered == "after":
        app.after_request(replace)
    response = app.test_client().get("/")
    document = the("Response", asynclog)
    assert (document["http.response.status_code"], document["http.response.body.size"]) == (203, 5)
    assert response.headers["X-Request-ID"] == document["request_id"]


# A request that fails: one response record, with status and exception.


def failed(asynclog: AsyncLog, error: str = "ViewError", text: str = "no such luck") -> Document:
    """The one response record, which must be that of a 500 with its exception."""
    document = the("Response", asynclog)
    assert document["level"] == "ERROR"
    assert document["message"].startswith("Response 500 INTERNAL SERVER ERROR GET / ")
    assert document["message"].endswith(f" {error}: {text}")
    assert document["http.response.status_code"] == 500
    assert document["error.type"] == error
    assert document["request_id"] == the("Request", asynclog)["request_id"]
    return document


def test_a_view_that_raises_in_production(make_app: MakeApp) -> None:
    """Flask answers 500 and logs the traceback; our record has status, size, id and exception."""
    app, asynclog = make_app(format="json")
    app.add_url_rule("/", "view", raise_view_error)
    response = app.test_client().get("/")
    document = failed(asynclog)
    assert "exception.stacktrace" not in document
    assert document["http.response.body.size"] == len(response.data)
    assert document["request_id"] == response.headers["X-Request-ID"]
    (flasks,) = [d for d in documents(asynclog) if d["message"].startswith("Exception on / [GET]")]
    assert flasks["exception.type"] == "ViewError"
    assert "raise_view_error" in flasks["exception.stacktrace"]
    assert flasks["request_id"] == document["request_id"]


@pytest.mark.parametrize("mode", ["TESTING", "DEBUG", "PROPAGATE_EXCEPTIONS"])
def test_a_view_that_raises_where_flask_propagates(make_app: MakeApp, mode: str) -> None:
    """No after_request function runs then: the record is made in teardown, with the traceback."""
    app, asynclog = make_app(format="json")
    app.config[mode] = True
    app.add_url_rule("/", "view", raise_view_error)
    with pytest.raises(ViewError):
        app.test_client().get("/")
    document = failed(asynclog)
    assert document["exception.type"] == "ViewError"
    assert document["exception.message"] == "no such luck"
    assert "raise_view_error" in document["exception.stacktrace"]


@pytest.mark.parametrize("testing", [False, True])
def test_the_records_are_made_in_the_requests_context(make_app: MakeApp, testing: bool) -> None:
    """Filters that look at `request`, as Flask's documentation shows them, find it there, also after an exception."""
    app, asynclog = make_app(format="json")
    app.testing = testing
    app.add_url_rule("/", "view", raise_view_error)

    def add_agent(record: logging.LogRecord) -> bool:
        record.agent = request.headers["User-Agent"]
        return True

    app.logger.addFilter(add_agent)
    get(app, headers={"User-Agent": "me"})
    app.logger.removeFilter(add_agent)
    assert {d["agent"] for d in documents(asynclog)} == {"me"}
    failed(asynclog)


@pytest.mark.parametrize("ending", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_view_that_is_ended_from_outside(make_app: MakeApp, ending: type[BaseException]) -> None:
    """SystemExit and its like (a worker's time-out) are no answer that Flask makes; the record is there."""
    app, asynclog = make_app(format="json")

    @app.get("/")
    def view() -> str:
        raise ending("now")

    with pytest.raises(ending):
        app.test_client().get("/")
    failed(asynclog, ending.__name__, "now")


def test_an_error_handler_for_the_exception(make_app: MakeApp) -> None:
    """An exception with a handler of its own is an answer like another: its status counts."""
    app, asynclog = make_app(format="json")
    app.add_url_rule("/", "view", raise_view_error)
    app.register_error_handler(ViewError, lambda error: ("teapot", 418))
    app.test_client().get("/")
    document = the("Response", asynclog)
    assert document["message"].startswith("Response 418 I'M A TEAPOT GET / ")
    assert document["level"] == "WARNING"
    assert "error.type" not in document


def test_an_abort_that_is_signalled_as_an_exception(make_app: MakeApp) -> None:
    """As Flask-RESTful does for each ``abort()``: the level is that of the status, and the record names no error."""
    app, asynclog = make_app(format="json", sample_rate=0.0)
    app.add_url_rule("/<int:code>", "view", abort)
    app.add_url_rule("/own", "own", lambda: abort(Response("no", 403)))

    @app.errorhandler(HTTPException)
    def handle(error: HTTPException) -> HTTPException:
        got_request_exception.send(app, exception=error)
        return error

    assert app.test_client().get("/404").status_code == 404
    assert app.test_client().get("/own").status_code == 403
    assert logged(asynclog) == []  # one of the many that the sample leaves out
    assert app.test_client().get("/501").status_code == 501
    assert the("Response", asynclog)["error.type"] == "NotImplemented"
    app, asynclog = make_app(format="json", filename="all.log")
    app.register_error_handler(HTTPException, handle)
    assert app.test_client().get("/404").status_code == 404
    assert asynclog.flush(HANG)
    response = json.loads(log_lines(Path("all.log"))[-1])
    assert (response["http.response.status_code"], response["level"]) == (404, "WARNING")
    assert "error.type" not in response
    assert "NotFound" not in response["message"]


@pytest.mark.parametrize("testing", [False, True])
def test_an_abort_in_an_error_handler(make_app: MakeApp, testing: bool) -> None:
    """Flask makes a 500 of it, and the record names it as it does any exception."""
    app, asynclog = make_app(format="json")
    app.testing = testing
    app.add_url_rule("/", "view", raise_view_error)
    app.register_error_handler(ViewError, lambda error: abort(404, "not here"))
    get(app)
    failed(asynclog, "NotFound", "404 Not Found: not here")


def test_an_error_handler_for_500(make_app: MakeApp) -> None:
    """With a page of the app's own for unhandled exceptions, the record still names the exception."""
    app, asynclog = make_app(format="json")
    app.add_url_rule("/", "view", raise_view_error)
    app.register_error_handler(500, lambda error: ("sorry", 500))
    assert app.test_client().get("/").data == b"sorry"
    assert failed(asynclog)["http.response.body.size"] == 5


@pytest.mark.parametrize("testing", [False, True])
def test_an_error_handler_that_raises(make_app: MakeApp, testing: bool) -> None:
    """A handler that fails itself makes a 500 with its own exception."""
    app, asynclog = make_app(format="json")
    app.testing = testing
    app.add_url_rule("/", "view", raise_view_error)

    @app.errorhandler(ViewError)
    def handler(error: ViewError) -> ResponseReturnValue:
        raise LookupError("in the handler")

    get(app)
    failed(asynclog, "LookupError", "in the handler")


@pytest.mark.parametrize("testing", [False, True])
def test_an_error_handler_for_500_that_raises(make_app: MakeApp, testing: bool) -> None:
    """Then Flask has no answer left, the exception leaves the app; the record is there, once."""
    app, asynclog = make_app(format="json")
    app.testing = testing
    app.add_url_rule("/", "view", raise_view_error)

    @app.errorhandler(500)
    def handler(error: Exception) -> ResponseReturnValue:
        raise LookupError("in the handler")

    assert get(app) is None
    failed(asynclog)


@pytest.mark.parametrize("testing", [False, True])
@pytest.mark.parametrize("registered", ["before", "after"])
def test_another_after_request_that_raises(init: Init, registered: str, testing: bool) -> None:
    """An after_request function that raises makes a 500, whatever the view answered."""
    app = Flask("after_request_raises")
    app.testing = testing
    app.add_url_rule("/", "view", lambda: "x")

    def fail(response: Response) -> Response:
        raise ViewError("no such luck")

    if registered == "before":
        app.after_request(fail)
    asynclog = init(app)
    if registered == "after":
        app.after_request(fail)
    get(app)
    failed(asynclog)


def test_another_after_request_that_returns_nothing(make_app: MakeApp, capsys: pytest.CaptureFixture[str]) -> None:
    """``return response`` forgotten: Flask fails after all hooks; the request has its response record nevertheless."""
    app, asynclog = make_app(format="json")
    app.add_url_rule("/", "view", lambda: "x")
    app.after_request(lambda response: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(TypeError):
        app.test_client().get("/")
    capsys.readouterr()
    assert the("Response", asynclog)["http.response.status_code"] == 500


@pytest.mark.parametrize("testing", [False, True])
def test_a_session_that_cannot_be_saved(make_app: MakeApp, testing: bool) -> None:
    """Flask saves the session after all after_request functions: the client gets a 500, so the record says 500."""
    app, asynclog = make_app(format="json")
    app.testing = testing
    app.secret_key = "x"

    @app.get("/")
    def view() -> str:
        session["key"] = object()
        return "x"

    response = get(app)
    assert response is None or response.status_code == 500
    assert the("Response", asynclog)["http.response.status_code"] == 500


@pytest.mark.parametrize("raises", [False, True], ids=["view answers", "view raises"])
@pytest.mark.parametrize("testing", [False, True], ids=["production", "testing"])
@pytest.mark.parametrize("registered", ["before", "after", "blueprint"])
def test_another_teardown_that_raises(init: Init, registered: str, testing: bool, raises: bool) -> None:
    """Neither the response record nor the end of the request id is lost; what came after the response has a record."""
    app = Flask("teardown_raises")
    app.testing = testing

    failures: list[BaseException | None] = []

    def fail(error: BaseException | None) -> None:
        failures.append(error)
        raise ArithmeticError("in teardown")

    if registered == "before":
        app.teardown_request(fail)
    asynclog = init(app)
    if registered == "after":
        app.teardown_request(fail)
    blueprint = Blueprint("blueprint", __name__)
    if registered == "blueprint":
        blueprint.teardown_request(fail)
    blueprint.add_url_rule("/", "view", raise_view_error if raises else lambda: "x")
    app.register_blueprint(blueprint)
    assert get(app) is None
    assert len(failures) == 1
    leaked = context.current.get()
    context.current.set(None)
    if raises:
        failed(asynclog)
    else:
        assert the("Response", asynclog)["http.response.status_code"] == 200
    found = [d for d in documents(asynclog) if d["message"].endswith(LATE)]
    if raises and testing:  # then there was no response before it
        assert found == []
    else:
        (late,) = found
        assert late == documents(asynclog)[-1]
        assert (late["message"], late["level"], late["logger"]) == (f"Exception on / [GET]{LATE}", "ERROR", app.name)
        assert late["request_id"] == the("Response", asynclog)["request_id"]
        assert (late["exception.type"], late["exception.message"]) == ("ArithmeticError", "in teardown")
        assert "in fail" in late["exception.stacktrace"]
    assert leaked is None


def call_by_a_generator(app: Flask) -> None:
    """As some middlewares do: the app runs when the server asks for the body."""
    inner = app.wsgi_app

    def late(environ: Any, start_response: Any) -> Iterator[bytes]:
        yield from inner(environ, start_response)

    app.wsgi_app = late  # type: ignore[method-assign,assignment]


#: How the message ends of an exception that comes when the response is logged.
LATE = ", raised after its response was handed over"


def test_a_teardown_that_raises_in_an_app_called_by_a_generator(init: Init) -> None:
    """The same where the app runs when the server asks for the body; an exception of the view is logged once."""
    app = Flask("generator_teardown")
    call_by_a_generator(app)
    app.add_url_rule("/", "view", lambda: "x")
    app.add_url_rule("/broken", "broken", raise_view_error)

    @app.teardown_request
    def fail(error: BaseException | None) -> None:
        if request.path == "/":
            raise ArithmeticError("in teardown")

    asynclog = init(app)
    with pytest.raises(ArithmeticError):
        serve(app, "/")
    assert the("Response", asynclog)["http.response.status_code"] == 200
    assert "error.type" not in the("Response", asynclog)
    assert [m.split()[0] for m in messages(asynclog)] == ["Request", "Response", "Exception"]
    assert "in teardown" in documents(asynclog)[-1]["exception.stacktrace"]
    assert len({d["request_id"] for d in documents(asynclog)}) == 1
    serve(app, "/broken")
    # The exception on the way is Flask's own record.
    assert [m.split()[0] for m in messages(asynclog)[3:]] == ["Request", "Exception", "Response"]
    assert not documents(asynclog)[-2]["message"].endswith(LATE)


@pytest.mark.parametrize("options", [{"exclude_paths": ["/"]}, {"request_events": ["request"]}])
def test_a_late_exception_where_responses_are_not_wanted(make_app: MakeApp, options: dict[str, Any]) -> None:
    """No record of responses, none of what has become of them."""
    app, asynclog = make_app(format="json", **options)
    app.add_url_rule("/", "view", lambda: "x")
    app.teardown_request(lambda error: raise_view_error())  # type: ignore[arg-type,return-value]
    assert get(app) is None
    assert {m.split()[0] for m in messages(asynclog)} <= {"Request"}


def test_a_late_exception_outside_of_the_sample(make_alone: MakeApp) -> None:
    """It has failed, so its record is there; in it the path has no secrets."""
    app, asynclog = make_alone(format="json", sample_rate=0.0, redact_patterns=["sesame"])
    app.add_url_rule("/<name>", "view", lambda name: "x")
    app.teardown_request(lambda error: raise_view_error())  # type: ignore[arg-type,return-value]
    assert get(app, "/open-sesame") is None
    (late,) = documents(asynclog)
    assert late["message"] == f"Exception on /open-[REDACTED] [GET]{LATE}"
    assert late["exception.type"] == "ViewError"


def test_a_thread_of_the_request_that_raises(make_app: MakeApp) -> None:
    """An error in a copy of the request's context, on another thread, is not the end of the request."""
    app, asynclog = make_app(format="json")

    @app.get("/")
    def view() -> str:
        copied = copy_current_request_context(raise_view_error)

        def work() -> None:
            with contextlib.suppress(ViewError):
                copied()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return "x"

    assert app.test_client().get("/").status_code == 200
    assert the("Response", asynclog)["http.response.status_code"] == 200


def test_a_request_preprocessed_by_hand(make_app: MakeApp) -> None:
    """``app.preprocess_request()`` in a user's test: begun as a request is, with an id until its context ends."""
    app, asynclog = make_app(format="json")
    with app.test_request_context("/x"):
        app.preprocess_request()
        request_id = context.request_id()
        app.logger.info("inside")
    assert context.request_id() is None
    assert messages(asynclog) == ["Request GET http://localhost/x", "inside"]
    assert {d["request_id"] for d in documents(asynclog)} == {request_id}


def test_contexts_pushed_by_hand_are_no_requests(make_app: MakeApp) -> None:
    """App and request contexts in scripts and tests make no records, and leave no request id."""
    app, asynclog = make_app()
    with app.app_context(), app.test_request_context("/x"):
        pass
    with contextlib.suppress(ViewError), app.app_context():
        raise ViewError
    assert logged(asynclog) == []
    assert context.request_id() is None


# The response is returned as it came.


@pytest.fixture
def finished() -> Iterator[list[Response]]:
    """The response objects as Flask hands them to the server."""
    seen: list[Response] = []

    def receive(sender: Flask, response: Response) -> None:
        seen.append(response)

    request_finished.connect(receive)
    yield seen
    request_finished.disconnect(receive)


def test_the_response_object_is_the_views(make_app: MakeApp, finished: list[Response]) -> None:
    """Not a copy: the same object, its body and headers as they were; the request id is added for the client only."""
    app, asynclog = make_app()
    made = Response([b"a", b"b"], 202, {"X-Mine": "1"}, mimetype="text/x-own")
    body = made.response
    before = dict(made.headers)
    app.add_url_rule("/", "view", lambda: made)
    answer = app.test_client().get("/")
    assert finished == [made]
    assert finished[0] is made
    assert made.response is body
    assert dict(made.headers) == before
    assert len(answer.headers["X-Request-ID"]) == 32
    assert " 2B id=" in logged(asynclog)[1]


def test_a_generator_is_not_consumed(make_app: MakeApp, finished: list[Response]) -> None:
    """A streamed body reaches the server as it was made; what was sent of it is logged at its end."""
    app, asynclog = make_app(format="json")
    produced: list[int] = []

    def generate() -> Iterator[bytes]:
        for number in range(3):
            produced.append(number)
            yield b"%d" % number

    bodies = [generate()]
    app.add_url_rule("/", "view", lambda: Response(bodies[0]))
    produced_when_finished: list[int] = []

    def receive(sender: Flask, response: Response) -> None:
        produced_when_finished.append(len(produced))

    with request_finished.connected_to(receive, app):
        response = app.test_client().get("/")
    assert finished[0].response is bodies[0]
    assert produced_when_finished == [0]
    assert response.data == b"012"
    assert the("Response", asynclog)["http.response.body.size"] == 3


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("kind", ["path", "object"])
def test_a_file_is_not_read(make_app: MakeApp, finished: list[Response], method: str, kind: str) -> None:
    """`send_file` passes through; what was sent of it is logged at its end."""
    app, asynclog = make_app(format="json")
    Path("page.txt").write_bytes(b"0123456789")
    opened: list[io.BytesIO] = []

    @app.get("/")
    def view() -> Response:
        if kind == "path":
            return send_file(Path("page.txt").absolute())
        opened.append(io.BytesIO(b"0123456789"))
        return send_file(opened[0], mimetype="text/plain")

    positions: list[int] = []

    def receive(sender: Flask, response: Response) -> None:
        positions.extend(file.tell() for file in opened)
        assert response.direct_passthrough

    with request_finished.connected_to(receive, app), app.test_client().open("/", method=method) as response:
        assert response.data == (b"0123456789" if method == "GET" else b"")
    assert positions in ([], [0])
    assert len(finished) == 1
    assert the("Response", asynclog)["http.response.body.size"] == (10 if method == "GET" else 0)


# Request ids.


def test_each_request_has_an_id_of_its_own(make_app: MakeApp) -> None:
    """Echoed on the response, and in all records of the request, and in no others."""
    app, asynclog = make_app(format="json")
    app.add_url_rule("/", "view", lambda: app.logger.info("in the view") or "x")
    client = app.test_client()
    first, second = client.get("/").headers["X-Request-ID"], client.get("/").headers["X-Request-ID"]
    app.logger.info("outside")
    assert first != second
    assert [d.get("request_id") for d in documents(asynclog)] == [first] * 3 + [second] * 3 + [None]


def test_a_clients_id_is_not_believed_by_default(make_app: MakeApp) -> None:
    """A client could forge another's id otherwise."""
    app, asynclog = make_app(format="json")
    response = app.test_client().get("/", headers={"X-Request-ID": "client-1"})
    assert response.headers["X-Request-ID"] != "client-1"
    assert "client-1" not in json.dumps(documents(asynclog))


@pytest.mark.parametrize("claim", ["a", "Az09._-", "x" * 128])
def test_a_clients_id_is_taken_when_trusted(make_app: MakeApp, claim: str) -> None:
    """With ``TRUST_REQUEST_ID`` a well-formed id goes from the proxy through all records to the response."""
    app, asynclog = make_app(format="json", trust_request_id=True)
    response = app.test_client().get("/", headers={"X-Request-ID": claim})
    assert response.headers["X-Request-ID"] == claim
    assert [d["request_id"] for d in documents(asynclog)] == [claim, claim]


@pytest.mark.parametrize("claim", ["", "x" * 129, "a b", "a,b", "a\x1b[2J", "é", "a/b", "a\tb", "\u2028", "a\x85"])
def test_a_malformed_id_is_replaced(make_app: MakeApp, claim: str) -> None:
    """What is too long or holds other characters is not taken, even from who is trusted."""
    app, asynclog = make_app(format="json", trust_request_id=True)
    # As a server passes it on: the bytes of the header, decoded as Latin-1 (PEP 3333).
    value = claim.encode().decode("latin-1")
    response = app.test_client().get("/", environ_overrides={"HTTP_X_REQUEST_ID": value})
    request_id = response.headers["X-Request-ID"]
    assert len(request_id) == 32
    assert request_id.isalnum()
    assert {d["request_id"] for d in documents(asynclog)} == {request_id}


def test_another_header_name(make_app: MakeApp) -> None:
    """``REQUEST_ID_HEADER`` names the header that is read and written."""
    app, asynclog = make_app(request_id_header="X-Correlation-Id", trust_request_id=True)
    response = app.test_client().get("/", headers={"X-Correlation-ID": "abc", "X-Request-ID": "def"})
    assert response.headers["X-Correlation-Id"] == "abc"
    assert "X-Request-ID" not in response.headers
    assert [line.endswith(" id=abc") for line in logged(asynclog)] == [True, True]


def test_no_header_no_ids(make_app: MakeApp) -> None:
    """``REQUEST_ID_HEADER = None`` switches request ids off everywhere."""
    app, asynclog = make_app(format="json", request_id_header=None, trust_request_id=True)
    response = app.test_client().get("/", headers={"X-Request-ID": "abc"})
    assert "X-Request-ID" not in response.headers
    for document in documents(asynclog):
        assert "request_id" not in document
        assert "id=" not in document["message"]


def test_a_views_own_header_stays(make_app: MakeApp) -> None:
    """A view that answers with a request id of its own keeps it."""
    app, asynclog = make_app()
    app.add_url_rule("/", "view", lambda: ("x", {"X-Request-ID": "mine"}))
    assert app.test_client().get("/").headers.getlist("X-Request-ID") == ["mine"]
    assert len(logged(asynclog)) == 2


def test_nested_requests_restore_the_outer_id(make_app: MakeApp) -> None:
    """A request made inside a request, to the same app or another, has its own id; the outer one goes on after it."""
    app, asynclog = make_app(format="json")
    other, _ = make_app("other", format="json")
    seen: dict[str, str | None] = {}

    @app.get("/outer")
    def outer() -> str:
        seen["before"] = context.request_id()
        seen["inner"] = app.test_client().get("/inner").headers["X-Request-ID"]
        seen["between"] = context.request_id()
        seen["other"] = other.test_client().get("/").headers["X-Request-ID"]
        seen["after"] = context.request_id()
        return "x"

    app.add_url_rule("/inner", "inner", lambda: "y")
    seen["outer"] = app.test_client().get("/outer").headers["X-Request-ID"]
    assert seen["before"] == seen["between"] == seen["after"] == seen["outer"]
    assert len({seen["inner"], seen["other"], seen["outer"]}) == 3
    ids = [seen[name] for name in ("outer", "inner", "inner", "other", "other", "outer")]
    assert [d["request_id"] for d in documents(asynclog)] == ids
    assert context.request_id() is None


def test_a_failed_nested_request_restores_the_outer_id(make_app: MakeApp) -> None:
    """Also when the inner one ends by an exception that leaves its app."""
    app, asynclog = make_app(format="json")
    app.testing = True
    app.add_url_rule("/inner", "inner", raise_view_error)

    @app.get("/outer")
    def outer() -> str:
        before = context.request_id()
        assert get(app, "/inner") is None
        assert context.request_id() == before
        return "x"

    assert app.test_client().get("/outer").data == b"x"
    assert len(documents(asynclog)) == 4
    assert context.request_id() is None


@pytest.mark.parametrize("raises", [False, True])
def test_the_id_lasts_through_teardown_and_no_longer(init: Init, raises: bool) -> None:
    """What teardown functions log has the request's id, wherever they are registered; the next record has none."""
    app = Flask("id_in_teardown")
    app.testing = True
    app.teardown_request(lambda error: app.logger.info("t1"))
    asynclog = init(app)
    app.teardown_request(lambda error: app.logger.info("t2"))
    app.add_url_rule("/", "view", raise_view_error if raises else lambda: "x")
    get(app)
    app.logger.info("outside")
    found = documents(asynclog)
    *inside, outside = [d.get("request_id") for d in found]
    assert {d["message"] for d in found} >= {"t1", "t2"}
    assert len(inside) == 4
    assert inside == [inside[0]] * 4
    assert inside[0] is not None
    assert outside is None


def test_a_client_that_keeps_its_context(make_app: MakeApp) -> None:
    """``with app.test_client()`` pushes the request's context again, and tears it down again: no record for that."""
    app, asynclog = make_app(format="json")
    with contextlib.suppress(ViewError), app.test_client() as client:
        first = client.get("/").headers["X-Request-ID"]
        second = client.get("/").headers["X-Request-ID"]
        raise ViewError("of the test, not of the request")
    assert context.request_id() is None
    assert [d["request_id"] for d in documents(asynclog)] == [first, first, second, second]


def test_requests_on_many_threads_keep_their_ids_apart(make_app: MakeApp) -> None:
    """Each line of 400 requests on 8 threads has the id of its own request; each request has exactly two."""
    app, asynclog = make_app(format="json", trust_request_id=True)
    app.add_url_rule("/<n>", "view", lambda n: app.logger.info("view %s", n) or n)

    def work(n: int) -> None:
        app.test_client().get(f"/{n}", headers={"X-Request-ID": f"id-{n}"})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(400)))
    kinds: dict[str, list[str]] = {}
    for document in documents(asynclog):
        number = document["request_id"].removeprefix("id-")
        kind = document["message"].split()[0]
        assert document.get("url.path", f"/{number}") == f"/{number}"
        assert kind != "view" or document["message"] == f"view {number}"
        kinds.setdefault(number, []).append(kind)
    assert kinds == {str(n): ["Request", "view", "Response"] for n in range(400)}


# Loggers.


def test_the_level_of_the_apps_logger_counts(make_app: MakeApp) -> None:
    """``app.logger.setLevel("WARNING")`` silences the ordinary request records, not those of failed requests."""
    app, asynclog = make_app(format="json")
    app.logger.setLevel("WARNING")
    app.add_url_rule("/", "view", lambda: "x")
    app.add_url_rule("/broken", "broken", raise_view_error)
    app.test_client().get("/")
    assert documents(asynclog) == []
    app.test_client().get("/broken")
    assert messages(asynclog) == ["Exception on /broken", "Response 500 INTERNAL"]
    app.logger.setLevel(logging.NOTSET)


def test_filters_and_handlers_of_the_apps_logger_count(make_app: MakeApp) -> None:
    """A filter of `app.logger` sees, changes and refuses request records; its other handlers get them too."""
    app, asynclog = make_app(format="json")
    stream = io.StringIO()
    other = logging.StreamHandler(stream)

    def tag(record: logging.LogRecord) -> bool:
        record.tenant = "acme"
        return not record.getMessage().startswith("Request ")

    app.logger.addFilter(tag)
    app.logger.addHandler(other)
    app.test_client().get("/nowhere")
    app.logger.removeHandler(other)
    app.logger.removeFilter(tag)
    (document,) = documents(asynclog)
    assert document["tenant"] == "acme"
    assert stream.getvalue() == document["message"] + "\n"
    assert document["message"].startswith("Response 404 NOT FOUND")


@pytest.mark.parametrize("name", ["access", "app.requests", ""])
def test_another_logger_for_request_records(make_app: MakeApp, name: str) -> None:
    """``REQUEST_LOGGER`` names the logger of the request records; the app's own records stay with `app.logger`."""
    app, asynclog = make_app(format="json", request_logger=name)
    app.add_url_rule("/", "view", lambda: app.logger.info("in the view") or "x")
    app.test_client().get("/")
    expected = name or "root"
    assert [d["logger"] for d in documents(asynclog)] == [expected, app.name, expected]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (("request", "response"), ["Request", "Response"]),
        (("response",), ["Response"]),
        (["request"], ["Request"]),
        ((), []),
        ("", []),
        ("request, response", ["Request", "Response"]),
    ],
)
@pytest.mark.parametrize("fails", [False, True], ids=["answers", "raises"])
def test_which_request_records_are_made(make_app: MakeApp, events: object, expected: list[str], fails: bool) -> None:
    """``REQUEST_EVENTS`` chooses; request ids are there in every case."""
    app, asynclog = make_app(request_events=events)
    app.testing = True
    app.add_url_rule("/", "view", raise_view_error if fails else lambda: "x")
    response = get(app)
    assert [line.split(" - INFO - ")[-1].split(" - ERROR - ")[-1].split()[0] for line in logged(asynclog)] == expected
    assert response is None or len(response.headers["X-Request-ID"]) == 32


# The hooks never break a request.


def test_a_failure_inside_the_hooks_breaks_no_request(make_app: MakeApp, capsys: pytest.CaptureFixture[str]) -> None:
    """Each failing hook is said once on stderr, in one line; every request gets its answer."""

    class FilterError(Exception):
        pass

    def broken(record: logging.LogRecord) -> bool:
        raise FilterError("in\nthe filter")

    app, asynclog = make_app()
    app.add_url_rule("/", "view", lambda: "x")
    app.logger.addFilter(broken)
    for _ in range(3):
        response = app.test_client().get("/")
        assert response.data == b"x"
        assert "X-Request-ID" in response.headers
    app.logger.removeFilter(broken)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert "() failed: FilterError: in the filter" in said[0]
    assert "() failed: FilterError: in the filter" in said[1]
    assert logged(asynclog) == []
    assert context.request_id() is None


def test_a_failure_inside_the_teardown_hook(make_app: MakeApp, capsys: pytest.CaptureFixture[str]) -> None:
    """The view's exception arrives at the caller as it was."""

    class TeardownFilterError(Exception):
        pass

    def broken(record: logging.LogRecord) -> bool:
        raise TeardownFilterError("x")

    app, _ = make_app()
    app.testing = True
    app.add_url_rule("/", "view", raise_view_error)
    app.logger.addFilter(broken)
    with pytest.raises(ViewError):
        app.test_client().get("/")
    app.logger.removeFilter(broken)
    assert "() failed: TeardownFilterError: x" in capsys.readouterr().err
    assert context.request_id() is None


# An environ that comes back.


def test_a_request_made_with_the_environ_of_the_one_around_it(make_app: MakeApp) -> None:
    """Both have both records, each with its own id, path and status; the outer one goes on as before."""
    app, asynclog = make_app(format="json")

    @app.get("/outer")
    def outer() -> str:
        return str(app.test_client().get("/missing", environ_base=request.environ).status_code)

    assert app.test_client().get("/outer").data == b"404"
    assert [(d["message"].split()[0], d["url.path"]) for d in documents(asynclog)] == [
        ("Request", "/outer"),
        ("Request", "/missing"),
        ("Response", "/missing"),
        ("Response", "/outer"),
    ]
    one, two, three, four = (d["request_id"] for d in documents(asynclog))
    assert one == four != two == three


def test_a_middleware_that_calls_the_app_twice(make_app: MakeApp) -> None:
    """A second try with the same environ is a request of its own."""
    app, asynclog = make_app(format="json")
    app.add_url_rule("/", "view", lambda: "x")
    inner = app.wsgi_app

    def retrying(environ: Any, start_response: Any) -> Any:
        list(inner(environ, lambda *_: None))
        return inner(environ, start_response)

    app.wsgi_app = retrying  # type: ignore[method-assign]
    assert app.test_client().get("/").status_code == 200
    assert [m.split()[0] for m in messages(asynclog)] == ["Request", "Response"] * 2
    assert len({d["request_id"] for d in documents(asynclog)}) == 2


# Other WSGI apps and servers.


def serve(app: Flask, path: str, start_response: Any = None, **environ: str) -> list[tuple[Any, list[Any]]]:
    """What the server is told of a GET request, by no more of a server than is needed."""
    told: list[tuple[Any, list[Any]]] = []

    def start(status: Any, headers: Any, exc_info: Any = None) -> None:
        told.append((status, headers))

    request_environ = EnvironBuilder(path=path).get_environ() | environ
    list(app.wsgi_app(request_environ, start_response or start))
    return told


def answering(app: Flask, status: Any, headers: Any) -> None:
    """Put another WSGI app in front of Flask's."""

    def answer(environ: Any, start_response: Any) -> list[bytes]:
        start_response(status, headers)
        return [b"x"]

    app.wsgi_app = answer  # type: ignore[method-assign]


@pytest.mark.parametrize("kind", [list, tuple, iter])
def test_headers_that_are_no_list(init: Init, kind: Callable[[Any], Any]) -> None:
    """The server gets all of them, and the request id."""
    app = Flask("headers")
    answering(app, "200 OK", kind([("Content-Type", "text/plain"), ("Content-Length", "1")]))
    asynclog = init(app)
    ((status, headers),) = serve(app, "/")
    assert (status, headers[:2]) == ("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "1")])
    assert headers[2:] == [("X-Request-ID", the("Response", asynclog)["request_id"])]
    assert the("Response", asynclog)["http.response.body.size"] == 1


def test_headers_that_serve_every_response(init: Init) -> None:
    """A list that the app uses again is not added to: each response has its own id."""
    app = Flask("headers")
    headers = [("Content-Type", "text/plain")]
    answering(app, "200 OK", headers)
    asynclog = init(app)
    ids = [dict(told)["X-Request-ID"] for _ in range(2) for _, told in serve(app, "/")]
    assert headers == [("Content-Type", "text/plain")]
    assert [d["request_id"] for d in documents(asynclog)] == [ids[0], ids[0], ids[1], ids[1]]


def test_header_names_in_small_letters(make_app: MakeApp) -> None:
    """Mean the same."""
    app, asynclog = make_app(format="json")
    app.add_url_rule("/", "view", lambda: Response("abc", headers={"content-length": "3", "x-request-id": "mine"}))
    assert app.test_client().get("/").headers.getlist("X-Request-ID") == ["mine"]
    assert the("Response", asynclog)["http.response.body.size"] == 3


@pytest.mark.parametrize(
    ("status", "code"), [("teapot", 0), ("200", 200), ("", 0), (b"200 OK", 200), ("99 odd", 99), ("204", 204)]
)
@pytest.mark.parametrize("size", [None, "1", 1, "one"])
def test_odd_statuses_and_sizes(init: Init, status: Any, code: int, size: Any) -> None:
    """What another app gives is logged as well as can be."""
    app = Flask("odd")
    answering(app, status, [] if size is None else [("Content-Length", size)])
    asynclog = init(app)
    assert serve(app, "/")[0][0] == status
    response = the("Response", asynclog)
    assert response["http.response.status_code"] == code
    # What was sent, whatever the header says; a 204 has no body for any client.
    assert response["http.response.body.size"] == (0 if code == 204 else 1)
    shown = status.decode() if isinstance(status, bytes) else status
    assert response["message"].startswith(f"Response {shown} GET / ")


def test_a_views_status_without_a_number(make_app: MakeApp) -> None:
    """Werkzeug makes ``0 …`` of it."""
    app, asynclog = make_app(format="json")
    app.add_url_rule("/", "view", lambda: ("x", "teapot"))
    app.test_client().get("/")
    assert the("Response", asynclog)["http.response.status_code"] == 0


def test_a_server_that_refuses_the_headers(make_app: MakeApp) -> None:
    """As gunicorn does where a name or a value is none: what the client gets is its 500, and so it is logged, once."""
    app, asynclog = make_app(format="json")
    app.add_url_rule("/", "view", lambda: ("x", {"no name": "x"}))

    def refuse(*_: object) -> None:
        raise ViewError("invalid header")

    with pytest.raises(ViewError):
        serve(app, "/", refuse)
    response = the("Response", asynclog)
    assert (response["http.response.status_code"], response["level"]) == (500, "ERROR")
    assert "invalid header" in response["exception.stacktrace"]


def test_the_servers_write_is_handed_on(init: Init) -> None:
    """``start_response`` returns what the server's does."""
    app = Flask("write")
    written: list[bytes] = []

    def writing(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])(b"x")
        return []

    app.wsgi_app = writing  # type: ignore[method-assign]
    asynclog = init(app)
    serve(app, "/", lambda *_: written.append)
    assert written == [b"x"]
    assert messages(asynclog) == ["Request GET http://localhost/", "Response 200 OK"]


@pytest.mark.parametrize("ends", ["returns", "raises"])
def test_a_websocket_within_the_request(make_app: MakeApp, ends: str) -> None:
    """Flask-Sock serves it in the view, and tells the server, each in its way, that there is no response to send."""

    class WebSocketResponse(Response):
        def __call__(self, *_: object) -> Any:
            if ends == "raises":
                raise StopIteration  # for gunicorn
            return []

    app, asynclog = make_app(format="json")
    app.add_url_rule("/ws", "ws", WebSocketResponse)
    app.add_url_rule("/broken", "broken", raise_view_error)
    with contextlib.suppress(StopIteration):
        serve(app, "/ws", HTTP_UPGRADE="WebSocket")
    response = the("Response", asynclog)
    assert response["message"].startswith("Response 101 SWITCHING PROTOCOLS GET /ws ")
    assert (response["level"], response.get("exception.type")) == ("INFO", None)
    serve(app, "/broken", HTTP_UPGRADE="websocket")
    assert messages(asynclog)[-1] == "Response 500 INTERNAL"


@pytest.mark.parametrize("ends", ["returns", "raises"])
def test_a_websocket_in_front_of_the_app(init: Init, ends: str) -> None:
    """Flask-SocketIO serves it without coming to Flask; what is no WebSocket goes on to the app."""
    app = Flask("socketio")
    inner = app.wsgi_app

    def middleware(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] != "/socket.io/":
            return inner(environ, start_response)
        if ends == "raises":
            raise StopIteration  # for gunicorn
        return []

    app.wsgi_app = middleware  # type: ignore[method-assign]
    asynclog = init(app)
    with contextlib.suppress(StopIteration):
        serve(app, "/socket.io/", HTTP_UPGRADE="websocket")
    first, second = documents(asynclog)
    assert first["message"].startswith("Request GET http://localhost/socket.io/ id=")
    assert second["message"].startswith("Response 101 SWITCHING PROTOCOLS GET /socket.io/ ")
    assert (second["level"], second.get("exception.type")) == ("INFO", None)
    assert first["request_id"] == second["request_id"]
    serve(app, "/missing", HTTP_UPGRADE="websocket")
    assert messages(asynclog)[-1] == "Response 404 NOT"


@pytest.mark.parametrize("upgrade", ["h2c", "websocket"])
def test_an_upgrade_that_is_not_made(init: Init, upgrade: str) -> None:
    """A client may ask for one: an app called by a generator, later, answers it as any request."""
    app = Flask("generator")
    call_by_a_generator(app)
    asynclog = init(app)
    serve(app, "/missing", HTTP_UPGRADE=upgrade)
    assert messages(asynclog) == ["Request GET http://localhost/missing", "Response 404 NOT"]


def test_an_app_called_by_a_generator(init: Init) -> None:
    """Some middlewares are generators: the app is called when the server asks for the body. Once each, with one id."""
    app = Flask("generator")
    call_by_a_generator(app)

    @app.get("/")
    def view() -> str:
        app.logger.info("in the view")
        return "x"

    app.add_url_rule("/broken", "broken", raise_view_error)
    asynclog = init(app)
    for _ in range(2):
        ((_, headers),) = serve(app, "/")
        assert context.request_id() is None
    assert [m.split()[0] for m in messages(asynclog)] == ["Request", "in", "Response"] * 2
    ids = [d["request_id"] for d in documents(asynclog)]
    assert ids == 3 * ids[:1] + 3 * ids[3:4]
    assert ids[-1] == dict(headers)["X-Request-ID"] != ids[0]

    app.testing = True
    with pytest.raises(ViewError):
        serve(app, "/broken")
    assert context.request_id() is None
    assert [" ".join(m.split()[:2]) for m in messages(asynclog)[-2:]] == ["Request GET", "Response 500"]
    assert "ViewError: no such luck" in documents(asynclog)[-1]["exception.stacktrace"]


def test_a_generator_that_raises_before_it_calls_the_app(init: Init) -> None:
    """The request did not come to Flask: it has both records all the same, with its path, its id and the traceback."""
    app = Flask("generator_raises")

    def fails(environ: Any, start_response: Any) -> Iterator[bytes]:
        raise_view_error()
        yield b""

    app.wsgi_app = fails  # type: ignore[method-assign,assignment]
    asynclog = init(app)
    with pytest.raises(ViewError):
        serve(app, "/")
    assert context.request_id() is None
    assert "raise_view_error" in failed(asynclog)["exception.stacktrace"]
    assert len(documents(asynclog)) == 2


def test_a_request_preprocessed_twice_by_hand(make_app: MakeApp) -> None:
    """As by ``full_dispatch_request`` the second time; nothing of it is left behind its context, nor kept alive."""
    app, asynclog = make_app(format="json")
    app.add_url_rule("/x", "view", lambda: "x")
    with app.test_request_context("/outer"):
        app.preprocess_request()
        outer_id = context.request_id()
        with app.test_request_context("/x") as pushed:
            app.preprocess_request()
            app.full_dispatch_request()
            kept = weakref.ref(pushed.request)
            assert context.request_id() != outer_id
        assert context.request_id() == outer_id
    assert context.request_id() is None
    assert [d["url.path"] for d in documents(asynclog)] == ["/outer", "/x", "/x"]
    del pushed
    assert kept() is None
