"""What a request tells, part by part, as it may be shown: by the names that `fields` reads the parts by.

Runs where records are written.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeAlias

from flask_asynclog.context import Context, Span
from flask_asynclog.headers import decoded, number_of, visible
from flask_asynclog.source import LENGTH, PROTOCOL, REFERER, TRACEPARENT, USER, USER_AGENT, Source
from flask_asynclog.tracing import parse_traceparent
from flask_asynclog.urls import Target, base_url, quoted_path, simple_path, simple_query, without_blanks

if TYPE_CHECKING:
    from werkzeug.routing import Rule

#: What a URL with a name and its value, or with a password, has in it.
_may_tell = re.compile("[=@%]").search

#: What makes a `Target`.
SentTarget: TypeAlias = "tuple[str, str | None, tuple[str, int | None] | None, str, str, bytes]"


class RequestParts(Context):
    """A context that knows a request: its texts and numbers, without secrets when they are read."""

    source: Source
    method: str
    #: Decoded, as it is.
    path: str
    target: SentTarget
    #: Address of the client, as it is; the rule that it matched; of the environment, the values of the source's keys.
    #: ``None``: nobody wants to know.
    sent_client: str | None = None
    rule: Rule | None = None
    sent: tuple[Any, ...] | None = None
    #: Of `has_plain_path`, when somebody has asked.
    _plain_path: bool | None = None

    @property
    def url(self) -> str:
        """All of the URL, without control characters and secrets."""
        scheme, host, server, root_path, path, query = self.target
        redactor = self.source.redactor
        if not root_path and self.has_plain_path:
            base = base_url(scheme, host, server)
            if "@" not in base:
                if not query:
                    return base + path
                if simple_query(query):
                    return f"{base}{path}?{redactor.query(query.decode())}"
        target = Target._make(self.target)
        return without_blanks(self._without_secrets(f"{target.base}{target.relative}"))

    @property
    def request_target(self) -> str:
        """Path and query as they stood in the request's first line, without secrets."""
        _, _, _, root_path, path, query = self.target
        target = quoted_path(self._without_secrets(root_path.rstrip("/") + path))
        if query:
            # A blank would end it there. All else is as it was sent.
            sent = query.decode("utf-8", "surrogateescape").replace(" ", "%20")
            target = f"{target}?{self.source.redactor.query(sent)}"
        return self.source.redactor.text(target)

    @property
    def shown_path(self) -> str:
        """The path, decoded, without secrets."""
        return self.path if self.has_plain_path else self._without_secrets(self.path)

    @property
    def has_plain_path(self) -> bool:
        """Whether all of the path may be shown as it is: it has neither secrets nor what would be quoted."""
        plain = self._plain_path
        if plain is None:  # asked by both records
            plain = self._plain_path = simple_path(self.path) is not None and not self.source.redactor.patterns
        return plain

    @property
    def span(self) -> Span | None:
        """OpenTelemetry's, or that of the ``traceparent`` header."""
        header = self._kept(TRACEPARENT)
        return self.own_span or (parse_traceparent(header) if header else None)

    @property
    def query(self) -> str:
        """The query string, without secrets."""
        query = self.target[5].decode("utf-8", "backslashreplace")
        return self.source.redactor.query(query) if query else query

    @property
    def scheme(self) -> str:
        """``http`` or ``https``."""
        return self.target[0]

    @property
    def route(self) -> str | None:
        """The rule that the path matched."""
        return None if self.rule is None else self.rule.rule

    @property
    def endpoint(self) -> str | None:
        """The endpoint of the view."""
        return None if self.rule is None else str(self.rule.endpoint)

    @property
    def blueprint(self) -> str | None:
        """The blueprint of the view."""
        return (self.endpoint or "").rpartition(".")[0] or None

    @property
    def client(self) -> str | None:
        """Address of the client."""
        return self.without_matches(self.sent_client)

    @property
    def remote_user(self) -> str | None:
        """The user whom the server has checked."""
        return self.without_matches(decoded(self._kept(USER)))

    @property
    def user_agent(self) -> str | None:
        """What the client calls itself."""
        return visible(self.sent_user_agent)

    @property
    def sent_user_agent(self) -> str | None:
        """The same, with the bytes that are no UTF-8 as surrogates."""
        return self.without_matches(decoded(self._kept(USER_AGENT)))

    @property
    def referer(self) -> str | None:
        """Where the client comes from, without secrets."""
        return visible(self.sent_referer)

    @property
    def sent_referer(self) -> str | None:
        """The same, with the bytes that are no UTF-8 as surrogates."""
        text = decoded(self._kept(REFERER))
        return self.source.redactor.url(text) if text else None

    @property
    def server_address(self) -> str | None:
        """Name or address of the server, as the client called it."""
        return self.without_matches(Target._make(self.target).address)

    @property
    def server_port(self) -> int | None:
        """The port that the client called."""
        return Target._make(self.target).port

    @property
    def protocol(self) -> str:
        """``HTTP/1.1``."""
        return self._kept(PROTOCOL) or ""

    @property
    def protocol_version(self) -> str | None:
        """``1.1``."""
        return self.protocol.removeprefix("HTTP/") or None

    @property
    def body_size(self) -> int | None:
        """Bytes of the request's body, as of its header."""
        return number_of(self._kept(LENGTH))

    def _without_secrets(self, url: str) -> str:
        redactor = self.source.redactor
        return redactor.url(url) if redactor.patterns or _may_tell(url) else url

    def without_matches(self, text: str | None) -> str | None:
        """A text without what the patterns match."""
        redactor = self.source.redactor
        return redactor.text(text) if text and redactor.patterns else text

    def _kept(self, index: int) -> str | None:
        return None if self.sent is None else self.sent[index] or None
