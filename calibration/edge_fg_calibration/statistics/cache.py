"""Calibration statistics kept between builds, and reused only for exactly what they came from.

An entry names the graph, the preprocessing, the images, the tensors and the software that it
depends on, each by digest; one difference and it is counted again, and the log says which. File
names only help to find the nearest entry: what counts stands inside, and is checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edge_fg.errors import CalibrationError, OutputError
from edge_fg_calibration.statistics.tensor_statistics import Statistics, StatisticsKey

_LOGGER = logging.getLogger("edge_fg")
_ENTRIES = 32
_DIGITS = 12
# What the parts of a `StatisticsKey` are, in its order.
_WORDS = (
    "the graph",
    "the preprocessing",
    "the images",
    "the observed tensors",
    "the software's versions",
)


@dataclass(frozen=True)
class IdentifiedBatches:
    """Network inputs that know which images they are, so that statistics can be reused.

    Iterating gives the batches from the start, each time.

    Parameters
    ----------
    start
        Gives the batches, n x 3 x H x W each, always in the same order.
    images
        Digest of the images' contents, whatever their order.
    order
        Digest of the images' contents in their order.
    preprocessing
        Digest of how they are prepared.
    name
        What to call the set in messages.
    cache
        Where statistics of them are kept; None keeps none.
    at
        Gives a name for the image of that number, for messages.
    """

    start: Callable[[], Iterator[NDArray[Any]]]
    images: str
    order: str
    preprocessing: str
    name: str
    cache: StatisticsCache | None = None
    at: Callable[[int], str] | None = None

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return self.start()


class StatisticsCache:
    """A folder of statistics.

    A folder that can't be used costs time and nothing else: the log says so.

    Parameters
    ----------
    folder
        Made when the first entry is written; see `edge_fg.files.cache_folder`.
    entries
        Most entries kept; the oldest go first.
    """

    def __init__(self, folder: Path, *, entries: int = _ENTRIES) -> None:
        self._folder = folder
        self._most = entries

    def find(self, key: StatisticsKey) -> Statistics | None:
        """Return the statistics of `key`, or None; the log says why not."""
        path = self._path(key)
        if not path.exists():
            _LOGGER.info("no calibration statistics reused: %s", self._nearest(key))
            return None
        try:
            return Statistics.load(path, key)
        except CalibrationError as error:
            _LOGGER.warning("kept calibration statistics refused: %s", error)
            return None

    def keep(self, key: StatisticsKey, statistics: Statistics) -> None:
        """Write an entry, and remove the oldest beyond the number kept."""
        self._write(self._path(key), key, statistics)

    def unfinished(self, key: StatisticsKey, order: str) -> Statistics | None:
        """Return what an interrupted pass had counted of `key`, images being in this order."""
        part = _partial(key, order)
        try:
            return Statistics.load(self._path(part, ".part"), part)
        except CalibrationError:
            return None

    def keep_unfinished(self, key: StatisticsKey, order: str, statistics: Statistics) -> None:
        """Write what was counted so far."""
        part = _partial(key, order)
        self._write(self._path(part, ".part"), part, statistics)

    def forget_unfinished(self, key: StatisticsKey, order: str) -> None:
        """Remove what `keep_unfinished` wrote."""
        with contextlib.suppress(OSError):
            self._path(_partial(key, order), ".part").unlink()

    def _path(self, key: StatisticsKey, suffix: str = ".json") -> Path:
        parts = (hashlib.sha256(one.encode()).hexdigest() for one in asdict(key).values())
        return self._folder / ("-".join(one[:_DIGITS] for one in parts) + suffix)

    def _write(self, path: Path, key: StatisticsKey, statistics: Statistics) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            statistics.save(path, key)
            self._prune()
        except (OSError, OutputError) as error:
            _LOGGER.warning("calibration statistics are not kept: %s", error)

    def _nearest(self, key: StatisticsKey) -> str:
        """Say what differs from the entry that has most in common with `key`."""
        wanted = self._path(key).stem.split("-")
        found = [path.stem.split("-") for path in self._listed(".json")]
        changed = [
            [what for what, kept, asked in zip(_WORDS, parts, wanted, strict=True) if kept != asked]
            for parts in found
            if len(parts) == len(wanted)
        ]
        fewest = min(changed, key=len, default=_WORDS)
        if len(fewest) == len(_WORDS):
            return "none were kept of this model or these images"
        return f"{' and '.join(fewest)} changed"

    def _listed(self, *endings: str) -> list[Path]:
        try:
            return [one for one in self._folder.iterdir() if one.suffix in endings]
        except OSError:
            return []

    def _prune(self) -> None:
        paths = sorted(self._listed(".json", ".part"), key=lambda one: one.stat().st_mtime_ns)
        for path in paths[: -self._most]:
            path.unlink(missing_ok=True)


def digest_of(*parts: object) -> str:
    """Return the SHA-256 of JSON-able parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _partial(key: StatisticsKey, order: str) -> StatisticsKey:
    """Return a key of its own for part of the images: here their order matters."""
    return replace(key, images=digest_of("unfinished", order))
