"""Strict readers of the formats, and records of requests to format: what the tests of formats share."""

from __future__ import annotations

import json
import logging
import re
import unicodedata
from typing import Any, NamedTuple

from flask import Request
from werkzeug.test import EnvironBuilder

from flask_asynclog.exchange import Exchange
from flask_asynclog.outcome import SentOutcome
from flask_asynclog.source import Source

#: 2027-01-15 08:00:00 UTC.
CREATED = 1_800_000_000.123456


def make_record(message: object = "message", *args: object, **fields: Any) -> logging.LogRecord:
    """A record of a logger "demo", with attributes of its own."""
    record = logging.LogRecord("demo", logging.INFO, __file__, 1, message, args, None, "function")
    record.__dict__.update(fields)
    return record


def make_outcome(
    status: str = "200 OK", size: str | None = "27", source: Source | None = None, **environ: object
) -> SentOutcome:
    """The response to a request with this environment, ``HTTP_USER_AGENT`` and the like."""
    known = EnvironBuilder(path="/hello/bob").get_environ()
    known.update(environ)  # type: ignore[typeddict-item]
    exchange = Exchange(source or Source("demo"), "0" * 32, CREATED)
    exchange.begin(Request(known), fields=True, thread=True)
    exchange.responded = True
    outcome = SentOutcome(exchange, status, size)
    outcome.seconds = 0.001234567
    return outcome


def assert_one_line(line: str, *, tabs: bool = False) -> None:
    """No line end of any kind, no control character but the ``tabs`` of the format; and it can be written as UTF-8."""
    assert "".join(line.splitlines()) == line
    unsafe = {unicodedata.category(character) for character in line.replace("\t", "" if tabs else "\t")}
    assert not unsafe & {"Cc", "Zl", "Zp", "Cs"}, line
    line.encode("utf-8")


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def read_json(line: str) -> dict[str, Any]:
    """A JSON object, without a name that is there twice and without NaN (RFC 8259)."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len({name for name, _ in pairs}) == len(pairs), line
        return dict(pairs)

    document = json.loads(line, parse_constant=_refuse, object_pairs_hook=unique)
    assert isinstance(document, dict)
    return document


#: A pair as go-logfmt reads it: the value bare or a JSON string.
_PAIR = re.compile(r'([!#-<>-~]+)=(?:([!#-<>-~]+)|("(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-f]{4}))*"))')


def read_logfmt(line: str) -> dict[str, str]:
    """A line of logfmt, all of it: pairs with one blank between them, and no key twice."""
    pairs: dict[str, str] = {}
    position = 0
    while True:
        match = _PAIR.match(line, position)
        assert match, f"no pair at {line[position : position + 40]!r} of {line!r}"
        key, bare, quoted = match.groups()
        assert key not in pairs, line
        pairs[key] = bare if bare is not None else json.loads(quoted)
        position = match.end()
        if position == len(line):
            return pairs
        assert line[position] == " ", line
        position += 1


class CombinedLine(NamedTuple):
    """The columns of a line of the combined format."""

    client: str
    ident: str
    user: str
    time: str
    request: str
    status: str
    size: str
    referer: str
    user_agent: str


_QUOTED = r'"((?:[ !#-\[\]-~]|\\(?:["\\bnrtv]|x[0-9a-f]{2}))*)"'
_COLUMN = r"((?:[!#-\[\]-~]|\\(?:[\"\\bnrtv]|x[0-9a-f]{2}))+)"
_COMBINED = re.compile(
    rf"{_COLUMN} (-) {_COLUMN} \[(\d\d/[A-Z][a-z]{{2}}/\d{{4}}:\d\d:\d\d:\d\d [+-]\d{{4}})\] {_QUOTED} "
    rf"(\d{{3}}) ([1-9]\d*|-) {_QUOTED} {_QUOTED}"
)
_ESCAPE = re.compile(r"\\(?:x(..)|(.))")
_SHORT = {"n": 10, "r": 13, "t": 9, "v": 11, "b": 8}


def read_combined(line: str) -> CombinedLine:
    """A line of the combined format: printable ASCII, escaped as Apache does. The columns are as they stand."""
    match = _COMBINED.fullmatch(line)
    assert match, line
    return CombinedLine(*match.groups())


def unescape_apache(text: str) -> bytes:
    """The bytes that Apache's escapes stand for."""
    parts: list[bytes] = []
    position = 0
    for match in _ESCAPE.finditer(text):
        code = int(match[1], 16) if match[1] else _SHORT.get(match[2]) or ord(match[2])
        parts += (text[position : match.start()].encode("ascii"), bytes([code]))
        position = match.end()
    return b"".join((*parts, text[position:].encode("ascii")))
