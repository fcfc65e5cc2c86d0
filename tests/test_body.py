"""Bodies that are watched: what is told of their end, once, and that neither they nor the server notice."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_asynclog import bind, context
from flask_asynclog.body import Sent, StreamedBody, watch_file
from flask_asynclog.context import Context, current
from support import HANG


class BodyError(Exception):
    """Raised by the bodies of these tests."""


class GoneError(OSError):
    """The client of these tests has closed its socket."""


class FileWrapper:
    """A server's own, as of PEP 3333."""

    def __init__(self, filelike: Any, blksize: int = 4) -> None:
        self.filelike = filelike
        self.blksize = blksize
        self.close = filelike.close

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.filelike.read(self.blksize), b"")


def three(log: Callable[[int], object] = lambda _: None) -> Iterator[bytes]:
    """A body of 6 bytes in 3 parts."""
    for number in range(3):
        log(number)
        yield b"p%d" % number


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """No test leaves a context to the code that runs after the request, on the same thread."""
    yield
    leaked = current.get()
    current.set(None)
    assert leaked is None


# `StreamedBody` by itself.


def watched(body: Iterable[bytes], whole: int | None = None) -> tuple[StreamedBody, list[Sent]]:
    """A body, and what was told of its end."""
    ends: list[Sent] = []
    return StreamedBody(body, Context("id"), lambda: whole, ends.append), ends


def test_a_body_that_is_sent() -> None:
    """Its end is told when the server has asked for a part in vain, before it closes."""
    body, ends = watched(three())
    assert list(body) == [b"p0", b"p1", b"p2"]
    (sent,) = ends
    assert (sent.size, sent.aborted, sent.error) == (6, False, None)
    assert sent.first_byte is not None
    body.close()
    body.close()
    assert len(ends) == 1


def test_nothing_is_read_ahead() -> None:
    """A part is made when the server asks for it, the first one included."""
    made: list[int] = []
    body, ends = watched(three(made.append))
    assert iter(body) is body
    assert made == []
    for number in range(3):
        next(body)
        assert made == list(range(number + 1))
    assert ends == []
    body.close()


@pytest.mark.parametrize(("taken", "size"), [(0, 0), (1, 0), (2, 2), (3, 4)])
def test_a_body_that_is_closed_early(taken: int, size: int) -> None:
    """The part that the server took last is not known to have left: it is not counted."""
    body, ends = watched(three())
    for _ in range(taken):
        next(body)
    body.close()
    (sent,) = ends
    assert (sent.size, sent.aborted, sent.error) == (size, True, None)


@pytest.mark.parametrize("whole", [6, 5])
def test_a_body_that_is_closed_when_it_is_all_there(whole: int) -> None:
    """A server that has all of ``Content-Length`` need not ask for more; it sends no more than that."""
    body, ends = watched(three(), whole)
    for _ in range(3):
        next(body)
    body.close()
    (sent,) = ends
    assert (sent.size, sent.aborted) == (whole, False)


def test_a_last_part_that_could_not_be_sent() -> None:
    """Where the server closes because of an error, all of ``Content-Length`` taken is not all sent."""
    body, ends = watched(three(), 6)
    for _ in range(3):
        next(body)
    with contextlib.suppress(GoneError):
        try:
            raise GoneError
        finally:
            body.close()
    (sent,) = ends
    assert (sent.size, sent.aborted, sent.error) == (4, True, None)


@pytest.mark.parametrize("whole", [None, 0])
def test_an_empty_body(whole: int | None) -> None:
    """No bytes, so no time of the first one; one that shall have none may be closed unread."""
    for read in (True, False):
        body, ends = watched([], whole)
        if read:
            assert list(body) == []
        body.close()
        (sent,) = ends
        assert (sent.size, sent.first_byte, sent.error) == (0, None, None)
        assert sent.aborted == (whole is None and not read)


def test_empty_parts_are_no_first_byte() -> None:
    """A server waits with the status for the first part that is not empty."""
    body, _ = watched([b"", b"x"])
    next(body)
    assert body._sent.first_byte is None
    next(body)
    assert body._sent.first_byte is not None
    body.close()


@pytest.mark.parametrize("error", [BodyError("x"), SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_a_body_that_raises(error: BaseException) -> None:
    """The server gets the exception as it is; what was sent before counts."""

    def broken() -> Iterator[bytes]:
        yield b"ab"
        raise error

    body, ends = watched(broken())
    assert next(body) == b"ab"
    with pytest.raises(type(error)) as raised:
        next(body)
    assert raised.value is error
    body.close()
    (sent,) = ends
    assert (sent.size, sent.aborted, sent.error) == (2, False, error)


def test_a_body_that_cannot_be_iterated() -> None:
    """The same exception, no earlier than without us."""
    body, ends = watched(7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not iterable"):
        next(body)
    body.close()
    assert isinstance(ends[0].error, TypeError)


class Closing:
    """A body whose ``close`` raises."""

    def __iter__(self) -> Iterator[bytes]:
        return three()

    def close(self) -> None:
        raise BodyError("in close")


def test_a_close_that_raises_before_the_end() -> None:
    """It is the body's error, and it ends the body."""
    body, ends = watched(Closing())
    next(body)
    for _ in range(2):
        with pytest.raises(BodyError):
            body.close()
    (sent,) = ends
    assert isinstance(sent.error, BodyError)
    assert current.get() is None


def test_a_close_that_raises_after_the_end() -> None:
    """The server hears of it; all was sent already."""
    body, ends = watched(Closing())
    list(body)
    with pytest.raises(BodyError):
        body.close()
    (sent,) = ends
    assert (sent.size, sent.error) == (6, None)


def test_a_body_that_nobody_closes() -> None:
    """It ends with its object, whatever is being handled at that moment, and closes what is behind it."""
    closed: list[str | None] = []

    def generate() -> Iterator[bytes]:
        try:
            yield from three()
        finally:
            closed.append(context.request_id())

    body, ends = watched(generate())
    next(body)
    try:
        raise SystemExit
    except SystemExit:
        del body
        gc.collect()
    assert closed == ["id"]
    assert [(sent.aborted, sent.error) for sent in ends] == [(True, None)]


@pytest.mark.parametrize(
    ("error", "aborted"),
    [
        (BrokenPipeError(), True),
        (TimeoutError(), True),
        (type("ClientDisconnected", (Exception,), {})(), True),  # waitress's
        (GeneratorExit(), True),  # a generator around it was closed
        (TypeError("'p0' is not a byte"), False),
        (AssertionError("applications must write bytes"), False),
        (SystemExit(1), False),  # gunicorn's time-out
        (type("GreenletExit", (BaseException,), {})(), False),
    ],
)
def test_what_a_server_closes_for(error: BaseException, aborted: bool) -> None:
    """An error of the connection is the client's end; what ends the server, or a body of no bytes, is none."""
    body, ends = watched(three())
    next(body)
    next(body)
    with contextlib.suppress(type(error)):
        try:
            raise error
        finally:
            body.close()
    (sent,) = ends
    assert (sent.size, sent.aborted, sent.error) == (2, aborted, None if aborted else error)


def test_a_body_in_an_except_block() -> None:
    """What was being handled before the request has nothing to do with it."""
    try:
        raise SystemExit
    except SystemExit:
        body, ends = watched(three(), 6)
        for _ in range(3):
            next(body)
        body.close()
    (sent,) = ends
    assert (sent.aborted, sent.error) == (False, None)


def test_the_context_while_a_body_runs() -> None:
    """That of its request, with what it binds; the outer one in between, whatever that is by then."""
    seen: list[Any] = []

    def generate() -> Iterator[bytes]:
        try:
            for number in range(2):
                bind(**{f"bound{number}": number})
                seen.append(dict(current.get().bound))  # type: ignore[union-attr]
                yield b"x"
        finally:
            seen.append((context.request_id(), dict(current.get().bound)))  # type: ignore[union-attr]

    body, _ = watched(generate())
    for outer in (Context("other"), None):
        current.set(outer)
        next(body)
        assert current.get() is outer
    body.close()
    assert seen == [{"bound0": 0}, {"bound0": 0, "bound1": 1}, ("id", {"bound0": 0, "bound1": 1})]
    assert current.get() is None


def test_a_child_that_unwinds_a_body() -> None:
    """A fork in the middle of a body, another thread's perhaps: its end is the parent's to tell."""
    for make in (lambda: watched(three()), lambda: watched_file(io.BytesIO(b"0123"))):
        body, ends = make()
        pid = os.fork()
        if not pid:
            with contextlib.suppress(BaseException):
                body.close()
            os._exit(len(ends))
        assert os.waitpid(pid, 0)[1] == 0
        body.close()
        assert len(ends) == 1


# `watch_file` by itself.


def watched_file(file: Any, whole: int | None = None, wrapper: Any = FileWrapper) -> tuple[Any, list[Sent]]:
    """A server's file, and what was told of its end."""
    ends: list[Sent] = []
    body = wrapper(file)
    assert watch_file(body, {"wsgi.file_wrapper": wrapper}, Context("id"), lambda: whole, ends.append)
    assert ends == []
    return body, ends


def test_a_file_keeps_its_type() -> None:
    """By that, and by its attributes, the server knows what to do with it; its close closes the file."""
    file = io.BytesIO(b"0123456789")
    body, ends = watched_file(file, 10)
    assert type(body) is FileWrapper
    assert body.filelike is file
    assert file.tell() == 0
    assert list(body) == [b"0123", b"4567", b"89"]
    body.close()
    body.close()
    assert file.closed
    (sent,) = ends
    assert (sent.size, sent.aborted, sent.error) == (10, False, None)
    assert sent.first_byte is not None


def test_what_is_no_file_of_the_server() -> None:
    """No wrapper, another type, or no file at all: to be sent part by part."""
    for environ, body in (
        ({}, io.BytesIO()),
        ({"wsgi.file_wrapper": FileWrapper}, io.BytesIO()),
        ({"wsgi.file_wrapper": lambda file, _: file}, three()),
    ):
        assert not watch_file(body, environ, None, lambda: None, lambda sent: pytest.fail("told"))


def test_a_file_that_is_moved_back() -> None:
    """gunicorn sets the file back where it was when sendfile() has sent all; after an error it is where that was."""
    Path("page").write_bytes(b"0123456789")
    for read in (0, 10):  # gevent reads it
        with open("page", "rb") as file:
            body, ends = watched_file(file, 10)
            file.read(read)
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            body.close()
        assert (ends[0].size, ends[0].aborted) == (10, False)
    for moved in (0, 7):
        body, ends = watched_file(io.BytesIO(b"0123456789"), 10)
        body.filelike.seek(moved)
        with contextlib.suppress(GoneError):
            try:
                raise GoneError
            finally:
                body.close()
        assert (ends[0].size, ends[0].aborted, ends[0].error) == (moved, True, None)


def test_a_file_that_waitress_has_still_to_send() -> None:
    """It closes such a file on another thread, and without an exception."""
    for remain, size in ((0, 10), (10, 0)):
        body, ends = watched_file(io.BytesIO(b"0123456789"), 10)
        body.remain = remain
        closing = threading.Thread(target=body.close)
        closing.start()
        closing.join(HANG)
        assert (ends[0].size, ends[0].aborted) == (size, bool(remain))


class UWSGIFile:
    """uWSGI hands out what it is given; a file in C may take no attribute."""

    __slots__ = ()

    def read(self, size: int) -> bytes:
        return b""

    def tell(self) -> int:
        raise OSError("a pipe")


def test_a_file_of_uwsgi(tmp_path: Path) -> None:
    """Watched like others where its type lets us, told at once where it does not."""
    (tmp_path / "page").write_bytes(b"0123456789")
    body, ends = watched_file((tmp_path / "page").open("rb"), 10, lambda file: file)
    assert isinstance(body, io.BufferedReader)
    body.close()
    assert body.closed
    assert (ends[0].size, ends[0].aborted) == (10, False)
    told: list[Sent] = []
    environ = {"wsgi.file_wrapper": lambda file: file}
    assert watch_file(UWSGIFile(), environ, None, lambda: 10, told.append)
    assert [(sent.size, sent.aborted) for sent in told] == [(10, False)]


def test_a_file_that_nobody_closes() -> None:
    """Its end is told with that of its object; the file may have been collected first."""
    body, ends = watched_file(io.BytesIO(b"0123456789"), 10)
    body.filelike.seek(4)
    del body
    gc.collect()
    assert [sent.size in (4, None) for sent in ends] == [True]


def test_a_pipe() -> None:
    """It has no position and no length: what was sent of it is not known."""
    reading, writing = os.pipe()
    os.close(writing)
    body, ends = watched_file(os.fdopen(reading, "rb"))
    body.close()
    assert [(sent.size, sent.aborted, sent.error) for sent in ends] == [(None, False, None)]
