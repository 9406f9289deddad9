"""A streaming histogram of magnitudes that fits in fixed memory and forgets no order.

The range is a power of two and so is the number of bins; when a larger value arrives,
neighbouring bins are merged in pairs until it fits. A value's bin after merging is the bin it
would have had from the start (``floor(floor(x) / 2) == floor(x / 2)``), so the counts depend only
on the values: not on their order, the batch size, or how partial histograms were merged.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_fg.errors import CalibrationError

DEFAULT_BINS = 2048

# Below this range a float32 scale factor would overflow; values so small share the first bins.
_SMALLEST_EXPONENT = -100
# A chunk and its bin numbers stay in a core's second-level cache.
_CHUNK = 1 << 14
_MOST_BINS = 1 << 20
_MOST_COUNTED = 1 << 53


class Histogram:
    """Counts of abs(x) in equal bins from 0 to a power of two above the largest seen.

    Parameters
    ----------
    bins
        Number of bins, a power of two.

    Attributes
    ----------
    counts : ndarray of int64, shape (bins,)
        Values in each bin; exact zeros are in the first.
    count : int
        Values seen.
    zeros : int
        Values that were exactly zero.
    minimum, maximum : float
        Smallest and largest signed value; 0.0 while nothing was seen.
    """

    def __init__(self, bins: int = DEFAULT_BINS) -> None:
        if bins < 2 or bins & (bins - 1):
            raise CalibrationError(f"a histogram's bins must be a power of two, not {bins}")
        self.counts: NDArray[np.int64] = np.zeros(bins, np.int64)
        self.count = 0
        self.zeros = 0
        self.minimum = 0.0
        self.maximum = 0.0
        self._exponent = _SMALLEST_EXPONENT

    @property
    def bins(self) -> int:
        """Number of bins."""
        return int(self.counts.size)

    @property
    def amax(self) -> float:
        """Largest magnitude seen, exact; 0.0 while nothing was seen."""
        return max(-self.minimum, self.maximum, 0.0)

    @property
    def limit(self) -> float:
        """Upper edge of the last bin: a power of two strictly above `amax`."""
        return math.ldexp(1.0, self._exponent)

    @property
    def width(self) -> float:
        """Width of one bin."""
        return self.limit / self.bins

    def add(self, array: NDArray[Any]) -> None:
        """Count the values of one array, of any shape; read as float32.

        Raises
        ------
        CalibrationError
            A value is NaN or infinite; nothing of the array is counted then.
        """
        values = np.asarray(array, dtype=np.float32).reshape(-1)
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise CalibrationError("values are NaN or infinite")
        self._widen(_exponent_above(max(-low, high)))
        self._count(values)
        self._extend(low, high, int(values.size))

    def merge(self, other: Histogram) -> None:
        """Add the counts of another histogram with the same number of bins.

        Raises
        ------
        CalibrationError
            The numbers of bins differ.
        """
        if other.bins != self.bins:
            raise CalibrationError(
                f"histograms of {self.bins} and {other.bins} bins can't be merged"
            )
        if not other.count:
            return
        self._widen(other._exponent)
        self.counts += _merged(other.counts, self._exponent - other._exponent)
        self.zeros += other.zeros
        self._extend(other.minimum, other.maximum, other.count)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description; see `from_dict`."""
        return {
            "bins": self.bins,
            "exponent": self._exponent,
            "count": self.count,
            "zeros": self.zeros,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "counts": self.counts.tolist(),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Histogram:
        """Read what `to_dict` wrote.

        Raises
        ------
        CalibrationError
            The description is malformed or contradicts itself.
        """
        try:
            bins = int(data["bins"])
            if bins > _MOST_BINS:
                raise CalibrationError(f"a histogram of {bins} bins is refused")
            histogram = cls(bins)
            counts = np.asarray(data["counts"], dtype=np.int64)
            histogram._exponent = int(data["exponent"])
            histogram.count, histogram.zeros = int(data["count"]), int(data["zeros"])
            histogram.minimum = float(data["minimum"])
            histogram.maximum = float(data["maximum"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise CalibrationError(f"malformed histogram ({error!r})") from error
        consistent = (
            counts.shape == histogram.counts.shape
            and bool(((counts >= 0) & (counts <= _MOST_COUNTED)).all())
            and int(counts.sum()) == histogram.count
            and 0 <= histogram.zeros <= int(counts[0])
            and math.isfinite(histogram.minimum)
            and math.isfinite(histogram.maximum)
            and histogram.minimum <= histogram.maximum
            and histogram._exponent == _exponent_above(histogram.amax)
        )
        if not consistent:
            raise CalibrationError("a histogram's counts, range and extremes contradict each other")
        histogram.counts = counts
        return histogram

    def _count(self, values: NDArray[np.float32]) -> None:
        """Count `values`, a chunk at a time and in buffers that are used again."""
        scale = np.float32(self.bins / self.limit)
        size = min(_CHUNK, values.size)
        magnitudes = np.empty(size, np.float32)
        # Float to 32 bits and those to an index: both are vector instructions, unlike both at once.
        places = np.empty(size, np.int32)
        indices = np.empty(size, np.intp)
        nonzero = 0
        for start in range(0, values.size, size):
            part = values[start : start + size]
            some, place, index = (b[: part.size] for b in (magnitudes, places, indices))
            np.abs(part, out=some)
            # A magnitude is zero where its bits are, and integers are compared faster.
            nonzero += int(np.count_nonzero(some.view(np.int32)))
            np.multiply(some, scale, out=some)
            np.copyto(place, some, casting="unsafe")
            np.copyto(index, place)
            self.counts += np.bincount(index, minlength=self.bins)
        self.zeros += int(values.size) - nonzero

    def _widen(self, exponent: int) -> None:
        if exponent > self._exponent:
            self.counts = _merged(self.counts, exponent - self._exponent)
            self._exponent = exponent

    def _extend(self, low: float, high: float, count: int) -> None:
        first = self.count == 0
        self.minimum = low if first else min(self.minimum, low)
        self.maximum = high if first else max(self.maximum, high)
        self.count += count


def _exponent_above(amax: float) -> int:
    """Return the least e (not below a floor) with 2**e strictly above `amax`."""
    return max(math.frexp(amax)[1], _SMALLEST_EXPONENT) if amax > 0 else _SMALLEST_EXPONENT


def _merged(counts: NDArray[np.int64], doublings: int) -> NDArray[np.int64]:
    """Return the counts for a range that is 2**doublings as wide."""
    if doublings == 0:
        return counts
    wide = np.zeros_like(counts)
    bins = counts.size
    step = 1 << min(doublings, bins.bit_length() - 1)
    wide[: bins // step] = counts.reshape(-1, step).sum(axis=1)
    return wide
