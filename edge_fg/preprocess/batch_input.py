"""Frames and regions sorted for the way to the GPU: what to copy, and what is where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_fg.boxes import Region, checked_region
from edge_fg.errors import ImageError, UsageError
from edge_fg.preprocess.pixel_layout import PixelFormat, PixelLayout
from edge_fg.preprocess.raw_frame import Pixels, RawFrame, size_of

Sample = tuple[int, int, Region | None] | PixelLayout
"""What a sample is in: of BGR frames (height, width) of the image and its region of it, or None
for all."""

Image = NDArray[np.uint8] | tuple[NDArray[np.uint8], ...]
"""Bytes to copy: an array of any shape and strides, or several behind one another."""

FrameT = TypeVar("FrameT")


def cut_out(
    frames: Sequence[Pixels], regions: Sequence[Region | None] | None
) -> tuple[tuple[Sample, ...], tuple[int, ...], list[Image]]:
    """Return the samples, for each its image, and the images to copy.

    Regions are cut out on the way, unless together they are larger than their frame: less is
    copied, and the geometry of a region that moves stays the same.

    Parameters
    ----------
    frames
        Each (H, W, 3) uint8 BGR, or raw.
    regions
        (x, y, width, height) of each or None; None for none.

    Raises
    ------
    ImageError
        A frame or region can't be used.
    UsageError
        There are more or fewer regions than frames.
    """
    for frame in frames:
        if not isinstance(frame, RawFrame):
            _check_bgr(frame)
    if regions is not None and len(regions) != len(frames):
        raise UsageError(f"{len(regions)} regions for {len(frames)} frames")
    unique, at = distinct(frames)
    if regions is None or not any(regions):
        whole = [part_of(frame, None) for frame in unique]
        return tuple(whole[place][0] for place in at), at, [image for _, image in whole]
    return _cut_regions(unique, at, regions)


def part_of(frame: Pixels, region: Region | None) -> tuple[Sample, Image]:
    """Return a frame or one region of it, cut out: what it is, and what to copy.

    Raises
    ------
    ImageError
        The region is not four whole numbers, is empty or reaches outside the frame, or a raw
        frame has not the bytes that it says.
    """
    if isinstance(frame, RawFrame):
        return (frame.layout, frame.bytes()) if region is None else frame.part(region)
    if region is None:
        return (frame.shape[0], frame.shape[1], None), frame
    x, y, width, height = checked_region(region, *size_of(frame))
    return (height, width, None), frame[y : y + height, x : x + width]


def source_of(sample: Sample) -> PixelLayout:
    """Return what the kernels are told of a sample."""
    if isinstance(sample, PixelLayout):
        return sample
    height, width, region = sample
    return PixelLayout(PixelFormat.BGR, height, width, region=region)


def size_in_bytes(image: Image) -> int:
    """Return how many bytes there are to copy."""
    if isinstance(image, tuple):
        return sum(piece.nbytes for piece in image)
    return image.nbytes


def _cut_regions(
    frames: list[Pixels], at: Sequence[int], regions: Sequence[Region | None]
) -> tuple[tuple[Sample, ...], tuple[int, ...], list[Image]]:
    parts: list[Region] = []
    wanted = [0] * len(frames)
    for place, region in zip(at, regions, strict=True):
        height, width = size_of(frames[place])
        part = (0, 0, width, height) if region is None else checked_region(region, height, width)
        parts.append(part)
        wanted[place] += part[2] * part[3]
    samples: list[Sample] = []
    images: list[Image] = []
    places: list[int] = []
    copied: dict[tuple[int, Region | None], int] = {}
    for place, part in zip(at, parts, strict=True):
        frame = frames[place]
        height, width = size_of(frame)
        whole = wanted[place] > height * width
        sample, image = part_of(frame, None if whole else part)
        key = (place, None if whole else part)
        if key not in copied:
            copied[key] = len(images)
            images.append(image)
        samples.append(_with_region(sample, part) if whole else sample)
        places.append(copied[key])
    return tuple(samples), tuple(places), images


def _with_region(sample: Sample, region: Region) -> Sample:
    if isinstance(sample, PixelLayout):
        return replace(sample, region=region)
    return (*sample[:2], region)


def _check_bgr(frame: NDArray[np.uint8]) -> None:
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not frame.size:
        raise ImageError(
            f"a frame of shape {frame.shape} and {frame.dtype}: it must be (H, W, 3) uint8 BGR"
        )


def bytes_of(image: Image, needed: int) -> Image:
    """Return the `needed` bytes of an image.

    Raises
    ------
    ImageError
        It doesn't have them: a frame that is not what it says.
    """
    pieces = image if isinstance(image, tuple) else (image,)
    size = size_in_bytes(image)
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


def distinct(frames: Sequence[FrameT]) -> tuple[list[FrameT], tuple[int, ...]]:
    """Return each object once, and where each is among them."""
    if len(frames) == 1:
        return [frames[0]], (0,)
    places: dict[int, int] = {}
    unique: list[FrameT] = []
    for frame in frames:
        if id(frame) not in places:
            places[id(frame)] = len(unique)
            unique.append(frame)
    return unique, tuple(places[id(frame)] for frame in frames)
