"""Interpreters that the machine has not got: ``python tests/matrix/pythons.py 3.14 3.14t`` prints where each one is.

One that exists is used: on PATH, among pyenv's versions, or made before. Otherwise it is built from Debian's source
package, fetched with apt from the machine's own mirror; apt's own configuration and lists stay as they are.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from email.message import Message
from email.parser import Parser
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "flask_asynclog-pythons"
PYENV = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
#: What an interpreter needs to run the matrix, and the Debian packages to build that from.
MODULES = "bz2, ctypes, ensurepip, lzma, readline, sqlite3, ssl, sysconfig, venv, zlib"
LIBRARIES = ("libbz2", "libffi", "liblzma", "libreadline", "libsqlite3", "libssl", "zlib1g")
PACKAGES = ("gcc", "make", *(f"{library}-dev" for library in LIBRARIES))
#: Prints the version in the form that it is asked for in, 3.14t for a free-threaded 3.14, and the path.
PROBE = f"import {MODULES}, sys; print(sysconfig.get_config_var('LDVERSION'), sys.executable)"


class CannotMake(Exception):
    """No interpreter, and none can be built: why."""


def find(version: str) -> Path | None:
    """The interpreter of this version, if the machine has a complete one."""
    name = f"python{version}"
    pyenv = sorted(PYENV.glob(f"{version.removesuffix('t')}*/bin/{name}"))
    for place in (shutil.which(name), *pyenv, CACHE / version / "bin" / name):
        if place and Path(place).exists():
            # Asked rather than believed: pyenv's shims are on PATH for versions that it has not got.
            probe = subprocess.run([place, "-c", PROBE], check=False, capture_output=True, text=True)
            if probe.stdout.startswith(f"{version} "):
                return Path(probe.stdout.removeprefix(f"{version} ").strip())
    return None


def run(command: Sequence[str | Path], cwd: Path, log: Path) -> None:
    """Run a step of the work; its output goes to ``log``, and the end of that into the error if it fails."""
    with log.open("ab") as output:
        if code := subprocess.call(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=output):
            end = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
            raise CannotMake(f"{command[0]} ended with status {code}; the end of {log}:\n{end}")


def install_packages(log: Path) -> None:
    """What the build needs, as far as it is missing: installed by root, named to everybody else."""
    command = ["dpkg-query", "--show", "--showformat", "${Package} ${Status}\n", *PACKAGES]
    known = subprocess.run(command, check=False, capture_output=True, text=True).stdout.splitlines()
    missing = [package for package in PACKAGES if f"{package} install ok installed" not in known]
    if missing and os.geteuid() != 0:
        raise CannotMake(f"packages are missing; as root: apt-get install {' '.join(missing)}")
    if missing:
        run(["apt-get", "update"], CACHE, log)
        run(["apt-get", "install", "--yes", "--no-install-recommends", *missing], CACHE, log)


def apt_sources() -> Iterator[Message]:
    """What apt is configured to fetch from, each as a stanza of the newer of apt's two formats."""
    for path in Path("/etc/apt").glob("**/*.sources"):
        text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE)
        yield from map(Parser().parsestr, re.split(r"\n\s*\n", text.strip()))
    for path in Path("/etc/apt").glob("**/*.list"):
        for line in re.finditer(r"^deb\s+(?:\[(.*?)\]\s+)?(\S+)\s+(\S+)\s+(.*)", path.read_text(), re.MULTILINE):
            signed = "\nSigned-By: ".join(["", *re.findall(r"signed-by=(\S+)", line[1] or "")])
            yield Parser().parsestr(f"Types: deb\nURIs: {line[2]}\nSuites: {line[3]}\nComponents: {line[4]}{signed}")


def debian_source() -> str:
    """The stanza of the machine's own Debian mirror, with the key it is signed by, for the newest source packages."""
    suites = {platform.freedesktop_os_release().get("VERSION_CODENAME", "sid"), "stable", "testing", "unstable", "sid"}
    for stanza in apt_sources():
        if suites & {*stanza.get("Suites", "").split()} and "main" in stanza.get("Components", "").split():
            for key, value in (("Types", "deb-src"), ("Suites", "sid testing"), ("Components", "main")):
                stanza.replace_header(key, value)
            return "".join(f"{key}: {value}\n" for key, value in stanza.items())
    raise CannotMake("no Debian mirror is configured in /etc/apt/sources.list or sources.list.d")


def fetch(release: str, work: Path, log: Path) -> Path:
    """Debian's pristine source of CPython ``release``, checked by apt against the archive's signature."""
    (work / "debian.sources").write_text(debian_source())
    apt = ["apt-get", "-oDir::Etc::sourcelist=/dev/null", "-oAPT::Sandbox::User=root", "-oAPT::Update::Error-Mode=any"]
    apt += [f"-oDir::{name}={work}" for name in ("Etc::sourceparts", "State", "Cache")]
    run([*apt, "update"], work, log)
    show = ["apt-cache", *apt[1:], "--only-source", "showsrc", f"python{release}"]
    shown = subprocess.run(show, check=False, cwd=work, capture_output=True, text=True).stdout
    versions = list(dict.fromkeys(re.findall(r"^Version: (\S+)$", shown, re.MULTILINE)))
    if not versions:
        raise CannotMake(f"Debian has no source package python{release}")
    # A mirror may list what it has not got yet.
    for version in sorted(versions, key=lambda text: list(map(int, re.findall(r"\d+", text))), reverse=True):
        source = [*apt, "source", "--download-only", "--tar-only", f"python{release}={version}"]
        with contextlib.suppress(CannotMake):
            run(source, work, log)
            return next(work.glob("*.orig.tar.?z"))
    raise CannotMake(f"none of {', '.join(versions)} can be fetched: see {log}")


def make(version: str, work: Path, log: Path) -> None:
    """Build ``version`` and put it into the cache, whole or not at all. Without PGO: minutes, not an hour."""
    if not shutil.which("apt-get"):
        raise CannotMake("it is built from Debian's source package, and there is no apt-get here")
    install_packages(log)
    (tree := work / "tree").mkdir()
    run(["tar", "-xf", fetch(version.removesuffix("t"), work, log), "--strip-components=1"], tree, log)
    threading = ["--disable-gil"] if version.endswith("t") else []
    final = CACHE / version
    configure = ["./configure", f"--prefix={final}", "--with-ensurepip=install", *threading]
    for step in (configure, ["make", "-j2"], ["make", "install", f"DESTDIR={tree / 'root'}"]):
        run(["nice", *step], tree, log)
    shutil.rmtree(final, ignore_errors=True)
    (tree / "root" / final.relative_to("/")).rename(final)


def ensure(version: str) -> Path:
    """The interpreter of this version, built first if there is none."""
    python, log = find(version), CACHE / f"{version}.log"
    if not python:
        print(f"building {version}, which takes minutes; progress is in {log}", file=sys.stderr)
        CACHE.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as lock, tempfile.TemporaryDirectory(prefix="build-", dir=CACHE) as work:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two builds of one version would be in each other's way
            if not find(version):
                lock.truncate(0)
                make(version, Path(work), log)
        python = find(version)
    if python is None:
        raise CannotMake(f"what was built does not run, or lacks one of {MODULES}: see {log}")
    return python


def main() -> None:
    """Print the path of each interpreter that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="+", metavar="VERSION", help="3.14, or 3.14t: free-threaded")
    for version in parser.parse_args().versions:
        if not re.fullmatch(r"3\.\d+t?", version):
            parser.error(f"{version!r} is no version of CPython, such as 3.14 or 3.14t")
        try:
            print(ensure(version), flush=True)
        except CannotMake as reason:
            sys.exit(f"no CPython {version}: {reason}\nInstall it with pyenv, or on PATH as python{version}.")


if __name__ == "__main__":
    main()
