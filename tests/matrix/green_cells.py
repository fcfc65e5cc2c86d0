"""Green threads: eventlet's own server, and a slow file that must not hold up gevent's hub."""

from __future__ import annotations

import contextlib
import fcntl
import json
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from matrix.cells import Cell, Result
from matrix.evidence import result
from matrix.gunicorn_cells import ask_200
from matrix.gunicorn_setup import Gunicorn
from matrix.serving import Server, free_port, put_app, start
from matrix.traffic import Clients

#: Seconds that the file is slow, and the longest that all greenlets may then stand still.
SLOW = 2.0
STILL = 1.0

#: The app with a greenlet that is woken every 5 ms, and asked for its longest wait. ``slow_write``: seconds each.
TICKING = """
import os, time
import gevent, gevent.monkey
from served import app

@app.get("/start")
def start():
    longest.append(0.0)
    gevent.spawn(tick)
    return {}

@app.get("/longest")
def read():
    return {"longest": longest[0]}

longest = []

def tick():
    while True:
        began = time.monotonic()
        gevent.sleep(0.005)
        longest[0] = max(longest[0], time.monotonic() - began)

if "MATRIX_SLOW_WRITE" in os.environ:
    from flask_asynclog.rotating import BatchRotatingFileHandler as Handler
    write_batch = Handler.write_batch

    def slow_write_batch(handler, lines):
        gevent.monkey.get_original("time", "sleep")(float(os.environ["MATRIX_SLOW_WRITE"]))
        open("slow-write", "w").close()
        return write_batch(handler, lines)

    Handler.write_batch = slow_write_batch
"""

EVENTLET = """
import eventlet
eventlet.monkey_patch()
import os, sys
import eventlet.wsgi
from served import app
socket = eventlet.listen(("127.0.0.1", int(sys.argv[1])))
eventlet.wsgi.server(socket, app, log_output=False)
"""


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock that every process takes to write."""
    with file.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def longest_wait(server: Server) -> float:
    """The longest that the ticking greenlet has waited, in seconds."""
    longest: float = json.loads(server.get("/longest")[1])["longest"]
    return longest


def ticks(gunicorn: Gunicorn, directory: Path, *, hold_lock: bool) -> Result:
    """Traffic and a ticking greenlet while the file is slow: another process has its lock, or each write takes long."""
    (directory / "ticking.py").write_text(TICKING)
    settings = {} if hold_lock else {"MATRIX_SLOW_WRITE": str(SLOW)}
    with gunicorn.start(directory, workers=1, ASYNCLOG_SHUTDOWN_TIMEOUT="20", **settings) as server:
        server.get("/start")
        server.wait_while_running((directory / ".__app.lock").exists, "a first write")
        clients = Clients(server, 2)
        with locked(directory / ".__app.lock") if hold_lock else contextlib.nullcontext():
            began = time.monotonic()
            clients.ask(50)
            time.sleep(max(0.0, began + SLOW - time.monotonic()))
            longest = longest_wait(server)
        if not hold_lock:
            server.wait_while_running((directory / "slow-write").exists, "a slow write")
            longest = max(longest, longest_wait(server))
        seconds = server.end(signal.SIGTERM)
    problems = [] if 0 < longest < STILL else [f"all greenlets stood still for {longest:.3f} s"]
    verdict = result(server, clients, seconds=seconds, problems=problems)
    verdict.note = f"longest pause of a greenlet {longest * 1000:.0f} ms while the file was stuck for {SLOW:.0f} s"
    return verdict


def eventlet_server(number: signal.Signals, directory: Path) -> Result:
    """eventlet's own server, with everything patched, ended by a signal."""
    put_app(directory)
    (directory / "serve.py").write_text(EVENTLET)
    port = free_port()
    command = [sys.executable, "serve.py", str(port)]
    with start(directory, command, port=port, ASYNCLOG_FLUSH_INTERVAL="60") as server:
        server.wait_until_up(1)
        clients, early = ask_200(server)
        seconds = server.end(number)
    # eventlet.wsgi.server() takes Ctrl-C for its end.
    status = 0 if number == signal.SIGINT else -number
    return result(server, clients, seconds=seconds, status=status, problems=early)


CELLS: list[Cell] = [
    *(
        Cell(gunicorn.row, event, partial(ticks, gunicorn, hold_lock=hold_lock), needs=gunicorn.needs)
        for gunicorn in (Gunicorn("gevent", module="ticking"), Gunicorn("gevent", preload=True, module="ticking"))
        for event, hold_lock in (("log locked by another process", True), ("slow disk", False))
    ),
    *(
        Cell("eventlet.wsgi", number.name, partial(eventlet_server, number), needs=("eventlet",))
        for number in (signal.SIGTERM, signal.SIGINT)
    ),
]
