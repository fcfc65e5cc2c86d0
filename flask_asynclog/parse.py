"""What the value of an option may be.

Each function returns the value to use, or raises ValueError (or KeyError); the text of the error, if it has one, says
more than the table of options does. The table, in `config`, adds key, value and what is allowed.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from flask_asynclog.formatters import FORMATS, TextFormatter
from flask_asynclog.redaction import DEFAULT_NAMES, squeezed_name
from flask_asynclog.textformat import FIELD
from flask_asynclog.values import show


def boolean(value: object) -> bool:
    """``True`` or ``False``."""
    # Text and 0/1 come from environment variables: FLASK_ASYNCLOG_ENABLED=off.
    known = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if isinstance(value, (str, int)):
        return known[str(value).lower()]
    raise ValueError


def optional(parse: Callable[[object], Any]) -> Callable[[object], Any]:
    """What ``parse`` takes, or ``None``."""
    return lambda value: None if value is None else parse(value)


def integer(lowest: int, highest: int) -> Callable[[object], int]:
    """An integer from ``lowest`` to ``highest``."""

    def checked(value: object) -> int:
        if type(value) is not int:
            raise ValueError("no whole number")
        if not lowest <= value <= highest:
            raise ValueError
        return value

    return checked


def seconds(lowest: float, highest: float) -> Callable[[object], float]:
    """Seconds from ``lowest`` to ``highest``."""

    def checked(value: object) -> float:
        if type(value) not in (int, float):
            raise ValueError("no number")
        if not lowest <= cast(float, value) <= highest:
            raise ValueError
        return float(cast(float, value))

    return checked


def share(value: object) -> float:
    """A part of the whole, from 0 to 1."""
    return seconds(0, 1)(value)


def level(value: object) -> int:
    """The number of a level, given so or by its name."""
    if type(value) is int and value >= 0:
        return value
    if isinstance(value, str):
        known = logging.getLevelNamesMapping()
        return known[value if value in known else value.upper()]  # one of `addLevelName` may have small letters
    raise ValueError


def choice(*choices: str) -> Callable[[object], str]:
    """One of ``choices``."""

    def checked(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValueError
        return value

    return checked


def names(value: object, ellipsis: object = ...) -> tuple[str, ...]:
    """Names in a list, or in one text with commas; ``ellipsis`` is what stands for an ``...`` in a list."""
    if isinstance(value, str):  # an environment variable: "a,b"
        found = tuple(name.strip() for name in value.split(","))
        if len(found) > 1 and "" in found:
            raise ValueError("'' is no name: a comma too many")
        return found
    if isinstance(value, Iterable) and not isinstance(value, Mapping):
        given = tuple(ellipsis if name is ... else name for name in cast("Iterable[object]", value))
        if all(isinstance(name, str) for name in given):
            return cast("tuple[str, ...]", given)
    raise ValueError


def events(value: object) -> tuple[str, ...]:
    """Names of request records."""
    given = () if value == "" else names(value)
    if not set(given) <= {"request", "response"}:
        raise ValueError
    return given


def path_globs(value: object) -> tuple[str, ...]:
    """Shell patterns of URL paths."""
    given = () if value == "" else names(value)
    if not all(glob.startswith(("/", "*")) for glob in given):
        raise ValueError
    return given


def secret_names(value: object) -> tuple[str, ...]:
    """Names whose values are secrets; ``"..."`` among them stands for the default ones."""
    if value in ("", ...):
        return DEFAULT_NAMES if value is ... else ()
    given: dict[str, None] = {}  # in their order, each once
    for name in names(value, ellipsis="..."):
        if name == "...":
            given.update(dict.fromkeys(DEFAULT_NAMES))
        elif squeezed_name(name):
            given[str.__str__(name).strip().lower()] = None
        else:
            raise ValueError(f"{name!r} is no name: it has neither letter nor digit")
    return tuple(given)


def patterns(value: object) -> tuple[re.Pattern[str], ...]:
    """Regular expressions, as texts or compiled, in a list; or one of them."""
    if value == "":
        return ()
    if isinstance(value, (str, re.Pattern)):  # no commas: an expression may have them
        return (_pattern(cast(object, value)),)
    if isinstance(value, (bytes, Mapping)) or not isinstance(value, Iterable):
        raise ValueError
    return tuple(_pattern(pattern) for pattern in cast("Iterable[object]", value))


def _pattern(value: object) -> re.Pattern[str]:
    if isinstance(value, str):
        try:
            value = re.compile(str.__str__(value))
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"{value!r} is no regular expression: {error}") from error
    if not isinstance(value, re.Pattern):
        raise ValueError(f"{show(value)} is no regular expression")
    pattern = cast("re.Pattern[str]", value)
    if not isinstance(cast(object, pattern.pattern), str):
        raise ValueError(f"{pattern.pattern!r} is for bytes; logs are text")
    if pattern.search(""):
        raise ValueError(f"{pattern.pattern!r} matches the empty string, which is everywhere")
    return pattern


def path(value: object) -> str:
    """The path of a file."""
    if not isinstance(value, (str, os.PathLike)):
        raise ValueError
    path = os.fspath(cast("str | os.PathLike[str]", value))
    if not isinstance(cast(object, path), str) or not os.path.basename(path) or "\0" in path:
        raise ValueError
    os.fsencode(path)  # raises ValueError for what no file can be named
    return str.__str__(path)


def file_mode(value: object) -> int:
    """Permissions, as a number or in octal digits."""
    mode = int(value, 8) if isinstance(value, str) else value
    if type(mode) is int and mode > 0o777 and re.fullmatch("[67][0-7]{2}", str(mode)):
        raise ValueError(f"it is not octal: write 0o{mode}, or 0{mode} in the environment")
    if type(mode) is not int or not 0 <= mode <= 0o777 or mode & 0o600 != 0o600:
        raise ValueError
    return mode


class _Sample(dict[str, object]):
    """The fields of a record; those that only ``extra`` or a filter can bring are numbers, which most formats take."""

    def __missing__(self, name: str) -> object:
        return 0


def line_format(value: object) -> str | logging.Formatter:
    """The name of a format, a %-format that fits every record, or a formatter."""
    if isinstance(value, logging.Formatter):
        return value
    if not isinstance(value, str):
        raise ValueError
    if value in FORMATS:
        return value
    if "%(" in value:
        TextFormatter(value)
        if "%" in FIELD.sub("", value):
            raise ValueError("a % that is no %(name)s field; write %% for the character")
        try:
            sample = logging.LogRecord("", logging.INFO, "", 0, "", None, None)
            _ = value % _Sample(vars(sample), message="", asctime="")
        except (TypeError, ValueError) as error:
            raise ValueError(f"it fits no record: {error}") from error
        return value
    raise ValueError


def optional_name(value: object) -> str | None:
    """The name of a logger, or ``None``."""
    if value is None or isinstance(value, str):
        return value
    raise ValueError


def header(value: object) -> str | None:
    """The name of a header, or ``None``."""
    if value is None or (isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", value)):
        return value  # a token of RFC 9110 §5.1
    raise ValueError


def headers(value: object) -> tuple[str, ...]:
    """Names of headers."""
    given = () if value == "" else names(value)
    return tuple(cast(str, header(name)) for name in given)
