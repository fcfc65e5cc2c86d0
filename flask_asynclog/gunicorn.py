"""gunicorn's own logs by the same way as the app's: ``--logger-class flask_asynclog.gunicorn.Logger``.

Made in gunicorn's master, and inherited by its workers: each process has its queue and its thread. Needs gunicorn.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import sys
from collections.abc import Mapping, MutableMapping
from datetime import timedelta
from functools import partial
from typing import Any

from gunicorn import glogging

from flask_asynclog.config import HANDLER_OPTIONS, Settings
from flask_asynclog.escaping import escape
from flask_asynclog.formatters import JSONFormatter, TextFormatter
from flask_asynclog.handlers import AsyncRotatingFileHandler
from flask_asynclog.headers import decoded, number_of
from flask_asynclog.redaction import Redactor

#: ``access_log_format`` that makes JSON lines.
JSON = "json"
#: The options that are about a file and its queue.
_OPTIONS = HANDLER_OPTIONS - {"format", "level", "console"}


class EscapedAtoms(glogging.SafeAtoms):
    r"""The values of an access line, without secrets and escaped when they are used: a client forges no line, no field.

    Control characters as in all our lines (``\n``, ``\x1b``), and ``"`` and ``\`` by a backslash, as Apache does.
    """

    def __init__(self, atoms: dict[str, Any], redactor: Redactor | None = None) -> None:
        dict[str, Any].__init__(self, atoms)
        self._redactor = Redactor() if redactor is None else redactor

    def __getitem__(self, name: str) -> Any:
        value = self.get(name.lower() if name.startswith("{") else name, "-")
        if isinstance(value, str):
            value = redact_atom(self._redactor, name, value)
            return escape(value.replace("\\", "\\\\").replace('"', '\\"'))
        return value


def redact_atom(redactor: Redactor, name: str, value: str) -> str:
    """The value of an atom, without secrets: of headers and variables by name, of a URL in its parts."""
    if name == "r":
        return " ".join(redactor.url(word) for word in value.split(" "))
    if name == "q" or name.lower() == "{query_string}e":
        return redactor.query(value)
    if name in ("U", "f"):
        return redactor.url(value)
    if name.startswith("{"):
        return str(redactor.value(name[1:-2], value))
    return redactor.text(value)


class _AccessFormatter(logging.Formatter):
    """Lines of ``access_log_format``, whose atoms are escaped already; a TAB between them is the format's own."""

    def format(self, record: logging.LogRecord) -> str:
        return escape(super().format(record), keep_tabs=True)


class Logger(glogging.Logger):
    """gunicorn's logger, whose ``accesslog`` and ``errorlog`` files are written asynchronously and rotated.

    Options come from ``ASYNCLOG_…`` variables of gunicorn's ``raw_env`` or of the environment: ``ASYNCLOG_MAX_BYTES``,
    ``ASYNCLOG_BACKUP_COUNT`` and all others that are about a file and its queue, and ``ASYNCLOG_EXCLUDE_PATHS``
    for the access log. Those left out are as the app has them, where it names the same file.

    ``-`` stays a stream, devices and pipes stay as gunicorn has them, ``access_log_format`` and ``logconfig*``
    mean what they do in gunicorn; ``access_log_format = "json"`` makes one JSON object per request.

    :raises ConfigError: for an option or a file that cannot be used, when gunicorn starts.
    """

    def __init__(self, cfg: Any) -> None:
        self._files: list[AsyncRotatingFileHandler] = []
        super().__init__(cfg)

    def setup(self, cfg: Any) -> None:
        """Set up as gunicorn does, at the start and when its configuration is read again; then take its files over."""
        super().setup(cfg)
        settings, given = Settings.from_environment({**os.environ, **cfg.env})
        options = {name: given[name] for name in _OPTIONS.intersection(given)}
        self._excludes = settings.excludes
        self._redactor = Redactor(settings.redact, settings.redact_patterns)
        # Of the object rather than of the class: gunicorn calls it, so a function will do.
        vars(self)["atoms_wrapper_class"] = partial(EscapedAtoms, redactor=self._redactor)
        self._json_access = cfg.access_log_format == JSON
        self._captures = False
        before, self._files = self._files, []
        for file in before:
            file.undecide()
        try:
            for logger in (self.error_log, self.access_log):
                for handler in [handler for handler in logger.handlers if getattr(handler, "_gunicorn", False)]:
                    self._take_over(logger, handler, options)
        except BaseException:
            before += self._files
            self._files = []
            raise
        finally:
            for file in before:  # after those that may share its queue were opened
                file.close()

    def _take_over(self, logger: logging.Logger, handler: logging.Handler, options: dict[str, object]) -> None:
        is_access = logger is self.access_log
        if is_access and self._json_access:
            handler.setFormatter(JSONFormatter())
        if not isinstance(handler, logging.FileHandler) or not _is_ordinary(handler.baseFilename):
            return
        file = AsyncRotatingFileHandler(handler.baseFilename, **options)
        file._gunicorn = True  # type: ignore[attr-defined]  # gunicorn's mark, by which it removes its handlers
        if is_access:
            file.setFormatter(JSONFormatter() if self._json_access else _AccessFormatter(self.access_fmt))
        else:
            file.setFormatter(TextFormatter(self.error_fmt, self.datefmt))
            if self.cfg.capture_output:
                self._captures = True
                file.on_open(self._capture_output)
        if os.geteuid() == 0:  # as gunicorn does with the log, so that workers of another user can use it
            # Whoever may write to the directory may put a link in its place.
            os.chown(file.lock_filename, self.cfg.uid, self.cfg.gid, follow_symlinks=False)
        logger.removeHandler(handler)
        handler.close()
        logger.addHandler(file)
        self._files.append(file)

    def _capture_output(self) -> None:
        """Have stdout and stderr lead to the file that is the error log now."""
        if os.path.samestat(os.stat(self.cfg.errorlog), os.fstat(sys.stdout.fileno())):
            return
        # A handle of its own: one that shares the log's would share its lock, for as long as any child has it.
        fd = os.open(self.cfg.errorlog, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            for stream in (sys.stdout, sys.stderr):
                os.dup2(fd, stream.fileno())
        finally:
            os.close(fd)

    def reopen_files(self) -> None:
        """For SIGUSR1, after files were moved: have all of them opened anew."""
        for file in self._files:
            file.reopen()
        super().reopen_files()  # opens the error log for what is captured: made by now, for the workers' user

    def access(self, resp: Any, req: Any, environ: MutableMapping[str, Any], request_time: timedelta) -> None:
        """Log one request, unless its path is excluded."""
        if self._captures:  # another process may have rotated the file
            # It is just doing so: after the next request then. Or the app has something else in the place of stdout.
            with contextlib.suppress(Exception):
                self._capture_output()
        if self._excludes(decoded(environ.get("PATH_INFO")) or ""):
            return
        if self._json_access:
            try:
                self._access_as_json(dict(self.atoms(resp, req, environ, request_time)), request_time)
            except Exception:  # as gunicorn does for its own lines
                self.exception("the access record could not be made")
        else:
            super().access(resp, req, environ, request_time)

    def _access_as_json(self, atoms: Mapping[str, Any], request_time: timedelta) -> None:
        shown = {
            name: redact_atom(self._redactor, name, value) if isinstance(value, str) else value
            for name in ("h", "u", "m", "U", "q", "H", "f", "a", "r")
            for value in [atoms[name]]
        }
        fields = {
            "client.address": shown["h"],
            "user.name": shown["u"],
            "http.request.method": shown["m"],
            "url.path": shown["U"],
            "url.query": shown["q"],
            "network.protocol.version": str(shown["H"]).removeprefix("HTTP/"),
            "http.response.status_code": number_of(atoms["s"]),
            "http.response.body.size": atoms["B"],
            "http.server.request.duration": request_time.total_seconds(),
            "http.request.header.referer": [shown["f"]] if shown["f"] != "-" else None,
            "user_agent.original": shown["a"],
        }
        present = {name: value for name, value in fields.items() if value not in (None, "", "-")}
        self.access_log.info('"%s" %s', shown["r"], atoms["s"], extra=present)


def _is_ordinary(path: str) -> bool:
    """Whether it is a file to be rotated, and not ``/dev/stdout`` or a pipe."""
    return not path.startswith(("/dev/", "/proc/")) and stat.S_ISREG(os.stat(path).st_mode)
