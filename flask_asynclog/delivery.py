"""How a batch gets into the handlers behind the queue: formatted in slices, written, tried again.

Runs on the thread that drains, one batch at a time.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, cast, runtime_checkable

from flask_asynclog.formatters import TextFormatter
from flask_asynclog.records import render, show_error
from flask_asynclog.report import Once, say
from flask_asynclog.stats import Tally

#: Records formatted before the GIL is given away. A thread that returns from I/O waits for the formatter up to the
#: switch interval (5 ms) otherwise: a 1 ms step became 7 ms, with slices of 16 and a pause 1.2 ms.
SLICE_RECORDS = 16
#: Characters of formatted text that are written before the rest of a batch is formatted.
BATCH_CHARACTERS = 512 * 1024
#: Seconds before a failed write is tried again: at first, and at most. Recovery is to be seen within a second.
RETRY_FIRST = 0.05
RETRY_MOST = 0.5

_last_resort = TextFormatter()
_Lines = list[tuple[int, str]]  # (index in the batch, its line)


@runtime_checkable
class BatchHandler(Protocol):
    """A `logging.Handler` that takes its records as lines, many at a time."""

    def format_batch(self, records: Sequence[logging.LogRecord]) -> list[str]:
        """One line per record."""
        ...

    def write_batch(self, lines: Sequence[str]) -> int:
        """Write some of the lines, from the front, at least one; returns how many.

        An OSError says that none of those was written and that it is worth trying again.
        """
        ...


class Delivery:
    """Hands batches to handlers and counts what became of their records.

    :param handlers: a `BatchHandler` gets lines and is tried again while it raises OSError; any other handler gets
        the records one by one.
    :param tally: where the outcomes are counted.
    :param respect_handler_level: skip a handler whose level is above the record's.
    :param pause: called between two slices, to let other threads run.
    :param wait: called with seconds between two attempts; may return early.
    """

    def __init__(
        self,
        handlers: Iterable[logging.Handler],
        tally: Tally,
        *,
        respect_handler_level: bool,
        pause: Callable[[], None],
        wait: Callable[[float], object],
    ) -> None:
        self._tally = tally
        self._handlers: list[tuple[logging.Handler, bool]] = []
        for handler in reversed(list(handlers)):
            self.add_handler(handler)
        self._respect_handler_level = respect_handler_level
        self._pause = pause
        self._wait = wait
        self._once = Once()
        self._broken_since: dict[BatchHandler, float] = {}
        #: Indexes of the records of this batch that were given up for lack of time.
        self._unsent: set[int] = set()
        self._give_up_at = math.inf
        self._passes_on: tuple[type[BaseException], ...] = ()

    def add_handler(self, handler: logging.Handler) -> None:
        """Have ``handler`` get the records too, before the others. Any thread."""
        # A new list: the thread that drains may be in the middle of the old one.
        self._handlers = [(handler, isinstance(handler, BatchHandler)), *self._handlers]

    def give_up_at(self, deadline: float | None) -> None:
        """Try no longer than until ``deadline`` of `time.monotonic`; ``None``: for ever. Any thread."""
        self._give_up_at = math.inf if deadline is None else deadline
        for handler, _ in self._handlers:
            bound = getattr(handler, "wait_no_longer_than", None)
            if bound is not None:
                bound(deadline)

    def deliver(
        self, records: Sequence[logging.LogRecord], *, keep: bool = False, own_thread: bool = True
    ) -> list[logging.LogRecord]:
        """Hand ``records`` to every handler. Never raises: a record that some handler gave up on counts as failed.

        :param keep: return, uncounted, those that were given up for lack of time.
        :param own_thread: whether the thread is ours, to be kept alive. In that of a caller what is no `Exception`,
            as a signal handler raises it, goes on to the caller; the records count as failed.
        """
        self._unsent = set()
        self._passes_on = () if own_thread else (KeyboardInterrupt, SystemExit, GeneratorExit)
        try:
            failed = len(self._deliver(records))
        except BaseException as error:
            failed = len(records)
            self._unsent = set()
            if isinstance(error, self._passes_on):
                self._tally.settle(0, failed)
                raise
            self._once.say(f"batch {type(error)}", f"a batch of {failed} records was lost: {show_error(error)}")
        kept = [records[index] for index in sorted(self._unsent)] if keep else []
        self._tally.settle(len(records) - failed, failed - len(kept))
        return kept

    def _deliver(self, records: Sequence[logging.LogRecord]) -> set[int]:
        """Returns the indexes of the records that some handler gave up on."""
        failed: set[int] = set()
        staged: dict[BatchHandler, _Lines] = {}
        size = 0
        for index, record in enumerate(records):
            if index % SLICE_RECORDS == 0 and index:
                self._pause()
            for handler, takes_lines in self._handlers:
                if self._respect_handler_level and record.levelno < handler.level:
                    continue
                try:
                    if not takes_lines:
                        handler.handle(record)
                    elif (line := self._line(handler, record)) is not None:
                        staged.setdefault(cast(Any, handler), []).append((index, line))
                        size += len(line)
                except BaseException as error:
                    if isinstance(error, self._passes_on):
                        raise
                    failed.add(index)
                    self._say_failure(handler, error)
            if size >= BATCH_CHARACTERS:
                failed |= self._write(staged)
                staged, size = {}, 0
        return failed | self._write(staged)

    def _line(self, handler: Any, record: logging.LogRecord) -> str | None:
        passed = handler.filter(record)
        if not passed:
            return None
        if isinstance(passed, logging.LogRecord):  # from Python 3.12 a filter may answer with another one
            record = passed
        try:
            return cast(str, handler.format_batch([record])[0])
        except Exception as error:
            # A message that its arguments do not fit, or a broken formatter: what can be said of the record is.
            record.msg, record.args = render(record), None
            try:
                return cast(str, handler.format_batch([record])[0])
            except Exception:
                self._say_failure(handler, error)
                record.msg = f"{record.msg} [not formatted: {show_error(error)}]"
                return _last_resort.format(record)

    def _write(self, staged: dict[BatchHandler, _Lines]) -> set[int]:
        failed: set[int] = set()
        for handler, lines in staged.items():
            failed.update(index for index, _ in self._write_to(handler, lines))
        return failed

    def _write_to(self, handler: BatchHandler, lines: _Lines) -> _Lines:
        """Write all lines, for as long as it takes and may take; returns those given up."""
        delay = RETRY_FIRST
        while lines:
            try:
                lines = lines[handler.write_batch([line for _, line in lines]) :]
            except OSError as error:
                if handler not in self._broken_since:
                    self._broken_since[handler] = time.monotonic()
                    say(f"{_name(handler)} does not take records: {show_error(error)}; trying again until it does")
                left = self._give_up_at - time.monotonic()
                if left <= 0:
                    self._unsent.update(index for index, _ in lines)
                    return lines
                self._tally.retries += 1
                self._wait(min(delay, left))
                delay = min(delay * 2, RETRY_MOST)
            except BaseException as error:
                if isinstance(error, self._passes_on):
                    raise
                self._say_failure(handler, error)
                return lines
            else:
                since = self._broken_since.pop(handler, None)
                if since is not None:
                    say(f"{_name(handler)} takes records again, after {time.monotonic() - since:.1f} s")
        return lines

    def _say_failure(self, handler: object, error: BaseException) -> None:
        self._once.say(
            f"{id(handler)} {type(error)}",
            f"{_name(handler)} failed on a record: {show_error(error)}; more of these are counted, not said",
        )


def _name(handler: object) -> str:
    return str(getattr(handler, "baseFilename", type(handler).__name__))
