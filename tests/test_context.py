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

from flask_asynclog import context, requestid
from support import run_python


def test_a_new_id_is_a_uuid_of_version_7() -> None:
    """32 hexadecimal digits with the version, variant and time of RFC 9562; itself a well-formed claim."""
    before = time.time_ns() // 1_000_000
    request_id = requestid.new_request_id(time.time())
    after = time.time_ns() // 1_000_000
    parsed = uuid.UUID(request_id)
    assert request_id == parsed.hex
    assert len(request_id) == 32
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122
    assert before <= parsed.int >> 80 <= after
    assert requestid.well_formed_request_id(request_id)


def test_new_ids_never_repeat() -> None:
    """20,000 of them, on four threads."""
    ids: list[str] = []
    threads = [
        threading.Thread(target=lambda: ids.extend([requestid.new_request_id(time.time()) for _ in range(5000)]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 20_000


def test_all_random_bits_are_random() -> None:
    """73 bits beside time, version, variant and the room to count take both values, from one process to the next."""
    ids = [int(requestid.RequestIds().new(time.time()), 16) for _ in range(200)]
    fixed = 0xF << 76 | 0b111 << 61
    for bit in range(80):
        values = {number >> bit & 1 for number in ids}
        assert len(values) == (1 if fixed >> bit & 1 else 2), f"bit {bit}"


def test_ids_of_one_moment_are_ordered() -> None:
    """Also when the clock stands still."""
    ids = [requestid.new_request_id(1_800_000_000.0) for _ in range(1000)]
    assert ids == sorted(set(ids))


FORKS = """
import os, time
from flask_asynclog import requestid
requestid.new_request_id(time.time())
pids = []
for _ in range(4):
    pid = os.fork()
    if not pid:
        os.write(1, "".join(requestid.new_request_id(time.time()) + "\\n" for _ in range(100)).encode())
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
    assert bool(requestid.well_formed_request_id(claim)) == (1 <= len(claim) <= 128 and set(claim) <= allowed)


@pytest.mark.parametrize(
    ("claim", "well_formed"),
    [("a" * 128, True), ("a" * 129, False), ("", False), ("a\n", False), ("\u0661", False), ("0._-Z", True)],
)
def test_the_edges_of_well_formed(claim: str, well_formed: bool) -> None:
    """The longest, the empty one, a line end at the end, a digit that is not ASCII."""
    assert bool(requestid.well_formed_request_id(claim)) is well_formed


def test_the_id_belongs_to_its_context() -> None:
    """Another thread, and a copied context, do not see or change this one's."""
    seen: list[str | None] = []

    def other() -> None:
        seen.append(context.request_id())
        context.current.set(context.Context("other"))

    outer = context.current.get()
    context.current.set(context.Context("mine"))
    thread = threading.Thread(target=other, **NO_INHERITANCE)
    thread.start()
    thread.join()
    contextvars.copy_context().run(context.current.set, context.Context("copy"))
    assert context.request_id() == "mine"
    context.current.set(outer)
    assert context.request_id() is None
    assert seen == [None]


#: From Python 3.14 threads may inherit their starter's context (free-threaded builds do).
NO_INHERITANCE = {"context": contextvars.Context()} if "context" in threading.Thread.__init__.__kwdefaults__ else {}
