"""Every option, once: `Settings` is the table that validation and the documentation are made from.

Read when an app is initialised, never again: later changes of ``app.config`` have no effect.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from flask_asynclog.formatters import TextFormatter
from flask_asynclog.records import show

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


def _boolean(value: object) -> bool:
    # Text and 0/1 come from environment variables: FLASK_ASYNCLOG_ENABLED=off.
    known = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if isinstance(value, (str, int)):
        return known[str(value).lower()]
    raise ValueError


def _optional_boolean(value: object) -> bool | None:
    return None if value is None else _boolean(value)


def _integer(lowest: int, highest: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        if type(value) is not int or not lowest <= value <= highest:
            raise ValueError
        return value

    return parse


def _seconds(lowest: float, highest: float) -> Callable[[object], float]:
    def parse(value: object) -> float:
        if type(value) not in (int, float) or not lowest <= cast(float, value) <= highest:
            raise ValueError
        return float(cast(float, value))

    return parse


def _level(value: object) -> int:
    if type(value) is int and value >= 0:
        return value
    if isinstance(value, str):
        return logging.getLevelNamesMapping()[value.upper()]
    raise ValueError


def _choice(*choices: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValueError
        return value

    return parse


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, str):  # an environment variable: "a,b"
        return tuple(name.strip() for name in value.split(","))
    if isinstance(value, Iterable) and not isinstance(value, Mapping):
        names = tuple(cast("Iterable[object]", value))
        if all(isinstance(name, str) for name in names):
            return cast("tuple[str, ...]", names)
    raise ValueError


def _events(value: object) -> tuple[str, ...]:
    names = () if value == "" else _names(value)
    if not set(names) <= {"request", "response"}:
        raise ValueError
    return names


def _path(value: object) -> str:
    if not isinstance(value, (str, os.PathLike)):
        raise ValueError
    path = os.fspath(cast("str | os.PathLike[str]", value))
    if not isinstance(cast(object, path), str) or not os.path.basename(path) or "\0" in path:
        raise ValueError
    os.fsencode(path)  # raises ValueError for what no file can be named
    return str.__str__(path)


def _file_mode(value: object) -> int:
    mode = int(value, 8) if isinstance(value, str) else value
    if type(mode) is not int or not 0 <= mode <= 0o777 or mode & 0o600 != 0o600:
        raise ValueError
    return mode


_FIELD = re.compile(r"%\(\w[\w.]*\)[#0+ -]*\d*(?:\.\d+)?[diouxXeEfFgGcrsa]")


class _Sample(dict[str, object]):
    """The fields of a record; those that only ``extra`` or a filter can bring are numbers, which most formats take."""

    def __missing__(self, name: str) -> object:
        return 0


def _format(value: object) -> str | logging.Formatter:
    if isinstance(value, logging.Formatter):
        return value
    if not isinstance(value, str):
        raise ValueError
    if value in ("text", "json"):
        return value
    if "%(" in value:
        TextFormatter(value)
        if "%" in _FIELD.sub("", value.replace("%%", "")):
            raise ValueError("a % that is no %(name)s field; write %% for the character")
        try:
            _ = value % _Sample(vars(logging.makeLogRecord({})), message="", asctime="")
        except (TypeError, ValueError) as error:
            raise ValueError(f"it fits no record: {error}") from error
        return value
    raise ValueError


def _optional_name(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise ValueError


def _header(value: object) -> str | None:
    if value is None or (isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", value)):
        return value  # a token of RFC 9110 §5.1
    raise ValueError


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of one app, checked. Each field is one option: its name, default and `Option`."""

    # fmt: off
    enabled: bool = _option(
        True, _boolean, type="bool", allowed="true or false", shared=False,
        help="Kill switch: when false, nothing is installed.",
    )
    filename: str = _option(
        "app.log", _path, type="str or path", allowed="the path of a file, not of a directory",
        help="The log file, relative to the working directory; missing directories are made.",
    )
    level: int = _option(
        logging.INFO, _level, type="str or int", allowed="a level name or a number from 0",
        help="Level of the handler, and of the attached loggers left unset.",
    )
    loggers: tuple[str, ...] = _option(
        ("",), _names, type="names", allowed="a list of logger names", shared=False,
        help='Loggers the handler is attached to; "" is the root logger.',
    )
    format: str | logging.Formatter = _option(
        "text", _format, type="str or Formatter",
        allowed='"text", "json", a %-format such as "%(asctime)s %(message)s", or a logging.Formatter',
        help="How a record becomes a line.",
    )
    max_bytes: int = _option(
        50 * 1024 * 1024, _integer(0, 2**63 - 1), type="int", allowed="bytes, from 0 (never rotate)",
        help="The file is rotated before it would exceed this size.",
    )
    backup_count: int = _option(
        10, _integer(0, 1000), type="int", allowed="0 to 1000 files, at least 1 when rotating",
        help="Rotated files kept.",
    )
    file_mode: int = _option(
        0o640, _file_mode, type="int or octal str", allowed="0o600 to 0o777, readable and writable by the owner",
        help="Permissions of log, lock and rotated files, whatever the umask.",
    )
    lock_timeout: float = _option(
        5.0, _seconds(0.001, 3600), type="float", allowed="0.001 to 3600 seconds",
        help="Longest wait for another process's lock before a batch is tried again later.",
    )
    queue_size: int = _option(
        65_536, _integer(1, 100_000_000), type="int", allowed="1 to 100000000 records",
        help="Records held in memory; those below WARNING get the first 80 %.",
    )
    overflow: str = _option(
        "drop_new", _choice("drop_new", "drop_old", "block"), type="str",
        allowed='"drop_new", "drop_old" or "block"',
        help="What a full queue does; drops are counted and reported.",
    )
    block_timeout: float = _option(
        0.1, _seconds(0, 60), type="float", allowed="0 to 60 seconds",
        help='Under "block": longest wait of a logging call before its record is dropped.',
    )
    flush_interval: float = _option(
        0.1, _seconds(0, 60), type="float", allowed="0 to 60 seconds",
        help="Longest a record waits before it is written.",
    )
    flush_level: int = _option(
        logging.ERROR, _level, type="str or int", allowed="a level name or a number from 0",
        help="A record at or above it is written at once.",
    )
    shutdown_timeout: float = _option(
        5.0, _seconds(0, 3600), type="float", allowed="0 to 3600 seconds",
        help="Longest drain at exit and in stop(); what is left is counted and said on stderr.",
    )
    request_events: tuple[str, ...] = _option(
        ("request", "response"), _events, type="names", allowed='any of "request", "response"', shared=False,
        help="Which request records are made.",
    )
    request_logger: str | None = _option(
        None, _optional_name, type="str or None", allowed="a logger name, or None for app.logger", shared=False,
        help="Logger of the request records.",
    )
    request_id_header: str | None = _option(
        "X-Request-ID", _header, type="str or None", allowed="a header name, or None for no request ids",
        shared=False, help="Header that carries the request id, echoed on the response.",
    )
    trust_request_id: bool = _option(
        False, _boolean, type="bool", allowed="true or false", shared=False,
        help="Take the client's id if it is 1 to 128 of A-Z a-z 0-9 . _ -",
    )
    console: bool | None = _option(
        None, _optional_boolean, type="bool or None", allowed="true, false or None",
        help="Also write to stderr; None: only in debug mode or on a terminal.",
    )

    # fmt: on

    @classmethod
    def load(cls, config: Mapping[str, Any], options: Mapping[str, Any]) -> Settings:
        """Settings from ``ASYNCLOG_…`` keys of ``config`` and lower-case ``options``, which win.

        :raises ConfigError: for an unknown key, a wrong type or a value out of range.
        """
        given = {key.removeprefix(PREFIX).lower(): config[key] for key in config if key.startswith(PREFIX)}
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
        return settings

    def differences(self, other: Settings) -> list[str]:
        """The keys in which two apps that name the same file disagree though they must not."""
        return [
            PREFIX + name.upper()
            for name, option in option_table().items()
            if option.shared and name != "filename" and _disagree(getattr(self, name), getattr(other, name))
        ]


def _disagree(mine: object, theirs: object) -> bool:
    return mine != theirs and mine is not None and theirs is not None  # None leaves it to the other


def option_table() -> dict[str, Option]:
    """Every option by its lower-case name, in the order of the documentation."""
    return {field.name: field.metadata["option"] for field in dataclasses.fields(Settings)}


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
