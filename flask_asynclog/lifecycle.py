"""Birth and death of the process: its forks, its end, its SIGTERM, and when it must not have threads.

One fork hook, one exit hook and one signal handler per process. Objects with threads, queues or file handles register
once and are held weakly. Nothing here knows what they are.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol
from weakref import WeakSet

from flask_asynclog.native import get_ident, sleep
from flask_asynclog.report import say
from flask_asynclog.values import show_error

#: Seconds after which a fork is over, even if the hook behind it was interrupted by a signal handler that raised.
FORK_SECONDS = 5.0
_NOT_HANDLED = object()
#: Seconds after a SIGTERM that another's handler took, in which the process is taken to be about to end.
ENDING_SECONDS = 60.0


class Forkable(Protocol):
    """Something that a forked child must make its own."""

    def after_fork_in_child(self) -> None:
        """Give up what is the parent's, without blocking and without starting a thread."""


class Draining(Forkable, Protocol):
    """Something with a thread and with records that wait, to be brought to an end before the interpreter is."""

    def before_fork(self) -> None:
        """Drain for a second at most, and end the thread."""

    def after_fork(self) -> None:
        """Go on with what waits: in the parent, and in the child with what was logged there meanwhile."""

    def begin_exit(self) -> None:
        """Begin to drain; do not wait."""

    def at_exit(self) -> None:
        """Drain within its own deadline, and say what is left."""

    def leave_inline(self) -> None:
        """Have the thread end when it has drained; do not wait."""

    @property
    def drained(self) -> bool:
        """Whether nothing waits."""
        ...


_forkables: WeakSet[Any] = WeakSet()
_draining: WeakSet[Any] = WeakSet()
_exit_hook_pid: int | None = None
_finalizer: Any = None
_exiting = False
#: Until when, of `time.monotonic`, the process is taken to be about to end.
_ending_until = 0.0
#: Threads in the middle of a fork, and since when.
_forking: dict[int, float] = {}
#: What SIGTERM did before, once our handler was installed.
_previous_sigterm: Any = _NOT_HANDLED

#: By process, the thread that has noticed a fork first.
_claims: dict[int, int] = {}
#: The process that all registered objects belong to.
pid = os.getpid()


def register(forkable: Forkable) -> None:
    """From now on ``forkable`` is told, in the child, of every fork of this process."""
    _forkables.add(forkable)


def register_exit(draining: Draining) -> None:
    """From now on ``draining`` is told of forks beforehand, and ended at exit.

    Called when a pipeline is made, and again whenever its thread is to start, with the first record of a process for
    one; not at import. Callbacks run in reverse order, so this one runs before those that were registered earlier; and
    a child of `multiprocessing` runs only what it registered itself (on Python 3.11 and 3.12 only finalizers of
    ``multiprocessing.util``, on 3.13 ``atexit``, emptied at its start). A child of Celery's pool runs neither, but
    sends a signal.
    """
    global _exit_hook_pid, _finalizer
    _draining.add(draining)
    if _exit_hook_pid != os.getpid():
        _exit_hook_pid = os.getpid()
        _finalizer = None
        atexit.register(_at_exit)
    # Not imported here: an import in a thread's start path can deadlock a forked child.
    multiprocessing_util = sys.modules.get("multiprocessing.util")
    if multiprocessing_util is not None and not (_finalizer and _finalizer.still_active()):
        _finalizer = multiprocessing_util.Finalize(None, _at_exit, exitpriority=0)
    celery_signals = sys.modules.get("celery.signals")
    if celery_signals is not None:
        celery_signals.worker_process_shutdown.connect(_at_exit, weak=False, dispatch_uid="flask_asynclog")


# When there must not be a thread.


def exiting() -> bool:
    """Whether the process is ending: who logs now must not start a thread."""
    return _exiting


def forking() -> bool:
    """Whether a fork is under way: no thread is to be started until the parent goes on."""
    now = time.monotonic()
    return any(now - since < FORK_SECONDS for since in list(_forking.values()))


def inline_reason() -> str | None:
    """Why records must be written at once by the thread that logs them; ``None``: a thread may be started."""
    if _exiting:
        return "the process is ending"
    if time.monotonic() < _ending_until:
        return "SIGTERM has come"
    if "uwsgi" in sys.modules:
        # Its master forks without telling Python; its workers have no threads without an option, and with it, one that
        # is ended in the middle of a request runs no hook of Python's.
        return "uWSGI ends its processes without telling Python"
    if os.environ.get("WERKZEUG_RUN_MAIN") == "true":
        return "the development reloader kills its processes"
    return None


# Forks.


def check_process() -> None:
    """Notice a fork that Python was not told of: uWSGI's in its default mode. Any thread; cheap."""
    mine = os.getpid()
    if pid == mine:
        return
    if _claims.setdefault(mine, get_ident()) == get_ident():
        _become_child()
    for _ in range(1000):  # another thread is at it: microseconds
        if pid == mine:
            break
        sleep(0.001)


def _before_fork() -> None:
    _forking[get_ident()] = time.monotonic()
    _tell_all("preparing a fork", [one.before_fork for one in list(_draining)])


def _after_fork_in_parent() -> None:
    _forking.pop(get_ident(), None)
    _tell_all("going on after a fork", [one.after_fork for one in list(_draining)])


def _after_fork_in_child() -> None:
    if pid != os.getpid():  # unless the hook of another library has logged before
        _become_child()
    _forking.clear()
    _tell_all("going on after a fork", [one.after_fork for one in list(_draining)])


def _become_child() -> None:
    global pid, _exiting, _ending_until
    _exiting, _ending_until = False, 0.0
    _tell_all("cleaning up after a fork", [one.after_fork_in_child for one in list(_forkables)])
    pid = os.getpid()  # last: whoever else has noticed waits for it


def _tell_all(what: str, calls: list[Callable[[], None]]) -> None:
    for call in calls:
        try:
            call()
        except Exception as error:
            say(f"{what} failed: {show_error(error)}")


# Hooks before a fork run in reverse order of registration: ours before logging takes its locks, which the thread may
# need to come to an end.
os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


# The end.


def _at_exit(**_: object) -> None:
    global _exiting
    check_process()
    _exiting = True  # from here on nobody starts a thread: there would be no one to wait for it
    draining = list(_draining)
    # All of them begin before the first is waited for, so that the time to drain is one, not one per file.
    calls = [one.begin_exit for one in draining] + [one.at_exit for one in draining]
    while calls:
        with contextlib.suppress(BaseException):  # a signal handler's, to hurry, as gunicorn's: it is bounded anyway
            _tell_all("draining at exit", calls[:1])
            del calls[0]


def handle_sigterm() -> None:
    """From now on SIGTERM drains, then does what it did before: with the default, ends the process by SIGTERM.

    Another's handler is called in its turn. Until it has ended the process, as those of ASGI servers do by
    sending the signal again with the default restored, records are written at once.
    Does nothing outside the main thread, where Python lets nobody handle signals, and under uWSGI and mod_wsgi, which
    have their own ways.
    """
    global _previous_sigterm
    current = signal.getsignal(signal.SIGTERM)
    if _previous_sigterm is not _NOT_HANDLED:  # whoever came on top of ours may call it
        return
    if current in (signal.SIG_IGN, None) or not sys.modules.keys().isdisjoint({"uwsgi", "mod_wsgi"}):
        return
    _previous_sigterm = current
    try:
        signal.signal(signal.SIGTERM, _on_sigterm)
    except ValueError:  # not the main thread
        _previous_sigterm = _NOT_HANDLED


def restore_sigterm() -> None:
    """Undo `handle_sigterm`, unless somebody else's handler came on top."""
    global _previous_sigterm
    if signal.getsignal(signal.SIGTERM) is _on_sigterm:
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGTERM, _previous_sigterm)
            _previous_sigterm = _NOT_HANDLED


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    global _exiting, _ending_until
    previous = _previous_sigterm
    if callable(previous):
        signal.signal(number, previous)
        _ending_until = time.monotonic() + ENDING_SECONDS
        _tell_all("draining at SIGTERM", [one.leave_inline for one in list(_draining)])
        previous(number, frame)
        return
    if _exiting:  # a second one, as from whoever signals a whole group: the first is at it, and bounded
        return
    _at_exit()
    deadline = time.monotonic() + 0.1
    while not all(one.drained for one in list(_draining)) and time.monotonic() < deadline:
        sleep(0.001)  # other threads serve on, and write inline what they log
    signal.signal(number, previous)
    os.kill(os.getpid(), number)
    _exiting = False  # process 1 of a container ignores it, and so do we: it would have to be killed
    signal.signal(number, _on_sigterm)
