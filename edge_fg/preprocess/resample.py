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
from typing import NamedTuple

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


def _box(x: float) -> float:
    return 1.0 if -0.5 < x <= 0.5 else 0.0


def _bilinear(x: float) -> float:
    x = abs(x)
    return 1.0 - x if x < 1.0 else 0.0


def _bicubic(x: float) -> float:
    # Keys (1981), "Cubic convolution interpolation", with a = -0.5, as Pillow has it.
    a = -0.5
    x = abs(x)
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    if x < 2.0:
        return (((x - 5) * x + 8) * x - 4) * a
    return 0.0


def _sinc(x: float) -> float:
    if x == 0.0:
        return 1.0
    x *= math.pi
    return math.sin(x) / x


def _lanczos(x: float) -> float:
    return _sinc(x) * _sinc(x / 3) if -3.0 <= x < 3.0 else 0.0


_FILTERS: dict[Filter, tuple[Callable[[float], float], float]] = {
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
    first = np.zeros(length_out, np.int32)
    weights = np.zeros((length_out, taps), np.int32)
    for i in range(length_out):
        center = (i + 0.5) * scale
        begin = max(0, int(center - support + 0.5))
        end = min(length_in, int(center + support + 0.5))
        raw = [weigh((j - center + 0.5) / widening) for j in range(begin, end)]
        total = sum(raw)
        first[i] = begin
        for k, value in enumerate(raw):
            share = value / total if total != 0.0 else value
            weights[i, k] = _to_fixed(share)
    first.flags.writeable = False
    weights.flags.writeable = False
    return Coefficients(first, weights)


def _to_fixed(share: float) -> int:
    half = -0.5 if share < 0 else 0.5
    return int(half + share * (1 << PRECISION_BITS))


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
