"""Request ids: made here, or taken from a client that is trusted."""

from __future__ import annotations

import itertools
import re
from os import urandom

from flask_asynclog import lifecycle

#: What a client's request id must look like to be taken (``ASYNCLOG_TRUST_REQUEST_ID``).
well_formed_request_id = re.compile(r"[A-Za-z0-9._-]{1,128}").fullmatch


class RequestIds:
    """Makes ids: 32 hexadecimal digits, unique and ordered by time (the bits of a UUID version 7, RFC 9562).

    Of the 74 bits beside time, version and variant, 73 are random ones of the kernel's, drawn once a process; then it
    counts (RFC 9562 §6.2): ids of one millisecond are ordered too, and cost no system call. A forked child draws
    anew, so workers never repeat each other's. An id tells the next one: it is no secret. Any thread.
    """

    def __init__(self) -> None:
        self.after_fork_in_child()
        lifecycle.register(self)

    def new(self, now: float) -> str:
        """A new id; ``now`` is the time in seconds since the epoch."""
        count = self._count  # loaded, then called: see `RecordQueue.append`
        return ((int(now * 1000) << 80) + self._base + count()).to_bytes(16, "big").hex()

    def after_fork_in_child(self) -> None:
        """Count from elsewhere."""
        random = int.from_bytes(urandom(10), "big")
        self._base = 7 << 76 | random >> 68 << 64 | 2 << 62
        # The first of 62 bits stays 0, so that nobody counts beyond them.
        self._count = itertools.count(random & (1 << 61) - 1).__next__


_ids = RequestIds()
new_request_id = _ids.new
