"""What landed in the log files: every record of a benchmark carries a mark of its own, and all marks are counted.

A mark is ``~TAG-NUMBER~``: characters that stay as they are in a URL, with an end on both sides, so a mark that is cut
short is none. Which records there must be follows from how many marks of a tag were logged.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[,.]?\d{0,3} - "
#: A line of any contender: time, logger, level, and a message that begins with its kind.
LINE = re.compile(TIME + r"[^ ]+ - ([A-Z]+) - (\w+) ?(.*)")
MARK = re.compile(r"~([A-Za-z0-9.]+)-(\d+)~")
#: Kinds of lines that records are counted by. Others are the contender's own words.
KINDS = ("record", "Request", "Response")


def mark(tag: str, number: int) -> str:
    """The mark of record ``number`` of ``tag``."""
    return f"~{tag}-{number}~"


@dataclass(frozen=True)
class Expected:
    """What was logged: of each ``kind/tag``, the numbers from 0 up to a count."""

    marked: Mapping[str, int]
    #: Kinds that carry no mark, such as the usual recipe's ``Response 200 OK``: so many lines.
    unmarked: Mapping[str, int]


@dataclass(frozen=True)
class Landed:
    """What became of it."""

    expected: int
    found: int
    missing: int
    doubled: int
    torn: int
    #: The missing by ``kind/tag``, or kind.
    missing_by_kind: Mapping[str, int]

    @property
    def complete(self) -> bool:
        """Whether everything is there, once and whole."""
        return not (self.missing or self.doubled or self.torn)

    @property
    def text(self) -> str:
        """For a table."""
        if self.complete:
            return "all there"
        parts = {"missing": self.missing, "doubled": self.doubled, "torn": self.torn}
        return ", ".join(f"{count:,} {name}" for name, count in parts.items() if count) + f" of {self.expected:,}"

    def as_json(self) -> dict[str, object]:
        """For the raw results."""
        return asdict(self)

    @classmethod
    def total(cls, parts: Iterable[Landed]) -> Landed:
        """The sum."""
        parts = list(parts)
        kinds: Counter[str] = Counter()
        for part in parts:
            kinds.update(part.missing_by_kind)
        return cls(
            sum(part.expected for part in parts),
            sum(part.found for part in parts),
            sum(part.missing for part in parts),
            sum(part.doubled for part in parts),
            sum(part.torn for part in parts),
            dict(kinds),
        )


def verify(files: Iterable[Path], expected: Expected) -> Landed:
    """Read all ``files`` and compare."""
    marked: dict[str, Counter[int]] = {key: Counter() for key in expected.marked}
    unmarked: Counter[str] = Counter()
    torn = 0
    for file in files:
        with file.open(encoding="utf-8", errors="replace", newline="\n") as lines:
            for line in lines:
                kind, tag, number, whole = _read(line)
                if not whole:
                    torn += 1
                elif tag:
                    marked.setdefault(f"{kind}/{tag}", Counter())[number] += 1
                elif kind in KINDS:
                    unmarked[kind] += 1
    missing: Counter[str] = Counter()
    doubled = found = 0
    for key, counts in marked.items():
        wanted = expected.marked.get(key, 0)
        there = sum(1 for number in counts if number < wanted)
        found += there
        missing[key] += wanted - there
        doubled += sum(counts.values()) - there  # a mark that nobody logged is one too many as well
    for kind in {*expected.unmarked, *unmarked}:
        wanted, there = expected.unmarked.get(kind, 0), unmarked[kind]
        found += min(wanted, there)
        missing[kind] += max(0, wanted - there)
        doubled += max(0, there - wanted)
    total = sum(expected.marked.values()) + sum(expected.unmarked.values())
    return Landed(total, found, missing.total(), doubled, torn, {key: count for key, count in missing.items() if count})


def _read(line: str) -> tuple[str, str, int, bool]:
    """Kind, tag and number of a line, and whether it is a whole one and one only."""
    parts = LINE.fullmatch(line.rstrip("\n"))
    if parts is None or not line.endswith("\n") or re.search(TIME, line[10:]):
        return "", "", 0, False
    marks = MARK.findall(parts[3])
    if len(marks) > 1 or parts[3].count("~") != 2 * len(marks):
        return "", "", 0, False
    tag, number = marks[0] if marks else ("", "0")
    return parts[2], tag, int(number), True


def log_files(directory: Path) -> list[Path]:
    """The logs in ``directory`` and their rotated files, lock files left out."""
    return sorted(file for file in directory.glob("*.log*") if file.is_file() and not file.name.startswith("."))
