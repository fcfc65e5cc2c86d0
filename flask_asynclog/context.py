"""What the records of one request have in common, in a context variable: readable without Flask.

Set and restored by the hooks on the request thread, and by whoever drains; read by the caller's side of the queue for
every record.
"""

from __future__ import annotations

from contextvars import ContextVar


class Context:
    """Shared by the records that are logged while it is `current`; never changed in a way that they would show."""

    __slots__ = ("drains", "request_id")

    def __init__(self, request_id: str | None = None, drains: object = None) -> None:
        #: The running request's; ``None``: there is none, or ids are switched off.
        self.request_id = request_id
        #: The queue that the thread is draining, if it is.
        self.drains = drains

    def __reduce__(self) -> tuple[type, tuple[()]]:
        # In another process, which may not even have this library, it means nothing.
        return type(None), ()


#: The context of this thread, greenlet or task; ``None`` outside of all.
current: ContextVar[Context | None] = ContextVar("flask_asynclog_context", default=None)


def request_id() -> str | None:
    """Id of the request that runs here; ``None`` outside requests. Any thread with the request's context."""
    context = current.get()
    return None if context is None else context.request_id
