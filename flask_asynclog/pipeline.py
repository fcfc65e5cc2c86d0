"""One destination: handler, queue, listener and sinks put together, shared by all apps that name its file."""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
from collections import Counter
from collections.abc import Collection

from flask_asynclog import lifecycle
from flask_asynclog.attachment import Attachment
from flask_asynclog.config import PREFIX, SHARED_OPTIONS, ConfigError, Settings
from flask_asynclog.console import ConsoleHandler
from flask_asynclog.formatters import EntryFormatter, make_formatter
from flask_asynclog.listener import BatchQueueListener
from flask_asynclog.queue import RecordQueue
from flask_asynclog.queuehandler import AsyncQueueHandler
from flask_asynclog.records import own_record
from flask_asynclog.redaction import Redactor
from flask_asynclog.rotating import BatchRotatingFileHandler
from flask_asynclog.stats import Stats
from flask_asynclog.tracing import tracing

_pipelines: dict[str, Pipeline] = {}


def open_pipeline(settings: Settings, *, console: bool, decided: Collection[str] = SHARED_OPTIONS) -> Pipeline:
    """The pipeline to ``settings.filename`` of this process; made, and its file checked, when there is none yet.

    :param console: whether to write to stderr as well where the settings leave it open.
    :param decided: options that the caller insists on; the others are left to whoever else opens the same file.
    :raises ConfigError: if the file cannot be used, or is in use with other settings.
    """
    directory, name = os.path.split(os.path.abspath(settings.filename))
    path = os.path.join(os.path.realpath(directory), name)
    pipeline = _pipelines.get(path)
    if pipeline is None:
        pipeline = _pipelines.setdefault(path, Pipeline(path, settings))
    pipeline.join(settings, console, decided)
    if pipeline.settings.handle_sigterm:
        lifecycle.handle_sigterm()
    return pipeline


class Pipeline:
    """Everything between the loggers and one file, in one process.

    Nothing runs until the first record. A forked child keeps the pipeline, with an empty queue and no thread.
    """

    def __init__(self, path: str, settings: Settings) -> None:
        self.path = path
        self.settings = settings
        #: Apps, and handlers, that share this pipeline.
        self.users = 0
        #: How many of them insist on an option.
        self._decided: Counter[str] = Counter()
        self._console: ConsoleHandler | None = None
        #: Whether `logging` was configured again, and what that did to the loggers is still to be mended.
        self.reconfigured = False
        self._reconfigurations = 0
        self._reconfiguration_said = False
        self.sink = BatchRotatingFileHandler(path, file_mode=settings.file_mode)
        try:
            self.sink.check()
        except OSError as error:
            raise ConfigError(_what_to_do(path, error)) from error
        self.queue = RecordQueue()
        self.handler = AsyncQueueHandler(self.queue)
        self.listener = BatchQueueListener(self.queue, self.sink)
        self.attachment = Attachment(self.handler, self._on_reconfigured)
        # Registered now, so that logging.shutdown(), registered before, runs after the drain.
        lifecycle.register_exit(self.listener)

    def join(self, settings: Settings, console: bool, decided: Collection[str]) -> None:
        """One user more. What nobody insists on, or leaves to others, is as the first who does has it.

        :raises ConfigError: if they disagree.
        """
        different = self.settings.differences(settings)
        against = [name for name in different if name in decided and self._decided[name]]
        if against:
            raise ConfigError(
                f"{self.path} is in use in this process with another "
                f"{', '.join(PREFIX + name.upper() for name in against)}: use the same settings, "
                f"or another {PREFIX}FILENAME"
            )
        open_options = [name for name in decided if not self._decided[name] or getattr(self.settings, name) is None]
        new = {name: getattr(settings, name) for name in open_options}
        self.settings = dataclasses.replace(self.settings, **new)
        self._decided.update(decided)
        self._configure()
        if self._console is None and (console if settings.console is None else settings.console):
            self._console = ConsoleHandler()
            self.listener.add_handler(self._console)
        self.queue.brief = self.listener.takes_briefs
        self.users += 1

    def undecide(self, decided: Collection[str]) -> None:
        """Somebody insists on these no more; they stay as they are until another one does."""
        self._decided.subtract(decided)

    def _configure(self) -> None:
        settings = self.settings
        self.queue.brief = False  # until it is known who gets the records
        self.sink.maxBytes = settings.max_bytes
        self.sink.backupCount = settings.backup_count
        self.sink.file_mode = settings.file_mode
        self.sink.lock_timeout = settings.lock_timeout
        formatter = make_formatter(settings.format)
        self.sink.setFormatter(formatter)
        #: Whether the lines tell threads: otherwise nobody has to find out.
        self.shows_threads = not isinstance(formatter, EntryFormatter) or formatter.shows_threads
        #: Whether they tell more of a request than its text does.
        self.shows_fields = not isinstance(formatter, EntryFormatter) or formatter.shows_fields
        self.handler.setFormatter(formatter)  # its formatException runs where the record is made
        # Handlers that share the pipeline have levels of their own.
        level = settings.level if self._decided["level"] else logging.NOTSET
        held = settings.buffer_level
        if held is not None and held < level:
            self.handler.hold_below, self.handler.level = level, held
        else:
            self.handler.hold_below, self.handler.level = logging.NOTSET, level
        if self.handler.hold_below or tracing():
            self.queue.be_careful()
        self.redactor = Redactor(settings.redact, settings.redact_patterns)
        self.listener.redactor = self.redactor
        self.queue.configure(settings.queue_size, settings.overflow, settings.block_timeout, settings.flush_level)
        self.listener.flush_interval = settings.flush_interval
        self.listener.shutdown_timeout = settings.shutdown_timeout

    def flush(self, timeout: float = 5.0) -> bool:
        """See `BatchQueueListener.flush`."""
        return self.listener.flush(timeout)

    def stop(self, timeout: float | None = None) -> bool:
        """See `BatchQueueListener.stop`; ``None`` means the ``shutdown_timeout`` of the settings. Closes the file."""
        stopped = self.listener.stop(self._patience(timeout))
        self.sink.close()
        return stopped

    def begin_stop(self, timeout: float | None = None) -> None:
        """See `BatchQueueListener.begin_stop`."""
        self.listener.begin_stop(self._patience(timeout))

    def _patience(self, timeout: float | None) -> float:
        return self.settings.shutdown_timeout if timeout is None else timeout

    def stats(self) -> Stats:
        """The counters of this moment."""
        return self.queue.stats()

    def release(self, timeout: float | None = None, *, decided: Collection[str] = SHARED_OPTIONS) -> bool:
        """One user, who has ``decided`` these, is done: stop, and undo the pipeline when that was the last one."""
        self.users -= 1
        self.undecide(decided)
        if self.users <= 0:
            self.attachment.detach()
            self.handler.close()
            _pipelines.pop(self.path, None)
            if not _pipelines:
                lifecycle.restore_sigterm()
        return self.stop(timeout)

    def _on_reconfigured(self) -> None:
        if lifecycle.exiting():
            return
        # logging.config closes all handlers first, then changes the loggers, all under logging's lock. The repair needs
        # that lock too, so on a thread of its own it comes right after; requests look at the mark as well.
        self._reconfigurations += 1
        self.reconfigured = True
        try:
            threading.Thread(target=self.repair, name="flask_asynclog-repair", daemon=True).start()
        except RuntimeError:  # the interpreter is about to end: nothing will be logged
            return

    def repair(self) -> None:
        """Mend what a later ``dictConfig``, ``fileConfig`` or ``basicConfig(force=True)`` undid; say so once."""
        seen = self._reconfigurations
        mended = self.attachment.repair()
        if seen == self._reconfigurations:  # otherwise again, by the thread that was started for it
            self.reconfigured = False
        if not mended or self._reconfiguration_said:
            return
        self._reconfiguration_said = True
        self.handler.handle(
            own_record(
                "logging was configured again after AsyncLog, mended: %s. Configure logging before AsyncLog(app), or "
                "with disable_existing_loggers=False. Not said again",
                ", ".join(mended),
            )
        )


def _what_to_do(path: str, error: OSError) -> str:
    about = error.filename or path
    if os.path.islink(about):
        reason, remedy = "is a symbolic link", "Links are not followed: name the real file, or remove the link"
    elif isinstance(error, PermissionError):
        reason = f"is not writable for user id {os.geteuid()}"
        remedy = f"Give this user write permission for {os.path.dirname(path)} and the files in it"
    else:
        reason = f"gives the error {error.strerror or error}"
        remedy = "See to it that a file can be made and locked there"
    return f"{PREFIX}FILENAME={path!r} cannot be used: {about} {reason}. {remedy}, or set {PREFIX}FILENAME elsewhere."
