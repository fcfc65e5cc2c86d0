"""Flask-Login's user, without importing Flask-Login.

Runs on the request's thread, in its context.
"""

from __future__ import annotations

from sys import modules
from typing import Any, cast

from flask import current_app, g, session

from flask_asynclog.values import show


def current_user_id() -> str | None:
    """Flask-Login's user, if somebody has asked for one in this request: asking may read a database. Never raises.

    So may every attribute of a model's object, after a commit. What the session has of the user is the id itself.
    """
    try:
        user = getattr(g, "_login_user", None) if g else None
        if user is None or _is_anonymous(user):
            return None
        user_id = session.get("_user_id")
        if user_id is None:  # by a header, as a rule
            state = getattr(user, "_sa_instance_state", None)  # SQLAlchemy's
            if getattr(state, "expired", False) or not user.is_authenticated:
                return None
            user_id = user.get_id()
        return None if user_id is None else show(user_id)
    except Exception:  # somebody's own user, session or manager
        return None


def _is_anonymous(user: object) -> bool:
    kind = current_app.login_manager.anonymous_user  # type: ignore[attr-defined]
    if isinstance(user, modules["flask_login"].AnonymousUserMixin) or (isinstance(kind, type) and type(user) is kind):
        return True
    # A function may make them; then they are asked.
    return not isinstance(kind, type) and not cast(Any, user).is_authenticated
