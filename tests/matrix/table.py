"""The outcomes of the matrix as tables: Markdown for people at a terminal, reST for the documentation."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable, Sequence

from matrix.runner import Outcome

#: Distributions whose versions are part of a table.
SERVERS = (
    "flask-asynclog", "flask", "werkzeug", "concurrent-log-handler", "gunicorn", "gevent", "eventlet", "uwsgi",
    "waitress", "uvicorn", "uvicorn-worker", "hypercorn", "a2wsgi", "asgiref", "celery", "billiard",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of Python and of all that is installed of `SERVERS`."""
    found = {"Python": platform.python_version()}
    for name in SERVERS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def rows(outcomes: Iterable[Outcome]) -> list[tuple[str, str, str]]:
    """One row for each way to run and each outcome: events of one outcome share a row.

    The row names, the events, what became of the records.
    """
    grouped: dict[tuple[str, str], list[str]] = {}
    for outcome in outcomes:
        text = "; ".join(filter(None, [outcome.text, outcome.result.note if outcome.result else ""]))
        grouped.setdefault((outcome.cell.row, text), []).append(outcome.cell.event)
    order = list(dict.fromkeys(row for row, _ in grouped))
    return [(row, "; ".join(events), text) for row in order for (its, text), events in grouped.items() if its == row]


def summary(outcomes: Sequence[Outcome]) -> str:
    """How many of what."""
    counts = {
        "ok": sum(outcome.passed for outcome in outcomes if not outcome.cell.limit),
        "with a known limit": sum(outcome.passed for outcome in outcomes if outcome.cell.limit),
        "skipped": sum(bool(outcome.skipped) for outcome in outcomes),
        "failed": sum(outcome.failed for outcome in outcomes),
    }
    return f"{len(outcomes)} cells: " + ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def markdown(outcomes: Sequence[Outcome]) -> str:
    """A table of three columns, the versions below it."""
    lines = ["| server or process | end | records |", "|---|---|---|"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows(outcomes)]
    return "\n".join([*lines, "", _versions(), summary(outcomes)]) + "\n"


def rest(outcomes: Sequence[Outcome]) -> str:
    """The same as a reST list table."""
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 25 45 30", ""]
    for row in [("Server or process", "End", "Records"), *rows(outcomes)]:
        for number, cell in enumerate(row):
            lines.append(f"   {'  -' if number else '* -'} {_escaped(cell)}")
    return "\n".join([*lines, "", f"{_escaped(_versions())} {summary(outcomes)}."]) + "\n"


def _versions() -> str:
    return "Versions: " + ", ".join(f"{name} {version}" for name, version in versions().items()) + "."


def _escaped(text: str) -> str:
    # Options as they are typed: typographic quotes would make one dash of two.
    text = text.replace("\\", "\\\\").replace("*", "\\*").replace("`", "\\`").replace("|", "\\|").replace("_", "\\_")
    return text.replace("--", "\\-\\-")
