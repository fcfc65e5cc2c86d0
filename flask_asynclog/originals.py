"""Whether functions of `logging` and Flask are still what they were made: others replace some, to see what happens."""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType, FunctionType, MethodType
from typing import Any

from flask import Flask

#: The names that Flask's ``preprocess_request`` uses. A later one that uses others may do more.
_PREPROCESSES = frozenset(
    {
        "request", "blueprints", "endpoint", "view_args", "reversed", "ensure_sync",
        "url_value_preprocessors", "before_request_funcs",
    }
)  # fmt: skip


def if_original(function: Callable[..., Any], neighbour: Callable[..., Any]) -> FunctionType | None:
    """``function``, if its code stands in the file of its ``neighbour``'s; ``None`` if somebody has replaced it.

    Told by the place of the code: a wrapper around it looks the same otherwise. wrapt's even has the same code.
    """
    if type(function) is not FunctionType:
        return None
    code: Any = getattr(neighbour, "__code__", None)
    return function if code is not None and function.__code__.co_filename == code.co_filename else None


def only_calls_functions(app: Flask) -> bool:
    """Whether ``app.preprocess_request`` does nothing while the app has no functions to be called before requests.

    Those are its ``before_request_funcs`` and ``url_value_preprocessors``.
    """
    method: object = app.preprocess_request
    if type(method) is not MethodType or method.__func__ is not Flask.preprocess_request:
        return False
    function = if_original(Flask.preprocess_request, Flask.__init__)
    if function is None:
        return False
    code = function.__code__
    nested = code.co_freevars or any(isinstance(constant, CodeType) for constant in code.co_consts)
    return not nested and _PREPROCESSES.issuperset(code.co_names)
