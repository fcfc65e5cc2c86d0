"""The handlers that configurations name: caller's side, self-contained file, console."""

from __future__ import annotations

import io
import json
import logging
import logging.config
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_asynclog import ConfigError
from flask_asynclog.handlers import AsyncQueueHandler, AsyncRotatingFileHandler
from flask_asynclog.listener import BatchQueueListener
from flask_asynclog.queue import RecordQueue
from support import PRINT_STATS, assert_conserved, log_lines, read_stats, run_python

LOG = Path("x.log")


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A logger of its own, without handlers before and after."""
    logger = logging.getLogger("test_handlers")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield logger
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


def test_a_self_contained_handler_needs_no_app(logger: logging.Logger) -> None:
    """AsyncRotatingFileHandler is queue, thread and rotating file; flush() waits for the file."""
    handler = AsyncRotatingFileHandler(LOG, max_bytes=1000, backup_count=100)
    logger.addHandler(handler)
    for number in range(100):
        logger.info("record %d", number)
    handler.flush()
    assert [line.rpartition(" ")[2] for line in log_lines(LOG)] == [str(number) for number in range(100)]
    assert all(file.stat().st_size <= 1000 for file in Path().glob("x.log*"))
    assert_conserved(handler.stats())


def test_dictconfig_builds_it_and_builds_it_again(tmp_path: Path) -> None:
    """dictConfig passes its options on, sets level and formatter, and may be called again; nothing is lost at exit."""
    run_python(
        """
import logging, logging.config
config = {
    "version": 1,
    "formatters": {"short": {"format": "%(levelname)s %(message)s"}},
    "handlers": {
        "file": {
            "class": "flask_asynclog.handlers.AsyncRotatingFileHandler",
            "filename": "x.log", "max_bytes": 5000, "level": "INFO", "formatter": "short",
        }
    },
    "root": {"handlers": ["file"], "level": "DEBUG"},
}
logging.config.dictConfig(config)
logging.info("first")
logging.debug("below its level")
logging.config.dictConfig(config)
logging.info("second")
""",
        cwd=tmp_path,
    )
    assert log_lines(tmp_path / "x.log") == ["INFO first", "INFO second"]


def test_a_formatter_set_later_writes_the_lines(logger: logging.Logger) -> None:
    """setFormatter works as on any handler, custom traceback text included."""

    class Short(logging.Formatter):
        def formatException(self, ei: object) -> str:
            return "short traceback"

    handler = AsyncRotatingFileHandler(LOG)
    handler.setFormatter(Short("%(message)s"))
    logger.addHandler(handler)
    try:
        raise ValueError
    except ValueError:
        logger.exception("failed")
    handler.flush()
    assert LOG.read_text() == "failed\nshort traceback\n"
    assert_conserved(handler.stats())


def test_level_and_filters_apply_in_the_caller(logger: logging.Logger) -> None:
    """Level and filters are those of any handler; what they refuse is not counted as accepted."""
    handler = AsyncRotatingFileHandler(LOG, level="WARNING")
    handler.addFilter(lambda record: "secret" not in record.getMessage())
    logger.addHandler(handler)
    logger.info("below")
    logger.warning("a secret")
    logger.warning("kept")
    handler.flush()
    assert [line.rpartition(" - ")[2] for line in log_lines(LOG)] == ["kept"]
    assert handler.stats().accepted == 1
    assert_conserved(handler.stats())


def test_it_shares_the_file_with_an_app(make_app, logger: logging.Logger) -> None:
    """A handler and an app that name the same file share one queue; its level is its own."""
    app, asynclog = make_app(filename=LOG, level="DEBUG", flush_interval=0.1)
    handler = AsyncRotatingFileHandler(LOG, console=False)
    logger.addHandler(handler)
    logger.debug("by the handler")
    app.logger.debug("by the app")
    assert asynclog.flush()
    assert [line.rpartition(" - ")[2] for line in log_lines(LOG)] == ["by the handler", "by the app"]
    assert handler.stats() == asynclog.stats()
    assert_conserved(asynclog.stats())


def test_other_settings_for_the_same_file_are_refused(logger: logging.Logger) -> None:
    """Two handlers of one file must agree; the error names what they disagree in."""
    handler = AsyncRotatingFileHandler(LOG, max_bytes=1000)
    logger.addHandler(handler)
    with pytest.raises(ConfigError, match=r"another ASYNCLOG_MAX_BYTES: use the same settings"):
        AsyncRotatingFileHandler(LOG, max_bytes=2000)


def test_an_app_decides_about_the_level_of_a_shared_pipeline(make_app, logger: logging.Logger) -> None:
    """In either order: the handler before it had named no level."""
    handler = AsyncRotatingFileHandler(LOG)
    logger.addHandler(handler)
    app, asynclog = make_app(filename=LOG, level="DEBUG", flush_interval=0.1)
    app.logger.debug("by the app")
    logger.debug("by the handler")
    assert asynclog.flush()
    assert [line.rpartition(" - ")[2] for line in log_lines(LOG)] == ["by the app", "by the handler"]
    assert_conserved(asynclog.stats())


def test_a_formatter_is_for_what_comes_by_its_handler(make_app, logger: logging.Logger) -> None:
    """Others who share the file keep theirs, in text and in JSON."""
    app, asynclog = make_app(filename=LOG, flush_interval=0.1, format="json")
    handler = AsyncRotatingFileHandler(LOG, format="json")
    handler.setFormatter(logging.Formatter("ZZZ %(message)s"))
    logger.addHandler(handler)
    logger.warning("by the handler")
    app.logger.warning("by the app")
    assert asynclog.flush()
    of_handler, of_app = log_lines(LOG)
    assert of_handler == "ZZZ by the handler"
    assert json.loads(of_app)["message"] == "by the app"


@pytest.mark.parametrize("option", ["loggers", "request_events", "trust_request_id", "enabled"])
def test_options_of_apps_are_refused(option: str) -> None:
    """An option that only means something to an app is an error, not ignored."""
    with pytest.raises(ConfigError, match=f"{option}=.* an option of apps"):
        AsyncRotatingFileHandler(LOG, **{option: ()})


def test_a_record_after_close_is_written_at_exit(tmp_path: Path) -> None:
    """close() drains; a logger that keeps the handler starts it again, and the exit drains that too."""
    result = run_python(
        PRINT_STATS
        + """
import atexit, logging
from flask_asynclog.handlers import AsyncRotatingFileHandler
handler = AsyncRotatingFileHandler("x.log")
atexit.register(lambda: print_stats(handler.stats()))
logging.getLogger().addHandler(handler)
logging.warning("before")
handler.close()
assert "before" in open("x.log").read()
logging.warning("after")
""",
        cwd=tmp_path,
    )
    assert [line.rpartition(" - ")[2] for line in log_lines(tmp_path / "x.log")] == ["before", "after"]
    assert read_stats(result.stdout)["accepted"] == 2


def test_the_console_mirrors_the_file(make_app, monkeypatch: pytest.MonkeyPatch) -> None:
    """CONSOLE=True writes the same records to stderr, as text whatever the file's format."""
    stderr = io.StringIO()
    app, asynclog = make_app(console=True, format="json")
    monkeypatch.setattr(sys, "stderr", stderr)  # looked up when it is written to
    app.logger.info("seen\ntwice")
    assert asynclog.flush()
    assert json.loads(Path("app.log").read_text())["message"] == "seen\ntwice"
    assert stderr.getvalue().endswith(" - INFO - seen\\ntwice\n")
    assert_conserved(asynclog.stats())


def test_a_broken_console_does_not_stop_the_file(tmp_path: Path) -> None:
    """With stderr closed at its other end the records are in the file, and count as written."""
    result = run_python(
        PRINT_STATS
        + """
import os
from flask import Flask
from flask_asynclog import AsyncLog
app = Flask("demo")
asynclog = AsyncLog(app, console=True)
reading, writing = os.pipe()
os.dup2(writing, 2); os.close(writing); os.close(reading)
for number in range(3):
    app.logger.info("record %d", number)
    assert asynclog.flush()
print_stats(asynclog.stats())
os._exit(0)  # the interpreter would complain about its stderr
""",
        cwd=tmp_path,
    )
    assert len(log_lines(tmp_path / "app.log")) == 3
    stats = read_stats(result.stdout)
    assert stats["written"] == 3
    assert_conserved(stats)


def test_a_listener_wants_the_queue_that_counts() -> None:
    """BatchQueueListener says which queue it needs instead of failing on the first record."""
    import queue

    with pytest.raises(TypeError, match=r"must be a flask_asynclog\.queue\.RecordQueue, not Queue"):
        BatchQueueListener(queue.Queue())  # type: ignore[arg-type]


def test_a_pair_made_by_hand(logger: logging.Logger) -> None:
    """Queue, handler and listener work like the standard library's pair, with any handler behind them."""
    stream = io.StringIO()
    queue = RecordQueue()
    listener = BatchQueueListener(queue, logging.StreamHandler(stream))
    logger.addHandler(AsyncQueueHandler(queue))
    logger.info("through %s", "it")
    assert listener.stop()
    assert stream.getvalue() == "through it\n"
    assert_conserved(queue.stats())


class Stepping:
    """A step of its own, for `AsyncQueueHandler`."""

    def enqueue(self, record: logging.LogRecord) -> None:
        """Mark it on its way."""
        record.msg = f"{record.msg} by a step"
        super().enqueue(record)  # type: ignore[misc]


class Mixed(Stepping, AsyncQueueHandler):
    """The step comes from another class."""


class Wrapping(AsyncQueueHandler):
    """A step, and a `handle` around all of them."""

    def handle(self, record: logging.LogRecord) -> object:
        """What it is otherwise."""
        return super().handle(record)

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Mark the copy."""
        record = super().prepare(record)
        record.msg = f"{record.msg} by a step"
        return record


class Further(Mixed):
    """A subclass of one with steps."""


@pytest.mark.parametrize("cls", [Mixed, Wrapping, Further])
def test_the_steps_of_a_subclass_are_taken(cls: type[AsyncQueueHandler]) -> None:
    """Wherever it has them from, also for records that go the short way otherwise."""
    queue = RecordQueue()
    handler = cls(queue)
    handler.handle(logging.makeLogRecord({"msg": "%s", "args": ("x",), "levelno": logging.INFO}))
    assert [record.getMessage() for record in queue.take(10)] == ["x by a step"]
    handler.close()


@pytest.mark.parametrize("error", [AttributeError, TypeError])
def test_a_subclass_that_fails_is_not_called_again(error: type[Exception]) -> None:
    """By an error of the kind that a record which lacks something gives."""

    class Failing(AsyncQueueHandler):
        def emit(self, record: logging.LogRecord) -> None:
            super().emit(record)
            raise error("behind the queue")

    queue = RecordQueue()
    handler = Failing(queue)
    with pytest.raises(error, match="behind the queue"):
        handler.handle(logging.makeLogRecord({"msg": "once", "levelno": logging.INFO}))
    assert [record.msg for record in queue.take(10)] == ["once"]
    handler.close()


def test_the_filter_of_a_subclass_is_asked() -> None:
    """A `filter` method overridden, rather than a filter added."""

    class Choosy(AsyncQueueHandler):
        def filter(self, record: logging.LogRecord) -> bool:
            return record.msg != "no" and bool(super().filter(record))

    queue = RecordQueue()
    handler = Choosy(queue)
    for message in ("yes", "no"):
        handler.handle(logging.makeLogRecord({"msg": message, "levelno": logging.INFO}))
    assert [record.msg for record in queue.take(10)] == ["yes"]
    handler.close()


@pytest.mark.parametrize("name", ["exc_info", "msg", "args", "levelno", "name"])
def test_a_record_that_lacks_something_is_no_error_of_the_app(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """It is taken as far as it can be read, or counted."""
    queue = RecordQueue()
    handler = AsyncQueueHandler(queue)
    record = logging.makeLogRecord({"msg": "x", "levelno": logging.INFO})
    delattr(record, name)
    handler.handle(record)
    assert queue.stats().accepted == 1
    assert "Traceback" not in capfd.readouterr().err
    handler.close()
