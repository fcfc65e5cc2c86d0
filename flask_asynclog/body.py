"""Bodies that are sent while they are made: watched to their true end, neither read ahead nor kept.

Run on whichever thread the server sends from, and closes on: waitress has another one for each.
"""

from __future__ import annotations

import select
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from os import getpid
from time import perf_counter
from typing import TYPE_CHECKING, Any

from werkzeug.wrappers.response import Response
from werkzeug.wsgi import ClosingIterator

from flask_asynclog.context import Context, get_current, running, set_current

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: What servers raise about a body that is not made of bytes. Whatever else they raise is about the client.
_FAULTS = (TypeError, AssertionError)


def _ordinary(failure: BaseException | None) -> bool:
    """Whether a server that closes for this is done with the body: a generator around it may have been closed."""
    return failure is None or isinstance(failure, GeneratorExit)


class Sent:
    """What became of a body."""

    def __init__(self, size: int | None = 0) -> None:
        #: Bytes that the client can have got; ``None``: nobody knows.
        self.size = size
        #: When the server had the first of them, of `time.perf_counter`.
        self.first_byte: float | None = None
        #: Whether the client went before the end.
        self.aborted = False
        #: What the body raised, or what ended the server in the middle of it.
        self.error: BaseException | None = None


class Watch:
    """Sees one body to its end.

    :param context: the one that the body runs in.
    :param whole: bytes that the body should have, asked at its end; ``None``: not known.
    :param end: called once, in that context, when all was sent, when the client or the body gave up.
    """

    def __init__(self, context: Context | None, whole: Callable[[], int | None], end: Callable[[Sent], None]) -> None:
        self._context = context
        self._whole = whole
        self._end: Callable[[Sent], None] | None = end
        self._sent = Sent()
        #: What is being handled around the request: a test client may be called from an ``except`` block.
        self._around = sys.exc_info()[1]
        self._pid = getpid()

    def close(self) -> None:
        """The server is done, or its client is."""
        failure = sys.exc_info()[1]
        self._close(None if failure is self._around else failure)

    def __del__(self) -> None:
        if self._end is not None:  # a server that closes nothing
            self._close(None)

    def _close(self, failure: BaseException | None) -> None:
        outer = get_current()
        set_current(self._context)
        try:
            if self._end is not None:
                self._judge(failure)
            close = self._closing()
            if close is not None:
                close()
        except BaseException as error:
            if self._end is not None:
                self._sent.error = error
            raise
        finally:
            self._finish()
            set_current(outer)

    def _judge(self, failure: BaseException | None) -> None:
        """Find out how much was sent, and `_settle`."""
        raise NotImplementedError

    def _closing(self) -> Callable[[], object] | None:
        """What closes the body itself; ``None``: nothing does."""
        raise NotImplementedError

    def _settle(self, failure: BaseException | None, *, complete: bool) -> None:
        """Tell who gave up, if anybody did: ``failure`` is what the server was closing for."""
        sent = self._sent
        if _ordinary(failure):
            sent.aborted = not complete
        elif isinstance(failure, Exception) and not isinstance(failure, _FAULTS):
            sent.aborted = True
        else:  # a worker's time-out, a greenlet that is killed
            sent.error = failure

    def _finish(self) -> None:
        end, self._end, self._around = self._end, None, None
        if end is None or self._pid != getpid():  # a child that unwinds what goes on in its parent
            return
        sent, whole = self._sent, self._whole()
        if whole is not None and sent.size is not None:
            sent.size = min(sent.size, whole)  # no server sends more, or no client takes it for this response
        if sent.size == 0:
            sent.first_byte = None
        end(sent)


class StreamedBody(Watch):
    """Hands a body over to the server, part by part.

    What the body logs belongs to its request: the context is the current one while it runs, with what it binds.

    :param body: what the app returned.

    Further parameters as of `Watch`.
    """

    def __init__(
        self,
        body: Iterable[bytes],
        context: Context | None,
        whole: Callable[[], int | None],
        end: Callable[[Sent], None],
    ) -> None:
        super().__init__(context, whole, end)
        self._body = body
        self._iterator: Iterator[bytes] | None = None
        self._size = 0
        #: Bytes of the part that the server has, and may not have sent.
        self._latest = 0

    def __iter__(self) -> StreamedBody:
        return self

    def __next__(self) -> bytes:
        outer = get_current()
        set_current(self._context)
        try:
            self._confirm()
            if self._iterator is None:
                self._iterator = iter(self._body)
            with running(self._context):
                part = next(self._iterator)
        except StopIteration:
            self._finish()
            raise
        except BaseException as error:
            self._sent.error = error
            self._finish()
            raise
        finally:
            self._context = get_current()
            set_current(outer)
        self._latest = len(part)
        if part and self._sent.first_byte is None:
            self._sent.first_byte = perf_counter()
        return part

    def _judge(self, failure: BaseException | None) -> None:
        whole = self._whole()
        complete = whole is not None and self._size + self._latest >= whole
        if complete and _ordinary(failure):
            self._confirm()  # it had all, and did not ask whether there is more
        self._settle(failure, complete=complete)

    def _closing(self) -> Callable[[], object] | None:
        return getattr(self._body, "close", None)

    def _confirm(self) -> None:
        self._size += self._latest
        self._latest = 0
        self._sent.size = self._size


class WatchedFile(Watch):
    """In the place of ``close`` of a file that the server sends by its own means. Parameters as of `StreamedBody`."""

    def __init__(
        self, body: Any, context: Context | None, whole: Callable[[], int | None], end: Callable[[Sent], None]
    ) -> None:
        super().__init__(context, whole, end)
        self._body = body
        self._close_body: Callable[[], object] | None = getattr(body, "close", None)
        self._began = _position(body)
        self._sent.first_byte = perf_counter()

    def end_at_once(self) -> None:
        """The server closes it where nobody sees it."""
        self._sent.size = self._whole()
        self._finish()

    def _judge(self, failure: BaseException | None) -> None:
        cut_off = uwsgi_client_gone()
        size, whole = self._moved(failed=cut_off or not _ordinary(failure)), self._whole()
        self._sent.size = size if size or not cut_off else None  # it does not move the file
        self._settle(failure, complete=not cut_off and (size is None or whole is None or size >= whole))

    def _closing(self) -> Callable[[], object] | None:
        return self._close_body

    def _moved(self, *, failed: bool) -> int | None:
        position = _position(self._body)
        if self._began is None:
            return None if failed else self._whole()
        if position is None:  # somebody else has closed it
            return None
        if position > self._began:
            return position - self._began
        # Where it began. After sendfile() gunicorn takes it back there, behind the back of a buffer which then counts
        # from too low; uWSGI never moves it. waitress does, and knows what it has still to send.
        return 0 if failed or getattr(self._body, "remain", None) else self._whole()


def watch_file(
    body: Any,
    environ: WSGIEnvironment,
    context: Context | None,
    whole: Callable[[], int | None],
    end: Callable[[Sent], None],
) -> bool:
    """Have ``end`` called when the server closes ``body``, if that is a file which the server sends by its own means.

    The object stays what it is: by its type the server knows what to do with it. Parameters as of `StreamedBody`.

    :returns: ``False``: it is no such file. Where the server's type cannot be watched, ``end`` is called at once.
    """
    wrapper = environ.get("wsgi.file_wrapper")
    # uWSGI's is a function, and what that returns a file.
    if wrapper is None or not (isinstance(body, wrapper) if isinstance(wrapper, type) else hasattr(body, "read")):
        return False
    watch = WatchedFile(body, context, whole, end)
    try:
        body.close = watch.close
    except (AttributeError, TypeError):  # of a type in C
        watch.end_at_once()
    return True


def has_all_parts(body: object) -> bool:
    """Whether all parts of a body are there before it is sent, to the best of anybody's knowledge.

    Of an error or a redirect Flask makes a response as of any WSGI app, which may be a stream: the first part has been
    taken, and the others are behind it. Of a page it is Werkzeug's own iterator around a list that closes it.
    """
    if type(body) is not ClosingIterator:
        return isinstance(body, (list, tuple))
    closed = [getattr(callback, "__self__", None) for callback in vars(body).get("_callbacks", ())]
    return any(_encodes_list(each) for each in (body, *closed))


def _encodes_list(body: object) -> bool:
    if type(body) is not ClosingIterator:
        return False
    parts: Any = next(iter(getattr(vars(body).get("_next"), "args", ())), None)
    if isinstance(parts, type(iter(()))):  # of a response that has no body
        return True
    frame: Any = getattr(parts, "gi_frame", None)
    if frame is None or frame.f_globals.get("__name__") != Response.__module__:
        return False
    return isinstance(frame.f_locals.get("iterable"), (list, tuple))


def uwsgi_client_gone() -> bool:
    """Whether uWSGI's client, or the proxy before it, has cut the connection: no error of its sendfile() is told."""
    uwsgi: Any = sys.modules.get("uwsgi")
    if uwsgi is None:
        return False
    try:
        connection = socket.socket(fileno=uwsgi.connection_fd())
        try:
            watching = select.poll()
            watching.register(connection, 0)
            ((_, events),) = watching.poll(0) or ((0, 0),)
            # A proxy that has got all closes its end of a Unix socket, which is a hang-up; a TCP socket's is none.
            cut = select.POLLERR if connection.family == socket.AF_UNIX else select.POLLERR | select.POLLHUP
        finally:
            connection.detach()
    except Exception:  # nobody knows
        return False
    return bool(events & cut)


def _position(body: Any) -> int | None:
    """How far the file behind ``body`` has been read."""
    try:
        for name in ("filelike", "file"):
            if hasattr(body, name):
                return int(getattr(body, name).tell())
        return int(body.tell())
    except Exception:  # a pipe; closed already; whatever the app calls a file
        return None
