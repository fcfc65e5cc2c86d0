"""gunicorn with the served app: how it is started, and which of its processes have come and gone."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from matrix.serving import Server, put_app, start

#: Run by its path: ``python -m gunicorn`` cannot re-execute itself at USR2, its own ``http`` would be in the way.
SCRIPT = "from gunicorn.app.wsgiapp import run\nrun()\n"

#: A signal that comes before a worker has set its handlers is lost: ``booted-PID`` says when it has.
CONFIG = """
import os
bind = "127.0.0.1:0"
control_socket_disable = True

def when_ready(server):
    with open("port.new", "w") as file:
        file.write(str(server.LISTENERS[0].sock.getsockname()[1]))
    os.rename("port.new", "port")
    open(f"master-{os.getpid()}", "w").close()

def post_worker_init(worker):
    open(f"booted-{os.getpid()}", "w").close()

def child_exit(server, worker):
    open(f"exited-{worker.pid}", "w").close()
"""

OPTIONS = {
    "sync": (),
    "gthread": ("--worker-class", "gthread", "--threads", "4"),
    "gevent": ("--worker-class", "gevent"),
    "UvicornWorker": ("--worker-class", "uvicorn_worker.UvicornWorker"),
}
NEEDS = {
    "sync": ("gunicorn",),
    "gthread": ("gunicorn",),
    "gevent": ("gunicorn", "gevent"),
    "UvicornWorker": ("gunicorn", "uvicorn_worker", "a2wsgi"),
}
#: The app as ASGI, for workers that serve nothing else.
BRIDGE = "from a2wsgi import WSGIMiddleware\nfrom served import app as wsgi\n\napp = WSGIMiddleware(wsgi)\n"


@dataclass(frozen=True)
class Gunicorn:
    """A kind of worker, with or without ``--preload``."""

    worker: str
    preload: bool = False
    #: Module of the app, for cells that have another one in the directory.
    module: str = ""
    #: Further options, shown in the row by `named`.
    options: tuple[str, ...] = ()
    named: str = ""

    @property
    def row(self) -> str:
        """Its row in the table."""
        return f"gunicorn {self.worker}" + " --preload" * self.preload + self.named

    @property
    def needs(self) -> tuple[str, ...]:
        """The modules that it is made of."""
        return NEEDS[self.worker]

    @contextlib.contextmanager
    def start(self, directory: Path, *options: str, workers: int = 2, **settings: str) -> Iterator[Server]:
        """Start it with further options; its workers have booted when the ``with`` block begins."""
        put_app(directory)
        (directory / "bridged.py").write_text(BRIDGE)
        (directory / "conf.py").write_text(CONFIG)
        (directory / "run.py").write_text(SCRIPT)
        command = [sys.executable, "run.py", "--config", "conf.py", "--workers", str(workers)]
        command += [*OPTIONS[self.worker], *["--preload"] * self.preload, *self.options, *options]
        command += [f"{self.module or ('bridged' if self.worker == 'UvicornWorker' else 'served')}:app"]
        with start(directory, command, **settings) as server:
            server.wait_for_pids(workers, "booted")
            server.port = int((directory / "port").read_text())
            yield server
