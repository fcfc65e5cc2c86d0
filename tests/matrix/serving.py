"""Servers as real processes.

A cell that serves the app is made of these, in this order::

    put_app(directory)
    with start(directory, command, port=free_port(), ASYNCLOG_FLUSH_INTERVAL="60") as server:
        server.wait_until_up(processes=2)
        clients = Clients(server, 4)                        # traffic.py
        clients.ask(50)
        seconds = server.end(signal.SIGTERM)
    return result(server, clients, seconds=seconds)         # evidence.py
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from signal import Signals

from support import HANG, wait_for

#: Variables of the outside that would change what a server does.
FOREIGN = ("FLASK_", "GUNICORN_", "UWSGI_", "WERKZEUG_", "UVICORN_", "CELERY_", "MATRIX_RECORDS")


def put_app(directory: Path, name: str = "served.py") -> None:
    """Put the app into ``directory``: ``served:app``."""
    shutil.copy(Path(__file__).with_name("app.py"), directory / name)


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of a server: ``ASYNCLOG_…`` settings get Flask's prefix, other names stay as they are."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    prefixed = {f"FLASK_{name}" if name.startswith("ASYNCLOG_") else name: value for name, value in settings.items()}
    return {**kept, **prefixed}


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens at now, for servers that do not tell the one they took."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def start(
    directory: Path, command: Sequence[str], *, port: int = 0, stdin: int | None = subprocess.DEVNULL, **settings: str
) -> Iterator[Server]:
    """Run ``command`` in ``directory``, in a process group of its own that is gone at the end of the ``with`` block.

    Its stdout and stderr go to the file ``output``. Settings are environment variables, see `environment`.
    """
    with open(directory / "output", "ab") as output:
        process = subprocess.Popen(
            command, cwd=directory, env=environment(settings), stdin=stdin, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    server = Server(directory, process, port)
    try:
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):  # the group is gone when all went well
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Server:
    """A server that was started in a directory of its own."""

    def __init__(self, directory: Path, process: subprocess.Popen[bytes], port: int) -> None:
        self.directory = directory
        self.process = process
        self.port = port

    @property
    def log(self) -> Path:
        """The file that the app logs to."""
        return self.directory / "app.log"

    def output(self) -> str:
        """What the server and the app have written to stdout and stderr."""
        return (self.directory / "output").read_text(errors="replace")

    def pids(self, prefix: str = "imported") -> set[int]:
        """Processes that have left a file ``PREFIX-PID``; ``imported``: those that have imported the app."""
        return {int(file.name.rpartition("-")[2]) for file in self.directory.glob(f"{prefix}-*")}

    def wait_for_pids(self, count: int, prefix: str = "imported") -> None:
        """Wait until ``count`` processes in all have left a file ``PREFIX-PID``."""
        self.wait_while_running(lambda: len(self.pids(prefix)) >= count, f"{count} processes {prefix}")

    def wait_while_running(self, condition: Callable[[], object], what: str) -> None:
        """Wait for the condition; fail when the server ends first."""
        try:
            wait_for(lambda: self.process.poll() is not None or condition(), HANG / 2, what)
        except AssertionError as error:
            raise AssertionError(f"{error}; output:\n{self.output()}") from None
        assert self.process.poll() is None or condition(), f"the server ended before {what}; output:\n{self.output()}"

    def wait_until_up(self, processes: int = 0) -> None:
        """Wait until the server answers, and until so many processes have imported the app."""
        self.wait_while_running(self._answers, "an answer")
        self.wait_for_pids(processes)

    def get(self, path: str, timeout: float = HANG / 2) -> tuple[int, bytes]:
        """One request on a connection of its own: status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def signal(self, number: Signals) -> None:
        """Send a signal to the process that was started, not to its children."""
        self.process.send_signal(number)

    def end(self, number: Signals) -> float:
        """End it by a signal; returns how long that took, in seconds. Fails on a hang."""
        began = time.monotonic()
        self.signal(number)
        return self.wait(began)

    def wait(self, began: float) -> float:
        """Wait for the end of the process and of all in its group; returns the seconds since ``began``."""
        try:
            self.process.wait(HANG / 2)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the server does not end; output:\n{self.output()}") from None
        wait_for(lambda: not group_members(self.process.pid), HANG / 4, "the end of all processes of the server")
        return time.monotonic() - began

    def _answers(self) -> bool:
        try:
            return self.get("/ready", timeout=5)[0] == 200
        except (OSError, http.client.HTTPException):
            return False


def group_members(group: int) -> list[int]:
    """Processes of a process group that have not ended. Zombies have: nobody may ever reap those."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # ended meanwhile
            continue
        if int(its_group) == group and state != "Z":
            members.append(int(stat.parent.name))
    return members
