"""Connections to cameras and network streams through OpenCV."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_fg.errors import ImageError, SourceError
from edge_fg.images import as_frame
from edge_fg.jpeg import EOI, JpegDecoder
from edge_fg.opencv import hush_ffmpeg, load_cv2, positive, stated_size
from edge_fg.preprocess.pixel_layout import PixelFormat
from edge_fg.preprocess.raw_frame import RawFrame
from edge_fg.sources.live.connection import (
    CapturedImage,
    Connection,
    CorruptedData,
    EncodedImage,
    wall_clock,
)
from edge_fg.sources.live.v4l2_csi import as_raw_frame, open_camera, why_not_opened
from edge_fg.sources.options import SourceOptions
from edge_fg.sources.uri import SourceDescription
from edge_fg.sources.video.opencv import errors_in_words, open_stream

# Older than this, a driver's time stamp is of another clock.
_OLDEST_STAMP_S = 5.0
_MAX_FAILED_PACKETS = 8


class OpenCVConnection(Connection):
    """A camera or stream held by OpenCV."""

    def __init__(self, description: SourceDescription, options: SourceOptions) -> None:
        self._description = description
        self._options = options
        self._cv2: Any = None
        self._capture: Any = None
        self._raw: PixelFormat | None = None
        self._decode: JpegDecoder | None = None  # of JPEGs that OpenCV hands on
        self._stamped = False
        self._grabbed = False

    def open(self) -> None:
        """Connect; see `Connection`."""
        description = self._description
        cv2 = self._cv2 = load_cv2(f"read {description.name}")
        with errors_in_words(cv2, description):
            if description.kind == "stream":
                self._capture = open_stream(cv2, description, self._options)
            else:
                opened = open_camera(cv2, description, self._options)
                self._capture, self._raw, self._stamped, sends_jpegs = opened
                self._decode = JpegDecoder(description.name) if sends_jpegs else None
        if not self._capture.isOpened():
            raise SourceError(why_not_opened(description, self._options))
        hush_ffmpeg()
        self.size_wh = stated_size(cv2, self._capture)
        self.fps = positive(self._capture.get(cv2.CAP_PROP_FPS))
        # A file behind http:// has an end and waits for its reader; a camera does neither.
        if description.is_http:
            count = positive(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
            self.frame_count = int(count) if count else None

    def read(self) -> EncodedImage | CorruptedData | None:
        """Return the next image; see `Connection`.

        Left undecoded: FFmpeg has decoded it by now, but not turned into BGR; of other cameras
        nothing was done to it.
        """
        cv2 = self._cv2
        try:
            failed = self._grab()
            if failed:
                return CorruptedData("a packet could not be decoded", failed)
            captured, wall = time.monotonic(), wall_clock()
            if self._stamped:
                age = captured - self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                if 0 <= age < _OLDEST_STAMP_S:
                    captured, wall = captured - age, wall - timedelta(seconds=age)
        except cv2.error as error:
            raise SourceError(f"OpenCV can't read it: {error}") from error
        return EncodedImage(partial(self._retrieve, captured, wall))

    def close(self) -> None:
        """Release the camera."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _grab(self) -> int:
        """Go to the next frame; 0, or how many packets failed if one must be left out first."""
        if self._grabbed or self._capture.grab():
            self._grabbed = False
            return 0
        # FFmpeg fails alike for a damaged packet and at the end; only the end stays.
        began = time.monotonic()
        if self._description.kind == "stream":
            for failed in range(1, _MAX_FAILED_PACKETS):
                if time.monotonic() - began > self._options.timeout / 2:
                    break
                if self._capture.grab():
                    self._grabbed = True
                    return failed
        raise SourceError(f"it was closed, unplugged, or silent for {self._options.timeout:g} s")

    def _retrieve(self, captured: float, wall: datetime) -> CapturedImage | CorruptedData:
        """Decode the frame that was gone to."""
        try:
            good, image = self._capture.retrieve()
            if not good:
                return CorruptedData("a frame could not be decoded")
            pixels = self._pixels(image)
        except ImageError as error:
            return CorruptedData(str(error))
        except self._cv2.error as error:
            raise SourceError(f"OpenCV can't read it: {error}") from error
        return CapturedImage(pixels, captured, wall)

    def _pixels(self, image: Any) -> NDArray[np.uint8] | RawFrame:
        if self._decode is not None and image.shape[-1] != 3:
            data = image.tobytes()
            end = data.rfind(EOI)  # the driver's buffer is longer
            return self._decode(data[: end + 2] if end >= 0 else data)
        return as_frame(image) if self._raw is None else as_raw_frame(image, self._raw)
