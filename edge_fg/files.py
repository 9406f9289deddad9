"""Write files so that a crash leaves the old file or the new one, never half of one."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from edge_fg.errors import OutputError
from edge_fg.printing import reason

_CHUNK_BYTES = 1 << 20


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


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write `data` (text as UTF-8) to `path`; see `opened_atomically`."""
    with opened_atomically(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


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
