"""Frames and regions sorted for the way to the GPU: what to copy, and what is where."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_fg.boxes import Region, checked_region
from edge_fg.errors import ImageError, UsageError
from edge_fg.preprocess.pixel_layout import PixelFormat, PixelLayout
from edge_fg.preprocess.raw_frame import Pixels, RawFrame, distinct, size_of

Image = NDArray[np.uint8] | tuple[NDArray[np.uint8], ...]
"""Bytes to copy: an array of any shape and strides, or several behind one another."""


class BatchGeometry(NamedTuple):
    """What batches have in common that are computed alike."""

    # For each row of the tensor, how its image lies, and which region of it counts.
    layouts: tuple[PixelLayout, ...]
    # For each row, which of the images it is in; empty if they lie elsewhere on the device.
    at: tuple[int, ...]


class BatchInput(NamedTuple):
    """A batch's geometry, and the images to copy."""

    geometry: BatchGeometry
    images: list[Image]


def batch_input(frames: Sequence[Pixels], regions: Sequence[Region | None] | None) -> BatchInput:
    """Return what is to be copied of frames and their regions.

    Frames are (H, W, 3) uint8 BGR, or raw; regions are (x, y, width, height) of each or None.
    Regions are cut out first, unless the regions of a frame together are larger than it: less is
    copied, and the geometry of a region that moves stays the same.

    Raises `ImageError` if a frame or region can't be used, and `UsageError` if there are more or
    fewer regions than frames.
    """
    for frame in frames:
        if not isinstance(frame, RawFrame):
            _check_bgr(frame)
    if regions is not None and len(regions) != len(frames):
        raise UsageError(f"{len(regions)} regions for {len(frames)} frames")
    unique, at = distinct(frames)
    if regions is None or not any(regions):
        whole = [_part(frame, None) for frame in unique]
        layouts = tuple(whole[place][0] for place in at)
        return BatchInput(BatchGeometry(layouts, at), [image for _, image in whole])
    return _cut_regions(unique, at, regions)


def _cut_regions(
    frames: list[Pixels], at: Sequence[int], regions: Sequence[Region | None]
) -> BatchInput:
    parts: list[Region] = []
    wanted = [0] * len(frames)
    for place, region in zip(at, regions, strict=True):
        height, width = size_of(frames[place])
        part = (0, 0, width, height) if region is None else checked_region(region, height, width)
        parts.append(part)
        wanted[place] += part[2] * part[3]
    layouts: list[PixelLayout] = []
    images: list[Image] = []
    places: list[int] = []
    copied: dict[tuple[int, Region | None], int] = {}
    for place, part in zip(at, parts, strict=True):
        frame = frames[place]
        height, width = size_of(frame)
        whole = wanted[place] > height * width
        layout, image = _part(frame, None if whole else part)
        key = (place, None if whole else part)
        if key not in copied:
            copied[key] = len(images)
            images.append(image)
        layouts.append(replace(layout, region=part) if whole else layout)
        places.append(copied[key])
    return BatchInput(BatchGeometry(tuple(layouts), tuple(places)), images)


def _part(frame: Pixels, region: Region | None) -> tuple[PixelLayout, Image]:
    """Return a frame or one region of it, cut out: how it lies, and what to copy."""
    if isinstance(frame, RawFrame):
        return (frame.layout, frame.bytes()) if region is None else frame.part(region)
    if region is not None:
        x, y, width, height = region
        frame = frame[y : y + height, x : x + width]
    return _bgr(*frame.shape[:2]), frame


@functools.lru_cache(maxsize=1024)
def _bgr(height: int, width: int) -> PixelLayout:
    return PixelLayout(PixelFormat.BGR, height, width)


def _check_bgr(frame: NDArray[np.uint8]) -> None:
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not frame.size:
        raise ImageError(
            f"a frame of shape {frame.shape} and {frame.dtype}: it must be (H, W, 3) uint8 BGR"
        )


def bytes_of(image: Image, needed: int) -> Image:
    """Return the `needed` bytes of an image.

    Raises `ImageError` if it doesn't have them: a frame that is not what it says.
    """
    pieces = image if isinstance(image, tuple) else (image,)
    size = sum(piece.nbytes for piece in pieces)
    if size < needed or any(piece.dtype != np.uint8 for piece in pieces):
        kinds = ", ".join(sorted({str(piece.dtype) for piece in pieces}))
        raise ImageError(
            f"an image of {size} bytes ({kinds}): its description needs {needed} bytes of uint8"
        )
    if not isinstance(image, tuple) and image.ndim == 1 and image.flags.c_contiguous:
        return image[:needed]
    if size > needed:
        shapes = " and ".join(str(piece.shape) for piece in pieces)
        raise ImageError(
            f"an image of shape {shapes}: its description needs exactly {needed} bytes"
        )
    return image
