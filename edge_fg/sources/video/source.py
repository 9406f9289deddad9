"""Video files: each frame once, what is damaged left out, and the end only where it is."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from pathlib import Path

from edge_fg.errors import SourceError, TruncatedSourceError
from edge_fg.sources.base import BaseSource
from edge_fg.sources.flip import flipped, flipped_size
from edge_fg.sources.frame import Frame
from edge_fg.sources.live.connection import CorruptedData
from edge_fg.sources.live.rtsp import has_pyav
from edge_fg.sources.options import SourceOptions
from edge_fg.sources.uri import SourceDescription
from edge_fg.sources.video.container import Container, examine, flip_of
from edge_fg.sources.video.opencv import OpenCVReader
from edge_fg.sources.video.reader import VideoReader

_logger = logging.getLogger("edge_fg")

# Headers of sound files miscount a little: a camera trap's AVI may announce 1,815 frames and
# hold 1,814. The greater of these two is forgiven.
_FORGIVEN_FRAMES = 2
_FORGIVEN_SHARE = 0.01


class VideoSource(BaseSource):
    """Frames of a video file, each exactly once; the file may lie behind ``http://``.

    Frames that can't be decoded are left out and counted as ``corrupted``; the first is logged, and
    their number at the end. PyAV decodes files where it is installed (it tells frames that FFmpeg
    patched up, and when a recording began), else OpenCV.

    Of the options, `flip` and (for a stream) `timeout` are used. `SourceError` if it can't be
    opened, `TruncatedSourceError` where its end is missing.
    """

    def __init__(self, description: SourceDescription, options: SourceOptions) -> None:
        is_file = description.kind == "video"
        container = examine(Path(str(description.target))) if is_file else Container()
        self._reader = _reader(description, options, container)
        self._whole = container.whole
        stored = flip_of(self._reader.matrix)
        if stored is None:
            _logger.warning(
                "%s asks to be turned by an angle other than 90, 180 or 270 degrees: "
                "its frames are left as they are",
                description.name,
            )
        self._flips = (stored or "none", options.flip)
        size_wh = self._reader.size_wh
        for flip in self._flips:
            size_wh = flipped_size(size_wh, flip)
        super().__init__(
            description.name,
            fps=self._reader.fps,
            size_wh=size_wh,
            frame_count=self._reader.frame_count,
        )
        self._position = 0.0
        self._damaged = 0
        self._lost = 0  # since the last frame

    def _read(self) -> Frame | None:
        while (item := self._reader.read()) is not None:
            if isinstance(item, CorruptedData):
                self._leave_out(item)
                continue
            image, self._position = item
            for flip in self._flips:
                image = flipped(image, flip)
            lost, self._lost = self._lost, 0
            return Frame(
                image,
                self._delivered,
                self.name,
                time=self._time(),
                position=self._position,
                dropped=lost,
            )
        self._check_end()
        return None

    def _time(self) -> datetime | None:
        created = self._reader.created
        return created + timedelta(seconds=self._position) if created else None

    def _leave_out(self, data: CorruptedData) -> None:
        if not self._damaged:
            _logger.warning(
                "%s is damaged after frame %d (%s): reading on",
                self.name,
                self._delivered,
                data.reason,
            )
        self._damaged += data.count
        self._lost += data.count
        self._status.add("corrupted", data.count)

    def _check_end(self) -> None:
        """Raise unless the source was to end here; say what was left out."""
        seen, count = self._delivered, self.frame_count
        if self._damaged:
            _logger.warning("%s: frames left out as damaged: %d", self.name, self._damaged)
        if seen == 0 and (count is None or self._whole):
            raise SourceError(f"{self.name} holds no frame that can be decoded")
        if count is None:
            return
        found = seen + self._damaged
        forgiven = max(_FORGIVEN_FRAMES, _FORGIVEN_SHARE * count)
        # Frames that a recorder dropped are counted by some headers and never come; the clock
        # of the last frame tells such a file from one that was cut.
        reached = round(self._position * self.fps) + 1 if self.fps and seen else 0
        if not self._whole and (seen == 0 or count - max(found, reached) > forgiven):
            raise TruncatedSourceError(
                f"{self.name} ended after frame {seen} of {count}: "
                "the file is cut short or damaged; copy it again from where it was recorded"
            )
        if count - found > (0 if self._damaged else forgiven):
            _logger.warning(
                "%s gave %d of the %d frames that its header states: "
                "the others are lost, or were never recorded",
                self.name,
                seen,
                count,
            )

    def _release(self) -> None:
        self._reader.close()


def _reader(
    description: SourceDescription, options: SourceOptions, container: Container
) -> VideoReader:
    if description.kind == "video" and has_pyav():
        from edge_fg.sources.video.pyav import PyAVReader

        return PyAVReader(description, container)
    return OpenCVReader(description, options, container)
