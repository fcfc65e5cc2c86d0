"""The rows as tables: Markdown for a terminal and for files, reST list-tables for the documentation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.contenders import CONTENDERS
from benchmarks.results import Row
from benchmarks.rounds import Outcome
from benchmarks.statistics import NOT_RESOLVED, Estimate, Target

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]

TARGETS = ("Scenario", "Figure of flask_asynclog", "Target", "Measured", "Interval (95 %)", "A/A floor", "Verdict")
FIGURES = ("Contender", "Figure", "Measured", "Interval (95 %)", "A/A floor", "", "Records of all rounds")


def number(value: float) -> str:
    """Three digits that count."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{2 if abs(value) < 10 else 1}f}" if abs(value) >= 0.1 else f"{value:.2g}"


def with_unit(value: float, unit: str) -> str:
    """A value for people: a ratio has no unit, and large times are not in µs."""
    if unit == "µs" and abs(value) >= 10_000:
        return f"{number(value / 1000)} ms"
    return number(value) if unit in ("", "ratio") else f"{number(value)} {unit}"


def target_text(target: Target, unit: str) -> str:
    """The bound, and whether the floor will do."""
    text = f"{'≤' if target.at_most else '≥'} {with_unit(target.bound, unit)}"
    return text + " or inside the floor" * target.floor_suffices


def interval_text(found: Estimate, unit: str) -> str:
    """Low to high; one round has no interval."""
    if found.count < 2:
        return "one round"
    return f"{with_unit(found.low, unit)} to {with_unit(found.high, unit)}"


def _measured(row: Row) -> list[str]:
    if row.found is None:
        return ["no result", "", ""]
    floor = "" if row.floor is None else f"± {with_unit(row.floor, row.unit)}"
    return [with_unit(row.found.value, row.unit), interval_text(row.found, row.unit), floor]


def target_table(rows: Iterable[Row]) -> Table:
    """All targets, each with what was measured."""
    lines: list[list[str]] = []
    for row in rows:
        if row.target is not None:
            verdict = row.verdict or "no result"
            if not row.resolved:
                verdict += " (effect inside the floor)"
            if row.lost:
                verdict += f": records {row.landed}"
            lines.append([row.scenario, row.figure, target_text(row.target, row.unit), *_measured(row), verdict])
    return "Targets", TARGETS, lines


def scenario_table(outcome: Outcome) -> Table:
    """All figures of one scenario."""
    lines = [
        [row.contender, row.figure, *_measured(row), "" if row.resolved else NOT_RESOLVED, row.landed]
        for row in outcome.rows
    ]
    return f"{outcome.scenario.name}: {outcome.scenario.question}", FIGURES, lines


def about(outcome: Outcome) -> str:
    """Rounds, parameters, and who is not there."""
    if outcome.skipped:
        return f"Skipped: {outcome.skipped}."
    rounds = 1 + max((block.round for block in outcome.blocks.blocks), default=-1)
    shown = ", ".join(
        f"{name} {number(value) if isinstance(value, float) else value}" for name, value in outcome.parameters.items()
    )
    text = f"Of {outcome.when}: " if outcome.when else ""
    text += f"{rounds} round{'s' * (rounds != 1)}; {shown}."
    for figure, counts in outcome.blocks.pairs.items():
        shown = ", ".join(f"{name} {kept:,} of {count:,}" for name, (kept, count) in sorted(counts.items()))
        text += f" Pairs of turns at full speed, {figure}: {shown}."
    for name, reason in (outcome.absent or {}).items():
        text += f" Without {name}: {reason}."
    return text


def machine_text(machine: dict[str, Any], seed: int, quick: bool) -> str:
    """One paragraph."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['kernel']}; load before: {machine['load'][0]}. "
        f"{versions}. Seed {seed}, {'quick' if quick else 'full'} run."
    )


def markdown(outcomes: Sequence[Outcome], machine: dict[str, Any], seed: int, quick: bool) -> str:
    """Everything."""
    parts = [machine_text(machine, seed, quick)]
    parts.append(_markdown_table(target_table(row for outcome in outcomes for row in outcome.rows)))
    parts += [_markdown_table(scenario_table(outcome)) + "\n\n" + about(outcome) for outcome in outcomes]
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    title, head, rows = table
    if not rows:
        return f"## {title}"
    lines = [f"## {title}", "", _pipes(head), _pipes(["---"] * len(head))]
    return "\n".join([*lines, *map(_pipes, rows)])


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("~", "\\~") for cell in cells) + " |"


def rest(
    outcomes: Sequence[Outcome], machine: dict[str, Any], seed: int, quick: bool, plots: Mapping[str, str] | None = None
) -> str:
    """Everything, to be included below a heading of a page; ``plots`` are paths, as seen from there, by scenario."""
    parts = [_escape(machine_text(machine, seed, quick))]
    parts.append(_list_table(target_table(row for outcome in outcomes for row in outcome.rows)))
    for outcome in outcomes:
        parts += [_list_table(scenario_table(outcome)) + "\n" + _escape(about(outcome))]
        if path := (plots or {}).get(outcome.scenario.name):
            parts += [f".. image:: {path}\n   :alt: {outcome.scenario.question}"]
    parts.append("The contenders:")
    parts.append("\n".join(f"``{each.name}``\n   {_escape(each.about)}" for each in CONTENDERS.values()))
    return "\n\n".join(parts) + "\n"


def _list_table(table: Table) -> str:
    title, head, rows = table
    lines = [f".. rubric:: {_escape(title)}", ""]
    if rows:
        lines += [".. list-table::", "   :header-rows: 1", ""]
        for row in [head, *rows]:
            cells = [_escape(cell) for cell in row]
            lines += [f"   {'* -' if not place else '  -'} {cell}".rstrip() for place, cell in enumerate(cells)]
        lines.append("")
    return "\n".join(lines)


def _escape(text: str) -> str:
    return "".join("\\" + each if each in "\\*`_|" else each for each in text).replace("--", "\\-\\-")
