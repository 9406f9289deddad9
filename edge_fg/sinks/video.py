"""Annotated videos of the sources."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
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
        self._plans: list[tuple[Path, float, bool]] = []  # of each source: file, rate, live
        self._recordings: dict[int, _Recording] = {}
        self._savers = contextlib.ExitStack()
        self._seen = 0

    def open(self, sources: Sequence[Source]) -> None:
        """Check that the videos can be written."""
        check_video_path(self.path)
        if not self.path.absolute().parent.is_dir():
            raise OutputError(f"can't save {self.path}: its folder does not exist")
        self._plans = [
            (path, self._fps or _rate(source), source.live)
            for path, source in zip(video_paths(self.path, len(sources)), sources, strict=True)
        ]

    def __call__(self, result: Result[Any], /) -> None:
        """Add one frame."""
        if result.closing:
            return
        if self._seen % _FRAMES_A_CHECK == 0:
            self._space.check(self.path)
        self._seen += 1
        captured = result.frame.captured
        recording = self._recordings.get(result.source_index)
        if recording is None or recording.missing(captured) >= 0:
            image = self._annotate(result)
            if recording is None:
                recording = self._begin(result.source_index, image, captured)
            recording.add(image, captured)

    def _begin(self, source: int, image: NDArray[np.uint8], captured: float) -> _Recording:
        path, fps, live = self._plans[source]
        saver = VideoSaver(path, fps, (image.shape[1], image.shape[0])).__enter__()
        # Not `enter_context`: what goes wrong with one video must not discard another.
        self._savers.callback(saver.__exit__, None, None, None)
        recording = self._recordings[source] = _Recording(saver, fps, live, captured, image)
        return recording

    def close(self) -> None:
        """Finish the videos."""
        self._recordings.clear()
        self._savers.close()


@dataclass
class _Recording:
    """One video and its clock."""

    saver: VideoSaver
    fps: float
    live: bool
    started: float  # the capture time of slot 0
    last: NDArray[np.uint8]

    def missing(self, captured: float) -> int:
        """Return how many slots lie between the last frame and this one; -1: it has none."""
        return round((captured - self.started) * self.fps) - self.saver.frames if self.live else 0

    def add(self, image: NDArray[np.uint8], captured: float) -> None:
        """Write a frame at its time."""
        missing = self.missing(captured)
        still = min(missing, int(_LONGEST_STILL_SECONDS * self.fps))
        for _ in range(still):
            self.saver.write(self.last)
        self.started += (missing - still) / self.fps
        self.saver.write(image)
        self.last = image


def video_paths(path: Path, sources: int) -> list[Path]:
    """Return the file of each source's video: ``out-0.mp4``, ``out-1.mp4`` where several."""
    if sources == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{i}{path.suffix}") for i in range(sources)]


def _rate(source: Source) -> float:
    if not source.live:
        return source.fps or _IMAGES_PER_SECOND
    return min(source.fps, _FASTEST_LIVE_FPS) if source.fps else _LIVE_FPS
