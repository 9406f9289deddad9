"""The cache that keeps plans between starts.

A plan is executable code: one is loaded only if this user wrote it, no other user could have
changed it since, and its digest is the one recorded when it was written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from edge_fg.backends.plan import Plan
from edge_fg.backends.trusted_folder import (
    UntrustedError,
    alone,
    check_folder,
    folder_locked,
    make_private,
    read_own,
)
from edge_fg.errors import OutputError, UsageError
from edge_fg.files import cache_folder, write_atomically

DEFAULT_LIMIT_BYTES: Final = 2 << 30
"""How much a cache holds at most, unless it is told otherwise."""

FOLDER_VARIABLE: Final = "EDGE_FG_PLAN_CACHE"
"""Environment variable that names the folder of plans, or is ``beside``."""

BESIDE: Final = "beside"
"""Instead of a folder: beside each bundle; see `edge_fg.backends.options`."""

_LIMIT_VARIABLE: Final = "EDGE_FG_PLAN_CACHE_BYTES"
_log = logging.getLogger("edge_fg")
_KEY = re.compile(r"[0-9a-f]{64}")
_ENTRY = re.compile(r"([0-9a-f]{64})\.(plan|timing|json)")
_LEFT_OVER = re.compile(r"\.[0-9a-f]{64}\.(plan|timing|json)\.")
_MAX_NOTE_BYTES = 1 << 16


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

    `graph_sha256` is the digest of the ONNX graph, `precision` the name of the variant, `profile`
    the smallest, usual and largest batch, `flags` the builder settings that change the plan, and
    `gpu` what the plan was tuned on, as `edge_fg.backends.tensorrt.library.gpu_description` says
    it, or ``"any"``.
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

    The folder is made when the first plan is stored; None takes what the environment variable
    ``EDGE_FG_PLAN_CACHE`` names, or else this user's cache. Plans that were not used for longest
    are removed when it grows over `limit_bytes`; None takes ``EDGE_FG_PLAN_CACHE_BYTES``, or else
    `DEFAULT_LIMIT_BYTES`.

    Raises `UsageError` if the limit is no positive number of bytes, and `OutputError` if this user
    has no home folder to keep plans in. A key that is not one of `plan_key` raises `UsageError`.
    """

    def __init__(self, folder: Path | None = None, *, limit_bytes: int | None = None) -> None:
        self.folder: Path = _default_folder() if folder is None else folder
        self.limit_bytes: int = _default_limit() if limit_bytes is None else limit_bytes
        if self.limit_bytes <= 0:
            raise UsageError(f"a plan cache of {self.limit_bytes} bytes: it must be positive")

    def load(self, key: str) -> bytes | None:
        """Return the plan of `key`; None, with a warning in the log, if it can't be trusted."""
        return self._load(key, "plan", "it will be built again")

    def store(self, key: str, plan: Plan) -> Path | None:
        """Keep a plan; return its file, or None, with a warning in the log, where that fails."""
        note = {
            "library": plan.library,
            "version": plan.version,
            "layers": plan.layers,
            "seconds": round(plan.seconds, 3),
        }
        why = "the plan is not kept, the next start builds it again"
        return self._store(key, "plan", plan.data, note, why)

    def load_timings(self, key: str) -> bytes | None:
        """Return a builder's timing cache kept under `key`, as `load` returns a plan."""
        return self._load(key, "timing", "tactics are timed again")

    def store_timings(self, key: str, data: bytes) -> Path | None:
        """Keep a builder's timing cache, as `store` keeps a plan."""
        return self._store(key, "timing", data, {}, "the timing cache is not kept")

    def path(self, key: str) -> Path:
        """Return where the plan of `key` lies, stored or not."""
        _check_key(key)
        return self.folder / f"{key}.plan"

    @contextlib.contextmanager
    def building(self, key: str, waiting: Callable[[float], None]) -> Iterator[None]:
        """Keep others from building the plan of `key` while the block runs.

        `waiting` is called again and again with the seconds waited while another process builds it:
        look into the cache once more when the block has begun.
        """
        _check_key(key)
        with contextlib.ExitStack() as held:
            try:
                make_private(self.folder)
                held.enter_context(alone(self.folder / f"{key}.lock", waiting))
            except (UntrustedError, OSError) as error:
                # Nothing can be kept in such a folder, so there is nothing to wait for either.
                _log.info("no lock for the build: %s", error)
            yield

    def durations(self, library: str) -> list[float]:
        """Return how many seconds the plans here took to build with `library`."""
        found = []
        for path in self._entries().values():
            with contextlib.suppress(UntrustedError, OSError, ValueError, RecursionError):
                note = json.loads(read_own(path[0].with_suffix(".json"), _MAX_NOTE_BYTES))
                if isinstance(note, dict) and note.get("library") == library:
                    found.append(float(note.get("seconds", 0)))
        return found

    def usage(self) -> tuple[int, int]:
        """Return how many plans there are, and the bytes of all files."""
        entries = self._entries().values()
        plans = sum(path.suffix == ".plan" for paths in entries for path in paths)
        return plans, sum(_size_and_use(path)[0] for paths in entries for path in paths)

    def _load(self, key: str, kind: str, consequence: str) -> bytes | None:
        _check_key(key)
        note_path, path = self.folder / f"{key}.json", self.folder / f"{key}.{kind}"
        try:
            if not note_path.exists() and not path.exists():
                return None
            check_folder(self.folder)
            with folder_locked(self.folder, exclusive=False):
                if not note_path.exists() and not path.exists():
                    return None  # another process removed it just now
                note = json.loads(read_own(note_path, _MAX_NOTE_BYTES))
                data = read_own(path)
            digest = note.get("sha256") if isinstance(note, dict) else None
            if hashlib.sha256(data).hexdigest() != digest:
                raise UntrustedError(f"{path.name} is not what was recorded (SHA-256 differs)")
        except (UntrustedError, OSError, ValueError, RecursionError) as error:
            _log.warning("cached %s not used, %s: %s", kind, consequence, error)
            return None
        # The time of the last use, for `_evict`; on a read-only disk nothing is removed anyway.
        with contextlib.suppress(OSError):
            os.utime(note_path)
        return data

    def _store(
        self, key: str, kind: str, data: bytes, note: Mapping[str, object], why: str
    ) -> Path | None:
        _check_key(key)
        if len(data) > self.limit_bytes:
            _log.warning(
                "%s: it has %d bytes and the cache may hold %d (%s)",
                *(why, len(data), self.limit_bytes, _LIMIT_VARIABLE),
            )
            return None
        try:
            make_private(self.folder)
            with folder_locked(self.folder, exclusive=True):
                self._sweep()
                path = self.folder / f"{key}.{kind}"
                recorded = {
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "bytes": len(data),
                    **note,
                }
                _write_private(path, data)
                _write_private(path.with_suffix(".json"), json.dumps(recorded, indent=1) + "\n")
                self._evict(key)
                return path
        except (UntrustedError, OutputError, OSError) as error:
            _log.warning("%s: %s", why, error)
            return None

    def _entries(self) -> dict[str, list[Path]]:
        """Return the files of each key."""
        found: dict[str, list[Path]] = {}
        with contextlib.suppress(OSError):
            for path in self.folder.iterdir():
                matched = _ENTRY.fullmatch(path.name)
                if matched:
                    found.setdefault(matched[1], []).append(path)
        return found

    def _sweep(self) -> None:
        """Remove what a killed process left; writers hold the lock, so none is being written."""
        for path in self.folder.iterdir():
            if _LEFT_OVER.match(path.name):
                path.unlink(missing_ok=True)

    def _evict(self, kept: str) -> None:
        """Remove the plans that were not used for longest, until the rest fits; never `kept`."""
        entries = self._entries()
        found = {key: [_size_and_use(path) for path in paths] for key, paths in entries.items()}
        sizes = {key: sum(size for size, _ in files) for key, files in found.items()}
        excess = sum(sizes.values()) - self.limit_bytes
        for key in sorted(entries, key=lambda key: max(used for _, used in found[key])):
            if excess <= 0:
                break
            if key != kept:
                for path in entries[key]:
                    path.unlink(missing_ok=True)
                excess -= sizes[key]
                _log.info("removed the cached plan %s, not used for longest", key[:12])


def _default_folder() -> Path:
    named = os.environ.get(FOLDER_VARIABLE, "")
    # `beside` needs a bundle; without one the user's own cache is used.
    return Path(named).absolute() if named not in ("", BESIDE) else cache_folder("plans")


def _default_limit() -> int:
    text = os.environ.get(_LIMIT_VARIABLE, "")
    if not text:
        return DEFAULT_LIMIT_BYTES
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise UsageError(f"{_LIMIT_VARIABLE}={text!r} is not a number of bytes")
    return int(text)


def _check_key(key: str) -> None:
    if not _KEY.fullmatch(key):
        raise UsageError(f"{key!r} is not a plan's key: 64 hexadecimal digits are needed")


def _write_private(path: Path, content: bytes | str) -> None:
    write_atomically(path, content)
    # A umask of 002 would make the file writable for the group, and then untrusted.
    path.chmod(0o600)


def _size_and_use(path: Path) -> tuple[int, float]:
    """Return a file's bytes and the time of its last use; none, and now, where it was removed."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return 0, time.time()
    return found.st_size, found.st_mtime
