"""Streamed responses, to the app and its log: what is logged at their end, and whose records are logged until then."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import io
import json
import select
import socket
import struct
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask, Response, g, request, send_file, stream_with_context

from bare_server import BodyError, FileWrapper, Server, documents, outcome, streaming, summary, three
from flask_asynclog import AsyncLog, bind, context
from support import HANG, PRINT_STATS, assert_conserved, log_lines, read_stats, run_python, wait_for

MakeApp = Callable[..., tuple[Flask, AsyncLog]]


pytestmark = pytest.mark.usefixtures("context_detector")


# How a response ends.


def test_a_stream_that_is_sent(make_app: MakeApp) -> None:
    """Its record comes when the last byte has gone, with what was sent, and when the first byte had."""
    app, asynclog = make_app(format="json")
    streaming(app, three)
    server = Server(app)
    assert [d["message"].split()[0] for d in documents(asynclog)] == ["Request"]
    server.take(3)
    assert [d["message"].split()[0] for d in documents(asynclog)] == ["Request"]
    assert server.finish() == b"p0p1p2"
    found = outcome(asynclog)
    assert summary(found) == (200, 6, False, "INFO")
    assert 0 <= found["http.server.time_to_first_byte"] <= found["http.server.request.duration"]
    assert found["request_id"] == server.headers["X-Request-ID"]
    assert " 6B id=" in found["message"]


def test_a_wsgi_app_as_a_response(make_app: MakeApp) -> None:
    """What a view returns may be a WSGI app: its stream is logged at its end, though its length is known before."""

    class Closing(list[bytes]):
        """A body that is to be closed, as a connection to another server is."""

        def close(self) -> None:
            """Nothing to do."""

    def inner(environ: Any, start_response: Any) -> Closing:
        start_response("200 OK", [("Content-Length", "30")])
        return Closing([b"x" * 10] * 3)

    app, asynclog = make_app(format="json")
    app.add_url_rule("/", "view", lambda: inner)
    server = Server(app)
    server.take(2)
    assert [d["message"].split()[0] for d in documents(asynclog)] == ["Request"]
    server.close()
    assert summary(outcome(asynclog)) == (200, 10, True, "INFO")


@pytest.mark.parametrize(("path", "status"), [("/missing", 404), ("/moved", 308)])
def test_a_page_that_werkzeug_makes(make_app: MakeApp, path: str, status: int) -> None:
    """All of it is there: it is logged when it is handed over."""
    app, asynclog = make_app(format="json")
    app.add_url_rule("/moved/", "view", lambda: "x")
    server = Server(app, path)
    found = outcome(asynclog)
    assert (found["http.response.status_code"], found.get("http.server.time_to_first_byte")) == (status, None)
    assert len(server.finish()) == found["http.response.body.size"]


def test_a_client_that_goes(make_app: MakeApp) -> None:
    """``aborted``, with what is known to have left; nobody's error."""
    app, asynclog = make_app(format="json")
    streaming(app, three)
    Server(app).take(2).fail(BrokenPipeError())
    found = outcome(asynclog)
    assert summary(found) == (200, 2, True, "INFO")
    assert " 2B aborted id=" in found["message"]
    assert "error.type" not in found


def test_a_client_that_goes_before_the_first_byte(make_app: MakeApp) -> None:
    """Nothing was sent, and the first byte has no time."""
    app, asynclog = make_app(format="json")
    streaming(app, three)
    Server(app).close()
    found = outcome(asynclog)
    assert summary(found) == (200, 0, True, "INFO")
    assert "http.server.time_to_first_byte" not in found


@pytest.mark.parametrize("error", [BodyError("no more"), SystemExit("no more")])
def test_a_body_that_raises_halfway(make_app: MakeApp, error: BaseException) -> None:
    """The client has its status already; the record is an ERROR with the traceback."""
    app, asynclog = make_app(format="json")

    def broken() -> Iterator[bytes]:
        yield b"abc"
        raise error

    streaming(app, broken)
    with pytest.raises(type(error)):
        Server(app).finish()
    found = outcome(asynclog)
    assert summary(found) == (200, 3, False, "ERROR")
    assert found["error.type"] == type(error).__name__
    assert "in broken" in found["exception.stacktrace"]


def test_a_body_that_raises_at_once(make_app: MakeApp) -> None:
    """No server has sent a status by then: what the client gets is a 500."""
    app, asynclog = make_app(format="json")

    def broken() -> Iterator[bytes]:
        raise BodyError("no more")
        yield b""

    streaming(app, broken)
    with pytest.raises(BodyError):
        Server(app).finish()
    found = outcome(asynclog)
    assert summary(found) == (500, None, False, "ERROR")
    assert found["error.type"] == "BodyError"


def test_a_server_that_is_ended_while_it_sends(make_app: MakeApp) -> None:
    """gunicorn's time-out while the client does not read: it is not the client that gave up."""
    app, asynclog = make_app(format="json")
    streaming(app, three)
    Server(app).take(2).fail(SystemExit(1))
    found = outcome(asynclog)
    assert summary(found) == (200, 2, False, "ERROR")
    assert found["error.type"] == "SystemExit"


@pytest.mark.parametrize("kind", ["stream", "file", "range"])
def test_head(make_app: MakeApp, kind: str) -> None:
    """No body, nothing sent, complete: whether or not the server looks for one."""
    app, asynclog = make_app(format="json")
    Path("page.txt").write_bytes(b"0123456789")
    pages: dict[str, Callable[[], Response]] = {
        "stream": lambda: Response(three(), headers={"Content-Length": "6"}),
        "file": lambda: send_file(Path("page.txt").absolute()),
        "range": lambda: send_file(Path("page.txt").absolute()),
    }
    app.add_url_rule("/", "view", pages[kind])
    headers = {"Range": "bytes=2-5"} if kind == "range" else {}
    for finish in (True, False):
        server = Server(app, method="HEAD", headers=headers)
        assert not (server.finish() if finish else server.close())
    for found in documents(asynclog)[1::2]:
        assert summary(found) == (206 if kind == "range" else 200, 0, False, "INFO")
        assert "http.server.time_to_first_byte" not in found


def test_not_modified(make_app: MakeApp) -> None:
    """A 304 of `send_file` sends nothing."""
    app, asynclog = make_app(format="json")
    Path("page.txt").write_bytes(b"0123456789")
    app.add_url_rule("/", "view", lambda: send_file(Path("page.txt").absolute()))
    first = Server(app)
    assert first.finish() == b"0123456789"
    server = Server(app, headers={"If-None-Match": first.headers["ETag"]})
    assert server.finish() == b""
    assert summary(documents(asynclog)[-1]) == (304, 0, False, "INFO")


@pytest.mark.parametrize(("length", "size"), [("4", 4), ("6", 6), ("8", 6), ("six", 6), ("9" * 5000, 6)])
def test_another_content_length(make_app: MakeApp, length: str, size: int) -> None:
    """No client gets more than it says, nor more than there is."""
    app, asynclog = make_app(format="json")
    streaming(app, three, headers={"Content-Length": length})
    Server(app).finish()
    assert summary(outcome(asynclog)) == (200, size, False, "INFO")


# Files.


def test_a_file_is_handed_over_as_the_servers_own(make_app: MakeApp) -> None:
    """By its type the server sees that it may use sendfile()."""
    app, asynclog = make_app(format="json")
    Path("page.txt").write_bytes(b"0123456789")
    app.add_url_rule("/", "view", lambda: send_file(Path("page.txt").absolute()))
    server = Server(app)
    assert type(server.body) is FileWrapper
    assert server.body.filelike.tell() == 0
    assert [d["message"].split()[0] for d in documents(asynclog)] == ["Request"]
    assert server.finish() == b"0123456789"
    assert server.body.filelike.closed
    found = outcome(asynclog)
    assert summary(found) == (200, 10, False, "INFO")
    assert 0 <= found["http.server.time_to_first_byte"] <= found["http.server.request.duration"]


def test_a_file_whose_client_goes(make_app: MakeApp) -> None:
    """What was read of it counts."""
    app, asynclog = make_app(format="json")
    app.add_url_rule("/", "view", lambda: send_file(io.BytesIO(b"0123456789"), "text/plain"))
    Server(app).take(2).fail(ConnectionResetError())
    assert summary(outcome(asynclog)) == (200, 8, True, "INFO")


def test_a_file_that_uwsgi_sends(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not say that it could not; its connection does, unless the client has just got all."""
    app, asynclog = make_app(format="json")
    Path("page.txt").write_bytes(b"0123456789")
    app.add_url_rule("/", "view", lambda: send_file(Path("page.txt").absolute()))
    listener = socket.create_server(("127.0.0.1", 0))
    for abort in (True, False):
        client = socket.create_connection(listener.getsockname())
        connection, _ = listener.accept()
        monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(connection_fd=connection.fileno))
        server = Server(app)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", abort, 0))
        client.close()
        wait_for(lambda c=connection: select.select([c], [], [], 0)[0])
        server.close()
        connection.close()
    listener.close()
    aborted, whole = documents(asynclog)[1::2]
    assert summary(aborted) == (200, None, True, "INFO")
    assert summary(whole) == (200, 10, False, "INFO")
    assert "10B" not in aborted["message"]


def test_a_part_of_a_file(make_app: MakeApp) -> None:
    """A range is what was asked for, whole or not."""
    app, asynclog = make_app(format="json")
    app.add_url_rule("/", "view", lambda: send_file(io.BytesIO(b"0123456789"), "text/plain", conditional=True))
    assert Server(app, headers={"Range": "bytes=2-6"}).finish() == b"23456"
    Server(app, headers={"Range": "bytes=2-6"}).take(1).fail(BrokenPipeError())
    whole, aborted = documents(asynclog)[1::2]
    assert summary(whole) == (206, 5, False, "INFO")
    assert summary(aborted) == (206, 0, True, "INFO")


# Whose records.


def test_what_a_stream_logs_is_its_requests(make_app: MakeApp) -> None:
    """In the generator, in a thread that it starts in a copy of its context, in what runs when it closes, between
    other requests on the same thread; with what was bound, which the response's record has as well."""
    app, asynclog = make_app(format="json")
    log = app.logger.info

    def generate() -> Iterator[bytes]:
        bind(part=1)
        log("first")
        yield b"a"
        bind(part=2)
        thread = threading.Thread(target=contextvars.copy_context().run, args=(log, "thread"))
        thread.start()
        thread.join(HANG)
        try:
            yield b"b"
        finally:
            log("finally")

    @app.get("/")
    def view() -> Response:
        bind(user=7, part=0)
        response = Response(generate())
        response.call_on_close(lambda: log("closing"))
        return response

    app.add_url_rule("/other", "other", lambda: log("other") or "x")
    one, two = Server(app).take(1), Server(app).take(1)
    Server(app, "/other").finish()
    log("outside")
    one.take(1)
    two.take(1)
    assert one.finish() == b"ab"
    two.close()
    found = documents(asynclog)
    for server, end in ((one, "finally Response closing"), (two, "finally closing Response")):
        its = [d for d in found if d.get("request_id") == server.headers["X-Request-ID"]]
        assert [d["message"].split()[0] for d in its] == ["Request", "first", "thread", *end.split()]
        assert [d.get("part") for d in its] == [None, 1, 2, 2, 2, 2]
        assert [d.get("user") for d in its[1:]] == [7] * 5
    others = [d for d in found if d["message"] in ("other", "outside") or d.get("url.path") == "/other"]
    assert [("part" in d, "user" in d) for d in others] == [(False, False)] * 4
    assert "request_id" not in next(d for d in others if d["message"] == "outside")


def test_stream_with_context(make_app: MakeApp) -> None:
    """Flask's own context lasts as long as ours: its teardown functions log with the request's id."""
    app, asynclog = make_app(format="json")
    app.teardown_request(lambda error: app.logger.info("teardown"))

    @app.get("/")
    def view() -> Response:
        def generate() -> Iterator[str]:
            for name in ("a", "b"):
                app.logger.info("%s of %s", name, request.path)
                g.seen = name
                yield name

        return Response(stream_with_context(generate()))

    for finish in (True, False):
        server = Server(app).take(1)
        if finish:
            server.finish()
        else:
            server.close()
        assert context.request_id() is None
    found = documents(asynclog)
    ids = [d["request_id"] for d in found]
    assert len(set(ids)) == 2
    for request_id in set(ids):
        its = [d["message"].split()[0] for d in found if d["request_id"] == request_id]
        assert its[-2:] == ["teardown", "Response"]


def test_filters_find_the_request_at_the_end_of_a_stream(make_app: MakeApp) -> None:
    """As Flask's documentation shows them: they look at `request`, whose context is gone by then."""
    app, asynclog = make_app(format="json")
    streaming(app, three)

    def add_agent(record: Any) -> bool:
        record.agent = request.headers["User-Agent"]
        return True

    app.logger.addFilter(add_agent)
    Server(app, headers={"User-Agent": "me"}).finish()
    app.logger.removeFilter(add_agent)
    assert outcome(asynclog)["agent"] == "me"


@pytest.mark.parametrize("raises", [False, True])
def test_nothing_of_the_server_is_kept(make_alone: MakeApp, raises: bool) -> None:
    """Records may wait for long: the environment and what it holds do not wait with them."""
    app, asynclog = make_alone(format="json", flush_interval=60, flush_level="CRITICAL")
    app.logger.info("first")  # starts the thread, which writes what it finds
    assert asynclog.flush(HANG)
    app.testing = True

    class Connection:
        pass

    def fail() -> Response:
        raise BodyError

    app.add_url_rule("/", "view", fail if raises else lambda: Response(three()))
    connection = Connection()
    gone = weakref.ref(connection)
    with contextlib.suppress(BodyError):
        Server(app, environ_overrides={"connection": connection}).finish()
    del connection
    gc.collect()
    assert gone() is None
    assert asynclog.stats().pending == 2


ASYNC_VIEW = """
from flask import Flask, Response
from flask_asynclog import AsyncLog, bind

app = Flask("async_view")
asynclog = AsyncLog(app, format="json")

@app.get("/")
async def view():
    bind(user=7)
    def generate():
        app.logger.info("inside")
        yield b"ab"
    return Response(generate())

assert app.test_client().get("/").data == b"ab"
assert asynclog.flush(60)
print_stats(asynclog.stats())
"""


def test_a_stream_of_an_async_view(tmp_path: Path) -> None:
    """What the view binds, in an event loop of its own, is there while its body is sent."""
    pytest.importorskip("asgiref", reason="flask[async] is not installed")
    done = run_python(PRINT_STATS + ASYNC_VIEW, cwd=tmp_path)
    assert_conserved(read_stats(done.stdout))
    found = [json.loads(line) for line in log_lines(Path("app.log"))]
    assert [d["message"].split()[0] for d in found] == ["Request", "inside", "Response"]
    assert len({d["request_id"] for d in found}) == 1
    assert [d.get("user") for d in found] == [None, 7, 7]


LEFT_BEHIND = """
import sys
from flask import Flask, Response
from flask_asynclog import AsyncLog

app = Flask("left_behind")
asynclog = AsyncLog(app, format="json")

@app.get("/")
def view():
    def generate():
        try:
            yield b"ab"
            yield b"cd"
        finally:
            app.logger.info("finally")
    return Response(generate())

def left():
    body = app.wsgi_app({"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SERVER_NAME": "x", "SERVER_PORT": "80",
        "wsgi.url_scheme": "http"}, lambda *_: None)
    next(body)
    return body

kept = left()
sys.kept = [left()]
sys.kept.append(sys.kept)
print("ends")
"""


def test_streams_that_the_end_of_the_process_finds(tmp_path: Path) -> None:
    """They end with the interpreter, which has nothing to say about it."""
    done = run_python(LEFT_BEHIND, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("ends\n", "")
    found = [json.loads(line) for line in log_lines(Path("app.log"))]
    assert [d["message"].split()[0] for d in found[:2]] == ["Request", "Request"]


KILLED = """
import gevent
from gevent import monkey
monkey.patch_all()
from flask import Flask, Response
from flask_asynclog import AsyncLog, bind, context

app = Flask("killed")
asynclog = AsyncLog(app, format="json")

@app.get("/<name>")
def view(name):
    bind(name=name)
    def generate():
        for _ in range(2):
            app.logger.info("in %s", name)
            yield b"ab"
            gevent.sleep(0 if name == "lives" else 600)
    return Response(generate())

def serve(path):
    assert context.request_id() is None
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "SERVER_NAME": "x", "SERVER_PORT": "80",
        "wsgi.url_scheme": "http"}
    body = app.wsgi_app(environ, lambda *_: None)
    try:
        for part in body:
            assert context.request_id() is None
            gevent.sleep(0)
    finally:
        body.close()

greenlets = [gevent.spawn(serve, path) for path in ("/lives", "/dies", "/lives")]
gevent.wait(greenlets[::2])
greenlets[1].kill()
assert [type(g.value).__name__ for g in greenlets] == ["NoneType", "GreenletExit", "NoneType"]
assert asynclog.flush(60)
print_stats(asynclog.stats())
"""


def test_a_greenlet_that_is_killed(tmp_path: Path) -> None:
    """That is no client that went; and greenlets that send in turns keep their records apart."""
    pytest.importorskip("gevent")
    done = run_python(PRINT_STATS + KILLED, cwd=tmp_path)
    assert_conserved(read_stats(done.stdout))
    found = [json.loads(line) for line in log_lines(Path("app.log"))]
    for name, size, level in (("lives", 4, "INFO"), ("dies", 2, "ERROR")):
        its = [d for d in found if d.get("url.path", "/" + d.get("name", "")) == f"/{name}"]
        assert {d["message"] for d in its if d["message"].startswith("in ")} == {f"in {name}"}
        assert {d.get("name") for d in its} == {None, name}
        assert {summary(d) for d in its if d["message"].startswith("Response ")} == {(200, size, False, level)}
    assert found[-1]["error.type"] == "GreenletExit"
