"""The raw results as JSON: written after each scenario, and read again, so that a part can be measured anew."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import Block, Blocks
from benchmarks.rounds import Outcome, conclude
from benchmarks.scenario import Scenario
from benchmarks.sink import Landed


def write(path: Path, outcomes: Sequence[Outcome], machine: Mapping[str, Any], seed: int, quick: bool) -> None:
    """Everything, for machines."""
    found = {
        "machine": dict(machine),
        "seed": seed,
        "quick": quick,
        "scenarios": [
            {
                "name": outcome.scenario.name,
                "skipped": outcome.skipped,
                "absent": outcome.absent,
                "parameters": outcome.parameters,
                "seconds": outcome.seconds,
                "when": outcome.when,
                "rows": [row.as_json() for row in outcome.rows],
                "blocks": [block.as_json() for block in outcome.blocks.blocks],
            }
            for outcome in outcomes
        ],
    }
    path.write_text(json.dumps(found, indent=1), encoding="utf-8")


def read(path: Path, scenarios: Sequence[Scenario]) -> list[Outcome]:
    """What an earlier run found about ``scenarios``, concluded anew; those that it has not are left out.

    :raises ValueError: it is no such file.
    """
    try:
        found = {each["name"]: each for each in json.loads(path.read_text(encoding="utf-8"))["scenarios"]}
        return [_outcome(scenario, found[scenario.name]) for scenario in scenarios if scenario.name in found]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} has no results of this command: {type(error).__name__}: {error}") from None


def _outcome(scenario: Scenario, found: Mapping[str, Any]) -> Outcome:
    blocks = Blocks(scenario.name, scenario.reference, [_block(each) for each in found["blocks"]])
    rows = conclude(scenario, blocks) if blocks.blocks else []
    about = (found[name] for name in ("parameters", "skipped", "absent", "seconds", "when"))
    return Outcome(scenario, blocks, rows, *about)


def _block(found: Mapping[str, Any]) -> Block:
    landed = found["landed"]
    return Block(**{**found, "landed": None if landed is None else Landed(**landed)})
