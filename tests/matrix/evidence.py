"""What is found in the log: tagged records read back, and the verdict on a server."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from matrix.cells import Result
from matrix.serving import Server
from matrix.traffic import Clients
from support import log_lines

#: The three records of a tagged request.
KINDS = ("request", "view", "response")
#: Every line of the log is a record: time, logger, level, message.
HEAD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - \S+ - [A-Z]+ - ")
MESSAGES = {
    "request": re.compile(r"Request GET \S+/(?:tag|hang)/([\w-]+) id=\w+"),
    "view": re.compile(r"tag ([\w-]+)"),
    "response": re.compile(r"Response \d+ [A-Z ]+ GET /(?:tag|hang)/([\w-]+) .*"),
}


def entries(tags: Iterable[str], kinds: Iterable[str] = KINDS) -> list[str]:
    """What has to be in the file for each tag: ``TAG/request``, ``TAG/view``, ``TAG/response``."""
    return [f"{tag}/{kind}" for tag in tags for kind in kinds]


def read_log(*files: Path) -> tuple[list[str], list[str]]:
    """Entries of all logs and of their rotated files, as by `entries`; and what is wrong with their lines."""
    found: list[str] = []
    problems: list[str] = []
    for line in (line for file in files for line in log_lines(file)):
        before, *messages = HEAD.split(line)
        if before or len(messages) != 1:
            problems.append(f"no record: {line[:200]!r}")
            continue
        for kind, pattern in MESSAGES.items():
            if match := pattern.fullmatch(messages[0]):
                found.append(f"{match[1]}/{kind}")
    return found, problems


def records_at_import(directory: Path) -> list[str]:
    """Entries of what the processes have logged while they imported the app (``MATRIX_RECORDS_AT_IMPORT``)."""
    return [
        f"import-{file.name.rpartition('-')[2]}-{number}/view"
        for file in directory.glob("imported-*")
        for number in range(int(file.read_text() or "0"))
    ]


def result(
    server: Server,
    clients: Clients,
    *,
    seconds: float,
    status: int = 0,
    also: Iterable[str] = (),
    logs: Sequence[Path] = (),
    problems: Iterable[str] = (),
    expected_output: str = "",
    interrupts: bool = False,
) -> Result:
    """What became of the tagged requests of ``clients`` and of what was logged at import.

    :param status: exit status that the server should have had.
    :param also: further entries that have to be in the file.
    :param logs: the files to read, with what they were rotated to; by default the app's.
    :param problems: found by the cell itself.
    :param expected_output: what the server's output has to contain, as a regular expression.
    :param interrupts: whether the server interrupts requests: it may say so with tracebacks, and answer with an error.
    """
    found, wrong_lines = read_log(*(logs or [server.log]))
    expected = [*entries(clients.answered), *records_at_import(server.directory), *also]
    known = {*entries(clients.asked), *expected}
    wrong = [*problems, *wrong_lines, *wrong_output(server.output(), expected_output, tracebacks=interrupts)]
    wrong += [f"a line of nobody: {entry}" for entry in found if entry not in known]
    if not interrupts:
        wrong += [f"answered {answer}" for answer in clients.refused]
    if server.process.returncode != status:
        wrong.append(f"exit status {server.process.returncode}, not {status}; output: {server.output()[-500:]}")
    return Result(expected, found, seconds, problems=wrong)


def wrong_output(output: str, expected: str = "", *, tracebacks: bool = False) -> list[str]:
    """What of a server's output shows that something is wrong: the package's own complaints, tracebacks."""
    wrong = [line for line in output.splitlines() if "flask_asynclog[" in line]
    if not tracebacks and "Traceback (" in output:
        wrong.append(output[output.index("Traceback (") :][:2000])
    if expected and not re.search(expected, output):
        wrong.append(f"{expected!r} is not in the output: {output[-500:]}")
    return wrong
