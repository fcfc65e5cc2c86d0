"""gunicorn with our logger as its own: what the tests of ``flask_asynclog.gunicorn`` share."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from matrix.gunicorn_setup import Gunicorn
from matrix.serving import Server, environment, put_app
from matrix.traffic import Clients
from support import HANG, lines_so_far, log_lines, wait_for

LOGGER = "flask_asynclog.gunicorn.Logger"
#: Files for both logs.
FILES = ("--access-logfile", "access.log", "--error-logfile", "error.log")

#: The app of the matrix, and pages that do what a worker does to its logs.
PAGES = """
import logging, os, signal, sys, time
from flask import Flask, request
from served import app

def mine():
    return request.args.get("only", type=int) in (None, os.getpid())

@app.get("/print/<text>")
def print_it(text):
    if mine():
        print(text, "on stdout", flush=True)
        print(text, "on stderr", file=sys.stderr, flush=True)
    return {"pid": os.getpid()}

@app.get("/complain/<text>")
def complain(text):
    if mine():
        logging.getLogger("gunicorn.error").warning("complaint %s", text)
    return {"pid": os.getpid()}

@app.get("/stuck/<tag>")
def stuck(tag):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGABRT})
    app.logger.info("tag %s", tag)
    logging.getLogger("gunicorn.error").info("complaint %s", tag)
    time.sleep(600)

@app.get("/echo")
def echo():
    return "", 200, {"X-Echo": request.headers["X-Thing"]}
"""


@contextlib.contextmanager
def serve(
    directory: Path, *options: str, worker: str = "sync", preload: bool = False, workers: int = 2, **settings: str
) -> Iterator[Server]:
    """Serve with our logger and these options; its workers have booted when the ``with`` block begins.

    Settings are those of the app, as of `matrix.serving.environment`. What `configure` has written counts too.
    """
    (directory / "pages.py").write_text(PAGES)
    if not (directory / "own.py").exists():
        configure(directory, "")
    gunicorn = Gunicorn(worker, preload, module="pages")
    options = ("--config", "own.py", "--logger-class", LOGGER, *options)
    with gunicorn.start(directory, *options, workers=workers, **settings) as server:
        yield server


def configure(directory: Path, text: str) -> None:
    """Have ``text`` in gunicorn's configuration file, beside what the tests need there."""
    (directory / "new.py").write_text(f"from conf import *\n{text}\n")
    os.replace(directory / "new.py", directory / "own.py")


def refused(directory: Path, *options: str, **settings: str) -> tuple[int, str]:
    """Try to start gunicorn with our logger; its exit status, and what the user sees on the terminal."""
    put_app(directory)
    (directory / "pages.py").write_text(PAGES)
    command = [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:0", "--logger-class", LOGGER, *options]
    ended = subprocess.run(
        [*command, "pages:app"], check=False, cwd=directory, env=environment(settings), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=HANG,
    )  # fmt: skip
    return ended.returncode, ended.stdout


def tags(lines: list[str]) -> Counter[str]:
    """The tags of access lines; fails on a line that is none of them."""
    found: Counter[str] = Counter()
    for line in lines:
        match = re.fullmatch(r'127\.0\.0\.1 - - \[.+?\] "GET /tag/(\S+) HTTP/1\.1" 200 \d+ "-" "-"', line)
        assert match, f"not an access line: {line!r}"
        found[match[1]] += 1
    return found


def assert_each_once(clients: Clients, access: Path) -> None:
    """Every answered request has one access line, and no line is there twice."""
    found = tags(log_lines(access))
    assert clients.answered
    assert not clients.refused
    assert max(found.values()) == 1
    assert found.keys() >= set(clients.answered)
    assert found.keys() - set(clients.answered) <= {broken.partition(":")[0] for broken in clients.broken}


def get(server: Server, path: str) -> None:
    """Ask for a page that has to be there."""
    status, body = server.get(path)
    assert status == 200, body


def get_from(server: Server, pid: int, path: str) -> None:
    """Ask for a page that only this worker acts on, until it is the one that answers."""
    wait_for(lambda: json.loads(server.get(f"{path}?only={pid}")[1])["pid"] == pid, HANG / 4, f"an answer of {pid}")


def wait_for_line(path: Path, text: str) -> str:
    """Wait until a line of the log has ``text``, also while it rotates; returns that line."""
    return str(wait_for(lambda: next((line for line in lines_so_far(path) if text in line), None), HANG / 4, text))
