"""`AsyncLog`, the Flask extension: configuration in, pipeline and hooks out."""

from __future__ import annotations

import logging
import sys
from typing import Any

from flask import Flask
from flask.logging import default_handler

from flask_asynclog.config import ConfigError, Settings
from flask_asynclog.consoleformat import is_terminal
from flask_asynclog.hooks import RequestHooks
from flask_asynclog.pipeline import Pipeline, open_pipeline
from flask_asynclog.stats import Stats


class AppState:
    """What ``app.extensions["asynclog"]`` holds: the settings of one app and its pipeline, if it is enabled."""

    def __init__(self, settings: Settings, pipeline: Pipeline | None) -> None:
        self.settings = settings
        self.pipeline = pipeline
        self._removed_default_from: logging.Logger | None = None

    def flush(self, timeout: float = 5.0) -> bool:
        """See `AsyncLog.flush`."""
        return self.pipeline is None or self.pipeline.flush(timeout)

    def stop(self, timeout: float | None = None) -> bool:
        """See `AsyncLog.stop`."""
        return self.pipeline is None or self.pipeline.stop(timeout)

    def begin_stop(self, timeout: float | None = None) -> None:
        """Begin what `stop` waits for."""
        if self.pipeline is not None:
            self.pipeline.begin_stop(timeout)

    def close(self, timeout: float | None = None) -> bool:
        """See `AsyncLog.close`."""
        pipeline, self.pipeline = self.pipeline, None
        if pipeline is None:
            return True
        stopped = pipeline.release(timeout)
        logger = self._removed_default_from
        if logger is not None and not pipeline.attachment.covers(logger):  # another app of this name may still log
            logger.addHandler(default_handler)
        return stopped

    def stats(self) -> Stats:
        """See `AsyncLog.stats`."""
        return Stats() if self.pipeline is None else self.pipeline.stats()

    def attach(self, app: Flask, pipeline: Pipeline) -> None:
        """Put handler and hooks in place."""
        settings = self.settings
        logger = app.logger if settings.request_logger is None else logging.getLogger(settings.request_logger)
        pipeline.attachment.attach(settings.loggers, logger if settings.request_events else None, app.logger)
        if default_handler in app.logger.handlers and pipeline.attachment.covers(app.logger):
            app.logger.removeHandler(default_handler)
            self._removed_default_from = app.logger
        RequestHooks(app, settings, pipeline, logger)


class AsyncLog:
    """Asynchronous logging for a Flask app: every record of the app goes to one rotating file, off the request path.

    ::

        app = Flask(__name__)
        AsyncLog(app)

    :param app: the app, or ``None`` to call `init_app` later.
    :param options: options of the configuration's table, lower case and without prefix (``filename="x.log"``). They win
        over ``app.config``.
    :raises ConfigError: for an unknown option, a value out of range, or a file that cannot be used.

    One instance may serve several apps; it stores none of them. Apps that name the same file share one queue, one
    thread and one file per process. The thread starts with the first record of each process; a forked child starts
    clean.
    """

    def __init__(self, app: Flask | None = None, **options: Any) -> None:
        self._options = options
        self._states: list[AppState] = []
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask, **options: Any) -> None:
        """Read the configuration of ``app``, once, and put handler and hooks in place.

        :raises ConfigError: as the class does, and when ``app`` has been initialised before.
        """
        if "asynclog" in app.extensions:
            raise ConfigError(
                f"AsyncLog is initialised on app {app.name!r} already: call init_app once per app, and give all "
                "options in that call or in app.config"
            )
        settings = Settings.load(app.config, {**self._options, **options})
        pipeline = None
        if settings.enabled:
            pipeline = open_pipeline(settings, console=app.debug or is_terminal(sys.stderr))
        state = AppState(settings, pipeline)
        if pipeline is not None:
            state.attach(app, pipeline)
        app.extensions["asynclog"] = state
        self._states.append(state)

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until every record accepted before this call is with the file.

        :param timeout: longest wait in seconds, for each file.
        :returns: ``False`` if the time ran out or records were given up.
        """
        return all([state.flush(timeout) for state in self._states])

    def stop(self, timeout: float | None = None) -> bool:
        """Drain and stop the threads. Idempotent; the next record starts them again.

        :param timeout: longest drain in seconds, for each file; ``None``: ``ASYNCLOG_SHUTDOWN_TIMEOUT``. What is left
            is counted as failed.
        :returns: whether all was written.
        """
        for state in self._states:
            state.begin_stop(timeout)  # all at the same time
        return all([state.stop(timeout) for state in self._states])

    def close(self, timeout: float | None = None) -> bool:
        """Stop, and take the handlers off the loggers again: for tests, and for apps that end before their process.

        The hooks stay with the app and go on making request records, for whatever handlers its logger has.

        :param timeout: as in `stop`.
        :returns: whether all was written.
        """
        states, self._states = self._states, []
        return all([state.close(timeout) for state in states])

    def stats(self) -> Stats:
        """The counters of this process, summed over the files of this instance's apps."""
        pipelines = {state.pipeline for state in self._states if state.pipeline is not None}
        return sum((pipeline.stats() for pipeline in pipelines), Stats())
