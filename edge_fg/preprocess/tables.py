"""Coefficient tables as the CUDA kernels read them: cropped, trimmed and turned."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_fg.preprocess.resample import coefficients
from edge_fg.preprocess.spec import Filter

TILE_COLUMNS: Final = 32
"""Columns of one block, as ``TILE_COLUMNS`` in the source."""


@dataclass(frozen=True, eq=False)
class Axis:
    """What one kernel reads for one axis, int32.

    ``weights`` is (taps, length): neighbouring threads read neighbouring numbers. ``extra`` is,
    across, (tiles, 2): the first and the end of the samples that a tile of columns needs; down,
    the frame's row behind each row of scratch.
    """

    first: NDArray[np.int32]
    count: NDArray[np.int32]
    weights: NDArray[np.int32]
    extra: NDArray[np.int32]


class TableSet:
    """Tables one behind the other, each once."""

    def __init__(self, levels: NDArray[np.generic]) -> None:
        self._parts = [_bytes_of(levels)]
        self._words = levels.nbytes // 4
        self._placed: dict[Axis, tuple[int, int, int, int]] = {}

    def place(self, axis: Axis) -> tuple[int, int, int, int]:
        """Return where `axis`'s four tables start, in words of 4 bytes."""
        if axis not in self._placed:
            starts = []
            for table in (axis.first, axis.count, axis.weights, axis.extra):
                starts.append(self._words)
                self._parts.append(_bytes_of(table))
                self._words += table.size
            self._placed[axis] = (starts[0], starts[1], starts[2], starts[3])
        return self._placed[axis]

    def joined(self) -> NDArray[np.uint8]:
        """Return all of them, read-only."""
        whole = np.concatenate(self._parts)
        whole.flags.writeable = False
        return whole


def _bytes_of(array: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


@functools.lru_cache(maxsize=128)
def across(
    length_in: int, length_out: int, name: Filter, antialias: bool, begin: int, length: int
) -> Axis:
    """Return the tables of columns `begin` to `begin` + `length` of the resized width."""
    first, count, weights = _trimmed(length_in, length_out, name, antialias, begin, length)
    tiles = [slice(i, i + TILE_COLUMNS) for i in range(0, length, TILE_COLUMNS)]
    ranges = [(first[tile].min(), (first + count)[tile].max()) for tile in tiles]
    return Axis(first, count, weights, np.array(ranges, np.int32))


@functools.lru_cache(maxsize=128)
def down(
    length_in: int, length_out: int, name: Filter, antialias: bool, begin: int, length: int
) -> Axis:
    """Return the tables of rows `begin` to `begin` + `length` of the resized height."""
    first, count, weights = _trimmed(length_in, length_out, name, antialias, begin, length)
    needed = np.zeros(length_in, bool)
    for start, taps in zip(first, count, strict=True):
        needed[start : start + taps] = True
    place = np.cumsum(needed, dtype=np.int32) - 1
    # An output row without a single weight reads none, wherever it starts.
    first = np.where(count > 0, place[first], 0).astype(np.int32)
    return Axis(first, count, weights, np.flatnonzero(needed).astype(np.int32))


def _trimmed(
    length_in: int, length_out: int, name: Filter, antialias: bool, begin: int, length: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Return (first, count, weights) of one axis's crop, without zero weights at either end."""
    whole = coefficients(length_in, length_out, name, antialias)
    first, weights = whole.first[begin : begin + length], whole.weights[begin : begin + length]
    used = weights != 0
    lead = used.argmax(axis=1)
    count = np.where(used.any(axis=1), weights.shape[1] - used[:, ::-1].argmax(axis=1) - lead, 0)
    taps = np.arange(max(1, int(count.max())))[:, None]
    source = np.minimum(lead + taps, weights.shape[1] - 1)
    moved = np.where(taps < count, weights[np.arange(length), source], 0)
    return (
        np.minimum(first + lead, length_in - 1).astype(np.int32),
        count.astype(np.int32),
        np.ascontiguousarray(moved, np.int32),
    )
