"""``python -m matrix [WORD …]``, with ``tests/`` on the path: run the cells, print the table.

What is tested is the installed package. Exit status 0 if nothing is lost, doubled or late: cells passed, or were
skipped for lack of a module or a right, which the table says, or lost what they announce as a limit.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from matrix import table
from matrix.cells import Cell
from matrix.runner import LIMIT, Located, Outcome, all_cells, interrupted, run


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = _parser().parse_args(arguments)
    cells, missing = all_cells()
    for name, reason in missing.items():
        print(f"no cells of {name}: {reason}", file=sys.stderr)
    chosen = [each for each in cells if matches(each.cell, options.words) and (each.cell.quick or not options.quick)]
    if options.list:
        print("\n".join(f"{cell.row}: {cell.event}{' (quick)' * cell.quick}" for _, cell in chosen))
        return 0
    with signals_end_the_cells():
        outcomes = run_all(chosen, options.jobs, options.limit)
    print("\n" + table.markdown(outcomes))
    if options.rst:
        options.rst.write_text(table.rest(outcomes))
    if options.json:
        options.json.write_text(json.dumps({"versions": table.versions(), "cells": list(map(as_json, outcomes))}))
    return 1 if missing or not outcomes or any(outcome.failed for outcome in outcomes) else 0


def matches(cell: Cell, words: Iterable[str]) -> bool:
    """Whether every word is in the cell's row or event, whatever their case."""
    name = f"{cell.row}: {cell.event}".lower()
    return all(word.lower() in name for word in words)


def run_all(cells: Sequence[Located], jobs: int, limit: float = LIMIT) -> list[Outcome]:
    """Run the cells, so many at a time, with a line for each that is done and all that is known of failures."""
    outcomes = []
    with ThreadPoolExecutor(jobs) as pool:
        for number, outcome in enumerate(pool.map(lambda each: run(each, limit), cells), 1):
            cell = outcome.cell
            print(
                f"[{number}/{len(cells)}] {cell.row}: {cell.event}: {outcome.text} ({outcome.took:.1f} s)", flush=True
            )
            if outcome.failed:
                print("    " + outcome.details.replace("\n", "\n    "), flush=True)
            outcomes.append(outcome)
    return outcomes


@contextlib.contextmanager
def signals_end_the_cells() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the cells and their processes; the table is printed all the same."""
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in former:
        signal.signal(number, lambda *_: interrupted.set())
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def as_json(outcome: Outcome) -> dict[str, object]:
    """An outcome with its counts, for machines."""
    cell, result = outcome.cell, outcome.result
    about: dict[str, object] = {"row": cell.row, "event": cell.event, "limit": cell.limit, "text": outcome.text}
    about |= {"failed": outcome.failed, "skipped": outcome.skipped, "error": outcome.error, "took": outcome.took}
    if result is not None:
        about |= dataclasses.asdict(result) | {"lost": result.lost, "doubled": result.doubled}
        about |= {"expected": len(list(result.expected)), "found": len(list(result.found))}
    return about


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m matrix", description=__doc__)
    parser.add_argument("words", nargs="*", help="only cells with all these words (-- --like-this)")
    parser.add_argument("--list", action="store_true", help="print the cells, run none")
    parser.add_argument("--quick", action="store_true", help="only the cells of the ordinary tests")
    parser.add_argument("--jobs", type=int, choices=(1, 2), default=1, help="cells at the same time (default: 1)")
    parser.add_argument(
        "--limit", type=float, default=LIMIT, help="seconds that a cell may take (default: %(default)g)"
    )
    parser.add_argument("--rst", type=Path, metavar="FILE", help="write the table as reST")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
