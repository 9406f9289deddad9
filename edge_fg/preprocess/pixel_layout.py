"""How the bytes of a frame lie in memory, for kernels that read them in place."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_fg.boxes import Region, checked_region
from edge_fg.errors import ImageError
from edge_fg.preprocess.yuv import ColorStandard, i420_to_bgr, nv12_to_bgr, yuyv_to_bgr

MAX_SIDE: Final = 1 << 20
"""Largest width or height in pixels, so that offsets within a row fit 32 bits."""
MAX_PITCH: Final = (1 << 31) - 1


class PixelFormat(str, Enum):
    """Order of a frame's bytes.

    ``bgr``, ``rgb``: three bytes a pixel. ``gray``: one, taken for all three channels. ``nv12``:
    a plane of luma, then one of Cb, Cr pairs at half the width and height. ``i420``: luma, then
    a plane of Cb and one of Cr, both at half the width and height. ``yuyv``: Y, Cb, Y, Cr for two
    pixels beside each other (also called YUY2).
    """

    BGR = "bgr"
    RGB = "rgb"
    GRAY = "gray"
    NV12 = "nv12"
    YUYV = "yuyv"
    I420 = "i420"


_YUV: Final = (PixelFormat.NV12, PixelFormat.YUYV, PixelFormat.I420)


@dataclass(frozen=True)
class PixelLayout:
    """Where one image lies: a frame, or a region of it.

    Parameters
    ----------
    format
        Order of the bytes.
    height, width
        Of the whole frame, in pixels. Odd sides are allowed: chroma is rounded up.
    pitch
        Bytes from one row (of luma) to the next; None: no gap between rows.
    standard
        What luma and chroma mean; needed for ``nv12``, ``yuyv`` and ``i420``, and only there.
    region
        (x, y, width, height) in pixels of the whole frame, cut out before resizing; None takes
        the whole frame. It may start at odd pixels: each pixel keeps the chroma sample that it
        has in the whole frame.
    chroma_pitch
        Bytes from one row of chroma to the next; None: `pitch` for ``nv12``, half of it, rounded
        up, for ``i420``.
    chroma_offsets
        Bytes from the frame's first byte to each chroma plane, one for ``nv12`` and two (Cb, Cr)
        for ``i420``; None: right behind one another. Swapped, they describe YV12.

    Raises
    ------
    ImageError
        The numbers contradict each other.
    """

    format: PixelFormat
    height: int
    width: int
    pitch: int | None = None
    standard: ColorStandard | None = None
    region: Region | None = None
    chroma_pitch: int | None = None
    chroma_offsets: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not (1 <= self.height <= MAX_SIDE and 1 <= self.width <= MAX_SIDE):
            raise ImageError(
                f"a frame of {self.width} x {self.height} pixels: sides must be 1 to {MAX_SIDE}"
            )
        self._check_pitches()
        self._check_chroma()
        if self.region is not None:
            region = checked_region(self.region, self.height, self.width)
            object.__setattr__(self, "region", region)

    @cached_property
    def row_pitch(self) -> int:
        """Bytes from one row (of luma) to the next."""
        return self.row_bytes if self.pitch is None else self.pitch

    @cached_property
    def row_bytes(self) -> int:
        """Least `pitch` that holds a row."""
        pairs = (self.width + 1) // 2
        if self.format in (PixelFormat.BGR, PixelFormat.RGB):
            return 3 * self.width
        if self.format is PixelFormat.YUYV:
            return 4 * pairs
        if self.format is PixelFormat.NV12 and self.chroma_pitch is None:
            return 2 * pairs
        return self.width

    @cached_property
    def chroma_row_pitch(self) -> int:
        """Bytes from one row of chroma to the next; 0 without planes of chroma."""
        if not self._chroma_planes:
            return 0
        if self.chroma_pitch is not None:
            return self.chroma_pitch
        return self.row_pitch if self.format is PixelFormat.NV12 else (self.row_pitch + 1) // 2

    @cached_property
    def chroma_planes(self) -> tuple[int, ...]:
        """Bytes from the frame's first byte to each plane of chroma."""
        if self.chroma_offsets is not None:
            return self.chroma_offsets
        first = self.row_pitch * self.height
        step = self.chroma_row_pitch * ((self.height + 1) // 2)
        return tuple(first + plane * step for plane in range(self._chroma_planes))

    @cached_property
    def nbytes(self) -> int:
        """Bytes from the frame's first to its last; a buffer must hold as many."""
        rows = (self.height + 1) // 2
        ends = [
            offset + (rows - 1) * self.chroma_row_pitch + self._chroma_row_bytes
            for offset in self.chroma_planes
        ]
        return max([(self.height - 1) * self.row_pitch + self.row_bytes, *ends])

    @property
    def part(self) -> Region:
        """The region, or the whole frame as one."""
        return (0, 0, self.width, self.height) if self.region is None else self.region

    def to_bgr(self, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the whole frame as BGR: what the kernels read from the same bytes.

        Parameters
        ----------
        data
            uint8, one axis, C-contiguous: the frame's bytes, at least `nbytes`.

        Returns
        -------
        ndarray
            (height, width, 3) uint8; cut `region` from it to compare.

        Raises
        ------
        ImageError
            `data` is shorter than the frame, or not a row of bytes.
        """
        data = frame_bytes(self, data)
        rows = plane_of(data, 0, self.height, self.row_pitch, self.row_bytes)
        if self.format in (PixelFormat.BGR, PixelFormat.RGB):
            pixels: NDArray[np.uint8] = rows.copy().reshape(self.height, self.width, 3)
            return pixels if self.format is PixelFormat.BGR else pixels[..., ::-1]
        if self.standard is None:
            return np.repeat(rows[..., None], 3, axis=2)
        pairs = (self.width + 1) // 2
        if self.format is PixelFormat.YUYV:
            packed = rows.reshape(self.height, pairs, 4)
            return yuyv_to_bgr(packed, self.width, self.standard)
        luma = rows[:, : self.width]
        half, pitch = (self.height + 1) // 2, self.chroma_row_pitch
        planes = [
            plane_of(data, offset, half, pitch, self._chroma_row_bytes)
            for offset in self.chroma_planes
        ]
        if self.format is PixelFormat.NV12:
            return nv12_to_bgr(luma, planes[0].reshape(half, pairs, 2), self.standard)
        return i420_to_bgr(luma, planes[0], planes[1], self.standard)

    @property
    def _chroma_planes(self) -> int:
        return {PixelFormat.NV12: 1, PixelFormat.I420: 2}.get(self.format, 0)

    @property
    def _chroma_row_bytes(self) -> int:
        pairs = (self.width + 1) // 2
        return 2 * pairs if self.format is PixelFormat.NV12 else pairs

    def _check_pitches(self) -> None:
        wanted = {"pitch": (self.pitch, self.row_bytes)}
        wanted["chroma_pitch"] = (self.chroma_pitch, self._chroma_row_bytes)
        for name, (pitch, least) in wanted.items():
            if pitch is not None and not least <= pitch <= MAX_PITCH:
                raise ImageError(
                    f"{name} {pitch} doesn't fit rows of {self.width} {self.format.value} "
                    f"pixels: it must be {least} to {MAX_PITCH} bytes"
                )

    def _check_chroma(self) -> None:
        if (self.standard is not None) != (self.format in _YUV):
            need = "needs a colour standard" if self.standard is None else "has no colour standard"
            raise ImageError(f"a {self.format.value} frame {need} (such as bt601-limited)")
        offsets = self.chroma_offsets
        if self.chroma_pitch is not None and not self._chroma_planes:
            raise ImageError(f"a {self.format.value} frame has no chroma_pitch")
        if offsets is not None and (len(offsets) != self._chroma_planes or min(offsets) < 0):
            raise ImageError(
                f"chroma_offsets {offsets} of a {self.format.value} frame must be "
                f"{self._chroma_planes} numbers >= 0"
            )


def frame_bytes(layout: PixelLayout, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return as many bytes of `data` as the frame has, without copying.

    Raises `ImageError` if they are not there, or `data` is not a row of bytes.
    """
    needed = layout.nbytes
    if data.dtype != np.uint8 or data.ndim != 1 or not data.flags.c_contiguous:
        raise ImageError("a frame's bytes must be one row of uint8 without gaps")
    if data.size < needed:
        raise ImageError(f"{data.size} bytes don't hold a frame of {needed}")
    return data[:needed]


def plane_of(
    data: NDArray[np.uint8], start: int, rows: int, pitch: int, used: int
) -> NDArray[np.uint8]:
    """Return (rows, used) of a plane whose rows are `pitch` bytes apart, without copying."""
    # NumPy refuses what would reach beyond the data.
    plane: NDArray[np.uint8] = np.ndarray((rows, used), np.uint8, data, start, (pitch, 1))
    return plane
