"""Request ids: what a new one looks like, which claims are well formed, one per context."""

from __future__ import annotations

import contextvars
import threading
import time
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_asynclog import context
from support import run_python


def test_a_new_id_is_a_uuid_of_version_7() -> None:
    """32 hexadecimal digits with the version, variant and time of RFC 9562; itself a well-formed claim."""
    before = time.time_ns() // 1_000_000
    request_id = context.new_request_id()
    after = time.time_ns() // 1_000_000
    parsed = uuid.UUID(request_id)
    assert request_id == parsed.hex
    assert len(request_id) == 32
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122
    assert before <= parsed.int >> 80 <= after
    assert context.well_formed_request_id(request_id)


def test_new_ids_never_repeat() -> None:
    """20,000 of them, on four threads."""
    ids: list[str] = []
    threads = [
        threading.Thread(target=lambda: ids.extend([context.new_request_id() for _ in range(5000)])) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 20_000


def test_all_random_bits_are_random() -> None:
    """74 bits beside time, version and variant take both values."""
    ids = [int(context.new_request_id(), 16) for _ in range(200)]
    fixed = 0xF << 76 | 0b11 << 62
    for bit in range(80):
        values = {number >> bit & 1 for number in ids}
        assert len(values) == (1 if fixed >> bit & 1 else 2), f"bit {bit}"


FORKS = """
import os
from flask_asynclog import context
context.new_request_id()
pids = []
for _ in range(4):
    pid = os.fork()
    if not pid:
        os.write(1, "".join(context.new_request_id() + "\\n" for _ in range(100)).encode())
        os._exit(0)
    pids.append(pid)
for pid in pids:
    os.waitpid(pid, 0)
"""


def test_forked_workers_do_not_repeat_each_other(tmp_path: Path) -> None:
    """Children of one process, which share all of its state, make random bits of their own."""
    ids = run_python(FORKS, cwd=tmp_path).stdout.split()
    assert len(ids) == 400
    assert len({int(request_id, 16) & (1 << 62) - 1 for request_id in ids}) == 400


@given(st.text(max_size=200))
@settings(deadline=None, database=None)
def test_which_claims_are_well_formed(claim: str) -> None:
    """1 to 128 of ``A-Z a-z 0-9 . _ -`` of ASCII, and nothing else."""
    allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
    assert bool(context.well_formed_request_id(claim)) == (1 <= len(claim) <= 128 and set(claim) <= allowed)


@pytest.mark.parametrize(
    ("claim", "well_formed"),
    [("a" * 128, True), ("a" * 129, False), ("", False), ("a\n", False), ("\u0661", False), ("0._-Z", True)],
)
def test_the_edges_of_well_formed(claim: str, well_formed: bool) -> None:
    """The longest, the empty one, a line end at the end, a digit that is not ASCII."""
    assert bool(context.well_formed_request_id(claim)) is well_formed


def test_the_id_belongs_to_its_context() -> None:
    """Another thread, and a copied context, do not see or change this one's."""
    seen: list[str | None] = []

    def other() -> None:
        seen.append(context.request_id.get())
        context.request_id.set("other")

    context.request_id.set("mine")
    thread = threading.Thread(target=other, **NO_INHERITANCE)
    thread.start()
    thread.join()
    contextvars.copy_context().run(context.request_id.set, "copy")
    assert context.request_id.get() == "mine"
    context.request_id.set(None)
    assert seen == [None]


#: From Python 3.14 threads may inherit their starter's context (free-threaded builds do).
NO_INHERITANCE = {"context": contextvars.Context()} if "context" in threading.Thread.__init__.__kwdefaults__ else {}
