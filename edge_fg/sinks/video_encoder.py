"""Encoders of video files: H.264, which browsers play, where there is one; else what OpenCV has."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_fg.errors import OutputError
from edge_fg.opencv import load_cv2
from edge_fg.printing import reason

_logger = logging.getLogger("edge_fg")

# FFmpeg's containers for H.264. It takes ".m4v" for a bare stream if it isn't told.
_FORMATS: Final = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
# What OpenCV is asked for. MPEG-4 part 2 is in every one, and no browser plays it; H.264 (avc1)
# only in those built with an encoder, such as Debian's and JetPack's.
_CODECS: Final = dict.fromkeys(_FORMATS, ("avc1", "mp4v")) | {".avi": ("MJPG",)}
SUFFIXES: Final = tuple(_CODECS)

# Each frame is written as it comes, with no look-ahead that would hold dozens in memory.
_X264: Final = {"preset": "veryfast", "crf": "23", "tune": "zerolatency"}
# The conversion to YUV is that of BT.601; unmarked, large videos would be shown by BT.709.
_X264["x264-params"] = "colormatrix=smpte170m"


class Encoder(Protocol):
    """Writes frames of one size, H x W x 3, uint8, BGR, with even sides, to a file."""

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Append a frame; where it notices that it can't, it raises `OutputError`."""

    def release(self) -> None:
        """Finish the file; the same holds."""


def open_encoder(file: str, path: Path, fps: float, size_wh: tuple[int, int]) -> Encoder:
    """Open the best encoder for `file`, whose suffix is one of `SUFFIXES`.

    `path` is what errors and logs call it. `OutputError` if there is none for this size and rate.
    """
    suffix = path.suffix.lower()
    if suffix in _FORMATS and (encoder := _open_pyav(file, path, fps, size_wh)) is not None:
        return encoder
    cv2 = load_cv2("save videos")
    for codec in _CODECS[suffix]:
        writer = cv2.VideoWriter(file, cv2.VideoWriter_fourcc(*codec), fps, size_wh)
        if writer.isOpened():
            if codec == "mp4v":
                _logger.warning(
                    "%s is written as MPEG-4 part 2, which browsers don't play: this machine has "
                    "no H.264 encoder; `pip install 'edge-fg[rtsp]'` brings one",
                    path,
                )
            return writer  # type: ignore[no-any-return]
        writer.release()
    width, height = size_wh
    raise OutputError(
        f"can't save {path}: this OpenCV can't write {width} x {height} pixels at {fps:g} frames "
        "per second to it"
    )


def _open_pyav(file: str, path: Path, fps: float, size_wh: tuple[int, int]) -> Encoder | None:
    """Return an encoder of H.264 by PyAV, or None where it is not installed or has none."""
    try:
        import av
    except ImportError:
        return None
    try:
        return _AvEncoder(av, file, path, fps, size_wh)
    except (OSError, ValueError, av.error.FFmpegError) as error:
        _logger.debug("PyAV can't write %s as H.264: %s", path, reason(error))
        return None


class _AvEncoder:
    """H.264 by PyAV; the constructor raises what PyAV raises."""

    def __init__(
        self, av: Any, file: str, path: Path, fps: float, size_wh: tuple[int, int]
    ) -> None:
        self._av = av
        self._path = path
        self._frames = 0
        self._container = av.open(file, "w", format=_FORMATS[path.suffix.lower()])
        try:
            rate = Fraction(fps).limit_denominator(1 << 16)
            self._stream = self._container.add_stream("h264", rate=rate, options=dict(_X264))
            self._stream.width, self._stream.height = size_wh
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.open()
        except BaseException:
            self._container.close()
            raise

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Append a frame."""
        image = self._av.VideoFrame.from_ndarray(frame, format="bgr24")
        image.pts, self._frames = self._frames, self._frames + 1
        self._mux(image)

    def release(self) -> None:
        """Write what the encoder holds, and the index."""
        try:
            self._mux(None)
        finally:
            with self._errors():
                self._container.close()

    def _mux(self, image: Any) -> None:
        with self._errors():
            self._container.mux(self._stream.encode(image))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, self._av.error.FFmpegError) as error:
            raise OutputError(
                f"can't save {self._path}: {reason(error)}; is the disk full?"
            ) from error
