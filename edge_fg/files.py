"""Writing files so that a crash leaves the old one or the new one, never half of one."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edge_fg.errors import OutputError

_CHUNK_BYTES = 1 << 20


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits.

    Raises
    ------
    OSError
        The file can't be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def opened_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` that replaces it when the block ends well.

    The data are on the disk (fsync) before the name changes; when the block raises,
    the temporary file is removed and `path` is untouched.

    Raises
    ------
    OutputError
        The folder can't be written to, or the disk is full.
    """
    temporary: str | None = None
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; what we publish follows the user's umask.
        os.chmod(temporary, 0o666 & ~umask())
        os.replace(temporary, path)
        temporary = None
        sync_folder(path.parent)
    except OutputError:
        # Told by whoever wrote another file inside the block; it names that file.
        raise
    except OSError as error:
        raise OutputError(f"can't write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write `data` (text as UTF-8) to `path`; see `opened_atomically`.

    Raises
    ------
    OutputError
        The folder can't be written to, or the disk is full.
    """
    with opened_atomically(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def cache_folder(name: str) -> Path:
    """Return ``$XDG_CACHE_HOME/edge-fg/NAME``, or the same below ``~/.cache``.

    A relative ``XDG_CACHE_HOME`` is ignored, as the XDG Base Directory Specification says.

    Raises
    ------
    OutputError
        This user has no home folder.
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
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    except (OSError, ValueError):
        pass
    current = os.umask(0o022)
    os.umask(current)
    return current
