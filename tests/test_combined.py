"""The combined format: columns and escapes as Apache has them, whatever clients send."""

from __future__ import annotations

import locale
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask, Response
from hypothesis import example, given
from hypothesis import strategies as st
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_asynclog import AsyncLog
from flask_asynclog.combined import CombinedFormatter, escape_apache
from flask_asynclog.redaction import Redactor
from flask_asynclog.source import Source
from formats import CREATED, make_outcome, make_record, read_combined, unescape_apache
from support import HANG, assert_conserved, log_lines

MakeApp = Callable[..., tuple[Flask, AsyncLog]]


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The local time is UTC."""
    yield from in_zone(monkeypatch, "UTC0")


def in_zone(monkeypatch: pytest.MonkeyPatch, zone: str) -> Iterator[None]:
    """The local time is that of ``zone``."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def line_of(status: str = "200 OK", size: str | None = "27", source: Source | None = None, **environ: object) -> str:
    """The line of the response to such a request."""
    return CombinedFormatter().format_entry(make_outcome(status, size, source, **environ))


# The line.


def test_an_ordinary_line(utc: None) -> None:
    """Host, user, time of the request, first line of the request, status, bytes, referer, user agent."""
    line = line_of(REMOTE_ADDR="192.0.2.1", HTTP_REFERER="http://r.example/", HTTP_USER_AGENT="curl/8 (x; y)")
    assert line == (
        '192.0.2.1 - - [15/Jan/2027:08:00:00 +0000] "GET /hello/bob HTTP/1.1" 200 27 '
        '"http://r.example/" "curl/8 (x; y)"'
    )


def test_what_is_missing(utc: None) -> None:
    """``-`` for address, user, referer, user agent and for no bytes; HTTP/1.0 for a server that says nothing."""
    line = line_of("204 NO CONTENT", None, SERVER_PROTOCOL="", REMOTE_ADDR="", HTTP_USER_AGENT="")
    assert line == '- - - [15/Jan/2027:08:00:00 +0000] "GET /hello/bob HTTP/1.0" 204 - "-" "-"'


@pytest.mark.parametrize(
    ("status", "size", "method", "shown"),
    [
        ("200 OK", "0", "GET", "-"),
        ("200 OK", "1234", "GET", "1234"),
        ("200 OK", "1234", "HEAD", "-"),
        ("304 NOT MODIFIED", "1234", "GET", "-"),
        ("200 OK", None, "GET", "-"),
        ("200 OK", "many", "GET", "-"),
    ],
)
def test_bytes(status: str, size: str | None, method: str, shown: str) -> None:
    """Those of the body that was sent, as Apache's ``%b``: none for HEAD and 304, ``-`` for 0 and for unknown."""
    columns = read_combined(line_of(status, size, REQUEST_METHOD=method))
    assert (columns.size, columns.request.split()[0]) == (shown, method)


@pytest.mark.parametrize(("status", "shown"), [("418 I'M A TEAPOT", "418"), ("0 wow", "000"), ("", "000")])
def test_status(status: str, shown: str) -> None:
    """Three digits, as of nginx ``000`` for a status that is none: the columns stay."""
    assert read_combined(line_of(status)).status == shown


# Time.


@pytest.mark.parametrize(
    ("zone", "time"),
    [
        ("UTC0", "15/Jan/2027:08:00:00 +0000"),
        ("IST-5:30", "15/Jan/2027:13:30:00 +0530"),
        ("NST3:30NDT,M3.2.0,M11.1.0", "15/Jan/2027:04:30:00 -0330"),
        ("<+14>-14", "15/Jan/2027:22:00:00 +1400"),
        ("<-12>12", "14/Jan/2027:20:00:00 -1200"),
    ],
)
def test_time_zones(monkeypatch: pytest.MonkeyPatch, zone: str, time: str) -> None:
    """Local time with its offset."""
    for _ in in_zone(monkeypatch, zone):
        assert read_combined(line_of()).time == time


def test_summer_and_winter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The offset is that of the request's moment, forth and back, and the time is its coming, not its end."""
    for _ in in_zone(monkeypatch, "CET-1CEST,M3.5.0,M10.5.0/3"):
        formatter, outcome = CombinedFormatter(), make_outcome()
        outcome.seconds = 1e6
        times: list[str] = []
        for created in (CREATED, CREATED + 86400 * 180, CREATED):
            outcome.exchange.created = created
            times.append(read_combined(formatter.format_entry(outcome)).time)
        assert times == ["15/Jan/2027:09:00:00 +0100", "14/Jul/2027:10:00:00 +0200", "15/Jan/2027:09:00:00 +0100"]


def test_months_are_english(utc: None) -> None:
    """Whatever the language of the locale."""
    before = locale.setlocale(locale.LC_TIME)
    for name in ("de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "es_ES.UTF-8", "ru_RU.UTF-8", "ja_JP.UTF-8"):
        try:
            locale.setlocale(locale.LC_TIME, name)
            break
        except locale.Error:
            continue
    else:
        pytest.skip("no locale of another language; Debian: apt-get install locales-all")
    try:
        months: list[str] = []
        outcome = make_outcome()
        for month in range(12):
            outcome.exchange.created = CREATED + month * 30.5 * 86400
            months.append(read_combined(CombinedFormatter().format_entry(outcome)).time[3:6])
    finally:
        locale.setlocale(locale.LC_TIME, before)
    assert months == ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


# Escapes.


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        (b'a "quoted" b', r"a \"quoted\" b"),
        (b"back\\slash\\", r"back\\slash\\"),
        (b"\\x41", r"\\x41"),
        (b"a\nb\rc\td\x08e\x0bf", r"a\nb\rc\td\be\vf"),
        (b"\x00\x07\x0c\x1b[31m\x7f", r"\x00\x07\x0c\x1b[31m\x7f"),
        ("caf\u00e9 \u65e5".encode(), r"caf\xc3\xa9 \xe6\x97\xa5"),
        (b"\xff\xe9\x85", r"\xff\xe9\x85"),
        (b"\xed\xa0\x80", r"\xed\xa0\x80"),
    ],
)
def test_escapes_are_apaches(sent: bytes, shown: str) -> None:
    """``ap_escape_logitem``: byte by byte, in lower case, with the short forms that it has."""
    header = sent.decode("latin-1")
    columns = read_combined(line_of(HTTP_USER_AGENT=header, HTTP_REFERER=header))
    assert (columns.user_agent, columns.referer) == (shown, shown)
    assert unescape_apache(columns.user_agent) == sent


@given(st.binary(max_size=40))
@example(bytes(range(256)))
def test_any_bytes_come_back(sent: bytes) -> None:
    """What a client sent can be read out of the line, byte by byte."""
    columns = read_combined(line_of(HTTP_USER_AGENT="x" + sent.decode("latin-1")))
    assert unescape_apache(columns.user_agent) == b"x" + sent


@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=20))
def test_any_text_is_printable_ascii(text: str) -> None:
    """Also what is no byte, such as a user name with half a surrogate pair."""
    escaped = escape_apache(text)
    assert escaped.isascii()
    assert escaped == "" or escaped.isprintable()
    if max(text, default="") < "\ud800":
        assert unescape_apache(escaped) == text.encode()


@pytest.mark.parametrize(
    ("environ", "user", "shown"),
    [
        ({"REMOTE_USER": "bob"}, None, "bob"),
        ({}, "alice", "alice"),
        ({"REMOTE_USER": "bob"}, "alice", "bob"),
        ({"REMOTE_USER": 'a b\tc"d\\'}, None, r"a\x20b\tc\"d\\"),
        ({"REMOTE_USER": "J\u00fcrgen".encode().decode("latin-1")}, None, r"J\xc3\xbcrgen"),
        ({}, "J\u00fcrgen \u65e5", r"J\xc3\xbcrgen\x20\xe6\x97\xa5"),
        ({}, "\ud800", r"\xed\xa0\x80"),
        ({"REMOTE_USER": ""}, "", "-"),
    ],
)
def test_users(environ: dict[str, str], user: str | None, shown: str) -> None:
    """The server's, or Flask-Login's; one column, with blanks escaped."""
    outcome = make_outcome(**environ)
    outcome.exchange.user = user
    assert read_combined(CombinedFormatter().format_entry(outcome)).user == shown


@pytest.mark.parametrize(
    ("environ", "shown"),
    [
        ({"PATH_INFO": '/a "b\\c'}, "GET /a%20%22b%5Cc HTTP/1.1"),
        ({"PATH_INFO": "/\x00\n\x1b[31m"}, "GET /%00%0A%1B[31m HTTP/1.1"),
        ({"PATH_INFO": "/caf\u00e9".encode().decode("latin-1")}, "GET /caf%C3%A9 HTTP/1.1"),
        ({"SCRIPT_NAME": "/shop", "PATH_INFO": "/x", "QUERY_STRING": "a=%20&b"}, "GET /shop/x?a=%20&b HTTP/1.1"),
        ({"QUERY_STRING": 'a="\\'}, r"GET /hello/bob?a=\"\\ HTTP/1.1"),
        ({"QUERY_STRING": "a=\xc3\xa9&b=[x y]|\xff"}, r"GET /hello/bob?a=\xc3\xa9&b=[x%20y]|\xff HTTP/1.1"),
        ({"PATH_INFO": "/100%25"}, "GET /100%2525 HTTP/1.1"),
        ({"PATH_INFO": "/a?b#c"}, "GET /a%3Fb%23c HTTP/1.1"),
        ({"REQUEST_METHOD": 'G"T'}, r"G\"T /hello/bob HTTP/1.1"),
        ({"SERVER_PROTOCOL": 'HTTP/1.1"\n'}, r"GET /hello/bob HTTP/1.1\"\n"),
        ({"HTTP_HOST": 'ev"il\n'}, "GET /hello/bob HTTP/1.1"),
    ],
)
def test_the_request(environ: dict[str, str], shown: str) -> None:
    """Method, path and query as they stand in the request's first line, quoted as a URL is."""
    assert read_combined(line_of(**environ)).request == shown


def test_addresses_from_proxies(make_app: MakeApp) -> None:
    """What a client makes up as its address stays in its column."""
    app, asynclog = make_app(format="combined", request_logger="proxied", loggers=["proxied"])
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]
    client = app.test_client()
    for address in ("2001:db8::1", "x - - [evil] GET /", "fe80::1%eth0"):
        client.get("/", environ_overrides={"HTTP_X_FORWARDED_FOR": address})
    assert asynclog.flush(HANG)
    columns = [read_combined(line) for line in log_lines(Path("app.log"))]
    assert [c.client for c in columns] == ["2001:db8::1", r"x\x20-\x20-\x20[evil]\x20GET\x20/", "fe80::1%eth0"]


# Secrets.


def test_secrets_are_taken_out() -> None:
    """Of the query, of the referer, of parameters of the path; and by patterns everywhere."""
    source = Source("demo", redactor=Redactor(patterns=[__import__("re").compile(r"\b\d{16}\b")]))
    columns = read_combined(
        line_of(
            source=source, QUERY_STRING="a=1&password=x&b=2", HTTP_REFERER="http://u:pw@r.example/?api_key=x",
            HTTP_USER_AGENT="bot 1234123412341234", PATH_INFO="/card/1234123412341234;jsessionid=abc",
        )
    )  # fmt: skip
    assert columns.request == ("GET /card/[REDACTED];jsessionid=[REDACTED]?a=1&password=[REDACTED]&b=2 HTTP/1.1")
    assert columns.referer == "http://u:[REDACTED]@r.example/?api_key=[REDACTED]"
    assert columns.user_agent == "bot [REDACTED]"


def test_parameters_of_the_path_without_a_query() -> None:
    """``;jsessionid=…`` is a secret in every format, also where there is nothing else."""
    outcome = make_outcome(PATH_INFO="/a;jsessionid=abc/b")
    assert read_combined(CombinedFormatter().format_entry(outcome)).request == ("GET /a;jsessionid=[REDACTED] HTTP/1.1")
    assert "abc" not in f"{outcome} {outcome.exchange} {outcome.fields()}"


# The file.


def test_a_file_of_its_own(make_app: MakeApp) -> None:
    """One line per request, all of them responses, of whatever kind; ordinary records go elsewhere."""
    app, asynclog = make_app(filename="access.log", format="combined", loggers=["access"], request_logger="access")

    @app.get("/stream")
    def stream() -> Response:
        return Response(part for part in (b"ab", b"cde"))

    @app.get("/fail")
    def fail() -> str:
        raise RuntimeError("no\nluck")

    client = app.test_client()
    for method, path in (("GET", "/stream"), ("HEAD", "/stream"), ("GET", "/fail"), ("GET", '/no "where')):
        client.open(path, method=method, environ_overrides={"HTTP_USER_AGENT": 'a"b'}).get_data()
    app.logger.warning("not here")
    assert asynclog.flush(HANG)
    columns = [read_combined(line) for line in log_lines(Path("access.log"))]
    assert [(c.request, c.status) for c in columns] == [
        ("GET /stream HTTP/1.1", "200"),
        ("HEAD /stream HTTP/1.1", "200"),
        ("GET /fail HTTP/1.1", "500"),
        ("GET /no%20%22where HTTP/1.1", "404"),
    ]
    assert [c.size for c in columns[:2]] == ["5", "-"]
    assert {(c.client, c.user_agent) for c in columns} == {("127.0.0.1", r"a\"b")}
    assert_conserved(asynclog.stats())


def test_other_records_are_text_lines(make_app: MakeApp) -> None:
    """With a file for all: nothing is lost, and each is one line."""
    app, asynclog = make_app(format="combined")
    app.logger.warning("a\nb")
    app.test_client().get("/x")
    try:
        raise ValueError("c\nd")
    except ValueError:
        app.logger.exception("failed")
    assert asynclog.flush(HANG)
    first, second, third = log_lines(Path("app.log"))
    assert first.endswith(" - WARNING - a\\nb")
    assert read_combined(second).status == "404"
    assert " - ERROR - failed\\nTraceback (most recent call last):\\n" in third
    assert third.endswith("ValueError: c\\nd")
    assert CombinedFormatter().format(make_record("x")).endswith(" - demo - INFO - x")
    assert_conserved(asynclog.stats())
