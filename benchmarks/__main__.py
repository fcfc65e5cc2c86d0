"""``python -m benchmarks [WORD …]``: run scenarios, print tables, keep the raw results.

The full run takes 90 minutes on a quiet machine with two cores, ``--quick`` about 3 minutes. Every record carries a
mark, and what landed in the files is counted. Exit status 0 if something was measured and no block failed.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine, plots, raw, rounds, tables
from benchmarks.rounds import Outcome
from benchmarks.scenario import Scenario
from benchmarks.scenarios import all_scenarios


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    order = all_scenarios()
    chosen = [scenario for scenario in order if matches(scenario, options.words)]
    if options.list:
        print("\n".join(f"{scenario.name}: {scenario.question}" for scenario in chosen))
        return 0
    if not chosen:
        parser.error(f"no scenario is called {' or '.join(options.words)}; --list names them")
    if options.plots:
        try:
            plots.load()  # before the minutes that it would be for
        except plots.NoPlots as error:
            parser.error(str(error))
    earlier: list[Outcome] = []
    if options.others:
        try:
            earlier = raw.read(options.others, [scenario for scenario in order if scenario not in chosen])
        except (OSError, ValueError) as error:
            parser.error(str(error))
    seed = options.seed if options.seed is not None else int(time.time())
    about = machine.describe()
    outcomes: list[Outcome] = []
    try:
        for number, scenario in enumerate(chosen, 1):
            say(f"[{number}/{len(chosen)}] {scenario.name}: {scenario.question}")
            plan = scenario.quick if options.quick else scenario.full
            outcomes.append(rounds.run(scenario, plan, seed, say))
            say(f"  {outcomes[-1].seconds:.1f} s")
            if options.json:  # an hour's results are not to hang on the last scenario
                raw.write(options.json, outcomes, about, seed, options.quick)
    except KeyboardInterrupt:
        say("interrupted: here is what is complete")
    shown = sorted([*outcomes, *earlier], key=lambda outcome: order.index(outcome.scenario))
    text = tables.markdown(shown, about, seed, options.quick)
    print("\n" + text)
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    if options.json:
        raw.write(options.json, shown, about, seed, options.quick)
    drawn = plots.draw(shown, options.plots) if options.plots else []
    for path in drawn:
        say(f"drawn: {path}")
    if options.rst:
        seen = {path.stem: os.path.relpath(path, options.rst.parent) for path in drawn}
        options.rst.write_text(tables.rest(shown, about, seed, options.quick, seen), encoding="utf-8")
    blocks = [block for outcome in outcomes for block in outcome.blocks.blocks]
    return 0 if len(outcomes) == len(chosen) and blocks and not any(block.error for block in blocks) else 1


def matches(scenario: Scenario, words: Sequence[str]) -> bool:
    """Whether one of the words is the scenario's name, or there are none."""
    return not words or scenario.name in words


def say(text: str) -> None:
    """Progress: on stderr, so that stdout has the tables alone."""
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="only the scenarios of these names")
    parser.add_argument("--list", action="store_true", help="print the scenarios, run none")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, shorter blocks: about 3 minutes")
    parser.add_argument("--seed", type=int, help="of the order of blocks and of planned loads (default: the time)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine, versions and all raw results")
    parser.add_argument("--others", type=Path, metavar="FILE", help="show all other scenarios from an earlier --json")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables that are printed")
    parser.add_argument("--rst", type=Path, metavar="FILE", help="write them as reStructuredText, with the plots")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw SVG plots (needs matplotlib)")
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the block under way, removes its files
    sys.exit(main())
