"""gunicorn's own logs through our logger: master and workers, rotated, reopened, reloaded, with real processes."""

from __future__ import annotations

import importlib.util
import inspect
import os
import pwd
import re
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGHUP, SIGTERM, SIGUSR1
from typing import Any

import pytest
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config

from flask_asynclog import gunicorn
from flask_asynclog.gunicorn import Logger
from flask_asynclog.handlers import AsyncRotatingFileHandler
from logged_server import FILES, assert_each_once, configure, get, get_from, refused, serve, tags, wait_for_line
from matrix.serving import Server
from matrix.traffic import Clients
from support import HANG, is_root, lines_so_far, log_files, log_lines, wait_for

sets_up_again = pytest.mark.skipif(
    "self.log.setup(" not in inspect.getsource(Arbiter.setup), reason="this gunicorn keeps its log's settings at HUP"
)
#: Small files, so that some hundred lines rotate often; none is deleted.
ROTATION = ("-e", "ASYNCLOG_MAX_BYTES=4000", "-e", "ASYNCLOG_BACKUP_COUNT=1000")


def ended(server: Server) -> str:
    """End it by SIGTERM; what went to stderr and stdout."""
    server.end(SIGTERM)
    assert server.process.returncode == 0, server.output()
    return server.output()


@pytest.mark.parametrize(
    ("worker", "preload", "workers"),
    [("sync", True, 4), ("gthread", False, 2), ("gevent", False, 2)],
)
def test_every_line_once(tmp_path: Path, worker: str, preload: bool, workers: int) -> None:
    """Still in memory at SIGTERM, then through rotations: each request, each worker's boot, each line of the master."""
    if importlib.util.find_spec("gevent") is None and worker == "gevent":
        pytest.skip("needs gevent")
    waiting = ("-e", "ASYNCLOG_FLUSH_INTERVAL=60")
    with serve(tmp_path, *FILES, *ROTATION, *waiting, worker=worker, preload=preload, workers=workers) as server:
        clients = Clients(server, 4)
        clients.ask(50)
        assert len(lines_so_far(tmp_path / "access.log")) < 100, "written before the end"
        assert ended(server) == ""
        assert len(clients.answered) == 200
        assert_each_once(clients, tmp_path / "access.log")
        assert len(log_files(tmp_path / "access.log")) > 3
        assert max(file.stat().st_size for file in log_files(tmp_path / "access.log")) <= 4000
        assert_life_of(server, server.pids("booted"))


def assert_life_of(server: Server, workers: set[int]) -> None:
    """The error log has the master's start and end once, and each worker's boot and end."""
    log = server.directory / "error.log"
    master = server.process.pid
    said = Counter(re.sub(r"^\[.+?\] ", "", line) for line in log_lines(log))
    head = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\] \[\d+\] \[\w+\] ")
    assert all(map(head.match, log_lines(log)))
    assert said[f"[{master}] [INFO] Handling signal: term"] == 1
    assert said[f"[{master}] [INFO] Shutting down: Master"] == 1
    for pid in workers:
        assert said[f"[{pid}] [INFO] Booting worker with pid: {pid}"] == 1
        assert said[f"[{pid}] [INFO] Worker exiting (pid: {pid})"] == 1


def test_options_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``ASYNCLOG_…`` variables are the options, those of ``raw_env`` win; the app's own variables are the app's."""
    monkeypatch.setenv("ASYNCLOG_MAX_BYTES", "1000000")
    monkeypatch.setenv("ASYNCLOG_BACKUP_COUNT", "1000")
    monkeypatch.setenv("ASYNCLOG_FILE_MODE", "0o600")
    with serve(tmp_path, *FILES, "-e", "ASYNCLOG_MAX_BYTES=2000", ASYNCLOG_FILE_MODE="0o644") as server:
        clients = Clients(server, 2)
        clients.ask(50)
        assert ended(server) == ""
    assert_each_once(clients, tmp_path / "access.log")
    assert len(log_files(tmp_path / "access.log")) > 2
    for file in log_files(tmp_path / "access.log") + log_files(tmp_path / "error.log"):
        assert file.stat().st_size <= 2000
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "app.log").stat().st_mode) == 0o644


def test_one_file_for_all(tmp_path: Path) -> None:
    """Access log, error log and app log in one rotated file: each line once and in its own format."""
    files = ("--access-logfile", "all.log", "--error-logfile", "./all.log")
    settings = {"ASYNCLOG_FILENAME": "all.log", "ASYNCLOG_MAX_BYTES": "4000", "ASYNCLOG_BACKUP_COUNT": "1000"}
    with serve(tmp_path, *files, *ROTATION, preload=True, workers=3, **settings) as server:
        clients = Clients(server, 3)
        clients.ask(60)
        assert ended(server) == ""
        lines = log_lines(tmp_path / "all.log")
        access = [line for line in lines if line.startswith("127.0.0.1 - - ")]
        app = [line for line in lines if re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - served - INFO - ", line)]
        assert tags(access) == dict.fromkeys(clients.answered, 1)
        assert Counter(re.findall(r" - tag (\S+)$", "\n".join(app), re.MULTILINE)) == tags(access)
        assert len(app) == 3 * len(clients.answered) == 540
        assert {line[0] for line in set(lines).difference(access, app)} == {"["}
        for pid in server.pids("booted"):
            assert sum(line.endswith(f"Booting worker with pid: {pid}") for line in lines) == 1
    assert max(file.stat().st_size for file in log_files(tmp_path / "all.log")) <= 4000


def test_an_app_that_disagrees_about_its_file(tmp_path: Path) -> None:
    """The same file with another size in the app: the worker does not boot, and the reason is in the log."""
    options = ("--error-logfile", "-", "--access-logfile", "all.log", "-e", "ASYNCLOG_MAX_BYTES=4000")
    status, seen = refused(tmp_path, *options, ASYNCLOG_FILENAME="all.log", ASYNCLOG_MAX_BYTES="5000")
    assert status == 3
    assert re.search(r"ConfigError: .*/all\.log is in use in this process with another ASYNCLOG_MAX_BYTES: use ", seen)
    assert "Worker failed to boot" in seen


@pytest.mark.parametrize(
    ("option", "what"),
    [
        ("ASYNCLOG_MAX_BITES=4000", "unknown option ASYNCLOG_MAX_BITES=4000: did you mean ASYNCLOG_MAX_BYTES?"),
        ("ASYNCLOG_MAX_BYTES=many", "ASYNCLOG_MAX_BYTES='many' (str) is not allowed"),
    ],
)
def test_a_wrong_option(tmp_path: Path, option: str, what: str) -> None:
    """gunicorn does not start; the last line that the user sees says why."""
    status, seen = refused(tmp_path, *FILES, "-e", option)
    assert status == 1
    assert what in seen.splitlines()[-1]


def test_a_symbolic_link(tmp_path: Path) -> None:
    """A link is not followed: gunicorn does not start, and says so. What the link leads to stays as it is."""
    (tmp_path / "real.log").write_text("as it was\n")
    (tmp_path / "link.log").symlink_to("real.log")
    status, seen = refused(tmp_path, "--error-logfile", "link.log")
    assert status == 1
    assert "link.log is a symbolic link. Links are not followed: name the real file" in seen.splitlines()[-1]
    assert (tmp_path / "real.log").read_text() == "as it was\n"


@pytest.fixture
def make_logger(tmp_path: Path) -> Iterator[Callable[..., Logger]]:
    """Make gunicorn's logger in this process, with its error log in a file; taken away at the end of the test."""
    made: list[Logger] = []

    def make(**options: object) -> Logger:
        config = Config()
        for name, value in {"errorlog": "error.log", **options}.items():
            config.set(name, value)
        made.append(Logger(config))
        return made[-1]

    yield make
    for logger in made:
        for file in logger.error_log.handlers[:]:
            logger.error_log.removeHandler(file)
            file.close()


@pytest.mark.skipif(not is_root(), reason="needs root")
def test_a_link_swapped_in_for_the_lock(
    tmp_path: Path, make_logger: Callable[..., Logger], monkeypatch: pytest.MonkeyPatch
) -> None:
    """root gives the lock to the workers' user, and not what somebody has put a link to in its place."""
    victim = tmp_path / "victim"
    victim.touch()

    class Swapped(AsyncRotatingFileHandler):
        """Somebody is there between the making of the lock and what is done with it."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            os.unlink(self.lock_filename)
            os.symlink(victim, self.lock_filename)

    monkeypatch.setattr(gunicorn, "AsyncRotatingFileHandler", Swapped)
    make_logger(user="nobody")
    assert victim.stat().st_uid == 0


def test_a_link_swapped_in_for_the_error_log(
    tmp_path: Path, make_logger: Callable[..., Logger], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is printed does not go where somebody's link leads."""
    logger = make_logger(capture_output=False)
    victim = tmp_path / "victim"
    victim.touch()
    (tmp_path / "error.log").rename(tmp_path / "moved.log")
    (tmp_path / "error.log").symlink_to(victim)
    with open("printed", "w") as printed, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", printed)
        patched.setattr(sys, "stderr", printed)
        with pytest.raises(OSError, match="symbolic links"):
            logger._capture_output()
        print("text", flush=True)
    assert (victim.read_text(), Path("printed").read_text()) == ("", "text\n")


def test_reloads_under_traffic(tmp_path: Path) -> None:
    """SIGHUP twice while clients ask and files rotate: each line once, of old workers and new."""
    with serve(tmp_path, *FILES, *ROTATION, preload=True) as server:
        clients = Clients(server, 3)
        clients.start()
        for generation in (2, 3):
            clients.wait_for_more(50)
            server.signal(SIGHUP)
            server.wait_for_pids(2 * generation, "booted")
        clients.wait_for_more(50)
        clients.stop()
        assert ended(server) == ""
        assert_each_once(clients, tmp_path / "access.log")
        assert_life_of(server, server.pids("booted"))


@sets_up_again
def test_a_reload_with_other_files(tmp_path: Path) -> None:
    """SIGHUP after the files were edited: new lines in the new files only, and the master has closed the old ones."""
    configure(tmp_path, 'accesslog = "first.log"\nerrorlog = "first-error.log"')
    with serve(tmp_path) as server:
        before = Clients(server, 2, name="before")
        before.ask(20)
        assert str(tmp_path / "first-error.log") in files_of(server.process.pid)
        configure(tmp_path, 'accesslog = "second.log"\nerrorlog = "second-error.log"')
        server.signal(SIGHUP)
        server.wait_for_pids(2, "exited")
        after = Clients(server, 2, name="after")
        after.ask(20)
        assert not {name for name in files_of(server.process.pid) if "first" in name}
        assert ended(server) == ""
        assert_each_once(before, tmp_path / "first.log")
        assert_each_once(after, tmp_path / "second.log")
        first, second = (Counter(log_lines(tmp_path / f"{name}-error.log")) for name in ("first", "second"))
        assert max((first + second).values()) == 1
        for pid in server.pids("booted"):
            said = [line for line in (*first, *second) if line.endswith(f"Booting worker with pid: {pid}")]
            assert len(said) == 1
        assert any(line.endswith("Handling signal: hup") for line in first)
        assert any(line.endswith("Handling signal: term") for line in second)


def files_of(pid: int) -> set[str]:
    """The files that a process has open."""
    return {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()}


@sets_up_again
def test_a_reload_with_another_size(tmp_path: Path) -> None:
    """SIGHUP after a rotation option was edited: it counts from then on."""
    configure(tmp_path, 'raw_env = ["ASYNCLOG_MAX_BYTES=1000000", "ASYNCLOG_BACKUP_COUNT=1000"]')
    with serve(tmp_path, *FILES) as server:
        configure(tmp_path, 'raw_env = ["ASYNCLOG_MAX_BYTES=2000", "ASYNCLOG_BACKUP_COUNT=1000"]')
        server.signal(SIGHUP)
        server.wait_for_pids(4, "booted")
        clients = Clients(server, 2)
        clients.ask(30)
        assert ended(server) == ""
    assert_each_once(clients, tmp_path / "access.log")
    assert len(log_files(tmp_path / "access.log")) > 2


@sets_up_again
def test_a_reload_with_a_wrong_option(tmp_path: Path) -> None:
    """gunicorn goes on with the options that it had, and says why."""
    configure(tmp_path, "")
    with serve(tmp_path, *FILES) as server:
        configure(tmp_path, 'raw_env = ["ASYNCLOG_MAX_BITES=2000"]')
        server.signal(SIGHUP)
        server.wait_for_pids(4, "booted")
        clients = Clients(server, 2)
        clients.ask(10)
        seen = ended(server)
    assert "ConfigError: unknown option ASYNCLOG_MAX_BITES=2000: did you mean ASYNCLOG_MAX_BYTES?" in seen
    wait_for_line(tmp_path / "error.log", "keeping the previous one")
    assert_each_once(clients, tmp_path / "access.log")


def test_files_moved_away(tmp_path: Path) -> None:
    """As logrotate does it, with USR1: from then on all lines go to new files, and the moved ones stay as they are."""
    with serve(tmp_path, *FILES) as server:
        clients = Clients(server, 3)
        clients.start()
        wait_for(lambda: len(lines_so_far(tmp_path / "access.log")) >= 30, HANG / 4, "30 lines")
        for name in ("access.log", "error.log"):
            os.rename(tmp_path / name, tmp_path / f"moved-{name}")
        server.signal(SIGUSR1)
        for name in ("access.log", "error.log"):
            wait_for((tmp_path / name).exists, HANG / 4, f"a new {name}")
        clients.wait_for_more(30)
        clients.stop()
        assert ended(server) == ""
        moved, new = (log_lines(tmp_path / f"{prefix}access.log") for prefix in ("moved-", ""))
        assert len(moved) >= 30
        assert len(new) >= 30
        assert tags(moved) + tags(new) == dict.fromkeys(clients.answered, 1)
        assert all(f"pid: {pid}" in (tmp_path / "moved-error.log").read_text() for pid in server.pids("booted"))
        wait_for_line(tmp_path / "error.log", "Shutting down: Master")


@pytest.mark.parametrize("page", ["hang", "stuck"])
def test_a_worker_that_hangs(tmp_path: Path, page: str) -> None:
    """Ended by SIGABRT, or by SIGKILL where that does nothing: its lines are there, and gunicorn's own about it."""
    files = ("--access-logfile", "access.log", "--error-logfile", "error.log", "--timeout", "1")
    with serve(tmp_path, *files, workers=1) as server:
        (worker,) = server.pids("booted")
        clients = Clients(server, 1)
        clients.ask(5)
        Clients(server, 1, path=f"/{page}/", name="hangs").ask(1)
        server.wait_for_pids(2, "booted")
        ended(server)
    error = [re.sub(r"^\[.+?\] ", "", line) for line in log_lines(tmp_path / "error.log")]
    assert f"[{server.process.pid}] [CRITICAL] WORKER TIMEOUT (pid:{worker})" in error
    found = log_lines(tmp_path / "access.log")
    assert tags([line for line in found if "/tag/" in line]) == dict.fromkeys(clients.answered, 1)
    app = "\n".join(log_lines(tmp_path / "app.log"))
    assert re.findall(r" - tag (\S+)$", app, re.MULTILINE) == [*clients.answered, "hangs0-0"]
    assert f"Request GET http://127.0.0.1:{server.port}/{page}/hangs0-0 id=" in app
    if page == "stuck":
        assert f"[{worker}] [INFO] complaint hangs0-0" in error
        killed = f"[{server.process.pid}] [ERROR] Worker (pid:{worker}) was sent SIGKILL"
        assert any(line.startswith(killed) for line in error)


def test_captured_output(tmp_path: Path) -> None:
    """What is printed is in the error log, before a rotation and after; in the file that it is then."""
    with serve(tmp_path, *FILES, *ROTATION, "--capture-output", workers=1) as server:
        get(server, "/print/early")
        for number in range(100):
            get(server, f"/complain/{number}")
        wait_for_line(tmp_path / "error.log", "complaint 99")
        get(server, "/print/late")
        last = (tmp_path / "error.log").read_text()
        assert ended(server) == ""
    assert len(log_files(tmp_path / "error.log")) > 1
    assert "late on stdout\nlate on stderr\n" in last
    said = "\n".join(log_lines(tmp_path / "error.log"))
    for text in ("early on stdout", "early on stderr", "late on stdout", "late on stderr"):
        assert len(re.findall(f"^{text}$", said, re.MULTILINE)) == 1


def test_captured_output_of_a_worker_that_only_prints(tmp_path: Path) -> None:
    """Another worker has rotated the file, more than once: from the next request on it prints to the new one."""
    few = ("-e", "ASYNCLOG_MAX_BYTES=2000", "-e", "ASYNCLOG_BACKUP_COUNT=1")
    with serve(tmp_path, *FILES, *few, "--capture-output") as server:
        one, other = sorted(server.pids("booted"))
        for number in range(100):
            get_from(server, one, f"/complain/{number}")
        wait_for_line(tmp_path / "error.log", "complaint 99")
        get_from(server, other, "/ready")
        get_from(server, other, "/print/late")
        assert ended(server) == ""
    said = log_lines(tmp_path / "error.log")
    assert "late on stdout" in said
    assert "late on stderr" in said


@pytest.mark.parametrize("stdout", ["None", "types.SimpleNamespace(write=str)", "closed"])
def test_captured_output_where_stdout_is_another_thing(tmp_path: Path, stdout: str) -> None:
    """What the app has put in the place of stdout may have no descriptor: each request ends as ever, and is logged."""
    text = "closed = open(os.devnull)\nclosed.close()\ndef post_fork(server, worker):\n    sys.stdout = "
    configure(tmp_path, f"import os, sys, types\n{text}{stdout}")
    with serve(tmp_path, *FILES, "--capture-output", workers=1) as server:
        clients = Clients(server, 1)
        clients.ask(3)
        server.end(SIGTERM)
    assert_each_once(clients, tmp_path / "access.log")
    assert not any("Traceback" in line for line in log_lines(tmp_path / "error.log"))


@pytest.mark.skipif(not is_root(), reason="needs root")
@pytest.mark.parametrize("capture", [(), ("--capture-output",)])
def test_workers_of_another_user(tmp_path: Path, capture: tuple[str, ...]) -> None:
    """root starts it for ``nobody``: workers write and rotate the files that the master has made, also after USR1."""
    directory = tmp_path / "for nobody"
    directory.mkdir()
    nobody = pwd.getpwnam("nobody")
    os.chown(directory, nobody.pw_uid, nobody.pw_gid)
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(parent.stat().st_mode | 0o011)
    configure(directory, "import encodings.idna")  # by root: this Python may be where nobody else can read it
    user = ("--user", "nobody", "--group", str(nobody.pw_gid))
    with serve(directory, *FILES, *ROTATION, *user, *capture, preload=True) as server:
        clients = Clients(server, 2)
        clients.ask(40)
        os.rename(directory / "error.log", directory / "moved-error.log")
        server.signal(SIGUSR1)
        wait_for((directory / "error.log").exists, HANG / 4, "a new error.log")
        more = Clients(server, 2, name="more")
        more.ask(40)
        get(server, "/complain/afterwards")
        assert ended(server) == ""
        assert server.pids("booted") == server.pids("exited")
        assert len(server.pids("booted")) == 2
    lines = log_lines(directory / "access.log")
    assert tags([line for line in lines if "/tag/" in line]) == dict.fromkeys([*clients.answered, *more.answered], 1)
    assert len(log_files(directory / "access.log")) > 2
    wait_for_line(directory / "error.log", "complaint afterwards")
    assert {file.stat().st_uid for file in directory.glob("*.log*")} == {nobody.pw_uid}
