"""The trace that a record belongs to: from the request's ``traceparent`` header, or from OpenTelemetry where it runs.

OpenTelemetry is never imported here, only used where somebody else has imported it. Any thread.
"""

from __future__ import annotations

import functools
import re
import sys
from typing import Any

from flask_asynclog.context import Context, DerivedContext, Span, get_current, set_current

#: W3C Trace Context §3.2: later versions than 00 may go on after the flags; ff is none, and so are ids of zeros.
_traceparent = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(-.*)?", re.ASCII
).fullmatch


def parse_traceparent(header: str) -> Span | None:
    """The ids of a ``traceparent`` header; ``None`` if it is not a valid one."""
    return _parse_known(header) if len(header) <= _LONGEST else _parse(header)


def _parse(header: str) -> Span | None:
    match = _traceparent(header.strip(" \t"))
    if match is None or (match[1] == "00" and match[4] is not None):
        return None
    return Span(match[2], match[3])


_parse_known = functools.lru_cache(1024)(_parse)
#: Of headers that are remembered, the most characters: clients make them up. Version 00 has 55.
_LONGEST = 256


def tracing() -> bool:
    """Whether somebody has imported OpenTelemetry's tracing."""
    return "opentelemetry.trace" in sys.modules


def current_span() -> Span | None:
    """OpenTelemetry's span of this moment; ``None`` without one that is valid. Never raises."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    try:
        context = trace.get_current_span().get_span_context()
        return Span(f"{context.trace_id:032x}", f"{context.span_id:016x}") if context.is_valid else None
    except Exception:  # half imported, or a provider of another make
        return None


def in_current_span(context: Context | None) -> Context | None:
    """``context`` with OpenTelemetry's span, if there is another one than it has already."""
    span = current_span()
    if span is None or (context is not None and context.span == span):
        return context
    base = context if context is not None else Context()
    return DerivedContext(base, base.bound, span)


def keep_span() -> None:
    """Have what is logged from here to the end of the request, when its span may be over, belong to that span.

    OpenTelemetry's instrumentation of Flask begins it after the ``Request`` record, and ends it in teardown.
    """
    context = get_current()
    if context is not None and (spanned := in_current_span(context)) is not context:
        set_current(spanned)
