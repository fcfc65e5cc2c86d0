"""How a batch gets into the handlers behind the queue: formatted in slices, written, tried again.

Runs on the thread that drains, one batch at a time.
"""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, cast, runtime_checkable

from flask_asynclog.acks import Acks
from flask_asynclog.entries import Entry, restore
from flask_asynclog.recordfields import complete, redact, with_text
from flask_asynclog.records import render
from flask_asynclog.redaction import Redactor
from flask_asynclog.report import Once, say
from flask_asynclog.stats import Tally
from flask_asynclog.textformat import TextFormatter
from flask_asynclog.values import show_error

#: Seconds of formatting before the GIL is given away. A thread that returns from I/O waits for the formatter up to the
#: switch interval (5 ms) otherwise: a 1 ms step became 7 ms. Shorter slices cost both threads more: to take turns costs
#: each some 20 us, and what it finds in the processor's cache is the other's. With 0.3 ms a server spends a quarter
#: less on writing, its p99 is the same, and one return from I/O in a hundred comes 0.2 ms later.
SLICE_SECONDS = 0.0001
#: Records of a slice, however long they take: with fewer than 16 the pauses would take most of the time.
SLICE_LEAST, SLICE_MOST = 16, 128
#: Characters of formatted text that are written before the rest of a batch is formatted.
BATCH_CHARACTERS = 512 * 1024
#: Seconds before a failed write is tried again: at first, and at most. Recovery is to be seen within a second.
RETRY_FIRST = 0.05
RETRY_MOST = 0.5
#: Seconds after which it is said that a handler has not got its turn.
SAY_AFTER = 1.0

_last_resort = TextFormatter()


class _Slice:
    """Some entries of a batch, from number ``first`` on; their records, when somebody needs them."""

    def __init__(self, entries: list[Entry], first: int) -> None:
        self.entries = entries
        self.first = first
        self._completed: dict[int, logging.LogRecord] = {}

    @functools.cached_property
    def records(self) -> list[logging.LogRecord]:
        return [restore(entry) for entry in self.entries]

    def completed(self, index: int) -> logging.LogRecord:
        """A record for handlers of others, one for all of them; what they do to it, our formats do not see."""
        record = self._completed.get(index)
        if record is None:
            record = self._completed[index] = complete(self.records[index])
        return record


class _Lines:
    """Lines of a batch, and beside each the index of its record."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.indexes: list[int] = []


@runtime_checkable
class BatchHandler(Protocol):
    """A `logging.Handler` that takes its records as lines, many at a time.

    One that has ``format_entries`` too is asked by that for the lines of what waited in the queue, before records are
    made of it.
    """

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
    :param pause: called between two slices, to let other threads run, with the number of records since the last call.
    :param wait: called with seconds between two attempts; may return early.
    :param writing: called with whether from now on a handler is at its write, and at what follows if that fails.
    """

    def __init__(
        self,
        handlers: Iterable[logging.Handler],
        tally: Tally,
        *,
        respect_handler_level: bool,
        pause: Callable[[int], None],
        wait: Callable[[float], object],
        writing: Callable[[bool], None],
    ) -> None:
        self._tally = tally
        #: Records of the next slice, and those that were formatted since the last pause.
        self._slice, self._in_one_go = SLICE_LEAST, 0
        self._handlers: list[tuple[logging.Handler, bool]] = []
        for handler in reversed(list(handlers)):
            self.add_handler(handler)
        self._respect_handler_level = respect_handler_level
        self._pause = pause
        self._wait = wait
        self._writing = writing
        self._once = Once()
        #: Since when handlers have not taken records, of `time.monotonic`; and those of which that was said.
        self._broken_since: dict[BatchHandler, float] = {}
        self._broken_said: set[BatchHandler] = set()
        #: Takes secrets out of what comes; ``None``: nothing does.
        self.redactor: Redactor | None = None
        self._acks = Acks()
        self._keep = False
        self._give_up_at = math.inf
        self._passes_on: tuple[type[BaseException], ...] = ()

    def add_handler(self, handler: logging.Handler) -> None:
        """Have ``handler`` get the records too, before the others. Any thread."""
        # A new list: the thread that drains may be in the middle of the old one.
        self._handlers = [(handler, isinstance(handler, BatchHandler)), *self._handlers]

    @property
    def takes_briefs(self) -> bool:
        """Whether an `entries.Brief` has all that the handlers, and the redactor, will want to know."""
        whole = self._respect_handler_level or (self.redactor is not None and self.redactor.patterns)
        return not whole and all(getattr(handler, "takes_briefs", False) for handler, _ in self._handlers)

    def give_up_at(self, deadline: float | None) -> None:
        """Try no longer than until ``deadline`` of `time.monotonic`; ``None``: for ever. Any thread."""
        self._give_up_at = math.inf if deadline is None else deadline
        for handler, _ in self._handlers:
            bound = getattr(handler, "wait_no_longer_than", None)
            if bound is not None:
                bound(deadline)

    def deliver(self, batch: list[Entry], *, keep: bool = False, own_thread: bool = True) -> list[Entry]:
        """Hand a batch to every handler. Never raises: a record that some handler gave up on counts as failed.

        :param keep: return, uncounted, those that were given up for lack of time. When they come again, they go to the
            handlers that have not taken them.
        :param own_thread: whether the thread is ours, to be kept alive. In that of a caller what is no `Exception`,
            as a signal handler raises it, goes on to the caller; the records count as failed.
        """
        self._acks.begin(batch)
        self._keep = keep
        self._passes_on = () if own_thread else (KeyboardInterrupt, SystemExit, GeneratorExit)
        try:
            self._deliver(batch)
        except BaseException as error:
            self._tally.settle(0, len(batch))
            if isinstance(error, self._passes_on):
                raise
            self._once.say(f"batch {type(error)}", f"a batch of {len(batch)} records was lost: {show_error(error)}")
            return []
        failed = self._acks.failed
        kept = self._acks.keep(batch) if keep else []
        self._tally.settle(len(batch) - failed, failed - len(kept))
        return kept

    def _passes_over(self, handler: logging.Handler, record: logging.LogRecord, index: int) -> bool:
        """Whether a record is not for this handler: below its level, or it has taken it before."""
        if self._respect_handler_level and record.levelno < handler.level:
            return True
        return self._acks.has_taken(handler, index)

    def _deliver(self, batch: list[Entry]) -> None:
        staged: dict[BatchHandler, _Lines] = {}
        size = 0
        first = 0
        while first < len(batch):
            if first:
                self._pause(self._in_one_go)
                self._in_one_go = 0
            began = time.monotonic()
            part = _Slice(batch[first : first + self._slice], first)
            count = len(part.entries)
            first += count
            self._in_one_go += count
            if self.redactor is not None:
                redact(part.entries, self.redactor)
            for handler, takes_lines in self._handlers:
                if takes_lines:
                    lines = staged.setdefault(cast(Any, handler), _Lines())
                    before = len(lines.texts)
                    self._add_lines(handler, part, lines)
                    size += sum(map(len, lines.texts[before:]))
                else:
                    self._hand_over(handler, part)
            self._adapt(count, time.monotonic() - began)
            if size >= BATCH_CHARACTERS:
                self._write(staged)
                staged, size = {}, 0
        self._write(staged)

    def _adapt(self, count: int, seconds: float) -> None:
        """Have the next slice take about as long as it may: this one, of ``count`` records, took ``seconds``."""
        if seconds > SLICE_SECONDS:
            self._slice = max(SLICE_LEAST, count // 2)
        elif seconds < SLICE_SECONDS / 2 and count == self._slice:
            self._slice = min(SLICE_MOST, count * 2)

    def _hand_over(self, handler: logging.Handler, part: _Slice) -> None:
        for index, record in enumerate(part.records):
            if self._passes_over(handler, record, part.first + index):
                continue
            try:
                handler.handle(part.completed(index))
            except BaseException as error:
                self._count_failure(handler, error, part.first + index)

    def _add_lines(self, handler: Any, part: _Slice, lines: _Lines) -> None:
        if not handler.filters and not self._respect_handler_level and not self._acks.some_come_again:
            try:
                if hasattr(handler, "format_entries"):
                    lines.texts += handler.format_entries(part.entries)
                else:
                    lines.texts += handler.format_batch(part.records)
                lines.indexes += range(part.first, part.first + len(part.entries))
                return
            except BaseException as error:  # one by one, then: `_line` says whose fault it is
                if isinstance(error, self._passes_on):
                    raise
        for index, record in enumerate(part.records, part.first):
            if self._passes_over(handler, record, index):
                continue
            try:
                text = self._line(handler, record)
            except BaseException as error:
                self._count_failure(handler, error, index)
            else:
                if text is not None:
                    lines.texts.append(text)
                    lines.indexes.append(index)

    def _line(self, handler: Any, record: logging.LogRecord) -> str | None:
        passed = handler.filter(record)
        if not passed:
            return None
        if isinstance(passed, logging.LogRecord):  # from Python 3.12 a filter may answer with another one
            record = passed
        try:
            return cast(str, handler.format_batch([record])[0])
        except Exception as error:
            # A message that its arguments do not fit, or a broken formatter: what can be said of the record is. Of a
            # copy, since another handler's formatter may do better.
            text = render(record)
            try:
                return cast(str, handler.format_batch([with_text(record, text)])[0])
            except Exception:
                self._say_failure(handler, error)
                return _last_resort.format(with_text(record, f"{text} [not formatted: {show_error(error)}]"))

    def _write(self, staged: dict[BatchHandler, _Lines]) -> None:
        self._writing(True)
        try:
            for handler, lines in staged.items():
                self._write_to(handler, lines)
        finally:
            self._writing(False)

    def _write_to(self, handler: BatchHandler, lines: _Lines) -> None:
        """Write all lines, for as long as it takes and may take."""
        delay = RETRY_FIRST
        while lines.texts:
            began = time.monotonic()
            try:
                count = handler.write_batch(lines.texts)
                del lines.texts[:count], lines.indexes[:count]
            except OSError as error:
                now = time.monotonic()
                since = self._broken_since.setdefault(handler, began)
                # To a caller that writes by itself, others at the file for its 0.1 s are no news.
                busy = self._keep and isinstance(error, TimeoutError) and now - since < SAY_AFTER
                if not busy and handler not in self._broken_said:
                    self._broken_said.add(handler)
                    say(f"{_name(handler)} does not take records: {show_error(error)}; trying again until it does")
                left = self._give_up_at - now
                if left <= 0:
                    self._acks.give_up(handler, lines.indexes)
                    return
                self._tally.retries += 1
                self._wait(min(delay, left))
                delay = min(delay * 2, RETRY_MOST)
            except BaseException as error:
                if isinstance(error, self._passes_on):
                    raise
                self._acks.fail(handler, lines.indexes)
                self._say_failure(handler, error)
                return
            else:
                now = time.monotonic()
                if now >= self._give_up_at:  # a report of what is lost found room where that had not
                    continue
                broken_since = self._broken_since.pop(handler, None)
                if broken_since is not None and handler in self._broken_said:
                    self._broken_said.discard(handler)
                    say(f"{_name(handler)} takes records again, after {now - broken_since:.1f} s")

    def _count_failure(self, handler: object, error: BaseException, index: int) -> None:
        if isinstance(error, self._passes_on):
            raise error
        self._acks.fail(handler, [index])
        self._say_failure(handler, error)

    def _say_failure(self, handler: object, error: BaseException) -> None:
        self._once.say(
            f"{id(handler)} {type(error)}",
            f"{_name(handler)} failed on a record: {show_error(error)}; more of these are counted, not said",
        )


def _name(handler: object) -> str:
    return str(getattr(handler, "baseFilename", type(handler).__name__))
