"""Logs what happens to requests: as ordinary records, or where nobody else would see those, straight into the queue.

Runs on the request's thread.
"""

from __future__ import annotations

import logging
from logging import Logger

from flask_asynclog.exchange import Exchange, ExchangeEvent
from flask_asynclog.originals import if_original
from flask_asynclog.queuehandler import AsyncQueueHandler
from flask_asynclog.records import EVENT

_root = logging.getLogger()

#: The standard library's own; ``None`` if somebody replaced it before us. Sentry does, to see every record; ddtrace, to
#: add to it.
_call_handlers = if_original(Logger.callHandlers, logging.getLevelName)
_make_record = if_original(Logger.makeRecord, logging.getLevelName)
_handle = if_original(Logger.handle, logging.getLevelName)


class EventLogger:
    """Logs the events of one app.

    An event is logged as a `logging.LogRecord` by ``logger``, so filters, record factories, other handlers and
    pytest's ``caplog`` see what they would see of any record. Most of the time there are none of these. Then the
    event alone goes into the queue, which is a third of the cost, and becomes the same record where it is written.

    :param logger: the logger.
    :param handler: the one that leads to the queue.
    """

    def __init__(self, logger: Logger, handler: AsyncQueueHandler) -> None:
        self._logger = logger
        self._handler = handler
        #: Logs an event while `alone`: takes it and its level.
        self.accept = handler.queue.accept
        #: Whether the logger does what `logging` has it do.
        self._plain = all(
            getattr(type(logger), name) is getattr(Logger, name)
            for name in ("makeRecord", "handle", "filter", "callHandlers")
        )
        #: What root's handlers are where nobody else listens.
        self._only: list[logging.Handler] | None = [handler] if self._plain else None

    def alone(self, levelno: int) -> bool:
        """Whether records from this level on would be seen by our handler, and by nothing and nobody else.

        To be asked again and again: handlers and filters come and go.
        """
        logger, handler = self._logger, self._handler
        return (
            # The ordinary case of a logger: right below root, where our handler is the only one.
            _root.handlers == self._only
            and not logger.handlers
            and logger.parent is _root
            and logger.propagate
            and not logger.filters
            and not handler.filters
            and levelno >= handler.level
            and levelno >= handler.hold_below
            and logger.isEnabledFor(levelno)
            and Logger.callHandlers is _call_handlers
            and Logger.makeRecord is _make_record
            and Logger.handle is _handle
            and logging.getLogRecordFactory() is logging.LogRecord
        )

    def log(self, event: ExchangeEvent, error: BaseException | None = None) -> None:
        """Log an event as a record, if the logger is enabled for its level; with the traceback of ``error``."""
        logger = self._logger
        if not logger.isEnabledFor(event.levelno):
            return
        if event.exchange.thread is None:
            event.exchange.note_thread()
        if self._plain and Logger.makeRecord is _make_record and logging.getLogRecordFactory() is logging.LogRecord:
            record = event.record()
        else:
            extra = {EVENT: event}
            record = logger.makeRecord(
                logger.name, event.levelno, __file__, 0, event.message, (event,), None, event.function, extra
            )
        if error is not None:
            record.exc_info = (type(error), error, error.__traceback__)
        logger.handle(record)

    def log_late(self, exchange: Exchange, error: BaseException) -> None:
        """Log, as an ordinary record, an exception that came when the response was logged already."""
        text = "Exception on %s [%s], raised after its response was handed over"
        self._logger.error(text, exchange.shown_path, exchange.method, exc_info=error)
