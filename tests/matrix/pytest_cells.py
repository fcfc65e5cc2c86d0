"""pytest on a project that uses the extension: nothing is left behind, nothing is hidden, nothing comes twice."""

from __future__ import annotations

import functools
import shutil
import sys
import time
from pathlib import Path

from matrix.cells import Cell, Result
from matrix.programs import lines_of, tags_of
from matrix.serving import start

#: The project. Tags are noted in the ledger once they are logged, see tagging.py.
PROJECT = """
import logging
from flask import Flask
from flask_asynclog import AsyncLog
from tagging import note

asynclog = AsyncLog()

def create_app(**config):
    app = Flask("project")
    app.config.from_mapping({"ASYNCLOG_FILENAME": "tagged.log", "ASYNCLOG_FLUSH_INTERVAL": 60, **config})
    asynclog.init_app(app)

    @app.get("/tag/<tag>")
    def tag(tag):
        logging.getLogger("project.views").info("tag=%s", tag)
        note(tag, "ledger")
        return {}

    return app
"""

#: What a process has of all that the extension may add to it.
CONFTEST = """
import logging, os, signal, threading, time
import pytest

def traces():
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.Logger.manager.loggerDict)]
    return {
        "threads": threading.enumerate(),
        "native threads": os.listdir("/proc/self/task"),
        "handlers": {
            (logger.name, handler)
            for logger in loggers for handler in logger.handlers if not type(handler).__module__.startswith("_pytest.")
        },
        "levels": {logger.name: logger.level for logger in loggers if logger.level},
        "files": sorted(set(filter(os.path.exists, map(target, os.listdir("/proc/self/fd"))))),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
    }

def target(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""

def settled_traces(goal):
    deadline = time.monotonic() + 10  # a thread may need a moment to be gone
    while traces() != goal and time.monotonic() < deadline:
        time.sleep(0.01)
    return traces()
"""

#: Each is a module of tests: what the project's developers may do.
TESTS = {
    "each test closes its app": """
import pytest
from conftest import settled_traces, traces
from project import create_app

@pytest.fixture
def app():
    before = traces()
    app = create_app()
    yield app
    assert app.extensions["asynclog"].close()
    assert settled_traces(before) == before

@pytest.mark.parametrize("number", range(20))
def test_requests(app, number, caplog):
    client = app.test_client()
    for request in range(5):
        assert client.get(f"/tag/{number}-{request}").status_code == 200
    messages = [message.partition(" id=")[0] for message in caplog.messages]
    assert [message for message in messages if message.startswith("tag=")] == [f"tag={number}-{n}" for n in range(5)]
    assert len([message for message in messages if message.startswith("Request GET ")]) == 5
    assert len([message for message in messages if message.startswith("Response 200 OK ")]) == 5
    assert len(messages) == 15
""",
    "nobody closes an app": """
import pytest
from project import create_app

@pytest.mark.parametrize("number", range(20))
def test_requests(number, caplog):
    client = create_app().test_client()
    for request in range(5):
        assert client.get(f"/tag/{number}-{request}").status_code == 200
    assert len(caplog.messages) == 15
""",
    "create_app 50 times for one file": """
import os
from conftest import settled_traces, traces
from project import asynclog, create_app

def test_fifty(caplog):
    before = traces()
    apps = [create_app() for _ in range(50)]
    for number, app in enumerate(apps):
        assert app.test_client().get(f"/tag/{number}").status_code == 200
    assert len(caplog.messages) == 150
    assert len(traces()["native threads"]) == len(before["native threads"]) + 1
    assert len(traces()["handlers"]) == len(before["handlers"]) + 1
    assert asynclog.stats().accepted == 150
    assert asynclog.close()
    assert settled_traces(before) == before
""",
    "ASYNCLOG_ENABLED=False": """
import logging, os
from conftest import traces
from project import create_app

def test_no_trace(caplog):
    caplog.set_level(logging.INFO)
    own = logging.FileHandler("tagged.log", encoding="utf-8")
    logging.getLogger().addHandler(own)
    before, files = traces(), sorted(os.listdir())
    app = create_app(ASYNCLOG_ENABLED=False, ASYNCLOG_FILENAME="logs/app.log")
    app.logger  # has Flask's own handler by now, or not, as pytest has it
    assert traces() == before
    for number in range(20):
        assert app.test_client().get(f"/tag/{number}").status_code == 200
    assert traces() == before
    assert {*os.listdir()} - {*files} == {"ledger"}
    assert caplog.messages == [f"tag={number}" for number in range(20)]
    assert app.extensions["asynclog"].stats().accepted == 0
    logging.getLogger().removeHandler(own)
    own.close()
""",
}
HOW = {"-W error": ("-W", "error"), "-X dev -W error": ("-X", "dev", "-W", "error")}


def run(tests: str, options: tuple[str, ...], directory: Path) -> Result:
    """pytest in a process of its own; it has nothing to complain of."""
    shutil.copy(Path(__file__).with_name("tagging.py"), directory)
    for name, code in {"project": PROJECT, "conftest": CONFTEST, "test_project": TESTS[tests]}.items():
        (directory / f"{name}.py").write_text(code)
    command = [sys.executable, *options, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    with start(directory, command, PYTHONDONTWRITEBYTECODE="1") as pytest:
        pytest.wait(time.monotonic())
    output, problems = pytest.output(), []
    if pytest.process.returncode != 0 or "flask_asynclog[" in output or "Warning" in output:
        problems.append(f"exit status {pytest.process.returncode}: {output[-3000:]}")
    return Result(lines_of(directory / "ledger"), tags_of(directory / "tagged.log"), problems=problems)


CELLS = [
    Cell(
        f"pytest {how}",
        tests,
        functools.partial(run, tests, options),
        quick=(tests, how) == ("each test closes its app", "-X dev -W error"),
    )
    for how, options in HOW.items()
    for tests in TESTS
]
