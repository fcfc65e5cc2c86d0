"""Whether functions of `logging` and Flask are still what they were made: others replace some, to see what happens."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from types import CodeType, FunctionType, MethodType
from typing import Any

from flask import Flask

#: The names that Flask's methods use. A later one that uses others may do more.
_BEFORE = frozenset(
    {
        "request", "blueprints", "endpoint", "view_args", "reversed", "ensure_sync",
        "url_value_preprocessors", "before_request_funcs",
    }
)  # fmt: skip
_AFTER = frozenset(
    {
        "request_ctx", "_get_current_object", "_after_request_functions", "ensure_sync", "chain", "request",
        "blueprints", "after_request_funcs", "reversed", "session_interface", "is_null_session", "save_session",
        # An attribute of the context, until a look at that became an access to the session.
        "session", "_session",
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
    return _known(app, "preprocess_request", _BEFORE) is not None


def only_looks_after(app: Flask) -> tuple[Callable[[], Any], Callable[[Any], Any]] | None:
    """How to look whether ``app.process_response``, called now, would do anything; ``None``: it may do more than that.

    Without ``after_request_funcs`` in the app it does nothing if the request's context has no
    ``_after_request_functions``, and a null session.

    :returns: what the request's context is to be had by, and the session of it.
    """
    method = _known(app, "process_response", _AFTER)
    if method is None or "request_ctx" not in method.__code__.co_names:
        return None
    session = "_session" if "_session" in method.__code__.co_names else "session"
    return method.__globals__["request_ctx"]._get_current_object, attrgetter(session)


def _known(app: Flask, name: str, names: frozenset[str]) -> FunctionType | None:
    """Flask's own method, if it is what the app has and uses no other ``names``; ``None``: it may do more."""
    method: object = getattr(app, name)
    flasks: Any = getattr(Flask, name)
    if type(method) is not MethodType or method.__func__ is not flasks:
        return None
    function = if_original(flasks, Flask.__init__)
    if function is None:
        return None
    code = function.__code__
    nested = code.co_freevars or any(isinstance(constant, CodeType) for constant in code.co_consts)
    return function if not nested and names.issuperset(code.co_names) else None
