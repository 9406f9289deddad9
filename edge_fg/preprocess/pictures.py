"""Frames and regions sorted for the way to the GPU: what to copy, and what is where."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_fg.errors import ImageError, UsageError
from edge_fg.preprocess.source import PixelFormat, Region, Source


def cut_out(
    frames: Sequence[NDArray[np.uint8]], regions: Sequence[Region | None] | None
) -> tuple[list[Source], list[NDArray[np.uint8]], list[int]]:
    """Return sources, the pictures to copy, and for each source its picture.

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
    """
    for frame in frames:
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not frame.size:
            raise ImageError(
                f"a frame of shape {frame.shape} and {frame.dtype}: it must be (H, W, 3) uint8 BGR"
            )
    asked: Sequence[Region | None] = [None] * len(frames) if regions is None else regions
    if len(asked) != len(frames):
        raise UsageError(f"{len(asked)} regions for {len(frames)} frames")
    parts = [
        Source(PixelFormat.BGR, frame.shape[0], frame.shape[1], region=region)
        for frame, region in zip(frames, asked, strict=True)
    ]
    unique, at = distinct(frames)
    wanted = [0] * len(unique)
    for part, place in zip(parts, at, strict=True):
        wanted[place] += part.part[2] * part.part[3]
    sources: list[Source] = []
    pictures: list[NDArray[np.uint8]] = []
    places: list[int] = []
    copied: dict[tuple[int, Region | None], int] = {}
    for part, place in zip(parts, at, strict=True):
        frame = unique[place]
        whole = wanted[place] > frame.shape[0] * frame.shape[1]
        x, y, width, height = part.part
        key = (place, None if whole else part.part)
        if key not in copied:
            copied[key] = len(pictures)
            pictures.append(frame if whole else frame[y : y + height, x : x + width])
        sources.append(part if whole else Source(PixelFormat.BGR, height, width))
        places.append(copied[key])
    return sources, pictures, places


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
) -> tuple[list[NDArray[np.uint8]], list[int]]:
    """Return each array once, and where each is among them."""
    places: dict[int, int] = {}
    unique: list[NDArray[np.uint8]] = []
    for picture in pictures:
        if id(picture) not in places:
            places[id(picture)] = len(unique)
            unique.append(picture)
    return unique, [places[id(picture)] for picture in pictures]
