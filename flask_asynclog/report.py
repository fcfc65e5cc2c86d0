"""One line on stderr: where the library speaks of itself when its own log cannot be used.

Called from any thread. Never raises: with stderr gone there is nobody left to tell.
"""

from __future__ import annotations

import os
import sys


def say(message: str) -> None:
    """Write ``flask_asynclog[pid]: message`` and a line end to ``sys.stderr``, in one write."""
    stream = sys.stderr
    if stream is None:  # pyright: ignore[reportUnnecessaryComparison]  # pythonw, daemons
        return
    line = " ".join(message.split())  # an error text must not become several lines
    try:
        stream.write(f"flask_asynclog[{os.getpid()}]: {line}\n")
        stream.flush()
    except (OSError, ValueError):
        return


class Once:
    """Says each thing once per process: the first time its key is seen."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def say(self, key: str, message: str) -> None:
        """Say ``message``, unless this ``key`` was said before."""
        if key not in self._said:
            self._said.add(key)
            say(message)
