"""The one fork hook and the one exit hook of the process.

Objects with threads, queues or file handles register once and are held weakly. Nothing here knows what they are.
"""

from __future__ import annotations

import atexit
import os
import sys
from typing import Any, Protocol
from weakref import WeakSet

from flask_asynclog.records import show_error
from flask_asynclog.report import say


class Forkable(Protocol):
    """Something that a forked child must make its own."""

    def after_fork_in_child(self) -> None:
        """Give up what is the parent's, without blocking and without starting a thread."""


class Exitable(Protocol):
    """Something to be brought to an end before the interpreter is."""

    def begin_exit(self) -> None:
        """Begin to drain; do not wait."""

    def at_exit(self) -> None:
        """Drain within its own deadline, and say what is left."""


_forkables: WeakSet[Any] = WeakSet()
_exitables: WeakSet[Any] = WeakSet()
_exit_hook_pid: int | None = None
_finalizer: Any = None
_exiting = False


def register(forkable: Forkable) -> None:
    """From now on ``forkable`` is told, in the child, of every fork of this process by `os.fork`."""
    _forkables.add(forkable)


def register_exit(exitable: Exitable) -> None:
    """From now on ``exitable`` is ended at exit.

    Called with the first record of a process rather than at import: callbacks run in reverse order, so this one runs
    before those that were registered earlier; and a child of `multiprocessing` runs only what it registered
    itself (on Python 3.11 and 3.12 only finalizers of ``multiprocessing.util``, on 3.13 ``atexit``, emptied at
    its start).
    """
    global _exit_hook_pid, _finalizer
    _exitables.add(exitable)
    if _exit_hook_pid != os.getpid():
        _exit_hook_pid = os.getpid()
        _finalizer = None
        atexit.register(_at_exit)
    # Not imported here: an import in a thread's start path can deadlock a forked child.
    multiprocessing_util = sys.modules.get("multiprocessing.util")
    if multiprocessing_util is not None and not (_finalizer and _finalizer.still_active()):
        _finalizer = multiprocessing_util.Finalize(None, _at_exit, exitpriority=0)


def exiting() -> bool:
    """Whether the process is ending: who logs now must not start a thread."""
    return _exiting


def _at_exit() -> None:
    global _exiting
    _exiting = True  # from here on nobody starts a thread: there would be no one to wait for it
    exitables = list(_exitables)
    # All of them begin before the first is waited for, so that the time to drain is one, not one per file.
    for step in ([one.begin_exit for one in exitables], [one.at_exit for one in exitables]):
        for call in step:
            try:
                call()
            except Exception as error:
                say(f"draining at exit failed: {show_error(error)}")


def _after_fork_in_child() -> None:
    global _exiting
    _exiting = False
    for forkable in list(_forkables):
        try:
            forkable.after_fork_in_child()
        except Exception as error:
            say(f"cleaning up after fork failed: {show_error(error)}")


os.register_at_fork(after_in_child=_after_fork_in_child)
