"""A frame as the camera gave it, before anything is converted."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_fg.errors import ImageError
from edge_fg.preprocess.source import Source


@dataclass(frozen=True, eq=False)
class RawFrame:
    """The bytes of a frame, and how they lie: the GPU path converts them where they are.

    Parameters
    ----------
    data
        (bytes,) uint8, C-contiguous, at least as many as `layout` needs.
    layout
        Pixel format, size, pitch and colour standard, without a region.

    Raises
    ------
    ImageError
        The bytes don't hold such a frame, or `layout` has a region.
    """

    data: NDArray[np.uint8] = field(repr=False)
    layout: Source

    def __post_init__(self) -> None:
        data = self.data
        if self.layout.region is not None:
            raise ImageError("a raw frame is a whole one: give the region beside it")
        if data.dtype != np.uint8 or data.ndim != 1 or not data.flags.c_contiguous:
            raise ImageError("a raw frame's bytes must be one row of uint8 without gaps")
        if data.size < self.layout.nbytes:
            raise ImageError(f"{data.size} bytes don't hold a frame of {self.layout.nbytes}")

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.layout.width, self.layout.height

    def to_bgr(self) -> NDArray[np.uint8]:
        """Return it as (height, width, 3) uint8 BGR: exactly what the GPU path reads from it."""
        return np.ascontiguousarray(self.layout.to_bgr(self.data))
