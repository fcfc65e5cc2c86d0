"""The line about dropped records: one when drops have ended, not one per drop.

Asked by the thread that drains, after each batch and when it has nothing to do.
"""

from __future__ import annotations

import logging
import time

from flask_asynclog.records import own_record
from flask_asynclog.stats import Drops

#: Drops are reported when none came for so many seconds, and every so many while they go on.
REPORT_QUIET = 0.5
REPORT_EVERY = 10.0


class DropReport:
    """Decides when drops are due to be reported, and makes the record."""

    def __init__(self, drops: Drops) -> None:
        self._drops = drops
        self._reported = 0
        self._reported_at = 0.0
        self._seen = 0
        self._seen_at = 0.0

    def due(self, *, final: bool = False) -> float | None:
        """Seconds until there is something to report; 0: now; ``None``: nothing. ``final``: do not wait for more."""
        total = self._drops.total()
        if total == self._reported:
            return None
        now = time.monotonic()
        if total != self._seen:
            if self._seen == self._reported:  # the first of this time
                self._reported_at = now
            self._seen, self._seen_at = total, now
        if final or now - self._reported_at >= REPORT_EVERY:
            return 0.0
        return max(0.0, self._seen_at + REPORT_QUIET - now)

    def record(self) -> logging.LogRecord:
        """A WARNING that says how many records were dropped since the last one, and all counts by reason and level."""
        counts = self._drops.counts()
        total = sum(counts.values())
        new, self._reported, self._seen, self._reported_at = total - self._reported, total, total, time.monotonic()
        detail = ", ".join(
            f"{count:,} {logging.getLevelName(levelno)} ({reason.replace('_', ' ')})"
            for (reason, levelno), count in sorted(counts.items())
        )
        return own_record("dropped %s records; in all so far: %s", f"{new:,}", detail)
