"""Redaction: no secret survives, nothing else changes, nothing raises, and time is linear."""

from __future__ import annotations

import datetime
import json
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path, PurePosixPath
from types import FrameType
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from flask import Flask
from hypothesis import example, given
from hypothesis import strategies as st
from werkzeug.local import LocalProxy

from flask_asynclog import AsyncLog, parse, redaction, textredaction
from flask_asynclog.recordfields import redact
from flask_asynclog.records import CONTEXT, EVENT, EXCEPTION, ExceptionSummary
from flask_asynclog.redaction import DEFAULT_NAMES, REDACTED, Redactor
from flask_asynclog.values import DEEPEST, MOST_VALUES, freeze
from support import HANG, assert_conserved, log_lines

MakeApp = Callable[..., tuple[Flask, AsyncLog]]

REDACTOR = Redactor()
CARDS = re.compile(r"\b\d{16}\b")
BEARER = re.compile(r"(?i)bearer (\S+)")
#: What no other text here has.
PLANTED = "hunter2hunter2"

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=30)
#: Texts of which much looks like a query, a URL or JSON.
SYNTAX = st.lists(
    st.sampled_from(
        [*"&;=?#@:/%+[]{}\"'\\,. \n\ud800é", "%3D", "%253F", "%26", "//", "a", "password", "token", "http:"]
    )
    | ANY_TEXT,
    max_size=25,
).map("".join)
SECRET_NAMES = st.sampled_from(DEFAULT_NAMES).flatmap(
    lambda name: st.sampled_from(
        [name, name.upper(), name.replace("_", "-").title(), f"db_{name}", f"user[{name}]", f"form.{name}", f"{name}2"]
    )
)
#: Values as clients quote them, around the secret.
SECRETS = st.tuples(st.text(max_size=5), st.text(max_size=5)).map(PLANTED.join)
PLAIN_NAMES = st.sampled_from(["a", "q", "page", "token_count", "user[name]", "x.y", "é"])
OBJECTS: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | SYNTAX | SYNTAX.map(lambda t: t.encode(errors="replace")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.tuples(SYNTAX | SECRET_NAMES, inner)
        | st.dictionaries(SYNTAX | SECRET_NAMES | st.binary(max_size=3), inner, max_size=4)
        | st.frozensets(SYNTAX, max_size=3)
    ),
    max_leaves=15,
)


class Text(str):
    """A subclass of str whose methods lie."""

    __slots__ = ()

    def __str__(self) -> str:
        raise ArithmeticError("str")

    __eq__ = __contains__ = __len__ = partition = __str__  # type: ignore[assignment]
    __hash__ = str.__hash__


class Broken(Mapping[str, object]):
    """A mapping that raises."""

    def __getitem__(self, key: str) -> object:
        raise ArithmeticError("item")

    def __iter__(self) -> Iterator[str]:
        raise ArithmeticError("iter")

    def __len__(self) -> int:
        raise ArithmeticError("len")


class Endless(Mapping[str, object]):
    """A mapping without end."""

    def __getitem__(self, key: str) -> object:
        return PLANTED

    def __iter__(self) -> Iterator[str]:
        number = 0
        while True:
            number += 1
            yield f"password_{number}"

    def __len__(self) -> int:
        return sys.maxsize


@pytest.mark.parametrize(
    "name",
    [
        "password", "PASSWORD", "Password", " password ", "X-Api-Key", "x_api_key", "apiKey", "APIKey", "api_key",
        "api.key", "api-key", "APIKEY", "apikey", "user[password]", "user[password][0]", "form.password", "password.0",
        "http.request.header.authorization", "http.response.header.set-cookie", "db_password", "stripe_api_key",
        "HTTP_COOKIE", "HTTP_AUTHORIZATION", "password1", "new_password2", "password_confirmation", "accessToken",
        "access_token", "accesstoken", "XSRF-TOKEN", "csrftoken", "csrfmiddlewaretoken", "_csrf", "connect.sid",
        "PHPSESSID", "sessionid", "session", "session.id", "X-Amz-Signature", "X-Amz-Credential", "client_secret",
        "oauth2Token", "<Field.PASSWORD: 'x'>", "pa\u017f\u017fword", "AWS_SECRET_ACCESS_KEY", "smtp_pass", "mysql_pwd",
        "a." * 5_000 + "password", "password" + ".a" * 5_000,
    ],
)  # fmt: skip
def test_secret_names(name: str) -> None:
    """All spellings of a name, alone, at the end or as a part of a longer one."""
    assert REDACTOR.is_secret(name)
    assert REDACTOR.is_secret(name), "remembered"


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "[]", "1", "user", "token_count", "secretary", "passwordless", "session_length", "tokens",
        "input_tokens", "compass", "author", "authority", "authors", "key", "primary_key", "cache_key", "status_code",
        "code", "url.path", "http.request.method", "user_agent.original", "passport", "cookie_policy", "sessions",
        "assign", "design", "hotpot", "keyboard", "process.pid", "request_id", "x" * 5_000, "a." * 5_000,
    ],
)  # fmt: skip
def test_other_names(name: str) -> None:
    """Words that only begin like a secret, or have one inside of them, are none."""
    assert not REDACTOR.is_secret(name)


def test_default_names_are_found_by_themselves() -> None:
    """All lower case, each once, each a secret by its own name."""
    assert len(set(DEFAULT_NAMES)) == len(DEFAULT_NAMES)
    for name in DEFAULT_NAMES:
        assert name == name.lower()
        assert REDACTOR.is_secret(name)


def test_names_of_ones_own() -> None:
    """They replace the default ones; a number at their end is theirs; names without a letter are nothing."""
    own = Redactor(["Mein-Kennwort", "straße", "field7", "--", ""])
    assert [name for name in ("meinKennwort", "x_mein_kennwort", "STRASSE", "field7", "field", "password", "", "-")
            if own.is_secret(name)] == ["meinKennwort", "x_mein_kennwort", "STRASSE", "field7"]  # fmt: skip


def test_nothing_to_look_for() -> None:
    """Without names and patterns there is nothing to do, and nothing is done."""
    nothing = Redactor((), ())
    assert not nothing
    assert Redactor()
    assert Redactor((), [CARDS])
    value = {"password": ["x"], "u": "http://a:b@c/?token=1"}
    assert nothing.value("password", value) is value
    assert nothing.url("http://a:b@c/?token=1") == "http://a:b@c/?token=1"


def test_names_of_clients_are_not_kept() -> None:
    """The memory for names has a bound, in number and in length."""
    own = Redactor()
    for number in range(5_000):
        own.is_secret(f"name{number}")
    own.is_secret("x" * 100_000)
    known: Any = own._judge_known
    assert known.cache_info().currsize == known.cache_info().maxsize == 1024


@pytest.mark.parametrize(
    ("query", "redacted"),
    [
        ("", ""),
        ("a=1&b=2", "a=1&b=2"),
        ("a=1&password=x", "a=1&password=[REDACTED]"),
        ("password=x&a=1", "password=[REDACTED]&a=1"),
        ("pass%77ord=x", "pass%77ord=[REDACTED]"),
        ("user%5Bpassword%5D=x&user%5bname%5d=b", "user%5Bpassword%5D=[REDACTED]&user%5bname%5d=b"),
        ("+password+=x", "+password+=[REDACTED]"),
        ("my+password=x", "my+password=[REDACTED]"),
        ("a=1;password=x;b=2", "a=1;password=[REDACTED];b=2"),
        ("password=x;y&b=2", "password=[REDACTED]&b=2"),
        ("password=x;y;b=2", "password=[REDACTED];b=2"),
        ("password", "password"),
        ("password&token&a=1", "password&token&a=1"),
        ("password=", "password=[REDACTED]"),
        ("password=a=b==", "password=[REDACTED]"),
        ("password=a?b=c", "password=[REDACTED]"),
        ("=x&&;;&=", "=x&&;;&="),
        ("token=1&token=2&TOKEN=3", "token=[REDACTED]&token=[REDACTED]&TOKEN=[REDACTED]"),
        ("next=/x?token=t&a=1", "next=/x?token=[REDACTED]&a=1"),
        ("next=%2Fx%3Ftoken%3Dt%26a%3D1&a=1", "next=%2Fx%3Ftoken%3D[REDACTED]&a=1"),
        ("next=%2Fx%3Fuser%255Bpassword%255D%3Dt&a=1", "next=%2Fx%3Fuser%255Bpassword%255D%3D[REDACTED]&a=1"),
        ("next=%252Fx%253ftoken%253dt&a=1", "next=%252Fx%253ftoken%253d[REDACTED]&a=1"),
        ("u=http://bob:x@h/&a=1", "u=http://bob:[REDACTED]@h/&a=1"),
        ("u=http%3A%2F%2Fbob%3Ahunter2%40host%2F&a=1", "u=http%3A%2F%2Fbob%3A[REDACTED]%40host%2F&a=1"),
        ("u=http%3A//bob%3Ap%252Fw%40x%40host/y%40z:1", "u=http%3A//bob%3A[REDACTED]%40host/y%40z:1"),
        ("n=%2Fx%3Fu%3Dhttp%253a%252f%252fbob%253ap%2540h", "n=%2Fx%3Fu%3Dhttp%253a%252f%252fbob%253a[REDACTED]%2540h"),
        ("u=%2F%2Fhost%3A80%2Fa%40b&v=//h:80/%40", "u=%2F%2Fhost%3A80%2Fa%40b&v=//h:80/%40"),
        ("dl=https%3A%2F%2Fa%2Fcb%23access_token%3Dt&a=1", "dl=https%3A%2F%2Fa%2Fcb%23access_token%3D[REDACTED]&a=1"),
        ("password%231=x&api_key%2523b=z", "password%231=[REDACTED]&api_key%2523b=[REDACTED]"),
        ("a=#b=1#token=t;c=d&x", "a=#b=1#token=[REDACTED];c=d&x"),
        ("q=http%3A%2F%2Fh%3A80+mail+bob%40x.org%20y", "q=http%3A%2F%2Fh%3A80+mail+bob%40x.org%20y"),
        ("dl=/cb#access_token=t&a=1", "dl=/cb#access_token=[REDACTED]&a=1"),
        ("a=%zz%&password=%", "a=%zz%&password=[REDACTED]"),
        ("a=\ud800&token=\udcff", "a=\ud800&token=[REDACTED]"),
    ],
)
def test_queries(query: str, redacted: str) -> None:
    """Values of secret names, quoted or not; everything else byte for byte."""
    assert REDACTOR.query(query) == redacted
    assert REDACTOR.query(redacted) == redacted
    assert REDACTOR.value("x", f"?{query}") == f"?{redacted}"


@pytest.mark.parametrize(
    ("url", "redacted"),
    [
        ("http://h/a?b=1#c", "http://h/a?b=1#c"),
        ("http://bob:secret@host/", "http://bob:[REDACTED]@host/"),
        ("http://bob:@host/", "http://bob:[REDACTED]@host/"),
        ("http://bob@host:80/", "http://bob@host:80/"),
        ("postgresql://u:p@ss:w@h:5432/db", "postgresql://u:[REDACTED]@h:5432/db"),
        ("postgresql://u:p/a?s#s@h:5432/db", "postgresql://u:[REDACTED]@h:5432/db"),
        ("redis://:p@h", "redis://:[REDACTED]@h"),
        ("//u:p@h/x", "//u:[REDACTED]@h/x"),
        ("http://h:80/a:b@c?d=e@f", "http://h:80/a:b@c?d=e@f"),
        ("http://[::1]:80/@x:y", "http://[::1]:80/@x:y"),
        ("http://u:p@[::1]:80/", "http://u:[REDACTED]@[::1]:80/"),
        ("http://h/?token=t#top", "http://h/?token=[REDACTED]#top"),
        ("/cb#access_token=t&state=s", "/cb#access_token=[REDACTED]&state=s"),
        ("/#/cb?access_token=t", "/#/cb?access_token=[REDACTED]"),
        ("/a%3Ftoken=t", "/a%3Ftoken=[REDACTED]"),
        ("/token=a%3Bjsessionid%3DS?b=1", "/token=a%3Bjsessionid%3D[REDACTED]?b=1"),
        ("/a;jsessionid=S/b?c=1", "/a;jsessionid=[REDACTED]?c=1"),
        ("?token=t", "?token=[REDACTED]"),
        ("/token/password?a=1", "/token/password?a=1"),
        ("http://token.example.com/?a=1", "http://token.example.com/?a=1"),
        ("http://h/?password=a b&c=1", "http://h/?password=[REDACTED]&c=1"),
        ("", ""),
    ],
)
def test_urls(url: str, redacted: str) -> None:
    """Password, parameters, query and fragment; a port or an ``@`` elsewhere is no password."""
    assert REDACTOR.url(url) == redacted
    assert REDACTOR.url(redacted) == redacted
    assert REDACTOR.value("x", url) == redacted


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("GET /a?token=t&b=1 HTTP/1.1", "GET /a?token=[REDACTED]&b=1 HTTP/1.1"),
        ("from http://h/?token=t to https://a:b@c/ x", "from http://h/?token=[REDACTED] to https://a:[REDACTED]@c/ x"),
        ("a=1&password=my secret&c=2", "a=1&password=[REDACTED]&c=2"),
        ("theme=dark; sessionid=s; a=b", "theme=dark; sessionid=[REDACTED]; a=b"),
        ("is password=x? no", "is password=x? no"),
        ("name:exact=Bob&access_token=t", "name:exact=Bob&access_token=[REDACTED]"),
        ("if (a && session == NULL) { f(); }", "if (a && session == NULL) { f(); }"),
        ("flags & 4 AND session.id = t.id", "flags & 4 AND session.id = t.id"),
        ("make all && ./run\nChecking auth=ok\ndone", "make all && ./run\nChecking auth=ok\ndone"),
        ("a/b(c)=1&first name=Bob&token=t", "a/b(c)=1&first name=Bob&token=[REDACTED]"),
        (r'"{\"password\": \"x\", \"a\": 1}"', r'"{\"password\": \"[REDACTED]\", \"a\": 1}"'),
        (r'"{\"password\": \"cut of', r'"{\"password\": \"[REDACTED]\"'),
        ('{"a": 1, "password": "x\\"y", "b":"c"}', '{"a": 1, "password": "[REDACTED]", "b":"c"}'),
        ('[{"token":12.5e3,"a":[true]}]', '[{"token":"[REDACTED]","a":[true]}]'),
        ('[1, {"token":"t"}]', '[1, {"token":"[REDACTED]"}]'),
        (
            '[ -1.5e+3 ,true,false,null,\nNaN,-Infinity,[{"token":1}]]',
            '[ -1.5e+3 ,true,false,null,\nNaN,-Infinity,[{"token":"[REDACTED]"}]]',
        ),
        ('[0, "/?token=t"]', '[0, "/?token=[REDACTED]"]'),
        ('[12 "x" http://h/?token=t', '[12 "x" http://h/?token=[REDACTED]'),
        ('[12] "x" http://h/?token=t', '[12] "x" http://h/?token=[REDACTED]'),
        ('{"token":null,"secret": false,"a":1}', '{"token":null,"secret": false,"a":1}'),
        ('{"cookies": {"a": ["}", {}]}, "b": 1}', '{"cookies": "[REDACTED]", "b": 1}'),
        ('{"u": "http://h/?sig=s", "v": "a=1&pwd=p"}', '{"u": "http://h/?sig=[REDACTED]", "v": "a=1&pwd=[REDACTED]"}'),
        (
            r'{"body": "{\"token\": \"t\", \"a\": [\"\u00e9\"]}"}',
            r'{"body": "{\"token\": \"[REDACTED]\", \"a\": [\"\u00e9\"]}"}',
        ),
        (r'{"u": "http:\/\/h\/?sig=s", "v": "a\u003d1"}', r'{"u": "http://h/?sig=[REDACTED]", "v": "a\u003d1"}'),
        (r'{"body": "{\"token\": \"cut of\\', r'{"body": "{\"token\": \"[REDACTED]\"'),
        ('{"pass\\u0077ord": "x"}', '{"pass\\u0077ord": "[REDACTED]"}'),
        ('{"a": 1, "password": "cut of', '{"a": 1, "password": "[REDACTED]"'),
        ('{"a": 1, "cookies": {"b": 1', '{"a": 1, "cookies": "[REDACTED]"'),
        ('{"password":', '{"password":'),
        ('{"a\\', '{"a\\'),
        ("plain words", "plain words"),
        ("", ""),
    ],
)
def test_strings(text: str, redacted: str) -> None:
    """What looks like a form, a URL or JSON, cut or not, is looked into; prose is for patterns."""
    assert REDACTOR.value("x", text) == redacted
    assert REDACTOR.value("x", redacted) == redacted
    assert REDACTOR.value("x", text.encode()) == redacted.encode()


def test_containers() -> None:
    """By key at any depth, by pairs in lists; types of containers stay, the given ones do not change."""
    given = {
        "user": {"name": "bob", "PASSWORD": PLANTED, "tags": ["a", {"apiKey": [PLANTED]}]},
        "headers": [("Authorization", PLANTED), ("Accept", "*/*"), [b"cookie", PLANTED.encode()]],
        "query": (f"token={PLANTED}", 1),
        b"token": PLANTED,
        "urls": frozenset({f"/?token={PLANTED}"}),
        "has_password": True,
        "password": None,
        3: 4.5,
    }
    before = repr(given)
    assert REDACTOR.value("x", given) == {
        "user": {"name": "bob", "PASSWORD": REDACTED, "tags": ["a", {"apiKey": REDACTED}]},
        "headers": [("Authorization", REDACTED), ("Accept", "*/*"), [b"cookie", REDACTED]],
        "query": (f"token={REDACTED}", 1),
        b"token": REDACTED,
        "urls": [f"/?token={REDACTED}"],
        "has_password": True,
        "password": None,
        3: 4.5,
    }
    assert repr(given) == before
    assert REDACTOR.value("token", given) == REDACTED


def test_items_that_name_what_they_hold() -> None:
    """As pairs do, and as HAR files and many APIs have headers."""
    items = [{"name": "Authorization", "value": "x"}, {"key": "a", "value": "b"}, {"k": "token", "v": 1, "more": 2}]
    hidden = [{"name": "Authorization", "value": REDACTED}, items[1], {"k": "token", "v": REDACTED, "more": 2}]
    assert REDACTOR.value("x", items) == hidden
    assert REDACTOR.value("x", {"field": "password", "error": "short"}) == {"field": "password", "error": "short"}


@pytest.mark.parametrize(
    "value",
    [
        "plain", b"plain", "a=1&b=2", b"\xff=1", "http://h/?a=1", '{"a": "b"}', 5, None, 1.5, object(),
        {"a": [1, ("b", {"c": None})], "d": {"e"}}, [["a", 1]], [("password", REDACTED)], {"password": REDACTED},
        {"password": None}, range(3), ["password", "email"], [], {},
    ],
)  # fmt: skip
def test_what_has_no_secret_is_the_same_object(value: object) -> None:
    """Nothing to hide, nothing to copy."""
    assert Redactor(patterns=[CARDS]).value("x", value) is value


def test_depth_and_number() -> None:
    """All that `freeze` leaves is looked at; what is deeper or beyond is not shown; cycles end."""
    deep: Any = {"token": PLANTED}
    for _ in range(DEEPEST - 1):
        deep = [deep]
    assert str(REDACTOR.value("x", deep)) == "[" * (DEEPEST - 1) + "{'token': '[REDACTED]'}" + "]" * (DEEPEST - 1)
    assert REDACTED in str(REDACTOR.value("x", [deep]))
    assert PLANTED not in str(REDACTOR.value("x", [[deep]]))
    cycle: list[Any] = [PLANTED]
    cycle += [cycle] * 20
    assert len(str(REDACTOR.value("x", cycle))) < 10**6
    many = freeze([[number] * 3 for number in range(MOST_VALUES)])
    assert REDACTOR.value("x", many) is many
    assert REDACTED in str(REDACTOR.value("x", list(range(3 * MOST_VALUES))))[-20:]


@pytest.mark.parametrize("make", [Broken, lambda: LocalProxy(lambda: 1 / 0), lambda: LocalProxy(Broken), Endless])
def test_objects_that_raise_or_never_end(make: Callable[[], object]) -> None:
    """They become the mark, and nothing else does."""
    value = make()
    shown = REDACTOR.value("x", [1, value, {"a": value}])
    assert PLANTED not in str(shown)
    assert isinstance(shown, list)
    assert shown[0] == 1
    assert shown[1] == REDACTED or make is Endless


def test_wrong_types_do_not_raise() -> None:
    """Not even where the annotations forbid it."""
    wrong: Any
    for wrong in (None, 5, b"token=x", object(), [], Text("token=x"), Text("")):
        for call in (REDACTOR.query, REDACTOR.url, REDACTOR.is_secret, Redactor(patterns=[CARDS]).text):
            call(wrong)
        REDACTOR.value(wrong, wrong)
    assert REDACTOR.query(Text(f"a=1&token={PLANTED}")) == "a=1&token=[REDACTED]"
    assert REDACTOR.value(Text("token"), 1) == REDACTED
    plain = Text("plain")
    assert REDACTOR.value("x", plain) is plain


@pytest.mark.parametrize(
    ("pattern", "text", "redacted"),
    [
        (r"\d{4}", "a 1234 b", "a [REDACTED] b"),
        (r"Bearer (\S+)", "Bearer abc x", "Bearer [REDACTED] x"),
        (r"pin=(\d+)|\d{16}", "pin=12 1234567812345678", "pin=[REDACTED] [REDACTED]"),
        (r"(a)(b)", "xaby", "x[REDACTED]by"),
        (r"pin=(?=(\d+))", "pin=123 x", "pin=[REDACTED] x"),
        (r"(?=(\d{4}))", "123456 x", "[REDACTED] x"),
        (r"\d", "123 4", "[REDACTED] [REDACTED]"),
        (r"x*", "axxb", "a[REDACTED]b"),
        (r"\b", "a b", "a b"),
        (r"k=(\w*)", "k= k=v", "k= k=[REDACTED]"),
        (r"\w+", "[REDACTED]", "[REDACTED]"),
        (r"E", "[REDACTED] E", "[REDACTED] [REDACTED]"),
        (r"(.+)", r"\1 \g<0> {0} %s", "[REDACTED]"),
    ],
)
def test_patterns(pattern: str, text: str, redacted: str) -> None:
    """Group 1 if it took part, else the whole match; what is empty or redacted already stays."""
    own = Redactor((), [re.compile(pattern)])
    assert own.text(text) == redacted
    assert own.text(redacted) == redacted
    assert own.value("x", {"": [text]}) == {"": [redacted]}


def test_patterns_apply_everywhere() -> None:
    """In queries, URLs, strings, bytes and keys, after the names; one that fails hides all."""
    own = Redactor(patterns=[CARDS, BEARER])
    card = "1234567812345678"
    assert own.query(f"card={card}&token=x") == "card=[REDACTED]&token=[REDACTED]"
    assert own.url(f"/c/{card}?token=x") == "/c/[REDACTED]?token=[REDACTED]"
    assert own.value("x", [f"Bearer {card}x", f"n {card}".encode(), {card: 1}]) == [
        "Bearer [REDACTED]", b"n [REDACTED]", {REDACTED: 1},
    ]  # fmt: skip
    wrong: Any = re.compile(b"x")
    assert Redactor((), [wrong]).text("abc") == REDACTED
    assert REDACTOR.text("password=x") == "password=x"


def test_patterns_in_a_request_id(make_alone: MakeApp) -> None:
    """Which a client may have made up: in both messages, and in the field."""
    app, asynclog = make_alone(
        format="%(request_id)s %(message)s", redact_patterns=[CARDS], trust_request_id=True, flush_interval=0.01
    )
    app.add_url_rule("/", "view", lambda: app.logger.warning("in it") or "x")
    app.test_client().get("/", headers={"X-Request-ID": "4111111111111111"})
    app.test_client().get("/", headers={"X-Request-ID": "mine"})
    assert asynclog.flush(HANG)
    lines = log_lines(Path("app.log"))
    assert [line.split()[0] for line in lines] == ["[REDACTED]"] * 3 + ["mine"] * 3
    assert "4111" not in str(lines)


def test_patterns_in_values_that_are_no_text() -> None:
    """Where the text of a number, a path or the like has a match, that takes its place; all others stay."""
    own = Redactor(patterns=[CARDS, re.compile("alice")])
    card = 4111111111111111
    given = [PurePosixPath("/home/alice/x"), card, -float(card), Decimal(card), {card: [(card,)]}, 10**5000]
    assert own.value("x", given) == [
        "/home/[REDACTED]/x", REDACTED, "-[REDACTED].0", REDACTED, {REDACTED: [(REDACTED,)]}, REDACTED,
    ]  # fmt: skip
    for value in (PurePosixPath("/home/bob"), 411, 1.5, Decimal(1), {1: 2, None: True}, datetime.date(2027, 1, 1)):
        assert own.value("x", [value]) == [value]
        assert own.value("x", value) is value
    words = Redactor((), [re.compile("None|True|False")])
    kept = {None: True, True: None, "x": False}
    assert words.value("x", kept) is kept
    assert Redactor().value("x", given) is given


@given(SYNTAX)
@example("password=[REDACTED]&[")
def test_any_text(text: str) -> None:
    """Nothing raises, and to redact again changes nothing; without a secret's name nothing is changed."""
    own = Redactor(patterns=[CARDS, BEARER])
    calls: list[Callable[[str], Any]] = [own.query, own.url, own.text, lambda text: own.value("x", text)]
    for call in calls:
        once = call(text)
        assert call(once) == once
    own = Redactor(["nobodyhasthis"])
    if "@" not in text:
        assert (own.query(text), own.url(text), own.value("x", text)) == (text, text, text)


@given(OBJECTS)
def test_any_object(value: object) -> None:
    """Nothing raises, nothing is mutated, and to redact again changes nothing."""
    before = repr(value)
    shown = REDACTOR.value("x", value)
    assert repr(value) == before
    assert REDACTOR.value("x", shown) is shown or repr(REDACTOR.value("x", shown)) == repr(shown)


PAIRS = st.lists(st.tuples(PLAIN_NAMES, st.text(max_size=8)), max_size=4)


@given(PAIRS, SECRET_NAMES, SECRETS, PAIRS, st.sampled_from([quote, quote_plus]), st.sampled_from("&;"))
def test_a_planted_secret_in_a_query(
    before: list[tuple[str, str]],
    name: str,
    secret: str,
    after: list[tuple[str, str]],
    quoted: Callable[[str], str],
    separator: str,
) -> None:
    """It does not survive, in a query, a fragment, a URL or a form; the rest is the same byte for byte."""
    pairs = [*before, (name, secret), *after]
    texts = [f"{quoted(name)}={quoted(value)}" for name, value in pairs]
    query = separator.join(texts)
    texts[len(before)] = f"{quoted(name)}={REDACTED}"
    redacted = separator.join(texts)
    assert REDACTOR.query(query) == redacted
    for url in ("http://h/a?{}", "http://h/a?{}#b", "/a#{}", "?{}"):
        assert REDACTOR.url(url.format(query)) == REDACTOR.value("x", url.format(query)) == url.format(redacted)
    nested = f"a=1&next={quote(f'/x?{query}', safe='')}&b=2"
    assert PLANTED not in REDACTOR.query(nested)
    assert REDACTOR.query(nested).endswith("&b=2")


@given(SECRET_NAMES, SECRETS, st.lists(st.sampled_from(["dict", "list", "tuple", "pair"]), max_size=6), OBJECTS)
def test_a_planted_secret_in_an_object(name: str, secret: str, way: list[str], beside: object) -> None:
    """It does not survive, however deep, in mappings, headers and as JSON."""
    for value in ({"a": 1, name: secret}, [("a", 1), (name, secret)], [[name.encode(), secret.encode()], ["b", 2]]):
        for kind in way:
            around: dict[str, object] = {
                "dict": {"k": value, "l": beside}, "list": [beside, value], "tuple": (value,), "pair": [("k", value)]
            }  # fmt: skip
            value = around[kind]  # type: ignore[assignment]  # noqa: PLW2901
        assert PLANTED not in repr(REDACTOR.value("x", value))
        assert PLANTED not in repr(REDACTOR.value("x", freeze(value)))


@given(SECRET_NAMES, st.recursive(SECRETS | st.integers() | st.none(), lambda inner: st.lists(inner)
       | st.dictionaries(ANY_TEXT, inner), max_leaves=8), st.booleans())  # fmt: skip
def test_a_planted_secret_in_json(name: str, secret: object, ascii_only: bool) -> None:
    """It does not survive, whatever it is made of; what is around stays, and stays JSON; cut anywhere, too."""
    text = json.dumps({"a": ["{", {"b": 1, name: secret}, "}"], "c": "d"}, ensure_ascii=ascii_only)
    shown = REDACTOR.value("x", text)
    assert isinstance(shown, str)
    kept = secret if secret is None else REDACTED
    assert json.loads(shown) == {"a": ["{", {"b": 1, name: kept}, "}"], "c": "d"}
    for cut in range(0, len(text), 7):
        assert PLANTED not in str(REDACTOR.value("x", text[:cut]))


@given(SECRET_NAMES, st.text(max_size=10), st.integers(1, 4), st.booleans())
def test_a_planted_secret_in_json_within_json(name: str, around: str, levels: int, ascii_only: bool) -> None:
    """As queues and cloud functions hand messages on."""
    text = json.dumps({"a": around, name: f"{around}{PLANTED}"}, ensure_ascii=ascii_only)
    for _ in range(levels):
        text = json.dumps({"body": text, "b": ["x"]}, ensure_ascii=ascii_only)
    shown: Any = REDACTOR.value("x", text)
    for _ in range(levels):
        shown = json.loads(shown)["body"]
    assert json.loads(shown)[name] == REDACTED
    for cut in range(0, len(text), 7):
        assert PLANTED not in str(REDACTOR.value("x", text[:cut]))


#: What has much of what starts, ends or nests something.
HARD = [
    "%2F%2Fa%3Ab", "%40", "%2F", "%2540",
    "//a:b", "//a:1", '\\"', '{"', '"', "a.=", "a.", "%3F", "?", ";a", ";password=1", "//", "[", '{"password":', " ",
    "a1=&b=", "%25", "%41+", "#", "@", "//a:b@", "=", "&", "A", "aB", "-", "password ", '"password":"x",', "[REDACTED]",
    "[1,", "1,",
]  # fmt: skip
ENDS = ["", "=", " @", '"', "=?#", "\\", '":1']


def calls_made(run: Callable[[str], object], text: str) -> int:
    """Calls of Python and C functions: the work that is done, without its time."""
    count = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        run(text)
    finally:
        sys.setprofile(before)
    return count


def test_a_client_cannot_make_texts_grow() -> None:
    """Each level of JSON in JSON doubles the backslashes; written as six characters, they do not in what comes in."""
    for wrap in ('"{}"', '["{}"]', '{{"a": "{}"}}'):
        text = '{"password":"x"}'
        for _ in range(40):
            text = wrap.format(text.replace("\\", r"\u005c").replace('"', r"\""))
        shown = REDACTOR.value("x", text)
        assert isinstance(shown, str)
        assert len(shown) <= 2 * len(text) + 1000
        assert "password" not in shown or REDACTED in shown


@pytest.mark.parametrize("unit", HARD)
def test_work_is_linear(unit: str) -> None:
    """Eight times the text, at most eight times the calls. What goes on inside of one call: see the next test."""
    for start, end in [("", end) for end in ENDS] + [('{"a', '"'), ("x=", "=")]:
        for call in (REDACTOR.query, REDACTOR.url, lambda text: REDACTOR.value("x", text), REDACTOR.is_secret):
            short, long = (start + unit * number + end for number in (500, 4_000))
            call(short)  # names are remembered
            assert calls_made(call, long) <= 8 * calls_made(call, short) + 200


def unbounded(parsed: Any, parser: Any) -> Iterator[tuple[str, bool]]:
    """Each repetition without a bound in a parsed expression: what it is, and whether another is inside of it."""
    for operation, argument in parsed:
        kind = str(operation)
        for inner in _parts(argument, parser):
            found = list(unbounded(inner, parser))
            yield from found
            if "REPEAT" in kind and argument[1] == parser.MAXREPEAT:
                yield kind, bool(found)


def _parts(argument: Any, parser: Any) -> Iterator[Any]:
    if isinstance(argument, parser.SubPattern):
        yield argument
    elif isinstance(argument, (tuple, list)):
        for part in argument:
            yield from _parts(part, parser)


def test_no_expression_can_backtrack() -> None:
    """Each unbounded repetition gives nothing back and has no other inside: what they look at, they look at once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        parser: Any = re._parser  # type: ignore[attr-defined]
    values = [value for module in (redaction, textredaction) for value in vars(module).values()]
    expressions = [value for value in values if isinstance(value, re.Pattern)]
    expressions += textredaction._QUOTED_AUTHORITIES.values()
    assert len(expressions) >= 10
    for expression in expressions:
        for kind, nested in unbounded(parser.parse(expression.pattern, expression.flags), parser):
            assert kind == "POSSESSIVE_REPEAT", expression
            assert not nested, expression


@pytest.mark.parametrize("unit", HARD)
def test_megabytes(unit: str) -> None:
    """Would take hours if any of it were quadratic. Nothing raises."""
    text = unit * (2_000_000 // len(unit)) + "="
    REDACTOR.value("x", text)
    REDACTOR.value("x", '{"' + text)


def test_ten_megabytes() -> None:
    """Of one word, one value, one name, alone and with a secret behind it."""
    long = "x" * 10_000_000
    for start in ("", "a=", "/?a=", '{"a": "', "http://", "%"):
        assert REDACTOR.value("x", start + long) == start + long
    assert REDACTOR.value("x", f"a={long}&token={long}&b=1") == f"a={long}&token=[REDACTED]&b=1"
    assert REDACTOR.value("x", f"http://u:{long}@h") == "http://u:[REDACTED]@h"
    assert REDACTOR.value("x", f"{long}=1") == f"{long}=1"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", ()), ((), ()), ([], ()),
        ("a, B-c", ("a", "b-c")),
        (["a", " A ", "b"], ("a", "b")),
        (("x",), ("x",)),
        ((name for name in "ab"), ("a", "b")),
        ("...", DEFAULT_NAMES), (..., DEFAULT_NAMES), ([...], DEFAULT_NAMES),
        (["...", "my_field"], (*DEFAULT_NAMES, "my_field")),
        ("my_field,...,password", ("my_field", *DEFAULT_NAMES)),
        (DEFAULT_NAMES, DEFAULT_NAMES),
        (["straße", "密码"], ("straße", "密码")),
    ],
)  # fmt: skip
def test_option_of_names(value: object, expected: tuple[str, ...]) -> None:
    """A list replaces the default names; ``...`` in it stands for them."""
    parsed = parse.secret_names(value)
    assert parsed == expected
    assert parse.secret_names(parsed) == parsed


@pytest.mark.parametrize(
    "value", [None, 1, True, {"a": 1}, b"a", [1], ["a", None], ["a", ""], "a,,b", ["..", "a"], ","]
)
def test_option_of_names_refused(value: object) -> None:
    """Names are texts with a letter or a digit."""
    with pytest.raises(ValueError, match=r"^$|is no name"):
        parse.secret_names(value)


def test_option_of_patterns() -> None:
    """Texts and compiled patterns, in a list or alone; a compiled one is kept with its flags."""
    compiled = re.compile("x", re.IGNORECASE)
    assert parse.patterns(["a,b", compiled]) == (re.compile("a,b"), compiled)
    assert parse.patterns("a{1,2}") == (re.compile("a{1,2}"),)
    assert parse.patterns(compiled) == (compiled,)
    assert parse.patterns("") == parse.patterns(()) == ()
    assert parse.patterns(parse.patterns(iter(["a"]))) == (re.compile("a"),)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (["a", "("], "'\\('.*unterminated subpattern"),
        ("[", "unterminated character set"),
        ("a{99999999999}", "too large"),
        ([""], "empty string"),
        ([re.compile("x*")], "'x\\*'.*empty string"),
        ([re.compile(b"x")], "bytes"),
        ([b"x"], "no regular expression"),
        ([1], "1 is no regular expression"),
        (b"x", "^$"),
        (None, "^$"),
        ({"a": 1}, "^$"),
        (True, "^$"),
    ],
)
def test_option_of_patterns_refused(value: object, reason: str) -> None:
    """The error says which expression, and what is wrong with it."""
    with pytest.raises(ValueError, match=reason):
        parse.patterns(value)


# In records, where they are written.


def test_a_message_that_cannot_be_redacted_costs_nobody_else(make_alone: MakeApp) -> None:
    """Its record is written, without anything of the message; the others of the batch are as they are."""
    app, asynclog = make_alone(format="%(levelname)s %(name)s %(message)s %(user)s", flush_interval=60.0)
    app.logger.warning("before")
    app.logger.error({"password": PLANTED, "n": 10**5000}, extra={"user": "bob"})
    app.logger.warning("after")
    assert asynclog.flush(HANG)
    assert log_lines(Path("app.log")) == [
        f"WARNING {app.name} before -",
        f"ERROR {app.name} [REDACTED] [not readable: ValueError] bob",
        f"WARNING {app.name} after -",
    ]
    assert asynclog.stats().written == 3
    assert_conserved(asynclog.stats())


class Unsure(str):
    """A text that cannot say whether it is empty."""

    __slots__ = ()

    def __len__(self) -> int:
        raise ArithmeticError(PLANTED)


def test_a_record_that_cannot_be_redacted_shows_nothing() -> None:
    """Neither its message nor its traceback nor what was added; level, logger and time stay."""
    record = logging.makeLogRecord(
        {"msg": PLANTED, "name": "demo", "levelno": 30, "exc_text": Unsure(PLANTED), "x": f"Bearer {PLANTED}"}
    )
    record.__dict__.update(dict.fromkeys((CONTEXT, EVENT), PLANTED), **{EXCEPTION: ExceptionSummary("E", PLANTED)})
    entries: list[Any] = [record, logging.makeLogRecord({"msg": f"Bearer {PLANTED}"})]
    redact(entries, Redactor(patterns=[BEARER]))
    shown, other = entries
    assert PLANTED not in str(vars(shown))
    assert shown.getMessage() == "[REDACTED] [not readable: ArithmeticError]"
    assert (shown.name, shown.levelno, shown.created, shown.x) == ("demo", 30, record.created, REDACTED)
    assert other.getMessage() == "Bearer [REDACTED]"


class JobRecord(logging.LogRecord):
    """A record that says in its message what it belongs to."""

    __slots__ = ("job",)

    def getMessage(self) -> str:
        self.job = "job 7"
        return f"[{self.job}] {super().getMessage()}"


def test_patterns_and_a_record_class_with_its_own_message(make_app: MakeApp) -> None:
    """The class has its say in the message once; what it adds is looked at, too."""
    app, asynclog = make_app(format="%(message)s %(user)s %(job)s", redact_patterns=["hi|7"])
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(JobRecord)
    try:
        app.logger.warning("%s there", "hi", extra={"user": "bob"})
        app.logger.warning("ho")
    finally:
        logging.setLogRecordFactory(before)
    assert asynclog.flush(HANG)
    assert log_lines(Path("app.log")) == [
        "[job [REDACTED]] [REDACTED] there bob job [REDACTED]",
        "[job [REDACTED]] ho - job [REDACTED]",
    ]
