"""The URL of a request, made again from its parts, as werkzeug would, at a tenth of the cost for ordinary ones.

Runs where records are written. Pure functions.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from werkzeug.sansio.utils import get_current_url, get_host

#: Characters of a URL that nobody has to quote, or to decode.
_plain = re.compile(r"[\w/.~!$&'()*+,:;=@-]*", re.ASCII).fullmatch
#: Paths of these alone are shown as they are, and hide no secret.
simple_path = re.compile(r"[\w/.~!$&'()*+,:;-]*", re.ASCII).fullmatch
simple_query = re.compile(rb"[\w.=&,-]*").fullmatch
#: What could be taken for the end of a path. Control characters are escaped later, with all others.
_blank = re.compile("[ \xa0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_plain_query = re.compile(rb"[\w/.~!$&'()*+,:;=@?-]*").fullmatch


def quoted_path(path: str) -> str:
    """A path as it stands in a request: all but what RFC 3986 §3.3 has there, and brackets, is quoted."""
    return path if _plain(path) else quote(path, safe="/!$&'()*+,:;=@[]", errors="replace")


def without_blanks(text: str) -> str:
    """A path or a URL with blanks of any kind quoted."""
    return _blank.sub(lambda blank: quote(blank[0]), text)


class Target(NamedTuple):
    """What a request says it is for."""

    scheme: str
    host_header: str | None
    #: Address and port that the server listens on.
    server: tuple[str, int | None] | None
    root_path: str
    path: str
    query: bytes

    @property
    def base(self) -> str:
        """``http://host``."""
        return base_url(self.scheme, self.host_header, self.server)

    @property
    def relative(self) -> str:
        """Path and query, quoted: without spaces and control characters."""
        _, _, _, root_path, path, query = self
        if _plain(path) and (not root_path or _plain(root_path)):
            if not query:
                return f"{root_path}{path}"
            if _plain_query(query):
                return f"{root_path}{path}?{query.decode()}"
        try:
            # Quoted without a host, whatever that is made of.
            return get_current_url("http", "h", root_path, path, query).removeprefix("http://h")
        except ValueError:  # as of a root path that begins with a colon, which a proxy may have from a client
            shown = query.decode("utf-8", "backslashreplace").replace(" ", "%20")
            return f"{quoted_path(root_path + path)}{'?' if query else ''}{shown}"

    @property
    def address(self) -> str | None:
        """Name or address of the server, as the client called it."""
        return _server(self.base)[0]

    @property
    def port(self) -> int | None:
        """The port that the client called."""
        return _server(self.base)[1] or {"http": 80, "https": 443}.get(self.scheme)


@functools.lru_cache(256)
def base_url(scheme: str, host_header: str | None, server: tuple[str, int | None] | None) -> str:
    """``http://host``."""
    try:
        host = get_host(scheme, host_header, server)
        return get_current_url(scheme, host)[:-1]
    except Exception:  # as of a host that is no IPv6 address: shown as it came
        return f"{scheme}://{host_header}"


@functools.lru_cache(256)
def _server(base: str) -> tuple[str | None, int | None]:
    try:
        parts = urlsplit(base)
        return parts.hostname, parts.port
    except ValueError:
        return base.partition("://")[2], None
