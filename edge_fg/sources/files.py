"""Files as sources: an image, a list, a directory or a glob; and frames that a program has."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_fg.errors import ImageError, MissingDependencyError, SourceError
from edge_fg.images import IMAGE_SUFFIXES, OddImages, read_image
from edge_fg.preprocess.raw_frame import as_pixels
from edge_fg.sources.base import BaseSource
from edge_fg.sources.capture_time import photo_time
from edge_fg.sources.flip import flipped, flipped_pixels
from edge_fg.sources.folders import files_below, files_matching, with_suffixes
from edge_fg.sources.frame import Frame
from edge_fg.sources.options import Flip, SourceOptions
from edge_fg.sources.uri import VIDEO_SUFFIXES, SourceDescription
from edge_fg.sources.video.source import VideoSource

_logger = logging.getLogger("edge_fg")


class FilesSource(BaseSource):
    """Images and videos in the order given, at least one; videos are read one after the other.

    Where `tolerant`, what can't be read is logged as a warning, kept in `skipped` and passed over,
    so that one bad file of a memory card doesn't cost the rest; else it raises.
    """

    def __init__(
        self, name: str, paths: Sequence[Path], options: SourceOptions, *, tolerant: bool
    ) -> None:
        videos = [path for path in paths if _is_video(path)]
        super().__init__(name, frame_count=None if videos else len(paths))
        self._options = options
        self._odd = OddImages()
        self._tolerant = tolerant
        if len(videos) == len(paths):
            self.fps = next(filter(None, map(self._stated_fps, videos)), None)
        self._frames = self._read_all(paths)

    def _read(self) -> Frame | None:
        frame = next(self._frames, None)
        return None if frame is None else replace(frame, number=self._delivered)

    def _release(self) -> None:
        self._frames.close()

    def _read_all(self, paths: Sequence[Path]) -> Generator[Frame, None, None]:
        for path in paths:
            try:
                yield from self._frames_of(path)
            except (ImageError, SourceError, MissingDependencyError) as error:
                if not self._tolerant:
                    raise
                self.skipped.append(error)
                self._status.add("corrupted")
                what = "video" if _is_video(path) else "image"
                _logger.warning("%s skipped: %s", what, error)
        self._odd.finish()

    def _frames_of(self, path: Path) -> Iterator[Frame]:
        if not _is_video(path):
            pixels = read_image(path, grey_range=self._options.grey_range, on_odd=self._odd)
            image = flipped(pixels, self._options.flip)
            yield Frame(image, number=0, source=os.fspath(path), time=photo_time(path))
            return
        with self._video(path) as video:
            try:
                yield from video
            finally:
                self._status.add("corrupted", video.counters["corrupted"])

    def _stated_fps(self, path: Path) -> float | None:
        try:
            with self._video(path) as video:
                return video.fps
        except SourceError:
            return None  # said when its turn comes

    def _video(self, path: Path) -> VideoSource:
        name = os.fspath(path)
        return VideoSource(SourceDescription("video", name, name), self._options)


class IterableSource(BaseSource):
    """Frames that a program already has.

    They are arrays of H x W x 3, uint8, BGR, which are checked one by one; or `RawFrame`; or
    `Frame`, whose times are kept.
    """

    def __init__(self, frames: Iterable[Any], *, name: str = "frames", flip: Flip = "none") -> None:
        try:
            count: int | None = len(frames)  # type: ignore[arg-type]
        except TypeError:
            count = None
        super().__init__(name, frame_count=count)
        self._frames: Iterator[Any] = iter(frames)
        self._flip: Flip = flip

    def _read(self) -> Frame | None:
        for thing in self._frames:
            try:
                pixels = as_pixels(thing.pixels if isinstance(thing, Frame) else thing)
            except ImageError as error:
                raise ImageError(f"{self.name}, number {self._delivered}: {error}") from error
            pixels = flipped_pixels(pixels, self._flip, self.name)
            if isinstance(thing, Frame):
                return replace(thing, pixels=pixels, number=self._delivered, source=self.name)
            return Frame(pixels, number=self._delivered, source=self.name)
        return None

    def _release(self) -> None:
        close = getattr(self._frames, "close", None)
        if callable(close):
            close()


def open_files(description: SourceDescription, options: SourceOptions) -> FilesSource:
    """Open a source of kind image, images, directory or glob.

    `SourceError` where there is neither an image nor a video.
    """
    name, kind, paths = description.name, description.kind, list(description.paths)
    if kind in ("directory", "glob"):
        found = files_below(Path(name)) if kind == "directory" else files_matching(name)
        paths = with_suffixes(found, IMAGE_SUFFIXES | VIDEO_SUFFIXES, name)
        if not paths and kind == "directory":
            raise SourceError(f"neither {name} nor a folder in it holds images or videos")
        if not paths and not found:
            raise SourceError(f"nothing matches {name}")
        if not paths:
            raise SourceError(f"no image or video is among the {len(found)} matches of {name}")
    tolerant = kind in ("directory", "glob") or len(paths) > 1
    return FilesSource(name, paths, options, tolerant=tolerant)


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES
