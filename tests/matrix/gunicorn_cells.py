"""gunicorn: its kinds of workers, with and without ``--preload``, and all that can happen to them."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from matrix.cells import Cell, Result
from matrix.evidence import entries, read_log, result
from matrix.gunicorn_setup import Gunicorn
from matrix.serving import Server, group_members
from matrix.traffic import Clients
from support import HANG, wait_for

Event = Callable[[Gunicorn, Path], Result]

#: Nothing is written before the end: what a process has logged is in its memory when it ends. Then it is rotated.
IN_MEMORY = {"ASYNCLOG_FLUSH_INTERVAL": "60", "ASYNCLOG_MAX_BYTES": "20000", "ASYNCLOG_BACKUP_COUNT": "1000"}


#: gunicorn passes SIGINT on to its workers as SIGQUIT.
QUIT = (signal.SIGINT, signal.SIGQUIT)


def ask_200(server: Server, *, keep_alive: bool = True) -> tuple[Clients, list[str]]:
    """200 requests of 4 clients; and the problem, should most of their 600 records not be in memory only."""
    clients = Clients(server, 4, keep_alive=keep_alive)
    clients.ask(50)
    written, _ = read_log(server.log)
    # The first batch, of up to 256, is what comes before the thread runs: not few where the machine is busy.
    early = [f"{len(written)} records were written before the end"] if len(written) > 300 else []
    return clients, early


def end_by(number: signal.Signals, gunicorn: Gunicorn, directory: Path, *options: str, **settings: str) -> Result:
    """A signal to the master when all records are in memory."""
    with gunicorn.start(directory, *options, **{**IN_MEMORY, **settings}) as server:
        # gthread that has to quit in the middle of handing on a connection, also one that was closed, waits for itself,
        # until it is killed.
        clients, early = ask_200(server, keep_alive=gunicorn.worker != "gthread" or number not in QUIT)
        seconds = server.end(number)
    # gunicorn's sync worker may still be in the middle of sending what has arrived, and shows where it was.
    return result(server, clients, seconds=seconds, problems=early, interrupts=number in QUIT)


def end_under_traffic(gunicorn: Gunicorn, directory: Path) -> Result:
    """SIGTERM to the master while clients ask."""
    with gunicorn.start(directory, **IN_MEMORY) as server:
        clients = Clients(server, 4)
        clients.start()
        try:
            clients.wait_for_more(100)
            seconds = server.end(signal.SIGTERM)
        finally:
            clients.stop()
    return result(server, clients, seconds=seconds)


def logs_at_import(gunicorn: Gunicorn, directory: Path) -> Result:
    """The app logs while it is imported, then SIGTERM."""
    return end_by(signal.SIGTERM, gunicorn, directory, MATRIX_RECORDS_AT_IMPORT="20")


def hang_up(gunicorn: Gunicorn, directory: Path) -> Result:
    """SIGHUP, three times, while clients ask: old workers end, new ones start."""
    with gunicorn.start(directory, **IN_MEMORY) as server:
        # uvicorn may serve a connection that came as it began to end for ever; gunicorn then kills it.
        clients = Clients(server, 3, keep_alive=gunicorn.worker != "UvicornWorker")
        clients.start()
        try:
            for generation in (2, 3, 4):
                clients.wait_for_more(50)
                server.signal(signal.SIGHUP)
                server.wait_for_pids(2 * generation, "booted")
            clients.wait_for_more(50)
        finally:
            clients.stop()
        seconds = server.end(signal.SIGTERM)
    return result(server, clients, seconds=seconds)


def upgrade(number: signal.Signals, gunicorn: Gunicorn, directory: Path) -> Result:
    """SIGUSR2 while clients ask: a new master beside the old one, which then ends by a signal."""
    pauses = gunicorn.worker == "gthread" and number in QUIT  # see `end_by`
    with gunicorn.start(directory, **IN_MEMORY) as server:
        clients = Clients(server, 3, keep_alive=not pauses)
        clients.start()
        try:
            clients.wait_for_more(50)
            server.signal(signal.SIGUSR2)
            server.wait_for_pids(4, "booted")
            clients.wait_for_more(50)
            if pauses:
                clients.stop()
            server.signal(number)
            server.process.wait(HANG / 2)
            if pauses:
                later = Clients(server, 3, name="later")
                later.ask(20)
                clients.asked += later.asked
                clients.answered += later.answered
            else:
                clients.wait_for_more(50)
        finally:
            clients.stop()
        (master,) = server.pids("master") - {server.process.pid}
        began = time.monotonic()
        os.kill(master, signal.SIGTERM)
        seconds = server.wait(began)
    return result(
        server, clients, seconds=seconds, interrupts=number == signal.SIGQUIT,
        expected_output=r"(?s)Shutting down: Master.*Shutting down: Master",
    )  # fmt: skip


def move_and_reopen(gunicorn: Gunicorn, directory: Path) -> Result:
    """The log is moved away and SIGUSR1 is sent, while clients ask: what comes later is in a new file."""
    moved = directory / "moved.log"
    with gunicorn.start(directory) as server:
        clients = Clients(server, 3)
        clients.start()
        try:
            clients.wait_for_more(50)
            server.wait_while_running(server.log.exists, "a log")
            server.log.rename(moved)
            server.signal(signal.SIGUSR1)
            server.wait_while_running(server.log.exists, "a new log")
            clients.wait_for_more(50)
        finally:
            clients.stop()
        seconds = server.end(signal.SIGTERM)
    problems = [f"{file.name} is empty" for file in (moved, server.log) if not read_log(file)[0]]
    return result(server, clients, seconds=seconds, logs=[moved, server.log], problems=problems)


def replace_workers(gunicorn: Gunicorn, directory: Path) -> Result:
    """``--max-requests 30`` while clients ask: workers come and go."""
    with gunicorn.start(directory, "--max-requests", "30", **IN_MEMORY) as server:
        clients = Clients(server, 4)
        clients.start()
        try:
            server.wait_for_pids(6, "exited")
        finally:
            clients.stop()
        server.wait_while_running(lambda: replaced(server), "the last new worker")
        seconds = server.end(signal.SIGTERM)
    return result(server, clients, seconds=seconds)


def replaced(server: Server) -> bool:
    """Whether two workers are up and none has yet to make room for another, which might miss its SIGTERM."""
    ending = set(map(int, re.findall(r"\[(\d+)\] \[INFO\] Autorestarting worker", server.output())))
    return ending == server.pids("exited") and len(server.pids("booted")) == len(ending) + 2


def reload_app(gunicorn: Gunicorn, directory: Path) -> Result:
    """``--reload``: the app's file changes twice while clients ask."""
    with gunicorn.start(directory, "--reload", **IN_MEMORY) as server:
        clients = Clients(server, 3)
        clients.start()
        try:
            for generation in (2, 3):
                clients.wait_for_more(50)
                os.utime(directory / "served.py", (time.time() + generation, time.time() + generation))
                server.wait_for_pids(2 * generation, "booted")
            clients.wait_for_more(50)
        finally:
            clients.stop()
        seconds = server.end(signal.SIGTERM)
    return result(server, clients, seconds=seconds)


def abort_worker(gunicorn: Gunicorn, directory: Path) -> Result:
    """SIGABRT to a worker, which is what gunicorn sends to one that hangs."""
    with gunicorn.start(directory, workers=1, **IN_MEMORY) as server:
        clients, early = ask_200(server)
        (worker,) = server.pids("booted")
        began = time.monotonic()
        os.kill(worker, signal.SIGABRT)
        wait_for(lambda: worker not in group_members(server.process.pid), HANG / 2, "the end of the worker")
        seconds = time.monotonic() - began
        server.wait_for_pids(2, "booted")
        server.end(signal.SIGTERM)
    return result(server, clients, seconds=seconds, problems=early, interrupts=True)


def time_out(gunicorn: Gunicorn, directory: Path) -> Result:
    """``--timeout 2`` and a view that hangs: gunicorn aborts the worker."""
    with gunicorn.start(directory, "--timeout", "2", workers=1, **IN_MEMORY) as server:
        clients, early = ask_200(server)
        (worker,) = server.pids("booted")
        hanging = Clients(server, 1, path="/hang/", name="hanging")
        hanging.ask(1)
        server.wait_while_running(lambda: worker in server.pids("exited"), "the end of the worker")
        server.wait_for_pids(2, "booted")
        seconds = server.end(signal.SIGTERM)
    clients.asked += hanging.asked
    problems = [*early, *(f"answered: {answer}" for answer in hanging.answered)]
    return result(
        server, clients, seconds=seconds, problems=problems, interrupts=True,
        also=entries(["hanging0-0"], ["request", "view"]), expected_output="WORKER TIMEOUT",
    )  # fmt: skip


ALL = [Gunicorn(worker, preload) for worker in ("sync", "gthread", "gevent") for preload in (False, True)]
UVICORN = Gunicorn("UvicornWorker")
PRELOADED = [gunicorn for gunicorn in ALL if gunicorn.preload]

EVENTS: dict[str, tuple[Event, list[Gunicorn]]] = {
    "SIGTERM": (partial(end_by, signal.SIGTERM), [*ALL, UVICORN]),
    "SIGINT": (partial(end_by, signal.SIGINT), ALL),
    "SIGQUIT": (partial(end_by, signal.SIGQUIT), ALL),
    "SIGTERM under traffic": (end_under_traffic, ALL),
    "logs at import, SIGTERM": (logs_at_import, PRELOADED),
    "SIGHUP 3 times under traffic": (hang_up, [*ALL, UVICORN]),
    "SIGUSR2, old master SIGQUIT": (partial(upgrade, signal.SIGQUIT), ALL),
    "SIGUSR2, old master SIGTERM": (partial(upgrade, signal.SIGTERM), ALL),
    "log moved, SIGUSR1": (move_and_reopen, ALL),
    "--max-requests under traffic": (replace_workers, ALL),
    "--reload under traffic": (reload_app, [gunicorn for gunicorn in ALL if not gunicorn.preload]),
    "SIGABRT to a worker": (abort_worker, ALL),
    # A view that hangs in a thread of gthread does not keep its main thread from saying that it is alive.
    "--timeout": (time_out, [gunicorn for gunicorn in ALL if gunicorn.worker != "gthread"]),
}

QUICK = {
    ("gunicorn gthread --preload", "SIGTERM"),
    ("gunicorn sync", "SIGUSR2, old master SIGQUIT"),
    ("gunicorn gthread", "log moved, SIGUSR1"),
    ("gunicorn sync --preload", "logs at import, SIGTERM"),
}

CELLS: list[Cell] = [
    Cell(gunicorn.row, event, partial(happen, gunicorn), quick=(gunicorn.row, event) in QUICK, needs=gunicorn.needs)
    for event, (happen, rows) in EVENTS.items()
    for gunicorn in rows
]
