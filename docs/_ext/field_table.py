"""The tables of fields on their page, made from those in `flask_asynclog.fields`.

A hook rather than a directive, as in `option_table`: the tables need no Sphinx to be made and tested.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from flask_asynclog import fields
from flask_asynclog.fields import Field

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PAGE = "fields"
#: Lines of the page, each replaced by the table of these fields.
PLACES: dict[str, tuple[Field, ...]] = {
    ".. the fields of every record stand here": (fields.TIMESTAMP, *fields.RECORD, *fields.CODE),
    ".. the fields of a context stand here": fields.CONTEXT,
    ".. the fields of a request stand here": fields.REQUEST,
    ".. the fields of a response stand here": fields.RESPONSE,
    ".. the fields of an exception stand here": (*fields.EXCEPTION, fields.STACKTRACE, fields.STACK),
}
#: Those that %-formats know by their names, too.
_NAMED = (*fields.CONTEXT, *fields.REQUEST, *fields.RESPONSE)


def table(rows: Iterable[Field]) -> list[str]:
    """The lines of a table: a row per field, in the order of the lines of the log."""
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 30 28 18 36", ""]
    cells = [["Name", "In ECS", "In %-formats", "Meaning"]]
    cells += [[f"``{row.name}``", _in_ecs(row), _in_formats(row), row.help] for row in rows]
    for row in cells:
        lines += [f"   {'  ' if number else '* '}- {cell}" for number, cell in enumerate(row)]
    return lines


def _in_ecs(field: Field) -> str:
    return "" if field.ecs is None else f"``{field.ecs or field.name}``"


def _in_formats(field: Field) -> str:
    if not field.short:
        return f"``{field.name}``" if any(field is named for named in _NAMED) else ""
    return f"``{field.short}``"


def insert_tables(app: Sphinx | None, page: str, source: list[str]) -> None:
    """Put the tables in their places: Sphinx's event ``source-read``."""
    if page == PAGE:
        for place, rows in PLACES.items():
            source[0] = source[0].replace(place, "\n".join(table(rows)))


def outdated(*_: object) -> list[str]:
    """The page is made anew in every build: Sphinx does not see when the fields change."""
    return [PAGE]


def setup(app: Sphinx) -> dict[str, object]:
    """Connect the hooks: called by Sphinx."""
    app.connect("source-read", insert_tables)
    app.connect("env-get-outdated", outdated)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
