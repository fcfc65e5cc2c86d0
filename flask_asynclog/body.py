"""Bodies that are sent while they are made: watched to their true end, neither read ahead nor kept.

Run on whichever thread the server sends from.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import TYPE_CHECKING, Any

from flask_asynclog.context import Context, current

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


class Sent:
    """What became of a body."""

    def __init__(self, size: int | None = 0) -> None:
        #: Bytes that the server took; ``None``: nobody knows.
        self.size = size
        #: When it had the first of them, of `time.perf_counter`.
        self.first_byte: float | None = None
        #: Whether the client went before the end.
        self.aborted = False
        #: What the body raised.
        self.error: BaseException | None = None


class StreamedBody:
    """Hands a body over to the server, part by part.

    What the body logs belongs to its request: ``context`` is the current one while it runs.

    :param body: what the app returned.
    :param whole: bytes that it should have; ``None``: not known.
    :param end: called once, in the request's context, when all was sent, when the client or the body gave up.
    """

    def __init__(
        self, body: Iterable[bytes], context: Context | None, whole: int | None, end: Callable[[Sent], None]
    ) -> None:
        self._body = body
        self._iterator: Iterator[bytes] | None = None
        self._context = context
        self._whole = whole
        self._end: Callable[[Sent], None] | None = end
        self._sent = Sent()
        #: Bytes of the part that the server has, and may not have sent.
        self._latest = 0

    def __iter__(self) -> StreamedBody:
        return self

    def __next__(self) -> bytes:
        outer = current.get()
        current.set(self._context)
        try:
            self._confirm()
            if self._iterator is None:
                self._iterator = iter(self._body)
            part = next(self._iterator)
        except StopIteration:
            self._finish()
            raise
        except BaseException as error:
            self._sent.error = error
            self._finish()
            raise
        finally:
            self._context = current.get()
            current.set(outer)
        self._latest = len(part)
        if part and self._sent.first_byte is None:
            self._sent.first_byte = perf_counter()
        return part

    def close(self) -> None:
        """The server is done, or its client is."""
        outer = current.get()
        current.set(self._context)
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            if self._end is not None:
                size = self._sent.size
                if self._whole is not None and size is not None and size + self._latest >= self._whole:
                    self._confirm()  # it had all, and did not ask whether there is more
                else:
                    self._sent.aborted = True
                self._finish()
            current.set(outer)

    def _confirm(self) -> None:
        if self._sent.size is not None:
            self._sent.size += self._latest
        self._latest = 0

    def _finish(self) -> None:
        end, self._end = self._end, None
        if end is not None:
            end(self._sent)

    def __del__(self) -> None:
        if self._end is not None:  # a server that closes nothing
            self.close()


def watch_file(
    body: Any, environ: WSGIEnvironment, context: Context | None, whole: int | None, end: Callable[[Sent], None]
) -> bool:
    """Have ``end`` called when the server closes ``body``, if that is a file which the server sends by its own means.

    The object stays what it is: by its type the server knows what to do with it. Parameters as of `StreamedBody`.

    :returns: ``False``: it is no such file. Where the server's type cannot be watched, ``end`` is called at once.
    """
    wrapper = environ.get("wsgi.file_wrapper")
    # uWSGI's is a function, and what that returns a file.
    if wrapper is None or not (isinstance(body, wrapper) if isinstance(wrapper, type) else hasattr(body, "read")):
        return False
    sent, began = Sent(), _position(body)
    close = getattr(body, "close", None)

    told: list[bool] = []

    def close_and_tell() -> None:
        outer = current.get()
        current.set(context)
        try:
            position = _position(body)
            if began is not None and position is not None:
                sent.size = position - began
            else:
                sent.size = whole
            sent.aborted = sys.exc_info()[1] is not None or (
                whole is not None and sent.size is not None and sent.size < whole
            )
            try:
                if close is not None:
                    close()
            finally:
                if not told:
                    told.append(True)
                    end(sent)
        finally:
            current.set(outer)

    try:
        body.close = close_and_tell
    except (AttributeError, TypeError):  # of a type in C, as uWSGI's
        sent.size = whole
        end(sent)
    return True


def _position(body: Any) -> int | None:
    """How far the file behind ``body`` has been read."""
    for name in ("filelike", "file"):
        file = getattr(body, name, None)
        try:
            if file is not None:
                return int(file.tell())
        except (OSError, ValueError, AttributeError):  # a pipe; closed already
            return None
    return None
