"""Write files so that a crash leaves the old file or the new one, never half of one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from edge_fg.errors import OutputError
from edge_fg.printing import reason

_CHUNK_BYTES = 1 << 20
_RANDOM_LETTERS = 8  # that tempfile puts into a name
_YOUNG_SECONDS = 60.0  # it may not be locked yet
# Of Linux's fcntl.h and fs.h.
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits; it may raise an `OSError`."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def output_errors(path: Path, failed: str = "can't write") -> Iterator[None]:
    """Raise an `OSError` of the block as an `OutputError` that names `path`.

    An `OutputError` is raised as it is: it names the file that it is about.
    """
    try:
        yield
    except OutputError:
        raise
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) and "\0" not in str(path):
            raise  # nothing about the path
        raise OutputError(f"{failed} {path}: {reason(error)}") from error


@contextlib.contextmanager
def opened_atomically(path: Path, *, suffix: str = "") -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` that replaces it when the block ends well.

    The data are on the disk (fsync) before the name changes; when the block raises, the temporary
    file, whose name ends in `suffix`, is removed and `path` is untouched. The file stays open until
    then. An `OutputError` says that the folder can't be written to, or that the disk is full.
    """
    import tempfile  # here, because most programs on a device write no file

    with output_errors(path):
        prefix = f".{path.name.removesuffix(suffix)}."
        file: Any = tempfile.NamedTemporaryFile(  # noqa: SIM115  closed below
            prefix=prefix, suffix=suffix, dir=path.parent, delete=False
        )
        try:
            with file:
                lock(file.fileno())
                yield file
                file.flush()
                os.fsync(file.fileno())
                # A temporary file is private; what we publish follows the user's umask.
                os.chmod(file.name, 0o666 & ~umask())
                os.replace(file.name, path)
            sync_folder(path.parent)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file.name)
            raise


def lock(descriptor: int) -> None:
    """Show `abandoned` that what is open is in use; not every network file system can."""
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def abandoned(path: Path, *, suffix: str = "") -> Iterator[Path]:
    """Yield the temporary files and folders that killed processes left of attempts to write `path`.

    What is locked, or younger than a minute, may be in use. `suffix` as of `opened_atomically`.
    """
    stem = glob.escape(path.name.removesuffix(suffix))
    for found in path.parent.glob(f".{stem}.{'?' * _RANDOM_LETTERS}{glob.escape(suffix)}"):
        with contextlib.suppress(OSError):
            if time.time() - found.lstat().st_mtime < _YOUNG_SECONDS:
                continue
            descriptor = os.open(found, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield found
            finally:
                os.close(descriptor)


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write `data` (text as UTF-8) to `path`; see `opened_atomically`."""
    with opened_atomically(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def write_whole(descriptor: int, data: bytes) -> None:
    """Write all of `data`; after an `OSError`, nothing of it stays in a file."""
    written = 0
    try:
        # More than one call only where the first could not place all of it.
        while written < len(data):
            written += os.write(descriptor, data[written:])
    except OSError:
        status = os.fstat(descriptor)
        if written and stat.S_ISREG(status.st_mode):
            end = os.lseek(descriptor, 0, os.SEEK_CUR)
            if end == status.st_size:  # nobody else has written behind it
                os.ftruncate(descriptor, end - written)
                os.lseek(descriptor, end - written, os.SEEK_SET)
        raise


def cache_folder(name: str) -> Path:
    """Return ``$XDG_CACHE_HOME/edge-fg/NAME``, or the same below ``~/.cache``.

    A relative ``XDG_CACHE_HOME`` is ignored, as the XDG Base Directory Specification says. An
    `OutputError` says that this user has no home folder.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        try:
            base = Path.home() / ".cache"
        except RuntimeError as error:
            raise OutputError(
                f"this user has no home folder to keep {name} in: set XDG_CACHE_HOME"
            ) from error
    return base / "edge-fg" / name


def swap_in(fresh: Path, place: Path, *, aside: Path) -> None:
    """Put the file or folder `fresh` in the place of what is at `place`, if there is something.

    Linux exchanges the two in one step (renameat2): what was at `place` is at `fresh` then. Where
    the C library or the file system can't, what was there moves to `aside` first, and for a moment
    nothing is at `place`; if the second step fails, it is moved back. All three lie in one file
    system.
    """
    if not place.exists():
        fresh.rename(place)
    elif not _exchanged(fresh, place):
        place.rename(aside)
        try:
            fresh.rename(place)
        except BaseException:
            aside.rename(place)
            raise


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two names in one step; return False where this can't be done here."""
    import ctypes  # here, because most programs on a device replace no folder

    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # musl, and glibc before 2.28
        return False
    names = [ctypes.c_char_p(os.fsencode(path)) for path in (one, other)]
    if not rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], ctypes.c_uint(_RENAME_EXCHANGE)):
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number), str(other))


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable, where the file system offers it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def umask() -> int:
    """Return which permissions the user wants new files not to have."""
    # The umask can only be read by setting it; reading /proc avoids the race where there is one.
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    current = os.umask(0o022)
    os.umask(current)
    return current
