"""What the records of one request have in common, in a context variable: readable without Flask.

Set and restored by the hooks on the request thread, and by whoever drains; read by the caller's side of the queue for
every record.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from flask_asynclog.redaction import Redactor
from flask_asynclog.values import freeze


class Span(NamedTuple):
    """Where in a distributed trace something happened: both ids in hexadecimal digits, as of W3C Trace Context."""

    trace_id: str
    span_id: str


class Holder(Protocol):
    """Takes records that are written only if it turns out that they are wanted."""

    def add(self, entry: Any) -> None:
        """Hold what waits for one record."""
        ...


class Context:
    """Shared by the records that are logged while it is `current`; never changed in a way that they would show."""

    #: The running request's; ``None``: there is none, or ids are switched off.
    request_id: str | None = None
    #: The queue that the thread is draining, if it is.
    drains: object = None
    #: OpenTelemetry's, where that was seen.
    own_span: Span | None = None
    #: What `bind` added.
    bound: Mapping[str, object] = MappingProxyType({})

    def __init__(self, request_id: str | None = None, drains: object = None) -> None:
        self.request_id = request_id
        self.drains = drains

    @property
    def origin(self) -> Context:
        """The one it was derived from at first: the request's."""
        return self

    @property
    def span(self) -> Span | None:
        """Where in a trace it is."""
        return None

    @property
    def holder(self) -> Holder | None:
        """Where its records below the normal level go; ``None``: nowhere."""
        return None

    def redacted(self, redactor: Redactor) -> Context:
        """The same, with what was bound as it may be shown."""
        return self

    def __reduce__(self) -> tuple[type, tuple[()]]:
        # In another process, which may not even have this library, it means nothing.
        return type(None), ()


class DerivedContext(Context):
    """Another one with more fields, or in another span."""

    #: Of `redacted`, kept: many records share one context.
    _shown: tuple[Redactor, Context] | None = None

    def __init__(self, outer: Context, bound: Mapping[str, object], span: Span | None = None) -> None:
        self._origin = outer.origin
        self.own_span = span or outer.own_span
        self.request_id = outer.request_id
        self.drains = outer.drains
        self.bound = bound

    @property
    def origin(self) -> Context:
        """See `Context.origin`."""
        return self._origin

    @property
    def span(self) -> Span | None:
        """See `Context.span`."""
        return self.own_span or self._origin.span

    def redacted(self, redactor: Redactor) -> Context:
        """See `Context.redacted`."""
        known = self._shown
        if known is None or known[0] is not redactor:
            bound = {name: redactor.value(name, value) for name, value in self.bound.items()}
            shown = DerivedContext(self, MappingProxyType(bound), self.own_span)
            shown._shown = (redactor, shown)
            known = self._shown = (redactor, shown)
        return known[1]


#: The context of this thread, greenlet or task; ``None`` outside of all.
current: ContextVar[Context | None] = ContextVar("flask_asynclog_context", default=None)


def request_id() -> str | None:
    """Id of the request that runs here; ``None`` outside requests. Any thread with the request's context."""
    context = current.get()
    return None if context is None else context.request_id


class Binding:
    """What `bind` returns: as a context manager it takes the fields away again."""

    def __init__(self, outer: Context | None) -> None:
        self._outer = outer

    def __enter__(self) -> None:
        """Nothing: the fields are bound since the call."""

    def __exit__(self, *_: object) -> None:
        current.set(self._outer)


def bind(**fields: object) -> Binding:
    """Add ``fields`` to every later record of this request, those of its end included, or of this context.

    ::

        bind(user_id=42)           # to the end of the request
        with bind(job="resize"):   # to the end of the block
            ...

    A name that is bound already gets the new value. Values are copied: later changes of a list do not show. A request
    starts with none, and leaves none behind. Outside requests they last as long as the context: for ever on a
    thread, to its end in an `asyncio` task. A thread has those of the code that starts it only if that runs it in
    a copy of its context (`contextvars.copy_context`), and what it binds itself stays there.

    Formats with fields (``json``, ``ecs``, ``logfmt``) show them all, a %-format those that it names.
    """
    outer = current.get()
    frozen = {name: freeze(value) for name, value in fields.items()}
    base = outer if outer is not None else Context()
    current.set(DerivedContext(base, MappingProxyType({**base.bound, **frozen})))
    return Binding(outer)
