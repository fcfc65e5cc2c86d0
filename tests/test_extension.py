"""The extension: one line to adopt, several apps, clear refusals at start-up, flush, stop, stats and close."""

from __future__ import annotations

import fcntl
import gc
import json
import logging
import os
import shutil
import stat
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, got_request_exception

import flask_asynclog
from flask_asynclog import AsyncLog, ConfigError, Stats
from flask_asynclog.config import Settings
from support import HANG, assert_conserved, is_root, log_lines, open_fds, run_python, wait_for

MakeApp = Callable[..., tuple[Flask, AsyncLog]]


def logged(asynclog: AsyncLog, path: str = "app.log") -> list[str]:
    """The messages in the file so far, every record accounted for."""
    assert asynclog.flush(HANG)
    assert_conserved(asynclog.stats())
    return [line.split(" - ", 3)[3] for line in log_lines(Path(path))]


def threads_of_ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("flask_asynclog")]


# Adoption.


def test_one_line_is_enough() -> None:
    """``AsyncLog(app)``, with all defaults, and the app's records are in ``app.log``."""
    app = Flask("one_line")
    asynclog = AsyncLog(app)
    app.logger.info("hello")
    assert logged(asynclog) == ["hello"]
    asynclog.close()


def test_the_public_names() -> None:
    """What the package exports, with a version."""
    assert set(flask_asynclog.__all__) == {"AsyncLog", "ConfigError", "Stats", "__version__", "bind"}
    assert all(hasattr(flask_asynclog, name) for name in flask_asynclog.__all__)
    assert flask_asynclog.__version__[0].isdigit()
    assert (Path(flask_asynclog.__file__).parent / "py.typed").exists()


def test_init_app_later() -> None:
    """The application factory's way: options from the constructor and the call, the call's win over both others."""
    asynclog = AsyncLog(level="ERROR", filename="constructor.log", flush_interval=0.01)
    app = Flask("later")
    app.config.update(ASYNCLOG_LEVEL="DEBUG", ASYNCLOG_QUEUE_SIZE=77, ASYNCLOG_FILENAME="config.log")
    assert os.listdir() == []
    asynclog.init_app(app, filename="call.log")
    settings = app.extensions["asynclog"].settings
    assert (settings.level, settings.queue_size, settings.filename) == (logging.ERROR, 77, "call.log")
    app.logger.error("one")
    assert logged(asynclog, "call.log") == ["one"]
    asynclog.close()


def test_a_second_init_app_is_refused(make_app: MakeApp) -> None:
    """On the same app, by the same or another instance; the first one goes on, and the app has one set of hooks."""
    app, asynclog = make_app()
    for other in (asynclog, AsyncLog()):
        with pytest.raises(ConfigError, match=f"initialised on app '{app.name}' already: call init_app once"):
            other.init_app(app)
    app.test_client().get("/")
    assert [message.split()[0] for message in logged(asynclog)] == ["Request", "Response"]


def test_a_refused_app_can_be_tried_again() -> None:
    """After a ConfigError nothing is in place: the same app takes better settings."""
    app = Flask("again")
    before = logging.getLogger().handlers[:]
    Path("directory").mkdir()
    for wrong in ({"filename": "directory"}, {"level": "LOUD"}, {"redacts": ()}):
        with pytest.raises(ConfigError):
            AsyncLog(app, **wrong)
    assert "asynclog" not in app.extensions
    assert logging.getLogger().handlers == before
    asynclog = AsyncLog(app, flush_interval=0.01)
    app.test_client().get("/")
    assert len(logged(asynclog)) == 2
    asynclog.close()


def test_nothing_runs_before_the_first_record(make_app: MakeApp) -> None:
    """No thread and no open file at start-up: a server may still fork."""
    app, asynclog = make_app()
    assert threads_of_ours() == []
    assert not [name for name in open_fds() if name.startswith(os.getcwd())]
    app.logger.warning("one")
    assert threads_of_ours() == ["flask_asynclog"]
    assert logged(asynclog) == ["one"]


def test_the_state_is_in_extensions(make_app: MakeApp) -> None:
    """``app.extensions["asynclog"]`` has the settings in force, and the same operations for this app alone."""
    app, asynclog = make_app(queue_size=99)
    state = app.extensions["asynclog"]
    assert isinstance(state.settings, Settings)
    assert state.settings.queue_size == 99
    app.logger.warning("one")
    assert state.flush()
    assert state.stats() == asynclog.stats()
    assert state.stats().written == 1
    assert state.stop()
    assert state.close()


def test_the_extension_keeps_no_app() -> None:
    """An app that its owner drops is gone, though its `AsyncLog` lives."""
    app = Flask("dropped")
    asynclog = AsyncLog(app, flush_interval=0.01)
    app.test_client().get("/")
    assert asynclog.close()
    gone = weakref.ref(app)
    del app
    gc.collect()
    assert gone() is None


# The kill switch.


def test_the_kill_switch_leaves_no_trace() -> None:
    """``ENABLED = False``: no hook, handler, level, file or thread; `app.logger` as Flask makes it; no error."""
    app, untouched = Flask("killed"), Flask("untouched")
    root = logging.getLogger()
    before = (root.handlers[:], root.level, threading.enumerate(), open_fds())
    app.config["ASYNCLOG_ENABLED"] = False
    asynclog = AsyncLog(app, filename="logs/killed.log", level="DEBUG")
    for name in ("before_request_funcs", "after_request_funcs", "teardown_request_funcs", "url_value_preprocessors"):
        assert getattr(app, name) == getattr(untouched, name)
    assert not list(got_request_exception.receivers_for(app))
    assert app.test_client().get("/").headers.get("X-Request-ID") is None
    app.logger.warning("nowhere")
    assert (root.handlers, root.level, threading.enumerate(), open_fds()) == before
    assert app.logger.handlers == untouched.logger.handlers
    assert app.logger.level == logging.NOTSET
    assert os.listdir() == []
    assert asynclog.flush(HANG)
    assert asynclog.stop()
    assert asynclog.close()
    assert asynclog.stats() == Stats()
    assert app.extensions["asynclog"].settings.enabled is False


def test_the_kill_switch_does_not_hide_mistakes() -> None:
    """Settings are checked all the same: what is off in tests must work in production."""
    with pytest.raises(ConfigError, match="ASYNCLOG_LEVEL"):
        AsyncLog(Flask("mistaken"), enabled=False, level="LOUD")


# Several apps.


def test_one_extension_for_several_apps() -> None:
    """One instance, two apps, a file each; flush, stats and close cover both."""
    asynclog = AsyncLog(flush_interval=0.01)
    apps = [Flask("first"), Flask("second")]
    for app in apps:
        asynclog.init_app(app, filename=f"{app.name}.log", loggers=[app.name])
        app.test_client().get("/")
    assert asynclog.flush(HANG)
    assert asynclog.stats().written == 4
    for app in apps:
        assert len(logged(asynclog, f"{app.name}.log")) == 2
        assert app.extensions["asynclog"].stats().written == 2
    assert asynclog.close()
    assert threads_of_ours() == []


@pytest.mark.parametrize(
    "spelling", ["app.log", "./app.log", "sub/../app.log", "absolute", "linked/app.log", Path("app.log")]
)
def test_two_apps_with_one_file_share_one_pipeline(make_app: MakeApp, spelling: str | Path) -> None:
    """However the file is spelled: one queue, one thread, one handler, each record once."""
    Path("sub").mkdir()
    Path("linked").symlink_to(Path.cwd())
    first, asynclog = make_app("first", filename="app.log")
    second, other = make_app("second", filename=Path("app.log").absolute() if spelling == "absolute" else spelling)
    assert first.extensions["asynclog"].pipeline is second.extensions["asynclog"].pipeline
    first.logger.warning("one")
    second.logger.warning("two")
    second.test_client().get("/")
    assert threads_of_ours() == ["flask_asynclog"]
    assert [message.split()[0] for message in logged(asynclog)] == ["one", "two", "Request", "Response"]
    assert asynclog.stats() == other.stats()


def test_shared_statistics_are_counted_once() -> None:
    """An instance that serves two apps of one file counts that file once."""
    asynclog = AsyncLog(flush_interval=0.01)
    for name in ("first", "second"):
        asynclog.init_app(Flask(name))
    logging.getLogger("first").warning("one")
    assert asynclog.flush(HANG)
    assert asynclog.stats().written == 1
    asynclog.close()


def test_one_file_with_different_settings_is_refused(make_app: MakeApp) -> None:
    """The error names file and keys; the first app is not disturbed; what concerns one app alone may differ."""
    _, asynclog = make_app("first", max_bytes=1000)
    with pytest.raises(ConfigError) as caught:
        make_app("second", max_bytes=2000, level="DEBUG", request_events=(), trust_request_id=True)
    text = str(caught.value)
    assert str(Path("app.log").absolute()) in text
    assert "ASYNCLOG_LEVEL, ASYNCLOG_MAX_BYTES:" in text
    assert "ASYNCLOG_REQUEST_EVENTS" not in text
    assert "another ASYNCLOG_FILENAME" in text
    third, _ = make_app("third", max_bytes=1000, request_events=(), request_id_header=None)
    third.logger.warning("one")
    assert logged(asynclog) == ["one"]


def test_a_file_is_free_again_after_close(make_app: MakeApp) -> None:
    """When the last app is done with it, another may name it with other settings."""
    app, asynclog = make_app("first")
    app.logger.warning("one")
    assert asynclog.close()
    app, asynclog = make_app("second", format="%(asctime)s - %(name)s - %(levelname)s - %(message)s!")
    app.logger.warning("two")
    assert logged(asynclog) == ["one", "two!"]


def test_an_app_closed_beside_another(make_app: MakeApp) -> None:
    """One of two apps with the same file ends: the other goes on."""
    first, one = make_app("first")
    second, two = make_app("second")
    first.logger.warning("one")
    assert one.close()
    second.logger.warning("two")
    second.test_client().get("/")
    assert [message.split()[0] for message in logged(two)] == ["one", "two", "Request", "Response"]


# Flush, stop, stats, close.


@pytest.fixture
def locked() -> Iterator[Callable[[], None]]:
    """The log's lock is held by another; call to release it."""
    holder = os.open(".__app.lock", os.O_RDWR | os.O_CREAT, 0o640)
    fcntl.flock(holder, fcntl.LOCK_EX)

    def release() -> None:
        fcntl.flock(holder, fcntl.LOCK_UN)

    yield release
    os.close(holder)


def test_flush_waits_for_the_file(make_app: MakeApp) -> None:
    """True means: what was logged before the call is in the file, long before the flush interval is over."""
    app, asynclog = make_app(flush_interval=60)
    for number in range(1000):
        app.logger.info("%d", number)
    assert asynclog.flush(HANG)
    assert log_lines(Path("app.log"))[-1].endswith(" - 999")
    assert asynclog.stats().written == 1000
    assert asynclog.flush(0), "nothing waits: no time is needed"
    assert_conserved(asynclog.stats())


def test_flush_gives_up_at_its_deadline(
    make_app: MakeApp, locked: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """False means: not yet. Nothing is lost by that, and a later flush succeeds."""
    app, asynclog = make_app(lock_timeout=0.05)
    app.logger.warning("one")
    assert not asynclog.flush(0.2)
    stats = asynclog.stats()
    assert (stats.accepted, stats.written, stats.pending) == (1, 0, 1)
    locked()
    assert asynclog.flush(HANG)
    assert logged(asynclog) == ["one"]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert "does not take records" in said[0]
    assert "takes records again" in said[1]


def test_stop_drains_and_ends_the_thread(make_app: MakeApp) -> None:
    """Idempotent; the file is closed; the next record starts all again."""
    app, asynclog = make_app(flush_interval=60)
    for attempt in range(3):
        app.logger.warning("record %d", attempt)
        assert threads_of_ours() == ["flask_asynclog"]
        assert asynclog.stop()
        assert asynclog.stop()
        assert threads_of_ours() == []
        assert not [name for name in open_fds() if name.startswith(os.getcwd())]
        assert len(log_lines(Path("app.log"))) == attempt + 1
    assert_conserved(asynclog.stats())


def test_stop_gives_up_at_its_deadline(
    make_app: MakeApp, locked: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be written by then is counted as failed, and the law holds; afterwards logging goes on."""
    app, asynclog = make_app(lock_timeout=0.05)
    app.logger.warning("lost")
    assert not asynclog.stop(0.3)
    wait_for(lambda: not threads_of_ours(), what="the end of the thread")
    stats = asynclog.stats()
    assert (stats.accepted, stats.failed) == (1, 1)
    assert_conserved(stats)
    locked()
    app.logger.warning("found")
    assert logged(asynclog) == ["found"]
    assert capsys.readouterr().err


def test_stop_before_any_record(make_app: MakeApp) -> None:
    """Nothing to do is success."""
    _, asynclog = make_app()
    assert asynclog.flush(HANG)
    assert asynclog.stop()
    assert asynclog.stats() == Stats()
    assert AsyncLog().flush()
    assert AsyncLog().stop()
    assert AsyncLog().close()
    assert AsyncLog().stats() == Stats()


def test_statistics(make_app: MakeApp) -> None:
    """Accepted are the records past levels and filters; sums add up reason by reason."""
    app, asynclog = make_app()
    app.extensions["asynclog"].pipeline.handler.addFilter(lambda record: "secret" not in record.getMessage())
    app.logger.debug("below the level")
    app.logger.warning("secret")
    app.logger.warning("one")
    assert logged(asynclog) == ["one"]
    stats = asynclog.stats()
    assert (stats.accepted, stats.written, stats.batches) == (1, 1, 1)
    one = Stats(accepted=5, written=2, dropped=3, dropped_by={"queue_full": {"INFO": 3}})
    two = Stats(accepted=3, dropped=3, dropped_by={"queue_full": {"INFO": 1, "DEBUG": 1}, "unreadable": {"INFO": 1}})
    assert (one + two).dropped_by == {"queue_full": {"INFO": 4, "DEBUG": 1}, "unreadable": {"INFO": 1}}
    assert_conserved(one + two)


def test_close_takes_everything_off(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """Drained, thread ended, handlers off, file closed; the hooks go on for the app's other handlers."""
    app, asynclog = make_app()
    before = logging.getLogger().handlers[:-1]
    app.logger.warning("one")
    assert asynclog.close()
    assert asynclog.close()
    assert logging.getLogger().handlers == before
    assert threads_of_ours() == []
    app.logger.warning("two")
    app.logger.setLevel("INFO")
    caplog.clear()
    response = app.test_client().get("/")
    app.logger.setLevel(logging.NOTSET)
    assert response.headers["X-Request-ID"]
    assert [record.getMessage().split()[0] for record in caplog.records] == ["Request", "Response"]
    assert len(log_lines(Path("app.log"))) == 1
    assert asynclog.stats() == Stats()
    with pytest.raises(ConfigError, match="already"):
        asynclog.init_app(app)


# The file at start-up.


def test_the_file_and_its_directories_are_made(make_app: MakeApp) -> None:
    """Missing directories are made; log and lock have the mode that was asked for, whatever the umask."""
    before = os.umask(0o077)
    try:
        app, asynclog = make_app(filename="logs/of/the/app.log", file_mode=0o664)
        app.logger.warning("one")
        assert logged(asynclog, "logs/of/the/app.log") == ["one"]
    finally:
        os.umask(before)
    for name in ("app.log", ".__app.lock"):
        assert stat.S_IMODE(Path("logs/of/the", name).stat().st_mode) == 0o664


def test_the_working_directory_of_the_start_counts(make_app: MakeApp, tmp_path: Path) -> None:
    """A relative file name does not wander when the process changes its directory (daemons do)."""
    app, asynclog = make_app()
    (tmp_path / "elsewhere").mkdir()
    os.chdir(tmp_path / "elsewhere")
    app.logger.warning("one")
    assert asynclog.flush(HANG)
    assert len(log_lines(tmp_path / "app.log")) == 1
    assert os.listdir() == []
    assert_conserved(asynclog.stats())


def link_log() -> None:
    Path("victim").write_text("untouched\n")
    Path("app.log").symlink_to("victim")


def link_log_to_nothing() -> None:
    Path("app.log").symlink_to("missing")


def link_lock() -> None:
    Path("victim").write_text("untouched\n")
    Path(".__app.lock").symlink_to("victim")


def fifo_for_log() -> None:
    os.mkfifo("app.log")


def fifo_for_lock() -> None:
    os.mkfifo(".__app.lock")


def directory_for_log() -> None:
    Path("app.log").mkdir()


def directory_for_lock() -> None:
    Path(".__app.lock").mkdir()


@pytest.mark.parametrize(
    ("prepare", "about", "reason"),
    [
        (link_log, "app.log", "is a symbolic link"),
        (link_log_to_nothing, "app.log", "is a symbolic link"),
        (link_lock, ".__app.lock", "is a symbolic link"),
        (fifo_for_log, "app.log", "not a regular file"),
        (fifo_for_lock, ".__app.lock", "not a regular file"),
        (directory_for_log, "app.log", "directory"),
        (directory_for_lock, ".__app.lock", "directory"),
    ],
)
def test_files_that_cannot_be_used(prepare: Callable[[], None], about: str, reason: str) -> None:
    """Refused at start-up, with the option, the path, the reason and what to do; nothing is written, or made."""
    prepare()
    with pytest.raises(ConfigError) as caught:
        AsyncLog(Flask("refused"))
    text = str(caught.value)
    assert f"ASYNCLOG_FILENAME={str(Path('app.log').absolute())!r} cannot be used" in text
    assert f"{Path(about).absolute()} " in text
    assert reason in text.lower()
    assert "or set ASYNCLOG_FILENAME elsewhere" in text
    if Path("victim").exists():
        assert Path("victim").read_text() == "untouched\n"
    assert not Path("missing").exists()
    assert Path(".__app.lock").exists() == (about == ".__app.lock")


@pytest.mark.parametrize(
    "filename",
    ["file/app.log", f"{'x' * 300}.log", "/proc/app.log", "\ud800.log"],
    ids=["file", "long", "proc", "surrogate"],
)
def test_paths_that_cannot_be(filename: str) -> None:
    """A file for a directory, a name that is too long, a file system that takes no files, a name that is none."""
    Path("file").write_text("")
    with pytest.raises(ConfigError, match="ASYNCLOG_FILENAME"):
        AsyncLog(Flask("refused"), filename=filename)


NOBODY = """
import os, sys
from flask import Flask
from flask_asynclog import AsyncLog, ConfigError

app = Flask("demo")
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    AsyncLog(app, filename=sys.argv[1])
except ConfigError as error:
    print(error)
else:
    print("accepted")
"""


@pytest.fixture
def readable_directory() -> Iterator[Path]:
    """A directory that any user can look into, unlike pytest's."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    yield directory
    directory.chmod(0o755)
    shutil.rmtree(directory)


@pytest.mark.parametrize("what", ["directory", "log", "lock", "new directory"])
def test_a_place_without_permission(readable_directory: Path, what: str) -> None:
    """An ordinary user is told at start-up which path, which user id and what to grant."""
    log = readable_directory / "app.log"
    about = {"directory": ".__app.lock", "log": "app.log", "lock": ".__app.lock", "new directory": "new"}[what]
    if what == "new directory":
        log = readable_directory / "new" / "app.log"
    if what in ("log", "lock"):
        (readable_directory / about).touch()
        (readable_directory / about).chmod(0o400)
        readable_directory.chmod(0o777)
    else:
        readable_directory.chmod(0o555)
    said = run_python(NOBODY, log, cwd=Path("/")).stdout
    uid = 65534 if is_root() else os.geteuid()
    assert said.startswith(f"ASYNCLOG_FILENAME={str(log)!r} cannot be used: ")
    assert f"{readable_directory / about} is not writable for user id {uid}" in said
    assert "Give this user write permission" in said


# The console.


@pytest.mark.parametrize(
    ("debug", "console", "mirrored"),
    [(False, None, False), (True, None, True), (True, False, False), (False, True, True)],
)
def test_when_stderr_gets_the_lines_too(
    capsys: pytest.CaptureFixture[str], debug: bool, console: bool | None, mirrored: bool
) -> None:
    """``CONSOLE``: as told; by itself only in debug mode or on a terminal. Always text, whatever the file's format."""
    app = Flask("console")
    app.debug = debug
    asynclog = AsyncLog(app, console=console, format="json", flush_interval=0.01)
    app.logger.warning("one")
    assert asynclog.flush(HANG)
    error = capsys.readouterr().err
    assert error.endswith(" - console - WARNING - one\n") is mirrored
    assert bool(error) is mirrored
    assert json.loads(log_lines(Path("app.log"))[0])["message"] == "one"
    assert_conserved(asynclog.stats())
    asynclog.close()
    app.logger.setLevel(logging.NOTSET)


ON_A_TERMINAL = """
from flask import Flask
from flask_asynclog import AsyncLog
app = Flask("demo")
asynclog = AsyncLog(app)
app.logger.warning("one")
assert asynclog.flush()
"""


def test_on_a_terminal_stderr_gets_the_lines(tmp_path: Path) -> None:
    """Who starts the app by hand sees what it logs."""
    ours, theirs = os.openpty()
    run_python(ON_A_TERMINAL, cwd=tmp_path, stderr=theirs)
    os.close(theirs)
    seen = b""

    def read() -> bool:
        nonlocal seen
        seen += os.read(ours, 1000)
        return b"\n" in seen

    wait_for(read, 10, "a line on the terminal")
    os.close(ours)
    assert "WARNING" in seen.decode()
    assert seen.decode().strip().endswith(" one")


def test_options_are_not_shared_between_instances() -> None:
    """Options given to one instance, or one call, do not turn up in another."""
    asynclog = AsyncLog(queue_size=5)
    made: list[Any] = []
    for name, options in (("first", {"level": "ERROR"}), ("second", {})):
        app = Flask(name)
        asynclog.init_app(app, filename=f"{name}.log", **options)
        made.append(app.extensions["asynclog"].settings)
    assert [(s.level, s.queue_size) for s in made] == [(logging.ERROR, 5), (logging.INFO, 5)]
    asynclog.close()
