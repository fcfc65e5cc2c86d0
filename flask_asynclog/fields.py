"""Every field that records have, once: their names, where the values are, and what they mean.

The formats with fields, %-formats, the parts of a request's records and the documentation are made from these tables.
Names are OpenTelemetry's (semantic conventions, HTTP server and general attributes) where it has one, and for ``ecs``
those of the Elastic Common Schema.

Runs where records are written. Pure functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from flask_asynclog.context import Context


@dataclass(frozen=True, slots=True)
class Field:
    """One field, and what reads it: from a record, a context, an exchange or an outcome, as its table says."""

    name: str
    #: The value; ``None``: there is none, and the field is left out.
    read: Callable[[Any], object]
    help: str
    #: In ECS; empty: the same; ``None``: not there.
    ecs: str | None = ""
    #: In %-formats: beside ``name``; where a record itself has it, instead of that.
    short: str = ""
    #: What ECS wants of the value.
    to_ecs: Callable[[Any], object] = lambda value: value


def _lower(name: str) -> str:
    return name.lower()


#: Of every record, beside its time.
RECORD = (
    Field("level", lambda record: record.levelname, "name of the level", "log.level", "levelname", _lower),
    Field("logger", lambda record: record.name, "name of the logger", "log.logger", "name"),
    Field("message", lambda record: record.message, "the message, with its arguments", short="message"),
    Field("process.pid", lambda record: record.process, "id of the process", short="process"),
    Field("thread.id", lambda record: record.thread, "number of the thread", "process.thread.id", "thread"),
    Field("thread.name", lambda record: record.threadName, "name of the thread", "process.thread.name", "threadName"),
)

#: Of those that a logging call made: where that stands.
CODE = (
    Field(
        "code.file.path", lambda record: record.pathname, "source file of the logging call", "log.origin.file.name",
        "pathname",
    ),
    Field("code.line.number", lambda record: record.lineno, "line in it", "log.origin.file.line", "lineno"),
    Field("code.function.name", lambda record: record.funcName, "function in it", "log.origin.function", "funcName"),
)  # fmt: skip

#: Of every record that is logged while a request runs, or in a trace.
CONTEXT = (
    Field(
        "request_id", lambda context: context.request_id, "id of the request, also in its response's header",
        "http.request.id", "request_id",
    ),
    Field(
        "trace_id", lambda context: context.span and context.span.trace_id,
        "trace of OpenTelemetry's current span, or of a valid ``traceparent`` header", "trace.id", "trace_id",
    ),
    Field("span_id", lambda context: context.span and context.span.span_id, "span, likewise", "span.id", "span_id"),
)  # fmt: skip

#: Of ``Request`` and ``Response`` records.
REQUEST = (
    Field("http.request.method", lambda exchange: exchange.method, "method", short="method"),
    Field("url.path", lambda exchange: exchange.shown_path, "path, decoded", short="path"),
    Field("url.query", lambda exchange: exchange.query or None, "query string, redacted", short="query"),
    Field("url.scheme", lambda exchange: exchange.scheme, "``http`` or ``https``", short="scheme"),
    Field("http.route", lambda exchange: exchange.route, "rule that the path matched", short="route"),
    Field("flask.endpoint", lambda exchange: exchange.endpoint, "endpoint of the view", short="endpoint"),
    Field("flask.blueprint", lambda exchange: exchange.blueprint, "blueprint of the view", short="blueprint"),
    Field("client.address", lambda exchange: exchange.client, "``request.remote_addr``", short="client"),
    Field("user_agent.original", lambda exchange: exchange.user_agent, "header ``User-Agent``", short="user_agent"),
    Field(
        "http.request.header.referer", lambda exchange: exchange.referer and [exchange.referer],
        "header ``Referer``, redacted", "http.request.referrer", to_ecs=lambda values: values[0],
    ),
    Field("server.address", lambda exchange: exchange.server_address, "host that the client called", short="host"),
    Field("server.port", lambda exchange: exchange.server_port, "port that the client called", short="port"),
    Field(
        "network.protocol.version", lambda exchange: exchange.protocol_version, "version of HTTP, as ``1.1``",
        "http.version", "protocol",
    ),
    Field(
        "http.request.body.size", lambda exchange: exchange.body_size, "bytes, as of ``Content-Length``",
        "http.request.body.bytes",
    ),
)  # fmt: skip

#: Of ``Response`` records, beside those of the request.
RESPONSE = (
    Field("http.response.status_code", lambda outcome: outcome.code, "status", short="status"),
    Field(
        "http.server.request.duration", lambda outcome: round(outcome.seconds, 6),
        "seconds from the coming of the request to the end of its response", "event.duration", "duration",
        lambda seconds: round(seconds * 1e9),
    ),
    Field(
        "http.response.body.size", lambda outcome: outcome.body_size, "bytes sent; left out where nobody knows",
        "http.response.body.bytes", "bytes",
    ),
    Field(
        "http.server.time_to_first_byte",
        lambda outcome: None if outcome.first_byte is None else round(outcome.first_byte, 6),
        "seconds to the first byte, of streams and files", short="first_byte",
    ),
    Field("http.response.aborted", lambda outcome: outcome.aborted or None, "``true``: the client went before the end"),
    Field("error.type", lambda outcome: outcome.error_type, "class of the exception, or the status from 500 on"),
    Field("exception.message", lambda outcome: outcome.error_message, "text of the exception", "error.message"),
    Field("user.id", lambda outcome: outcome.user, "Flask-Login's user, where it was asked for", short="user"),
    Field(
        "sample_rate", lambda outcome: outcome.sample_rate,
        "share of such requests that is logged, with ``ASYNCLOG_SAMPLE_RATE`` below 1",
    ),
)  # fmt: skip

#: Of records with an exception.
EXCEPTION = (
    Field("exception.type", lambda summary: summary.type, "class of the exception", "error.type"),
    Field("exception.message", lambda summary: summary.message, "its text", "error.message"),
)
#: By OpenTelemetry's name and by ECS's: the traceback, and the stack of ``stack_info``.
STACKTRACE = Field("exception.stacktrace", lambda text: text, "the traceback", "error.stack_trace")
STACK = Field("stack", lambda text: text, "the stack, of records with ``stack_info``", "log.origin.stack")
#: The time; formatted by the format.
TIMESTAMP = Field("timestamp", lambda text: text, "ISO 8601 with microseconds and UTC offset", "@timestamp", "asctime")


def read_all(fields: Iterable[Field], subject: object) -> dict[str, object]:
    """What ``subject`` has of these fields, by OpenTelemetry's names."""
    known: dict[str, object] = {}
    for field in fields:
        value = field.read(subject)
        if value is not None:
            known[field.name] = value
    return known


#: All fields by OpenTelemetry's name, for ECS.
BY_NAME: Mapping[str, Field] = {
    field.name: field
    for field in (TIMESTAMP, *RECORD, *CODE, *CONTEXT, *EXCEPTION, STACKTRACE, STACK, *REQUEST, *RESPONSE)
}

#: What %-formats call the fields of a request, and those that every record has while it runs.
_of_context: Mapping[str, Field] = {name: field for field in CONTEXT for name in (field.name, field.short)}
_of_request: Mapping[str, Field] = {name: field for field in REQUEST for name in (field.name, field.short) if name}
_of_response: Mapping[str, Field] = {name: field for field in RESPONSE for name in (field.name, field.short) if name}


def find(name: str, context: Context | None, event: Any) -> object:
    """The field that a %-format calls ``name``, of a record of ``event`` or logged in ``context``; ``None``: none.

    Fields come first, then what was bound.
    """
    if context is None:
        return None
    value: object = None
    if name in _of_context:
        value = _of_context[name].read(context)
    elif name in _of_request and getattr(context.origin, "begun", False):
        value = _of_request[name].read(context.origin)
    elif name in _of_response and hasattr(event, "code"):
        value = _of_response[name].read(event)
    elif name.startswith("http.request.header.") and getattr(context.origin, "begun", False):
        value = cast(Any, context.origin).fields().get(name.lower())
    elif name.startswith("http.response.header.") and hasattr(event, "code"):
        value = event.fields().get(name.lower())
    if type(value) is list:  # headers are
        return ", ".join(map(str, cast("list[object]", value)))
    # A field that this record has not is no name that is taken.
    return context.bound.get(name) if value is None else value
