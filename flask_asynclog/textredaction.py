r"""Secrets taken out of one text: a query, a URL, JSON, or what a pattern matches. Called by `redaction`.

Pure functions; any thread. Names and texts come from clients, so everything takes time linear in its input: the
repetitions in the expressions below are possessive, none is inside of another, and a match starts only at a separator
where the one before it has ended, so that no character is looked at by more than a fixed number of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from typing import TypeAlias, cast
from urllib.parse import unquote_plus

from flask_asynclog.values import DEEPEST

#: What stands where a secret stood.
REDACTED = "[REDACTED]"

#: Whether the value of that name is a secret.
IsSecret: TypeAlias = Callable[[str], bool]

_PAIR = re.compile(r"[^&]++")
#: A name and its ``=``, at the start or in a URL inside of a value, itself quoted up to four times.
_NAME = re.compile(
    r"(?:\A|[;?]|%(?:25){0,3}(?:3F|26|3B))"
    r"((?:[^=;?%]|%(?!(?:25){0,3}(?:3D|3F|26|3B)))*+)(?:=|%(?:25){0,3}3D)",
    re.IGNORECASE,
)
#: The same at the start of a fragment. An expression of its own: a name may have a ``#`` in it.
_FRAGMENT_NAME = re.compile(
    r"(?:#|%(?:25){0,3}23)((?:[^=;?#%]|%(?!(?:25){0,3}(?:3D|3F|26|3B|23)))*+)(?:=|%(?:25){0,3}3D)", re.IGNORECASE
)
#: What begins parameters in a path that was quoted.
_QUOTED_QUERY = re.compile("%(?:25){0,3}(?:3F|3B|23)", re.IGNORECASE)
_NEXT_PAIR = re.compile(r";(?=[^;=]*+=)")
_AUTHORITY = re.compile(r"//([^\s/?#]++)")
#: A password that should have been quoted but has ``/``, ``?`` or ``#``, which SQLAlchemy takes; not a port.
_UNQUOTED = re.compile(r"(//[^\s/?#@:\[]*+:)(?!\d*+(?:[/?#\s]|\Z))[^\s@]{1,256}+@")

#: Those of URLs that are quoted, once and up to four times: by what stands for the ``@``. Some leave ``/`` and ``:``.
_QUOTED_AUTHORITIES = {
    f"%{more}40": re.compile(
        rf"((?:/|%{more}2F){{2}})((?:[^\s/?#&%+]|%(?!{more}(?:2F|3F|23|26|20)))++)", re.IGNORECASE
    )
    for more in ("", "25", "2525", "252525")
}  # fmt: skip
_QUOTED_COLON = re.compile("(:|%(?:25){0,3}3A)", re.IGNORECASE)

_FORM = re.compile(r"""\s*+[^\s=&;?#/:"'(){}<>,]*+[=&]""")
#: What no form has: blanks beside its separators, or more than one line.
_NO_FORM = re.compile(r"[&=]\s|\s[&=]|[\r\n]")
_URL = re.compile(r"\s*+(?:[A-Za-z][A-Za-z0-9+.-]*+://|[/?#])")
_URL_IN_TEXT = re.compile(r"(?<!\S)[^\s?#]*+[?#]\S*+")

#: How JSON begins that has anything to look into, with the numbers and the like before it in an array.
_JSON = re.compile(r'\s*+(?:\{\s*+|\[((?:[\s,\d.eE+-]|true|false|null|NaN|Infinity)*+))["{\[]')
#: A string, with what makes it a name, if it is one. Ends with the text where that has been cut.
_JSON_STRING = re.compile(r'"((?:[^"\\]|\\.?)*+)"?(\s*+:\s*+)?', re.DOTALL)
#: The beginning of a character, where the text has been cut.
_CUT_ESCAPE = re.compile(r"\\(?:u[0-9A-Fa-f]{0,3}+)?+\Z")
_JSON_SCALAR = re.compile(r'"(?:[^"\\]|\\.?)*+"?|[^\s,"{}\[\]]++', re.DOTALL)
_JSON_BRACKET = re.compile(r'"(?:[^"\\]|\\.?)*+"?|([{\[])|[}\]]', re.DOTALL)
#: A string that is all of a text.
_ONE_JSON_STRING = re.compile(r'(\s*+")((?:[^"\\]|\\.?)*+)("\s*+)?', re.DOTALL)


def redact_string(text: str, is_secret: IsSecret, depth: int = 0) -> str:
    """Any text, as what it looks like: JSON, a form, a URL; or words some of which are URLs.

    :param depth: in how many texts that are JSON it was.
    """
    if "=" not in text and "@" not in text and '"' not in text:
        return text
    if _is_json(text):
        return _redact_json(text, is_secret, depth)
    if '\\"' in text and (quoted := _ONE_JSON_STRING.fullmatch(text)):
        return f"{quoted[1]}{_redact_json_string(quoted[2], is_secret, depth)}{quoted[3] or ''}"
    if _FORM.match(text):
        return redact_query(text, is_secret)
    if _URL.match(text):
        return redact_url(text, is_secret)
    if "=" in text and ("?" in text or "#" in text):
        text = _URL_IN_TEXT.sub(lambda match: redact_url(match[0], is_secret), text)
    # A form whose first name has what prose has, ``name:exact=…``.
    is_form = "&" in text and "=" in text and not _NO_FORM.search(text)
    return redact_query(text, is_secret) if is_form else _without_passwords(text)


def _is_json(text: str) -> bool:
    match = _JSON.match(text)
    if match is None:
        return False
    scalars = (match[1] or "").rstrip()
    return not scalars or scalars.endswith(",")  # not ``[12 "GET /?token=x"]``


def redact_query(query: str, is_secret: IsSecret) -> str:
    """A query string or a form."""
    query = _without_passwords(query)
    return _PAIR.sub(partial(_redact_pair, is_secret), query) if "=" in query or "%" in query else query


def _redact_pair(is_secret: IsSecret, match: re.Match[str]) -> str:
    """What stands between two ``&``. A secret in it goes on to the next ``;`` with a pair behind it, or to the end."""
    pair, done = match[0], 0
    parts: list[str] = []
    starts = dict.fromkeys((_NAME, _FRAGMENT_NAME), 0)
    while True:
        for expression, start in starts.items():
            if start <= done:
                names = expression.finditer(pair, done)
                secrets = (name.end() for name in names if is_secret(_decoded(name[1])))
                starts[expression] = next(secrets, len(pair) + 1)
        start = min(starts.values())
        if start > len(pair):
            break
        following = _NEXT_PAIR.search(pair, start)
        parts += (pair[done:start], REDACTED)
        done = following.start() if following else len(pair)
    return "".join((*parts, pair[done:])) if parts else pair


def _decoded(name: str) -> str:
    if "%" in name or "+" in name:
        name = shortened(name)
        for _ in range(4):  # what is quoted in a URL that is quoted
            name = unquote_plus(name)
    return name


def shortened(name: str) -> str:
    """Start and end of a name that is too long to be one: a text that has a ``=`` somewhere."""
    return name if len(name) <= 1000 else f"{name[:500]}.{name[-500:]}"


def redact_url(url: str, is_secret: IsSecret) -> str:
    """A URL: password, parameters (``;jsessionid=…``), query, fragment."""
    head, hash_mark, fragment = _without_passwords(url).partition("#")
    path, question_mark, query = head.partition("?")
    base, semicolon, parameters = path.partition(";")
    if "%" in base and (quoted := _QUOTED_QUERY.search(base)):
        base = base[: quoted.start()] + redact_query(base[quoted.start() :], is_secret)
    texts = [redact_query(text, is_secret) for text in (parameters, query, fragment)]
    return f"{base}{semicolon}{texts[0]}{question_mark}{texts[1]}{hash_mark}{texts[2]}"


def _without_passwords(text: str) -> str:
    if "@" in text and "//" in text:
        text = _UNQUOTED.sub(rf"\1{REDACTED}@", _AUTHORITY.sub(_without_password, text))
    if "%" in text:
        for at_sign, authority in _QUOTED_AUTHORITIES.items():
            if at_sign in text:
                text = authority.sub(partial(_without_quoted_password, at_sign), text)
    return text


def _without_password(match: re.Match[str]) -> str:
    user_info, _, host = match[1].rpartition("@")
    user, colon, _ = user_info.partition(":")
    return f"//{user}:{REDACTED}@{host}" if colon else match[0]


def _without_quoted_password(at_sign: str, match: re.Match[str]) -> str:
    user_info, found, host = match[2].rpartition(at_sign)
    user, *colon = _QUOTED_COLON.split(user_info, 1)
    return f"{match[1]}{user}{colon[0]}{REDACTED}{found}{host}" if colon else match[0]


def _redact_json(text: str, is_secret: IsSecret, depth: int) -> str:
    """JSON, complete or not. Its bytes stay as they are, but for secrets, which become strings."""
    parts: list[str] = []
    done = position = 0
    while match := _JSON_STRING.search(text, position):
        (start, end), position = match.span(1), match.end()
        shown = content = match[1]
        if match[2] is None:
            shown = _redact_json_string(content, is_secret, depth)
        elif is_secret(_json_decoded(content)):
            start, end = position, _json_value_end(text, position)
            content = text[start:end]
            shown = content if content in ("", "null", "true", "false") else f'"{REDACTED}"'
            position = end
        if shown != content:
            parts += (text[done:start], shown)
            done = end
    return "".join((*parts, text[done:])) if parts else text


def _redact_json_string(content: str, is_secret: IsSecret, depth: int) -> str:
    """A string within JSON, which may be JSON itself, and so on; not for ever."""
    if "\\" not in content:
        return redact_string(content, is_secret, depth)
    text = _json_decoded(content)
    shown = redact_string(text, is_secret, depth + 1) if depth < DEEPEST else REDACTED
    if shown == text:
        return content
    written = json.dumps(shown, ensure_ascii=content.isascii())[1:-1]
    # A client may write each backslash as six characters that come back as two at each level.
    return written if len(written) <= 2 * len(content) + 1000 else REDACTED


def _json_decoded(name: str) -> str:
    if "\\" not in name:
        return name
    for text in (name, _CUT_ESCAPE.sub("", name)):
        try:
            return cast(str, json.loads(f'"{text}"', strict=False))
        except ValueError:
            continue
    return name


def _json_value_end(text: str, start: int) -> int:
    if not text.startswith(("{", "["), start):
        scalar = _JSON_SCALAR.match(text, start)
        return scalar.end() if scalar else start
    depth = 0
    for match in _JSON_BRACKET.finditer(text, start):
        if match[0][0] != '"':
            depth += 1 if match[1] else -1
            if not depth:
                return match.end()
    return len(text)


def redact_matches(text: str, pattern: re.Pattern[str]) -> str:
    """Any text, without what group 1 of the pattern matched, or all of it where there is no such group.

    Matches of nothing, and of what is redacted already, change nothing.
    """
    parts: list[str] = []
    done = 0
    for match in pattern.finditer(text):
        start, end = match.span(1) if pattern.groups and match[1] is not None else match.span()
        marker = text.rfind("[", max(0, start - len(REDACTED)), start + 1)
        if start == end or (marker >= 0 and text.startswith(REDACTED, marker) and end <= marker + len(REDACTED)):
            continue
        if not parts or start > done:  # what lies side by side is one; a group in a look-ahead may overlap
            parts += (text[done:start], REDACTED)
        done = max(done, end)
    return "".join((*parts, text[done:])) if parts else text
