"""The plots, as SVG: latencies by percentile, records a second by processes. The one place that needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.results import Blocks
from benchmarks.rounds import Outcome

#: Scenarios with a distribution worth a picture, and what it is of.
LATENCIES = {
    "caller": "one logging call",
    "requests": "one request with both records, no server",
    "served": "a request to gunicorn at 70 % of its capacity",
    "twenty": "a request to gunicorn whose view logs 20 records, at 70 % of its capacity",
    "slow_disk": "a request while the disk stalls",
}
#: Fixed, so that a run that changed nothing changes no file, and a contender has one colour everywhere.
STYLE: dict[Any, Any] = {"svg.hashsalt": "flask_asynclog", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3}
COLOURS = {
    "none": "#999999", "null": "#666666", "bare": "#000000", "file": "#e69f00", "clh": "#d55e00", "stdlib": "#56b4e9",
    "stdlib-simple": "#0072b2", "loguru": "#cc79a7", "logxide": "#8c6d31", "picologging": "#b8a600", "ours": "#009e73",
}  # fmt: skip
WITHOUT = 'plots need matplotlib: pip install "flask-asynclog[bench]"'


class NoPlots(RuntimeError):
    """matplotlib is not installed."""


def load() -> Any:
    """matplotlib's pyplot, without a screen.

    :raises NoPlots: it is not installed; says what to install.
    """
    try:
        import matplotlib
    except ImportError:
        raise NoPlots(WITHOUT) from None
    matplotlib.use("svg")
    import matplotlib.pyplot as pyplot

    pyplot.rcParams.update(STYLE)
    return pyplot


def draw(outcomes: Sequence[Outcome], directory: Path) -> list[Path]:
    """Draw what there are results for; returns the files.

    :raises NoPlots: see `load`.
    """
    pyplot = load()
    directory.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    for outcome in outcomes:
        name = outcome.scenario.name
        if name in LATENCIES and any(block.percentiles for block in outcome.blocks.blocks):
            made.append(_latencies(pyplot, outcome.blocks, LATENCIES[name], directory / f"{name}.svg"))
        if name == "writers" and outcome.blocks.blocks:
            made.append(_writers(pyplot, outcome.blocks, directory / f"{name}.svg"))
    return made


def _latencies(pyplot: Any, blocks: Blocks, title: str, path: Path) -> Path:
    figure, axes = pyplot.subplots(figsize=(6.4, 3.6))
    for name in blocks.contenders:
        its = [block.percentiles for block in blocks.blocks if block.contender == name and block.percentiles]
        if its:
            labels = list(its[0])
            values = [median(each[label] for each in its) for label in labels]
            axes.plot(range(len(labels)), values, marker="o", markersize=3, label=name, color=COLOURS.get(name))
            axes.set_xticks(range(len(labels)), labels)
    axes.set_yscale("log")
    axes.set_ylabel("µs, median over blocks")
    axes.set_title(title)
    return _save(pyplot, figure, axes, path)


def _writers(pyplot: Any, blocks: Blocks, path: Path) -> Path:
    figure, axes = pyplot.subplots(figsize=(6.4, 3.6))
    for name in blocks.contenders:
        numbers = [number for number in (1, 2, 4, 8) if blocks.plain(name, f"rate{number}") is not None]
        found = [found for number in numbers if (found := blocks.plain(name, f"rate{number}")) is not None]
        below = [each.value - each.low for each in found]
        above = [each.high - each.value for each in found]
        axes.errorbar(
            numbers, [each.value for each in found], yerr=[below, above], marker="o", markersize=3, capsize=2,
            label=name, color=COLOURS.get(name),
        )  # fmt: skip
    axes.set_yscale("log")
    axes.set_xticks([1, 2, 4, 8])
    axes.set_xlabel("processes that write to one rotating file")
    axes.set_ylabel("records/s")
    return _save(pyplot, figure, axes, path)


def _save(pyplot: Any, figure: Any, axes: Any, path: Path) -> Path:
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, format="svg", bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
    # matplotlib leaves spaces at the ends of lines.
    path.write_text("".join(line.rstrip() + "\n" for line in path.read_text().splitlines()))
    return path
