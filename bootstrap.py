"""From a fresh machine with Python and pip to a running demo or a passed test suite, in an environment of its own.

    python3 bootstrap.py demo    install everything, run the example under gunicorn
    python3 bootstrap.py test    install everything, run the tests against the installed wheel
    python3 bootstrap.py check   style, types and documentation, each in its tox environment
    python3 bootstrap.py matrix [VERSION …]
                                 every server, fork and end on this Python or on those (3.12 3.14 3.14t), built where
                                 the machine has none
    python3 bootstrap.py bench   install everything, run the benchmarks (--quick: about 3 minutes)

Arguments after the command go to the program it runs.
"""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parent
ENVIRONMENT = PROJECT / ".venv"
PYTHON = ENVIRONMENT / "bin" / "python"


def run(*command: object) -> None:
    """Run a command in the project's directory; end with its exit status if it fails."""
    status = subprocess.run([str(part) for part in command], cwd=PROJECT, check=False).returncode
    if status:
        sys.exit(status)


def create_environment() -> None:
    """Make the virtual environment if it is missing; with the pip at hand where the system's Python has none for it."""
    if not PYTHON.exists():
        try:
            venv.create(ENVIRONMENT, with_pip=True)
        except subprocess.CalledProcessError:  # Debian keeps ensurepip in a package of its own
            venv.create(ENVIRONMENT, with_pip=False, clear=True)
            run(sys.executable, "-m", "pip", "--python", PYTHON, "install", "--quiet", "pip>=25.1")
    run(PYTHON, "-m", "pip", "install", "--quiet", "--upgrade", "pip>=25.1")


def install(*requirements: object) -> None:
    """Install with the environment's pip. The project itself is built into a wheel first, every time."""
    run(PYTHON, "-m", "pip", "install", "--quiet", *requirements)


def matrix(arguments: Sequence[str]) -> None:
    """Run the matrix on each of the Pythons; end with status 1 if it fails on one of them."""
    versions = [argument for argument in arguments if re.fullmatch(r"3\.\d+t?", argument)]
    words = [argument for argument in arguments if argument not in versions]
    failed = []
    for version in versions or [""]:
        found: list[str] = []
        if version:
            make = [PYTHON, "tests/matrix/pythons.py", version]
            made = subprocess.run(make, cwd=PROJECT, check=False, stdout=subprocess.PIPE, text=True)
            if made.returncode:
                failed.append(version)
                continue
            found = ["--discover", made.stdout.strip()]
        environment = "matrix" + f"-py{version}".replace(".", "") * bool(version)
        tox = [PYTHON, "-m", "tox", "run", "-e", environment, *found, "--", *words]
        if subprocess.run(tox, cwd=PROJECT, check=False).returncode:
            failed.append(version or "this Python")
    if failed:
        sys.exit(f"the matrix failed on {', '.join(failed)}")


def main() -> None:
    """Run the command named on the command line."""
    if sys.version_info < (3, 11):
        sys.exit(f"flask_asynclog needs Python 3.11 or newer, this is {sys.version.split()[0]}")
    command, *arguments = sys.argv[1:] or ["help"]
    if command == "demo":
        create_environment()
        install(".[examples]")
        run(PYTHON, "examples/demo.py", *arguments)
    elif command == "test":
        create_environment()
        install(".", "--group", "test")
        run(ENVIRONMENT / "bin" / "pytest", *arguments)
    elif command == "check":
        create_environment()
        install("tox>=4.22")
        run(PYTHON, "-m", "tox", "run", "-e", "style,typing,docs", *arguments)
    elif command == "matrix":
        create_environment()
        install("tox>=4.22")
        matrix(arguments)
    elif command == "bench":
        create_environment()
        install(".[bench]")
        run(PYTHON, "-m", "benchmarks", *arguments)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
