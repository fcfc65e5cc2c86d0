"""Which loggers carry the handler, and what to do when somebody reconfigures logging afterwards.

Runs where logging is configured: at start-up, and after a later `logging.config` call. Takes `logging`'s own lock only.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from flask_asynclog.native import allocate_rlock
from flask_asynclog.queuehandler import AsyncQueueHandler

#: Logging's own, which whoever configures it holds.
_lock: Any = getattr(logging, "_lock", None) or allocate_rlock()
#: A logger that no configuration names: it is disabled where others are that nobody meant.
_nobodys = logging.getLogger("_flask_asynclog")
_attachments: weakref.WeakSet[Attachment] = weakref.WeakSet()
#: Loggers that the log names when a configuration has disabled them.
SHOWN = 5


@dataclass(slots=True)
class _Level:
    """A level set here, until the last attachment that needs it goes."""

    before: int
    ours: int
    needed_by: set[Attachment] = field(default_factory=set["Attachment"])


#: By logger, for the whole process: root may carry the handlers of several files.
_levels: dict[logging.Logger, _Level] = {}


class ReconfigurationWatch(logging.Handler):
    """On no logger: `logging.config` closes all handlers that `logging` knows before it configures, this one too."""

    def __init__(self, on_close: Callable[[], None]) -> None:
        self._on_close = on_close
        super().__init__()  # from here on another thread may close it

    def emit(self, record: logging.LogRecord) -> None:
        """Never called."""

    def close(self) -> None:
        """Tell. A new watch is needed afterwards: `logging` forgets what it has closed."""
        super().close()
        self._on_close()


class Attachment:
    """One handler on a set of loggers: at most once on the way of any record.

    Loggers that nobody named are not touched, but for that of the request records, which has to lead to the handler
    and let its level through. A later configuration must leave neither ``app.logger`` disabled nor, if it disables
    whatever it does not name, any whose records came to the handler.

    :param on_reconfigured: called when `logging` is configured again, under its lock and before it is done.
    """

    def __init__(self, handler: AsyncQueueHandler, on_reconfigured: Callable[[], None]) -> None:
        self.handler = handler
        self._on_reconfigured = on_reconfigured
        self._watch: ReconfigurationWatch | None = None
        self._named: list[logging.Logger] = []
        self._request_loggers: list[logging.Logger] = []
        self._watched: list[logging.Logger] = []
        #: The loggers that were enabled when a configuration began whose changes are not undone yet; whether one of
        #: those has disabled loggers that it did not name.
        self._enabled: set[logging.Logger] = set()
        self.disables = False

    def attach(self, names: Iterable[str], request_logger: logging.Logger | None, app_logger: logging.Logger) -> None:
        """Add the handler to the loggers ``names``, and to ``request_logger`` unless one of them is above it.

        A logger left unset gets the handler's level. Root counts as unset at its default, WARNING, while it has
        no handlers but ours and pytest's: whoever configures root adds one.
        """
        named = {*self._named, *map(logging.getLogger, names)}
        self._named = sorted(named, key=lambda logger: len(list(_way_up(logger))))  # from root down
        if request_logger is not None and request_logger not in self._request_loggers:
            self._request_loggers.append(request_logger)
        self._watched = list(dict.fromkeys([*self._named, *self._request_loggers, *self._watched, app_logger]))
        self._apply()
        self._watch_on()

    def detach(self) -> None:
        """Take the handler off again, and give back the levels that were set here."""
        self._watch_off()
        for logger in self._watched:
            logger.removeHandler(self.handler)
            level = _levels.get(logger)
            if level is not None:
                level.needed_by.discard(self)
                if not level.needed_by:
                    del _levels[logger]
                    if logger.level == level.ours:
                        logger.setLevel(level.before)
        self._named, self._request_loggers, self._watched = [], [], []
        self._enabled, self.disables = set(), False

    def repair(self) -> list[str]:
        """Undo what a later configuration did to the loggers above; returns what was mended, for people."""
        with _lock:  # so it is complete
            if self._watch is None:  # detached meanwhile
                return []
            self._watch_on()
            gone = self._apply()
            _look_for_disabled()
            others = sorted(self._enabled, key=lambda logger: logger.name) if self.disables else ()
            self._enabled, self.disables = set(), False
            loggers = dict.fromkeys([*self._watched, *filter(self.covers, others)])
            disabled = [logger for logger in loggers if logger.disabled]
            for logger in disabled:
                logger.disabled = False
        mended = [f"logger {logger.name!r} was disabled" for logger in disabled[:SHOWN]]
        if len(disabled) > SHOWN:
            mended.append(f"so were {len(disabled) - SHOWN:,} more")
        return mended + [f"the handler was gone from logger {logger.name!r}" for logger in gone]

    def covers(self, logger: logging.Logger) -> bool:
        """Whether records of ``logger`` come to the handler."""
        return any(self.handler in above.handlers for above in _way_up(logger))

    def _apply(self) -> list[logging.Logger]:
        """Put handler and levels where they belong; returns the loggers that the handler was added to."""
        added: list[logging.Logger] = []
        for logger in [*self._named, *self._request_loggers]:
            if logger in self._named and _is_unset(logger):
                self._set_level(logger)
            if any(self.handler in above.handlers for above in _way_up(logger) if above is not logger):
                logger.removeHandler(self.handler)  # named before the one above it was
            elif self.handler not in logger.handlers:
                logger.addHandler(self.handler)
                added.append(logger)
        for logger in self._request_loggers:
            if logger.level == logging.NOTSET and not logger.isEnabledFor(self.handler.level):
                self._set_level(logger)
        return added

    def _set_level(self, logger: logging.Logger) -> None:
        # NOTSET would be the level of whoever is above.
        wanted = self.handler.level or (logging.NOTSET if logger is logging.getLogger() else 1)
        level = _levels.get(logger)
        if level is None or logger.level != level.ours:
            level = _levels[logger] = _Level(logger.level, wanted)
            logger.setLevel(wanted)
        elif wanted < level.ours:  # somebody who shares the logger, or the handler, wants more
            level.ours = wanted
            logger.setLevel(wanted)
        level.needed_by.add(self)

    def _notice(self) -> None:
        # Handlers are closed first, loggers disabled last, all under logging's lock.
        with _lock:
            _look_for_disabled()
            known = logging.getLogger().manager.loggerDict.values()
            self._enabled |= {each for each in known if isinstance(each, logging.Logger) and not each.disabled}
        self._on_reconfigured()

    def _watch_on(self) -> None:
        with _lock:  # nobody goes through them
            _attachments.add(self)
        old, self._watch = self._watch, ReconfigurationWatch(self._notice)
        self.handler.on_close = self._notice  # basicConfig(force=True) closes root's handlers only
        if old is not None:
            logging.Handler.close(old)

    def _watch_off(self) -> None:
        with _lock:
            _attachments.discard(self)
        old, self._watch = self._watch, None
        self.handler.on_close = None
        if old is not None:
            logging.Handler.close(old)


def _look_for_disabled() -> None:
    """Note whether a configuration has disabled loggers that it did not name. Under logging's lock."""
    if _nobodys.disabled:
        _nobodys.disabled = False
        for attachment in _attachments:
            attachment.disables = True


def _way_up(logger: logging.Logger) -> Iterator[logging.Logger]:
    """The loggers whose handlers see a record of ``logger``."""
    above: logging.Logger | None = logger
    while above is not None:
        yield above
        above = above.parent if above.propagate else None


def _is_unset(logger: logging.Logger) -> bool:
    level = _levels.get(logger)
    if level is not None and logger.level == level.ours:
        return True  # by another file's attachment, which needs it as this one does
    if logger is not logging.getLogger():
        return logger.level == logging.NOTSET
    return logger.level == logging.WARNING and all(
        isinstance(handler, AsyncQueueHandler) or type(handler).__module__.startswith("_pytest.")
        for handler in logger.handlers
    )
