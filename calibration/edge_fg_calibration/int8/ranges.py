"""Four ways to choose the range of a tensor, all read from one histogram.

Each returns ``amax``, the magnitude that becomes 127 in symmetric INT8: larger values are
clipped, smaller ones rounded to steps of ``amax / 127``. A tensor that was zero throughout gets
`DEAD_TENSOR_AMAX`. An empty histogram is a `CalibrationError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from edge_fg.errors import CalibrationError
from edge_fg_calibration.statistics.histogram import Histogram

LEVELS = 127
"""Largest magnitude of symmetric INT8."""

DEAD_TENSOR_AMAX = 1.0
"""Range given to a tensor that was zero throughout: a tiny one would clip whatever comes."""

DEFAULT_PERCENTILE = 99.99

# Clipping below one histogram bin a level can't be judged from the histogram.
_FIRST_CANDIDATE = LEVELS + 1
_CANDIDATES_AT_ONCE = 64


def minmax(histogram: Histogram) -> float:
    """Return the largest magnitude seen: nothing is clipped."""
    return DEAD_TENSOR_AMAX if _is_dead(histogram) else histogram.amax


def percentile(histogram: Histogram, percent: float = DEFAULT_PERCENTILE) -> float:
    """Return a magnitude that at least `percent` of the values don't exceed.

    It is the upper edge of the bin that holds that order statistic, never above the largest
    magnitude seen. A `percent` outside (0, 100] is a `CalibrationError`.
    """
    if not 0 < percent <= 100:
        raise CalibrationError(f"a percentile lies above 0 and up to 100, not {percent}")
    if _is_dead(histogram):
        return DEAD_TENSOR_AMAX
    rank = max(1, int(np.ceil(histogram.count * (percent / 100))))
    place = int(np.searchsorted(np.cumsum(histogram.counts), rank))
    return float(min((place + 1) * histogram.width, histogram.amax))


def mse(histogram: Histogram, levels: int = LEVELS) -> float:
    """Return the range with the least mean squared error of quantised against true values.

    Every bin edge from the 128th on is a candidate; the values of a bin stand at its centre. The
    steps from 0 to the range, `levels`, are more than 127 only where it is moved to lie around 0.
    """
    if _is_dead(histogram):
        return DEAD_TENSOR_AMAX
    candidates = _edges(histogram)
    occupied = np.flatnonzero(histogram.counts)
    weights = histogram.counts[occupied].astype(np.float64)
    centres = (occupied + 0.5) * histogram.width
    if occupied[0] == 0:
        weights[0] -= histogram.zeros  # zero is exact at any range
    errors = np.empty(candidates.size)
    for start in range(0, candidates.size, _CANDIDATES_AT_ONCE):
        steps = candidates[start : start + _CANDIDATES_AT_ONCE, None] / levels
        rounded = np.minimum(np.rint(centres / steps), levels) * steps
        errors[start : start + _CANDIDATES_AT_ONCE] = np.square(rounded - centres) @ weights
    return _least(candidates, errors)


def entropy(histogram: Histogram) -> float:
    """Return the range whose 128 levels lose the least information.

    The divergence is KL(P || Q), P being the distribution clipped at the candidate (the outliers
    counted in its last bin) and Q the same merged into 128 levels and spread over the bins of
    each level that hold anything. After S. Migacz, "8-bit inference with TensorRT" (GTC 2017).
    Exact zeros are left out: any range represents them, and behind a ReLU their spike would
    decide everything.
    """
    if _is_dead(histogram):
        return DEAD_TENSOR_AMAX
    counts = histogram.counts.astype(np.float64)
    counts[0] -= histogram.zeros
    candidates = _edges(histogram)
    first = _first_candidate(histogram)
    return _least(candidates, _divergences(counts, np.arange(first, first + candidates.size)))


METHODS: Mapping[str, Callable[[Histogram], float]] = MappingProxyType(
    {"minmax": minmax, "percentile": percentile, "mse": mse, "entropy": entropy}
)
"""The range methods by name."""


def clipped_share(histogram: Histogram, amax: float) -> float:
    """Return the share (0..1) of values in bins that lie wholly above `amax`."""
    _is_dead(histogram)
    first = int(np.ceil(amax / histogram.width))
    return float(histogram.counts[first:].sum()) / histogram.count


def _is_dead(histogram: Histogram) -> bool:
    """Say whether a tensor was zero throughout; refuse one of which nothing was seen."""
    if not histogram.count:
        raise CalibrationError("no values were seen: a range can't be chosen")
    return histogram.amax == 0


def _least(candidates: NDArray[np.float64], losses: NDArray[np.float64]) -> float:
    # The last of equals: with nothing to choose, clip nothing.
    return float(candidates[::-1][np.argmin(losses[::-1])])


def _first_candidate(histogram: Histogram) -> int:
    return min(_FIRST_CANDIDATE, int(histogram.counts.nonzero()[0][-1]) + 1)


def _edges(histogram: Histogram) -> NDArray[np.float64]:
    """Return the candidate ranges: bin edges, the last being the exact largest magnitude."""
    last = int(histogram.counts.nonzero()[0][-1]) + 1
    edges = np.arange(_first_candidate(histogram), last + 1, dtype=np.float64)
    edges *= histogram.width
    edges[-1] = histogram.amax
    return edges


def _divergences(counts: NDArray[np.float64], candidates: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return KL(P || Q) of clipping after each of `candidates` bins.

    With counts c, N in all and S of them kept, a level of mass m over k occupied bins gives
    ``sum(c * log q) = m * log(m / k / S)``: prefix sums over the bins are all that is needed.
    """
    levels = LEVELS + 1
    # Level l of a candidate of n bins starts at bin ceil(l * n / levels).
    starts = -(-np.arange(levels + 1)[None, :] * candidates[:, None] // levels)
    below, occupied = _prefix(counts), _prefix((counts > 0).astype(np.float64))
    mass = np.diff(below[starts], axis=1)
    members = np.diff(occupied[starts], axis=1)
    total, kept = below[-1], below[candidates]
    outliers = total - kept
    last = counts[candidates - 1]
    p_log_p = _prefix(_x_log_x(counts))[candidates] - _x_log_x(last) + _x_log_x(last + outliers)
    p_log_p = p_log_p / total - np.log(total)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_q = np.log(mass / members)
        p_log_q = np.where(mass > 0, mass * log_q, 0.0).sum(axis=1)
        p_log_q += np.where(outliers > 0, outliers * log_q[:, -1], 0.0)
        losses = p_log_p - p_log_q / total + np.log(kept)
    # Outliers in a last bin that holds nothing itself: Q gives them no probability at all.
    losses[(last == 0) & (outliers > 0)] = np.inf
    return np.asarray(losses, dtype=np.float64)


def _prefix(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(values)])


def _x_log_x(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values * np.log(np.where(values > 0, values, 1.0))
