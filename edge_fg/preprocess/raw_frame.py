"""Frames as cameras give them, before anything is converted."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_fg.boxes import Region, checked_region
from edge_fg.errors import ImageError
from edge_fg.images import as_frame
from edge_fg.preprocess.pixel_layout import PixelFormat, PixelLayout, frame_bytes, plane_of
from edge_fg.preprocess.yuv import ColorStandard

FrameT = TypeVar("FrameT")


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
    layout: PixelLayout

    def __post_init__(self) -> None:
        if self.layout.region is not None:
            raise ImageError("a raw frame is a whole one: give the region beside it")
        self.bytes()

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.layout.width, self.layout.height

    def bytes(self) -> NDArray[np.uint8]:
        """Return as many bytes as the frame has, without copying.

        Raises
        ------
        ImageError
            They are not there.
        """
        return frame_bytes(self.layout, self.data)

    def to_bgr(self) -> NDArray[np.uint8]:
        """Return it as (height, width, 3) uint8 BGR: exactly what the GPU path reads from it."""
        return np.ascontiguousarray(self.layout.to_bgr(self.data))

    def part(self, region: Region) -> tuple[PixelLayout, tuple[NDArray[np.uint8], ...]]:
        """Return the least of the frame that `region` needs, without copying.

        It starts at a whole pair or 2 x 2 block of pixels, so that each keeps its own chroma.
        Wherever a region of some size starts, there are at most four descriptions of it.

        Parameters
        ----------
        region
            (x, y, width, height) in pixels.

        Returns
        -------
        PixelLayout, tuple of ndarray
            The layout of the planes behind one another without gaps, with the region in it;
            and the planes, (rows, bytes) uint8 each.

        Raises
        ------
        ImageError
            The region is not four whole numbers, is empty or reaches outside the frame.
        """
        layout = self.layout
        x, y, width, height = checked_region(region, layout.height, layout.width)
        across, down = _STEPS.get(layout.format, (1, 1))
        inside = (x % across, y % down, width, height)
        left, top = x - inside[0], y - inside[1]
        described = _alone(layout.format, layout.standard, inside)
        data, pitch = self.bytes(), layout.row_pitch
        start = top * pitch + left * _BYTES[layout.format]
        planes = [plane_of(data, start, described.height, pitch, described.row_pitch)]
        rows = (described.height + 1) // 2
        used, pitch = described.chroma_row_pitch, layout.chroma_row_pitch
        pairs = left if layout.format is PixelFormat.NV12 else left // 2
        starts = [offset + top // 2 * pitch + pairs for offset in layout.chroma_planes]
        planes += [plane_of(data, start, rows, pitch, used) for start in starts]
        return described, tuple(planes)


Pixels = NDArray[np.uint8] | RawFrame
"""A frame: (H, W, 3) uint8 BGR, or the camera's own bytes."""

# How many pixels across and down share a sample of chroma.
_STEPS: Final = {PixelFormat.NV12: (2, 2), PixelFormat.I420: (2, 2), PixelFormat.YUYV: (2, 1)}
# Bytes from one pixel to the next in a row (of luma).
_BYTES: Final = {
    PixelFormat.BGR: 3,
    PixelFormat.RGB: 3,
    PixelFormat.GRAY: 1,
    PixelFormat.NV12: 1,
    PixelFormat.YUYV: 2,
    PixelFormat.I420: 1,
}


def as_pixels(frame: Any) -> Pixels:
    """Return a frame that can be used: a raw one as it is, an array as `as_frame` returns it.

    Raises `ImageError` if it is neither; the message states what was expected and what came.
    """
    return frame if isinstance(frame, RawFrame) else as_frame(frame)


def size_of(frame: Pixels) -> tuple[int, int]:
    """Return a frame's height and width in pixels."""
    if isinstance(frame, RawFrame):
        return frame.layout.height, frame.layout.width
    return frame.shape[0], frame.shape[1]


def all_bgr(frames: Sequence[Pixels]) -> list[NDArray[np.uint8]]:
    """Return each frame as (H, W, 3) uint8 BGR; one that stands several times is converted once."""
    unique, at = distinct(frames)
    converted = [frame.to_bgr() if isinstance(frame, RawFrame) else frame for frame in unique]
    return [converted[place] for place in at]


def distinct(frames: Sequence[FrameT]) -> tuple[list[FrameT], tuple[int, ...]]:
    """Return each object once, and where each is among them."""
    places: dict[int, int] = {}
    unique: list[FrameT] = []
    for frame in frames:
        if id(frame) not in places:
            places[id(frame)] = len(unique)
            unique.append(frame)
    return unique, tuple(places[id(frame)] for frame in frames)


@functools.lru_cache(maxsize=256)
def _alone(kind: PixelFormat, standard: ColorStandard | None, inside: Region) -> PixelLayout:
    """Return the layout of a region whose planes have no gaps, from pixel (0, 0) on."""
    x, y, width, height = inside
    columns, rows = x + width, y + height
    pairs = (columns + 1) // 2
    # Given for NV12 too: else odd rows of luma would be as long as those of chroma.
    chroma = {PixelFormat.NV12: 2 * pairs, PixelFormat.I420: pairs}
    region = None if (x, y) == (0, 0) else inside
    return PixelLayout(kind, rows, columns, None, standard, region, chroma.get(kind))
