"""gunicorn's access and error log through our logger: what their lines say, whatever clients send, and where to."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import threading
from collections import Counter
from pathlib import Path
from signal import SIGTERM
from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flask_asynclog.gunicorn import EscapedAtoms
from logged_server import FILES, configure, get, serve, tags
from matrix.serving import Server
from matrix.traffic import Clients
from support import HANG, log_lines

#: A field in quotes, and what is in it: as the parsers of Apache's logs see it.
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
#: What is in no line, whatever was sent.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def unescape(text: str) -> str:
    """What was sent, from a field of a line."""

    def plain(match: re.Match[str]) -> str:
        code = match[1] or match[2]
        return chr(int(code, 16)) if code else {"n": "\n", "r": "\r", "t": "\t"}.get(match[3], match[3])

    return re.sub(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|(.))", plain, text)


def fields(line: str) -> list[str]:
    """The quoted fields of a line, as they were sent; fails on anything else in it."""
    assert re.fullmatch(rf"{QUOTED.pattern}(?: {QUOTED.pattern})*", line), f"not only fields in quotes: {line!r}"
    return [unescape(match[1]) for match in QUOTED.finditer(line)]


@given(text=st.text() | st.text('"\\\r\n\t\x1b\x9bnx0\u2028\ud800 -'), other=st.text())
@example("\\", '" "forged')
@example('x" 200 "-', "\\n\n")
def test_any_text_parses_back(text: str, other: str) -> None:
    """Two fields on a line: it is one line without control characters, and both are as they were."""
    line = '"%(U)s" "%({User-Agent}i)s"' % EscapedAtoms({"U": text, "{user-agent}i": other})
    assert not CONTROL.search(line)
    assert fields(line) == [text, other]


def test_other_atoms() -> None:
    """As in gunicorn: an atom that is not there is ``-``, numbers stay numbers, header names are in any case."""
    atoms = EscapedAtoms({"B": 3, "D": 12345, "{x-a}i": "b"})
    assert "%(B)05d %(D)s %({X-A}i)s %({x-missing}o)s %(missing)s" % atoms == "00003 12345 b - -"


def ask(server: Server, path: str, headers: dict[str, str]) -> int:
    """One request whose headers may have every character that HTTP can carry; the answer's status."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=HANG / 4)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def test_forged_requests(tmp_path: Path) -> None:
    """Quotes, backslashes, line ends, ESC and CSI in every part of a request: one line each, and nothing is lost."""
    atoms = ("u", "r", "U", "q", "f", "a", "{X-Thing}i", "{x-echo}o", "{raw_uri}e", "s")
    sent = [
        'b"ob\\', '" 200 0 "-" "', "x\\", 'x\r\n127.0.0.1 - - [] "GET /forged HTTP/1.1" 200', "\\n\n\\r\r\\x1b\x1b[2J",
        "\x9b31m red", "\\\"\\\\\"", "tab\tbed \u2028\x85 \u00e9\u20ac", "%(a)s %s",
    ]  # fmt: skip
    expected: Counter[tuple[str, ...]] = Counter()
    with serve(tmp_path, *FILES, "--access-logformat", " ".join(f'"%({atom})s"' for atom in atoms)) as server:
        for text in sent:
            for page in ("/echo", f"/{quote(text, safe='')}"):
                header = re.sub("[\x00-\x08\x0a-\x1f\x7f]", "", text).encode("latin-1", "ignore").decode("latin-1")
                path = f'{page}?q="\\{quote(text)}"'
                user = "Basic " + base64.b64encode(f"{text}:secret".encode()).decode()
                about = {"Referer": header, "User-Agent": header, "X-Thing": header, "Authorization": user}
                status = ask(server, path, about)
                inside = unquote_to_bytes(page).decode("latin-1")
                echoed = header if status == 200 else "-"
                request = f"GET {path} HTTP/1.1"
                query = path.partition("?")[2]
                expected[text, request, inside, query, header, header, header, echoed, path, str(status)] += 1
        server.end(SIGTERM)
        assert server.output() == ""
    lines = log_lines(tmp_path / "access.log")
    assert Counter(tuple(fields(line)) for line in lines) == expected
    assert {key[-1] for key in expected} == {"200", "404"}
    assert not any(CONTROL.search(line) for line in lines)


def test_a_request_that_gunicorn_refuses(tmp_path: Path) -> None:
    """What it says about a malformed request, with the client's bytes in it, is one line of the error log."""
    with serve(tmp_path, *FILES, "--log-level", "debug", workers=1) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=HANG / 4)
        connection.connect()
        connection.sock.sendall(b"GET /\x1b[2J\x9b HTTP/1.1\x1b[31m x\r\nHost: x\r\n\r\n")
        assert connection.sock.recv(100).startswith(b"HTTP/1.1 400")
        connection.close()
        server.end(SIGTERM)
        assert server.output() == ""
    lines = [line for line in log_lines(tmp_path / "error.log") if "Invalid request from ip=127.0.0.1" in line]
    assert len(lines) == 1
    assert not any(map(CONTROL.search, log_lines(tmp_path / "error.log") + log_lines(tmp_path / "access.log")))


def test_the_atoms_of_gunicorn(tmp_path: Path) -> None:
    """All of them, those of headers and environment too, have the values that gunicorn gives them."""
    meant = {
        "h": "127.0.0.1", "l": "-", "u": "me", "t": r"\[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]",
        "r": r"GET /ready\?a=%20b HTTP/1\.1", "m": "GET", "U": "/ready", "q": "a=%20b", "H": r"HTTP/1\.1", "s": "200",
        "b": r"\d+", "B": r"\d+", "f": "-", "a": "agent", "T": "0", "D": r"\d+", "M": r"\d+", "L": r"0\.\d{6}",
        "p": r"<\d+>", "{User-Agent}i": "agent", "{x-none}i": "-", "{Content-Type}o": "application/json",
        "{request_method}e": "GET", "nothing": "-",
    }  # fmt: skip
    with serve(tmp_path, *FILES, "--access-logformat", " ".join(f"{name}=%({name})s" for name in meant)) as server:
        user = "Basic " + base64.b64encode(b"me:secret").decode()
        assert ask(server, "/ready?a=%20b", {"User-Agent": "agent", "Authorization": user}) == 200
        server.end(SIGTERM)
    (line,) = log_lines(tmp_path / "access.log")
    assert re.fullmatch(" ".join(f"{re.escape(name)}={value}" for name, value in meant.items()), line)


def test_tabs_of_the_format(tmp_path: Path) -> None:
    """A format with TABs between the fields keeps them; a TAB that a client has sent is escaped."""
    with serve(tmp_path, *FILES, "--access-logformat", "%(h)s\t%(m)s\t%(U)s\t%(s)s\t%(a)s") as server:
        assert ask(server, "/ready", {"User-Agent": "a\tb"}) == 200
        server.end(SIGTERM)
    assert log_lines(tmp_path / "access.log") == ["127.0.0.1\tGET\t/ready\t200\ta\\tb"]


def test_json(tmp_path: Path) -> None:
    """``access_log_format = "json"``: one object per request, with what was sent, under OpenTelemetry's names."""
    evil = 'x"\\\x9b\u00e9'
    user = "Basic " + base64.b64encode(b"bo\nb:secret").decode()
    with serve(tmp_path, *FILES, "--access-logformat", "json", worker="gthread") as server:
        about = {"User-Agent": evil, "Referer": evil, "Authorization": user}
        assert ask(server, f'/{quote(evil)}%0d%0a?q="%0a"', about) == 404
        assert ask(server, "/ready", {}) == 200
        server.end(SIGTERM)
        assert server.output() == ""
    lines = log_lines(tmp_path / "access.log")
    assert not any(CONTROL.search(line) for line in lines)
    forged, plain = map(json.loads, lines)
    inside = f"/{evil}\r\n".encode().decode("latin-1")
    assert forged["url.path"] == inside
    assert forged["url.query"] == 'q="%0a"'
    assert [forged["user_agent.original"]] == forged["http.request.header.referer"] == [evil]
    assert forged["user.name"] == "bo\nb"
    assert forged["client.address"] == "127.0.0.1"
    assert forged["http.response.status_code"] == 404
    assert plain["http.request.method"] == "GET"
    assert plain["network.protocol.version"] == "1.1"
    assert plain["message"] == '"GET /ready HTTP/1.1" 200'
    assert plain["logger"] == "gunicorn.access"
    assert plain["http.response.body.size"] > 0
    assert 0 <= plain["http.server.request.duration"] < HANG
    assert not plain.keys() & {"url.query", "user.name", "user_agent.original", "http.request.header.referer"}


@pytest.mark.parametrize("form", ["%(r)s", "json"])
def test_an_access_record_that_cannot_be_made(tmp_path: Path, form: str) -> None:
    """A filter that raises costs no answer; the error log says why there is no line."""
    broken = "def post_fork(server, worker):\n    worker.log.access_log.addFilter(lambda record: 1 / 0)\n"
    configure(tmp_path, broken)
    with serve(tmp_path, *FILES, "--access-logformat", form, workers=1) as server:
        get(server, "/ready")
        get(server, "/ready")
        server.end(SIGTERM)
    lines = log_lines(tmp_path / "error.log")
    assert sum("ZeroDivisionError: division by zero" in line for line in lines) == 2
    assert not any("Error handling request" in line for line in lines)
    assert log_lines(tmp_path / "access.log") == []


@pytest.mark.parametrize("form", ["text", "json"])
def test_excluded_paths(tmp_path: Path, form: str) -> None:
    """Paths in ``ASYNCLOG_EXCLUDE_PATHS`` leave no access line; what they look like otherwise does not matter."""
    options = [*FILES, "-e", 'ASYNCLOG_EXCLUDE_PATHS=["/ready", "/tag/quiet*", "/caf\\u00e9"]']
    with serve(tmp_path, *options, *(["--access-logformat", "json"] if form == "json" else [])) as server:
        for path in ("/ready", "/ready?x=1", "/%72eady", "/tag/quiet-1", "/tag/loud"):
            get(server, path)
        assert ask(server, "/caf%C3%A9", {}) == 404
        assert ask(server, "/ready/", {}) == 404
        server.end(SIGTERM)
    lines = sorted(log_lines(tmp_path / "access.log"), key=lambda line: "GET /ready/" in line)  # of two workers
    assert len(lines) == 2
    assert "GET /tag/loud" in lines[0]
    assert "GET /ready/" in lines[1]


# Not files: as in gunicorn.


def test_streams(tmp_path: Path) -> None:
    """``-`` for both: all lines on stdout and stderr, escaped too, and no file is made."""
    with serve(tmp_path, "--access-logfile", "-", "--error-logfile", "-") as server:
        clients = Clients(server, 2)
        clients.ask(10)
        assert ask(server, "/x%0aforged", {"User-Agent": '"\\'}) == 404
        server.end(SIGTERM)
        output = server.output().splitlines()
    access = [line for line in output if line.startswith("127.0.0.1 ")]
    assert access.pop().endswith(r' "GET /x%0aforged HTTP/1.1" 404 207 "-" "\"\\"')
    assert tags(access) == dict.fromkeys(clients.answered, 1)
    assert sum("Shutting down: Master" in line for line in output) == 1
    assert not [file.name for file in tmp_path.glob("*.log") if file.name != "app.log"]
    assert not (tmp_path / "-").exists()


def test_json_on_a_stream(tmp_path: Path) -> None:
    """A container's way: JSON lines on stdout."""
    options = ("--access-logfile", "-", "--error-logfile", "error.log", "--access-logformat", "json")
    with serve(tmp_path, *options) as server:
        get(server, "/ready")
        server.end(SIGTERM)
        (line,) = server.output().splitlines()
    document = json.loads(line)
    assert document["url.path"] == "/ready"
    assert not [name for name in document if name.startswith("code.")]  # it would be a place in this library


@pytest.mark.parametrize("log", ["-", "access.log"])
def test_json_without_secrets(tmp_path: Path, log: str) -> None:
    """Whether a thread writes the lines or gunicorn itself: query, path and referer as in lines of text."""
    options = ("--access-logfile", log, "--error-logfile", "error.log", "--access-logformat", "json")
    query = "q:x=1&token=hunter2"  # no form, by its beginning
    with serve(tmp_path, *options) as server:
        ask(server, f"/ready;jsessionid=hunter2?{query}", {"Referer": f"http://x/?{query}#{query}"})
        server.end(SIGTERM)
        (line,) = log_lines(tmp_path / log) if log != "-" else server.output().splitlines()
    document = json.loads(line)
    assert "hunter2" not in line
    assert document["url.path"] == "/ready;jsessionid=[REDACTED]"
    assert document["url.query"] == "q:x=1&token=[REDACTED]"
    assert document["http.request.header.referer"] == ["http://x/?q:x=1&token=[REDACTED]#q:x=1&token=[REDACTED]"]


def test_lines_without_secrets() -> None:
    """Atoms that have parts of the URL, and those of the environment that have."""
    query, path = "q:x=1&token=hunter2", "/ready;jsessionid=hunter2"
    atoms = {"U": path, "q": query, "r": f"GET {path}?{query} HTTP/1.1", "{query_string}e": query}
    atoms |= {"{raw_uri}e": f"{path}?{query}", "{path_info}e": path, "{referer}i": f"http://x{path}?{query}"}
    line = " ".join(f"%({name})s" for name in atoms) % EscapedAtoms(atoms)
    assert "hunter2" not in line
    assert line.count("[REDACTED]") == 10


def test_devices(tmp_path: Path) -> None:
    """``/dev/stdout`` stays gunicorn's, and gets no lock file beside it."""
    before = set(Path("/dev").glob(".__*"))
    with serve(tmp_path, "--access-logfile", "/dev/stdout", "--error-logfile", "/dev/null") as server:
        clients = Clients(server, 2)
        clients.ask(10)
        server.end(SIGTERM)
        assert tags(server.output().splitlines()) == dict.fromkeys(clients.answered, 1)
    assert set(Path("/dev").glob(".__*")) <= before


def test_a_pipe(tmp_path: Path) -> None:
    """A FIFO as access log, for a program that reads it: every line, and no rotation of it."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.extend(fifo.read_text().splitlines()))
    # Kept open, as such a program does: gunicorn opens and closes it more than once.
    kept = os.open(fifo, os.O_RDWR)
    reader.start()
    try:
        options = ("--access-logfile", "fifo", "--error-logfile", "error.log", "-e", "ASYNCLOG_MAX_BYTES=1000")
        with serve(tmp_path, *options) as server:
            clients = Clients(server, 2)
            clients.ask(20)
            server.end(SIGTERM)
            assert server.output() == ""
    finally:
        os.close(kept)
        reader.join(HANG / 4)
    assert tags(read) == dict.fromkeys(clients.answered, 1)
    assert fifo.is_fifo()
    assert not list(tmp_path.glob("*fifo.*"))


# Configurations of logging.

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"mine": {"format": "MINE %(message)s"}},
    "handlers": {
        "access": {"class": "logging.FileHandler", "filename": "configured.log", "formatter": "mine"},
        "error": {
            "class": "flask_asynclog.handlers.AsyncRotatingFileHandler", "filename": "ours.log", "formatter": "mine",
            "max_bytes": 2000, "backup_count": 100,
        },
    },
    "root": {"level": "INFO", "handlers": []},
    "loggers": {
        "gunicorn.error": {"level": "INFO", "handlers": ["error"], "propagate": False},
        "gunicorn.access": {"level": "INFO", "handlers": ["access"], "propagate": False},
    },
}  # fmt: skip
INI = """
[loggers]
keys = root, gunicorn.error, gunicorn.access
[handlers]
keys = access, error
[formatters]
keys = mine
[logger_root]
handlers =
[logger_gunicorn.error]
qualname = gunicorn.error
level = INFO
propagate = 0
handlers = error
[logger_gunicorn.access]
qualname = gunicorn.access
level = INFO
propagate = 0
handlers = access
[handler_access]
class = FileHandler
args = ("configured.log",)
formatter = mine
[handler_error]
class = flask_asynclog.handlers.AsyncRotatingFileHandler
args = ("ours.log",)
kwargs = {"max_bytes": 2000, "backup_count": 100}
formatter = mine
[formatter_mine]
format = MINE %(message)s
"""


@pytest.mark.parametrize("given_as", ["dict", "json", "ini"])
def test_a_configuration_of_logging(tmp_path: Path, given_as: str) -> None:
    """``logconfig_dict``, ``--log-config-json`` and ``--log-config``: the loggers are as they say, and nowhere else."""
    (tmp_path / "logging.json").write_text(json.dumps(LOGGING))
    (tmp_path / "logging.ini").write_text(INI)
    configure(tmp_path, f"logconfig_dict = {LOGGING}" if given_as == "dict" else "")
    options = {"dict": [], "json": ["--log-config-json", "logging.json"], "ini": ["--log-config", "logging.ini"]}
    with serve(tmp_path, *FILES, *options[given_as]) as server:
        clients = Clients(server, 2)
        clients.ask(30)
        server.end(SIGTERM)
        assert server.output() == ""
        assert tags([line.removeprefix("MINE ") for line in log_lines(tmp_path / "configured.log")]) == dict.fromkeys(
            clients.answered, 1
        )
        errors = log_lines(tmp_path / "ours.log")
        assert all(line.startswith("MINE ") for line in errors)
        for pid in server.pids("booted"):
            assert errors.count(f"MINE Booting worker with pid: {pid}") == 1
    assert log_lines(tmp_path / "access.log") == log_lines(tmp_path / "error.log") == []
