"""Plans (compiled TensorRT engines) and the cache that keeps them between starts.

A plan is executable code: one is loaded only if this user wrote it, nobody else could have
changed it since, and its digest is the one recorded when it was written.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge_fg.errors import OutputError, UsageError
from edge_fg.files import cache_folder, write_atomically

_log = logging.getLogger("edge_fg")
_KEY = re.compile(r"[0-9a-f]{64}")
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_MAX_SIDECAR_BYTES = 1 << 16


@dataclass(frozen=True)
class Plan:
    """A compiled engine.

    Attributes
    ----------
    data
        The plan as TensorRT serialised it, without a header of ours.
    library
        ``"tensorrt"`` or ``"tensorrt-rtx"``.
    version
        The library's version; another can't load the plan.
    layers
        Layers of the network that was built, or None where unknown.
    seconds
        How long the build took.
    warnings
        What TensorRT warned of.
    """

    data: bytes = field(repr=False)
    library: str
    version: str
    layers: int | None
    seconds: float
    warnings: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """SHA-256 of the plan, 64 hexadecimal digits."""
        return hashlib.sha256(self.data).hexdigest()


def plan_key(
    *,
    graph_sha256: str,
    library: str,
    version: str,
    precision: str = "",
    profile: tuple[int, ...] = (),
    flags: Mapping[str, int | str | None] | None = None,
    gpu: str = "any",
) -> str:
    """Return the cache key: SHA-256 over all that a plan depends on.

    Parameters
    ----------
    graph_sha256
        Digest of the ONNX graph.
    library, version
        ``"tensorrt"`` or ``"tensorrt-rtx"``, and its version.
    precision
        Name of the variant.
    profile
        Smallest, usual and largest batch of the optimisation profile.
    flags
        Builder settings that change the plan.
    gpu
        What the plan was tuned on, or ``"any"``.
    """
    parts = {
        "graph": graph_sha256,
        "library": library,
        "version": version,
        "precision": precision,
        "profile": list(profile),
        "flags": dict(flags or {}),
        "gpu": gpu,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class PlanCache:
    """A folder of plans, private to one user.

    Parameters
    ----------
    folder
        Where the plans lie, made when the first is stored; default: this user's cache.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder: Path = cache_folder("plans") if folder is None else folder

    def load(self, key: str) -> bytes | None:
        """Return the plan of `key`; None, with a warning in the log, if it can't be trusted.

        Raises
        ------
        UsageError
            `key` is not one of `plan_key`.
        """
        _check_key(key)
        try:
            folder = self.folder
            if not (folder / f"{key}.json").exists() and not (folder / f"{key}.plan").exists():
                return None
            _check_owner(folder, os.lstat(folder), stat.S_IFDIR)
            with _locked(folder, fcntl.LOCK_SH):
                note = json.loads(_read_own(folder / f"{key}.json", _MAX_SIDECAR_BYTES))
                data = _read_own(folder / f"{key}.plan", None)
            digest = note.get("sha256") if isinstance(note, dict) else None
            if hashlib.sha256(data).hexdigest() != digest:
                raise _UntrustedError(f"{key}.plan is not what was recorded (SHA-256 differs)")
        except (_UntrustedError, OSError, ValueError) as error:
            _log.warning("cached plan not used, it will be built again: %s", error)
            return None
        return data

    def store(self, key: str, plan: Plan) -> Path | None:
        """Keep a plan; return its file, or None, with a warning in the log, where that fails.

        Raises
        ------
        UsageError
            `key` is not one of `plan_key`.
        """
        _check_key(key)
        try:
            folder = self.folder
            _make_private(folder)
            _check_owner(folder, os.lstat(folder), stat.S_IFDIR)
            with _locked(folder, fcntl.LOCK_EX):
                _sweep(folder)
                return _write(folder, key, plan)
        except (_UntrustedError, OutputError, OSError) as error:
            _log.warning("the plan is not kept, the next start builds it again: %s", error)
            return None

    def path(self, key: str) -> Path:
        """Return where the plan of `key` lies, stored or not.

        Raises
        ------
        UsageError
            `key` is not one of `plan_key`.
        """
        _check_key(key)
        return self.folder / f"{key}.plan"


class _UntrustedError(Exception):
    """A file or folder that somebody else could have written."""


def _check_key(key: str) -> None:
    if not _KEY.fullmatch(key):
        raise UsageError(f"{key!r} is not a plan's key: 64 hexadecimal digits are needed")


def _check_owner(path: Path, found: os.stat_result, kind: int) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise _UntrustedError(f"{path} is a symbolic link")
    if stat.S_IFMT(found.st_mode) != kind:
        wanted = "a folder" if kind == stat.S_IFDIR else "an ordinary file"
        raise _UntrustedError(f"{path} is not {wanted}: move it away")
    if found.st_uid != os.geteuid():
        raise _UntrustedError(f"{path} belongs to user {found.st_uid}, not {os.geteuid()}")
    if found.st_mode & _OTHERS_WRITE:
        raise _UntrustedError(f"{path} can be written by others: chmod go-w it")


def _read_own(path: Path, limit: int | None) -> bytes:
    """Read a file of this user; the checks are made on the open file, not on its name."""
    if path.is_symlink():
        raise _UntrustedError(f"{path} is a symbolic link")
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        _check_owner(path, found, stat.S_IFREG)
        if limit is not None and found.st_size > limit:
            raise _UntrustedError(f"{path} has {found.st_size} bytes, more than {limit}")
        return file.read()


def _make_private(folder: Path) -> None:
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)


def _write(folder: Path, key: str, plan: Plan) -> Path:
    target = folder / f"{key}.plan"
    note = {
        "sha256": plan.sha256,
        "bytes": len(plan.data),
        "library": plan.library,
        "version": plan.version,
        "layers": plan.layers,
        "seconds": round(plan.seconds, 3),
    }
    sidecar = folder / f"{key}.json"
    for path, content in ((target, plan.data), (sidecar, json.dumps(note, indent=1) + "\n")):
        write_atomically(path, content)
        # A umask of 002 would make the file writable for the group, and then untrusted.
        path.chmod(0o600)
    return target


def _sweep(folder: Path) -> None:
    """Remove what a killed process left; writers hold the lock, so none is being written."""
    for path in folder.glob(".*.*"):
        if re.match(r"\.[0-9a-f]{64}\.(plan|json)\.", path.name):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    """Hold a lock on the folder, so that plan and digest are read and written together."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        # Some network file systems have no locks; a torn pair is then caught by the digest.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)
