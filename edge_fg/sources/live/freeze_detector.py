"""What the images of a camera show: whether they stand still, are black, or changed their size."""

from __future__ import annotations

import logging
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_fg.preprocess.pixel_layout import PixelFormat
from edge_fg.preprocess.raw_frame import Pixels, RawFrame, size_of
from edge_fg.sources.live.connection import CapturedImage
from edge_fg.sources.options import SourceOptions
from edge_fg.sources.state import SourceStatus

_logger = logging.getLogger("edge_fg")

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
        self._size: tuple[int, int] | None = None

    def inspect(self, pixels: Pixels, now: float) -> ImageFindings:
        """Compare the next frame with those before it; `now` is in seconds, monotonic."""
        size, rows = size_of(pixels), _sample(pixels)
        resized = self._size not in (None, size)
        self._size = size
        still = self._still_for(pixels, rows, now)
        # Every other byte of YUYV is luma.
        is_yuyv = isinstance(pixels, RawFrame) and pixels.layout.format is PixelFormat.YUYV
        luma = rows[:, ::2] if is_yuyv else rows
        bright = int(np.count_nonzero(luma > _BLACK_LEVEL))
        if bright > _BRIGHT_SHARE * rows.size:
            self._black_since = None
        elif self._black_since is None:
            self._black_since = now
        black = None if self._black_since is None else now - self._black_since
        return ImageFindings(still, black, resized)

    def _still_for(self, pixels: Pixels, rows: NDArray[np.uint8], now: float) -> float:
        before, self._rows = self._rows, rows
        if before is None or before.shape != rows.shape or not np.array_equal(before, rows):
            self._checksum = self._still_since = None
            return 0.0
        data = pixels.data if isinstance(pixels, RawFrame) else pixels
        checksum = zlib.crc32(np.ascontiguousarray(data).data)
        if self._still_since is None or checksum != self._checksum:
            self._checksum, self._still_since = checksum, now
        return now - self._still_since


class ImageMonitor:
    """Inspects each image of one source, across reconnections; counts and logs what it finds."""

    def __init__(self, name: str, options: SourceOptions, status: SourceStatus) -> None:
        self._name = name
        self._options = options
        self._status = status
        self._detector = FreezeDetector()
        self._is_black = False  # for so long that it was logged

    def frozen_for(self, image: CapturedImage) -> float | None:
        """Inspect the next image; seconds for which it has stood still if it counts as frozen.

        Then the source is ``stalled``, and the image must be withheld.
        """
        found = self._detector.inspect(image.pixels, image.captured)
        limit = self._options.frozen_after
        if limit is not None and found.still_s > limit:
            self._status.add("frozen")
            self._status.change("stalled", f"the same image for {found.still_s:.1f} s")
            return found.still_s
        if found.resized:
            self._status.add("size_changes")
            height, width = size_of(image.pixels)
            _logger.info("%s gives %d x %d pixels now", self._name, width, height)
        if self._options.black_after is not None:
            self._note_black(found, self._options.black_after)
        return None

    def _note_black(self, found: ImageFindings, limit: float) -> None:
        if found.black_s is None:
            if self._is_black:
                _logger.info("%s shows images again", self._name)
            self._is_black = False
            return
        self._status.add("black")
        if found.black_s > limit and not self._is_black:
            self._is_black = True
            _logger.warning(
                "%s has shown black for %.0f s: night, a cap on the lens, or a broken sensor",
                *(self._name, found.black_s),
            )


def _sample(pixels: Pixels) -> NDArray[np.uint8]:
    """Return a copy of some rows (of luma, where that lies apart)."""
    if isinstance(pixels, RawFrame):
        layout = pixels.layout
        shape, strides = (layout.height, layout.row_bytes), (layout.row_pitch, 1)
        table = np.lib.stride_tricks.as_strided(pixels.data, shape, strides, writeable=False)
    else:
        table = pixels
    step = max(1, table.shape[0] // _SAMPLED_ROWS)
    rows: NDArray[np.uint8] = table[step // 2 :: step].copy()
    return rows
