"""A WSGI server whose every step a test takes itself, and what the log says of its responses."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from flask import Flask, Response
from werkzeug.test import create_environ

from flask_asynclog import AsyncLog
from support import HANG, assert_conserved, log_lines

WSGIApp = Callable[..., Iterable[bytes]]
Document = dict[str, Any]


class BodyError(Exception):
    """Raised by the bodies of these tests."""


class FileWrapper:
    """A server's own, as of PEP 3333."""

    def __init__(self, filelike: Any, blksize: int = 4) -> None:
        self.filelike = filelike
        self.close = filelike.close

    def __iter__(self) -> FileWrapper:
        return self

    def __next__(self) -> bytes:
        part: bytes = self.filelike.read(4)
        if not part:
            raise StopIteration
        return part


class Server:
    """A WSGI server in the hands of the test: it takes part after part of one response, and closes it."""

    def __init__(self, app: Callable[..., Iterable[bytes]], path: str = "/", **options: Any) -> None:
        self.environ = create_environ(path, **options)
        self.environ["wsgi.file_wrapper"] = FileWrapper
        self.status = ""
        self.headers: dict[str, str] = {}
        self.received: list[bytes] = []
        self.body = app(self.environ, self.start_response)
        self.parts = iter(self.body)

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        if exc_info is not None and self.received:
            raise exc_info[1]
        assert not self.status or exc_info is not None
        self.status, self.headers = status, dict(headers)
        return self.received.append

    def take(self, count: int) -> Server:
        """Send so many parts."""
        for _ in range(count):
            self.received.append(next(self.parts))
        return self

    def close(self) -> None:
        """As a server has to: whatever happened."""
        close = getattr(self.body, "close", None)
        if close is not None:
            close()

    def fail(self, error: BaseException) -> None:
        """An exception in the middle of sending: the server closes, and handles it further up."""
        with contextlib.suppress(type(error)):
            try:
                raise error
            finally:
                self.close()

    def finish(self) -> bytes:
        """Send all that is left, and close."""
        try:
            self.received.extend(self.parts)
        finally:
            self.close()
        return b"".join(self.received)


def documents(asynclog: AsyncLog) -> list[Document]:
    """The lines so far."""
    assert asynclog.flush(HANG)
    assert_conserved(asynclog.stats())
    return [json.loads(line) for line in log_lines(Path("app.log"))]


def outcome(asynclog: AsyncLog) -> Document:
    """The one response record so far."""
    (found,) = [d for d in documents(asynclog) if d["message"].startswith("Response ")]
    return found


def summary(document: Document) -> tuple[int, int | None, bool, str]:
    """Status, bytes, whether aborted, level."""
    return (
        document["http.response.status_code"],
        document.get("http.response.body.size"),
        document.get("http.response.aborted", False),
        document["level"],
    )


def streaming(app: Flask, make_body: Callable[[], Any], **options: Any) -> None:
    """Have ``/`` answer with such a body."""
    app.add_url_rule("/", "view", lambda: Response(make_body(), **options))


def three(log: Callable[[int], object] = lambda _: None) -> Iterator[bytes]:
    """A body of 6 bytes in 3 parts."""
    for number in range(3):
        log(number)
        yield b"p%d" % number
