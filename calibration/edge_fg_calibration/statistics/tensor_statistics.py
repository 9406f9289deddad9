"""What one pass over the calibration images found, which several workers' passes add up to.

Everything in it (counts, extremes, channel maxima) is a sum of whole numbers or a maximum, so
merging is exact: the parts give bit for bit what one pass over all images gives, in any order.
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

import numpy as np
from numpy.typing import NDArray

from edge_fg.errors import CalibrationError
from edge_fg.files import write_atomically
from edge_fg_calibration.statistics.histogram import DEFAULT_BINS, Histogram

STATISTICS_VERSION = 1
"""Of the file format and of how the statistics are counted; older ones are counted anew."""

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
        SHA-256 of which tensors were observed, how finely, and along which channels.
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
    """Histograms of tensors, and where asked the maxima of their channels.

    Parameters
    ----------
    histograms
        Of the magnitudes of each tensor, by name.
    channel_axes
        Tensors whose channels are told apart, and along which axis.
    channel_maxima
        Largest magnitude in each channel of those tensors, shape (channels,), float32.
    images
        Images counted.
    textured
        Whether one of them was not of one flat colour.
    """

    histograms: dict[str, Histogram]
    channel_axes: dict[str, int] = field(default_factory=dict)
    channel_maxima: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    images: int = 0
    textured: bool = False

    @classmethod
    def of(
        cls,
        tensors: Iterable[str],
        *,
        bins: int = DEFAULT_BINS,
        channel_axes: Mapping[str, int] | None = None,
    ) -> Statistics:
        """Return empty statistics of `tensors`."""
        return cls({name: Histogram(bins) for name in tensors}, dict(channel_axes or {}))

    def add(self, tensor: str, values: NDArray[Any]) -> None:
        """Count the values that one tensor had.

        Raises
        ------
        CalibrationError
            A value is NaN or infinite, or the number of channels changed.
        """
        self.histograms[tensor].add(values)
        axis = self.channel_axes.get(tensor)
        if axis is not None:
            others = tuple(one for one in range(values.ndim) if one != axis % values.ndim)
            highest = np.maximum(values.max(axis=others), -values.min(axis=others))
            self._raise_maxima(tensor, highest.astype(np.float32))

    def merge(self, other: Statistics) -> None:
        """Add what another worker counted on other images.

        Raises
        ------
        CalibrationError
            It observed other tensors or channels, or with another number of bins.
        """
        if other.histograms.keys() != self.histograms.keys():
            raise CalibrationError("statistics of different tensors can't be merged")
        if other.channel_axes != self.channel_axes:
            raise CalibrationError("statistics of different channels can't be merged")
        for name, histogram in other.histograms.items():
            self.histograms[name].merge(histogram)
        for name, maxima in other.channel_maxima.items():
            self._raise_maxima(name, maxima)
        self.images += other.images
        self.textured = self.textured or other.textured

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description; see `from_dict`."""
        return {
            "images": self.images,
            "textured": self.textured,
            "histograms": {name: one.to_dict() for name, one in self.histograms.items()},
            "channel_axes": self.channel_axes,
            "channel_maxima": {name: one.tolist() for name, one in self.channel_maxima.items()},
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
                {str(name): int(axis) for name, axis in data["channel_axes"].items()},
                {
                    str(name): np.asarray(one, dtype=np.float32)
                    for name, one in data["channel_maxima"].items()
                },
                int(data["images"]),
                bool(data["textured"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise CalibrationError(f"malformed statistics ({error!r})") from error
        maxima = found.channel_maxima
        if found.images < 0 or not maxima.keys() <= found.channel_axes.keys():
            raise CalibrationError("malformed statistics (images or channels)")
        for name, values in maxima.items():
            histogram = found.histograms.get(name)
            finite = values.ndim == 1 and values.size > 0 and bool(np.isfinite(values).all())
            if histogram is None or not finite or float(values.max()) != histogram.amax:
                raise CalibrationError(f"the channel maxima of {name!r} contradict its histogram")
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
            "version": STATISTICS_VERSION,
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
            if document["format"] != _FORMAT or document["version"] != STATISTICS_VERSION:
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

    def _raise_maxima(self, tensor: str, maxima: NDArray[np.float32]) -> None:
        known = self.channel_maxima.get(tensor)
        if known is not None and known.shape != maxima.shape:
            raise CalibrationError(
                f"tensor {tensor!r} has {maxima.size} channels, and had {known.size} before"
            )
        self.channel_maxima[tensor] = maxima if known is None else np.maximum(known, maxima)


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read_own(path: Path) -> bytes:
    """Read a regular file of ours that nobody else may write, and not a giant."""
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
