"""The file: concurrent-log-handler's rotating file, a batch at a time.

Used by the listener's thread behind a queue, or as an ordinary handler without one.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from typing import Any, cast

from concurrent_log_handler import ConcurrentRotatingFileHandler

from flask_asynclog import lifecycle
from flask_asynclog.entries import Entry, has_formatter, restore
from flask_asynclog.files import AppendStream, LockedFile, open_file
from flask_asynclog.native import allocate_rlock, sleep
from flask_asynclog.recordfields import complete
from flask_asynclog.records import FORMATTER, new_record
from flask_asynclog.report import Once, say
from flask_asynclog.textformat import EntryFormatter, TextFormatter
from flask_asynclog.values import show_error

#: Seconds for which a lock that others hold is looked at each 2 ms; then each 20.
POLLED_OFTEN = 1.0
#: Bytes that one write may have, so that a batch does not hold the lock for long.
BATCH_BYTES = 1024 * 1024


class LockTimeout(TimeoutError):
    """Another process has held the lock longer than ``lock_timeout``. An OSError: try again later."""


class BatchRotatingFileHandler(ConcurrentRotatingFileHandler):
    """A file shared by any number of processes, rotated by size, written a batch at a time.

    A batch costs one lock, one look at the size and one ``write``. Beyond its parent: no file exceeds
    ``max_bytes`` (a single larger record aside); a write is all or nothing, also on a full disk; the wait for
    the lock is bounded; a lock file deleted under way is replaced; symbolic links are refused; a failed or
    interrupted rotation loses nothing and is reported once.

    :param filename: the log; its directory is made when missing. The lock is ``.__NAME.lock`` beside it.
    :param max_bytes: the file is rotated before it would exceed this size in bytes; 0: never.
    :param backup_count: rotated files kept (``NAME.1`` is the newest), at least 1 when rotating.
    :param file_mode: permissions of log, lock and rotated files, whatever the umask. Made by root, they belong to the
        owner of their directory.
    :param lock_timeout: longest wait for another process's lock, in seconds.
    :raises ValueError: if ``max_bytes`` is set without a backup: the parent would erase the live log.

    Threads: batches of several threads are written one after the other. Forks: a child gives up the parent's handles,
    unflushed (there is no buffer), and opens its own. `close` from another thread waits for nothing: the
    thread that writes closes as soon as its batch is done; the next batch opens again.
    """

    def __init__(
        self,
        filename: str | os.PathLike[str],
        max_bytes: int = 50 * 1024 * 1024,
        backup_count: int = 10,
        file_mode: int = 0o640,
        lock_timeout: float = 5.0,
    ) -> None:
        if max_bytes > 0 and backup_count < 1:
            raise ValueError(
                f"backup_count={backup_count} with max_bytes={max_bytes} would erase the live log at every rotation: "
                "keep at least 1 backup, or set max_bytes=0 to never rotate"
            )
        super().__init__(  # pyright: ignore[reportUnknownMemberType]
            os.fspath(filename), maxBytes=max_bytes, backupCount=backup_count, encoding="utf-8"
        )
        self.file_mode = file_mode
        self.lock_timeout = lock_timeout
        self.setFormatter(TextFormatter())
        # What the parent's emit() writes is this one record; its text is the whole batch.
        self._carrier = new_record()
        self._text = ""
        self._size = 0
        self._error: Exception | None = None
        self._rotation_failed = False
        self._patience = math.inf
        # Reentrant, for a signal handler or a rotator that logs in the middle of a write: its lines come right after.
        self._busy = allocate_rlock()
        self._writing = False
        self._deferred: list[str] = []
        self._close_wanted = False
        #: Called, on the thread that writes, after the log was opened.
        self.on_open: Callable[[], None] | None = None
        self._once = Once()
        lifecycle.register(self)

    # A batch.

    def emit_batch(self, records: Sequence[logging.LogRecord]) -> None:
        """Format and write ``records``: one lock, one look at the size, one write.

        Batches beyond 1 MiB or ``max_bytes`` are split between records.

        :raises LockTimeout: the lock was not to be had within ``lock_timeout``.
        :raises OSError: the write failed. The records of the part that failed, and those after it, are not in the
            file, not even in part.
        """
        lines = self.format_batch(records)
        while lines:
            lines = lines[self.write_batch(lines) :]

    @property
    def takes_briefs(self) -> bool:
        """Whether an `entries.Brief` has all that a line shows of a plain record."""
        return isinstance(self.formatter, EntryFormatter) and self.formatter.is_brief and not self.filters

    def format_batch(self, records: Sequence[logging.LogRecord]) -> list[str]:
        """One text per record, by this handler's formatter, whose errors are raised."""
        return [self.format(record) for record in records]

    def format_entries(self, entries: Sequence[Entry]) -> list[str]:
        """The same for what waited in the queue."""
        formatter = self.formatter
        if not isinstance(formatter, EntryFormatter):
            return self.format_batch([restore(entry) for entry in entries])
        kinds = {*map(type, entries)}
        if dict in kinds or any(issubclass(kind, logging.LogRecord) for kind in kinds):
            own = [has_formatter(entry) for entry in entries]
            if any(own):
                return [
                    self.format(restore(entry)) if has_own else formatter.format_entry(entry)
                    for entry, has_own in zip(entries, own, strict=True)
                ]
        return formatter.format_entries(entries)

    def write_batch(self, lines: Sequence[str]) -> int:
        """Write as many of ``lines`` as go into one write, at least one; returns how many. Raises as `emit_batch`."""
        with self._busy:
            if self._writing:
                self._deferred += lines
                return len(lines)
            self._writing = True
            try:
                count = self._write_some(lines)
            finally:
                self._writing = False
            self._write_deferred()
        if self._close_wanted:
            self._close_if_idle()
        return count

    def _write_deferred(self) -> None:
        while self._deferred:
            self._writing = True
            try:
                del self._deferred[: self._write_some(tuple(self._deferred))]
            except OSError:
                return  # with the next batch
            finally:
                self._writing = False

    def _write_some(self, lines: Sequence[str]) -> int:
        count, self._text, self._size = self._fitting(lines)
        self._error = None
        try:
            self._hold(cast("LockedFile | None", self.stream_lock), self._open_lock)
            self._hold(self._stream(), self._open_stream)
            super().emit(self._carrier)
            if self._error is not None:
                raise self._error
            stream = self._stream()
            if stream is not None:
                stream.unlock()
        except BaseException:
            self._close_files()  # and give back what is held; whatever was wrong, the next attempt opens anew
            raise
        finally:
            self._text = ""
        return count

    def _fitting(self, lines: Sequence[str]) -> tuple[int, str, int]:
        """How many of ``lines`` one write takes, their text (its last line end is the parent's), their bytes."""
        limit = min(BATCH_BYTES, self.maxBytes or BATCH_BYTES)
        text = "\n".join(lines)
        size = _encoded_size(text) + 1
        count = len(lines)
        if size > limit:
            count, size = 0, 0
            for line in lines:
                more = _encoded_size(line) + 1
                if count and size + more > limit:
                    break
                count, size = count + 1, size + more
            text = "\n".join(lines[:count])
        return count, text, size

    def wait_no_longer_than(self, deadline: float | None) -> None:
        """Bound every wait for the lock by ``deadline`` of `time.monotonic`, also one under way. Any thread."""
        self._patience = math.inf if deadline is None else deadline

    def check(self) -> None:
        """Try whether log and lock can be opened and locked, then close them. A lock held by another is fine.

        :raises OSError: they cannot.
        """
        if os.path.lexists(self.baseFilename):
            self.make()  # what is no log, a device for one, is refused before it gets a lock beside it
        with self._busy:
            try:
                for file in (self._open_lock(), self._open_stream()):
                    if file.try_lock():
                        file.unlock()
            finally:
                self._close_files()

    def make(self) -> None:
        """Make the log if it is missing, with the mode and the owner that it has to have. Any thread.

        :raises OSError: it cannot be made.
        """
        os.close(open_file(self.baseFilename, os.O_APPEND, self.file_mode, self.lockFilename))

    # Hooks of the parent, which holds the lock around them.

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record at once, as any handler does; an error goes to `handleError`."""
        try:
            self.emit_batch([record])
        except Exception:
            self.handleError(record)

    def format(self, record: logging.LogRecord) -> str:
        """The text of ``record``, by its own formatter if it has one; for the batch's carrier, the batch."""
        if record is self._carrier:
            return self._text
        formatter: logging.Formatter | None = record.__dict__.get(FORMATTER, self.formatter)
        if not isinstance(formatter, EntryFormatter):
            record = complete(record)
        return super().format(record) if formatter is self.formatter or formatter is None else formatter.format(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Keep the error of a batch for its writer; otherwise as in `logging.Handler`."""
        if record is self._carrier:
            self._error = cast(Exception, sys.exc_info()[1])
        else:
            super().handleError(record)

    def shouldRollover(self, record: logging.LogRecord) -> bool:
        """Whether the batch does not fit into the live file any more. An empty file takes any batch."""
        stream = self._stream()
        if stream is None:  # not so: it is opened before
            return False
        stream.end_line()
        size = stream.size()
        return 0 < self.maxBytes < size + self._size and size > 0

    def doRollover(self) -> None:
        """Rename ``NAME`` to ``NAME.1``, ``NAME.1`` to ``NAME.2`` and so on; the oldest goes.

        From the oldest down, and no further than the first gap: killed or failing at any point, every file keeps
        its content and the live one its name. A failure is said once, and the live file grows meanwhile.
        """
        try:
            names = [self.rotation_filename(f"{self.baseFilename}.{n}") for n in range(1, self.backupCount + 1)]
            taken = next((n for n, name in enumerate(names) if not os.path.lexists(name)), len(names))
            if taken == len(names):
                taken -= 1  # no gap: the oldest is overwritten
            for n in range(taken, 0, -1):
                os.replace(names[n - 1], names[n])
            self.rotate(self.baseFilename, names[0])
            # Kept open, and locked, so far: where the lock file was deleted meanwhile, this alone keeps others out.
            if self.stream is not None:
                self.stream.close()
            self.stream = cast(Any, None)
        except Exception as error:  # the parent would swallow it; a namer or rotator may raise anything
            if not self._rotation_failed:
                self._rotation_failed = True
                say(
                    f"cannot rotate {self.baseFilename}: {show_error(error)}; it grows beyond "
                    f"{self.maxBytes} bytes until its directory lets files be renamed"
                )
            stream = self._stream()
            if stream is not None and not stream.is_current():  # renamed all the same
                stream.close()
            return
        self.num_rollovers += 1
        if self._rotation_failed:
            self._rotation_failed = False
            say(f"{self.baseFilename} is rotated again")

    def do_open(self, mode: str | None = None) -> TextIOWrapper:
        """Open the live file, unbuffered, and lock it. ``mode`` has no meaning here: it is always appended to."""
        self._hold(None, self._open_stream)
        rollovers = self.num_rollovers
        if self.shouldRollover(self._carrier):  # after ours somebody was faster, with a lock file of its own
            self.doRollover()
            if self.num_rollovers != rollovers:
                return self.do_open()
        # All of a TextIOWrapper that the parent uses.
        return cast(TextIOWrapper, self._hold(self._stream(), self._open_stream))

    def atomic_open(self, file_path: str) -> TextIOWrapper:
        """Open the lock file, and hold it: the parent asks for this in a forked child, before it waits for ever."""
        stream = self._stream()
        if stream is not None:
            stream.unlock()  # always in the same order: first the lock file, then the log
        self._hold(None, self._open_lock)
        self._hold(stream, self._open_stream)
        return cast(TextIOWrapper, self.stream_lock)

    # Lock and life.

    def _stream(self) -> AppendStream | None:
        stream = cast("AppendStream | None", self.stream)
        return None if stream is None or stream.closed else stream

    def _open_lock(self) -> LockedFile:
        directory = os.path.dirname(self.lockFilename)
        try:
            lock = LockedFile(self.lockFilename, self.file_mode, like=directory)
        except FileNotFoundError:
            os.makedirs(directory, mode=0o755, exist_ok=True)
            lock = LockedFile(self.lockFilename, self.file_mode, like=directory)
        self.stream_lock = cast(TextIOWrapper, lock)
        return lock

    def _open_stream(self) -> AppendStream:
        stream = AppendStream(self.baseFilename, self.file_mode, like=self.lockFilename)
        self.stream = cast(TextIOWrapper, stream)
        if self.on_open is not None:
            try:
                self.on_open()
            except Exception as error:
                self._once.say("on_open", f"on_open of {self.baseFilename} failed: {show_error(error)}")
        return stream

    def _hold(self, file: LockedFile | None, reopen: Callable[[], LockedFile]) -> LockedFile:
        """Lock the file that the path names now, within the bounded wait.

        Two files are held while a batch is written: the lock file, and the log itself, because the lock file may be
        deleted by a cleaner of temporary files while somebody holds it.
        """
        started = time.monotonic()
        delay = 0.0002
        while True:
            if file is None or file.closed or file.pid != os.getpid():
                file = reopen()
            locked = file.try_lock()
            if not file.is_current():
                file.close()  # deleted or replaced: what others lock is the new one
            elif locked:
                return file
            now = time.monotonic()
            if now - started >= self.lock_timeout or now >= self._patience:
                holder = None if file.closed else file.holder()
                by = f" by process {holder}" if holder else ""
                file.close()
                raise LockTimeout(f"{file.path} held{by} for more than {now - started:.1f} s")
            # Held for microseconds as a rule; polled: a wait in the kernel has no end. Often at first: who looks
            # each 20 ms can find it taken ten times in a row by others who come and go.
            sleep(delay)
            delay = min(delay * 2, 0.002 if now - started < POLLED_OFTEN else 0.02)

    def close(self) -> None:
        """Close log and lock, or have the thread that is writing do so."""
        self._close_wanted = True
        self._close_if_idle()
        # Not the parents' close(): they close files that another thread may be writing to, and take the handler's lock
        # together with logging's, which a thread that writes must never wait for.
        logging.Handler.close(self)

    def _close_if_idle(self) -> None:
        if self._busy.acquire(blocking=False):  # otherwise the writer looks at the wish when it is done
            try:
                if not self._writing:
                    self._close_files()
            finally:
                self._busy.release()

    def _close_files(self) -> None:
        for file in (self.stream, self.stream_lock):
            if file is not None:
                with contextlib.suppress(OSError):  # already gone: that is what was wanted
                    file.close()
        self.stream = cast(Any, None)
        self.stream_lock = None
        self._close_wanted = False

    def after_fork_in_child(self) -> None:
        """Close the parent's handles without unlocking them; the next batch opens its own."""
        self._busy = allocate_rlock()
        self._writing = False
        self._deferred.clear()
        self._patience = math.inf
        self._close_files()


def _encoded_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "backslashreplace"))
