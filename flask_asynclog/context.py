"""The request id of the running request, in a context variable: readable without Flask.

Set and restored by the hooks on the request thread; read by the caller's side of the queue for every record.
"""

from __future__ import annotations

import os
import re
import time
from contextvars import ContextVar

#: Id of the request that this context serves; ``None`` outside requests.
request_id: ContextVar[str | None] = ContextVar("flask_asynclog_request_id", default=None)

#: What a client's request id must look like to be taken (``ASYNCLOG_TRUST_REQUEST_ID``).
well_formed_request_id = re.compile(r"[A-Za-z0-9._-]{1,128}").fullmatch


def new_request_id() -> str:
    """A new id: 32 hexadecimal digits, unique and ordered by time (the bits of a UUID version 7, RFC 9562).

    The random bits come from the kernel, so forked workers never repeat each other's ids.
    """
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    high, low = random >> 62 & 0xFFF, random & (1 << 62) - 1
    return f"{milliseconds << 80 | 7 << 76 | high << 64 | 2 << 62 | low:032x}"
