"""What the records of one request have in common, in a context variable: readable without Flask.

Set and restored by the hooks on the request thread, and by whoever drains; read by the caller's side of the queue for
every record.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Mapping
from contextvars import ContextVar, Token
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
    #: Of the last context that was derived from it by the code that runs the request, what was bound there.
    bound_last: Mapping[str, object] = bound
    #: Of `current`, set last by that code: it tells it from code in a copy of its context. ``None``: nobody knows.
    token: Token[Context | None] | None = None
    #: Whether it is that of a copy, see `find_elsewhere`.
    copied = False

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
        """The same, with its id and what was bound as they may be shown."""
        shown = self._shown_id(redactor)
        if shown is self.request_id:
            return self
        context = DerivedContext(self, self.bound)
        context.request_id = shown
        return context

    def _shown_id(self, redactor: Redactor) -> str | None:
        # A client may have made it up.
        return self.request_id and redactor.text(self.request_id) if redactor.patterns else self.request_id

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
        self.copied = outer.copied
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
            shown.request_id = self._shown_id(redactor)
            shown._shown = (redactor, shown)
            known = self._shown = (redactor, shown)
        return known[1]


#: The context of this thread, greenlet or task; ``None`` outside of all.
current: ContextVar[Context | None] = ContextVar("flask_asynclog_context", default=None)
#: Its methods, found once: Python 3.11 looks for them at each call.
get_current: Callable[[], Context | None] = current.get
set_current: Callable[[Context | None], Token[Context | None]] = current.set


def _nowhere(*, enter: bool = False) -> Context | None:
    return None


#: Finds the context of a request that runs here without a context variable: in a copy that Flask made of its own
#: context. With ``enter`` the caller is going to set the variable, which has to be unset at the end of the copy. Set
#: by `hooks`.
find_elsewhere = _nowhere


def here() -> Context | None:
    """The context of the code that calls; ``None`` outside of all."""
    context = get_current()
    return find_elsewhere() if context is None else context


def request_id() -> str | None:
    """Id of the request that runs here; ``None`` outside requests. Any thread with the request's context."""
    context = here()
    return None if context is None else context.request_id


def _set(context: Context | None) -> None:
    if context is None or context.copied:
        set_current(context)
    elif set_if_running(context):
        context.origin.bound_last = context.bound


def set_if_running(context: Context) -> bool:
    """Make it the current one. Returns whether the code that calls runs the request itself, rather than in a copy.

    In a copy of the request's variables, that is: another thread's, or a task's.
    """
    origin = context.origin
    token = origin.token
    try:
        if token is not None:
            current.reset(token)  # which only the context takes that the token is of
            origin.token = set_current(context)
            return True
    except (ValueError, RuntimeError):  # it is of another one; or its own has just used it
        pass
    set_current(context)
    return token is None


@contextlib.contextmanager
def running(context: Context | None) -> Generator[None]:
    """Within it, the code that calls is the one that runs the request of a context."""
    if context is None:
        yield
        return
    origin = context.origin
    before, origin.token = origin.token, set_current(get_current())
    try:
        yield
    finally:
        origin.token = before


class Binding:
    """What `bind` returns: as a context manager it takes the fields away again."""

    def __init__(self, outer: Context | None, inner: Context, names: Iterable[str]) -> None:
        self._outer = outer
        self._inner = inner
        self._names = frozenset(names)

    def __enter__(self) -> None:
        """Nothing: the fields are bound since the call."""

    def __exit__(self, *_: object) -> None:
        context = get_current()
        if context is self._inner:
            _set(self._outer)
        elif context is not None and context.origin is self._inner.origin:
            # Somebody has bound more, which stays. In any other context nothing is ours: a generator may be thrown
            # away while another request runs.
            kept = {name: value for name, value in context.bound.items() if name not in self._names}
            if self._outer is not None:
                kept |= {name: value for name, value in self._outer.bound.items() if name in self._names}
            outside = self._outer is None and not kept
            _set(None if outside else DerivedContext(context, MappingProxyType(kept)))


def bind(**fields: object) -> Binding:
    """Add ``fields`` to every later record of this request, those of its end included, or of this context.

    ::

        bind(user_id=42)           # to the end of the request
        with bind(job="resize"):   # to the end of the block
            ...

    A name that is bound already gets the new value, and at the end of a block the former one again. Values are copied:
    later changes of a list do not show. A request starts with none, and leaves none behind. Outside requests they last
    as long as the context: for ever on a thread, to its end in an `asyncio` task. A thread has those of the code that
    starts it only if that runs it in a copy of its context (`contextvars.copy_context`) or of Flask's
    (`flask.copy_current_request_context`), and what it binds itself stays there.

    Formats with fields (``json``, ``ecs``, ``logfmt``) show them all, a %-format those that it names.
    """
    outer = get_current()
    frozen = {name: freeze(value) for name, value in fields.items()}
    base = outer or find_elsewhere(enter=True) or Context()
    inner = DerivedContext(base, MappingProxyType({**base.bound, **frozen}))
    _set(inner)
    return Binding(outer, inner, frozen)
