"""Threads, locks and sleep of the operating system, whatever gevent or eventlet made of them.

A listener that is a greenlet would stop all others while the disk is slow. Patching may come after the import of this
package, and after a fork: so what to use is looked up when it is needed. Without patching it is what `threading` has.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any


def _patcher(module: str) -> Any:
    """What replaced the functions of ``module``: gevent's or eventlet's own module, ``None`` when nothing did."""
    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None and gevent.is_module_patched(module):
        return gevent
    eventlet = sys.modules.get("eventlet.patcher")
    if eventlet is not None and eventlet.is_monkey_patched({"_thread": "thread"}.get(module, module)):
        return eventlet
    return None


def original(module: str, name: str) -> Any:
    """``module.name`` as it was before any patching. The module must have been imported."""
    patcher = _patcher(module)
    if patcher is None:
        return getattr(sys.modules[module], name)
    if patcher.__name__ == "gevent.monkey":
        return patcher.get_original(module, name)
    return getattr(patcher.original(module), name)


def cooperative() -> bool:
    """Whether the threads of this process are greenlets: a caller that blocks stops all of them."""
    return _patcher("time") is not None


def sleep(seconds: float) -> None:
    """Block this thread of the operating system."""
    original("time", "sleep")(seconds)


def allocate_lock() -> Any:
    """A lock, as of `threading.Lock`."""
    return original("_thread", "allocate_lock")()


def allocate_rlock() -> Any:
    """A lock that its thread may take again, as of `threading.RLock`."""
    return original("_thread", "RLock")()


#: Identifies the thread of the operating system: the same for all greenlets on it.
get_ident: Callable[[], int] = original("_thread", "get_ident")


class Signal:
    """Wakes one waiting thread. Setting it takes no lock, so a signal handler may.

    A lock serves as a binary semaphore: held means not set. `threading.Event` would deadlock a handler that sets
    it in the middle of another ``set`` of the same thread.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._lock.acquire()

    def set(self) -> None:
        """Wake the waiting thread, or the next one to wait."""
        try:
            self._lock.release()
        except RuntimeError:  # set already
            return

    def wait(self, timeout: float | None = None) -> bool:
        """Block until set, or for ``timeout`` seconds; takes the signal back."""
        return bool(self._lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout)))

    def wait_as_caller(self, timeout: float | None = None) -> bool:
        """The same on any thread of the app: where that is a greenlet, the others run meanwhile."""
        if not cooperative():
            return self.wait(timeout)
        return poll(lambda: self.wait(0), timeout)


def poll(condition: Callable[[], bool], timeout: float | None) -> bool:
    """Wait until ``condition`` holds, at most ``timeout`` seconds, letting other threads and greenlets run."""
    deadline = None if timeout is None else time.monotonic() + timeout
    delay = 0.0005
    while not condition():
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            delay = min(delay, left)
        time.sleep(delay)  # gevent's, where it is
        delay = min(delay * 2, 0.02)
    return True


class NativeThread:
    """A daemon thread of the operating system.

    Started by `threading` where that makes such threads, so that debuggers and leak detectors see its name; by the
    original primitive where it makes greenlets, or may do so before the thread has ended.

    :param target: called with this object, on the new thread; an exception out of it is for `threading.excepthook`.
    :param name: as of `threading.Thread`.
    """

    def __init__(self, target: Callable[[NativeThread], None], name: str) -> None:
        self._target = target
        self._thread: threading.Thread | None = None
        self._over = Signal()
        #: Whether it has begun to run.
        self.begun = False
        self._started = False
        self._ended = False
        self._native_id = 0
        # gunicorn's worker logs before it patches; a thread that threading knows could not end in peace after that.
        if sys.modules.keys().isdisjoint({"gevent.monkey", "eventlet.patcher"}):
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start it, once.

        :raises RuntimeError: the interpreter is about to end, or there are no threads to be had.
        """
        if self._thread is not None:
            self._thread.start()
        else:
            original("_thread", "start_new_thread")(self._run, ())
        self._started = True

    def is_alive(self) -> bool:
        """Whether it has been started and has not ended."""
        return (self.begun or self._started) and not self._ended

    def join(self, timeout: float | None = None, *, as_caller: bool = True) -> None:
        """Wait for its end, at most ``timeout`` seconds.

        :param as_caller: let the other greenlets of the waiting thread run meanwhile.
        """
        if self.is_alive():
            wait = self._over.wait_as_caller if as_caller else self._over.wait
            if wait(timeout):
                self._over.set()  # for the next one who joins
        if self._ended and self._thread is not None and not cooperative():
            self._thread.join(timeout)  # microseconds, until threading knows as well

    def join_in_kernel(self, timeout: float) -> None:
        """The same before a fork, where no greenlet runs: Python 3.12 asks the kernel for threads, and warns."""
        self.join(timeout, as_caller=False)
        if self._ended:
            deadline = time.monotonic() + min(timeout, 0.1)
            while os.path.exists(f"/proc/self/task/{self._native_id}") and time.monotonic() < deadline:
                sleep(0.0001)

    def _run(self) -> None:
        self.begun = True
        self._native_id = original("_thread", "get_native_id")()
        try:
            self._target(self)
        finally:
            if self._thread is not None and cooperative():
                # Patched meanwhile: threading would look for this thread by the number of a greenlet, and complain.
                vars(self._thread)["_delete"] = lambda: None
            self._ended = True
            self._over.set()
