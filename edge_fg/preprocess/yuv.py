"""Camera pixel formats turned into BGR: the definition that the CUDA kernels must equal.

All arithmetic is in whole numbers, so that a processor and a graphics card agree on every bit.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_fg.errors import ImageError

FRACTION_BITS: Final = 16
"""Fractional bits of a conversion's factors."""


class ColorStandard(str, Enum):
    """How luma and chroma became of red, green and blue.

    Cameras of standard definition and most webcams deliver BT.601 in the limited range
    (luma 16..235); HD video is BT.709, limited; JPEG and MJPEG are BT.601 in the full range.
    """

    BT601_LIMITED = "bt601-limited"
    BT601_FULL = "bt601-full"
    BT709_LIMITED = "bt709-limited"
    BT709_FULL = "bt709-full"

    @property
    def weights(self) -> tuple[float, float]:
        """(red, blue) shares of luma.

        Source: ITU-R Recommendations BT.601-7 (section 2.5.1) and BT.709-6 (item 3.2).
        """
        return (0.299, 0.114) if self.value.startswith("bt601") else (0.2126, 0.0722)

    @property
    def limited(self) -> bool:
        """Whether luma has 219 steps from 16 and chroma 224, rather than 255 each."""
        return self.value.endswith("limited")


class Factors(NamedTuple):
    """Conversion in fixed point with `FRACTION_BITS`.

    With ``y = luma - offset``, ``u = Cb - 128`` and ``v = Cr - 128``: blue is
    ``scale * y + blue_u * u``, green ``scale * y - green_u * u - green_v * v`` and red
    ``scale * y + red_v * v``, each rounded half up and limited to 0..255.
    """

    offset: int
    scale: int
    blue_u: int
    green_u: int
    green_v: int
    red_v: int


def exact_factors(standard: ColorStandard) -> tuple[float, float, float, float, float, float]:
    """Return the fields of `Factors` as real numbers, before they are rounded."""
    red, blue = standard.weights
    green = 1.0 - red - blue
    luma_steps, chroma_steps = (219.0, 224.0) if standard.limited else (255.0, 255.0)
    chroma = 255.0 / chroma_steps
    return (
        16.0 if standard.limited else 0.0,
        255.0 / luma_steps,
        2.0 * (1.0 - blue) * chroma,
        2.0 * (1.0 - blue) * blue / green * chroma,
        2.0 * (1.0 - red) * red / green * chroma,
        2.0 * (1.0 - red) * chroma,
    )


def factors(standard: ColorStandard) -> Factors:
    """Return what `standard` multiplies luma and chroma by."""
    offset, *real = exact_factors(standard)
    fixed = [round(value * (1 << FRACTION_BITS)) for value in real]
    return Factors(int(offset), *fixed)


def to_bgr(
    luma: NDArray[np.uint8], cb: NDArray[np.uint8], cr: NDArray[np.uint8], standard: ColorStandard
) -> NDArray[np.uint8]:
    """Convert planes of one size (H, W) to (H, W, 3) uint8 BGR."""
    given = factors(standard)
    y = (luma.astype(np.int32) - given.offset) * given.scale + (1 << (FRACTION_BITS - 1))
    u = cb.astype(np.int32) - 128
    v = cr.astype(np.int32) - 128
    channels = (
        y + given.blue_u * u,
        y - given.green_u * u - given.green_v * v,
        y + given.red_v * v,
    )
    levels = np.stack(channels, axis=-1) >> FRACTION_BITS
    bgr: NDArray[np.uint8] = np.clip(levels, 0, 255).astype(np.uint8)
    return bgr


def nv12_to_bgr(
    luma: NDArray[np.uint8], chroma: NDArray[np.uint8], standard: ColorStandard
) -> NDArray[np.uint8]:
    """Convert NV12: `luma` (H, W) and `chroma` (ceil(H / 2), ceil(W / 2), 2) of Cb and Cr.

    A pixel takes the chroma sample of its own 2 x 2 block; nothing is interpolated. Raises
    `ImageError` if the planes don't fit each other.
    """
    _check_half(luma, chroma[..., 0], "NV12")
    return to_bgr(luma, _double(chroma[..., 0], luma), _double(chroma[..., 1], luma), standard)


def i420_to_bgr(
    luma: NDArray[np.uint8],
    cb: NDArray[np.uint8],
    cr: NDArray[np.uint8],
    standard: ColorStandard,
) -> NDArray[np.uint8]:
    """Convert I420: `luma` (H, W), `cb` and `cr` (ceil(H / 2), ceil(W / 2)).

    A pixel takes the chroma sample of its own 2 x 2 block; nothing is interpolated. Raises
    `ImageError` if the planes don't fit each other.
    """
    _check_half(luma, cb, "I420")
    _check_half(luma, cr, "I420")
    return to_bgr(luma, _double(cb, luma), _double(cr, luma), standard)


def yuyv_to_bgr(
    packed: NDArray[np.uint8], width: int, standard: ColorStandard
) -> NDArray[np.uint8]:
    """Convert YUYV (also called YUY2): `packed` (H, ceil(W / 2), 4) of Y, Cb, Y, Cr.

    Raises `ImageError` if the rows don't hold `width` pixels.
    """
    height, pairs = packed.shape[:2]
    if packed.shape[2:] != (4,) or pairs != (width + 1) // 2:
        raise ImageError(f"YUYV rows of {pairs} pairs don't hold {width} pixels")
    luma = packed[..., 0::2].reshape(height, pairs * 2)
    cb = np.repeat(packed[..., 1], 2, axis=1)
    cr = np.repeat(packed[..., 3], 2, axis=1)
    return to_bgr(luma[:, :width], cb[:, :width], cr[:, :width], standard)


def _double(plane: NDArray[np.uint8], luma: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = luma.shape
    return plane.repeat(2, axis=0)[:height].repeat(2, axis=1)[:, :width]


def _check_half(luma: NDArray[np.uint8], chroma: NDArray[np.uint8], name: str) -> None:
    wanted = tuple((side + 1) // 2 for side in luma.shape)
    if chroma.shape != wanted:
        raise ImageError(
            f"{name} chroma of {chroma.shape[1]} x {chroma.shape[0]} doesn't fit luma of "
            f"{luma.shape[1]} x {luma.shape[0]}"
        )
