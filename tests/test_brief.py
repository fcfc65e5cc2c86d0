"""What waits of a record where the file's lines are plain text: what those show, and nothing else."""

from __future__ import annotations

import fcntl
import gc
import json
import logging
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_asynclog import AsyncLog
from flask_asynclog.entries import Entry, as_brief, level_of, process_of, restore
from flask_asynclog.exchange import Exchange
from flask_asynclog.handlers import AsyncRotatingFileHandler
from flask_asynclog.pipeline import Pipeline
from flask_asynclog.queue import MANY
from flask_asynclog.redaction import Redactor
from flask_asynclog.textformat import TextFormatter
from support import HANG, log_lines, wait_for

MakeApp = Callable[..., tuple[Flask, AsyncLog]]

#: The longest flush interval there is: what is logged waits.
NEVER = 60.0

BRIEF = (
    "%(asctime)s - %(name)s - %(levelname)s - %(message)s",
    "%(levelno)d\t%(process)d\t%(created)f\t%(msecs)03d\t%(message)-20s|%(name)s",
)
WHOLE = (
    "%(asctime)s %(threadName)s %(message)s",
    "%(message)s %(pathname)s:%(lineno)d",
    "%(request_id)s %(message)s",
    "%(levelname)s %(msg)s",
)


def waiting(make_alone: MakeApp, **options: Any) -> tuple[Flask, AsyncLog, Pipeline]:
    """An app whose records wait, and its pipeline."""
    app, asynclog = make_alone(flush_interval=NEVER, **options)
    app.logger.info("first")
    assert asynclog.flush(HANG)
    return app, asynclog, app.extensions["asynclog"].pipeline


def log_all(logger: logging.Logger) -> None:
    """Records of many kinds."""
    logger.info("plain")
    logger.info("%s and %d", "text", 7)
    logger.warning("%(a)s", {"a": 1})
    logger.info("%s", ["a", "list"])
    logger.info("control \x1b[31m and %s", "line\nend\ttab")
    logger.info("späť \u2028 %s", "\x85")
    logger.info("extra", extra={"more": 1})
    logger.info("a stack", stack_info=True)
    logger.info(["not", "text"])
    logger.info("does not fit %d", "text")
    try:
        raise ValueError("told\nin two lines")
    except ValueError:
        logger.info("failed", exc_info=True)
    logger.error("over")


def without_times(lines: list[str]) -> list[str]:
    """Lines that differ in nothing that the clock tells."""
    return [re.sub(r"\d+-\d+-\d+ \d+:\d+:\d+,\d+|\d{10}\.\d+\t\d+", "TIME", line) for line in lines]


@pytest.mark.parametrize("fmt", BRIEF)
def test_lines_are_the_same(make_alone: MakeApp, fmt: str) -> None:
    """As those of records that wait with all their attributes."""
    app, asynclog, pipeline = waiting(make_alone, format=fmt)
    assert pipeline.queue.brief
    briefs: list[int] = []
    for brief in (True, False):  # from one place, for the stack
        pipeline.queue.brief = brief
        log_all(app.logger)
        briefs.append([type(entry) for entry in pipeline.queue.waiting].count(tuple))
        assert asynclog.flush(HANG)
    assert briefs == [6, 0]
    _, *lines = without_times(log_lines(Path("app.log")))
    assert lines[:12] == lines[12:]
    assert len(lines) == 24


@pytest.mark.parametrize("fmt", [*WHOLE, "json", "logfmt"])
def test_formats_that_show_more(make_alone: MakeApp, fmt: str) -> None:
    """All attributes wait, and arrive."""
    app, _, pipeline = waiting(make_alone, format=fmt)
    assert not pipeline.queue.brief
    app.logger.info("%s", "text")
    assert [type(entry) for entry in pipeline.queue.waiting] == [dict]


def test_others_that_want_more(make_alone: MakeApp) -> None:
    """The console, a handler beside the file, shows more; patterns look at the whole record."""
    _, _, pipeline = waiting(make_alone, filename="console.log", console=True)
    assert not pipeline.queue.brief
    _, _, pipeline = waiting(make_alone, filename="patterns.log", redact_patterns=["x"])
    assert not pipeline.queue.brief


def test_what_is_done_to_the_record_later_does_not_show(make_alone: MakeApp) -> None:
    """By a handler behind ours, or by whoever kept the record."""
    app, asynclog, pipeline = waiting(make_alone)

    class Changing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            record.msg, record.args, record.levelname, record.name = "changed", None, "CHANGED", "changed"

    changing = Changing()
    logging.getLogger().addHandler(changing)
    try:
        app.logger.info("as %s", "logged")
    finally:
        logging.getLogger().removeHandler(changing)
    assert [type(entry) for entry in pipeline.queue.waiting] == [tuple]
    assert asynclog.flush(HANG)
    assert log_lines(Path("app.log"))[-1].endswith(f" - {app.name} - INFO - as logged")


def test_patterns_that_come_while_records_wait(make_alone: MakeApp) -> None:
    """What waits is written without what they match."""
    app, asynclog, pipeline = waiting(make_alone)
    app.logger.info("code %s", "s3cret")
    assert [type(entry) for entry in pipeline.queue.waiting] == [tuple]
    pipeline.listener.redactor = Redactor(patterns=[re.compile("s3cret")])
    assert asynclog.flush(HANG)
    assert log_lines(Path("app.log"))[-1].endswith(" - code [REDACTED]")


def test_a_handler_that_comes_while_records_wait(make_alone: MakeApp) -> None:
    """Gets what was kept of the record, and nothing of the thread that writes."""
    app, asynclog, pipeline = waiting(make_alone)
    seen: list[logging.LogRecord] = []

    class Seeing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    app.logger.info("as %s", "logged")
    pipeline.listener.add_handler(Seeing())
    assert asynclog.flush(HANG)
    assert [record.getMessage() for record in seen] == ["as logged"]
    assert (seen[0].name, seen[0].levelname, seen[0].process) == (app.name, "INFO", os.getpid())
    assert seen[0].thread is None
    assert seen[0].threadName is None
    app.logger.info("afterwards")
    assert asynclog.flush(HANG)
    assert (seen[1].funcName, seen[1].thread) == ("test_a_handler_that_comes_while_records_wait", threading.get_ident())


@pytest.mark.parametrize("change", ["filter", "formatter"])
def test_a_file_that_wants_more_meanwhile(make_alone: MakeApp, change: str) -> None:
    """Seen with the next batch; what is logged from then on waits whole."""
    app, asynclog, pipeline = waiting(make_alone)
    seen: list[int] = []
    if change == "filter":
        pipeline.sink.addFilter(lambda record: seen.append(record.lineno) or True)  # type: ignore[func-returns-value]
    else:
        pipeline.sink.setFormatter(logging.Formatter("%(lineno)d %(message)s"))
    app.logger.info("seen with this one")
    assert asynclog.flush(HANG)
    app.logger.info("whole")
    (entry,) = pipeline.queue.waiting
    assert type(entry) is dict
    assert asynclog.flush(HANG)
    if change == "filter":
        assert seen == [0, entry["lineno"]]
    else:
        assert log_lines(Path("app.log"))[-1] == f"{entry['lineno']} whole"


def test_a_subclass_of_the_text_format(make_alone: MakeApp) -> None:
    """Gets all that there is, and makes each line."""

    class Mine(TextFormatter):
        def format_entry(self, entry: Entry) -> str:
            return f"MINE {super().format_entry(entry)}"

    app, asynclog, pipeline = waiting(make_alone, format=Mine())
    assert not pipeline.queue.brief
    app.add_url_rule("/", "view", lambda: "answer")
    app.logger.info("mine")
    assert app.test_client().get("/").status_code == 200
    assert asynclog.flush(HANG)
    lines = log_lines(Path("app.log"))
    assert len(lines) == 4
    assert all(line.startswith("MINE ") for line in lines)


def test_a_record_factory_is_not_asked_again(make_alone: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a record is made of what waits, because another one of its slice cannot be formatted."""
    app, asynclog, _ = waiting(make_alone)
    asked: list[str] = []

    def factory(name: str, *args: Any, **kwargs: Any) -> logging.LogRecord:
        asked.append(name.partition(".")[0])  # fails for a record that was made for nobody
        return logging.LogRecord(name, *args, **kwargs)

    monkeypatch.setattr(logging, "_logRecordFactory", factory)
    for number in range(20):
        app.logger.info("%d", number)
    app.logger.info("bad %d", "text")
    assert asked == [app.name] * 21
    assert asynclog.flush(HANG)
    assert len(asked) == 21
    _, *lines = [line.rpartition(" - ")[2] for line in log_lines(Path("app.log"))]
    assert lines[:20] == [str(number) for number in range(20)]
    assert lines[20].startswith("bad %d ('text',) [not formatted: TypeError")
    assert asynclog.stats().failed == 0


def test_what_it_has_can_be_had_again(make_alone: MakeApp) -> None:
    """Level and process, for the queue; and a record of it."""
    app, _, pipeline = waiting(make_alone)
    records: list[logging.LogRecord] = []
    app.logger.addFilter(lambda record: records.append(record) or True)  # type: ignore[func-returns-value]
    app.logger.info("%s", "text")
    (entry,) = pipeline.queue.waiting
    assert type(entry) is tuple
    assert level_of(entry) == logging.INFO
    assert process_of(entry) == os.getpid()
    again = restore(entry)
    for name in ("name", "levelno", "levelname", "msg", "args", "created", "msecs", "process"):
        assert getattr(again, name) == getattr(records[0], name), name


def test_each_has_its_own_time() -> None:
    """Also where the millisecond is the same, or the clock is set back."""
    formatter = TextFormatter()
    base = 1_700_000_000
    times = [base + 0.25, base + 0.25, base + 1.25, base + 1.5, base + 0.25, base + 0.5, base - 86_400 + 0.5]
    briefs: list[Entry] = [(20, 1, each, each % 1 * 1000, "name", "INFO", "text", None) for each in times]
    expected = [formatter.format_entry(dict(vars(restore(brief)))) for brief in briefs]
    assert formatter.format_entries(briefs) == expected
    assert len(set(expected)) == 5
    assert TextFormatter().format_entries(briefs) == expected


def crowd(app: Flask) -> None:
    """So many records that only what a line shows waits of more, while the writing thread is held up at the disk."""
    for number in range(MANY):
        app.logger.info("%d", number)
    app.extensions["asynclog"].pipeline.queue.writing = True  # where no batch is under way, none was held up


@pytest.mark.parametrize("overflow", ["drop_new", "drop_old", "block"])
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "with_others"])
def test_requests_behind_many_records(make_app: MakeApp, make_alone: MakeApp, overflow: str, alone: bool) -> None:
    """Wait as their lines' parts, which the garbage collector lets go; the lines are the same."""
    app, asynclog = (make_alone if alone else make_app)(flush_interval=NEVER, overflow=overflow, queue_size=4096)
    app.add_url_rule("/<name>", "view", lambda name: (name, 404))
    app.logger.info("first")
    assert asynclog.flush(HANG)
    queue, client = app.extensions["asynclog"].pipeline.queue, app.test_client()
    assert client.get("/100%25s?token=x").status_code == 404
    crowd(app)
    assert client.get("/100%25s?token=x").status_code == 404
    entries = [*queue.waiting, *queue._level_lanes.entries()]
    briefs = [entry for entry in entries if type(entry) is tuple and "100%" in entry[6]]
    assert [(brief[0], brief[1]) for brief in briefs] == [(logging.INFO, os.getpid()), (logging.WARNING, os.getpid())]
    gc.collect()
    assert not any(map(gc.is_tracked, briefs))
    assert asynclog.flush(HANG)
    lines = [re.sub(r"[\d.]+ms|id=\w+", "", line) for line in without_times(log_lines(Path("app.log")))]
    told = [line for line in lines if "100%" in line]
    assert len(told) == 4
    assert told[:2] == told[2:]
    assert told[0].rstrip().endswith("/100%s?token=[REDACTED]")


def test_only_while_the_disk_does_not_take_records(make_alone: MakeApp) -> None:
    """What the writing thread does not get to, but could write, waits as ever: that costs its caller less."""
    app, asynclog, pipeline = waiting(make_alone)
    queue, client = pipeline.queue, app.test_client()
    with open(pipeline.sink.lockFilename) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        app.logger.error("wakes the thread, which waits for the lock")
        wait_for(lambda: queue.writing)
        for number in range(MANY):
            app.logger.info("%d", number)
        client.get("/held")
        assert [type(entry) for entry in queue.waiting][-2:] == [tuple, tuple]
    assert asynclog.flush(HANG)
    assert not queue.writing
    for number in range(MANY):
        app.logger.info("%d", number)
    client.get("/not-held")
    assert [type(entry).__name__ for entry in queue.waiting][-2:] == ["Exchange", "Outcome"]
    assert asynclog.flush(HANG)
    assert asynclog.stats().written == 1 + 2 * (MANY + 2) + 1


def test_what_has_more_to_tell_behind_many_records(make_alone: MakeApp) -> None:
    """Waits as ever: what a line shows is the same."""
    app, asynclog, _ = waiting(make_alone)
    for before in (lambda _: None, crowd):
        before(app)
        log_all(app.logger)
        assert asynclog.flush(HANG)
    _, *lines = without_times(log_lines(Path("app.log")))
    assert len(lines) == 24 + MANY
    assert lines[:12] == lines[-12:]


def test_secrets_behind_many_records(make_alone: MakeApp) -> None:
    """Are taken out of a dictionary where it is written."""
    app, asynclog, _ = waiting(make_alone)
    crowd(app)
    app.logger.info({"password": "s3cret"})
    assert asynclog.flush(HANG)
    assert log_lines(Path("app.log"))[-1].endswith(" - {'password': '[REDACTED]'}")


def test_what_a_record_says_itself_behind_many_records(make_alone: MakeApp) -> None:
    """Is for the writing thread to ask: secrets are out by then, and whatever it does does not reach the caller."""
    app, asynclog, _ = waiting(make_alone)

    class Telling(logging.LogRecord):
        def getMessage(self) -> str:
            return f"{super().getMessage()} {self.token}"  # type: ignore[attr-defined]

    class Ending(logging.LogRecord):
        def getMessage(self) -> str:
            raise SystemExit

    crowd(app)
    for kind in (Telling, Ending):
        record = kind(app.name, logging.INFO, "", 0, "token", None, None)
        record.token = "s3cret"  # type: ignore[attr-defined]
        app.logger.handle(record)
    assert not asynclog.flush(HANG)  # one was given up
    assert log_lines(Path("app.log"))[-1].endswith(" - token [REDACTED]")
    assert (asynclog.stats().accepted, asynclog.stats().failed) == (MANY + 3, 1)


def test_a_formatter_of_its_own_behind_many_records(make_alone: MakeApp) -> None:
    """Makes the line of a record, whatever the file's is."""
    app, asynclog, pipeline = waiting(make_alone)
    handler = AsyncRotatingFileHandler("app.log")
    handler.setFormatter(logging.Formatter("OWN %(message)s"))
    logger = logging.getLogger("with_its_own")
    logger.propagate = False
    logger.addHandler(handler)
    try:
        crowd(app)
        logger.info("few of %s", "many")
        assert [*pipeline.queue.waiting][-1]["msg"] == "few of %s"  # type: ignore[index,call-overload]
        assert asynclog.flush(HANG)
    finally:
        logger.removeHandler(handler)
        handler.close()
    assert log_lines(Path("app.log"))[-1] == "OWN few of many"


def test_large_arguments_behind_many_records(make_alone: MakeApp) -> None:
    """Wait once, however many records show them."""
    app, _, pipeline = waiting(make_alone)
    crowd(app)
    large = "x" * 1000
    app.logger.info("%s", large, extra={"more": 1})
    entry = [*pipeline.queue.waiting][-1]
    assert type(entry) is tuple
    assert entry[-1][0] is large


def test_an_event_has_what_its_record_has(make_alone: MakeApp) -> None:
    """To the millisecond."""
    app, _, pipeline = waiting(make_alone)
    assert app.test_client().get("/").status_code == 404
    for event in pipeline.queue.waiting:
        record = restore(event)
        brief = as_brief(event)
        assert isinstance(brief, tuple)
        for name in ("levelno", "process", "created", "msecs", "name", "levelname"):
            assert getattr(restore(brief), name) == getattr(record, name), name
        assert restore(brief).getMessage() == record.getMessage()
        assert as_brief(record) == brief


def test_fields_behind_many_records(make_alone: MakeApp) -> None:
    """Are all there, where the format has them."""
    app, asynclog, pipeline = waiting(make_alone, format="json")
    crowd(app)
    assert app.test_client().get("/?q=1").status_code == 404
    assert [type(entry).__name__ for entry in [*pipeline.queue.waiting][-2:]] == ["Exchange", "Outcome"]
    assert asynclog.flush(HANG)
    assert json.loads(log_lines(Path("app.log"))[-1])["url.query"] == "q=1"


def test_an_event_that_cannot_be_told_behind_many_records(make_alone: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits as it is, and is not lost."""
    app, asynclog, pipeline = waiting(make_alone)
    crowd(app)
    with monkeypatch.context() as patch:
        patch.setattr(Exchange, "summary", lambda self: 1 / 0)
        assert app.test_client().get("/").status_code == 404
    assert [type(entry).__name__ for entry in [*pipeline.queue.waiting][-2:]] == ["Exchange", "tuple"]
    assert asynclog.flush(HANG)
    assert " - INFO - Request GET http://" in log_lines(Path("app.log"))[-2]


def test_a_child_keeps_its_own(make_alone: MakeApp) -> None:
    """Where Python is told of no fork: what the child has logged until that is noticed."""
    app, _, pipeline = waiting(make_alone)
    app.logger.info("of this process")
    (entry,) = pipeline.queue.waiting
    assert type(entry) is tuple
    pipeline.queue.append((entry[0], os.getpid() + 1, *entry[2:]))
    pipeline.queue.reset()
    assert [process_of(each) for each in pipeline.queue.waiting] == [os.getpid()]


def test_many_threads(make_alone: MakeApp, switching: None) -> None:
    """None is lost, none is doubled."""
    app, asynclog = make_alone()

    def log(number: int) -> None:
        for each in range(500):
            app.logger.info("%d.%d", number, each)

    threads = [threading.Thread(target=log, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG)
    assert asynclog.flush(HANG)
    messages = [line.rpartition(" - ")[2] for line in log_lines(Path("app.log"))]
    assert sorted(messages) == sorted(f"{number}.{each}" for number in range(4) for each in range(500))
