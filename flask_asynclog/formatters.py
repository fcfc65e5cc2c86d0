"""The formatters by the names that configurations use.

A record becomes exactly one line. They run on the listener's thread, or in the caller of a handler used without a
queue, and are safe to share between threads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from flask_asynclog.combined import CombinedFormatter
from flask_asynclog.consoleformat import ConsoleFormatter
from flask_asynclog.structured import ECSFormatter, JSONFormatter, LogfmtFormatter, StructuredFormatter
from flask_asynclog.textformat import TEXT_FORMAT, EntryFormatter, TextFormatter

__all__ = [
    "FORMATS",
    "TEXT_FORMAT",
    "CombinedFormatter",
    "ConsoleFormatter",
    "ECSFormatter",
    "EntryFormatter",
    "JSONFormatter",
    "LogfmtFormatter",
    "StructuredFormatter",
    "TextFormatter",
    "make_formatter",
]

#: The formats that have a name.
FORMATS: Mapping[str, Callable[[], logging.Formatter]] = {
    "text": TextFormatter,
    "json": JSONFormatter,
    "ecs": ECSFormatter,
    "logfmt": LogfmtFormatter,
    "combined": CombinedFormatter,
}


def make_formatter(given: str | logging.Formatter) -> logging.Formatter:
    """The formatter of a format by its name, of a %-format, or the one that is given."""
    if isinstance(given, logging.Formatter):
        return given
    return FORMATS[given]() if given in FORMATS else TextFormatter(given)
