"""Video files and streams through OpenCV."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from edge_fg.errors import ImageError, SourceError
from edge_fg.images import as_frame
from edge_fg.opencv import hush_ffmpeg, load_cv2, positive, stated_size
from edge_fg.sources.live.connection import CorruptedData
from edge_fg.sources.options import SourceOptions
from edge_fg.sources.uri import SourceDescription
from edge_fg.sources.video.container import Container
from edge_fg.sources.video.reader import CANNOT_OPEN, PlacedImage

_logger = logging.getLogger("edge_fg")

_FEWEST_TRIES, _MOST_TRIES = 64, 4096


class OpenCVReader:
    """A video file, which may lie behind ``http://``, held by OpenCV; see `VideoReader`.

    OpenCV neither tells frames that FFmpeg patched up from good ones, nor when they were taken.
    """

    created: datetime | None = None
    matrix: bytes | None

    def __init__(
        self, description: SourceDescription, options: SourceOptions, container: Container
    ) -> None:
        cv2 = self._cv2 = load_cv2(f"read {description.name}")
        self._patience = options.timeout / 2
        is_stream = description.kind == "stream"
        with errors_in_words(cv2, description):
            if is_stream:
                self._capture = open_stream(cv2, description, options)
            else:
                self._capture = _open_file(cv2, description)
        if not self._capture.isOpened():
            self._capture.release()
            raise SourceError(f"can't open {description.name} as a video: {CANNOT_OPEN}")
        hush_ffmpeg()
        # OpenCV turns mirrored frames wrongly: where the matrix is known, the source turns them.
        self.matrix = container.matrix
        turned_here = container.matrix is None
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, int(turned_here))
        if turned_here:
            _warn_unless_upright(cv2, self._capture, description.name)
        count = positive(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.frame_count = int(count) if count else None
        self.fps = positive(self._capture.get(cv2.CAP_PROP_FPS))
        self.size_wh = stated_size(cv2, self._capture)
        self._given = 0
        self._grabbed = False

    def read(self) -> PlacedImage | CorruptedData | None:
        """Return the next image; see `VideoReader`."""
        try:
            if not self._grabbed and not self._capture.grab():
                return self._pass_over()
            self._grabbed = False
            self._given += 1
            good, image = self._capture.retrieve()
            if not good:
                return CorruptedData("a frame could not be decoded")
            seconds = self._capture.get(self._cv2.CAP_PROP_POS_MSEC) / 1000
            return as_frame(image), max(seconds, 0.0)
        except (self._cv2.error, ImageError) as error:
            return CorruptedData(str(error))

    def close(self) -> None:
        """Release the capture."""
        self._capture.release()

    def _pass_over(self) -> CorruptedData | None:
        """Go to the next frame that can be decoded: OpenCV fails alike for a bad one and the end.

        Each try goes on by a packet, so there must be as many as frames may be missing.
        """
        began = time.monotonic()
        missing = (self.frame_count or 0) - self._given
        for failed in range(1, min(max(missing, _FEWEST_TRIES), _MOST_TRIES)):
            if time.monotonic() - began > self._patience:
                break
            if self._capture.grab():
                self._grabbed = True
                return CorruptedData("frames could not be decoded", failed)
        return None


@contextmanager
def errors_in_words(cv2: Any, description: SourceDescription) -> Iterator[None]:
    """Raise as `SourceError` what OpenCV raises where it can't open a source."""
    try:
        yield
    except (cv2.error, UnicodeError) as error:
        # OpenCV's text may repeat an address with its password.
        if description.kind == "stream":
            raise SourceError(f"OpenCV can't open {description.name}") from None
        raise SourceError(f"OpenCV can't open {description.name}: {error}") from error


def open_stream(cv2: Any, description: SourceDescription, options: SourceOptions) -> Any:
    """Return OpenCV's capture of a network stream, with FFmpeg's time-outs set."""
    milliseconds = max(int(options.timeout * 1000), 1)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds]
    limits += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds]
    capture = cv2.VideoCapture(str(description.target), cv2.CAP_FFMPEG, limits)
    if capture.isOpened():
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        _warn_unless_upright(cv2, capture, description.name)
    return capture


def _open_file(cv2: Any, description: SourceDescription) -> Any:
    # FFmpeg by name: otherwise OpenCV may take digits in a name for a numbered series.
    # FFmpeg reads more than files when a name looks like an address, so it gets a full path.
    path = Path(str(description.target)).absolute()
    has_ffmpeg = cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG)
    return cv2.VideoCapture(os.fspath(path), cv2.CAP_FFMPEG if has_ffmpeg else int(cv2.CAP_ANY))


def _warn_unless_upright(cv2: Any, capture: Any, name: str) -> None:
    turned = capture.get(cv2.CAP_PROP_ORIENTATION_META)
    if turned > 0 and not capture.get(cv2.CAP_PROP_ORIENTATION_AUTO):
        _logger.warning("%s is turned by %g degrees and this OpenCV can't undo it", name, turned)
