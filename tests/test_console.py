"""The console: for people on a terminal, text lines elsewhere; coloured where that is wanted; nothing of a client's."""

from __future__ import annotations

import io
import logging
import os
import re
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from flask_asynclog import AsyncLog
from flask_asynclog.consoleformat import ConsoleFormatter, is_terminal
from flask_asynclog.formatters import TextFormatter
from formats import assert_one_line, make_outcome, make_record
from support import HANG, run_python

MakeApp = Callable[..., tuple[Flask, AsyncLog]]

#: An app with records of all levels, statuses of all kinds, and a client that means no good.
APP = """
import logging, sys
from flask import Flask
from flask_asynclog import AsyncLog

app = Flask("demo")
asynclog = AsyncLog(app, level="DEBUG", **eval(sys.argv[1]))
app.logger.setLevel("DEBUG")

@app.get("/<int:status>")
def answer(status):
    return "", status

@app.get("/fail")
def fail():
    raise RuntimeError("no\\x1b]0;title\\x07\\nluck")

client = app.test_client()
for path in ("/200", "/302", "/404", "/503", "/fail", "/%1b[2J%0d"):
    client.get(path)
for level in (10, 20, 30, 40, 50):
    app.logger.log(level, "a \\x1b[31mred\\x9b1m\\r\\n message")
assert asynclog.flush(60)
asynclog.close()
"""
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
DIM, RESET = "\x1b[2m", "\x1b[0m"


def on_terminal(cwd: Path, options: str = "{}", **environment: str) -> str:
    """What a terminal gets as the app's stderr."""
    master, slave = os.openpty()
    try:
        plain = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "TERM")}
        done = run_python(APP, options, cwd=cwd, stderr=slave, env={**plain, "TERM": "xterm", **environment})
        assert done.stdout == ""
        data = b""
        while select.select([master], [], [], 0.2)[0]:
            data += os.read(master, 65536)
    finally:
        os.close(master)
        os.close(slave)
    return data.decode().replace("\r\n", "\n")  # as the terminal's own driver makes it


def responses(text: str) -> list[str]:
    """Those of the lines."""
    return [line for line in text.splitlines() if "Response" in line]


def test_a_terminal_gets_colours(tmp_path: Path) -> None:
    """By level and by status; time, level and logger are columns; tracebacks are indented."""
    text = on_terminal(tmp_path)
    shown = [re.search(r"Response (\x1b\[\d+m)(\d{3}) [A-Z ]+\x1b\[0m GET", line) for line in responses(text)]
    assert [(m[2], m[1]) for m in shown if m] == [
        ("200", "\x1b[32m"), ("302", "\x1b[36m"), ("404", "\x1b[33m"), ("503", "\x1b[31m"), ("500", "\x1b[31m"),
        ("404", "\x1b[33m"),
    ]  # fmt: skip
    levels = [re.search(r"(\x1b\[[0-9;]+m)([A-Z]+) *\x1b\[0m", line) for line in text.splitlines()[-5:]]
    assert [(m[2], m[1]) for m in levels if m] == [
        ("DEBUG", DIM), ("INFO", "\x1b[32m"), ("WARNING", "\x1b[33m"), ("ERROR", "\x1b[31m"),
        ("CRITICAL", "\x1b[1;31m"),
    ]  # fmt: skip
    for line in ESCAPE.sub("", text).splitlines():
        assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} [A-Z]{4,8} +demo: .+|    .+", line), line
        assert line.startswith("    ") or line[22:28] == "demo: "
    assert "\n    Traceback (most recent call last):\n      File " in text


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}], ids=["coloured", "plain"])
def test_nothing_of_a_client_moves_the_cursor(tmp_path: Path, environment: dict[str, str]) -> None:
    """The only control characters are our colours and line ends, whatever paths, messages and exceptions have."""
    text = on_terminal(tmp_path, **environment)
    left = ESCAPE.sub("", text) if not environment else text
    for line in left.splitlines():
        assert_one_line(line)
    assert {*ESCAPE.findall(text)} <= {RESET, DIM, *(f"\x1b[{n}m" for n in (31, 32, 33, 36)), "\x1b[1;31m"}
    assert "a \\x1b[31mred\\x9b1m\\r\\n message" in left
    assert "GET /\\x1b[2J\\r" in left
    assert "RuntimeError: no\\x1b]0;title\\x07" in left


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["NO_COLOR", "dumb"])
def test_no_colours(tmp_path: Path, environment: dict[str, str]) -> None:
    """Somebody asks for plain text: the same columns."""
    text = on_terminal(tmp_path, **environment)
    assert "\x1b" not in text
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} INFO     demo: Response 200 OK GET /200 .+", responses(text)[0])


def test_an_empty_no_color_means_nothing(tmp_path: Path) -> None:
    """As no-color.org has it."""
    assert "\x1b[32m" in on_terminal(tmp_path, NO_COLOR="")


def test_the_switch(tmp_path: Path) -> None:
    """Nothing on a terminal with ``console=False``."""
    assert on_terminal(tmp_path, "{'console': False}") == ""


@pytest.mark.parametrize("format", ["json", "combined", "%(message)s"])
def test_whatever_the_file_has(tmp_path: Path, format: str) -> None:
    """The console's lines do not depend on the format of the file, nor the file's on the console."""
    text = ESCAPE.sub("", on_terminal(tmp_path, repr({"format": format})))
    assert re.search(r"INFO     demo: Response 200 OK GET /200 ", text)
    assert "\x1b" not in (tmp_path / "app.log").read_text(encoding="utf-8")


def test_not_a_terminal(tmp_path: Path) -> None:
    """A pipe or a file gets text lines, one per record, without colours: what a container's log wants."""
    done = run_python(APP, "{'console': True}", cwd=tmp_path, env={**os.environ, "TERM": "xterm"})
    assert "\x1b" not in done.stderr
    lines = done.stderr.splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - demo - [A-Z]+ - ", line) for line in lines)
    assert lines == (tmp_path / "app.log").read_text(encoding="utf-8").splitlines()


class WriteOnly:
    """What recipes put in the place of stderr to log what is printed: no file, no terminal."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        """Keep it."""
        self.text += text
        return len(text)

    def flush(self) -> None:
        """Nothing waits."""


def test_a_stderr_that_can_only_be_written_to(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no ``isatty``: neither the start nor a record fails at that."""
    stream = WriteOnly()
    monkeypatch.setattr(sys, "stderr", stream)
    make_app(name="unasked", filename="other.log")
    app, asynclog = make_app(console=True)
    app.logger.warning("seen")
    assert asynclog.flush(HANG)
    assert " - WARNING - seen\n" in stream.text
    assert "failed" not in stream.text


def test_streams_that_are_no_terminals() -> None:
    """None, a closed one, one in memory."""
    closed = io.StringIO()
    closed.close()
    assert not any(is_terminal(stream) for stream in (None, closed, io.StringIO()))


ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)


@given(ANY_TEXT, ANY_TEXT, ANY_TEXT, ANY_TEXT, st.booleans())
def test_any_record(message: str, name: str, level: str, error: str, colours: bool) -> None:
    """Lines of a record: the first one, and indented ones; no control character but our colours."""
    record = make_record(message.replace("%", "%%"), name=name, levelname=level)
    record.exc_text, record.stack_info = f"Traceback:\n{error}", f"Stack:\n{error}"
    text = ConsoleFormatter(colours=colours).format(record)
    first, *rest = text.split("\n")
    plain = re.sub(r"\x1b\[(?:[0-9;]*)m", "", first) if colours else first
    assert_one_line(plain)
    assert escape_free(rest)


def escape_free(lines: list[str]) -> bool:
    """Whether all are indented and have no control characters."""
    for line in lines:
        assert line.startswith("    ")
        assert_one_line(line)
    return True


def test_an_event_is_its_record() -> None:
    """A response gets the same line on both its ways."""
    outcome = make_outcome("404 NOT FOUND")
    for formatter in (ConsoleFormatter(), ConsoleFormatter(colours=False)):
        assert formatter.format_entry(outcome) == formatter.format(outcome.record())
    clock = time.strftime("%H:%M:%S", time.localtime(outcome.created))
    assert ConsoleFormatter(colours=False).format_entry(outcome).startswith(f"{clock}.124 WARNING  demo: Response 404 ")


def test_a_formatter_of_ones_own() -> None:
    """As on any handler, it is what counts."""
    from flask_asynclog.console import ConsoleHandler

    handler = ConsoleHandler()
    handler.setFormatter(TextFormatter("%(message)s"))
    assert handler.format(make_record("x", levelno=logging.ERROR)) == "x"
