"""Rounds of blocks: in each round every contender has one block, the reference two, in random order."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import block
from benchmarks.contenders import CONTENDERS
from benchmarks.results import Block, Blocks, Row
from benchmarks.scenario import Plan, Scenario


@dataclass
class Outcome:
    """A scenario that was run, or why it was not."""

    scenario: Scenario
    blocks: Blocks
    rows: list[Row]
    parameters: dict[str, Any]
    #: Why there are no blocks.
    skipped: str = ""
    #: Contenders that are not there, with the reason.
    absent: dict[str, str] | None = None
    seconds: float = 0.0
    #: When it began, in UTC; empty for one that was not run.
    when: str = ""


def order(contenders: Sequence[str], reference: str | None, number: int, choose: random.Random) -> list[Block]:
    """The blocks of one round; ``reference``, if any, has a second one."""
    blocks = [Block(number, name) for name in contenders]
    blocks += [Block(number, reference, again=True)] if reference else []
    choose.shuffle(blocks)
    for position, each in enumerate(blocks):
        each.position = position
    return blocks


def run(scenario: Scenario, plan: Plan, seed: int, say: Callable[[str], None]) -> Outcome:
    """Run one scenario; says what it does."""
    started, when = time.monotonic(), time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    nothing = Blocks(scenario.name, scenario.reference, [])
    reason = scenario.unavailable()
    chosen, absent = [], {}
    for name in scenario.contenders:
        if name in plan.without:
            continue
        missing = CONTENDERS[name].unavailable()
        if missing:
            absent[name] = missing
            say(f"  {name} is left out: {missing}")
        else:
            chosen.append(name)
    if not reason and scenario.reference not in chosen:
        reason = f"its reference, {scenario.reference}, is not there"
    if reason:
        say(f"  skipped: {reason}")
        return Outcome(scenario, nothing, [], {}, reason, absent)
    parameters = dict(plan.parameters)
    if scenario.prepare is not None:
        try:
            parameters |= scenario.prepare(parameters)
        except (OSError, RuntimeError) as error:
            say(f"  skipped: {error}")
            return Outcome(scenario, nothing, [], parameters, f"it could not be prepared: {error}", absent)
    choose = random.Random(f"{seed} {scenario.name}")
    blocks: list[Block] = []
    for number in range(plan.rounds):
        for each in order(chosen, scenario.reference if scenario.paired else None, number, choose):
            # The round's number seeds what is random in a block: the same for all that are compared.
            block.run(each, scenario.name, {**parameters, "seed": seed + number}, scenario.limit)
            if each.error:
                say(f"  round {number + 1}: {each.contender} failed: {each.error}")
            blocks.append(each)
    result = Blocks(scenario.name, scenario.reference, blocks)
    seconds = round(time.monotonic() - started, 1)
    return Outcome(scenario, result, conclude(scenario, result), parameters, "", absent, seconds, when)


def conclude(scenario: Scenario, blocks: Blocks) -> list[Row]:
    """The rows; those of ours say so where its records were to be complete and are not, or a block of it failed."""
    rows = scenario.conclude(blocks)
    its = [block for block in blocks.blocks if block.contender == "ours"]
    lossy = scenario.lossless and any(block.landed is not None and not block.landed.complete for block in its)
    if lossy or any(block.error for block in its):
        for row in rows:
            row.lost = row.contender == "ours"
    return rows
