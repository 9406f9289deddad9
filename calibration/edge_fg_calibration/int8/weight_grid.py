"""Weights that lie on a grid already: they fit INT8 without any error, on their own steps.

Training with quantisation in the loop leaves weights that are whole multiples of a step, mostly
one step for a whole tensor. The usual scale of a channel, its largest magnitude divided by 127,
is another step: each weight is rounded to a second grid, and what training took care of is lost.
Where a channel's weights are multiples of 1/n of its largest, n up to 127, that is its scale.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_fg_calibration.int8.ranges import LEVELS

_TOLERANCE = 0.01
_LOOK = 8
_ROWS = 6
_FEWEST_VALUES = 8


def grid_levels(rows: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return of each row how many steps of its grid its largest magnitude is.

    Parameters
    ----------
    rows
        Rows x values, finite.

    Returns
    -------
    For each row the least n from 1 to 127 such that all its values are multiples of
    ``amax / n``, but for a hundredth of a step; 127 where there is none.
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
