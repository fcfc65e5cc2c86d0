"""Whether functions of `logging` and Flask are still what they were made: others replace some, to see what happens."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from types import CodeType, FunctionType, MethodType
from typing import Any, NamedTuple

from flask import Flask
from flask.sessions import NullSession, SecureCookieSessionInterface

#: The names by which Flask's methods find what they have to do: those that are looked at here in their place.
_FUNCTIONS_BEFORE = frozenset({"url_value_preprocessors", "before_request_funcs"})
_FUNCTIONS_AFTER = frozenset({"request_ctx", "_after_request_functions", "after_request_funcs", "is_null_session"})
#: All names that they use. A later one that uses others may do more.
_BEFORE = _FUNCTIONS_BEFORE | {"request", "blueprints", "endpoint", "view_args", "reversed", "ensure_sync"}
_AFTER = _FUNCTIONS_AFTER | {
    "_get_current_object", "ensure_sync", "chain", "request", "blueprints", "reversed", "session_interface",
    "save_session",
    # An attribute of the context, until a look at that became an access to the session.
    "session", "_session",
}  # fmt: skip


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
    return _known(app, "preprocess_request", _FUNCTIONS_BEFORE, _BEFORE) is not None


class AfterRequest(NamedTuple):
    """Where Flask looks for what it has to do after a request, beside the app's ``after_request_funcs``."""

    #: Returns the request's context, which may have ``_after_request_functions``.
    context: Callable[[], Any]
    #: Returns the session of such a context. That is no access to the session.
    session: Callable[[Any], object]

    def has_nothing(self, app: Flask) -> bool:
        """Whether ``app.process_response``, called now, would find nothing to do."""
        if app.after_request_funcs:
            return False
        find_context, find_session = self  # a tuple is taken apart faster than it is asked for its parts
        context = find_context()
        return (
            not context._after_request_functions
            and type(find_session(context)) is NullSession
            # Another one may have its own idea of a null session.
            and type(app.session_interface) is SecureCookieSessionInterface
        )


def after_request(app: Flask) -> AfterRequest | None:
    """Where ``app.process_response`` looks for what to do; ``None``: it may do more than what is found there."""
    method = _known(app, "process_response", _FUNCTIONS_AFTER, _AFTER)
    if method is None:
        return None
    session = "_session" if "_session" in method.__code__.co_names else "session"
    return AfterRequest(method.__globals__["request_ctx"]._get_current_object, attrgetter(session))


def _known(app: Flask, name: str, needed: frozenset[str], allowed: frozenset[str]) -> FunctionType | None:
    """Flask's own method, if it is what the app has and uses all ``needed`` names, and only ``allowed`` ones."""
    method: object = getattr(app, name)
    flasks: Any = getattr(Flask, name)
    if type(method) is not MethodType or method.__func__ is not flasks:
        return None
    function = if_original(flasks, Flask.__init__)
    if function is None:
        return None
    code = function.__code__
    nested = code.co_freevars or any(isinstance(constant, CodeType) for constant in code.co_consts)
    return function if not nested and needed <= {*code.co_names} <= allowed else None
