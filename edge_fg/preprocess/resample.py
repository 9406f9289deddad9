"""Coefficient tables of Pillow's resampling, and the resampling itself in NumPy.

The tables are what the CUDA kernels read; the NumPy form is the readable definition, used where
a model was trained without antialiasing, which Pillow can't do.

Source: Pillow's ``src/libImaging/Resample.c`` (arithmetic only): coefficients are normalised in
double precision, rounded to fixed point with 22 fractional bits, and each pass (horizontal, then
vertical) rounds to uint8.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_fg.preprocess.spec import Filter

PRECISION_BITS = 32 - 8 - 2
"""Fractional bits of a coefficient: 8 bits of pixel and 2 of head-room fit 32 with them."""


class Coefficients(NamedTuple):
    """Weights of one axis.

    ``weights`` is int32 of shape (length out, taps), fixed point with `PRECISION_BITS`;
    ``first`` is int32 of shape (length out,): the input sample of the first weight. Taps beyond
    the input are zero and never point outside it.
    """

    first: NDArray[np.int32]
    weights: NDArray[np.int32]


_Axis = NDArray[np.float64]
# Python's sine is the C library's, as Pillow's is; NumPy's own may differ in the last bit.
_sine: Final[Callable[[_Axis], NDArray[Any]]] = np.frompyfunc(math.sin, 1, 1)


def _box(x: _Axis) -> _Axis:
    return ((x > -0.5) & (x <= 0.5)).astype(np.float64)


def _bilinear(x: _Axis) -> _Axis:
    x = np.abs(x)
    return np.where(x < 1.0, 1.0 - x, 0.0)


def _bicubic(x: _Axis) -> _Axis:
    # Keys (1981), "Cubic convolution interpolation", with a = -0.5, as Pillow has it.
    a = -0.5
    x = np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _sinc(x: _Axis) -> _Axis:
    x = x * math.pi
    at_zero = x == 0.0
    values: _Axis = _sine(x).astype(np.float64) / np.where(at_zero, 1.0, x)
    return np.where(at_zero, 1.0, values)


def _lanczos(x: _Axis) -> _Axis:
    return np.where((x >= -3.0) & (x < 3.0), _sinc(x) * _sinc(x / 3), 0.0)


_FILTERS: dict[Filter, tuple[Callable[[_Axis], _Axis], float]] = {
    "box": (_box, 0.5),
    "bilinear": (_bilinear, 1.0),
    "bicubic": (_bicubic, 2.0),
    "lanczos": (_lanczos, 3.0),
}


@functools.lru_cache(maxsize=64)
def coefficients(
    length_in: int, length_out: int, filter_name: Filter, antialias: bool = True
) -> Coefficients:
    """Return the weights that resample one axis from `length_in` to `length_out` samples."""
    weigh, radius = _FILTERS[filter_name]
    scale = length_in / length_out
    widening = max(scale, 1.0) if antialias else 1.0
    support = radius * widening
    taps = math.ceil(support) * 2 + 1
    center = (np.arange(length_out) + 0.5) * scale
    begin = np.maximum(0, (center - support + 0.5).astype(np.int64))
    end = np.minimum(length_in, (center + support + 0.5).astype(np.int64))
    place = begin + np.arange(taps)[:, None]
    # Operation by operation Pillow's, the reciprocal and the order of the sum included.
    raw = np.where(place < end, weigh((place - center + 0.5) * (1.0 / widening)), 0.0)
    total = np.zeros(length_out)
    for row in raw:
        total += row
    share = raw / np.where(total != 0.0, total, 1.0)
    fixed = share * (1 << PRECISION_BITS) + np.where(share < 0, -0.5, 0.5)
    first = begin.astype(np.int32)
    weights = np.ascontiguousarray(fixed.T.astype(np.int32))
    first.flags.writeable = False
    weights.flags.writeable = False
    return Coefficients(first, weights)


def resample(
    image: NDArray[np.uint8], size: tuple[int, int], filter_name: Filter, antialias: bool = True
) -> NDArray[np.uint8]:
    """Resize `image` (H, W, C) to `size` (height, width): horizontally first, then vertically."""
    height, width = size
    columns = coefficients(image.shape[1], width, filter_name, antialias)
    rows = coefficients(image.shape[0], height, filter_name, antialias)
    across = _pass(image.transpose(1, 0, 2), columns).transpose(1, 0, 2)
    return np.ascontiguousarray(_pass(across, rows))


def _pass(image: NDArray[np.uint8], table: Coefficients) -> NDArray[np.uint8]:
    """Resample along axis 0."""
    last = image.shape[0] - 1
    total = np.full((len(table.first), *image.shape[1:]), 1 << (PRECISION_BITS - 1), np.int32)
    for tap in range(table.weights.shape[1]):
        source = np.minimum(table.first + tap, last)
        total += image[source].astype(np.int32) * table.weights[:, tap, None, None]
    levels: NDArray[np.uint8] = np.clip(total >> PRECISION_BITS, 0, 255).astype(np.uint8)
    return levels
