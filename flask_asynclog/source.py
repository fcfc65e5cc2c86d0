"""Whose exchanges they are, and what is kept of each request's environment.

Made when an app is initialised, read by any thread; never changed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from flask_asynclog.redaction import Redactor

#: What is kept of the environment, in this order; then come the headers that the options name.
KEYS = (
    "SERVER_PROTOCOL", "REMOTE_USER", "HTTP_USER_AGENT", "HTTP_REFERER", "CONTENT_LENGTH", "HTTP_TRACEPARENT",
)  # fmt: skip
PROTOCOL, USER, USER_AGENT, REFERER, LENGTH, TRACEPARENT = range(len(KEYS))


class Source:
    """Whose exchanges they are: those of one app, and how it wants them told. Does not keep the app alive.

    :param logger: name of the logger of their records.
    :param redactor: takes secrets out.
    :param request_headers: names of headers that are told, too.
    :param client_error_level: level of responses with a status from 400 to 499.
    :param slow_threshold: seconds; a slower response is a WARNING.
    :param sample_rate: share of requests that are logged.
    """

    def __init__(
        self,
        logger: str,
        *,
        redactor: Redactor | None = None,
        request_headers: Sequence[str] = (),
        client_error_level: int = logging.WARNING,
        slow_threshold: float | None = None,
        sample_rate: float = 1.0,
    ) -> None:
        self.logger = logger
        self.redactor = Redactor() if redactor is None else redactor
        self.request_headers = tuple(name.lower() for name in request_headers)
        self.client_error_level = client_error_level
        self.slow_threshold = float("inf") if slow_threshold is None else slow_threshold
        self.sample_rate = sample_rate
        #: What is to be kept of an environment.
        self.keys = (*KEYS, *map(_environ_key, self.request_headers))


def _environ_key(header: str) -> str:
    key = header.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
