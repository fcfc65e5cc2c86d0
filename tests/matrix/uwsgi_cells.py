"""uWSGI, whose master runs no fork hooks of Python, and which has no Python threads unless it is told to."""

from __future__ import annotations

import dataclasses
import functools
import re
import signal
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from matrix.cells import Cell
from matrix.servers import INT, TERM, TRAFFIC, Event, Kind, cells, ended, reloaded
from matrix.serving import Server
from support import wait_for

#: A package that comes with the server, which is itself no module outside of it.
NEEDS = ("uwsgidecorators",)
COMMAND = (
    str(Path(sysconfig.get_path("scripts")) / "uwsgi"), "--http-socket", "127.0.0.1:PORT", "--module", "served:app",
    "--need-app", "--home", sys.prefix, "--add-header", "Connection: close",
)  # fmt: skip
MASTER = ("--master", "--processes", "2")


def reload(number: signal.Signals, server: Server) -> None:
    """Send the signal, and wait until the app is loaded again, by every process that had loaded it."""
    before = _starts(server)
    server.signal(number)
    wait_for(lambda: _starts(server) >= 2 * before, 60, "the reload")


def _starts(server: Server) -> int:
    return len(re.findall(r"^WSGI app 0 .* ready in ", server.output(), re.MULTILINE))


HUP: dict[str, Event] = {
    "SIGHUP under traffic, SIGTERM": functools.partial(reloaded, functools.partial(reload, signal.SIGHUP))
}
#: With ``--die-on-term`` SIGTERM and SIGQUIT change their meanings: this is the reload that waits for nothing.
BRUTAL: dict[str, Event] = {
    "SIGQUIT under traffic, SIGTERM": functools.partial(reloaded, functools.partial(reload, signal.SIGQUIT))
}
QUIT: dict[str, Event] = {"SIGQUIT, without --die-on-term": functools.partial(ended, signal.SIGQUIT)}


def row(
    *options: str, master: bool = True, import_logs: bool = False, events: Sequence[dict[str, Event]]
) -> list[Cell]:
    """Cells of uWSGI with these options."""
    options = (*(MASTER if master else ()), *options)
    kind = Kind(
        " ".join(["uWSGI", *options]) + ", logs at import" * import_logs,
        (*COMMAND, *options, "--die-on-term"),
        NEEDS,
        processes=2 if "--lazy-apps" in options else 1,
        records_at_import=5 if import_logs else 0,
    )
    without = dataclasses.replace(kind, command=(*COMMAND, *options))
    return [cell for event in events for cell in cells(without if event is QUIT else kind, event)]


ENDS = (TERM, INT)
ALL = (TERM, INT, QUIT, TRAFFIC, HUP, BRUTAL)

CELLS: list[Cell] = [
    *row(master=False, events=ENDS),
    *row(master=False, import_logs=True, events=ENDS),
    *row("--enable-threads", master=False, events=ENDS),
    *row("--enable-threads", "--threads", "4", master=False, import_logs=True, events=ENDS),
    *row(events=ALL),
    *row(import_logs=True, events=(TERM, INT, QUIT, TRAFFIC)),
    *row("--lazy-apps", events=ALL),
    *row("--lazy-apps", import_logs=True, events=(TERM, TRAFFIC)),
    *row("--enable-threads", events=ALL),
    *row("--enable-threads", import_logs=True, events=(TERM, TRAFFIC)),
    *row("--enable-threads", "--lazy-apps", events=(TERM, QUIT, TRAFFIC, HUP)),
    *row("--enable-threads", "--threads", "4", events=ALL),
    *row("--enable-threads", "--threads", "4", import_logs=True, events=(TERM, TRAFFIC)),
    *row("--enable-threads", "--threads", "4", "--lazy-apps", events=(TERM, QUIT, TRAFFIC, HUP)),
]
