"""JSON: any value in its terms, and the same bytes with orjson and without.

Pure functions; any thread.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import json
import math
import pathlib
import uuid
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, cast

from flask_asynclog.escaping import escape_json
from flask_asynclog.values import DEEPEST, show

try:
    import orjson
except ImportError:  # the "fast" extra is not installed: the same lines, slower
    orjson = None  # type: ignore[assignment]


class _Exponent(float):
    """A number with an exponent: orjson writes ``1e-5`` where `json` writes ``1e-05``, as Python does."""


def _as_python(value: object) -> object:
    if isinstance(value, _Exponent):
        return cast(Any, orjson).Fragment(float.__repr__(value))
    raise TypeError


def dumps(value: object) -> str:
    """A JSON document on one line, of what `json_value` has made."""
    text = None
    if orjson is not None:
        try:
            text = orjson.dumps(value, default=_as_python).decode()
        except TypeError:  # lone surrogates, integers beyond 64 bits
            text = None
    if text is None:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return escape_json(text)


def json_value(value: object, depth: int = 0) -> object:
    """``value`` in JSON's own types, so that every JSON writer makes the same of it.

    NaN and the infinities are ``null``; what JSON has no type for is text, by `repr` where there is nothing better.
    """
    if value is None or type(value) in (str, bool):
        return value
    try:
        if isinstance(value, int):
            return _json_integer(value)
        if isinstance(value, float):
            if 1e-4 <= abs(value) < 1e16 or not value:
                return float(value)
            return _Exponent(value) if math.isfinite(value) else None
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, enum.Enum):
            return str(value)
        if isinstance(value, (datetime.date, datetime.time)):
            return value.isoformat()
        if isinstance(value, bytes):
            return value.decode("utf-8", "backslashreplace")
        if isinstance(value, (decimal.Decimal, uuid.UUID, pathlib.PurePath)):
            return str(value)
        if depth < DEEPEST:
            if isinstance(value, Mapping):
                items = cast("Mapping[object, object]", value).items()
                return {_json_key(key): json_value(item, depth + 1) for key, item in items}
            if isinstance(value, (list, tuple, AbstractSet)):
                return [json_value(item, depth + 1) for item in cast("Iterable[object]", value)]
        return show(value)
    except Exception:  # an object that raises when it is looked at
        return show(value)  # pyright: ignore[reportUnknownArgumentType]


def _json_integer(value: int) -> object:
    # Python writes no integers of thousands of digits in decimal; 617 of them it always does.
    number = int(value)
    return number if number.bit_length() <= 2048 else hex(number)


def _json_key(key: object) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    return json.dumps(key) if key is None or isinstance(key, bool) else show(key)
