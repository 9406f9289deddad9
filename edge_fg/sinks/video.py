"""Annotated videos of the sources."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_fg.errors import OutputError
from edge_fg.result import Result
from edge_fg.sinks.base import RESERVE_BYTES, Annotate, BaseSink, SpaceGuard
from edge_fg.sinks.result_annotator import ResultAnnotator
from edge_fg.sinks.video_file import VideoSaver, check_video_path
from edge_fg.sources import Source

_IMAGES_PER_SECOND = 1.0
_LIVE_FPS, _FASTEST_LIVE_FPS = 15.0, 30.0
# A longer gap of a camera is a cut in the video, not a still image.
_LONGEST_STILL_SECONDS = 2.0
_FRAMES_A_CHECK = 16


class VideoSink(BaseSink):
    """Saves annotated frames as a video of the first frame's size; see `VideoSaver`.

    Every frame of a file is saved. A camera's video keeps real time: frames are repeated or left
    out where needed. While the disk is nearly full nothing is added; the video goes on later. It
    gets its name when the sink is closed.

    Parameters
    ----------
    path
        The file. With several sources each gets one: ``out-0.mp4``, ``out-1.mp4``.
    fps
        Frames per second; None takes the source's, or 1 for images.
    annotate
        Draws the answer; None takes a `ResultAnnotator`.
    reserve_bytes
        Of the disk, left free.
    lossless
        See `edge_fg.Sink`.

    Raises
    ------
    OutputError
        From `open`: the file can't be written. From the calls: the disk is nearly full. From
        `close`: not all of it could be written.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        fps: float | None = None,
        annotate: Annotate | None = None,
        reserve_bytes: int = RESERVE_BYTES,
        lossless: bool | None = None,
    ) -> None:
        self.path = Path(path)
        super().__init__(f"video to {self.path.name}", lossless)
        self._fps = fps
        self._annotate = annotate or ResultAnnotator()
        self._space = SpaceGuard(self.path.absolute().parent, reserve_bytes)
        self._recordings: list[_Recording] = []
        self._seen = 0

    def open(self, sources: Sequence[Source]) -> None:
        """Check that the videos can be written."""
        check_video_path(self.path)
        if not self.path.absolute().parent.is_dir():
            raise OutputError(f"can't save {self.path}: its folder does not exist")
        paths = [self.path]
        if len(sources) > 1:
            named = self.path.with_name
            paths = [named(f"{self.path.stem}-{i}{self.path.suffix}") for i in range(len(sources))]
        self._recordings = [
            _Recording(path, self._fps or _rate(source), source.live)
            for path, source in zip(paths, sources, strict=True)
        ]

    def __call__(self, result: Result[Any], /) -> None:
        """Add one frame."""
        if result.closing:
            return
        if self._seen % _FRAMES_A_CHECK == 0:
            self._space.check(self.path)
        self._seen += 1
        recording = self._recordings[result.source_index]
        if recording.wants(result.frame.captured):
            recording.add(self._annotate(result), result.frame.captured)

    def close(self) -> None:
        """Finish the videos."""
        recordings, self._recordings = self._recordings, []
        with contextlib.ExitStack() as all_of_them:
            for recording in recordings:
                all_of_them.callback(recording.close)


class _Recording:
    """One video and its clock."""

    def __init__(self, path: Path, fps: float, live: bool) -> None:
        self._path = path
        self._fps = fps
        self._live = live
        self._saver: VideoSaver | None = None
        self._open = contextlib.ExitStack()
        self._started = 0.0  # the capture time of slot 0
        self._last: NDArray[np.uint8] | None = None

    def wants(self, captured: float) -> bool:
        """Return whether it is time for another frame."""
        return self._saver is None or not self._live or self._missing(captured) >= 0

    def add(self, image: NDArray[np.uint8], captured: float) -> None:
        """Write a frame at its time."""
        if self._saver is None:
            height, width = image.shape[:2]
            self._saver = VideoSaver(self._path, self._fps, (width, height))
            self._open.enter_context(self._saver)
            self._started = captured
        elif self._live and self._last is not None:
            missing = self._missing(captured)
            still = min(missing, int(_LONGEST_STILL_SECONDS * self._fps))
            for _ in range(still):
                self._saver.write(self._last)
            self._started += (missing - still) / self._fps
        self._saver.write(image)
        self._last = image if self._live else None

    def close(self) -> None:
        """Give the file its name."""
        self._open.close()

    def _missing(self, captured: float) -> int:
        """Return how many slots lie between the last frame and this one; -1: it has none."""
        assert self._saver is not None
        return round((captured - self._started) * self._fps) - self._saver.frames


def _rate(source: Source) -> float:
    if not source.live:
        return source.fps or _IMAGES_PER_SECOND
    return min(source.fps, _FASTEST_LIVE_FPS) if source.fps else _LIVE_FPS
