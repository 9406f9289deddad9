"""Turning and mirroring images."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_fg.errors import UsageError
from edge_fg.preprocess.raw_frame import Pixels, RawFrame
from edge_fg.sources.options import Flip

# The numbers of ``flip-method`` (NVIDIA, *Jetson Linux Developer Guide*, "Accelerated GStreamer",
# video rotation with ``nvvidconv``).
NVVIDCONV_METHODS: Final[dict[Flip, int]] = {
    "none": 0,
    "counterclockwise": 1,
    "rotate-180": 2,
    "clockwise": 3,
    "horizontal": 4,
    "upper-right-diagonal": 5,
    "vertical": 6,
    "upper-left-diagonal": 7,
}


def flipped(image: NDArray[np.uint8], flip: Flip) -> NDArray[np.uint8]:
    """Return (H, W, 3) uint8 turned or mirrored, C-contiguous; the same array for ``none``."""
    if flip == "none":
        return image
    if flip in ("counterclockwise", "clockwise", "upper-left-diagonal", "upper-right-diagonal"):
        image = image.transpose(1, 0, 2)
    if flip in ("counterclockwise", "vertical", "rotate-180", "upper-right-diagonal"):
        image = image[::-1]
    if flip in ("clockwise", "horizontal", "rotate-180", "upper-right-diagonal"):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def flipped_size(size_wh: tuple[int, int] | None, flip: Flip) -> tuple[int, int] | None:
    """Return width and height after a flip."""
    sideways = flip.endswith(("clockwise", "diagonal"))
    return size_wh[::-1] if size_wh and sideways else size_wh


def flipped_pixels(pixels: Pixels, flip: Flip, name: str) -> Pixels:
    """Return pixels turned or mirrored; `UsageError` for the raw bytes of the source `name`."""
    if isinstance(pixels, RawFrame):
        if flip == "none":
            return pixels
        raise UsageError(f"{name}: raw frames can't be turned, leave out flip or raw")
    return flipped(pixels, flip)
