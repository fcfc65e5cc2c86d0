"""The matrix: its quick cells run for real, and what judges the cells is able to fail them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from matrix import __main__ as command
from matrix import table
from matrix.cells import Cell, Result
from matrix.evidence import entries, read_log, wrong_output
from matrix.runner import Outcome, all_cells, cells_of, run, search_path
from support import HANG, start_python, wait_for

QUICK = {f"{each.cell.row}: {each.cell.event}": each for each in all_cells()[0] if each.cell.quick}
SAMPLES = {each.cell.row: each for each in cells_of("samples")}


@pytest.mark.parametrize("name", QUICK)
def test_quick_cell(name: str) -> None:
    """Real processes, ended for real: nothing of what they logged is lost, doubled or late."""
    outcome = run(QUICK[name], limit=120)
    if outcome.skipped:
        pytest.skip(outcome.skipped)
    assert outcome.passed, outcome.details


def test_all_cells_are_known_and_have_names_of_their_own() -> None:
    """What is missing for a cell is no reason not to list it. By row and event the process of a cell finds it."""
    cells, missing = all_cells()
    assert missing == {}
    names = [(each.cell.row, each.cell.event) for each in cells]
    assert len(set(names)) == len(names)
    assert len(names) > 60


# Result.


def test_a_result_that_passes() -> None:
    """Each expected tag once; what got no answer may be there as well."""
    result = Result(["a", "b"], ["b", "a", "unanswered"])
    assert (result.lost, result.doubled, result.passed) == ([], [], True)


@pytest.mark.parametrize(
    "result",
    [
        Result(["a", "b"], ["a"]),
        Result(["a", "b"], []),
        Result(["a", "b"], ["a", "b", "b"]),
        Result(["a"], ["a", "unanswered", "unanswered"]),
        Result([], []),
        Result([], ["a"]),
        Result(["a"], ["a"], seconds=30.1),
        Result(["a"], ["a"], seconds=2, allowed_seconds=1),
        Result(["a"], ["a"], problems=["exit status 1, not 0"]),
    ],
    ids=[
        "lost",
        "all lost",
        "doubled",
        "doubled, no answer",
        "nothing",
        "nothing expected",
        "late",
        "later",
        "problem",
    ],
)
def test_a_result_that_does_not_pass(result: Result) -> None:
    """Lost, doubled, nothing to lose, late, or anything else wrong."""
    assert not result.passed


def test_what_is_lost_and_what_is_doubled() -> None:
    """They are named, whatever the tags came from."""
    result = Result(iter(["a", "b", "c"]), iter(["c", "a", "c", "x", "x"]))
    assert result.lost == ["b"]
    assert result.doubled == ["c", "x"]


# The log.


def test_a_request_is_found_when_its_three_records_are(tmp_path: Path) -> None:
    """Loss and doubling of any of the three show, in rotated files as well; other lines of the app do not matter."""
    line = "2026-11-22 15:00:00,123 - served - INFO - "
    (tmp_path / "app.log.1").write_text(
        f"{line}Request GET http://127.0.0.1:8000/tag/c0-1 id=01\n{line}tag c0-1\n{line}other\n"
    )
    (tmp_path / "app.log").write_text(
        f"{line}Response 200 OK GET /tag/c0-1 1.83ms 27B id=01\n{line}tag c0-2\n{line}tag c0-2\n"
    )
    found, problems = read_log(tmp_path / "app.log")
    result = Result(entries(["c0-1", "c0-2"]), found, problems=problems)
    assert result.problems == []
    assert result.lost == ["c0-2/request", "c0-2/response"]
    assert result.doubled == ["c0-2/view"]


def test_a_line_that_is_no_record(tmp_path: Path) -> None:
    """A torn line, or two in one, is a problem."""
    line = "2026-11-22 15:00:00,123 - served - INFO - tag c0-1"
    (tmp_path / "app.log").write_text(f"{line}\n{line[20:]}\n{line}{line}\n")
    found, problems = read_log(tmp_path / "app.log")
    assert found == ["c0-1/view"]
    assert len(problems) == 2


def test_what_a_server_says() -> None:
    """The package's complaints are a problem, so are tracebacks that are not expected, and what is missing."""
    traceback = "Traceback (most recent call last):\n  ...\nSystemExit: 1\n"
    assert wrong_output("[INFO] Booting worker\n") == []
    assert wrong_output(traceback) == [traceback]
    assert wrong_output(traceback, tracebacks=True) == []
    assert wrong_output("flask_asynclog[12]: 3 records were not written", tracebacks=True) != []
    assert wrong_output("[INFO] Booting worker\n", "WORKER TIMEOUT") != []


# Running a cell.


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ("loses", "lost 1 of 3"),
        ("doubles", "doubled 1 of 3"),
        ("doubles with a limit", "doubled 1 of 3"),
        ("raises", "AssertionError: the server does not end"),
        ("exits", "ended with status 3 and no result"),
        ("leaves_a_process", "left processes behind"),
    ],
)
def test_a_cell_that_fails(row: str, text: str) -> None:
    """Whatever goes wrong in a cell, it fails with its reason."""
    outcome = run(SAMPLES[row], limit=60)
    assert outcome.failed
    assert not outcome.passed
    assert text in outcome.text


def test_a_cell_that_hangs() -> None:
    """It is ended, with all processes that it started, and has failed."""
    before = running()
    outcome = run(SAMPLES["hangs"], limit=5)
    assert outcome.failed
    assert outcome.text == "hangs: no end after 5 s"
    wait_for(lambda: not running() - before, 10, "the end of the processes of the cell")


def running() -> set[str]:
    """Processes whose command line is that of the samples."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"time.sleep(600)" in command:
            found.add(pid)
    return found


@pytest.mark.parametrize(
    ("row", "text"),
    [("right", "ok"), ("loses with a limit", "one may be lost")],
)
def test_a_cell_that_passes(row: str, text: str) -> None:
    """All is there, or what is lost is what the cell says may be."""
    outcome = run(SAMPLES[row], limit=60)
    assert outcome.passed, outcome.details
    assert not outcome.failed
    assert outcome.text == text


@pytest.mark.parametrize(
    ("row", "text"),
    [("cannot", "skipped: not root"), ("needs", "skipped: no no_such_module")],
)
def test_a_cell_that_is_skipped(row: str, text: str) -> None:
    """For lack of a right or a module; it has neither passed nor failed."""
    outcome = run(SAMPLES[row], limit=60)
    assert not outcome.passed
    assert not outcome.failed
    assert outcome.text == text


# The command.


@pytest.mark.parametrize(
    ("words", "status", "texts"),
    [
        (["right"], 0, ["| right | sample | ok |", "1 cells: 1 ok"]),
        (["needs"], 0, ["| needs | sample | skipped: no no_such_module |", "1 cells: 1 skipped"]),
        (["LOSES"], 1, ["| loses | sample | lost 1 of 3 |", "| loses with a limit | sample | one may be lost |"]),
        (["nothing", "of", "that"], 1, []),
    ],
    ids=["passes", "skipped", "fails", "none"],
)
def test_the_command(
    words: list[str],
    status: int,
    texts: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It prints the table, writes the raw results, and its exit status tells whether all is well."""
    monkeypatch.setattr(command, "all_cells", lambda: (list(SAMPLES.values()), {}))
    raw = tmp_path / "raw.json"
    assert command.main([*words, "--json", str(raw), "--jobs", "2"]) == status
    out = capsys.readouterr().out
    for text in texts:
        assert text in out
    cells = json.loads(raw.read_text())["cells"]
    assert any(cell["failed"] for cell in cells) == bool(texts and status)


def test_the_command_ends_its_cells_with_itself(tmp_path: Path) -> None:
    """SIGTERM: no process of a cell is left, what has not run has failed, the table is there."""
    before = running()
    code = """
import matrix.__main__ as command, sys
from matrix.runner import cells_of
command.all_cells = lambda: (cells_of("samples"), {})
sys.exit(command.main(["hangs"]))
"""
    process = start_python(code, cwd=tmp_path, env={**os.environ, "PYTHONPATH": search_path()})
    try:
        wait_for(lambda: running() - before, what="a process of the cell")
        process.terminate()
        out, err = process.communicate(timeout=HANG)
    finally:
        process.kill()
    assert process.returncode == 1, err
    assert "| hangs | sample | interrupted |" in out
    assert not running() - before


def test_a_module_of_cells_that_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What has not been run is not well."""
    monkeypatch.setattr(command, "all_cells", lambda: ([SAMPLES["right"]], {"servers": "no module"}))
    assert command.main([]) == 1
    assert "no cells of servers: no module" in capsys.readouterr().err


def test_the_table_for_the_documentation() -> None:
    """Events with one outcome share a row; markup and options are shown as they are."""
    outcomes = [
        Outcome(Cell("a --b", event, SAMPLES["right"].cell.run), result)
        for event, result in {
            "one": Result(["x"], ["x"]),
            "two": Result(["x", "y"], ["x"]),
            "three_": Result(["x"], ["x"]),
        }.items()
    ]
    assert table.rows(outcomes) == [("a --b", "one; three_", "ok"), ("a --b", "two", "lost 1 of 2")]
    text = table.rest(outcomes)
    assert "   * - a \\-\\-b\n     - one; three\\_\n     - ok\n" in text
    assert "3 cells: 2 ok, 1 failed." in text
