"""The two kinds of file behind the rotating handler: the log, appended to, and its lock.

Both are unbuffered. A buffered file has a lock in C which a forked child inherits as it was: locked by a thread
that the child does not have. Linux and other POSIX systems; used by one thread at a time.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import stat


def open_file(path: str, flags: int, mode: int, like: str | None = None) -> int:
    """Open a regular file for reading and writing, made with exactly ``mode`` if missing.

    The umask does not count. An existing file gets ``mode`` as well, where this user may set it.

    :param like: a file or directory whose owner and group a new file gets when root makes it: a master that runs as
        root must not shut out the workers that do not. Its directory stands in for one that is missing.
    :raises OSError: as `os.open` does; ``ELOOP`` for a symbolic link, ``EINVAL`` for what is no regular file.
    """
    # O_NONBLOCK: a FIFO somebody put in place must not hang us. It means nothing to regular files.
    flags |= os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = _open_new(path, flags, mode, like) if like is not None and os.geteuid() == 0 else None
    if fd is None:
        fd = os.open(path, flags, mode)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        if stat.S_IMODE(status.st_mode) != mode:
            with contextlib.suppress(PermissionError):  # another user's file, which we can use all the same
                os.fchmod(fd, mode)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open_new(path: str, flags: int, mode: int, like: str) -> int | None:
    """Make the file, as root, for the owner of ``like``; ``None`` when there is one."""
    try:
        fd = os.open(path, flags | os.O_EXCL, mode)
    except FileExistsError:
        return None
    try:
        try:
            owner = os.stat(like)
        except FileNotFoundError:
            owner = os.stat(os.path.dirname(path) or ".")
        os.fchown(fd, owner.st_uid, owner.st_gid)
    except BaseException:
        os.close(fd)
        raise
    return fd


class LockedFile:
    """A regular file with an exclusive ``flock``, taken without ever waiting in the kernel.

    Belongs to the process that opened it: a forked child shares its lock, so it must `close` it (which leaves the
    parent's lock alone) and open its own.

    :param path: the file, made with exactly ``mode`` if missing.
    :param like: whose owner it gets when root makes it; as of `open_file`.
    :raises OSError: as `open_file` does.
    """

    def __init__(self, path: str, mode: int, flags: int = 0, *, like: str | None = None) -> None:
        self.path = path
        self.pid = os.getpid()
        self._file = io.FileIO(open_file(path, flags, mode, like), "r+b")

    def try_lock(self) -> bool:
        """Take the lock if it is free. Raises OSError where the file system has no locks."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self) -> None:
        """Give the lock back. Harmless when it is not held."""
        if not self.closed:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def is_current(self) -> bool:
        """Whether the path still names this file, and not through a symbolic link: others would open another one."""
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self._file.fileno()))

    def holder(self) -> int | None:
        """Process id of whoever holds the lock, where Linux's ``/proc/locks`` tells."""
        status = os.fstat(self._file.fileno())
        device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        try:
            with open("/proc/locks", encoding="ascii") as locks:
                for words in map(str.split, locks):
                    if words[1] == "FLOCK" and words[5] == device:
                        return int(words[4])
        except (OSError, ValueError, IndexError):
            return None
        return None

    def fileno(self) -> int:
        """The file descriptor."""
        return self._file.fileno()

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self._file.closed

    def close(self) -> None:
        """Close this process's handle; the lock goes back if it is this process's."""
        if not self.closed and self.pid == os.getpid():
            # Not left to the closing: a child forked in the middle of an open may have a handle it does not know of.
            with contextlib.suppress(OSError):
                self.unlock()
        self._file.close()


class AppendStream(LockedFile):
    """The text stream that the rotating handler writes to: UTF-8, and each `write` is all or nothing.

    Call `write` and `end_line` under the lock only.
    """

    encoding = "utf-8"

    def __init__(self, path: str, mode: int, *, like: str | None = None) -> None:
        super().__init__(path, mode, os.O_APPEND, like=like)
        self._whole_at = -1  # the size at which the file is known to end in a line end

    def write(self, text: str) -> int:
        """Append ``text``; where that fails half-way, the file is cut back to what it was.

        Lone surrogates are written escaped.

        :raises OSError: nothing of ``text`` is in the file.
        """
        data = text.encode("utf-8", "backslashreplace")
        fd = self._file.fileno()
        size = self.size()
        left = memoryview(data)
        try:
            self.end_line()
            while left:  # short when the disk fills up: the next call tells why
                left = left[os.write(fd, left) :]
        except BaseException:
            self._whole_at = -1
            os.ftruncate(fd, size)
            raise
        self._whole_at += len(data)
        return len(text)

    def end_line(self) -> None:
        """End the line that a killed process left unfinished, if there is one."""
        fd = self._file.fileno()
        size = self.size()
        if size and size != self._whole_at and os.pread(fd, 1, size - 1) != b"\n":
            size += os.write(fd, b"\n")
        self._whole_at = size

    def size(self) -> int:
        """Bytes in the file."""
        return os.fstat(self._file.fileno()).st_size

    def flush(self) -> None:
        """Nothing to do: nothing is buffered."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of `io.FileIO`; writes go to the end anyway."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As of `io.FileIO`."""
        return self._file.tell()
