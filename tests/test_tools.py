"""The tools that read logs, run for real on files that a served app has written: GoAccess, jq, lnav, rsyslog."""

from __future__ import annotations

import collections
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import textwrap
from pathlib import Path

import pytest

from formats import read_combined, read_logfmt
from support import HANG, log_files, log_lines, run_python, start_python, wait_for

#: Serves an app on a socket and asks it: ``argv[1]`` the options, ``argv[2]`` how many rounds.
SERVED = """
import http.client, sys, threading, time
from flask import Flask, Response, request
from werkzeug.serving import WSGIRequestHandler, make_server
from flask_asynclog import AsyncLog, bind

class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_request(self, *args): pass

app = Flask("shop")
asynclog = AsyncLog(app, console=False, flush_interval=0.01, **eval(sys.argv[1]))

@app.get("/items/<int:number>")
def item(number):
    bind(order=f"o {number}\\n")
    app.logger.info("item %d\\n\\t\\x1b[31m \\"%s\\" \\\\ \\u2028", number, request.args, extra={"ratio": float("nan")})
    return "x" * number

@app.post("/items")
def add():
    return Response(b"made" for _ in range(3)), 201

@app.get("/fail")
def fail():
    raise RuntimeError("no\\nluck")

server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
thread = threading.Thread(target=server.serve_forever)
thread.start()
asked = [
    ("GET", "/items/10?page=1&token=hidden", 'plain/1.0', "http://search.example/?q=tea"),
    ("GET", "/items/0", 'quo"ted \\\\ and \\\\" (back\\\\', 'http://r.example/a"b'),
    ("HEAD", "/items/20", "caf\\xc3\\xa9/2 \\xff", None),
    ("POST", "/items", "a - - [01/Jan/2026:00:00:00 +0000] \\"GET /forged HTTP/1.1\\" 200 5", None),
    ("GET", "/nowhere%0A%22x%20y%5C?a=%00\\"b\\"", "tab\\there", None),
    ("GET", "/fail", "-", "-"),
]
for _ in range(int(sys.argv[2])):
    for method, path, agent, referer in asked:
        client = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
        client.putrequest(method, path, skip_accept_encoding=True)
        client.putheader("User-Agent", agent.encode("latin-1"))
        if referer:
            client.putheader("Referer", referer)
        if method == "POST":
            client.putheader("Content-Length", "0")
        client.endheaders()
        client.getresponse().read()
        client.close()
server.shutdown()
thread.join()
server.server_close()
assert asynclog.flush(60)
asynclog.close()
"""
ACCESS = {"filename": "access.log", "format": "combined", "loggers": ["access"], "request_logger": "access"}
ROUNDS = 20


def tool(name: str, package: str) -> str:
    """Where the tool is; skips the test where it is not."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed; Debian: apt-get install {package}")
    return path


def serve(cwd: Path, rounds: int = ROUNDS, **options: object) -> None:
    """Run the app to its end."""
    run_python(SERVED, repr(options), rounds, cwd=cwd)


def documented(part: str) -> str:
    """The block of the page about formats that has this in it."""
    page = (Path(__file__).resolve().parents[1] / "docs" / "formats.rst").read_text(encoding="utf-8")
    found = re.findall(r"^\.\. code-block:: \w+\n\n((?:   .*\n|\n)+)", page, re.MULTILINE)
    [block] = [textwrap.dedent(text) for text in found if part in text]
    return block


def run(*command: object, cwd: Path, **env: str) -> str:
    """Run a tool to its end, and return what it prints."""
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env={**os.environ, "HOME": str(cwd), "TERM": "xterm", "TZ": "UTC0", **env},
        capture_output=True, timeout=HANG, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode()


# GoAccess.


def test_goaccess_reads_combined(tmp_path: Path) -> None:
    """Every line is valid; requests, statuses, user agents, referrers, methods and bytes are those that were sent."""
    goaccess = tool("goaccess", "goaccess")
    serve(tmp_path, **ACCESS)
    lines = log_lines(tmp_path / "access.log")
    assert len(lines) == 6 * ROUNDS
    arguments = (
        "access.log", "--no-global-config", "--log-format=COMBINED", "--invalid-requests=invalid.log",
        "--agent-list", "--http-method=yes", "--http-protocol=yes", "--no-query-string", "--no-progress",
        "--output=report.json",
    )  # fmt: skip
    run(goaccess, *arguments, cwd=tmp_path)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    general = report["general"]
    assert (general["total_requests"], general["valid_requests"], general["failed_requests"]) == (
        6 * ROUNDS, 6 * ROUNDS, 0,
    )  # fmt: skip
    invalid = tmp_path / "invalid.log"
    assert not invalid.exists() or invalid.read_text() == ""

    def hits(panel: str) -> dict[str, int]:
        found: dict[str, int] = {}
        for entry in report[panel]["data"]:
            for item in entry.get("items", [entry]):
                found[item["data"].split(" - ")[0]] = item["hits"]["count"]
        return found

    assert hits("status_codes") == {"200": 3 * ROUNDS, "201": ROUNDS, "404": ROUNDS, "500": ROUNDS}
    requests = {(entry["method"], entry["data"]): entry["hits"]["count"] for entry in report["requests"]["data"]}
    assert requests == dict.fromkeys(
        [("GET", "/items/10"), ("GET", "/items/0"), ("HEAD", "/items/20"), ("POST", "/items"), ("GET", "/fail")], ROUNDS
    )
    [missing] = report["not_found"]["data"]
    assert missing["hits"]["count"] == ROUNDS
    assert hits("referring_sites") == {"search.example": ROUNDS, "r.example": ROUNDS}
    # What GoAccess calls an agent is the column as it stands.
    columns = [read_combined(line) for line in lines]
    [host] = report["hosts"]["data"]
    assert {*host["items"]} == {column.user_agent for column in columns}
    assert general["bandwidth"] == sum(int(column.size) for column in columns if column.size != "-")
    assert general["bandwidth"] > 12 * ROUNDS
    assert "hidden" not in json.dumps(report)


def test_goaccess_and_a_shared_file(tmp_path: Path) -> None:
    """With the app's other records in the same file these, and nothing else, are invalid: give it a logger."""
    goaccess = tool("goaccess", "goaccess")
    serve(tmp_path, 1, **{**ACCESS, "loggers": [""], "request_logger": None})
    lines = log_lines(tmp_path / "access.log")
    run(goaccess, "access.log", "--no-global-config", "--log-format=COMBINED", "--output=report.json", cwd=tmp_path)
    general = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["general"]
    assert general["valid_requests"] == 6
    assert general["failed_requests"] == len(lines) - 6 > 0


# jq.


@pytest.mark.parametrize("format", ["json", "ecs"])
def test_jq_reads_json(tmp_path: Path, format: str) -> None:
    """Every line is a document, and questions have answers."""
    jq = tool("jq", "jq")
    serve(tmp_path, filename="app.log", format=format)
    lines = log_lines(tmp_path / "app.log")
    assert run(jq, "-c", "type", "app.log", cwd=tmp_path).splitlines() == ['"object"'] * len(lines)
    status, seconds, exception = {
        "json": ("http.response.status_code", '."http.server.request.duration"', "exception.type"),
        "ecs": ("http.response.status_code", '(."event.duration" / 1e9)', "error.type"),
    }[format]
    found = run(jq, "-r", f'select(."{status}") | [."{status}", {seconds} < 60] | @csv', "app.log", cwd=tmp_path)
    assert collections.Counter(found.split()) == {
        "200,true": 3 * ROUNDS, "201,true": ROUNDS, "404,true": ROUNDS, "500,true": ROUNDS,
    }  # fmt: skip
    failed = run(jq, "-r", f'select(."{exception}" == "RuntimeError") | .message', "app.log", cwd=tmp_path)
    assert len([line for line in failed.splitlines() if line == "Exception on /fail [GET]"]) == ROUNDS
    messages = json.loads(run(jq, "-s", "map(.message)", "app.log", cwd=tmp_path))
    assert messages == [json.loads(line)["message"] for line in lines]
    assert run(jq, "-c", "select(.order) | [.order, .ratio]", "app.log", cwd=tmp_path).splitlines()[0] == (
        '["o 10\\n",null]'
    )


# lnav.


def lnav_rows(cwd: Path, file: str, query: str, *arguments: str) -> list[dict[str, str]]:
    """The answer of lnav to an SQL query."""
    lnav = tool("lnav", "lnav")
    text = run(lnav, *arguments, "-n", "-q", "-c", f";{query}", "-c", ":write-csv-to -", file, cwd=cwd)
    return [*csv.DictReader(text.splitlines())]


def test_lnav_reads_combined(tmp_path: Path) -> None:
    """As its ``access_log``."""
    tool("lnav", "lnav")
    serve(tmp_path, **ACCESS)
    rows = lnav_rows(
        tmp_path, "access.log", "SELECT sc_status, count(*) AS n, sum(sc_bytes) AS size FROM access_log GROUP BY 1"
    )
    assert {row["sc_status"]: int(row["n"]) for row in rows} == {
        "200": 3 * ROUNDS, "201": ROUNDS, "404": ROUNDS, "500": ROUNDS,
    }  # fmt: skip
    assert {row["sc_status"]: row["size"] for row in rows}["201"] == str(12 * ROUNDS)


def test_lnav_reads_logfmt(tmp_path: Path) -> None:
    """As its ``logfmt_log``: times and messages. lnav 0.11 sees no level without quotes: all are INFO to it."""
    tool("lnav", "lnav")
    serve(tmp_path, filename="app.log", format="logfmt")
    lines = log_lines(tmp_path / "app.log")
    rows = lnav_rows(tmp_path, "app.log", "SELECT log_time, log_body FROM logfmt_log")
    assert len(rows) == len(lines)
    for row, line in zip(rows, lines, strict=True):
        pairs = read_logfmt(line)
        assert row["log_time"].replace(" ", "T") == pairs["ts"][:23]
        assert read_logfmt(f"msg={row['log_body']}")["msg"] == pairs["msg"]


def test_lnav_reads_json(tmp_path: Path) -> None:
    """With the format of the documentation."""
    tool("lnav", "lnav")
    serve(tmp_path, filename="app.log", format="json")
    formats = tmp_path / "lnav" / "formats" / "flask_asynclog"
    formats.mkdir(parents=True)
    (formats / "flask_asynclog.json").write_text(documented('"timestamp-field"'))
    rows = lnav_rows(
        tmp_path,
        "app.log",
        "SELECT log_level, count(*) AS n FROM flask_asynclog GROUP BY 1",
        "-I",
        str(formats.parents[1]),
    )
    levels = collections.Counter(json.loads(line)["level"].lower() for line in log_lines(tmp_path / "app.log"))
    assert {row["log_level"]: int(row["n"]) for row in rows} == levels


# rsyslog.


@pytest.mark.parametrize("format", ["json", "text"])
def test_rsyslog_follows_rotation(tmp_path: Path, format: str) -> None:
    """imfile reads the live file while it is written and rotated; each record arrives once, whole and in order."""
    rsyslogd = tool("rsyslogd", "rsyslog")
    (tmp_path / "state").mkdir()
    config, pid = tmp_path / "rsyslog.conf", tmp_path / "rsyslog.pid"
    config.write_text(documented("imfile").replace("/srv/demo", str(tmp_path)))
    copy = tmp_path / "copy"
    process = subprocess.Popen(
        [rsyslogd, "-n", "-f", str(config), "-i", str(pid)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, cwd=tmp_path,
    )  # fmt: skip
    try:
        wait_for(lambda: pid.exists() or process.poll() is not None, HANG, "rsyslog's start")
        options = {"filename": "app.log", "format": format, "max_bytes": 100_000, "backup_count": 50}
        app = start_python(SERVED, repr(options), 4 * ROUNDS, cwd=tmp_path)
        out, error = app.communicate(timeout=HANG)
        assert app.returncode == 0, f"{out}\n{error}"
        lines = log_lines(tmp_path / "app.log")
        assert len(log_files(tmp_path / "app.log")) > 2

        def copied() -> list[str]:
            return copy.read_text(encoding="utf-8").splitlines() if copy.exists() else []

        wait_for(lambda: len(copied()) >= len(lines) or process.poll() is not None, HANG, "the last line's arrival")
        assert process.poll() is None
        assert copied() == lines
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
