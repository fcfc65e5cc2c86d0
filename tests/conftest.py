"""Every test leaves the process as it found it: threads, handlers, levels, open files."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from hypothesis import settings

import flask_asynclog
from flask_asynclog import AsyncLog
from flask_asynclog.context import current
from support import open_fds, wait_for


def _put_benchmarks_within_reach() -> None:
    """Let tests import `benchmarks`, which is not installed, without the project's directory on the path."""
    directory = Path(__file__).resolve().parents[1] / "benchmarks"
    spec = spec_from_file_location("benchmarks", directory / "__init__.py", submodule_search_locations=[str(directory)])
    assert spec
    assert spec.loader
    package = sys.modules["benchmarks"] = module_from_spec(spec)
    spec.loader.exec_module(package)


_put_benchmarks_within_reach()

MakeApp = Callable[..., tuple[Flask, AsyncLog]]

# Kept in memory: the project may not be writable for the tests' user. Timing is no failure.
settings.register_profile("here", database=None, deadline=None)
settings.load_profile("here")


def pytest_configure() -> None:
    """The tests are about what is installed, not about the source tree beside them; their processes hear of Ctrl-C."""
    package, project = Path(flask_asynclog.__file__).resolve(), Path(__file__).resolve().parents[1]
    if package.is_relative_to(project) and "site-packages" not in package.parts:
        raise pytest.UsageError(f"flask_asynclog is imported from the source tree ({package}); install it first")
    # A shell ignores Ctrl-C for what it runs in the background, and so would every process that the tests start.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def in_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default file, app.log, lands in the test's own directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def leak_detector() -> Iterator[None]:
    """A thread, handler, level or open file that a test leaves behind fails it."""
    threads = set(threading.enumerate())
    handlers = _handlers()
    root_level = logging.getLogger().level
    files = open_fds()
    yield
    wait_for(lambda: set(threading.enumerate()) <= threads, 10, "the end of all threads of the test")
    assert _handlers() == handlers
    assert logging.getLogger().level == root_level
    assert {name for name in open_fds() - files if name.endswith((".log", ".lock"))} == set()


@pytest.fixture
def context_detector() -> Iterator[None]:
    """A context that is left to the code that runs after the request, on the same thread, fails the test."""
    yield
    leaked = current.get()
    current.set(None)
    assert leaked is None


def _handlers() -> dict[str, list[logging.Handler]]:
    # pytest's own come and go with the phases of a test.
    return {
        name: kept
        for name, logger in [("", logging.getLogger()), *logging.Logger.manager.loggerDict.items()]
        if isinstance(logger, logging.Logger)
        and (kept := [h for h in logger.handlers if not type(h).__module__.startswith("_pytest.")])
    }


@pytest.fixture
def make_app(request: pytest.FixtureRequest) -> Iterator[MakeApp]:
    """Make apps with `AsyncLog` on them, closed at the end of the test. Options as of `AsyncLog`."""
    made: list[AsyncLog] = []

    def make(name: str = request.node.originalname, **options: Any) -> tuple[Flask, AsyncLog]:
        app = Flask(name)
        options.setdefault("flush_interval", 0.01)
        asynclog = AsyncLog(app, **options)
        made.append(asynclog)
        return app, asynclog

    yield make
    for asynclog in made:
        asynclog.close()


@pytest.fixture
def switching() -> Iterator[None]:
    """The interpreter changes threads as often as it can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture
def make_alone(make_app: MakeApp) -> Iterator[MakeApp]:
    """Make one app in a test's body, and leave root as outside of tests: with our handler, and none of pytest's."""
    root, pytests = logging.getLogger(), []

    def make(*args: Any, **options: Any) -> tuple[Flask, AsyncLog]:
        made = make_app(*args, **options)
        ours = made[0].extensions["asynclog"].pipeline.handler
        pytests[:] = [handler for handler in root.handlers if handler is not ours]
        root.handlers[:] = [ours]
        return made

    yield make
    root.handlers[:] = [*pytests, *root.handlers]
