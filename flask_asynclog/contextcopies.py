"""The request's context in copies of Flask's.

In another thread, `flask.copy_current_request_context` brings Flask's context of the request, and no other variables.
Imported with the hooks: from then on such a copy has our context, too. Runs on any thread.
"""

from __future__ import annotations

from contextvars import ContextVar

from flask import Flask, current_app, has_request_context, request, request_tearing_down

from flask_asynclog import context as contexts
from flask_asynclog.context import Context, DerivedContext, get_current, set_current
from flask_asynclog.exchange import Exchange

#: Of the exchange, in the environ of its request.
KEY = "flask_asynclog.exchange"

#: The request's context, where code in such a copy has bound something.
_entered: ContextVar[Context | None] = ContextVar("flask_asynclog_entered", default=None)


def _find_in_copy(*, enter: bool = False) -> Context | None:
    exchange = request.environ.get(KEY) if has_request_context() else None
    if not isinstance(exchange, Exchange):
        return None
    if exchange.responded and "werkzeug.debug.preserve_context" in request.environ:
        return None  # what a test's client keeps after the request is no copy
    if enter:
        request_tearing_down.connect(_leave_copy, current_app._get_current_object())  # type: ignore[attr-defined]
        _entered.set(exchange)
    context = DerivedContext(exchange, exchange.bound_last)
    context.copied = True
    return context


def _leave_copy(app: Flask, **_: object) -> None:
    entered, context = _entered.get(), get_current()
    if entered is not None and (context is None or context.origin is entered):
        _entered.set(None)
        set_current(None)


contexts.find_elsewhere = _find_in_copy
