"""Values of others, made safe: shown as text whatever they raise, and frozen for another thread.

Runs in the thread of whoever logs. Pure functions.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import pathlib
import uuid
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, cast

from werkzeug.datastructures import Headers
from werkzeug.local import LocalProxy

#: Exact types whose values cannot change behind the record's back.
IMMUTABLE: set[type] = {str, int, float, bool, bytes, complex, type(None)}

#: Types kept as they are in ``extra``, subclasses included: immutable, and every format can show them.
_VALUES = (
    str,
    int,
    float,
    bytes,
    complex,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    decimal.Decimal,
    uuid.UUID,
    pathlib.PurePath,
    enum.Enum,
)

#: Levels of nesting that a value may have.
DEEPEST = 8
#: Values that one ``extra`` may have, those of its containers included.
MOST_VALUES = 10_000


def show(value: object) -> str:
    """``repr(value)``, or why it has none. Strings are shown as they are."""
    if isinstance(value, str):
        return str.__str__(value)
    try:
        return repr(value)
    except Exception as error:
        return f"<{type(value).__name__}: repr() raised {type(error).__name__}>"


def show_error(error: BaseException) -> str:
    """``ValueError: text`` of an exception, also when its ``__str__`` raises."""
    text = error_text(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def error_text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:
        return f"<str() raised {type(broken).__name__}>"


def freeze(value: object, depth: int = 0, budget: list[int] | None = None) -> object:
    """A copy of ``value`` that no other thread changes: containers copied, other objects as their ``repr``.

    Proxies are resolved here, where their request is. Nesting beyond 8 levels and values beyond the first 10,000
    become ``"…"``, so that cycles and large objects cost a logging call milliseconds at most.
    """
    if type(value) in IMMUTABLE:
        return value
    budget = [MOST_VALUES] if budget is None else budget
    try:
        if isinstance(value, LocalProxy):
            try:
                value = cast(Any, value)._get_current_object()
            except Exception as error:  # outside its context, as a rule
                return f"<unbound: {show_error(error).splitlines()[0]}>"
        if isinstance(value, _VALUES):
            return value
        if depth >= DEEPEST:
            return "…"
        if isinstance(value, Headers):
            value = _joined(value)
        elif isinstance(value, tuple) and hasattr(cast(object, value), "_asdict"):  # names tell what is secret
            value = cast(Any, value)._asdict()
        if isinstance(value, Mapping):
            copied: dict[object, object] = {}
            for key, item in cast("Mapping[object, object]", value).items():
                budget[0] -= 1
                if budget[0] < 0:
                    copied["…"] = "…"
                    break
                copied[key if type(key) in IMMUTABLE else show(key)] = freeze(item, depth + 1, budget)
            return copied
        if isinstance(value, (list, tuple, AbstractSet)):
            items: list[object] = []
            for item in cast("list[object]", value):
                budget[0] -= 1
                if budget[0] < 0:
                    items.append("…")
                    break
                items.append(freeze(item, depth + 1, budget))
            return items
    except Exception as error:  # changed while it was copied, or an object that raises when it is looked at
        kind = type(value).__name__  # pyright: ignore[reportUnknownArgumentType]
        return f"<{kind}: {show_error(error).splitlines()[0]}>"
    return show(value)


def _joined(headers: Headers) -> dict[str, str]:
    """By their names; several of one name as one, as of RFC 9110 §5.3."""
    found: dict[str, list[str]] = {}
    for name, value in headers.items():
        found.setdefault(name, []).append(value)
    return {name: ", ".join(values) for name, values in found.items()}
