"""Weights as INT8: one scale a channel, and weights that lie on a grid keep it.

The scale of a channel is its largest magnitude divided by 127. But training with quantisation in
the loop leaves weights that are whole multiples of a step, mostly one step for a whole tensor.
The usual scale is another step: each weight would be rounded to a second grid, and what training
took care of is lost. Where a channel's weights are multiples of 1/n of its largest, n up to 127,
that is its scale, and nothing is rounded at all.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_fg.errors import CalibrationError
from edge_fg_calibration.graph.weights import along_axis
from edge_fg_calibration.int8.ranges import LEVELS

MINIMUM_SCALE = 2.0**-60
"""Floor of a scale: a dead channel has none of its own, and TensorRT refuses zero."""

StoredWeight: TypeAlias = tuple[NDArray[np.int8], NDArray[np.float32]]
"""INT8 values of a weight, and the scale of each output channel."""

_TOLERANCE = 0.01
_LOOK = 8
_ROWS = 6
_FEWEST_VALUES = 8


def quantise_weight(weight: NDArray[np.float32], axis: int) -> StoredWeight:
    """Return a weight as INT8, -127 to 127, and a scale for each index along its channel axis.

    The scale is the largest magnitude divided by 127, or that of the weights' own grid. NaN or
    infinite weights are a `CalibrationError`.
    """
    if not np.isfinite(weight).all():
        raise CalibrationError("weights are NaN or infinite")
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    amax = np.abs(rows).max(axis=1).astype(np.float64)
    scale = np.maximum(amax / grid_levels(rows), MINIMUM_SCALE).astype(np.float32)
    steps = np.rint(weight / along_axis(scale, axis, weight.ndim))
    return np.clip(steps, -LEVELS, LEVELS).astype(np.int8), scale


def grid_levels(rows: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return of each row (of rows x values) how many steps of its grid its largest magnitude is.

    That is the least n from 1 to 127 such that all its values are multiples of ``amax / n``, but
    for a hundredth of a step; 127 where there is none.
    """
    levels = np.full(len(rows), LEVELS, np.int64)
    if rows.shape[1] < _FEWEST_VALUES:
        return levels
    # Most models have no grid, and a few rows tell.
    some = rows[:: -(-len(rows) // _ROWS)]
    if not (_least_levels(some) < LEVELS).any():
        return levels
    return _least_levels(rows)


def _least_levels(rows: NDArray[np.float32]) -> NDArray[np.int64]:
    amax = np.abs(rows).max(axis=1, keepdims=True)
    shares = np.asarray(rows / np.where(amax > 0, amax, 1), np.float32)
    levels = np.full(len(rows), LEVELS, np.int64)
    looked = shares[:, :: -(-shares.shape[1] // _LOOK)]
    for count in range(LEVELS - 1, 0, -1):
        likely = np.flatnonzero(_on_grid(looked, count))
        levels[likely[_on_grid(shares[likely], count)]] = count
    return levels


def _on_grid(shares: NDArray[np.float32], count: int) -> NDArray[np.bool_]:
    places = shares * np.float32(count)
    return np.asarray(np.abs(places - np.rint(places)).max(axis=1, initial=0) <= _TOLERANCE)
