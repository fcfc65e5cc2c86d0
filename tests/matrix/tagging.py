"""Copied beside the programs of the cells: logs tagged records, and keeps a ledger of those that were logged.

Any process, thread, signal handler or finalizer: an entry of the ledger is one write, behind the record's.
"""

from __future__ import annotations

import itertools
import logging
import os

from flask import Flask

from flask_asynclog import AsyncLog

#: Options of the log that all programs share.
OPTIONS = {"format": "%(message)s", "max_bytes": 100_000, "backup_count": 1000}

_directory = os.getcwd()
_logger = logging.getLogger("tagged")
_numbers = itertools.count()


def make_app() -> tuple[Flask, AsyncLog]:
    """An app whose records go to ``tagged.log``; more options from ``FLASK_ASYNCLOG_…``."""
    app = Flask("program")
    app.config.from_prefixed_env()
    return app, AsyncLog(app, filename="tagged.log", **OPTIONS)


def log(count: int = 1, name: str = "main") -> None:
    """Log so many records, each with a tag that no other has, and note each once it is logged."""
    for _ in range(count):
        tag = f"{name}-{os.getpid()}-{next(_numbers)}"
        _logger.info("tag=%s", tag)
        note(tag, "ledger")


def note(text: object, file: str) -> None:
    """Append ``text`` as a line to ``file``; whole lines, whoever else writes."""
    fd = os.open(os.path.join(_directory, file), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, f"{text}\n".encode())
    finally:
        os.close(fd)
