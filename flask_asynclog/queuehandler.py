"""The caller's side of the queue: runs on whichever thread logs."""

from __future__ import annotations

import logging
import logging.handlers
import sys
from collections.abc import Callable
from logging import LogRecord
from typing import Any, cast

from flask import has_request_context

from flask_asynclog.context import Context, get_current, here
from flask_asynclog.entries import Entry, capture, format_by, plain_attributes
from flask_asynclog.queue import RecordQueue
from flask_asynclog.records import snapshot
from flask_asynclog.report import Once
from flask_asynclog.tracing import in_current_span, tracing
from flask_asynclog.values import IMMUTABLE, show_error

_once = Once()


def filtered(handler: logging.Handler, record: logging.LogRecord) -> logging.LogRecord | None:
    """What the handler's filters make of ``record``: itself, another one, nothing. One that raises costs the record."""
    try:
        passed: Any = handler.filter(record)
    except Exception:
        handler.handleError(record)
        return None
    # From Python 3.12 a filter may answer with another record.
    return passed if isinstance(passed, logging.LogRecord) else record if passed else None


def _context() -> Context | None:
    context = here()
    return in_current_span(context) if tracing() else context


def accept(
    queue: RecordQueue, record: logging.LogRecord, formatter: logging.Formatter | None, *, own: bool = False
) -> None:
    """Put what waits for ``record`` into ``queue``.

    :param formatter: makes text of a traceback.
    :param own: whether it makes the line, too.
    """
    context = _context()
    entry = capture(record, context, formatter)
    if own and formatter is not None:
        format_by(entry, formatter)
    if context is not None and context.drains is queue:
        queue.accept_own(entry, record.levelno)
    else:
        queue.accept(entry, record.levelno)


class AsyncQueueHandler(logging.handlers.QueueHandler):
    """Puts a copy of each record into a `RecordQueue`; half a microsecond as a rule, no I/O, no lock.

    Level and filters apply as in every handler; both run on the caller's thread. A formatter set on
    this handler is used for tracebacks only (its ``formatException``), since they must become text here.
    The record itself is neither changed nor kept.

    Any thread, signal handlers and finalizers included. The handler's own lock is never taken for a record.
    """

    queue: RecordQueue  # type: ignore[assignment]  # the stdlib annotates its own queues

    def __init__(self, queue: RecordQueue) -> None:
        #: Called when somebody else closes this handler: `logging.config` does so before it reconfigures.
        self.on_close: Callable[[], None] | None = None
        super().__init__(cast(Any, queue))  # from here on that may happen
        #: Records below this level are held for the request that runs, see `HeldRecords`, or forgotten. The queue has
        #: to be a `careful` one then.
        self.hold_below = logging.NOTSET
        self._by_steps = self._has_own("emit", "prepare", "enqueue")
        #: Class of the records that may go the short way; ``None``: a subclass has something to do with all of them.
        self._short: type[LogRecord] | None = None if self._by_steps or self._has_own("filter") else LogRecord

    def _has_own(self, *names: str) -> bool:
        return any(getattr(type(self), name) is not getattr(AsyncQueueHandler, name) for name in names)

    def handle(self, record: logging.LogRecord) -> Any:
        """Filter ``record`` and put a copy of it into the queue. A failure is counted and said once, never raised.

        Does what `emit`, `prepare` and `enqueue` do; those of a subclass are called, and its `filter`.
        """
        # `accept`, `capture` and `RecordQueue.accept`, spelled out for an ordinary record, message and queue: with the
        # calls it takes half as long again. What is not ordinary is told first: so each of the jumps there is near, and
        # those that are not take the interpreter two steps.
        queue = self.queue
        waiting = len(queue.waiting)
        entry: Entry | None
        try:
            message, args, levelno = record.msg, record.args, record.levelno
            if (
                type(args) is not tuple
                or type(message) is not str
                or record.exc_info is not None
                or type(record) is not self._short
                or levelno >= queue.flush_level
                or self.filters
                or waiting >= queue.easy
                or (queue.under_way and (context := get_current()) is not None and context.drains is queue)
            ):
                entry = None
            else:
                for value in args:
                    if type(value) is not str and type(value) not in IMMUTABLE:
                        entry = None
                        break
                else:
                    if queue.brief and record.exc_text is None and record.stack_info is None:
                        entry = (
                            levelno, record.process, record.created, record.msecs, record.name, record.levelname,
                            message, args,
                        )  # fmt: skip
                    else:
                        context = get_current()
                        elsewhere = context is None and has_request_context()
                        entry = None if elsewhere else plain_attributes(record, context)
        except (AttributeError, TypeError):  # a filter took something away; a level is no number
            entry = None
        if entry is None:
            return self._handle_with_care(record)
        try:
            append = queue.append  # loaded first: see `RecordQueue.append`
            append(entry)
            if waiting >= queue.wake_at:
                queue.call(False)
        except BaseException:  # a signal handler's
            queue.call_after_interruption(False)
            raise
        return record

    def _handle_with_care(self, record: logging.LogRecord) -> Any:
        passed = filtered(self, record)
        if passed is None:
            return False
        if self._by_steps:
            self.emit(passed)
            return passed
        try:
            if passed.levelno < self.hold_below:
                self._hold(passed)
            else:
                accept(self.queue, passed, self.formatter)
        except Exception:
            self.handleError(passed)
        return passed

    def _hold(self, record: logging.LogRecord) -> None:
        context = _context()
        holder = None if context is None else context.origin.holder
        if holder is not None:
            holder.add(capture(record, context, self.formatter))

    def emit(self, record: logging.LogRecord) -> None:
        """Put a copy of ``record`` into the queue; a failure is counted and said once, never raised."""
        try:
            self.enqueue(self.prepare(record))
        except Exception:
            self.handleError(record)

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """A copy of ``record``, safe for another thread."""
        return snapshot(record, self.formatter, _context())

    def enqueue(self, record: logging.LogRecord) -> None:
        """Put a copy into the queue; the overflow policy decides when it is full."""
        self.queue.put(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Count a record that could not be read as dropped (``unreadable``) and say so once."""
        fields = vars(record)
        self.queue.refuse(fields.get("levelno"), "unreadable")
        error = sys.exc_info()[1]
        if error is not None:
            _once.say("unreadable", f"a record of logger {fields.get('name')!r} was dropped: {show_error(error)}")

    def close(self) -> None:
        """Forget the handler's registration with `logging`. Records sent later are still accepted."""
        super().close()
        if self.on_close is not None:
            self.on_close()
