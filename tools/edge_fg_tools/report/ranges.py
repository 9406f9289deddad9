"""The calibrated range of a tensor as the report shows it, with a small histogram."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MAX_HISTOGRAM_BINS = 64
"""Most bins of a tensor's histogram in the report."""


@dataclass(frozen=True)
class TensorRange:
    """The calibrated range of one tensor; ValueError for more than `MAX_HISTOGRAM_BINS` bins."""

    tensor: str  # Its name in the graph
    node: str  # The node that it feeds or comes from
    op: str  # That node's operator
    amax: float  # Largest magnitude that INT8 can hold of this tensor
    maximum: float  # Largest magnitude seen during calibration
    clipped_share: float  # Share (0..1) of the values seen whose magnitude is beyond `amax`
    method: str  # Calibration method of this tensor
    # Counts of magnitudes in equal bins from 0 to `histogram_limit`, at most `MAX_HISTOGRAM_BINS`
    # of them (see `downsample`, which also moves the limit).
    histogram: tuple[int, ...] = ()
    histogram_limit: float = 0.0  # Magnitude at the upper edge of the last bin

    def __post_init__(self) -> None:
        if len(self.histogram) > MAX_HISTOGRAM_BINS:
            raise ValueError(
                f"{self.tensor}: at most {MAX_HISTOGRAM_BINS} bins fit in a report, "
                f"not {len(self.histogram)}; use downsample"
            )


def downsample(
    counts: Sequence[int], limit: float, bins: int = MAX_HISTOGRAM_BINS
) -> tuple[tuple[int, ...], float]:
    """Merge neighbouring bins of a histogram until at most `bins` (at least 1) are left.

    Bins, equal ones from 0 to `limit`, are merged in groups of one size and the last group is
    filled up with empty bins, so that the new bins are equally wide and no count is lost. Returns
    the counts and the upper edge of the last bin, at or beyond `limit`. Raises ValueError where
    `bins` is below 1.
    """
    if bins < 1:
        raise ValueError(f"a histogram needs at least one bin, not {bins}")
    if not counts:
        return (), limit
    group = math.ceil(len(counts) / bins)
    merged = tuple(
        sum(int(count) for count in counts[start : start + group])
        for start in range(0, len(counts), group)
    )
    return merged, limit * group * len(merged) / len(counts)
