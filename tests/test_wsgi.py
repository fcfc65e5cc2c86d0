"""`AsyncLog` among others that speak WSGI: apps that do not answer as Flask does, middlewares, nested apps."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, abort, redirect, request
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import create_environ

from bare_server import BodyError, Server, WSGIApp, documents, outcome, streaming, summary, three
from flask_asynclog import AsyncLog
from support import HANG, log_lines

MakeApp = Callable[..., tuple[Flask, AsyncLog]]


pytestmark = pytest.mark.usefixtures("context_detector")


def middleware(app: Flask, wrap: Callable[[WSGIApp], WSGIApp]) -> None:
    """Put one around the app, or inside of `AsyncLog` if that is still to come."""
    app.wsgi_app = wrap(app.wsgi_app)  # type: ignore[method-assign]


def test_a_middleware_that_answers_when_it_is_asked(make_app: MakeApp) -> None:
    """PEP 3333 lets a generator call ``start_response`` at its first part: the app runs in it, as a request."""
    app = Flask("lazy")
    app.add_url_rule("/", "view", lambda: app.logger.info("view") or "x")
    streaming_app = Flask("lazy_stream")
    streaming(streaming_app, three)

    def lazy(inner: WSGIApp) -> WSGIApp:
        def generate(environ: Any, start_response: Any) -> Iterator[bytes]:
            yield from inner(environ, start_response)

        return generate

    for each, size in ((app, 1), (streaming_app, 6)):
        middleware(each, lazy)
        asynclog = AsyncLog(each, format="json", filename=f"{each.name}.log", flush_interval=0.01)
        server = Server(each)
        assert server.status == ""
        server.finish()
        asynclog.close()
        found = [json.loads(line) for line in log_lines(Path(f"{each.name}.log"))]
        assert {d["request_id"] for d in found} == {server.headers["X-Request-ID"]}
        assert [d["message"].split()[0] for d in found if d["message"] != "view"] == ["Request", "Response"]
        assert summary(found[-1]) == (200, size, False, "INFO")


def bare(app: Flask, inner: WSGIApp, **options: Any) -> AsyncLog:
    """`AsyncLog` around a middleware that answers by itself."""
    middleware(app, lambda _: inner)
    return AsyncLog(app, format="json", flush_interval=0.01, **options)


def test_a_second_start_response() -> None:
    """An error page in the place of a response counts as long as nothing was sent of that."""

    def answer(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        early = environ["PATH_INFO"] == "/early"
        if not early:
            yield b"ab"
        try:
            raise BodyError("no more")
        except BodyError as error:
            start_response("503 SORRY", [], (type(error), error, None))
        yield b"sorry"

    app = Flask("second")
    asynclog = bare(app, answer)
    early = Server(app, "/early")
    assert early.finish() == b"sorry"
    with pytest.raises(BodyError):
        Server(app, "/late").finish()
    found = [d for d in documents(asynclog) if d["message"].startswith("Response ")]
    asynclog.close()
    assert [summary(d) for d in found] == [(503, 5, False, "ERROR"), (200, 2, False, "ERROR")]
    assert early.headers["X-Request-ID"] == found[0]["request_id"]
    assert "error.type" in found[1]


@pytest.mark.parametrize("rest", [[], [b"cd"], None], ids=["nothing more", "a list", "a stream"])
def test_an_app_that_writes(rest: list[bytes] | None) -> None:
    """What goes through the ``write`` of PEP 3333 was sent, too."""

    def answer(environ: Any, start_response: Any) -> Iterable[bytes]:
        write = start_response("200 OK", [])
        write(b"")
        write(b"ab")
        return three() if rest is None else rest

    app = Flask("writes")
    asynclog = bare(app, answer)
    received = Server(app).finish()
    found = outcome(asynclog)
    asynclog.close()
    assert summary(found) == (200, len(received), False, "INFO")
    assert found["http.server.time_to_first_byte"] <= found["http.server.request.duration"]


@pytest.mark.parametrize("inside", [True, False])
def test_a_middleware_that_changes_the_body(inside: bool) -> None:
    """Inside of `AsyncLog` it is what was sent; outside, the bytes are those of the app, and its end is the app's."""
    app = Flask("changes")
    streaming(app, three)

    def shout(inner: WSGIApp) -> WSGIApp:
        def generate(body: Iterable[bytes]) -> Iterator[bytes]:
            try:
                for part in body:
                    yield part + b"!!"
            finally:
                body.close()  # type: ignore[attr-defined]

        return lambda environ, start_response: generate(inner(environ, start_response))

    if inside:
        middleware(app, shout)
    asynclog = AsyncLog(app, format="json", flush_interval=0.01)
    if not inside:
        middleware(app, shout)
    assert Server(app).finish() == b"p0!!p1!!p2!!"
    Server(app).take(2).close()
    found = [d for d in documents(asynclog) if d["message"].startswith("Response ")]
    asynclog.close()
    sizes = (12, 4) if inside else (6, 2)
    assert [summary(d) for d in found] == [(200, sizes[0], False, "INFO"), (200, sizes[1], True, "INFO")]


def test_requests_in_the_midst_of_a_stream(make_app: MakeApp) -> None:
    """To the same app and another, some left unread, some in an ``except`` block: each has its own records and end."""
    app, asynclog = make_app(format="json")
    other, _ = make_app("other", format="json")
    streaming(other, three, headers={"Content-Length": "6"})
    kept: list[Server] = []

    def generate() -> Iterator[bytes]:
        app.logger.info("mine")
        try:
            raise SystemExit
        except SystemExit:
            yield other.test_client().get("/").data
            server = Server(other).take(3)
            server.close()
            kept.append(Server(other).take(1))
        app.logger.info("mine")
        yield b"x"

    app.add_url_rule("/", "view", lambda: Response(generate()))
    server = Server(app)
    assert server.finish() == b"p0p1p2x"
    kept.pop().close()
    found = documents(asynclog)
    mine = [d["message"].split()[0] for d in found if d["request_id"] == server.headers["X-Request-ID"]]
    assert mine == ["Request", "mine", "mine", "Response"]
    others = [d for d in found if d["logger"] == "other" and d["message"].startswith("Response ")]
    assert [summary(d)[1:3] for d in others] == [(6, False), (6, False), (0, True)]


@pytest.mark.parametrize("status", ["200 OK", "404 NOT FOUND", "503 X"])
def test_a_relayed_body_that_raises(make_app: MakeApp, status: str) -> None:
    """What another app sends is no page that is there already, whatever its status and its Content-Length."""
    app, asynclog = make_app(format="json")

    def upstream(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response(status, [("Content-Length", "5000")])
        yield b"x" * 20
        app.logger.info("in it")
        raise OSError("gone")

    app.add_url_rule("/", "view", lambda: Response.from_app(upstream, request.environ))
    server = Server(app)
    with pytest.raises(OSError, match="gone"):
        server.finish()
    inside, response = [d for d in documents(asynclog) if not d["message"].startswith("Request ")]
    assert inside["request_id"] == response["request_id"] == server.headers["X-Request-ID"]
    assert response["level"] == "ERROR"
    assert response["message"].startswith(f"Response {status} GET / ")
    assert response["http.response.body.size"] == 20
    assert response["exception.type"] == "OSError"


@pytest.mark.parametrize("status", [204, 301, 304, 404, 500])
def test_pages_of_flask_are_there_when_they_are_handed_over(make_app: MakeApp, status: int) -> None:
    """Errors and redirects are logged before their body is asked for."""
    app, asynclog = make_app(format="json")

    @app.get("/")
    def view() -> Any:
        if status == 301:
            return redirect("/elsewhere", 301)
        if status < 400:
            abort(Response(status=status))
        return abort(status)

    body = app.wsgi_app(create_environ("/"), lambda *_: lambda _: None)
    assert [d["http.response.status_code"] for d in documents(asynclog) if "Response" in d["message"]] == [status]
    b"".join(body)
    body.close()  # type: ignore[attr-defined]
    assert len(documents(asynclog)) == 2


@pytest.mark.parametrize("raises", [False, True])
def test_a_response_in_place_of_the_one_that_is_logged(raises: bool) -> None:
    """Around the app somebody answers an exception that came too late for Flask: it has one record of its own."""
    app = Flask("late")
    inner = app.wsgi_app

    def around(environ: Any, start_response: Any) -> Iterable[bytes]:
        try:
            return inner(environ, start_response)
        except Exception:
            start_response("500 INTERNAL SERVER ERROR", [("Content-Length", "5")], sys.exc_info())
            if raises:
                raise
            return [b"oops!"]

    @app.teardown_request
    def fail(error: BaseException | None) -> None:
        raise LookupError("too late")

    app.wsgi_app = around  # type: ignore[method-assign]
    app.add_url_rule("/", "view", lambda: "x")
    with closing(AsyncLog(app, format="json", filename="late.log", flush_interval=0.01)) as asynclog:
        if raises:
            with pytest.raises(LookupError):
                Server(app)
        else:
            assert Server(app).finish() == b"oops!"
        assert asynclog.flush(HANG)
        found = [json.loads(line) for line in log_lines(Path("late.log"))]
    assert [d["message"].split()[0] for d in found] == ["Request", "Response", "Exception"]
    assert found[2]["level"] == "ERROR"
    assert found[2]["exception.message"] == "too late"
    assert len({d["request_id"] for d in found}) == 1


def test_two_apps_behind_one_door(make_app: MakeApp) -> None:
    """Dispatched by path, and one app's response returned by the other: one pair of records for each app asked."""
    outer, asynclog = make_app("outer", format="json")
    inner, _ = make_app("inner", format="json")
    streaming(inner, three)
    outer.add_url_rule("/relayed", "relayed", lambda: Response.from_app(inner.wsgi_app, create_environ("/")))
    door = DispatcherMiddleware(outer, {"/inner": inner})
    assert Server(door, "/inner/").finish() == b"p0p1p2"
    assert Server(door, "/relayed").finish() == b"p0p1p2"
    found = [(d["logger"], *summary(d)[:3]) for d in documents(asynclog) if d["message"].startswith("Response ")]
    assert found == [("inner", 200, 6, False), ("inner", 200, 6, False), ("outer", 200, 6, False)]
