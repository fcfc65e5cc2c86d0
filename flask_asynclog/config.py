"""Every option, once: `Settings` is the table that validation and the documentation are made from.

Read when an app is initialised, never again: later changes of ``app.config`` have no effect.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import json
import logging
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from flask_asynclog import parse
from flask_asynclog.redaction import DEFAULT_NAMES
from flask_asynclog.values import show

PREFIX = "ASYNCLOG_"


class ConfigError(ValueError):
    """An option is unknown, of a wrong type or out of range, or cannot work here.

    Raised at start-up only. The text names the key, the value, what is allowed and what to do.
    """


@dataclass(frozen=True, slots=True)
class Option:
    """What the table says of one option beside its name and default."""

    #: Returns the value to use, or raises ValueError (its text, if any, says more than ``allowed`` does).
    parse: Callable[[object], object]
    #: The types it takes, for people.
    type: str
    #: Range or choices, with the unit.
    allowed: str
    #: One line.
    help: str
    #: Part of what two apps that name the same file must agree on.
    shared: bool = True


def _option(default: Any, parse: Callable[[Any], object], **about: Any) -> Any:
    return dataclasses.field(default=default, metadata={"option": Option(cast(Any, parse), **about)})


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of one app, checked. Each field is one option: its name, default and `Option`."""

    # fmt: off
    enabled: bool = _option(
        True, parse.boolean, type="bool", allowed="true or false", shared=False,
        help="Kill switch: when false, nothing is installed.",
    )
    filename: str = _option(
        "app.log", parse.path, type="str or path", allowed="the path of a file, not of a directory",
        help="The log file, relative to the working directory; missing directories are made.",
    )
    level: int = _option(
        logging.INFO, parse.level, type="str or int", allowed="a level name or a number from 0",
        help="Level of the handler, and of the attached loggers left unset.",
    )
    loggers: tuple[str, ...] = _option(
        ("",), parse.names, type="names", allowed="a list of logger names", shared=False,
        help='Loggers the handler is attached to; "" is the root logger.',
    )
    format: str | logging.Formatter = _option(
        "text", parse.line_format, type="str or Formatter",
        allowed='"text", "json", "ecs", "logfmt", "combined", a %-format such as "%(asctime)s %(message)s", '
        "or a logging.Formatter",
        help="How a record becomes a line.",
    )
    max_bytes: int = _option(
        50 * 1024 * 1024, parse.integer(0, 2**63 - 1), type="int", allowed="bytes, from 0 (never rotate)",
        help="The file is rotated before it would exceed this size.",
    )
    backup_count: int = _option(
        10, parse.integer(0, 1000), type="int", allowed="0 to 1000 files, at least 1 when rotating",
        help="Rotated files kept.",
    )
    file_mode: int = _option(
        0o640, parse.file_mode, type="int or octal str", allowed="0o600 to 0o777, readable and writable by the owner",
        help="Permissions of log, lock and rotated files, whatever the umask.",
    )
    lock_timeout: float = _option(
        5.0, parse.seconds(0.001, 3600), type="float", allowed="0.001 to 3600 seconds",
        help="Longest wait for another process's lock before a batch is tried again later.",
    )
    queue_size: int = _option(
        65_536, parse.integer(1, 100_000_000), type="int", allowed="1 to 100000000 records",
        help="Records held in memory; those below WARNING get the first 80 %.",
    )
    overflow: str = _option(
        "drop_new", parse.choice("drop_new", "drop_old", "block"), type="str",
        allowed='"drop_new", "drop_old" or "block"',
        help="What a full queue does; drops are counted and reported.",
    )
    block_timeout: float = _option(
        0.1, parse.seconds(0, 60), type="float", allowed="0 to 60 seconds",
        help='Under "block": longest wait of a logging call before its record is dropped.',
    )
    flush_interval: float = _option(
        0.1, parse.seconds(0, 60), type="float", allowed="0 to 60 seconds",
        help="Longest a record waits before it is written.",
    )
    flush_level: int = _option(
        logging.ERROR, parse.level, type="str or int", allowed="a level name or a number from 0",
        help="A record at or above it is written at once.",
    )
    shutdown_timeout: float = _option(
        5.0, parse.seconds(0, 3600), type="float", allowed="0 to 3600 seconds",
        help="Longest drain at exit and in stop(); what is left is counted and said on stderr.",
    )
    handle_sigterm: bool = _option(
        True, parse.boolean, type="bool", allowed="true or false",
        help="Drain at SIGTERM, where the server does not end gracefully by itself; the exit status stays.",
    )
    request_events: tuple[str, ...] = _option(
        ("request", "response"), parse.events, type="names", allowed='any of "request", "response"', shared=False,
        help="Which request records are made.",
    )
    request_logger: str | None = _option(
        None, parse.optional_name, type="str or None", allowed="a logger name, or None for app.logger", shared=False,
        help="Logger of the request records.",
    )
    exclude_paths: tuple[str, ...] = _option(
        (), parse.path_globs, type="names", allowed='a list of paths or shell patterns: "/healthz", "/static/*"',
        shared=False, help="Requests to these paths make no request records.",
    )
    client_error_level: int = _option(
        logging.WARNING, parse.level, type="str or int", allowed="a level name or a number from 0", shared=False,
        help="Level of Response records with a status from 400 to 499; from 500 on it is ERROR.",
    )
    slow_threshold: float | None = _option(
        None, parse.optional(parse.seconds(0, 86_400)), type="float or None", allowed="0 to 86400 seconds, or None",
        shared=False, help="A response that takes as long, or longer, is a WARNING at least.",
    )
    sample_rate: float = _option(
        1.0, parse.share, type="float", allowed="0 to 1", shared=False,
        help="Share of the requests that make request records; failed and slow ones always do.",
    )
    buffer_level: int | None = _option(
        None, parse.optional(parse.level), type="str, int or None",
        allowed="a level name, or a number from 0, below ASYNCLOG_LEVEL; or None",
        help="Records from this level on are held for their request, and written if it fails or is slow.",
    )
    buffer_size: int = _option(
        1000, parse.integer(1, 1_000_000), type="int", allowed="1 to 1000000 records",
        help="Records held for one request; the oldest go first.",
    )
    redact: tuple[str, ...] = _option(
        DEFAULT_NAMES, parse.secret_names, type="names", allowed='a list of names; "..." stands for the default ones',
        help="Names whose values become [REDACTED]: of parameters, headers, extra and bound values.",
    )
    redact_patterns: tuple[re.Pattern[str], ...] = _option(
        (), parse.patterns, type="list", allowed="regular expressions that match no empty text",
        help="What they match becomes [REDACTED], or their first group; in messages, tracebacks and values.",
    )
    request_headers: tuple[str, ...] = _option(
        (), parse.headers, type="names", allowed="a list of header names", shared=False,
        help="Request headers that the formats with fields show.",
    )
    response_headers: tuple[str, ...] = _option(
        (), parse.headers, type="names", allowed="a list of header names", shared=False,
        help="Response headers that the formats with fields show.",
    )
    request_id_header: str | None = _option(
        "X-Request-ID", parse.header, type="str or None", allowed="a header name, or None for no request ids",
        shared=False, help="Header that carries the request id, echoed on the response.",
    )
    trust_request_id: bool = _option(
        False, parse.boolean, type="bool", allowed="true or false", shared=False,
        help="Take the client's id if it is 1 to 128 of A-Z a-z 0-9 . _ -",
    )
    console: bool | None = _option(
        None, parse.optional(parse.boolean), type="bool or None", allowed="true, false or None",
        help="Also write to stderr; None: only in debug mode or on a terminal.",
    )

    # fmt: on

    @classmethod
    def load(cls, config: Mapping[str, Any], options: Mapping[str, Any]) -> Settings:
        """Settings from ``ASYNCLOG_…`` keys of ``config`` and lower-case ``options``, which win.

        :raises ConfigError: for an unknown key, a wrong type or a value out of range.
        """
        given = {key.removeprefix(PREFIX).lower(): config[key] for key in config if str(key).startswith(PREFIX)}
        for name in options:
            plain = name.removeprefix(PREFIX).lower()
            if name != plain:
                raise ConfigError(
                    f"unknown option {name}={_shown(options[name])}: options are lower case and without prefix, "
                    f"{plain}=…"
                )
        given.update(options)
        table = option_table()
        parsed = {name: _parse(name, value, table) for name, value in given.items()}
        settings = cls(**cast(Any, parsed))
        if settings.max_bytes and not settings.backup_count:
            raise ConfigError(
                f"{PREFIX}BACKUP_COUNT=0 is not allowed with {PREFIX}MAX_BYTES={settings.max_bytes}: rotation would "
                f"erase the live log. Keep at least 1 backup, or set {PREFIX}MAX_BYTES=0 to never rotate."
            )
        if settings.buffer_level is not None and settings.buffer_level >= settings.level:
            raise ConfigError(
                f"{PREFIX}BUFFER_LEVEL={logging.getLevelName(settings.buffer_level)} is not below {PREFIX}LEVEL="
                f"{logging.getLevelName(settings.level)}: records from {PREFIX}LEVEL on are written anyway"
            )
        return settings

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> tuple[Settings, dict[str, object]]:
        """Settings from ``ASYNCLOG_…`` variables, JSON or text as of `flask.Config.from_prefixed_env`.

        :returns: the settings, and the options that are set there, as they are after the checks.
        :raises ConfigError: as `load`.
        """
        given: dict[str, Any] = {}
        for name, text in environment.items():
            if name.startswith(PREFIX):
                try:
                    given[name] = json.loads(text)
                except ValueError:
                    given[name] = text
        settings = cls.load(given, {})
        names = [name.removeprefix(PREFIX).lower() for name in given]
        return settings, {name: getattr(settings, name) for name in names}

    @property
    def excludes(self) -> Callable[[str], object]:
        """Tells whether a path is among ``exclude_paths``."""
        return re.compile("|".join(map(fnmatch.translate, self.exclude_paths)) or "(?!)").match

    @property
    def held(self) -> int:
        """Records below the normal level that are held for each request; 0: there are none."""
        return 0 if self.buffer_level is None else self.buffer_size

    def differences(self, other: Settings) -> list[str]:
        """The options in which two apps that name the same file disagree though they must not."""
        return [
            name
            for name in option_table()
            if name in SHARED_OPTIONS and _disagree(getattr(self, name), getattr(other, name))
        ]


def _disagree(mine: object, theirs: object) -> bool:
    return mine != theirs and mine is not None and theirs is not None  # None leaves it to the other


def option_table() -> dict[str, Option]:
    """Every option by its lower-case name, in the order of the documentation."""
    return {field.name: field.metadata["option"] for field in dataclasses.fields(Settings)}


#: Options on which all who name the same file have to agree.
SHARED_OPTIONS = frozenset(name for name, option in option_table().items() if option.shared) - {"filename"}
#: Those of a handler without an app.
HANDLER_OPTIONS = SHARED_OPTIONS - {"buffer_level", "buffer_size"}


def _parse(name: str, value: object, table: dict[str, Option]) -> object:
    key = PREFIX + name.upper()
    option = table.get(name)
    if option is None:
        close = difflib.get_close_matches(name, table, n=1)
        hint = f"did you mean {PREFIX}{close[0].upper()}?" if close else f"known are {', '.join(table)}."
        raise ConfigError(f"unknown option {key}={_shown(value)}: {hint}")
    try:
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError
        return option.parse(value)
    except Exception as error:  # whatever a strange object does when it is looked at
        reason = f" ({error})" if type(error) is ValueError and str(error) else ""
        raise ConfigError(
            f"{key}={_shown(value)} ({type(value).__name__}) is not allowed{reason}. Allowed: {option.allowed}."
        ) from error


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str) else show(value)
