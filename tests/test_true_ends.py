"""The end of a response at real servers: what the log says of it is what the client really received."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from matrix.gunicorn_setup import Gunicorn
from matrix.serving import Server, free_port, put_app, start
from support import HANG, lines_so_far, wait_for

Document = dict[str, Any]

#: Bytes of a part of a stream, and of what no client reads to its end: more than all buffers on the way hold.
PART, HUGE = 1 << 16, 1 << 26
#: Seconds that a slow body is kept waiting.
PAUSE = 0.2

PAGES = """
import os, time
from flask import Response, request, send_file
from flask_asynclog import bind
from served import app

log = app.logger.info

@app.get("/stream/<int:parts>/<int:size>")
def stream(parts, size):
    def generate():
        bind(inside=request_number)
        for number in range(parts):
            log("part %d", number)
            yield b"x" * size
    request_number = request.args.get("n", type=int)
    bind(view=request_number)
    response = Response(generate())
    response.call_on_close(lambda: log("closing"))
    if "length" in request.args:
        response.content_length = parts * size
    return response

@app.get("/plain")
def plain():
    log("plain")
    return "plain"

@app.get("/slow/<name>")
def slow(name):
    def generate():
        yield b"first"
        deadline = time.monotonic() + 60
        while not os.path.exists(name) and time.monotonic() < deadline:
            time.sleep(0.01)
        yield b"second"
    return Response(generate())

@app.get("/breaks/<int:parts>")
def breaks(parts):
    def generate():
        for _ in range(parts):
            yield b"part"
        raise ArithmeticError("no more")
    return Response(generate())

@app.get("/stuck")
def stuck():
    def generate():
        yield b"first"
        time.sleep(600)
    return Response(generate())

@app.get("/file/<name>")
def file(name):
    return send_file(os.path.abspath(name), conditional=True)
"""

SCRIPTS = Path(sysconfig.get_path("scripts"))
COMMANDS = {
    "werkzeug": (sys.executable, "-m", "flask", "--app", "pages", "run", "--port", "PORT"),
    "waitress": (sys.executable, "-m", "waitress", "--threads", "1", "--listen", "127.0.0.1:PORT", "pages:app"),
    "uwsgi": (
        str(SCRIPTS / "uwsgi"), "--http-socket", "127.0.0.1:PORT", "--module", "pages:app", "--need-app", "--home",
        sys.prefix, "--die-on-term", "--enable-threads", "--add-header", "Connection: close",
    ),
}  # fmt: skip
NEEDS = {"waitress": "waitress", "gevent": "gevent", "uwsgi": "uwsgidecorators"}
SETTINGS = {"ASYNCLOG_FORMAT": "json", "ASYNCLOG_FLUSH_INTERVAL": "0.05"}


@contextlib.contextmanager
def serve(kind: str, directory: Path, *options: str) -> Iterator[Server]:
    """Serve the pages from one process, and as far as that can be said, from one thread."""
    if kind in NEEDS and find_spec(NEEDS[kind]) is None:
        pytest.skip(f"{kind} is not installed")
    (directory / "pages.py").write_text(PAGES)
    (directory / "small").write_bytes(bytes(range(256)) * 1000)
    with open(directory / "huge", "wb") as file:
        file.truncate(HUGE)
    if kind in COMMANDS:
        put_app(directory)
        port = free_port()
        command = [word.replace("PORT", str(port)) for word in COMMANDS[kind]]
        with start(directory, command, port=port, **SETTINGS) as server:
            server.wait_until_up()
            yield server
    else:
        options = ("--threads", "1", "--keep-alive", "60", *options)
        with Gunicorn(kind, module="pages").start(directory, *options, workers=1, **SETTINGS) as server:
            yield server


@pytest.fixture(scope="module", params=["sync", "gthread", "gevent", "waitress", "werkzeug", "uwsgi"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for all tests; at its end every request has one record of each kind, and nobody has complained."""
    with serve(request.param, tmp_path_factory.mktemp(request.param)) as server:
        yield server
        server.end(signal.SIGTERM)
        kinds = Counter((d["request_id"], d["message"].split()[0]) for d in documents(server) if "url.path" in d)
        assert set(kinds.values()) == {1}
        assert len({kind for _, kind in kinds}) == 2
        for complaint in ("flask_asynclog[", "Exception ignored"):
            assert complaint not in server.output(), server.output()


@pytest.fixture
def client(server: Server) -> Iterator[http.client.HTTPConnection]:
    """A connection to it."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=HANG)
    yield connection
    connection.close()


def documents(server: Server) -> list[Document]:
    """What is in the log by now."""
    return [json.loads(line) for line in lines_so_far(server.log)]


def records(server: Server, request_id: str) -> list[Document]:
    """All records of a request, when its response is among them."""

    def found() -> list[Document]:
        its = [d for d in documents(server) if d.get("request_id") == request_id]
        return its if any(d["message"].startswith("Response ") for d in its) else []

    result = wait_for(found, HANG / 2, "a response's record")
    assert isinstance(result, list)
    return result


def outcome(server: Server, answer: http.client.HTTPResponse) -> Document:
    """The record of a response."""
    request_id = answer.headers["X-Request-ID"]
    (found,) = [d for d in records(server, request_id) if d["message"].startswith("Response ")]
    return found


def summary(document: Document) -> tuple[int, int | None, bool, str]:
    """Status, bytes, whether aborted, level."""
    return (
        document["http.response.status_code"],
        document.get("http.response.body.size"),
        document.get("http.response.aborted", False),
        document["level"],
    )


def ask(
    client: http.client.HTTPConnection, path: str, method: str = "GET", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    """One request, read to its end."""
    client.request(method, path, headers=headers)
    answer = client.getresponse()
    return answer, answer.read()


def hang_up(server: Server, path: str, most: int) -> tuple[Document, int]:
    """Read so much of a response and close the socket; the record, and how many bytes of the body were read."""
    with socket.create_connection(("127.0.0.1", server.port), HANG) as client:
        # What is still under way is thrown away at once, and the server hears of it.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
        received = b""
        while b"\r\n\r\n" not in received or len(received) < most:
            part = client.recv(min(4096, most))
            assert part
            received += part
    head, _, body = received.partition(b"\r\n\r\n")
    (request_id,) = [line.split()[1] for line in head.splitlines() if line.lower().startswith(b"x-request-id:")]
    found = [d for d in records(server, request_id.decode()) if d["message"].startswith("Response ")]
    assert len(found) == 1
    return found[0], len(body)


def is_uwsgi(server: Server) -> bool:
    """Whether it is the one that says less than others."""
    return "uWSGI" in server.output()


@pytest.mark.parametrize("query", ["", "?length"], ids=["chunked", "with its length"])
def test_a_stream_that_is_read_to_its_end(server: Server, client: http.client.HTTPConnection, query: str) -> None:
    """All of its bytes, and the time of the first one."""
    answer, body = ask(client, f"/stream/5/1000{query}")
    assert body == b"x" * 5000
    found = outcome(server, answer)
    assert summary(found) == (200, len(body), False, "INFO")
    assert 0 < found["http.server.time_to_first_byte"] <= found["http.server.request.duration"]


def test_an_empty_stream(server: Server, client: http.client.HTTPConnection) -> None:
    """Nothing was sent, and that is all."""
    answer, body = ask(client, "/stream/0/0")
    assert body == b""
    found = outcome(server, answer)
    assert summary(found) == (200, 0, False, "INFO")
    assert "http.server.time_to_first_byte" not in found


def test_a_slow_stream(server: Server, client: http.client.HTTPConnection) -> None:
    """The duration is that of the sending, the first byte came before the wait."""
    name = "go-on"
    client.request("GET", f"/slow/{name}")
    answer = client.getresponse()
    assert answer.read(5) == b"first"
    time.sleep(PAUSE)
    (server.directory / name).touch()
    assert answer.read() == b"second"
    found = outcome(server, answer)
    assert summary(found) == (200, 11, False, "INFO")
    assert found["http.server.request.duration"] >= PAUSE
    assert found["http.server.time_to_first_byte"] <= found["http.server.request.duration"] - PAUSE + 1e-5
    (server.directory / name).unlink()


@pytest.mark.parametrize("query", ["", "?length"], ids=["endless to the client", "with its length"])
def test_a_client_that_hangs_up_in_a_stream(server: Server, query: str) -> None:
    """``aborted``, with less than all, no less than the client has got but for the last part, and what frames them."""
    found, received = hang_up(server, f"/stream/{HUGE // PART}/{PART}{query}", 3 * PART)
    status, size, aborted, level = summary(found)
    assert (status, aborted, level) == (200, True, "INFO")
    assert size is not None
    assert received - 2 * PART <= size < HUGE
    assert "error.type" not in found


def test_whose_records_they_are(server: Server, client: http.client.HTTPConnection) -> None:
    """On one connection, one after the other: what is bound and logged in one response is not in the next."""
    seen: list[str] = []
    for number in range(3):
        answer, _ = ask(client, f"/stream/2/10?n={number}")
        seen.append(answer.headers["X-Request-ID"])
        answer, _ = ask(client, "/plain")
        seen.append(answer.headers["X-Request-ID"])
    assert len(set(seen)) == 6
    for index, request_id in enumerate(seen):
        # The last one comes behind the response's.
        wait_for(lambda i=request_id, n=(3, 5)[index % 2 == 0]: len(records(server, i)) >= n, HANG / 2, "all records")
        found = records(server, request_id)
        kinds = [d["message"].partition(" ")[0] for d in found]
        if index % 2:
            assert kinds == ["Request", "plain", "Response"]
            assert not any("view" in d or "inside" in d for d in found)
        else:
            assert kinds == ["Request", "part", "part", "Response", "closing"]
            assert [d.get("view") for d in found[1:]] == [index // 2] * 4
            assert [d.get("inside") for d in found[1:]] == [index // 2] * 4


@pytest.mark.parametrize("path", ["/stream/5/1000?length", "/file/small"])
def test_head(server: Server, client: http.client.HTTPConnection, path: str) -> None:
    """Nothing of the body is sent, nor missed."""
    answer, body = ask(client, path, "HEAD")
    assert (body, answer.status) == (b"", 200)
    assert summary(outcome(server, answer)) == (200, 0, False, "INFO")


@pytest.mark.parametrize("parts", [0, 2])
def test_a_stream_that_breaks(server: Server, client: http.client.HTTPConnection, parts: int) -> None:
    """Before its first byte the server answers 500, uWSGI apart; after it the client has the status already."""
    client.request("GET", f"/breaks/{parts}")
    answer = client.getresponse()
    with contextlib.suppress(http.client.IncompleteRead, ConnectionError):
        answer.read()
    status = 200 if parts or is_uwsgi(server) else 500
    assert answer.status == status

    def found() -> list[Document]:
        return [d for d in documents(server) if d.get("url.path") == f"/breaks/{parts}" and "error.type" in d]

    wait_for(found, HANG / 2, "the record")
    (document,) = found()
    assert summary(document) == (status, parts * 4 if status == 200 else None, False, "ERROR")
    assert document["error.type"] == "ArithmeticError"
    assert "in generate" in document["exception.stacktrace"]


# Files.


def test_a_file(server: Server, client: http.client.HTTPConnection) -> None:
    """Sent whole, by whatever means the server has."""
    answer, body = ask(client, "/file/small")
    assert len(body) == 256_000
    found = outcome(server, answer)
    assert summary(found) == (200, 256_000, False, "INFO")
    assert 0 < found["http.server.time_to_first_byte"] <= found["http.server.request.duration"]


def test_a_range_of_a_file(server: Server, client: http.client.HTTPConnection) -> None:
    """As many bytes as were asked for."""
    answer, body = ask(client, "/file/small", Range="bytes=1000-9999")
    assert (answer.status, body) == (206, (bytes(range(256)) * 1000)[1000:10_000])
    assert summary(outcome(server, answer)) == (206, 9000, False, "INFO")


def test_a_file_that_the_client_has_already(server: Server, client: http.client.HTTPConnection) -> None:
    """304, without a body."""
    etag = ask(client, "/file/small")[0].headers["ETag"]
    answer, body = ask(client, "/file/small", **{"If-None-Match": etag})
    assert (answer.status, body) == (304, b"")
    assert summary(outcome(server, answer)) == (304, 0, False, "INFO")


def test_a_client_that_hangs_up_in_a_file(server: Server) -> None:
    """``aborted``, with what was sent until then; uWSGI does not tell how much that was."""
    found, received = hang_up(server, "/file/huge", 3 * PART)
    status, size, aborted, level = summary(found)
    assert (status, aborted, level) == (200, True, "INFO")
    assert "error.type" not in found
    if is_uwsgi(server):
        assert size is None
    else:
        assert size is not None
        assert received - PART <= size < HUGE


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_gunicorn_still_sends_files_by_sendfile(kind: str, tmp_path: Path) -> None:
    """As the kernel sees it; and the bytes are those of the file."""
    if subprocess.run(["strace", "-o", "/dev/null", "true"], check=False, capture_output=True).returncode:
        pytest.skip("strace may not trace here")
    with serve(kind, tmp_path) as server:
        worker = min(server.pids("booted"))
        with open(tmp_path / "trace", "wb") as trace:
            tracing = subprocess.Popen(
                ["strace", "-f", "-e", "trace=sendfile", "-p", str(worker)], stdin=subprocess.DEVNULL, stderr=trace
            )
        try:
            wait_for(lambda: "attached" in (tmp_path / "trace").read_text() or tracing.poll() is not None)
            if tracing.poll() is not None:
                pytest.skip("strace may not attach here")
            client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=HANG)
            answer, body = ask(client, "/file/small")
            client.close()
            assert body == bytes(range(256)) * 1000
            assert summary(outcome(server, answer)) == (200, 256_000, False, "INFO")
        finally:
            tracing.terminate()
            tracing.wait(HANG)
        calls = [line for line in (tmp_path / "trace").read_text().splitlines() if "sendfile(" in line]
        assert sum(int(line.rpartition("= ")[2]) for line in calls if line.rpartition("= ")[2].isdecimal()) == 256_000
        server.end(signal.SIGTERM)


# Servers that end in the middle.


@pytest.mark.parametrize("path", ["/stuck", f"/stream/{HUGE // PART}/{PART}"], ids=["in the body", "while it sends"])
def test_a_worker_that_is_ended_in_a_stream(path: str, tmp_path: Path) -> None:
    """gunicorn's time-out is no client that went: an ERROR that says so, with the status that the client has got."""
    with serve("sync", tmp_path, "--timeout", "1") as server:
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=HANG)
        client.request("GET", path)
        answer = client.getresponse()
        found = outcome(server, answer)
        client.close()
        assert summary(found)[0] == 200
        assert summary(found)[2:] == (False, "ERROR")
        assert found["error.type"] == "SystemExit"
        assert found["request_id"] == answer.headers["X-Request-ID"]
        server.end(signal.SIGTERM)
