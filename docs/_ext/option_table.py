"""The table of options on the configuration page, made from the one in `flask_asynclog.config`.

A hook rather than a directive: the table is ordinary reStructuredText, and needs no Sphinx to be made and tested.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from flask_asynclog.config import PREFIX, Settings, option_table

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PAGE = "configuration"
#: A line of the page, replaced by the table.
PLACE = ".. the table of options stands here"


def table() -> list[str]:
    """The lines of the table: a row per option, in the order of `option_table`."""
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 26 14 12 24 34", ""]
    rows = [["Key", "Default", "Type", "Allowed", "Meaning"]]
    defaults = Settings()
    for name, option in option_table().items():
        key, default = PREFIX + name.upper(), show(name, getattr(defaults, name))
        rows.append([f"``{key}``", f"``{default}``", *map(literal, (option.type, option.allowed, option.help))])
    for row in rows:
        for number, cell in enumerate(row):
            lines.append(f"   {'  ' if number else '* '}- {cell}")
    return lines


def show(name: str, default: object) -> str:
    """A default as one would write it in the configuration."""
    if name.endswith("level") and isinstance(default, int):
        return repr(logging.getLevelName(default))
    if name == "file_mode" and isinstance(default, int):
        return f"0o{default:o}"
    if name == "redact":
        return '["..."]'  # too many for a table; the page about secrets tells of them
    return repr(default)


def literal(text: str) -> str:
    """Plain text in reStructuredText: nothing in it is markup."""
    for character in "\\*`|_":
        text = text.replace(character, "\\" + character)
    return text


def insert_table(app: Sphinx | None, page: str, source: list[str]) -> None:
    """Put the table in its place: Sphinx's event ``source-read``."""
    if page == PAGE:
        source[0] = source[0].replace(PLACE, "\n".join(table()))


def outdated(*_: object) -> list[str]:
    """The page is made anew in every build: Sphinx does not see when the options change."""
    return [PAGE]


def setup(app: Sphinx) -> dict[str, object]:
    """Connect the hooks: called by Sphinx."""
    app.connect("source-read", insert_table)
    app.connect("env-get-outdated", outdated)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
