"""Video files through OpenCV."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_fg.errors import ImageError, SourceError, TruncatedSourceError
from edge_fg.images import as_frame
from edge_fg.opencv import is_utf8, load_cv2, positive, stated_size
from edge_fg.sources.base import BaseSource
from edge_fg.sources.flip import flipped, flipped_size
from edge_fg.sources.frame import Frame
from edge_fg.sources.options import SourceOptions
from edge_fg.sources.uri import SourceDescription

_logger = logging.getLogger("edge_fg")

# Headers of sound files miscount a little: a camera trap's AVI may announce 1,815 frames and
# hold 1,814. The greater of these two is forgiven.
_FORGIVEN_FRAMES = 2
_FORGIVEN_SHARE = 0.01


class VideoSource(BaseSource):
    """Frames of a video file, each exactly once; the file may lie behind ``http://``.

    Of the options, `flip` and (for a stream) `timeout` are used. `SourceError` if it can't be
    opened.
    """

    def __init__(self, description: SourceDescription, options: SourceOptions) -> None:
        self._options = options
        cv2 = self._cv2 = load_cv2(f"read {description.name}")
        self._capture = _open(cv2, description, self._options)
        count = positive(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        super().__init__(
            description.name,
            fps=positive(self._capture.get(cv2.CAP_PROP_FPS)),
            size_wh=flipped_size(stated_size(cv2, self._capture), self._options.flip),
            frame_count=int(count) if count else None,
        )
        self._position = 0.0

    def _read(self) -> Frame | None:
        try:
            good, image = self._capture.read()
            image = flipped(as_frame(image), self._options.flip) if good else None
        except (self._cv2.error, ImageError) as error:
            raise SourceError(
                f"{self.name}: frame {self._delivered} can't be used: {error}"
            ) from error
        if image is None:
            self._check_end()
            return None
        self._position = max(self._capture.get(self._cv2.CAP_PROP_POS_MSEC) / 1000, 0.0)
        return Frame(image, self._delivered, self.name, position=self._position)

    def _check_end(self) -> None:
        """Raise unless the source was to end here."""
        seen = self._delivered
        if self.frame_count is None:
            if seen == 0:
                raise SourceError(f"{self.name} holds no frame that can be decoded")
            return
        # Frames that a recorder dropped are counted by some headers and never come; the clock
        # of the last frame tells such a file from one that was cut.
        reached = max(seen, round(self._position * self.fps) + 1 if self.fps and seen else 0)
        forgiven = max(_FORGIVEN_FRAMES, _FORGIVEN_SHARE * self.frame_count)
        if seen == 0 or self.frame_count - reached > forgiven:
            raise TruncatedSourceError(
                f"{self.name} ended after frame {seen} of {self.frame_count}: "
                "the file is cut short or damaged; copy it again from where it was recorded"
            )

    def _release(self) -> None:
        self._capture.release()


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
    _turn_upright(cv2, capture, description.name)
    return capture


def _open(cv2: Any, description: SourceDescription, options: SourceOptions) -> Any:
    with errors_in_words(cv2, description):
        is_stream = description.kind == "stream"
        capture = (
            open_stream(cv2, description, options) if is_stream else _open_file(cv2, description)
        )
    if not capture.isOpened():
        capture.release()
        raise SourceError(
            f"can't open {description.name} as a video: it is damaged, cut short (an MP4 without "
            "its end can't be read) or in a format that this OpenCV doesn't know"
        )
    return capture


def _open_file(cv2: Any, description: SourceDescription) -> Any:
    # FFmpeg by name: otherwise OpenCV may take digits in a name for a numbered series.
    # FFmpeg reads more than files when a name looks like an address, so it gets a full path.
    path = Path(str(description.target)).absolute()
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise SourceError(f"can't read {path}: {error.strerror or error}") from error
    if empty:
        raise SourceError(f"the video {path} is empty (0 bytes)")
    if not is_utf8(os.fspath(path)):
        raise SourceError(f"OpenCV can't open {path}: its name is not UTF-8, rename it")
    has_ffmpeg = cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG)
    backend = cv2.CAP_FFMPEG if has_ffmpeg else int(cv2.CAP_ANY)
    capture = cv2.VideoCapture(os.fspath(path), backend)
    _turn_upright(cv2, capture, description.name)
    return capture


def _turn_upright(cv2: Any, capture: Any, name: str) -> None:
    """Have OpenCV apply the rotation that a phone wrote into the file."""
    if not capture.isOpened():
        return
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
    turned = capture.get(cv2.CAP_PROP_ORIENTATION_META)
    if turned > 0 and not capture.get(cv2.CAP_PROP_ORIENTATION_AUTO):
        _logger.warning("%s is turned by %g degrees and this OpenCV can't undo it", name, turned)
