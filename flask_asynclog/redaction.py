"""Secrets taken out of what is logged: by the names of values, and by patterns of the user's own.

Runs on the draining thread, while records are formatted. A `Redactor` never changes after it was made, so any number of
threads may share one. It never raises: what cannot be looked at becomes ``[REDACTED]``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from functools import lru_cache, partial
from typing import cast

from flask_asynclog.textredaction import (
    REDACTED,
    IsSecret,
    redact_matches,
    redact_query,
    redact_string,
    redact_url,
    shortened,
)
from flask_asynclog.values import DEEPEST, MOST_VALUES

__all__ = ["DEFAULT_NAMES", "REDACTED", "Redactor"]

#: Names whose values are secrets, where nothing else is said. From what Sentry's EventScrubber, Rails'
#: ``filter_parameters`` and Django's SafeExceptionReporterFilter hide, without what is personal rather than secret
#: (addresses of people and machines), and as names rather than parts of names: ``key`` and ``code`` would hide
#: ``primary_key`` and ``status_code``.
DEFAULT_NAMES: tuple[str, ...] = (
    *("password", "passwords", "passwd", "pwd", "pass", "passcode", "passphrase", "password_confirmation"),
    *("password_confirm", "password_hash", "secret", "secrets", "client_secret", "credential", "credentials"),
    *("token", "access_token", "refresh_token", "id_token", "auth_token", "bearer_token", "api_token", "jwt"),
    *("csrf", "csrf_token", "csrfmiddlewaretoken", "xsrf", "xsrf_token", "auth", "authorization"),
    *("proxy_authorization", "authorization_code", "auth_code", "code_verifier", "client_assertion", "saml_response"),
    *("cookie", "set_cookie", "cookies", "session", "session_id", "session_key", "phpsessid", "jsessionid"),
    *("connect.sid", "api_key", "x_api_key", "secret_key", "private_key", "access_key", "account_key", "signing_key"),
    *("encryption_key", "ssh_key", "signature", "sig", "connection_string", "otp", "totp", "ssn", "cvv", "cvc"),
)

#: Keys under which a mapping has a name, and its value: ``{"name": "Authorization", "value": "…"}``.
_NAMES, _VALUES = ("name", "key", "k"), ("value", "v")
_PLAIN: frozenset[type] = frozenset({int, float, bool, complex, type(None)})
#: Names that are remembered, and the longest of them: clients make up names.
_REMEMBERED, _LONGEST = 1024, 128

#: What parts a name, ``user[password]``; and a part's words, ``X-Api-Key``, ``apiKey``, ``APIKey``.
_PARTS = re.compile(r"[^\w-]++")
_WORDS = re.compile(r"[-_]++|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_DIGITS = "0123456789"


#: Queries of these alone have nothing but names and values: no URL in a value, nothing quoted.
_simple_query = re.compile(r"[\w.=&,-]{1,128}", re.ASCII).fullmatch


class Redactor:
    """Takes secrets out of queries, URLs, fields and texts.

    :param names: whose values are secrets, in any spelling, see `is_secret`; none: names do not matter.
    :param patterns: what else is secret, in all texts, and in other values as text: what group 1 of a pattern matched,
        or all of the match where there is no such group. They take the time that their author made them take.
    """

    def __init__(self, names: Iterable[str] = DEFAULT_NAMES, patterns: Iterable[re.Pattern[str]] = ()) -> None:
        spelled = frozenset(spelling for name in names if (spelling := squeezed_name(name)))
        self._named = bool(spelled)
        #: As given.
        self.patterns = tuple(patterns)
        # No method of self: a cache that refers to its owner is a cycle.
        self._judge: IsSecret = partial(_is_secret, spelled, max(map(len, spelled), default=0))
        self._judge_known: IsSecret = lru_cache(_REMEMBERED)(self._judge)

    def __bool__(self) -> bool:
        """Whether there is anything to look for."""
        return self._named or bool(self.patterns)

    def is_secret(self, name: str) -> bool:
        """Whether the value of that name is a secret.

        It is if a name of ours is all of it or ends it, after a word's boundary, or does so with one of its dotted or
        bracketed parts; case, ``-``, ``_``, ``.``, camel case and a number at the end do not matter. Of ``api_key``
        are ``X-Api-Key``, ``apiKey``, ``APIKEY``, ``stripe_api_key2`` and ``api_key[0]``; not ``api_key_count``.
        The middle of a name of more than 1,000 characters is not looked at.
        """
        return self._is_secret_key(name)

    def query(self, query: str) -> str:
        """A query string or a form; ``a=1&password=[REDACTED]``, all else as it was, byte for byte.

        Pairs end at ``&``, and at a ``;`` with another pair behind it. URLs in values, quoted or not, are looked into.
        """
        if type(query) is str and not self.patterns and _simple_query(query):
            known = self._judge_known
            if not any(known(pair.partition("=")[0]) for pair in query.split("&")):
                return query
        return self._redact(redact_query, query)

    def url(self, url: str) -> str:
        """A URL: its query, its password, its fragment and its parameters (``;jsessionid=…``)."""
        return self._redact(redact_url, url)

    def text(self, text: str) -> str:
        """Any text, by the patterns only."""
        return self._redact(None, text)

    def value(self, name: str, value: object) -> object:
        """What may be shown of a value of that name: itself where nothing is secret, otherwise a copy.

        ``None``, ``True`` and ``False`` are no secrets, whatever their name. In containers, by the names that keys,
        (name, value) pairs in lists and mappings with ``name`` and ``value`` give; beyond what `values.freeze` leaves
        of them, all is ``[REDACTED]``. In strings and bytes that are forms or JSON, or that have URLs, as these do. By
        patterns in numbers, paths and the like as well, as their text.
        """
        if not self:
            return value
        if self._is_secret_key(name):
            return _hidden(value)
        return self._inside(value, 0, [2 * MOST_VALUES])

    # Below, what is reached by `_redact` and `_inside` only, which catch what others' objects raise.

    def _redact(self, by_name: Callable[[str, IsSecret], str] | None, given: str) -> str:
        try:
            text = given if type(given) is str else str.__str__(given)
            redacted = by_name(text, self.is_secret) if by_name is not None and self._named else text
            for pattern in self.patterns:
                redacted = redact_matches(redacted, pattern)
            return given if redacted == text else redacted
        except Exception:
            return REDACTED

    def _inside(self, value: object, depth: int, budget: list[int], in_list: bool = False) -> object:
        if type(value) in _PLAIN and not self.patterns:
            return value
        try:
            if isinstance(value, str):
                return self._redact(redact_string, value)
            if isinstance(value, bytes):
                text = bytes.decode(value, "utf-8", "surrogateescape")
                redacted = self._redact(redact_string, text)
                return value if redacted is text else redacted.encode("utf-8", "surrogateescape")
            if isinstance(value, Mapping):
                return self._mapping(cast("Mapping[object, object]", value), depth, budget)
            if isinstance(value, (list, tuple, AbstractSet)):
                return self._items(cast("list[object]", value), depth, budget, in_list)
            return self._as_text(value) if self.patterns else value
        except Exception:  # an object that raises when it is looked at
            return REDACTED

    def _as_text(self, value: object) -> object:
        """A number, a path or the like: as text without what the patterns match, if they match anything."""
        if value is None or value is True or value is False:
            return value
        text = str(value)
        shown = self._redact(None, text)
        return value if shown is text else shown

    def _mapping(self, mapping: Mapping[object, object], depth: int, budget: list[int]) -> object:
        if depth >= DEEPEST:
            return REDACTED
        copied: dict[object, object] = {}
        changed = False
        named = any(self._is_secret_key(mapping[key]) for key in _NAMES if key in mapping)
        for key, item in mapping.items():
            budget[0] -= 1
            if budget[0] < 0:
                copied["…"], changed = REDACTED, True
                break
            hides = self._is_secret_key(key) or (named and key in _VALUES)
            shown = _hidden(item) if hides else self._inside(item, depth + 1, budget)
            shown_key = self._shown_key(key) if self.patterns else key
            changed = changed or shown is not item or shown_key is not key
            copied[shown_key] = shown
        return copied if changed else mapping

    def _shown_key(self, key: object) -> object:
        return self._redact(None, key) if isinstance(key, str) else self._as_text(key)

    def _items(self, items: list[object], depth: int, budget: list[int], in_list: bool) -> object:
        if depth >= DEEPEST:
            return REDACTED
        if in_list and isinstance(cast(object, items), (list, tuple)) and len(items) == 2:
            name, item = items
            if self._is_secret_key(name):
                shown = _hidden(item)
                pair = (name, shown) if isinstance(cast(object, items), tuple) else [name, shown]
                return items if shown is item else pair
        copied: list[object] = []
        changed = False
        for item in items:
            budget[0] -= 1
            if budget[0] < 0:
                copied.append(REDACTED)
                changed = True
                break
            shown = self._inside(item, depth + 1, budget, in_list=True)
            changed = changed or shown is not item
            copied.append(shown)
        if not changed:
            return items
        return tuple(copied) if isinstance(cast(object, items), tuple) else copied

    def _is_secret_key(self, key: object) -> bool:
        if isinstance(key, bytes):
            key = bytes.decode(key, "utf-8", "surrogateescape")
        elif type(key) is not str:
            if not isinstance(key, str):
                return False
            key = str.__str__(key)
        return self._judge_known(key) if len(key) <= _LONGEST else self._judge(shortened(key))


def squeezed_name(name: str) -> str:
    """A name without what does not matter in it; empty if nothing matters."""
    return "".join(_WORDS.sub("", part) for part in _PARTS.split(name)).casefold()


def _is_secret(names: frozenset[str], longest: int, name: str) -> bool:
    words: list[str] = []
    for part in _PARTS.split(name):
        of_part = [word for word in _WORDS.split(part) if word]
        words += of_part
        ending = ""
        for word in reversed(words if of_part else ()):
            if len(word) + len(ending) > longest + 20:  # room for a number
                break
            ending = word.casefold() + ending
            if ending in names or ending.rstrip(_DIGITS) in names:
                return True
    return False


def _hidden(value: object) -> object:
    kept = value is None or value is True or value is False or (type(value) is str and value == REDACTED)
    return value if kept else REDACTED
