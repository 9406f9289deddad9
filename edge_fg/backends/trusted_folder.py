"""Files that only this user could have written, and locks between processes.

What is checked is the open file, not its name, which could come to mean another file meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_POLL_SECONDS = 0.2


class UntrustedError(Exception):
    """A file or folder that another user could have written."""


def check_folder(folder: Path) -> None:
    """Raise `UntrustedError` unless `folder` is a real one that only this user can write to."""
    _check_owner(folder, os.lstat(folder), stat.S_IFDIR)


def make_private(folder: Path) -> None:
    """Make `folder` with mode 0700 where there is none, and check it; raises as `check_folder`."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
    check_folder(folder)


def read_own(path: Path, limit: int | None = None) -> bytes:
    """Return the content of a file of this user.

    Raises `UntrustedError` if it is a link, no ordinary file, another's, writable by others or
    larger than `limit`, and `OSError` if it can't be read.
    """
    if path.is_symlink():
        raise UntrustedError(f"{path} is a symbolic link")
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        _check_owner(path, found, stat.S_IFREG)
        if limit is not None and found.st_size > limit:
            raise UntrustedError(f"{path} has {found.st_size} bytes, more than {limit}")
        return file.read()


def _check_owner(path: Path, found: os.stat_result, kind: int) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise UntrustedError(f"{path} is a symbolic link")
    if stat.S_IFMT(found.st_mode) != kind:
        wanted = "a folder" if kind == stat.S_IFDIR else "an ordinary file"
        raise UntrustedError(f"{path} is not {wanted}: move it away")
    if found.st_uid != os.geteuid():
        raise UntrustedError(f"{path} belongs to user {found.st_uid}, not {os.geteuid()}")
    if found.st_mode & _OTHERS_WRITE:
        raise UntrustedError(f"{path} can be written by others: chmod go-w it")


@contextlib.contextmanager
def folder_locked(folder: Path, *, exclusive: bool) -> Iterator[None]:
    """Hold a lock on a folder, for the moment that reading or writing its files takes."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        # Some network file systems have no locks; a torn pair is then caught by its digest.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def alone(lock: Path, waiting: Callable[[float], None]) -> Iterator[None]:
    """Keep other processes and threads from entering with the same `lock` file.

    The system releases the lock when the process ends, however it ends. The file is made for it and
    removed afterwards, in a folder of this user. `waiting` is called again and again with the
    seconds waited while another holds the lock, and may raise. Raises `OSError` if the file can't
    be made.
    """
    began = time.monotonic()
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            _take(descriptor, began, waiting)
            # The last holder removed the file: what we locked may have no name any more.
            if _is_still_there(lock, descriptor):
                try:
                    yield
                finally:
                    lock.unlink(missing_ok=True)
                return
        finally:
            os.close(descriptor)


def _take(descriptor: int, began: float, waiting: Callable[[float], None]) -> None:
    """Lock an open file, or go on where the file system has no locks: two may build the same."""
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EINTR):
                return
            waiting(time.monotonic() - began)
            time.sleep(_POLL_SECONDS)
        else:
            return


def _is_still_there(lock: Path, descriptor: int) -> bool:
    mine = os.fstat(descriptor)
    try:
        named = os.lstat(lock)
    except FileNotFoundError:
        return False
    return (named.st_dev, named.st_ino) == (mine.st_dev, mine.st_ino)
