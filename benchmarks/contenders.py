"""The contenders: what an app uses to log, each behind the same small surface. Used in a block's own process.

All write the same line to ``app.log`` in a directory of their own, and none writes to a terminal: Flask's default
handler is taken off everywhere, which is to the good of the others (the usual recipe leaves it on).
"""

from __future__ import annotations

import importlib
import logging
import logging.handlers
import math
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask import Flask, Response, request
from flask.logging import default_handler

from benchmarks.bare import BareHandler

FORMAT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"
MAX_BYTES, BACKUP_COUNT = 50 * 1024 * 1024, 10


def nothing(*_: object) -> None:
    """Log nothing, close nothing."""


@dataclass
class Logging:
    """A contender at work in one app."""

    info: Callable[..., object] = nothing
    warning: Callable[..., object] = nothing
    error: Callable[..., object] = nothing
    #: Drain and end: what was logged before is in the file afterwards, as far as the contender is able to.
    close: Callable[[], object] = nothing
    #: What was logged before is under way to the file at the latest, where it would wait otherwise.
    flush: Callable[[], object] = nothing
    #: Records that wait, where it can tell; otherwise more than enough.
    waiting: Callable[[], float] = lambda: math.inf
    #: Records that it says it has dropped; ``None``: it does not say.
    dropped: Callable[[], int | None] = lambda: None
    #: Whether messages have ``{}`` in them, rather than ``%s``.
    braces: bool = False
    #: Whether it makes the request records itself, its responses with the path in them.
    own_requests: bool = False

    def message(self, text: str) -> str:
        """``text``, written for ``%s``, as this contender takes it."""
        return text.replace("%s", "{}") if self.braces else text


Open = Callable[[Flask, Path], Logging]


@dataclass(frozen=True)
class Contender:
    """Its name, what it is, the module it needs, and how it is set up."""

    name: str
    about: str
    open: Open
    needs: str = "flask"
    #: Whether its lines land in a file.
    writes: bool = True

    def unavailable(self) -> str:
        """Why it cannot be used here; empty when it can."""
        try:
            importlib.import_module(self.needs)
        except Exception as error:  # a compiled module of the wrong machine raises what it likes
            return f"{self.needs} cannot be imported: {error}"
        return ""

    def start(self, app: Flask, directory: Path, *, requests: bool = True, **options: Any) -> Logging:
        """Set it up on ``app``; with ``requests``, a record before and one after each request."""
        if self.name == "ours":
            options.setdefault("request_events", ("request", "response") if requests else ())
        its = self.open(app, directory, **options)
        if requests and not its.own_requests and self.name != "none":
            log_requests(app, its)
        return its


def log_requests(app: Flask, its: Logging) -> None:
    """The two records of the usual recipe."""
    log, before, after = its.info, its.message("Request %s %s"), its.message("Response %s")

    @app.before_request
    def log_request() -> None:
        log(before, request.method, request.url)

    @app.after_request
    def log_response(response: Response) -> Response:
        log(after, response.status)
        return response


def bare_logger(app: Flask) -> logging.Logger:
    """``app.logger`` at INFO, with no handler on it and none above."""
    logger = app.logger
    logger.removeHandler(default_handler)
    logger.setLevel(logging.INFO)
    return logger


def formatted(handler: logging.Handler) -> logging.Handler:
    """The handler, with the format that all have."""
    handler.setFormatter(logging.Formatter(FORMAT))
    return handler


def rotating(directory: Path) -> logging.Handler:
    """concurrent-log-handler's file, as large as ours by default."""
    from concurrent_log_handler import ConcurrentRotatingFileHandler

    return formatted(ConcurrentRotatingFileHandler(directory / "app.log", "a", MAX_BYTES, BACKUP_COUNT))


def by_handler(app: Flask, handler: logging.Handler, close: Callable[[], object] | None = None) -> Logging:
    """One handler on ``app.logger``."""
    logger = bare_logger(app)
    logger.addHandler(handler)
    return Logging(logger.info, logger.warning, logger.error, close or handler.close)


def open_none(app: Flask, directory: Path) -> Logging:
    """No logging at all."""
    bare_logger(app)
    return Logging()


def open_null(app: Flask, directory: Path) -> Logging:
    """The calls, and a handler that does nothing."""
    return by_handler(app, logging.NullHandler())


def open_file(app: Flask, directory: Path) -> Logging:
    """The usual recipe."""
    return by_handler(app, formatted(logging.FileHandler(directory / "app.log")))


def open_bare(app: Flask, directory: Path) -> Logging:
    """The least that lines can cost."""
    return by_handler(app, BareHandler(directory / "app.log"))


def open_clh(app: Flask, directory: Path) -> Logging:
    """concurrent-log-handler in the caller's thread."""
    return by_handler(app, rotating(directory))


def through_queue(app: Flask, directory: Path, records: Any) -> Logging:
    """The standard library's pair of handler and listener around a queue, concurrent-log-handler behind it."""
    file = rotating(directory)
    listener = logging.handlers.QueueListener(records, file)
    listener.start()

    def close() -> None:
        listener.stop()
        file.close()

    its = by_handler(app, logging.handlers.QueueHandler(records), close)
    its.waiting = records.qsize
    return its


def open_stdlib(app: Flask, directory: Path) -> Logging:
    """`through_queue` with the queue of the standard library's documentation."""
    return through_queue(app, directory, queue.Queue(-1))


def open_stdlib_simple(app: Flask, directory: Path) -> Logging:
    """`through_queue` with the queue that costs least."""
    return through_queue(app, directory, queue.SimpleQueue())


def open_loguru(app: Flask, directory: Path) -> Logging:
    """loguru with its queue."""
    from loguru import logger

    bare_logger(app)
    logger.remove()
    layout = "{time:YYYY-MM-DD HH:mm:ss,SSS} - {name} - {level} - {message}"
    logger.add(directory / "app.log", level="INFO", format=layout, enqueue=True, rotation=MAX_BYTES)

    def close() -> None:
        logger.complete()
        logger.remove()

    return Logging(logger.info, logger.warning, logger.error, close, logger.complete, braces=True)


def open_picologging(app: Flask, directory: Path) -> Logging:
    """picologging's own pair of handler and listener, its own file behind it."""
    import picologging
    from picologging.handlers import QueueHandler, QueueListener

    bare_logger(app)
    logger = picologging.getLogger("bench")
    logger.setLevel(picologging.INFO)
    file = picologging.FileHandler(str(directory / "app.log"))
    # Without a date format its lines begin with whatever is in memory.
    file.setFormatter(picologging.Formatter(FORMAT, "%Y-%m-%d %H:%M:%S"))
    records: queue.SimpleQueue[object] = queue.SimpleQueue()
    listener = QueueListener(records, file)
    listener.start()
    logger.addHandler(QueueHandler(records))

    def close() -> None:
        listener.stop()
        file.close()

    return Logging(logger.info, logger.warning, logger.error, close)


def open_logxide(app: Flask, directory: Path) -> Logging:
    """logxide, which hands records to a file handler from a thread of its own."""
    import logxide

    class Lines(logxide.Formatter):
        """Its own formatter returns the message alone."""

        def format(self, record: Any) -> str:
            return f"{self.formatTime(record)} - {record['name']} - {record['levelname']} - {record['msg']}"

        def formatTime(self, record: Any, datefmt: str | None = None) -> str:
            moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record["created"]))
            return f"{moment},{int(record['msecs']):03d}"

    bare_logger(app)
    path = directory / "app.log"
    file: Any = logxide.FileHandler(str(path))
    file.setFormatter(Lines())
    logger = logxide.getLogger("bench")
    logger.setLevel(logging.INFO)
    logger.addHandler(file)

    def close() -> None:
        logxide.flush()  # returns while records are still under way, and a file closed then loses them
        deadline, size = time.monotonic() + 30, -1
        while size != path.stat().st_size and time.monotonic() < deadline:
            size = path.stat().st_size
            time.sleep(0.2)
        file.close()

    return Logging(logger.info, logger.warning, logger.error, close, logxide.flush)


def open_ours(app: Flask, directory: Path, **options: Any) -> Logging:
    """The one line."""
    from flask_asynclog import AsyncLog

    asynclog = AsyncLog(app, filename=directory / "app.log", console=False, **options)
    logger = app.logger

    def close() -> None:
        asynclog.stop(60)

    def flush() -> None:
        asynclog.flush(60)

    return Logging(
        logger.info, logger.warning, logger.error, close, flush, lambda: asynclog.stats().pending,
        lambda: asynclog.stats().dropped, own_requests=True,
    )  # fmt: skip


CONTENDERS = {
    each.name: each
    for each in (
        Contender("none", "no logging", open_none, writes=False),
        Contender("null", "the calls, above a handler that does nothing", open_null, writes=False),
        Contender("file", "logging.FileHandler, synchronous: the usual recipe", open_file),
        Contender("bare", "lines made in the caller, 256 to a write; no lock, no rotation: for comparison", open_bare),
        Contender("clh", "concurrent-log-handler, synchronous", open_clh, "concurrent_log_handler"),
        Contender(
            "stdlib", "QueueHandler, queue.Queue, QueueListener, concurrent-log-handler", open_stdlib,
            "concurrent_log_handler",
        ),
        Contender(
            "stdlib-simple", "the same with queue.SimpleQueue", open_stdlib_simple, "concurrent_log_handler"
        ),
        Contender("loguru", "loguru, enqueue=True", open_loguru, "loguru"),
        Contender("logxide", "logxide, its file handler", open_logxide, "logxide"),
        Contender("picologging", "picologging, its QueueHandler and QueueListener", open_picologging, "picologging"),
        Contender("ours", "flask_asynclog: AsyncLog(app)", open_ours, "flask_asynclog"),
    )
}  # fmt: skip

#: Those that quick runs of scenarios with all of them leave out.
NOT_QUICK = ("stdlib-simple", "logxide", "picologging")
