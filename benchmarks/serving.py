"""gunicorn with the app of a contender, on loopback; two workers, each connection for one request."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flask import Flask

from benchmarks.block import PREAMBLE

WORKERS = 2

CONFIG = """
import gc, os
bind = "127.0.0.1:0"
control_socket_disable = True
loglevel = "warning"

def when_ready(server):
    with open("port.new", "w") as file:
        file.write(str(server.LISTENERS[0].sock.getsockname()[1]))
    os.rename("port.new", "port")

def post_worker_init(worker):
    gc.collect()  # once in a process's life Python goes through all that was imported: not while it is measured
    open(f"booted-{worker.pid}", "w").close()
"""


def unavailable() -> str:
    """Why there is no server, or no client for it; empty when there is."""
    if not hasattr(select, "epoll") or not os.path.isdir("/proc/self"):
        return "the client and the CPU times of the server need Linux"
    return "" if importlib.util.find_spec("gunicorn") else "gunicorn is not installed: the bench extra has it"


def create() -> Flask:
    """The app of a worker: the contender and its directory are in the environment."""
    from benchmarks import app
    from benchmarks.contenders import CONTENDERS

    contender = CONTENDERS[os.environ["BENCH_CONTENDER"]]
    requests = os.environ["BENCH_REQUESTS"] == "1"
    made, its = app.make(contender, Path(os.environ["BENCH_LOGS"]), requests=requests)
    if contender.name != "ours":  # which drains by itself
        atexit.register(its.close)
    return made


@dataclass
class Server:
    """A running one."""

    port: int
    process: subprocess.Popen[bytes]
    workers: list[int]

    def pids(self) -> list[int]:
        """Master and workers."""
        return [self.process.pid, *self.workers]

    def cpu(self) -> float:
        """Seconds of CPU time that its workers have used, to the hundredth."""
        used = 0
        for pid in self.workers:
            # Behind the name, which may have anything in it; 11 fields on, times in the program and in the kernel.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            used += int(fields[11]) + int(fields[12])
        return used / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def serve(contender: str, directory: Path, *, requests: bool = True, workers: int = WORKERS) -> Iterator[Server]:
    """Serve from a directory of its own beside the logs; ended gracefully when the ``with`` block ends."""
    place = directory.parent / f"server-{time.monotonic_ns()}"
    place.mkdir()
    (place / "conf.py").write_text(CONFIG)
    # gunicorn is run by a file, whose directory is all that comes onto the path.
    (place / "run.py").write_text(PREAMBLE + "from gunicorn.app.wsgiapp import run\nrun()\n")
    command = [
        sys.executable,
        "run.py",
        "--config",
        "conf.py",
        "--workers",
        str(workers),
        "benchmarks.serving:create()",
    ]
    environment = {**os.environ, "BENCH_CONTENDER": contender, "BENCH_LOGS": str(directory)}
    environment["BENCH_REQUESTS"] = str(int(requests))
    process = subprocess.Popen(command, cwd=place, env=environment, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while len(booted := list(place.glob("booted-*"))) < workers or not (place / "port").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"gunicorn did not start, exit status {process.poll()}")
            time.sleep(0.01)
        port = int((place / "port").read_text())
        yield Server(port, process, [int(file.name.partition("-")[2]) for file in booted])
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
