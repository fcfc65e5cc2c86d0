"""Servers that are not gunicorn: what was answered is in the file, and the server ends as it does without us."""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from matrix.cells import Cell, Result
from matrix.evidence import result
from matrix.serving import Server, free_port, put_app, start
from matrix.traffic import Clients
from support import wait_for

ASGI = """
from a2wsgi import WSGIMiddleware
from served import app as wsgi

app = WSGIMiddleware(wsgi)
"""
#: Rotated a few times; what is in memory stays there, unless the end of the process has it written.
SETTINGS = {"ASYNCLOG_FLUSH_INTERVAL": "60", "ASYNCLOG_MAX_BYTES": "20000", "ASYNCLOG_BACKUP_COUNT": "1000"}


@dataclass(frozen=True)
class Kind:
    """A server and the way that it is started."""

    row: str
    #: ``PORT`` stands for the port.
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    #: How many processes import the app.
    processes: int = 1
    records_at_import: int = 0


#: What happens to a server; returns how long the end took, in seconds.
Event = Callable[[Server, Clients], float]


def serve(directory: Path, kind: Kind, event: Event, **settings: str) -> tuple[Server, Clients, float]:
    """Start a server in ``directory`` and have the event happen to it."""
    directory.mkdir()
    put_app(directory)
    (directory / "asgi.py").write_text(ASGI)
    port = free_port()
    command = [word.replace("PORT", str(port)) for word in kind.command]
    settings = {**SETTINGS, "MATRIX_RECORDS_AT_IMPORT": str(kind.records_at_import), **settings}
    with start(directory, command, port=port, **settings) as server:
        server.wait_until_up(kind.processes)
        clients = Clients(server, 4)
        seconds = event(server, clients)
    return server, clients, seconds


def run(kind: Kind, event: Event, directory: Path) -> Result:
    """Twice: without the extension, for the exit status, and with it."""
    without, _, _ = serve(directory / "without", kind, event, ASYNCLOG_ENABLED="false", MATRIX_RECORDS_AT_IMPORT="0")
    server, clients, seconds = serve(directory / "with", kind, event)
    return result(server, clients, seconds=seconds, status=without.process.returncode)


def ended(number: signal.Signals, server: Server, clients: Clients) -> float:
    """A signal, to the process that was started, when all is answered."""
    clients.ask(25)
    return server.end(number)


def interrupted(server: Server, clients: Clients) -> float:
    """Ctrl-C in a terminal: SIGINT to all processes."""
    clients.ask(25)
    began = time.monotonic()
    os.killpg(server.process.pid, signal.SIGINT)
    return server.wait(began)


def ended_under_traffic(number: signal.Signals, server: Server, clients: Clients) -> float:
    """A signal while clients ask."""
    clients.start()
    try:
        clients.wait_for_more(100)
        return server.end(number)
    finally:
        clients.stop()


def reloaded(reload: Callable[[Server], None], server: Server, clients: Clients) -> float:
    """Another process answers after a reload under traffic; SIGTERM in the end."""
    clients.start()
    try:
        clients.wait_for_more(100)
        before = set(clients.by_pid)
        reload(server)
        wait_for(lambda: clients.by_pid.keys() - before, 60, "an answer after the reload")
        clients.wait_for_more(100)
    finally:
        clients.stop()
    return server.end(signal.SIGTERM)


def touch(server: Server) -> None:
    """Change the app's file, as its reloader sees it: not before its first look at all files, beside the server."""
    time.sleep(2)
    os.utime(server.directory / "served.py")


TERM: dict[str, Event] = {"SIGTERM": functools.partial(ended, signal.SIGTERM)}
INT: dict[str, Event] = {"SIGINT": functools.partial(ended, signal.SIGINT)}
CTRL_C: dict[str, Event] = {"Ctrl-C": interrupted}
TRAFFIC: dict[str, Event] = {"SIGTERM under traffic": functools.partial(ended_under_traffic, signal.SIGTERM)}
TOUCH: dict[str, Event] = {"reload under traffic, SIGTERM": functools.partial(reloaded, touch)}


def cells(kind: Kind, *events: dict[str, Event], quick: Iterable[str] = ()) -> list[Cell]:
    """A row of the matrix."""
    return [
        Cell(kind.row, name, functools.partial(run, kind, event), quick=name in quick, needs=kind.needs)
        for each in events
        for name, event in each.items()
    ]


def python(row: str, *command: str, needs: tuple[str, ...] = (), processes: int = 1) -> Kind:
    """A server that is started by ``python …``."""
    return Kind(row, (sys.executable, *command), needs, processes)


PYWSGI = """
from gevent import monkey
monkey.patch_all()
from gevent.pywsgi import WSGIServer
from served import app
WSGIServer(("127.0.0.1", PORT), app, log=None).serve_forever()
"""
WSGIREF = """
from wsgiref.simple_server import make_server
from served import app
make_server("127.0.0.1", PORT, app).serve_forever()
"""
FLASK_RUN = ("-m", "flask", "--app", "served", "run", "--port", "PORT")
UVICORN = ("-m", "uvicorn", "asgi:app", "--port", "PORT")
HYPERCORN = ("-m", "hypercorn", "--bind", "127.0.0.1:PORT")

CELLS: list[Cell] = [
    *cells(python("flask run", *FLASK_RUN), TERM, CTRL_C, TRAFFIC, quick=["SIGTERM"]),
    *cells(python("flask run --debug", *FLASK_RUN, "--debug"), TERM, CTRL_C, TRAFFIC, TOUCH),
    *cells(python("flask run --debug --no-reload", *FLASK_RUN, "--debug", "--no-reload"), TERM, CTRL_C),
    *cells(python("app.run()", "-c", "from served import app; app.run(port=PORT)"), TERM, INT, TRAFFIC),
    *cells(
        python("waitress", "-m", "waitress", "--listen", "127.0.0.1:PORT", "served:app", needs=("waitress",)),
        *(TERM, INT, TRAFFIC),
    ),
    *cells(python("uvicorn, a2wsgi", *UVICORN, needs=("uvicorn", "a2wsgi")), TERM, INT, TRAFFIC),
    *cells(
        python("uvicorn --workers 2, a2wsgi", *UVICORN, "--workers", "2", needs=("uvicorn", "a2wsgi"), processes=2),
        *(TERM, CTRL_C),
    ),
    *cells(python("hypercorn", *HYPERCORN, "wsgi:served:app", needs=("hypercorn",)), TERM, CTRL_C, TRAFFIC),
    *cells(
        python("hypercorn --workers 2", *HYPERCORN, "--workers", "2", "wsgi:served:app", needs=("hypercorn",)),
        *(TERM, CTRL_C),
    ),
    *cells(python("hypercorn, a2wsgi", *HYPERCORN, "asgi:app", needs=("hypercorn", "a2wsgi")), TERM, CTRL_C),
    *cells(python("gevent.pywsgi", "-c", PYWSGI, needs=("gevent",)), TERM, TRAFFIC),
    *cells(python("wsgiref", "-c", WSGIREF), TERM),
]
