"""Whether the images of a camera stand still, are black, or changed their size."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_fg.preprocess.pixel_layout import PixelFormat
from edge_fg.preprocess.raw_frame import RawFrame

_SAMPLED_ROWS = 32
# Black is 0, or 16 in the limited range; a sensor's noise adds a little.
_BLACK_LEVEL = 20
# A camera that writes the time into its black image is black all the same.
_BRIGHT_SHARE = 0.01


@dataclass(frozen=True)
class ImageFindings:
    """What was found in one image."""

    still_s: float  # Seconds for which the image has been one and the same, bit by bit
    black_s: float | None  # Seconds for which images have been black; None for one that isn't
    resized: bool  # Whether its size differs from that of the frame before


class FreezeDetector:
    """Follows the images of one camera, across reconnections.

    A few rows of each frame are compared with those of the frame before, which costs some tens of
    microseconds; only where they are equal is a checksum of the whole frame taken. So an image is
    called still only when all of its bytes are the same. Copies are kept, not the frames: a
    program may draw on a frame that it takes.
    """

    def __init__(self) -> None:
        self._rows: NDArray[np.uint8] | None = None
        self._checksum: int | None = None
        self._still_since: float | None = None
        self._black_since: float | None = None
        self._size_wh: tuple[int, int] | None = None

    def inspect(self, pixels: NDArray[np.uint8] | RawFrame, now: float) -> ImageFindings:
        """Compare the next frame with those before it.

        Parameters
        ----------
        pixels
            H x W x 3, uint8, BGR, or a raw frame.
        now
            Seconds of the monotonic clock.
        """
        size_wh, rows = _sample(pixels)
        resized = self._size_wh is not None and size_wh != self._size_wh
        self._size_wh = size_wh
        still = self._still_for(pixels, rows, now)
        bright = int(np.count_nonzero(_luma(pixels, rows) > _BLACK_LEVEL))
        if bright > _BRIGHT_SHARE * rows.size:
            self._black_since = None
        elif self._black_since is None:
            self._black_since = now
        black = None if self._black_since is None else now - self._black_since
        return ImageFindings(still, black, resized)

    def _still_for(
        self, pixels: NDArray[np.uint8] | RawFrame, rows: NDArray[np.uint8], now: float
    ) -> float:
        before, self._rows = self._rows, rows
        if before is None or before.shape != rows.shape or not np.array_equal(before, rows):
            self._checksum = self._still_since = None
            return 0.0
        data = pixels.data if isinstance(pixels, RawFrame) else pixels
        checksum = zlib.crc32(np.ascontiguousarray(data).data)
        if self._still_since is None or checksum != self._checksum:
            self._checksum, self._still_since = checksum, now
        return now - self._still_since


def _sample(
    pixels: NDArray[np.uint8] | RawFrame,
) -> tuple[tuple[int, int], NDArray[np.uint8]]:
    """Return width and height, and a copy of some rows (of luma, where that lies apart)."""
    if isinstance(pixels, RawFrame):
        layout = pixels.layout
        pitch, used = layout.row_pitch, layout.row_bytes
        table = np.lib.stride_tricks.as_strided(
            pixels.data, (layout.height, used), (pitch, 1), writeable=False
        )
        size_wh = pixels.size_wh
    else:
        table = pixels
        size_wh = (pixels.shape[1], pixels.shape[0])
    step = max(1, table.shape[0] // _SAMPLED_ROWS)
    return size_wh, table[step // 2 :: step].copy()


def _luma(pixels: NDArray[np.uint8] | RawFrame, rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    packed = isinstance(pixels, RawFrame) and pixels.layout.format is PixelFormat.YUYV
    return rows[:, ::2] if packed else rows
