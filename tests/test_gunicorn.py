"""gunicorn, for real: many workers, one rotating file, every request found once as request and once as response."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import HANG, assert_conserved, log_files, log_lines, wait_for

APP = """
import atexit, dataclasses, json, os, time
from flask import Flask
from flask_asynclog import AsyncLog

def report():
    with open(f"stats-{os.getpid()}.json", "w") as file:
        json.dump(dataclasses.asdict(asynclog.stats()), file)

atexit.register(report)  # before AsyncLog, so it runs after the drain
app = Flask("served")
app.config.from_prefixed_env()
asynclog = AsyncLog(app, filename="served.log", max_bytes=100_000, backup_count=1000)

@app.get("/hello/<name>")
def hello(name):
    app.logger.info("greeting %s", name)
    return {"pid": os.getpid()}

@app.get("/hang")
def hang():
    app.logger.info("hangs")
    time.sleep(600)
"""

CONFIG = """
import os
bind = "127.0.0.1:0"
control_socket_disable = True

def when_ready(server):
    with open("port.new", "w") as file:
        file.write(str(server.LISTENERS[0].sock.getsockname()[1]))
    os.rename("port.new", "port")

def post_worker_init(worker):
    open(f"booted-{os.getpid()}", "w").close()
"""


class Server:
    """gunicorn with the app above, in a directory of its own."""

    def __init__(self, directory: Path, process: subprocess.Popen[bytes]) -> None:
        self.directory = directory
        self.process = process
        self.log = directory / "served.log"
        self.port = 0

    def booted(self) -> set[int]:
        """The workers that have booted so far."""
        return {int(file.name.removeprefix("booted-")) for file in self.directory.glob("booted-*")}

    def wait_for_workers(self, count: int) -> None:
        """Wait until ``count`` workers have booted: a signal that comes earlier may be lost."""
        wait_for(lambda: self.process.poll() is not None or len(self.booted()) >= count, what=f"{count} workers")
        assert self.process.poll() is None, self.errors()

    def errors(self) -> str:
        """What gunicorn and its workers have written to stderr."""
        return (self.directory / "errors").read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Have it end by a signal, as asked for and in time."""
        self.process.send_signal(number)
        assert self.process.wait(HANG) == 0, self.errors()
        assert "flask_asynclog[" not in self.errors()

    def stats(self) -> dict[int, dict[str, int]]:
        """What each process reported at its end, conserved and drained."""
        reported = {
            int(file.stem.removeprefix("stats-")): json.loads(file.read_text())
            for file in self.directory.glob("stats-*.json")
        }
        for stats in reported.values():
            assert_conserved(stats)
            assert stats["dropped"] == stats["failed"] == 0
        return reported


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start gunicorn with options, and environment variables of the app; its workers are up when this returns."""
    servers: list[Server] = []

    def start(*options: str, workers: int, **environment: str) -> Server:
        (tmp_path / "served.py").write_text(APP)
        (tmp_path / "conf.py").write_text(CONFIG)
        command = [sys.executable, "-m", "gunicorn", "--config", "conf.py", "--workers", str(workers), *options]
        with open(tmp_path / "errors", "wb") as errors:
            process = subprocess.Popen(
                [*command, "served:app"],
                cwd=tmp_path,
                env={**os.environ, **environment},
                stderr=errors,
                start_new_session=True,
            )
        server = Server(tmp_path, process)
        servers.append(server)
        server.wait_for_workers(workers)
        server.port = int((tmp_path / "port").read_text())
        return server

    yield start
    for server in servers:
        with contextlib.suppress(ProcessLookupError):  # the group is gone when all went well
            os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()


class Clients:
    """Threads that ask, each on a connection that it keeps if the server does."""

    def __init__(self, server: Server, count: int) -> None:
        self.server = server
        self.request_ids: list[str] = []
        self.names: list[str] = []
        self.pids: Counter[int] = Counter()
        self.kept = 0
        self.errors: list[BaseException] = []
        self._enough = threading.Event()
        self._most = sys.maxsize
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(count)]

    def ask(self, requests_each: int) -> None:
        """Every thread asks so many times, one request after the other."""
        self._most = requests_each
        self.start()
        self.stop(enough=False)

    def start(self) -> None:
        """Begin to ask, until `stop`."""
        for thread in self._threads:
            thread.start()

    def stop(self, *, enough: bool = True) -> None:
        """Wait for the end of what is under way; raises what went wrong."""
        if enough:
            self._enough.set()
        for thread in self._threads:
            thread.join(HANG)
        assert not any(thread.is_alive() for thread in self._threads), "a request hangs"
        if self.errors:
            raise self.errors[0]

    def wait_for_more(self, count: int) -> None:
        """Wait until so many more have been answered."""
        goal = len(self.request_ids) + count
        wait_for(lambda: self.errors or len(self.request_ids) >= goal, what="answers")

    def _run(self, client: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=HANG)
        try:
            for number in range(self._most):
                if self._enough.is_set():
                    break
                name = f"{client}-{number}"
                connection.request("GET", f"/hello/{name}?n={number}")
                response = connection.getresponse()
                assert response.status == 200
                self.request_ids.append(response.headers["X-Request-ID"])
                self.names.append(name)
                self.pids[json.load(response)["pid"]] += 1
                self.kept += connection.sock is not None
        except BaseException as error:
            self.errors.append(error)
        finally:
            connection.close()


def assert_complete(server: Server, clients: Clients) -> None:
    """Every request that a client has an answer to: once as request, once as response, once in its view's record."""
    lines = log_lines(server.log)
    text = "\n".join(lines)
    once = dict.fromkeys(clients.request_ids, 1)
    assert len(once) == len(clients.request_ids), "two requests with one id"
    assert Counter(re.findall(r" - INFO - Request GET http://127.0.0.1:\S+ id=(\w+)$", text, re.MULTILINE)) == once
    assert Counter(re.findall(r" - INFO - Response 200 OK GET .* id=(\w+)$", text, re.MULTILINE)) == once
    assert Counter(re.findall(r" - INFO - greeting (\S+)$", text, re.MULTILINE)) == dict.fromkeys(clients.names, 1)
    assert len(lines) == 3 * len(clients.request_ids), "a line of nobody"
    stats = server.stats()
    assert sum(each["written"] for each in stats.values()) == len(lines)
    for pid, count in clients.pids.items():
        assert stats[pid]["written"] == 3 * count


def test_four_thousand_requests_to_four_workers(serve: Callable[..., Server]) -> None:
    """4 workers, ``--preload``, 8 clients, several rotations, SIGTERM: exit status 0, nothing lost, nothing twice."""
    server = serve("--preload", workers=4)
    clients = Clients(server, 8)
    clients.ask(500)
    assert len(clients.pids) > 1, "one worker answered all"
    server.stop()
    assert len(clients.request_ids) == 4000
    assert_complete(server, clients)
    assert set(server.stats()) == {*server.booted(), server.process.pid}
    files = log_files(server.log)
    assert len(files) > 5
    assert max(file.stat().st_size for file in files) <= 100_000


@pytest.mark.parametrize(
    ("number", "options"),
    [
        (signal.SIGTERM, ["--worker-class", "gthread", "--threads", "4"]),
        (signal.SIGTERM, ["--worker-class", "gthread", "--threads", "4", "--preload"]),
        (signal.SIGTERM, []),
        (signal.SIGINT, ["--worker-class", "gthread", "--threads", "4"]),
        (signal.SIGQUIT, ["--preload"]),
    ],
    ids=["gthread", "gthread, preloaded", "sync", "gthread, Ctrl-C", "sync, preloaded, SIGQUIT"],
)
def test_what_waits_at_the_end_is_written(
    serve: Callable[..., Server], number: signal.Signals, options: list[str]
) -> None:
    """Whatever the worker's kind and the signal: all records, still in memory when it comes, are in the file."""
    server = serve(*options, workers=2, FLASK_ASYNCLOG_FLUSH_INTERVAL="60")
    clients = Clients(server, 4)
    clients.ask(50)
    assert len(log_lines(server.log)) < 100, "written before the end"
    server.stop(number)
    assert len(clients.request_ids) == 200
    if "gthread" in options:
        assert clients.kept > 100, "no connection was kept"
    assert_complete(server, clients)


def test_workers_that_end_after_some_requests(serve: Callable[..., Server]) -> None:
    """``--max-requests``: workers come and go under traffic, each ends drained."""
    server = serve("--max-requests", "30", workers=2, FLASK_ASYNCLOG_FLUSH_INTERVAL="60")
    clients = Clients(server, 4)
    clients.ask(75)
    server.wait_for_workers(6)
    server.stop()
    assert len(clients.request_ids) == 300
    assert_complete(server, clients)
    assert len(clients.pids) >= 5


def test_reloads_under_traffic(serve: Callable[..., Server]) -> None:
    """SIGHUP, twice, while clients ask: old workers end drained, new ones start clean."""
    server = serve(workers=2)
    clients = Clients(server, 3)
    clients.start()
    try:
        for generation in (2, 3):
            clients.wait_for_more(50)
            server.process.send_signal(signal.SIGHUP)
            server.wait_for_workers(2 * generation)
        clients.wait_for_more(50)
    finally:
        clients.stop()
    server.stop()
    assert_complete(server, clients)


def test_a_worker_that_hangs(serve: Callable[..., Server]) -> None:
    """A worker that gunicorn aborts for its time-out writes what it has, the hanging request and its end included."""
    server = serve("--timeout", "2", workers=1, FLASK_ASYNCLOG_FLUSH_INTERVAL="60")
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=HANG)
    connection.request("GET", "/hang")
    with contextlib.suppress(http.client.HTTPException, ConnectionError):  # as gunicorn's version has it
        assert connection.getresponse().status == 500
    connection.close()
    server.wait_for_workers(2)
    assert "WORKER TIMEOUT" in server.errors()
    server.stop()
    request, view, response = log_lines(server.log)
    request_id = request.rpartition(" id=")[2]
    assert " - INFO - Request GET http://" in request
    assert view.endswith(" - INFO - hangs")
    assert " - ERROR - Response 500 " in response
    assert f" id={request_id} SystemExit" in response
    server.stats()
