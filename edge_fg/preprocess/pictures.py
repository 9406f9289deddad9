"""Frames and regions sorted for the way to the GPU: what to copy, and what is where."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_fg.errors import ImageError, UsageError
from edge_fg.preprocess.source import PixelFormat, Region, Source

Sample = tuple[int, int, Region | None]
"""(height, width) of the picture that a sample is in, and its region of it, or None for all."""


def cut_out(
    frames: Sequence[NDArray[np.uint8]], regions: Sequence[Region | None] | None
) -> tuple[tuple[Sample, ...], tuple[int, ...], list[NDArray[np.uint8]]]:
    """Return the samples, for each its picture, and the pictures to copy.

    Regions are cut out on the way, unless together they are larger than their frame: less is
    copied, and the geometry of a region that moves stays the same.

    Parameters
    ----------
    frames
        Each (H, W, 3) uint8 BGR.
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
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not frame.size:
            raise ImageError(
                f"a frame of shape {frame.shape} and {frame.dtype}: it must be (H, W, 3) uint8 BGR"
            )
    if regions is not None and len(regions) != len(frames):
        raise UsageError(f"{len(regions)} regions for {len(frames)} frames")
    unique, at = distinct(frames)
    if regions is None or not any(regions):
        return tuple((*unique[place].shape[:2], None) for place in at), at, unique
    return _cut_regions(unique, at, regions)


def _cut_regions(
    frames: list[NDArray[np.uint8]], at: Sequence[int], regions: Sequence[Region | None]
) -> tuple[tuple[Sample, ...], tuple[int, ...], list[NDArray[np.uint8]]]:
    parts = []
    for place, region in zip(at, regions, strict=True):
        height, width = frames[place].shape[:2]
        parts.append(Source(PixelFormat.BGR, height, width, region=region).part)
    wanted = [0] * len(frames)
    for place, part in zip(at, parts, strict=True):
        wanted[place] += part[2] * part[3]
    samples: list[Sample] = []
    pictures: list[NDArray[np.uint8]] = []
    places: list[int] = []
    copied: dict[tuple[int, Region | None], int] = {}
    for place, part in zip(at, parts, strict=True):
        frame = frames[place]
        whole = wanted[place] > frame.shape[0] * frame.shape[1]
        x, y, width, height = part
        key = (place, None if whole else part)
        if key not in copied:
            copied[key] = len(pictures)
            pictures.append(frame if whole else frame[y : y + height, x : x + width])
        samples.append((*frame.shape[:2], part) if whole else (height, width, None))
        places.append(copied[key])
    return tuple(samples), tuple(places), pictures


def bytes_of(picture: NDArray[np.uint8], needed: int) -> NDArray[np.uint8]:
    """Return the `needed` bytes of a picture.

    Raises
    ------
    ImageError
        It doesn't have them: a frame that is not what it says.
    """
    if picture.dtype != np.uint8 or picture.nbytes < needed:
        raise ImageError(
            f"a picture of {picture.nbytes} bytes ({picture.dtype}): its description needs "
            f"{needed} bytes of uint8"
        )
    if picture.ndim == 1 and picture.flags.c_contiguous:
        return picture[:needed]
    if picture.nbytes > needed:
        raise ImageError(
            f"a picture of shape {picture.shape}: its description needs exactly {needed} bytes"
        )
    return picture


def distinct(
    pictures: Sequence[NDArray[np.uint8]],
) -> tuple[list[NDArray[np.uint8]], tuple[int, ...]]:
    """Return each array once, and where each is among them."""
    if len(pictures) == 1:
        return [pictures[0]], (0,)
    places: dict[int, int] = {}
    unique: list[NDArray[np.uint8]] = []
    for picture in pictures:
        if id(picture) not in places:
            places[id(picture)] = len(unique)
            unique.append(picture)
    return unique, tuple(places[id(picture)] for picture in pictures)
