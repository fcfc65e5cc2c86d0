"""``python -m matrix.alone MODULE ROW EVENT FILE``: run one cell in this process and directory, and write its answer.

Started by `matrix.runner`, which sees to it that it ends.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import traceback
from pathlib import Path

from matrix.cells import Cell, Skipped
from matrix.runner import cells_of


def main(module: str, row: str, event: str, file: str) -> None:
    """Find the cell, run it, write what became of it."""
    (cell,) = [cell for _, cell in cells_of(module) if (cell.row, cell.event) == (row, event)]
    Path(file).write_text(json.dumps(answer(cell)))


def answer(cell: Cell) -> dict[str, object]:
    """The cell's result, the reason why it was skipped, or its error."""
    try:
        return {"result": dataclasses.asdict(cell.run(Path.cwd()))}
    except Skipped as reason:
        return {"skipped": str(reason)}
    except Exception:
        return {"error": traceback.format_exc()}


if __name__ == "__main__":
    main(*sys.argv[1:])
