"""Grey images of more than 8 bits: which of their values are black and white.

Infrared and thermal cameras store 10 to 14 bits in 16, or temperatures. What the file states
decides: the significant bits of a PNG (sBIT), the largest value of a PGM, the bits and
``SMinSampleValue`` and ``SMaxSampleValue`` of a TIFF. Where nothing is stated all bits count, and a
warning says so if an image uses a small part of them. Nothing is guessed from the values of one
image: others of the same camera would come out with another brightness.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_fg.errors import ImageError, UsageError

_BITS_PER_SAMPLE, _MAX_SAMPLE, _SMIN_SAMPLE, _SMAX_SAMPLE = 258, 281, 340, 341
_ADVICE = "save it with 8 or 16 unsigned bits, or give grey_range"


class StatedGrey(NamedTuple):
    """What a file says of its grey values, read before the pixels are."""

    low: int = 0
    high: int | None = None
    bits: int | None = None  # PNG: the values may be scaled to 16 bits or not


def check_grey_range(grey_range: tuple[int, int] | None) -> None:
    """Raise `UsageError` if it isn't None, or the two values that are black and white."""
    if grey_range is None:
        return
    low, high = grey_range
    if not (isinstance(low, int) and isinstance(high, int) and low < high):
        raise UsageError(f"grey_range must be black and white, black below white: not {grey_range}")


def stated_grey(image: Image.Image) -> StatedGrey:
    """Return what the file of an image that is not loaded yet says of its grey values."""
    if image.format == "PPM":
        tile = _ppm_tile(image)
        return StatedGrey(high=tile[3][-1] if tile else None)
    if image.format == "PNG":
        return StatedGrey(bits=_significant_bits(getattr(image, "fp", None)))
    tags = getattr(image, "tag_v2", {})
    if image.format != "TIFF" or not tags:
        return StatedGrey()
    low, high, largest, bits = (
        _number(tags.get(tag))
        for tag in (_SMIN_SAMPLE, _SMAX_SAMPLE, _MAX_SAMPLE, _BITS_PER_SAMPLE)
    )
    if high is None and largest is not None and largest > 255 and largest & (largest + 1) == 0:
        high = largest  # a statistic, unless it is all bits of a sensor
    if high is None and bits is not None and 8 < bits < 16:
        high = (1 << bits) - 1
    return StatedGrey(low or 0, high)


def ppm_samples(image: Image.Image) -> NDArray[Any] | None:
    """Return the samples of a PPM or PGM that Pillow would scale by its largest value.

    It scales them one by one, which takes seconds. Those of mode "I" come as they are, for
    `grey_to_8_bits`; others in 8 bits as Pillow gives them. None for any other image.
    """
    tile, file = _ppm_tile(image), getattr(image, "fp", None)
    if tile is None or file is None:
        return None
    largest = tile[3][-1]
    if tile[0] == "ppm_plain":  # text
        scaled = np.asarray(image)
        return np.rint(scaled * (largest / 65535)).astype(np.uint16) if image.mode == "I" else None
    kind = np.dtype(np.uint8 if largest < 256 else ">u2")
    shape = image.size[::-1] + ((3,) if image.mode == "RGB" else ())
    file.seek(tile[2])
    data = file.read(math.prod(shape) * kind.itemsize)
    if len(data) < math.prod(shape) * kind.itemsize:
        raise OSError("it is truncated")
    samples: NDArray[Any] = np.frombuffer(data, kind).reshape(shape)
    if image.mode == "I":
        return samples.astype(np.uint16)
    table = np.rint(np.arange(largest + 1) / largest * 255).astype(np.uint8)
    return np.take(table, samples, mode="clip")


def is_narrow(values: NDArray[Any], low: int, high: int) -> bool:
    """Whether values use a quarter of their range or less from black, or an eighth anywhere."""
    least, most = int(values.min()), int(values.max())
    steps = high - low + 1
    return (most - low + 1) * 4 <= steps or (most - least + 1) * 8 <= steps


def grey_to_8_bits(
    values: NDArray[Any],
    stated: StatedGrey,
    container: int,
    grey_range: tuple[int, int] | None,
) -> tuple[NDArray[np.uint8], str | None]:
    """Return the values as 0..255, and a warning if they use a small part of that range.

    `container` is the largest value where nothing is stated. With `grey_range`, values beyond
    black and white become black and white. `ImageError` if values exceed the container.
    """
    if grey_range is not None:
        return _scaled(values, *grey_range), None
    if values.dtype.kind == "f":
        raise ImageError(f"holds floating-point values, and nothing says which is white: {_ADVICE}")
    least, most = (int(value) for value in (values.min(), values.max()))
    low, high = 0, container
    if stated.high is not None and stated.low < stated.high:
        low, high = stated.low, stated.high
    elif stated.bits is not None and 8 < stated.bits < 16 and most < 1 << stated.bits:
        # As the standard has it they are scaled, and the lowest bits then repeat the highest.
        scaled = not (values & ((1 << (16 - stated.bits)) - 1)).any()
        high = container if scaled else (1 << stated.bits) - 1
    if least < low or most > high:
        low, high = 0, container
    if least < low or most > high:
        raise ImageError(f"has values from {least} to {most}, outside {low}..{high}: {_ADVICE}")
    warning = None
    if is_narrow(values, low, high):
        whole = least < most / 8
        black, white = (low, (1 << most.bit_length()) - 1) if whole else (least, most)
        example = f" (such as grey_range={black}-{white})" if black < white else ""
        warning = (
            f"uses the values {least} to {most} of {low}..{high}, so it is nearly black or flat: "
            f"say which are black and white{example}, or scale it"
        )
    return _scaled(values, low, high), warning


def _scaled(values: NDArray[Any], low: int, high: int) -> NDArray[np.uint8]:
    steps = high - low + 1
    if values.dtype.kind in "iu" and steps <= 1 << 16:
        table = (np.arange(steps) * 256 // steps).astype(np.uint8)
        return np.take(table, values.astype(np.int32) - low, mode="clip")
    if values.dtype.kind == "f":
        steps -= 1  # between two whole numbers there are others
    # What was not measured is black.
    above = np.clip(np.nan_to_num(values.astype(np.float64), nan=low), low, high) - low
    return np.minimum(above * 256 / steps, 255).astype(np.uint8)


def _ppm_tile(image: Image.Image) -> Any:
    tile = next(iter(getattr(image, "tile", ())), ("",)) if image.format == "PPM" else ("",)
    return tile if tile[0] in ("ppm", "ppm_plain") else None


def _number(value: Any) -> int | None:
    if isinstance(value, tuple):
        value = value[0] if value else None
    try:
        return None if value is None else int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _significant_bits(file: Any) -> int | None:
    """Return what the sBIT chunk of a PNG says (PNG, third edition, 11.3.2.7), if there is one."""
    if file is None:
        return None
    place = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8 and head[4:] != b"IDAT":
            length = int.from_bytes(head[:4], "big")
            if head[4:] == b"sBIT":
                return int.from_bytes(file.read(1), "big") or None
            file.seek(length + 4, 1)
        return None
    finally:
        file.seek(place)
