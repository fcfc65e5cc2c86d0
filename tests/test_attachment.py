"""Which loggers are touched and how: no line twice, other handlers left alone, later configurations survived."""

from __future__ import annotations

import io
import itertools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.logging import default_handler

from flask_asynclog import AsyncLog
from flask_asynclog.attachment import ReconfigurationWatch
from flask_asynclog.handlers import AsyncQueueHandler
from flask_asynclog.queue import RecordQueue
from support import HANG, PRINT_STATS, assert_conserved, log_lines, read_stats, run_python

MakeApp = Callable[..., tuple[Flask, AsyncLog]]
ROOT = logging.getLogger()


def logged(asynclog: AsyncLog, path: str = "app.log") -> list[str]:
    """The messages in the file so far, every record accounted for."""
    assert asynclog.flush(HANG)
    assert_conserved(asynclog.stats())
    return [line.split(" - ", 3)[3] for line in log_lines(Path(path))]


def ours(logger: logging.Logger) -> list[logging.Handler]:
    """The handlers of this library on ``logger``."""
    return [handler for handler in logger.handlers if isinstance(handler, AsyncQueueHandler)]


@pytest.fixture
def logger(request: pytest.FixtureRequest) -> Iterator[logging.Logger]:
    """A logger of the test's own, as it was before at the end."""
    logger = logging.getLogger(f"named.{request.node.originalname}")
    yield logger
    logger.handlers.clear()
    logger.propagate = True
    logger.disabled = False
    logger.setLevel(logging.NOTSET)


# Flask's default handler.


def bare_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root as it is in a program: without pytest's handlers. To be called in a test's body."""
    monkeypatch.setattr(ROOT, "handlers", [])


def test_flasks_default_handler_is_replaced(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Flask's handler on `app.logger` writes to stderr on the request path: ours stands for it, until closed."""
    bare_root(monkeypatch)
    app, asynclog = make_app()
    assert default_handler not in app.logger.handlers
    app.logger.warning("one")
    assert logged(asynclog) == ["one"]
    assert capsys.readouterr().err == ""
    asynclog.close()
    assert app.logger.handlers == [default_handler]
    app.logger.removeHandler(default_handler)


def test_flasks_default_handler_stays_where_ours_does_not_come(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other loggers named and no request records, `app.logger` keeps what Flask gave it."""
    bare_root(monkeypatch)
    app, asynclog = make_app(loggers=["elsewhere"], request_events=())
    assert app.logger.handlers == [default_handler]
    asynclog.close()
    assert app.logger.handlers == [default_handler]
    app.logger.removeHandler(default_handler)


# No line twice.


@pytest.mark.parametrize("names", list(itertools.permutations(["", "tree", "tree.branch", "tree.branch.leaf"])))
def test_no_line_is_written_twice(make_app: MakeApp, names: tuple[str, ...]) -> None:
    """Loggers above and below each other, named in any order: each record is written once."""
    _, asynclog = make_app(loggers=names)
    for name in ("", "tree", "tree.branch", "tree.branch.leaf", "tree.other"):
        logging.getLogger(name).warning("from %s", name)
    assert logged(asynclog) == ["from ", "from tree", "from tree.branch", "from tree.branch.leaf", "from tree.other"]


def test_a_logger_that_does_not_propagate_has_its_own(make_app: MakeApp, logger: logging.Logger) -> None:
    """Where records do not come up to root, a named logger carries the handler itself."""
    logger.propagate = False
    _, asynclog = make_app(loggers=["", logger.name])
    logger.warning("one")
    logging.getLogger(f"{logger.name}.child").warning("two")
    assert logged(asynclog) == ["one", "two"]
    assert logger.propagate is False


@pytest.mark.parametrize("order", [[["x"], [""]], [[""], ["x"]], [["x.y"], ["x"]], [[], [""]]], ids=str)
def test_no_line_is_written_twice_for_two_apps(make_app: MakeApp, order: list[list[str]]) -> None:
    """Two apps with one file may name different loggers; in whichever order, each record is written once."""
    first, asynclog = make_app("first", loggers=order[0])
    second, _ = make_app("second", loggers=order[1])
    for logger in (first.logger, second.logger, logging.getLogger("x"), logging.getLogger("x.y")):
        logger.warning("from %s", logger.name)
    lines = logged(asynclog)
    assert sorted(lines) == sorted(set(lines))
    assert {"from first", "from second", "from x.y"} <= set(lines)


def test_the_app_is_logged_though_it_is_not_named(make_app: MakeApp) -> None:
    """Request records always lead to the file, whatever loggers are named; nothing else of root does."""
    app, asynclog = make_app(loggers=["elsewhere"])
    app.logger.warning("of the app")
    logging.getLogger("elsewhere").warning("of the named one")
    logging.getLogger("third").warning("of another")
    assert logged(asynclog) == ["of the app", "of the named one"]


# What is not ours.


def test_handlers_of_others_are_left_alone(make_app: MakeApp, logger: logging.Logger) -> None:
    """Handlers on root, on a named logger and on `app.logger` (gunicorn's, as the recipes put them there) go on."""
    streams = [io.StringIO() for _ in range(3)]
    handlers = [logging.StreamHandler(stream) for stream in streams]
    app_logger = logging.getLogger("gunicorn_like")
    app_logger.handlers = [handlers[0]]
    ROOT.addHandler(handlers[1])
    logger.addHandler(handlers[2])
    app, asynclog = make_app("gunicorn_like", loggers=["", logger.name])
    assert app.logger is app_logger
    assert app.logger.handlers == [handlers[0]]
    assert logger.handlers == [handlers[2]]
    app.logger.warning("of the app")
    logger.warning("named")
    assert logged(asynclog) == ["of the app", "named"]
    assert [stream.getvalue() for stream in streams] == ["of the app\n", "of the app\nnamed\n", "named\n"]
    asynclog.close()
    assert (app.logger.handlers, logger.handlers) == ([handlers[0]], [handlers[2]])
    assert handlers[1] in ROOT.handlers
    ROOT.removeHandler(handlers[1])
    app_logger.handlers = []


def test_caplog_works(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """Tests of users see request records and their own in ``caplog``, with their values."""
    app, asynclog = make_app()
    app.add_url_rule("/", "view", lambda: app.logger.info("in the view", extra={"user": 7}) or "x")
    app.test_client().get("/")
    request, own, response = caplog.records
    assert request.getMessage().startswith("Request GET http://localhost/ ")
    assert (own.getMessage(), own.user) == ("in the view", 7)  # type: ignore[attr-defined]
    assert getattr(response, "http.response.status_code") == 200
    assert len(logged(asynclog)) == 3


def state_of(logger: logging.Logger) -> tuple[object, ...]:
    """Everything of a logger that somebody can have set."""
    handlers = [handler for handler in logger.handlers if not type(handler).__module__.startswith("_pytest.")]
    return logger.level, handlers, logger.filters[:], logger.propagate, logger.disabled


def test_loggers_that_are_not_named_are_not_touched(make_app: MakeApp) -> None:
    """Only root and the app's logger change here, and everything is as it was after `close`."""
    for name in ("library", "library.part", "werkzeug"):
        logging.getLogger(name)
    loggers = {n: x for n, x in logging.Logger.manager.loggerDict.items() if isinstance(x, logging.Logger)}
    before = {name: state_of(logger) for name, logger in loggers.items()}
    root_before = state_of(ROOT)
    _, asynclog = make_app("touched")
    assert {name: state_of(logger) for name, logger in loggers.items()} == before
    assert ours(ROOT)
    asynclog.close()
    assert {name: state_of(logger) for name, logger in loggers.items()} == before
    assert state_of(ROOT) == root_before
    assert state_of(logging.getLogger("touched")) == (logging.NOTSET, [], [], True, False)


# Levels.


def test_an_unset_root_gets_the_level(make_app: MakeApp, logger: logging.Logger) -> None:
    """Nobody configured root: ``LEVEL`` counts for every logger that is unset; it is given back."""
    _, asynclog = make_app(level="DEBUG")
    assert ROOT.level == logging.DEBUG
    logger.debug("one")
    assert logged(asynclog) == ["one"]
    asynclog.close()
    assert ROOT.level == logging.WARNING


def test_a_configured_root_keeps_its_level(make_app: MakeApp, logger: logging.Logger) -> None:
    """Root has a handler: somebody meant WARNING. The request records get through nevertheless."""
    handler = logging.NullHandler()
    ROOT.addHandler(handler)
    app, asynclog = make_app()
    assert ROOT.level == logging.WARNING
    assert app.logger.level == logging.INFO
    logger.info("not of root's level")
    app.logger.info("of the app")
    assert logged(asynclog) == ["of the app"]
    asynclog.close()
    assert (ROOT.level, app.logger.level) == (logging.WARNING, logging.NOTSET)
    ROOT.removeHandler(handler)


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "ERROR"])
def test_a_root_level_set_by_the_user_stays(make_app: MakeApp, level: str) -> None:
    """A level other than the default is somebody's choice."""
    ROOT.setLevel(level)
    _, asynclog = make_app()
    assert ROOT.level == logging.getLevelNamesMapping()[level]
    asynclog.close()
    assert ROOT.level == logging.getLevelNamesMapping()[level]
    ROOT.setLevel("WARNING")


@pytest.mark.parametrize("before", ["NOTSET", "DEBUG", "ERROR"])
def test_levels_of_named_loggers(make_app: MakeApp, logger: logging.Logger, before: str) -> None:
    """Set where unset, left where set; as before after `close`."""
    logger.setLevel(before)
    _, asynclog = make_app(loggers=[logger.name], level="WARNING")
    assert logging.getLevelName(logger.level) == ("WARNING" if before == "NOTSET" else before)
    asynclog.close()
    assert logging.getLevelName(logger.level) == before


def test_a_level_changed_meanwhile_is_not_given_back(make_app: MakeApp, logger: logging.Logger) -> None:
    """What the user sets after us is the user's."""
    _, asynclog = make_app(loggers=[logger.name])
    logger.setLevel("ERROR")
    asynclog.close()
    assert logger.level == logging.ERROR


@pytest.mark.parametrize("first_to_close", [0, 1])
def test_a_level_lasts_as_long_as_one_app_needs_it(make_app: MakeApp, first_to_close: int) -> None:
    """Two apps with a file each; when one of them ends, the other's records come through as before."""
    made = [make_app(name, filename=f"{name}.log") for name in ("first", "second")]
    _, closing = made.pop(first_to_close)
    ((app, asynclog),) = made
    closing.close()
    app.test_client().get("/")
    assert len(logged(asynclog, f"{app.name}.log")) == 2
    asynclog.close()
    assert ROOT.level == logging.WARNING


@pytest.mark.parametrize("levels", [("INFO", "DEBUG"), ("DEBUG", "INFO")])
def test_two_apps_with_levels_of_their_own(make_app: MakeApp, logger: logging.Logger, levels: tuple[str, str]) -> None:
    """A file each, both on root: root lets through what the lower one wants, each file has what its app wants."""
    made = [make_app(level, filename=f"{level}.log", level=level, format="%(message)s x") for level in levels]
    logger.info("info")
    logger.debug("debug")
    assert made[0][1].flush()
    assert made[1][1].flush()
    assert log_lines(Path("INFO.log")) == ["info x"]
    assert log_lines(Path("DEBUG.log")) == ["info x", "debug x"]
    for _, asynclog in made:
        asynclog.close()
    assert ROOT.level == logging.WARNING


@pytest.mark.parametrize("option", [{"level": "NOTSET"}, {"level": "ERROR", "buffer_level": 0}, {"level": 1}])
def test_the_lowest_level_of_a_named_logger(make_app: MakeApp, logger: logging.Logger, option: dict[str, Any]) -> None:
    """NOTSET on the logger would be root's level, WARNING."""
    _, asynclog = make_app(loggers=[logger.name], **option)
    assert logger.isEnabledFor(1)
    logger.debug("debug")
    assert logged(asynclog) == ([] if "buffer_level" in option else ["debug"])
    asynclog.close()
    assert logger.level == logging.NOTSET


@pytest.mark.parametrize("name", ["", "root"])
def test_root_by_either_name(make_app: MakeApp, name: str) -> None:
    """`logging` knows root as "" and as "root": attached once, level given back."""
    _, asynclog = make_app(loggers=[name])
    assert len(ours(ROOT)) == 1
    ROOT.info("one")
    assert logged(asynclog) == ["one"]
    asynclog.close()
    assert ours(ROOT) == []
    assert ROOT.level == logging.WARNING


def test_the_level_of_the_handler(make_app: MakeApp, logger: logging.Logger) -> None:
    """``LEVEL`` is the handler's: a logger set lower does not send more."""
    logger.setLevel("DEBUG")
    _, asynclog = make_app(loggers=[logger.name], level="WARNING")
    logger.info("below")
    logger.warning("at it")
    assert logged(asynclog) == ["at it"]
    assert asynclog.stats().accepted == 1


# A later configuration. In processes of their own: `logging.config` would take pytest's handlers away as well.

PRELUDE = """
import logging, logging.config, sys, threading, time
from flask import Flask
from flask_asynclog import AsyncLog

named, other = logging.getLogger("named"), logging.getLogger("other")
app = Flask("demo")
app.add_url_rule("/", "view", lambda: "x")
asynclog = AsyncLog(app, flush_interval=0.01, **{options})
ini = "[loggers]\\nkeys=root\\n[handlers]\\nkeys=null\\n[formatters]\\nkeys=\\n" \\
      "[logger_root]\\nlevel=INFO\\nhandlers=null\\n[handler_null]\\nclass=NullHandler\\nargs=()\\n"
with open("logging.ini", "w") as file:
    file.write(ini)
root = {{"handlers": ["null"], "level": "INFO"}}
null = {{"null": {{"class": "logging.NullHandler"}}}}

def join_repairs():
    for thread in threading.enumerate():
        if thread.name == "flask_asynclog-repair":
            thread.join()

app.logger.warning("before")
"""

END = """
assert asynclog.flush(60)
print_stats(asynclog.stats())
"""

RECONFIGURE = {
    "dictConfig": 'logging.config.dictConfig({"version": 1})',
    "dictConfig with root": 'logging.config.dictConfig({"version": 1, "handlers": null, "root": root})',
    "dictConfig, loggers kept": 'logging.config.dictConfig({"version": 1, "handlers": null, "root": root, '
    '"disable_existing_loggers": False})',
    "fileConfig": 'logging.config.fileConfig("logging.ini", disable_existing_loggers=True)',
    "basicConfig": "logging.basicConfig(force=True, level=logging.INFO)",
}


def reconfigured(tmp_path: Path, code: str, **options: Any) -> list[str]:
    """The messages in the file after a program that configures logging again; it must say nothing on stderr."""
    done = run_python(PRINT_STATS + PRELUDE.format(options=options) + code + END, cwd=tmp_path)
    assert_conserved(read_stats(done.stdout))
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    return [line.split(" - ", 3)[3] for line in log_lines(tmp_path / "app.log")]


def without_remark(messages: list[str]) -> list[str]:
    """The messages but for the one remark about the new configuration, which must be there."""
    remarks = [message for message in messages if message.startswith("logging was configured again after AsyncLog")]
    assert len(remarks) == 1, messages
    return [message for message in messages if message not in remarks]


@pytest.mark.parametrize("how", RECONFIGURE)
def test_a_later_configuration_is_survived(tmp_path: Path, how: str) -> None:
    """App, root and named loggers go on writing, each record once; it is said once. So are several in a row."""
    code = f"""
for attempt in range(3):
    {RECONFIGURE[how]}
    join_repairs()
    app.logger.warning("app %d", attempt)
    named.warning("named %d", attempt)
    logging.getLogger().warning("root %d", attempt)
"""
    messages = without_remark(reconfigured(tmp_path, code, loggers=("", "named")))
    assert messages == ["before", *(f"{name} {n}" for n in range(3) for name in ("app", "named", "root"))]


@pytest.mark.parametrize("how", ["dictConfig with root", "fileConfig"])
def test_the_first_request_after_it_is_logged(tmp_path: Path, how: str) -> None:
    """A request that comes right after the new configuration has both its records."""
    code = f"""
for _ in range(3):
    {RECONFIGURE[how]}
    app.test_client().get("/")
"""
    messages = without_remark(reconfigured(tmp_path, code))
    assert [message.split()[0] for message in messages] == ["before"] + ["Request", "Response"] * 3


def test_a_slow_configuration_is_survived(tmp_path: Path) -> None:
    """The repair does not come too early: not before the new configuration is complete."""
    code = """
def slow():
    # The repair's thread would have done its work by the end of this, if nothing held it back.
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline and "flask_asynclog-repair" in {t.name for t in threading.enumerate()}:
        time.sleep(0.01)
    return logging.NullHandler()

logging.config.dictConfig({"version": 1, "handlers": {"null": {"()": slow}}, "root": root})
join_repairs()
logging.getLogger().warning("after")
"""
    assert without_remark(reconfigured(tmp_path, code, request_events=())) == ["before", "after"]


@pytest.mark.parametrize("options", [{"request_events": ()}, {"request_logger": "access"}], ids=str)
def test_the_apps_logger_survives_when_it_makes_no_request_records(tmp_path: Path, options: dict[str, Any]) -> None:
    """`app.logger` is what users log with: it is not left disabled because request records go elsewhere, or nowhere."""
    code = f"""
{RECONFIGURE["dictConfig with root"]}
join_repairs()
app.logger.warning("after")
"""
    assert without_remark(reconfigured(tmp_path, code, **options)) == ["before", "after"]


@pytest.mark.parametrize("how", ["dictConfig with root", "fileConfig"])
def test_loggers_of_modules_are_survived(tmp_path: Path, how: str) -> None:
    """All that came to the file before does so again: what ``disable_existing_loggers`` did by default is undone."""
    code = f"""
silent, apart = logging.getLogger("silent"), logging.getLogger("apart")
silent.disabled, apart.propagate = True, False
for n in range(2):
    {RECONFIGURE[how]}
    join_repairs()
    other.warning("other %d", n)
    silent.warning("disabled on purpose")
    assert (silent.disabled, apart.disabled) == (True, True)
other.disabled = True
{RECONFIGURE[how]}
join_repairs()
assert other.disabled
"""
    assert without_remark(reconfigured(tmp_path, code)) == ["before", "other 0", "other 1"]


@pytest.mark.parametrize("how", ["dictConfig, loggers kept", "basicConfig"])
def test_a_logger_disabled_after_a_configuration_stays_disabled(tmp_path: Path, how: str) -> None:
    """One that disables no others: what the next line does is meant."""
    code = f"""
for _ in range(5):
    {RECONFIGURE[how]}
    other.disabled = True
    join_repairs()
    assert other.disabled
    other.disabled = False
"""
    assert without_remark(reconfigured(tmp_path, code)) == ["before"]


def test_many_configurations_are_survived(tmp_path: Path) -> None:
    """One after the other, while the repair of one before may be under way, and threads log."""
    code = f"""
going = True
def log():
    while going:
        logging.getLogger("many.0").debug("x")
threads = [threading.Thread(target=log) for _ in range(2)]
many = [logging.getLogger(f"many.{{n}}") for n in range(100)]
for thread in threads:
    thread.start()
for n in range(100):
    {RECONFIGURE["dictConfig with root"]}
    if not n % 7:
        time.sleep(0.001)
going = False
for thread in threads:
    thread.join()
join_repairs()
assert not [logger.name for logger in many if logger.disabled]
many[1].warning("after")
"""
    assert without_remark(reconfigured(tmp_path, code)) == ["before", "after"]


def test_two_configurations_at_once_are_survived(tmp_path: Path) -> None:
    """Loggers that the first has disabled, and nobody has enabled again when the second begins."""
    code = f"""
many = [logging.getLogger(f"many.{{n}}") for n in range(20)]
with logging._lock:
    {RECONFIGURE["dictConfig with root"]}
    {RECONFIGURE["fileConfig"]}
join_repairs()
for logger in many:
    logger.warning(logger.name)
"""
    messages = reconfigured(tmp_path, code)
    assert without_remark(messages) == ["before", *(f"many.{n}" for n in range(20))]
    assert any("so were " in message for message in messages)


def test_a_configuration_that_takes_nothing_away_is_not_mentioned(tmp_path: Path) -> None:
    """``incremental``, or one that keeps loggers and names no root: nothing was mended, nothing is said."""
    code = """
logging.config.dictConfig({"version": 1, "incremental": True, "root": {"level": "DEBUG"}})
logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
join_repairs()
app.logger.warning("after")
"""
    assert reconfigured(tmp_path, code) == ["before", "after"]


def test_levels_of_the_new_configuration_count(tmp_path: Path) -> None:
    """Whoever configures logging later decides about levels."""
    code = """
logging.config.dictConfig({"version": 1, "handlers": null, "root": {"handlers": ["null"], "level": "ERROR"},
                           "loggers": {"demo": {"level": "ERROR"}}})
join_repairs()
app.logger.warning("below")
named.warning("below")
app.test_client().get("/")
app.logger.error("after")
"""
    assert without_remark(reconfigured(tmp_path, code)) == ["before", "after"]


def test_a_logger_disabled_on_purpose_stays_disabled(make_app: MakeApp) -> None:
    """``app.logger.disabled = True`` silences the app's records and its requests."""
    app, asynclog = make_app()
    app.logger.disabled = True
    app.test_client().get("/")
    app.logger.error("silenced")
    assert logged(asynclog) == []
    assert app.logger.disabled
    app.logger.disabled = False


def test_a_handler_removed_on_purpose_stays_away(make_app: MakeApp) -> None:
    """``removeHandler`` is respected: nobody configured logging again."""
    app, asynclog = make_app()
    (handler,) = ours(ROOT)
    ROOT.removeHandler(handler)
    app.test_client().get("/")
    assert logged(asynclog) == []
    assert ours(ROOT) == []


# A handler that another thread closes while it is made: `logging.config` closes all that `logging` knows.


@pytest.mark.parametrize(
    "make",
    [lambda: ReconfigurationWatch(lambda: None), lambda: AsyncQueueHandler(RecordQueue())],
    ids=["watch", "queue"],
)
def test_a_handler_closed_while_it_is_made(make: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as `logging` knows it."""
    closed: list[logging.Handler] = []
    made_known = logging._addHandlerRef  # type: ignore[attr-defined]

    def close_at_once(handler: logging.Handler) -> None:
        made_known(handler)
        handler.close()
        closed.append(handler)

    monkeypatch.setattr(logging, "_addHandlerRef", close_at_once)
    assert [make()] == closed
