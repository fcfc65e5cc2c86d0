"""Draining by whoever logs: where there must not be a thread for it, and at the end of the process.

Runs on callers' threads, one at a time; each has its bounds, whatever the sink does.
"""

from __future__ import annotations

import logging
import math
import time

from flask_asynclog import lifecycle
from flask_asynclog.drain import Drain
from flask_asynclog.native import allocate_lock, get_ident
from flask_asynclog.queue import RecordQueue

#: Longest that a caller waits for a sink that does not take records, in seconds: at the end of the process, when there
#: is no later; and before, as well for another caller that drains, when the first one after the pause tries again.
LAST_PATIENCE = 1.0
INLINE_PATIENCE = 0.1
INLINE_PAUSE = 1.0


class InlineDrain:
    """Has the callers of one process drain a queue.

    :param queue: the queue.
    :param drain: drains it.
    """

    def __init__(self, queue: RecordQueue, drain: Drain) -> None:
        #: Held by whoever drains: a caller, or the listener's thread.
        self.lock = allocate_lock()
        self._queue = queue
        self._drain = drain
        #: No caller tries a sink that did not take records before this time.
        self._again_at = 0.0
        #: Somebody wants the queue to be looked at who found it being drained.
        self._look_again = False
        self._said: set[str] = set()

    def run(self, time_left: float, *, at_once: bool = False) -> None:
        """Drain in the calling thread, unless another one does.

        :param time_left: of the time to drain at exit, in seconds.
        :param at_once: also when a caller found a moment ago that the sink does not take records.
        """
        queue, last = self._queue, lifecycle.exiting()
        patience = min(LAST_PATIENCE, time_left) if last else INLINE_PATIENCE
        # At exit it does not stay for ever for those who log meanwhile.
        end = time.monotonic() + LAST_PATIENCE if last else math.inf
        while True:
            self._look_again = True
            # A handler that logs, or a signal's, in the middle of this thread's own drain does not wait for itself.
            if queue.consumer == get_ident() or not self.lock.acquire(timeout=INLINE_PATIENCE):
                return  # whoever has it looks again
            try:
                self._look_again = False
                if last or at_once or time.monotonic() >= self._again_at:
                    with self._drain:
                        if not self._drain.drain_inline(patience, keep=not last):
                            self._again_at = time.monotonic() + INLINE_PAUSE
            finally:
                queue.sleeping()
                self.lock.release()
            now = time.monotonic()
            more = self._look_again or (len(queue) and (last or now >= self._again_at))
            if not more or now > end:
                return

    def say(self, reason: str) -> None:
        """Say at DEBUG, once for each reason, why there is no thread."""
        if reason not in self._said:
            self._said.add(reason)
            logging.getLogger("flask_asynclog").debug("records are written by the thread that logs them: %s", reason)
