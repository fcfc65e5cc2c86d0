"""stderr, where the library speaks of itself when its own log cannot be used.

Called from any thread. Never raises, and never waits for a reader that has stopped reading: with stderr gone or stuck
there is nobody to tell.
"""

from __future__ import annotations

import os
import select
import sys
from typing import Any

from flask_asynclog.escaping import escape
from flask_asynclog.native import original

#: Seconds that one line waits for a stderr that does not take it.
PATIENCE = 0.1


def say(message: str) -> None:
    """Write ``flask_asynclog[pid]: message`` as one line to ``sys.stderr``."""
    line = escape(" ".join(message.split()))  # an error text must not become several lines, nor move the cursor
    write_stderr(f"flask_asynclog[{os.getpid()}]: {line}\n", PATIENCE)


def write_stderr(text: str, patience: float) -> bool:
    """Write ``text`` to whatever ``sys.stderr`` is at this moment; returns whether all of it was taken.

    A file descriptor is written to directly, piece by piece and only when it can take one, so that a full pipe
    holds up neither this thread nor, by the stream's lock, any other.

    :param patience: longest wait for each piece, in seconds.
    """
    try:
        stream = sys.stderr
        if stream is None:  # pyright: ignore[reportUnnecessaryComparison]  # daemons
            return False
        encoding = getattr(stream, "encoding", None) or "utf-8"
        data = text.encode(encoding, "backslashreplace")
        fd = _descriptor(stream)
        if fd is None:
            stream.write(data.decode(encoding))
            stream.flush()
            return True
        poller = original("select", "poll")()
        poller.register(fd, select.POLLOUT)
        left = memoryview(data)
        while left:
            if not poller.poll(patience * 1000):
                return False
            left = left[os.write(fd, left[: select.PIPE_BUF]) :]  # so much a writable pipe takes without waiting
    except Exception:  # whatever somebody has put there may raise anything
        return False
    return True


def _descriptor(stream: Any) -> int | None:
    """The file descriptor behind ``stream``; ``None``: it is a stream of Python only, as tests have."""
    try:
        fd: object = stream.fileno()
    except Exception:
        return None
    return fd if isinstance(fd, int) else None


class Once:
    """Says each thing once per process: the first time its key is seen."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def say(self, key: str, message: str) -> None:
        """Say ``message``, unless this ``key`` was said before."""
        if key not in self._said:
            self._said.add(key)
            say(message)
