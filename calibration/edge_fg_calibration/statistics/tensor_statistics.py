"""What one pass over the calibration images found, which several workers' passes add up to.

Everything in it (counts, extremes) is a sum of whole numbers or a maximum, so merging is exact:
the parts give bit for bit what one pass over all images gives, in any order.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from edge_fg.errors import CalibrationError
from edge_fg.files import write_atomically
from edge_fg_calibration.statistics.histogram import Histogram

# Of the file format and of how the statistics are counted; older ones are counted again.
_STATISTICS_VERSION = 3
_FORMAT = "edge-fg calibration statistics"
_MAX_BYTES = 1 << 28


@dataclass(frozen=True)
class StatisticsKey:
    """All that statistics depend on, as digests.

    Parameters
    ----------
    graph
        SHA-256 of the serialised model.
    preprocessing
        SHA-256 of how images become network inputs.
    images
        SHA-256 of the contents of the images.
    tensors
        SHA-256 of which tensors were observed, and how finely.
    software
        Versions of what decodes, prepares and runs the images.
    """

    graph: str
    preprocessing: str
    images: str
    tensors: str
    software: str

    def differences(self, other: StatisticsKey) -> tuple[str, ...]:
        """Return the names of the parts in which two keys differ."""
        return tuple(
            one.name for one in fields(self) if getattr(self, one.name) != getattr(other, one.name)
        )


@dataclass
class Statistics:
    """Histograms of tensors over some images.

    Parameters
    ----------
    histograms
        Of the magnitudes of each tensor, by name.
    images
        Images counted.
    textured
        Whether one of them was not of one flat colour.
    infinite
        Names of tensors that also had infinite values; histograms count the finite ones.
    """

    histograms: dict[str, Histogram]
    images: int = 0
    textured: bool = False
    infinite: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, tensors: Iterable[str]) -> Statistics:
        """Return empty statistics of `tensors`."""
        return cls({name: Histogram() for name in tensors})

    def merge(self, other: Statistics) -> None:
        """Add what another worker counted on other images.

        Raises
        ------
        CalibrationError
            It observed other tensors, or with another number of bins.
        """
        if other.histograms.keys() != self.histograms.keys():
            raise CalibrationError("statistics of different tensors can't be merged")
        for name, histogram in other.histograms.items():
            self.histograms[name].merge(histogram)
        self.images += other.images
        self.textured = self.textured or other.textured
        self.infinite |= other.infinite

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description; see `from_dict`."""
        return {
            "images": self.images,
            "textured": self.textured,
            "infinite": sorted(self.infinite),
            "histograms": {name: one.to_dict() for name, one in self.histograms.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Statistics:
        """Read what `to_dict` wrote.

        Raises
        ------
        CalibrationError
            The description is malformed or contradicts itself.
        """
        try:
            found = cls(
                {str(name): Histogram.from_dict(one) for name, one in data["histograms"].items()},
                int(data["images"]),
                bool(data["textured"]),
                {str(name) for name in data["infinite"]},
            )
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise CalibrationError(f"malformed statistics ({error!r})") from error
        if not found.infinite <= found.histograms.keys():
            raise CalibrationError("malformed statistics (infinite tensors that were not observed)")
        if found.images < 0:
            raise CalibrationError(f"malformed statistics ({found.images} images)")
        return found

    def save(self, path: Path, key: StatisticsKey) -> None:
        """Write the statistics and what they depend on, as JSON.

        Raises
        ------
        OutputError
            The file can't be written.
        """
        content = self.to_dict()
        document = {
            "format": _FORMAT,
            "version": _STATISTICS_VERSION,
            "key": asdict(key),
            "sha256": _digest(content),
            "statistics": content,
        }
        write_atomically(path, json.dumps(document, allow_nan=False))

    @classmethod
    def load(cls, path: Path, key: StatisticsKey) -> Statistics:
        """Read what `save` wrote, if it belongs to `key`.

        Raises
        ------
        CalibrationError
            The file can't be read, is another user's, damaged, or belongs to something else;
            the message says what differs.
        """
        try:
            document = json.loads(_read_own(path))
            if document["format"] != _FORMAT or document["version"] != _STATISTICS_VERSION:
                raise CalibrationError(f"{path}: written by another version")
            kept = StatisticsKey(**{str(k): str(v) for k, v in document["key"].items()})
            content, digest = document["statistics"], document["sha256"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CalibrationError(f"{path}: not calibration statistics ({error!r})") from error
        different = key.differences(kept)
        if different:
            raise CalibrationError(f"{path}: other {', '.join(different)}")
        if _digest(content) != digest:
            raise CalibrationError(f"{path}: damaged, its digest is wrong")
        return cls.from_dict(content)


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read_own(path: Path) -> bytes:
    """Read a regular file of ours that nobody else may write, and not too large."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise CalibrationError(f"{path}: not a regular file")
        if status.st_uid != os.geteuid() or status.st_mode & stat.S_IWOTH:
            raise CalibrationError(f"{path}: not ours alone to write")
        if status.st_size > _MAX_BYTES:
            raise CalibrationError(f"{path}: {status.st_size} bytes are too many for statistics")
        return file.read(_MAX_BYTES)
