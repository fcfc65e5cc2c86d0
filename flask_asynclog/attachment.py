"""Which loggers carry the handler, and what to do when somebody reconfigures logging afterwards.

Runs where logging is configured: at start-up, and after a later `logging.config` call. Takes `logging`'s own lock only.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator


class Attachment:
    """One handler on a set of loggers: at most once on the way of any record.

    Loggers that nobody named are not touched, but for the logger of the request records, which has to lead to the
    handler and let its level through.
    """

    def __init__(self, handler: logging.Handler) -> None:
        self.handler = handler
        self._names: list[str] = []
        self._request_loggers: list[str] = []
        self._levels_before: dict[str, tuple[int, int]] = {}

    @property
    def active(self) -> bool:
        """Whether there are loggers to look after."""
        return bool(self._names or self._request_loggers)

    def attach(self, names: Iterable[str], request_logger: str | None) -> None:
        """Add the handler to the loggers ``names``, and to ``request_logger`` unless one of them is above it.

        A logger left unset gets the handler's level. Root counts as unset at its default, WARNING, while it has
        no handlers but pytest's: whoever configures root adds one.
        """
        self._names = sorted({*self._names, *names}, key=lambda name: (name != "", name.count("."), name))
        if request_logger is not None and request_logger not in self._request_loggers:
            self._request_loggers.append(request_logger)
        self._apply()

    def detach(self) -> None:
        """Take the handler off again, and give back the levels that were set here."""
        for name in {*self._names, *self._request_loggers}:
            logger = logging.getLogger(name)
            logger.removeHandler(self.handler)
            before, ours = self._levels_before.pop(name, (logger.level, logger.level))
            if logger.level == ours:
                logger.setLevel(before)
        self._names.clear()
        self._request_loggers.clear()

    def repair(self) -> list[str]:
        """Undo what a later configuration did to the loggers above; returns what was mended, for people."""
        mended = [
            f"logger {name or 'root'!r} was disabled"
            for name in dict.fromkeys([*self._names, *self._request_loggers])
            if _enable(logging.getLogger(name))
        ]
        mended += [f"the handler was gone from logger {name or 'root'!r}" for name in self._apply()]
        return mended

    def covers(self, logger: logging.Logger) -> bool:
        """Whether records of ``logger`` come to the handler."""
        return any(self.handler in above.handlers for above in _way_up(logger))

    def _apply(self) -> list[str]:
        added: list[str] = []
        for name in self._names:
            logger = logging.getLogger(name)
            if _is_unset(logger, self.handler):
                self._set_level(logger)
            if self._add_to(logger):
                added.append(name)
        for name in self._request_loggers:
            logger = logging.getLogger(name)
            if self._add_to(logger):
                added.append(name)
            if logger.level == logging.NOTSET and not logger.isEnabledFor(self.handler.level):
                self._set_level(logger)
        return added

    def _add_to(self, logger: logging.Logger) -> bool:
        if self.covers(logger):
            return False
        logger.addHandler(self.handler)
        return True

    def _set_level(self, logger: logging.Logger) -> None:
        name = "" if logger is logging.getLogger() else logger.name
        self._levels_before.setdefault(name, (logger.level, self.handler.level))
        logger.setLevel(self.handler.level)


def _way_up(logger: logging.Logger) -> Iterator[logging.Logger]:
    """The loggers whose handlers see a record of ``logger``."""
    above: logging.Logger | None = logger
    while above is not None:
        yield above
        above = above.parent if above.propagate else None


def _is_unset(logger: logging.Logger, ours: logging.Handler) -> bool:
    if logger is not logging.getLogger():
        return logger.level == logging.NOTSET
    return logger.level == logging.WARNING and all(
        handler is ours or type(handler).__module__.startswith("_pytest.") for handler in logger.handlers
    )


def _enable(logger: logging.Logger) -> bool:
    was_disabled, logger.disabled = logger.disabled, False
    return was_disabled
