"""What the library says on stderr when its log cannot: whatever stderr is, nothing is raised and nothing waits."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_asynclog import AsyncLog
from flask_asynclog.report import say, write_stderr
from support import assert_conserved, log_lines

MakeApp = Callable[..., tuple[Flask, AsyncLog]]


class WriteOnly:
    """What is put in the place of stderr by those who want its text."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        """Keep it."""
        self.text += text


class Flushed(WriteOnly):
    """One that can be flushed."""

    def flush(self) -> None:
        """Nothing to do."""


class NoNumber(Flushed):
    """One without a file descriptor, which it does not say by an exception."""

    def fileno(self) -> None:
        """As of some stand-ins."""


class Raising(Flushed):
    """One whose file descriptor cannot be had, for a reason of its own."""

    def fileno(self) -> int:
        """Fails."""
        raise NotImplementedError


class UnknownEncoding(Flushed):
    """One whose encoding Python does not know."""

    encoding = "martian"


class Broken:
    """One that can do nothing."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


def closed() -> io.StringIO:
    """One that was closed."""
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("make", [WriteOnly, UnknownEncoding, Broken, closed, object, lambda: None])
def test_a_stderr_that_does_not_work_raises_nothing(make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever somebody has put there: not all was taken, and that is all."""
    monkeypatch.setattr(sys, "stderr", make())
    assert not write_stderr("x\n", 0)
    say("x")


@pytest.mark.parametrize("make", [Flushed, NoNumber, Raising])
def test_a_stderr_without_a_descriptor_is_written_to(make: type[Flushed], monkeypatch: pytest.MonkeyPatch) -> None:
    """However it shows that it has none."""
    stream = make()
    monkeypatch.setattr(sys, "stderr", stream)
    assert write_stderr("x\n", 0)
    assert stream.text == "x\n"


@pytest.mark.parametrize("make", [WriteOnly, NoNumber, UnknownEncoding, Broken])
def test_a_console_that_does_not_work_costs_the_file_nothing(
    make: Callable[[], Any], make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every record is in the file, by the thread that was there at first."""
    _, asynclog = make_app(console=True)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", make())
        for number in range(3):
            logging.getLogger("any").warning("record %d", number)
            assert asynclog.flush(5)
    stats = asynclog.stats()
    assert_conserved(stats)
    assert (stats.written, stats.restarts) == (3, 0)
    assert [line.rpartition(" - ")[2] for line in log_lines(Path("app.log"))] == ["record 0", "record 1", "record 2"]


def test_what_is_said_has_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    """A client's text may be in an error's: it neither rings nor moves the cursor of whoever reads stderr."""
    say("bad\x07 \x1b[2J\n\x9b31m\ud800\u2028 end")
    assert capsys.readouterr().err == f"flask_asynclog[{os.getpid()}]: bad\\x07 \\x1b[2J \\x9b31m\\ud800 end\n"
