"""The benchmarks: what they say is what was measured, and what was lost is seen. No timing is judged here."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import pytest

from benchmarks import block, openloop, pairs, plots, raw, rounds, serving, sink, slowdisk, tables
from benchmarks.contenders import CONTENDERS
from benchmarks.results import Block, Blocks, Row
from benchmarks.scenario import Plan
from benchmarks.scenarios import all_scenarios
from benchmarks.scenarios import calibration as calibrating
from benchmarks.scenarios import exit as exiting
from benchmarks.sink import Expected, Landed, mark, verify
from benchmarks.statistics import (
    MET,
    NOT_MET,
    NOT_RESOLVED,
    Estimate,
    Target,
    estimate,
    floor_of,
    paired_difference,
    percentile,
    percentiles,
    verdict,
)
from support import HANG, run_python

PROJECT = Path(__file__).resolve().parents[1]


# Statistics.


def test_percentiles_are_of_the_nearest_rank() -> None:
    """A percentile is one of the values; of no values there is none."""
    values = list(range(1, 1001))
    random.Random(1).shuffle(values)
    assert percentiles(values) == {"p50": 500, "p90": 900, "p99": 990, "p99.9": 999, "max": 1000}
    assert percentile([7], 99.9) == 7
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_the_bootstrap_interval_covers_the_median_as_often_as_it_says() -> None:
    """Of many samples of a known distribution, about 95 % of the intervals have its median in them."""
    choose = random.Random(7)
    hits = 0
    for seed in range(60):
        found = estimate([(choose.gauss(10, 2),) for _ in range(25)], seed=seed)
        assert found.low <= found.value <= found.high
        hits += found.low <= 10 <= found.high
    assert hits >= 50


def test_an_interval_of_one_round_is_its_value() -> None:
    """One round is shown as one; none has no estimate."""
    assert estimate([(3.0,)]) == Estimate(3.0, 3.0, 3.0, 1)
    with pytest.raises(ValueError, match="no rounds"):
        estimate([])


def test_the_interval_of_a_few_rounds_has_all_of_them() -> None:
    """That of their median, from the least to the greatest: 95 % of the resamples cover less than that, then."""
    for count in (5, 6, 7):
        found = estimate([(float(each),) for each in range(count)])
        assert (found.low, found.high) == (0.0, count - 1.0)
    found = estimate([(float(each),) for each in range(40)])
    assert 5 < found.low < found.value < found.high < 35


def test_pairs_see_what_medians_do_not() -> None:
    """A small difference within each round is found, however much the rounds differ from each other."""
    base = [float(each) for each in range(0, 1000, 100)]
    found = paired_difference([each + 2.0 for each in base], base)
    assert (found.value, found.low, found.high, found.count) == (2.0, 2.0, 2.0, 10)


def test_rounds_are_drawn_whole() -> None:
    """The interval of a ratio is that of rounds, not of numbers mixed from several: here each round has the same."""
    found = estimate([(each, 2 * each) for each in (1.0, 10.0, 100.0)], lambda rows: median(a / b for a, b in rows))
    assert (found.low, found.high) == (0.5, 0.5)


def test_the_floor_is_what_the_same_thing_differs_from_itself_by() -> None:
    """In either direction, at the far end of the interval."""
    assert floor_of([-3.0]) == 3.0
    assert floor_of([-3.0, 1.0, 2.0]) == 3.0
    assert floor_of([0.0, 0.0]) == 0.0


@pytest.mark.parametrize(
    ("found", "floor", "target", "neutral", "expected"),
    [
        (Estimate(0.4, 0.3, 0.5, 9), 0.05, Target(0.5), 0.0, MET),
        (Estimate(0.4, 0.3, 0.6, 9), 0.05, Target(0.5), 0.0, NOT_RESOLVED),
        (Estimate(0.4, 0.3, 0.5, 9), 0.2, Target(0.5), 0.0, NOT_RESOLVED),
        (Estimate(0.6, 0.55, 0.7, 9), 0.05, Target(0.5), 0.0, NOT_MET),
        (Estimate(0.6, 0.55, 0.7, 9), 0.2, Target(0.5), 0.0, NOT_RESOLVED),
        (Estimate(12.0, 11.0, 13.0, 9), 1.0, Target(10.0, at_most=False), 1.0, MET),
        (Estimate(12.0, 9.0, 13.0, 9), 1.0, Target(10.0, at_most=False), 1.0, NOT_RESOLVED),
        (Estimate(8.0, 7.0, 9.0, 9), 1.0, Target(10.0, at_most=False), 1.0, NOT_MET),
        (Estimate(1.07, 1.06, 1.08, 9), 0.1, Target(1.05, floor_suffices=True), 1.0, MET),
        (Estimate(1.07, 1.06, 1.12, 9), 0.1, Target(1.05, floor_suffices=True), 1.0, NOT_RESOLVED),
        (Estimate(1.07, 1.06, 1.08, 9), 0.01, Target(1.05, floor_suffices=True), 1.0, NOT_MET),
        (Estimate(1.02, 0.9, 1.3, 9), 0.01, Target(1.05, floor_suffices=True), 1.0, NOT_RESOLVED),
        (Estimate(0.0, 0.0, 0.0, 1), None, Target(0.0), None, MET),
        (Estimate(0.4, 0.4, 0.4, 1), 0.05, Target(0.5), 0.0, NOT_RESOLVED),
        (Estimate(0.4, 0.3, 0.45, 4), 0.05, Target(0.5), 0.0, NOT_RESOLVED),
        (Estimate(1.01, 1.01, 1.01, 1), 0.1, Target(1.05, floor_suffices=True), 1.0, NOT_RESOLVED),
    ],
)
def test_verdicts(found: Estimate, floor: float | None, target: Target, neutral: float | None, expected: str) -> None:
    """Met and not met need the whole interval and the floor on one side; everything else is not resolved."""
    assert verdict(found, floor, target, neutral) == expected


def test_turns_that_alternate_see_what_drifts_on_both_sides() -> None:
    """The median of what each pair differs by; each is first in every other pair, with a rest before each turn."""
    turns: list[str] = []

    def rest() -> None:
        turns.append("rest")

    def turn(name: str, value: float) -> float:
        turns.append(name)
        return 10.0 * ((len(turns) - 1) // 4) + value  # the machine becomes slower from pair to pair

    found = pairs.by_turns(lambda: turn("one", 7.0), lambda: turn("other", 2.0), 20, random.Random(3), rest)
    assert pairs.difference(found) == 5.0
    assert turns[::2] == ["rest"] * 40
    assert turns[1::2] in (["one", "other", "other", "one"] * 10, ["other", "one", "one", "other"] * 10)


def test_a_turn_waits_until_the_last_one_has_caught_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the process is at work; but not for ever."""
    work = [pairs.MOMENT] * 3
    clock = {"now": 0.0, "cpu": 0.0}

    class Time:
        def monotonic(self) -> float:
            return clock["now"]

        def process_time(self) -> float:
            return clock["cpu"]

        def sleep(self, seconds: float) -> None:
            clock["now"] += seconds
            clock["cpu"] += work.pop() if work else 0.0

    monkeypatch.setattr(pairs, "time", Time())
    pairs.settle(pairs.time.process_time)
    assert clock["now"] == pytest.approx(4 * pairs.MOMENT)
    work = [pairs.MOMENT] * 10_000
    clock["now"] = 0.0
    pairs.settle(pairs.time.process_time)
    assert clock["now"] == pytest.approx(pairs.PATIENCE, abs=2 * pairs.MOMENT)


def some_blocks(ours: list[float], floor: float, landed: Landed | None = None) -> Blocks:
    """Rounds in which the reference has 10, twice, and ours what is given."""
    blocks = []
    for number, value in enumerate(ours):
        blocks += [
            Block(number, "null", figures={"p50": 10.0}),
            Block(number, "null", again=True, figures={"p50": 10.0 + floor}),
            Block(number, "file", figures={"p50": 30.0}),
            Block(number, "ours", figures={"p50": value}, landed=landed),
        ]
    return Blocks("caller", "null", blocks)


def test_rows_of_differences_and_ratios() -> None:
    """Above the reference, by another one above it, and by another one as it is."""
    blocks = some_blocks([12.0, 12.0, 12.0, 12.0, 13.0], 0.5)  # the reference has 10 and 10.5
    rows = {row.contender: row for row in blocks.rows_above("p50", "a call", "µs", Target(3.5))}
    assert rows["ours"].found == Estimate(1.75, 1.75, 2.75, 5)
    assert rows["ours"].floor == 0.5
    assert rows["ours"].verdict == MET
    assert rows["file"].target is None
    found, floor = blocks.ratio("ours", "file", "p50")
    assert found is not None
    assert (found.value, floor) == (1.75 / 19.75, 0.5 / 19.75)
    found, floor = blocks.quotient("ours", "null", "p50")
    assert found is not None
    assert (found.value, floor) == (1.2, 0.05)


def test_what_a_contender_is_above_is_the_mean_of_both_blocks() -> None:
    """Of the reference, in each round; where one has failed, the other."""
    blocks = Blocks(
        "caller",
        "null",
        [
            Block(0, "null", figures={"p50": 10.0}),
            Block(0, "null", again=True, figures={"p50": 14.0}),
            Block(0, "ours", figures={"p50": 15.0}),
            Block(1, "null", figures={"p50": 10.0}),
            Block(1, "null", again=True, error="exit status 1: no"),
            Block(1, "ours", figures={"p50": 11.0}),
            Block(2, "null", error="exit status 1: no"),
            Block(2, "null", again=True, figures={"p50": 9.0}),
            Block(2, "ours", figures={"p50": 11.0}),
        ],
    )
    assert blocks.base("p50") == {0: 12.0, 1: 10.0, 2: 9.0}
    assert blocks.above("ours", "p50") == Estimate(2.0, 1.0, 3.0, 3)


def test_turns_while_the_machine_was_slow_are_left_out_and_counted() -> None:
    """By what quick turns of the same kind take, in any block; a figure of all turns is beside it."""
    quick = [(4.0, 4.0), (4.1, 4.0), (4.0, 4.0), (4.0, 4.1)]
    blocks = [
        Block(0, "null", turns={"p50": [*quick, (6.4, 6.4)]}),
        Block(0, "ours", turns={"p50": [(4.5, 4.1), (7.2, 6.4), (7.3, 4.0), (4.5, 6.4)]}),
        Block(1, "null", turns={"p50": quick}),
        Block(1, "ours", turns={"p50": [(4.6, 4.1), (7.3, 6.4), (7.2, 6.4), (7.3, 6.5), (7.4, 6.5)]}),
        Block(1, "ours", error="exit status 1: no"),
    ]
    found = Blocks("caller", "null", blocks)
    assert found.pairs == {"p50": {"null": (8, 9), "ours": (2, 9)}}
    assert found.values("ours", "p50") == {0: pytest.approx(0.4)}, "one of five is too few to speak for a block"
    assert found.values("ours", "p50, all turns") == {0: pytest.approx(0.6), 1: pytest.approx(0.8)}
    scenario = next(each for each in all_scenarios() if each.name == "caller")
    text = tables.about(rounds.Outcome(scenario, found, [], {}))
    assert "Pairs of turns at full speed, p50: null 8 of 9, ours 2 of 9." in text
    rows = [row for row in found.rows_of_turns("p50", "a call", "µs", Target(0.5)) if row.contender == "ours"]
    assert [(row.figure, row.target) for row in rows] == [("a call", Target(0.5)), ("a call, all turns", Target(0.5))]


def test_rows_of_quotients_taken_in_each_block() -> None:
    """Their floor is what those of the reference by itself are off one, in its first blocks or in its second."""
    blocks = []
    figures = [(1.0, 1.2, 1.3), (0.9, 1.1, 1.4), (1.0, 1.2, 1.5), (1.0, 1.2, 1.4), (1.0, 1.2, 1.4)]
    for number, (own, again, ours) in enumerate(figures):
        blocks += [
            Block(number, "null", figures={"ratio": own}),
            Block(number, "null", again=True, figures={"ratio": again}),
            Block(number, "ours", figures={"ratio": ours}),
        ]
    [row] = Blocks("twenty", "null", blocks).rows_by_reference("ratio", "p99, by that of null", Target(2.0))
    assert (row.contender, row.unit, row.neutral) == ("ours", "ratio", 1.0)
    assert row.found == Estimate(1.4, 1.3, 1.5, 5)
    assert row.floor == pytest.approx(0.2)
    assert row.verdict == MET


def test_an_effect_inside_the_floor_is_not_resolved() -> None:
    """And the table says so, with a target and without."""
    blocks = some_blocks([10.2, 10.3, 10.4], 0.5)
    [row] = [row for row in blocks.rows_above("p50", "a call", "µs", Target(0.5)) if row.contender == "ours"]
    assert not row.resolved
    _, _, [line] = tables.target_table([row])
    assert "not resolved" in line[-1]
    assert "inside the floor" in line[-1]
    [row] = [row for row in blocks.rows_above("p50", "a call", "µs") if row.contender == "ours"]
    assert row.verdict == NOT_RESOLVED


def test_a_failed_block_is_no_zero() -> None:
    """Its round is left out, and the failure is in the table."""
    blocks = some_blocks([12.0, 12.0], 0.0)
    blocks.blocks.append(Block(2, "ours", error="exit status 1: no"))
    assert blocks.values("ours", "p50") == {0: 12.0, 1: 12.0}
    assert "1 of 3 blocks failed: exit status 1: no" in blocks.landed("ours")


def test_a_failed_block_of_ours_meets_no_target() -> None:
    """Its round would be the worst."""
    scenario = next(each for each in all_scenarios() if each.name == "caller")
    blocks = some_blocks([10.0] * 6, 0.0)
    rows = [row for row in rounds.conclude(scenario, blocks) if row.target and row.found and row.unit == "µs"]
    assert [row.verdict for row in rows] == [MET]
    blocks.blocks.append(Block(6, "ours", error="exit status 1: no"))
    rows = [row for row in rounds.conclude(scenario, blocks) if row.target and row.found and row.unit == "µs"]
    assert [row.verdict for row in rows] == [NOT_MET]


def test_the_floor_of_plain_figures_is_the_references_own() -> None:
    """That of the others nobody has measured."""
    rows = some_blocks([12.0] * 5, 0.5).rows_plain("p50", "p50", "µs")
    assert {row.contender: row.floor for row in rows} == {"null": 0.5, "file": None, "ours": None}


def test_what_loses_records_meets_no_target() -> None:
    """However fast it is; unless the scenario is about losses."""
    lost = Landed(100, 99, 1, 0, 0, {"record/c": 1})
    scenario = next(each for each in all_scenarios() if each.name == "caller")
    blocks = some_blocks([10.0, 10.0], 0.0, lost)
    rows = [row for row in rounds.conclude(scenario, blocks) if row.contender == "ours" and row.target and row.found]
    assert rows
    assert {row.verdict for row in rows} == {NOT_MET}
    assert rows[0].landed == "2 missing of 200"
    whole = some_blocks([10.0, 10.0], 0.0, Landed(100, 100, 0, 0, 0, {}))
    assert rounds.conclude(scenario, whole)[-1].landed == "all there"


def test_a_round_has_every_contender_once_and_the_reference_twice() -> None:
    """In an order that differs from round to round, and is the same again with the same seed."""
    orders = []
    for _ in range(2):
        choose = random.Random("5 caller")
        orders.append([rounds.order(["null", "file", "ours"], "null", number, choose) for number in range(8)])
    assert orders[0] == orders[1]
    for blocks in orders[0]:
        assert sorted((each.contender, each.again) for each in blocks) == [
            ("file", False),
            ("null", False),
            ("null", True),
            ("ours", False),
        ]
    assert len({tuple(each.contender for each in blocks) for blocks in orders[0]}) > 1


# Sink.

TIME = "2026-11-22 15:00:00,123 - "


def lines(*texts: str) -> str:
    """Whole lines with these messages."""
    return "".join(f"{TIME}bench - INFO - {text}\n" for text in texts)


def test_all_there(tmp_path: Path) -> None:
    """In the live file and rotated ones; a contender's own words do not matter, nor do lock files."""
    (tmp_path / "app.log").write_text(lines(f"record {mark('a', 2)} of x", "dropped 3 records"))
    (tmp_path / "app.log.1").write_text(lines(f"record {mark('a', 0)} of x", f"record {mark('a', 1)} of x"))
    (tmp_path / ".__app.lock").touch()
    landed = verify(sink.log_files(tmp_path), Expected({"record/a": 3}, {}))
    assert landed == Landed(3, 3, 0, 0, 0, {})
    assert landed.text == "all there"


def test_missing_and_doubled(tmp_path: Path) -> None:
    """Each is counted, by kind; what nobody logged is one too many."""
    records = [f"record {mark('a', number)} of x" for number in (0, 0, 2, 7)]
    (tmp_path / "app.log").write_text(lines(*records, f"record {mark('b', 0)} of x"))
    landed = verify(sink.log_files(tmp_path), Expected({"record/a": 4, "record/warned": 1}, {}))
    assert (landed.found, landed.missing, landed.doubled, landed.torn) == (2, 3, 3, 0)
    assert landed.missing_by_kind == {"record/a": 2, "record/warned": 1}
    assert not landed.complete


@pytest.mark.parametrize(
    "text",
    [
        f"{TIME}bench - INFO - record {mark('a', 0)[:-1]}\n",
        f"{TIME}bench - INFO - record {mark('a', 0)} of x{TIME}bench - INFO - record {mark('a', 1)} of x\n",
        f"{TIME}bench - INFO - record {mark('a', 0)} {mark('a', 1)}\n",
        f"{TIME}bench - INFO - record {mark('a', 0)} of x",
        f"cord {mark('a', 0)} of x\n",
        f"\x00\x00{TIME}bench - INFO - record {mark('a', 0)} of x\n",
    ],
    ids=["mark cut short", "two lines in one", "two marks", "no line end", "no begin", "holes"],
)
def test_torn(text: str, tmp_path: Path) -> None:
    """Such a line is torn, and what it was to carry is missing."""
    (tmp_path / "app.log").write_text(text)
    landed = verify(sink.log_files(tmp_path), Expected({"record/a": 2}, {}))
    assert (landed.missing, landed.torn) == (2, 1)
    assert "1 torn" in landed.text


def test_requests_have_a_mark_in_their_path(tmp_path: Path) -> None:
    """Request and response are two records; a response without a path is counted."""
    request = f"Request GET http://localhost/item/{mark('r', 0)}"
    (tmp_path / "app.log").write_text(lines(request, "Response 200 OK", "Response 200 OK"))
    landed = verify(sink.log_files(tmp_path), Expected({"Request/r": 1}, {"Response": 1}))
    assert (landed.missing, landed.doubled) == (0, 1)
    landed = verify(sink.log_files(tmp_path), Expected({"Request/r": 1, "Response/r": 1}, {"Response": 3}))
    assert (landed.missing, landed.doubled) == (2, 0)


# Contenders.


@pytest.mark.parametrize("name", CONTENDERS)
def test_a_contender_writes_what_it_is_asked_to(name: str) -> None:
    """Both records of each request land, once and whole, in a process of its own."""
    contender = CONTENDERS[name]
    # Not imported here: logxide brings others with it that patch this process.
    if importlib.util.find_spec(contender.needs) is None:
        pytest.skip(f"{contender.needs} is not installed")
    done = block.run(
        Block(0, name), "requests", {"warm": 2, "requests": 20, "turns": 2, "size": 5, "burst": 3, "seed": 1}, HANG
    )
    assert done.error == ""
    if contender.writes:
        assert done.landed is not None
        assert done.landed.expected == 76
        assert done.landed.complete, done.landed
    assert set(done.percentiles) == {"p50", "p90", "p99", "p99.9", "max"}


def test_a_block_that_fails_says_why() -> None:
    """The last line of its complaint; and one that hangs is ended."""
    done = block.run(Block(0, "file"), "exit", {}, HANG)
    assert done.error == "exit status 1: KeyError: 'records'"
    done = block.run(Block(0, "file"), "idle", {"seconds": 60}, 2)
    assert done.error == "not done within 2 s"


# Open loop.


def test_the_predicted_percentile_is_that_of_the_model() -> None:
    """Planned requests, a server without any work, one pause: half of the pause shows at the predicted percentile."""
    seconds, pause = 4.0, 1.0
    moments = openloop.even(1000, seconds)
    latencies = [max(0.0, 2.0 - moment) if moment >= 1.0 else 0.0 for moment in moments]
    shown = percentile(latencies, calibrating.predicted(pause, seconds))
    assert shown == pytest.approx(pause / 2, abs=0.002)


def test_a_pause_of_the_server_shows_where_it_has_to() -> None:
    """Stopped for a known time, all who came meanwhile have waited: a slow machine can only add to it."""
    if reason := serving.unavailable():
        pytest.skip(reason)
    done = block.run(Block(0, "none"), "calibration", {"seconds": 2.0, "pause": 0.8, "rate": 100, "seed": 1}, HANG)
    assert done.error == ""
    assert done.figures["shown"] >= 0.95
    assert done.percentiles["max"] >= 0.95 * 0.8e6


def test_planned_moments() -> None:
    """At the rate asked for, the same for the same seed."""
    moments = openloop.poisson(1000, 5.0, seed=3)
    assert moments == openloop.poisson(1000, 5.0, seed=3)
    assert moments != openloop.poisson(1000, 5.0, seed=4)
    assert moments == sorted(moments)
    assert 4500 < len(moments) < 5500
    assert openloop.even(4, 1.0) == [0.0, 0.25, 0.5, 0.75]


# The slow disk.

WRITE = """
import sys, time
for name in sys.argv[1:]:
    began = time.monotonic()
    with open(name, "ab", buffering=0) as file:
        file.write(b"x")
    print(time.monotonic() - began, time.monotonic())
"""


def write_slowly(directory: Path, *names: str, stall: float, **when: float) -> list[tuple[float, float]]:
    """Write to the files one after the other; how long each took, and when it was done."""
    library = slowdisk.build(directory)
    environment = {**os.environ, **slowdisk.environment(library, "slow.log", stall, **when)}
    out = run_python(WRITE, *names, cwd=directory, env=environment).stdout
    return [(float(took), float(end)) for took, end in map(str.split, out.splitlines())]


needs_slow_disk = pytest.mark.skipif(bool(slowdisk.unavailable()), reason=slowdisk.unavailable())


@needs_slow_disk
def test_the_slow_disk_delays_the_log_and_nothing_else(tmp_path: Path) -> None:
    """At least as long as it is told to."""
    (slow, _), (other, _) = write_slowly(tmp_path, "slow.log", "other.log", stall=0.5)
    assert slow >= 0.5
    assert other < slow
    assert (tmp_path / "slow.log").read_bytes() == b"x"


@needs_slow_disk
def test_the_slow_disk_stalls_until_the_end_of_its_period(tmp_path: Path) -> None:
    """Whoever writes during a stall waits for its end; who comes later does not wait for the next."""
    since = time.monotonic()
    (_, first), (second, _) = write_slowly(tmp_path, "slow.log", "slow.log", stall=2, period=1000, since=since)
    assert first >= since + 2 - 0.01  # in whole milliseconds
    assert second < 2


# The command.


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    """``python -m benchmarks`` with arguments, from the project's directory."""
    whole = [sys.executable, "-m", "benchmarks", *map(str, arguments)]
    return subprocess.run(whole, cwd=PROJECT, capture_output=True, text=True, timeout=HANG, check=False)


def test_the_command_lists_every_scenario() -> None:
    """With its question; an unknown name is an error that says how to find the names."""
    done = command("--list")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [f"{each.name}: {each.question}" for each in all_scenarios()]
    done = command("nonsense")
    assert done.returncode == 2
    assert "--list" in done.stderr


def test_the_command_runs_a_scenario_and_writes_it_down(tmp_path: Path) -> None:
    """Tables in three forms, and the raw results with what they were measured on."""
    files = {name: tmp_path / f"out.{name}" for name in ("json", "markdown", "rst")}
    done = command("imports", "--quick", "--seed", 5, *(f"--{name}={file}" for name, file in files.items()))
    assert done.returncode == 0, done.stderr
    assert files["markdown"].read_text() in done.stdout
    assert "| imports | import beyond Flask's own | ≤ 60.0 ms |" in done.stdout
    assert ".. list-table::" in files["rst"].read_text()
    kept = json.loads(files["json"].read_text())
    assert {"cpu", "cores", "load", "kernel", "versions"} <= kept["machine"].keys()
    assert {"CPython", "flask", "flask-asynclog"} <= kept["machine"]["versions"].keys()
    assert kept["seed"] == 5
    [scenario] = kept["scenarios"]
    assert sum(each["contender"] == "ours" for each in scenario["blocks"]) == 2
    assert all(each["figures"]["ms"] > 0 for each in scenario["blocks"])


def test_a_scenario_from_blocks_to_tables(tmp_path: Path) -> None:
    """Small and in full: rounds, counted records, rows, JSON and back again, tables."""
    scenario = dataclasses.replace(exiting.SCENARIO, contenders=("file", "loguru", "ours"))
    said: list[str] = []
    outcome = rounds.run(scenario, Plan(2, {"records": 50}, without=("loguru",)), 1, said.append)
    assert [each.error for each in outcome.blocks.blocks] == [""] * 6
    assert {row.landed for row in outcome.rows} == {"all there"}
    about = {"cpu": "c", "cores": 1, "load": [0.0], "kernel": "k", "versions": {"Python": "3"}}
    raw.write(tmp_path / "found.json", [outcome], about, 1, True)
    assert json.loads((tmp_path / "found.json").read_text())["scenarios"][0]["blocks"][0]["landed"]["expected"] == 50
    [again] = raw.read(tmp_path / "found.json", [exiting.SCENARIO, *all_scenarios()[:1]])
    assert again.blocks.blocks == outcome.blocks.blocks
    assert again.rows == outcome.rows
    assert again.when.endswith(" UTC")
    assert f"Of {again.when}: 2 rounds; records 50." in tables.rest([again], about, 1, True)
    (tmp_path / "found.json").write_text('{"scenarios": [{}]}')
    with pytest.raises(ValueError, match="has no results of this command: KeyError"):
        raw.read(tmp_path / "found.json", [exiting.SCENARIO])
    assert "from the last call to the end" in tables.markdown([outcome], about, 1, True)
    assert "2 rounds; records 50." in tables.rest([outcome], about, 1, True)


def test_a_contender_that_is_not_there_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason, in what is said and in the tables."""
    missing = dataclasses.replace(CONTENDERS["clh"], needs="no_such_module")
    monkeypatch.setitem(CONTENDERS, "clh", missing)
    scenario = dataclasses.replace(exiting.SCENARIO, contenders=("file", "clh"))
    said: list[str] = []
    outcome = rounds.run(scenario, Plan(1, {"records": 5}), 1, said.append)
    assert outcome.blocks.contenders == ["file"]
    assert "No module named 'no_such_module'" in said[0]
    assert "Without clh: no_such_module cannot be imported" in tables.about(outcome)


def test_a_scenario_that_cannot_run_is_skipped() -> None:
    """With the reason."""
    scenario = dataclasses.replace(exiting.SCENARIO, unavailable=lambda: "no compiler")
    outcome = rounds.run(scenario, Plan(1), 1, lambda _: None)
    assert outcome.blocks.blocks == []
    assert tables.about(outcome) == "Skipped: no compiler."


def test_plots_without_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The message names the extra."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(plots.NoPlots, match=r"flask-asynclog\[bench\]"):
        plots.draw([], tmp_path)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(0.0, "µs", "0 µs"), (0.0512, "ratio", "0.051"), (1.234, "µs", "1.23 µs"), (12_345.0, "µs", "12.3 ms")],
)
def test_numbers_have_the_digits_that_count(value: float, unit: str, text: str) -> None:
    """Three of them, and large times in milliseconds."""
    assert tables.with_unit(value, unit) == text


def test_cells_are_escaped() -> None:
    """What a table's syntax would read as its own."""
    row = Row("s", "a|b", "x*y_", "", Estimate(1, 1, 1, 2), None, Target(1))
    assert tables.target_table([row])[2][0][1] == "x*y_"
    assert tables._pipes(["a|b"]) == "| a\\|b |"
    assert tables._escape("x*y_ --z") == "x\\*y\\_ \\-\\-z"
