"""A slow disk without any rights: a library, compiled on the spot, that stalls ``write`` to the log file."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("slow_write.c")


def compiler() -> str | None:
    """The C compiler of this machine."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def unavailable() -> str:
    """Why there is no slow disk here; empty when there is."""
    if not sys.platform.startswith("linux"):
        return "the slow disk is made with LD_PRELOAD, on Linux only"
    return "" if compiler() else "no C compiler (cc) to make the slow disk with"


def build(directory: Path) -> Path:
    """Compile the library into ``directory``."""
    path = directory / "slow_write.so"
    command = [compiler() or "cc", "-shared", "-fPIC", "-O1", "-o", str(path), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return path


def environment(library: Path, part: str, stall: float, period: float = 0.0, since: float = 0.0) -> dict[str, str]:
    """What a process needs in its environment.

    :param part: of the path of the files whose writes stall.
    :param stall: seconds.
    :param period: seconds from the begin of one stall to the next; 0: each write stalls.
    :param since: begin of the first period, of `time.monotonic`.
    """
    return {
        "LD_PRELOAD": str(library),
        "SLOW_WRITE_PATH": part,
        "SLOW_WRITE_STALL": str(round(stall * 1000)),
        "SLOW_WRITE_PERIOD": str(round(period * 1000)),
        "SLOW_WRITE_FROM": str(round(since * 1000)),
    }
