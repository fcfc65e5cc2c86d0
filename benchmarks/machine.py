"""What the numbers were measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

#: Distributions whose versions belong to the results.
DISTRIBUTIONS = (
    "flask-asynclog", "flask", "werkzeug", "concurrent-log-handler", "gunicorn", "loguru", "logxide", "picologging",
    "orjson",
)  # fmt: skip


def cpu() -> str:
    """The processor, as the system names it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux: the platform knows something
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of Python and of what is installed of `DISTRIBUTIONS`."""
    found = {platform.python_implementation(): platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def describe() -> dict[str, Any]:
    """For the raw results. The load is that of now: ask before anything runs."""
    return {
        "cpu": cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": [round(each, 2) for each in os.getloadavg()],
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "free_threaded": bool(getattr(sys, "_is_gil_enabled", lambda: True)() is False),
        "versions": versions(),
    }
