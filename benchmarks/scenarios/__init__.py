"""One module for each scenario; each has a ``SCENARIO``. The order is that of the tables."""

from __future__ import annotations

import importlib

from benchmarks.scenario import Scenario

NAMES = (
    "caller", "requests", "hooked", "served", "twenty", "io_return", "slow_disk", "writers", "memory", "idle",
    "imports", "threads", "lag", "exit", "burst", "calibration",
)  # fmt: skip


def all_scenarios() -> list[Scenario]:
    """Every scenario."""
    return [importlib.import_module(f"benchmarks.scenarios.{name}").SCENARIO for name in NAMES]
