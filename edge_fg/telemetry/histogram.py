"""Latencies in fixed memory: counts in buckets of equal relative width."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

RELATIVE_ERROR: Final = 0.02
"""Largest relative error of a percentile between `SMALLEST` and `LARGEST`."""

SMALLEST: Final = 1e-6
LARGEST: Final = 1e4
"""Seconds; what lies outside counts as the nearest of the two (`Summary.max` is exact)."""

# A bucket spans (1 + e) / (1 - e): its harmonic middle is off by no more than e at either end.
_FACTOR: Final = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_SCALE: Final = 1 / math.log(_FACTOR)
_OFFSET: Final = -math.log(SMALLEST) * _SCALE
_BUCKETS: Final = math.ceil(math.log(LARGEST / SMALLEST) * _SCALE) + 1


@dataclass(frozen=True)
class Summary:
    """What a histogram holds, in seconds; 0 everywhere while it is empty.

    Parameters
    ----------
    count
        Values.
    mean, max
        Exact.
    p50, p90, p99
        The smallest value that so many percent don't exceed, to `RELATIVE_ERROR`.
    """

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    max: float


class Histogram:
    """Counts values of 1 microsecond to 10,000 s in log-spaced buckets of 2 % relative error.

    Memory is fixed (about 5 kB). Not locked: threads that share one need a lock.
    The buckets are those of DDSketch (Masson, Rim and Lee, VLDB 2019), with a fixed range.
    """

    __slots__ = ("_counts", "_sum", "count", "max")

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self._sum = 0.0
        self.count = 0
        self.max = 0.0

    def add(self, seconds: float) -> None:
        """Count one value."""
        index = int(math.log(seconds) * _SCALE + _OFFSET) if seconds > SMALLEST else 0
        self._counts[min(index, _BUCKETS - 1)] += 1
        self._sum += seconds
        self.count += 1
        self.max = max(self.max, seconds)

    def copy(self) -> Histogram:
        """Return another one that holds the same."""
        other = Histogram()
        other._counts = self._counts.copy()
        other._sum, other.count, other.max = self._sum, self.count, self.max
        return other

    def percentiles(self, percents: Sequence[float]) -> list[float]:
        """Return for each of `percents` the smallest value that so many percent don't exceed."""
        if not self.count:
            return [0.0] * len(percents)
        totals = list(itertools.accumulate(self._counts))
        ranks = [max(1, math.ceil(percent / 100 * self.count)) for percent in percents]
        return [min(_middle(bisect.bisect_left(totals, rank)), self.max) for rank in ranks]

    def summary(self) -> Summary:
        """Return count, mean, percentiles and maximum."""
        p50, p90, p99 = self.percentiles((50, 90, 99))
        mean = self._sum / self.count if self.count else 0.0
        return Summary(self.count, mean, p50, p90, p99, self.max)


def _middle(index: int) -> float:
    lower = math.exp((index - _OFFSET) / _SCALE)
    return 2 * lower * _FACTOR / (1 + _FACTOR)
