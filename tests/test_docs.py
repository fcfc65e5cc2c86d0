"""README and documentation: every Python example runs, prints what the page says, and leaves the lines it shows.

A comment before a block says what the block is, in Markdown ``<!-- example: … -->``, in reStructuredText
``.. example: …``:

- a Python block without one is a script, run in a fresh interpreter and an empty directory;
- ``pytest``: a test module, run by pytest;
- ``needs MODULE``: a script that is left out where that is not installed;
- ``prints``, ``says``, ``leaves FILE``: what the script before it wrote to stdout, to stderr, to a file.
"""

from __future__ import annotations

import ast
import logging
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

import flask_asynclog
from flask_asynclog import fields
from flask_asynclog.config import PREFIX, option_table
from flask_asynclog.formatters import TextFormatter
from support import run_python, skip_without

PROJECT = Path(__file__).resolve().parents[1]
DOCS = PROJECT / "docs"
PAGES = [PROJECT / "README.md", *sorted(DOCS.glob("*.rst"))]

RUN_PYTEST = """
import pathlib, sys, pytest
pathlib.Path("test_example.py").write_text(sys.argv[1], encoding="utf-8")
sys.exit(pytest.main(["--quiet", "-p", "no:cacheprovider", "test_example.py"]))
"""

#: What differs from run to run.
VARIABLE = {
    r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[,.]\d+([+-]\d\d:\d\d)?": "TIME",
    r"\b[0-9a-f]{32}\b": "ID",
    r"(?<=Werkzeug/)[\w.]+": "VERSION",
    r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]": "[TIME]",
    r"\b\d+\.\d+ms\b": "DURATION",
    r"((?:request\.duration|event\.duration|time_to_first_byte)(?:\":|=))[\d.e-]+": r"\1DURATION",
    r'(process\.pid(?:":|=))\d+': r"\1PID",
    r'(thread\.id(?:":|=))\d+': r"\1THREAD",
    r'(file\.(?:path|name)(?:":"|=))(<string>|/srv/demo/app.py)': r"\1FILE",
    r"(?<=flask_asynclog\[)\d+": "PID",
    r"( by process \d+)? for more than \d+\.\d s": " for more than N s",  # the holder is known on Linux only
    r"(?<=again, after )\d+\.\d s": "N s",
}


@dataclass
class Example:
    """One script of a page, and what the page says that it does."""

    place: str
    code: str
    by_pytest: bool = False
    #: A module that is not installed everywhere.
    needs: str = ""
    #: Text by where it is found: ``stdout``, ``stderr`` or the name of a file.
    expected: dict[str, str] = field(default_factory=dict)


@dataclass
class Block:
    """One code block of a page."""

    line: int
    language: str
    mark: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """The code blocks of a page, each with the mark before it."""
    lines = page.read_text(encoding="utf-8").splitlines()
    markdown = page.suffix == ".md"
    opening = re.compile(r"(```)(\w+)" if markdown else r"( *)\.\. code-block:: (\w+)")
    comment = re.compile(r"<!-- example: (.+) -->" if markdown else r" *\.\. example: (.+)")
    mark, number = "", 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if found := comment.fullmatch(line):
            mark = found[1]
        elif found := opening.fullmatch(line):
            start = number
            if markdown:
                end = lines.index("```", start)
            else:
                indented = re.compile(found[1] + "   .*|")
                end = next((n for n in range(start, len(lines)) if not indented.fullmatch(lines[n])), len(lines))
            text = textwrap.dedent("\n".join(lines[start:end])).strip("\n") + "\n"
            yield Block(start, found[2], mark, text)
            mark, number = "", end
        elif line.strip():
            assert not mark, f"{page.name}:{number}: the comment 'example: {mark}' has no block behind it"


def examples() -> Iterator[Example]:
    """All scripts of all pages."""
    for page in PAGES:
        here: list[Example] = []
        for block in blocks(page):
            place = f"{page.name}:{block.line}"
            action, _, argument = block.mark.partition(" ")
            if block.language == "python" and action in ("", "pytest", "needs"):
                here.append(Example(place, block.text, action == "pytest", argument))
            elif action in ("prints", "says", "leaves"):
                target = {"prints": "stdout", "says": "stderr"}.get(action, argument)
                here[-1].expected[target] = block.text
            else:
                assert block.language in ("text", "json", "sh"), f"{place}: is {block.language!r} to be run?"
                assert not action, f"{place}: what is the mark 'example: {block.mark}'?"
        yield from here


EXAMPLES = list(examples())


def masked(text: str) -> str:
    """``text`` without what differs from run to run, and without spaces at the ends of lines."""
    for pattern, name in VARIABLE.items():
        text = re.sub(pattern, name, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.place)
def test_an_example_does_what_its_page_says(example: Example, tmp_path: Path) -> None:
    """It ends well, prints and leaves what the page shows, and says nothing on stderr that the page does not show."""
    if example.needs:
        skip_without(example.needs)
    if example.by_pytest:
        run_python(RUN_PYTEST, example.code, cwd=tmp_path)
        return
    done = run_python(example.code, cwd=tmp_path)
    for target, expected in {"stdout": "", "stderr": "", **example.expected}.items():
        written = {"stdout": done.stdout, "stderr": done.stderr}
        text = written[target] if target in written else (tmp_path / target).read_text(encoding="utf-8")
        # The pages have the working directory /srv/demo.
        assert masked(text.replace(str(tmp_path.resolve()), "/srv/demo")) == masked(expected), target


def test_the_pages_have_examples() -> None:
    """The collector finds the blocks: every ``python`` in a page's source is one of its examples."""
    opening = re.compile(r"^```python$|^ *\.\. code-block:: python$", re.MULTILINE)
    assert len(EXAMPLES) == sum(len(opening.findall(page.read_text(encoding="utf-8"))) for page in PAGES)
    assert {example.place.partition(":")[0] for example in EXAMPLES} >= {"README.md", "quickstart.rst", "testing.rst"}


def local_extension(name: str) -> ModuleType:
    """A local extension of the documentation, imported from its file."""
    spec = spec_from_file_location(name, DOCS / "_ext" / f"{name}.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_configuration_page_names_every_option_once() -> None:
    """As Sphinx gets it, the page has one row per option, in the order of the table that validation uses."""
    page = [(DOCS / "configuration.rst").read_text(encoding="utf-8")]
    local_extension("option_table").insert_table(None, "configuration", page)
    rows = re.findall(rf"^ +\* - ``{PREFIX}(\w+)``$", page[0], re.MULTILINE)
    assert [row.lower() for row in rows] == list(option_table())


def test_the_page_of_fields_names_every_field_once() -> None:
    """As Sphinx gets it: one row per field of each table, with its ECS name and what %-formats call it."""
    page = [(DOCS / "fields.rst").read_text(encoding="utf-8")]
    extension = local_extension("field_table")
    assert all(page[0].count(f"{place}\n") == 1 for place in extension.PLACES)
    extension.insert_tables(None, "fields", page)
    rows = re.findall(r"^ +\* - ``(\S+)``\n +- (?:``(\S+)``)?\n +- (?:``(\S+)``)?\n +- (.+)$", page[0], re.MULTILINE)
    tables = (
        *(fields.TIMESTAMP, *fields.RECORD, *fields.CODE, *fields.CONTEXT, *fields.REQUEST, *fields.RESPONSE),
        *(*fields.EXCEPTION, fields.STACKTRACE, fields.STACK),
    )
    assert [(row[0], row[3]) for row in rows] == [(field.name, field.help) for field in tables]
    assert {row[0] for row in rows} == {*fields.BY_NAME}
    assert [row[1] for row in rows] == [field.ecs or field.name for field in tables]
    for row in rows:
        if row[2]:
            logging.Formatter(f"%({row[2]})s") if "." not in row[2] else TextFormatter(f"%({row[2]})s")


def test_no_page_names_an_option_that_does_not_exist() -> None:
    """Every ``ASYNCLOG_…`` key in README, CHANGES and documentation is one that the code takes."""
    meant_to_be_wrong = {"X", "FILENAM"}
    known = {name.upper() for name in option_table()} | meant_to_be_wrong
    for page in [*PAGES, PROJECT / "CHANGES.md"]:
        named = re.findall(rf"{PREFIX}([A-Z]+(?:_[A-Z]+)*)", page.read_text(encoding="utf-8"))
        assert set(named) <= known, page.name


def test_the_short_table_of_the_readme_is_right() -> None:
    """Each default that the README gives is the default."""
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    extension = local_extension("option_table")
    defaults = flask_asynclog.config.Settings()
    rows = re.findall(rf"^\| `{PREFIX}(\w+)` \| `(.+?)` \|", readme, re.MULTILINE)
    assert len(rows) > 5
    for key, default in rows:
        assert default == extension.show(key.lower(), getattr(defaults, key.lower())), key


def test_the_readme_has_the_two_commands() -> None:
    """Exactly two commands, both of bootstrap.py, and CI runs the second."""
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    [commands] = [block.text for block in blocks(PROJECT / "README.md") if block.language == "sh"]
    assert commands.splitlines() == ["python3 bootstrap.py demo", "python3 bootstrap.py test"]
    assert readme.count("bootstrap.py") == 2
    usage = (PROJECT / "bootstrap.py").read_text(encoding="utf-8")
    assert all(f'command == "{command.split()[-1]}"' in usage for command in commands.splitlines())
    assert "python3 bootstrap.py test" in (PROJECT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_the_first_screen_of_the_readme() -> None:
    """What a reader needs first comes first, in this order."""
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    landmarks = (
        "AsyncLog(app)",
        "Response 200 OK",
        "pip install flask-asynclog",
        "## What can be lost",
        "python3 bootstrap",
    )
    positions = [readme.index(landmark) for landmark in landmarks]
    assert positions == sorted(positions)
    table = readme[readme.index("## What can be lost") :]
    for cause in ("Crash", "SIGKILL", "SIGTERM", "Full queue", "Fork", "Disk full", "lock"):
        assert re.search(rf"^\| [^|]*{cause}", table, re.MULTILINE), cause


def test_the_changes_begin_with_this_version() -> None:
    """CHANGES.md speaks of the version that is installed."""
    changes = (PROJECT / "CHANGES.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", changes, re.MULTILINE)[0] == flask_asynclog.__version__


def messages() -> Iterator[tuple[str, str]]:
    """The longest fixed part of every message to stderr and of every ConfigError in the package's source."""
    for module in sorted(Path(flask_asynclog.__file__).parent.glob("*.py")):
        for call in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and call.args:
                name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
                text = call.args[-1]
                if name in ("say", "ConfigError") and isinstance(text, (ast.Constant, ast.JoinedStr)):
                    parts = text.values if isinstance(text, ast.JoinedStr) else [text]
                    fixed = [str(part.value) for part in parts if isinstance(part, ast.Constant)]
                    yield f"{module.name}:{call.lineno}", " ".join(max(fixed, key=len).split())


def test_troubleshooting_knows_every_message() -> None:
    """Each line that the library can say on stderr, and each ConfigError, is on the page."""
    page = " ".join((DOCS / "troubleshooting.rst").read_text(encoding="utf-8").split())
    found = list(messages())
    assert len(found) > 10
    assert [(place, text) for place, text in found if text not in page] == []
