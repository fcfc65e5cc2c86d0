"""`files`: the log's stream, whose writes are all or nothing, and the lock file."""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_asynclog.files import AppendStream, LockedFile, open_file
from support import is_root, run_python, start_python

PATH = "some.log"


def mode_of(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def opened(path: str = PATH) -> Iterator[AppendStream]:
    stream = AppendStream(path, 0o640)
    try:
        yield stream
    finally:
        stream.close()


@contextmanager
def locked_by_another_process(path: str) -> Iterator[int]:
    """A process that holds a `LockedFile` on ``path`` until the block ends; yields its pid."""
    code = """
import sys
from flask_asynclog.files import LockedFile
lock = LockedFile(sys.argv[1], 0o640)
print(lock.try_lock(), flush=True)
sys.stdin.read()
"""
    with start_python(code, path, cwd=Path.cwd()) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "True\n"
            yield process.pid
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()


# Opening.


@pytest.mark.parametrize("mask", [0, 0o077, 0o777])
def test_a_new_file_has_exactly_the_mode_asked_for(mask: int) -> None:
    """The umask neither adds nor takes away a permission."""
    with umask(mask):
        os.close(open_file(PATH, 0, 0o640))
    assert mode_of(PATH) == 0o640


def test_an_existing_file_gets_the_mode_and_keeps_its_content() -> None:
    """A log that an earlier program left world-readable is closed to the world, not emptied."""
    Path(PATH).write_text("old\n")
    os.chmod(PATH, 0o666)
    os.close(open_file(PATH, 0, 0o640))
    assert mode_of(PATH) == 0o640
    assert Path(PATH).read_text() == "old\n"


@pytest.mark.skipif(not is_root(), reason="needs a file of another user")
def test_a_file_of_another_user_is_used_as_it_is() -> None:
    """Who may write to a file but not set its mode, works with it."""
    Path(PATH).write_text("old\n")
    os.chmod(PATH, 0o666)
    os.chmod(".", 0o755)
    os.seteuid(65534)
    try:
        os.close(open_file(PATH, 0, 0o640))
    finally:
        os.seteuid(0)
    assert mode_of(PATH) == 0o666


@pytest.mark.parametrize("kind", [AppendStream, LockedFile])
@pytest.mark.parametrize("target", ["there", "missing"])
def test_a_symbolic_link_is_refused(kind: Callable[[str, int], object], target: str) -> None:
    """A link is neither followed to an existing file nor used to make one."""
    Path("there").write_text("untouched")
    os.chmod("there", 0o600)
    os.symlink(target, PATH)
    with pytest.raises(OSError, match=PATH) as raised:
        kind(PATH, 0o640)
    assert raised.value.errno == errno.ELOOP
    assert not Path("missing").exists()
    assert Path("there").read_text() == "untouched"
    assert mode_of("there") == 0o600


def test_a_fifo_is_refused_without_waiting_for_its_other_end() -> None:
    """Opening a FIFO would wait for a reader for ever."""
    os.mkfifo(PATH, 0o600)
    code = """
import sys
from flask_asynclog.files import AppendStream, LockedFile
for kind in AppendStream, LockedFile:
    try:
        kind(sys.argv[1], 0o640)
    except OSError as error:
        print(error)
"""
    assert run_python(code, PATH, cwd=Path.cwd()).stdout == f"[Errno 22] not a regular file: {PATH!r}\n" * 2
    assert mode_of(PATH) == 0o600


def test_directories_and_sockets_are_refused() -> None:
    """Only regular files are written to; a refused one leaves no descriptor behind."""
    os.mkdir("directory")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        before = os.listdir("/dev/fd")
        for path in ("directory", "socket"):
            with pytest.raises(OSError, match=path):
                AppendStream(path, 0o640)
        assert os.listdir("/dev/fd") == before


def test_programs_that_the_process_starts_do_not_inherit_log_and_lock() -> None:
    """A long-lived child of another program would keep a deleted log's space, and the lock."""
    with opened() as stream:
        lock = LockedFile("lock", 0o640)
        try:
            assert not os.get_inheritable(stream.fileno())
            assert not os.get_inheritable(lock.fileno())
        finally:
            lock.close()


# The stream.


def test_writes_are_appended_also_after_another_process_wrote() -> None:
    """The end of the file counts, not where this process wrote last."""
    with opened() as stream:
        stream.write("one\n")
        with Path(PATH).open("a") as other:
            other.write("two\n")
        stream.seek(0)
        assert stream.write("three\n") == len("three\n")
        assert stream.size() == len("one\ntwo\nthree\n")
    assert Path(PATH).read_text() == "one\ntwo\nthree\n"


def test_a_file_emptied_by_copytruncate_is_filled_from_its_start() -> None:
    """No hole of NUL bytes where the old lines were."""
    with opened() as stream:
        stream.write("one\n")
        os.truncate(PATH, 0)
        stream.write("two\n")
    assert Path(PATH).read_bytes() == b"two\n"


def test_lone_surrogates_are_written_escaped() -> None:
    """What has no UTF-8 form is shown, not dropped, and does not cost the batch."""
    with opened() as stream:
        stream.write("a\ud800b é 漢\n")
    assert Path(PATH).read_text(encoding="utf-8") == "a\\ud800b é 漢\n"


def test_a_line_left_unfinished_by_a_killed_process_is_ended_first() -> None:
    """The next record does not continue it; a line that is complete gets no empty one behind it."""
    Path(PATH).write_bytes(b"complete\nunfini")
    with opened() as stream:
        stream.write("next\n")
        stream.write("last\n")
        with Path(PATH).open("a") as other:  # killed while this one has the file open
            other.write("also unfini")
        stream.write("after that\n")
    assert Path(PATH).read_text() == "complete\nunfini\nnext\nlast\nalso unfini\nafter that\n"


def test_closing_twice_is_harmless() -> None:
    """`closed` says so."""
    stream = AppendStream(PATH, 0o640)
    assert not stream.closed
    stream.close()
    stream.close()
    assert stream.closed


def test_short_writes_are_continued() -> None:
    """A write that takes 3 bytes at a time arrives whole."""
    real = os.write
    with opened() as stream, patch.object(os, "write", lambda fd, data: real(fd, data[:3])):
        assert stream.write("one line of some length\n") == 24
    assert Path(PATH).read_text() == "one line of some length\n"


@settings(deadline=None, database=None)
@given(
    before=st.sampled_from(["", "old\n", "old\ntorn"]),
    text=st.text(alphabet="aé漢\n", min_size=1, max_size=30),
    takes=st.lists(st.integers(1, 12), max_size=8),
    error=st.sampled_from([errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG]),
)
def test_a_write_that_fails_at_any_byte_leaves_the_file_as_it_was(
    before: str, text: str, takes: list[int], error: int
) -> None:
    """Short writes and then an error: all of the text is in the file, or none and the error is raised."""
    real = os.write
    left = iter(takes)

    def failing(fd: int, data: memoryview) -> int:
        take = next(left, None)
        if take is None:
            raise OSError(error, os.strerror(error))
        return real(fd, data[:take])

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, PATH)
        path.write_text(before, encoding="utf-8")
        with opened(str(path)) as stream:
            raised: OSError | None = None
            try:
                with patch.object(os, "write", failing):
                    stream.write(text)
            except OSError as failure:
                raised = failure
            if raised is not None:
                assert raised.errno == error
                assert path.read_text(encoding="utf-8") == before
                stream.write(text)  # the disk has room again
        ended = before + "\n" if before.endswith("torn") else before
        assert path.read_text(encoding="utf-8") == ended + text


# The lock.


def test_a_lock_is_held_by_one_handle_at_a_time() -> None:
    """Of two handles in one process too; nobody waits; given back, the other one gets it."""
    first, second = LockedFile(PATH, 0o640), LockedFile(PATH, 0o640)
    try:
        assert first.try_lock()
        assert not second.try_lock()
        first.unlock()
        assert second.try_lock()
        first.unlock()  # not held: harmless, also to the other handle
        assert not first.try_lock()
        second.close()
        assert first.try_lock()
    finally:
        first.close()
        second.close()


def test_a_lock_is_freed_when_its_process_is_killed() -> None:
    """A lock never outlives its holder."""
    lock = LockedFile(PATH, 0o640)
    try:
        with locked_by_another_process(PATH):
            assert not lock.try_lock()
        assert lock.try_lock()
    finally:
        lock.close()


@pytest.mark.skipif(not os.path.exists("/proc/locks"), reason="/proc/locks is Linux's")
def test_the_holder_of_a_lock_is_known() -> None:
    """By its process id, while it holds it."""
    lock = LockedFile(PATH, 0o640)
    try:
        with locked_by_another_process(PATH) as pid:
            assert lock.holder() == pid
        assert lock.holder() is None
        assert lock.try_lock()
        assert lock.holder() == os.getpid()
    finally:
        lock.close()


@pytest.mark.parametrize("change", ["deleted", "replaced", "linked", "left alone"])
def test_a_lock_file_knows_whether_its_path_still_names_it(change: str) -> None:
    """Otherwise others lock another file: also where a link leads to this one."""
    lock = LockedFile(PATH, 0o640)
    try:
        if change == "deleted":
            os.unlink(PATH)
        elif change == "replaced":
            Path("new").touch()
            os.replace("new", PATH)
        elif change == "linked":
            os.rename(PATH, "elsewhere")
            os.symlink("elsewhere", PATH)
        assert lock.is_current() == (change == "left alone")
    finally:
        lock.close()


def test_a_forked_child_that_closes_its_handle_leaves_the_lock_with_the_parent() -> None:
    """The child shares the parent's lock until then; closing must not give it back."""
    code = """
import os, sys
from flask_asynclog.files import LockedFile
lock = LockedFile(sys.argv[1], 0o640)
assert lock.try_lock()
pid = os.fork()
if pid == 0:
    assert lock.pid != os.getpid()
    lock.close()
    other = LockedFile(sys.argv[1], 0o640)
    os._exit(10 + other.try_lock())
_, status = os.waitpid(pid, 0)
print(os.waitstatus_to_exitcode(status), LockedFile(sys.argv[1], 0o640).try_lock())
"""
    assert run_python(code, PATH, cwd=Path.cwd()).stdout == "10 False\n"
