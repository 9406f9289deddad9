"""Images as sources: one, a list, a directory or a glob; and frames that a program has."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_fg.errors import ImageError, SourceError
from edge_fg.images import IMAGE_SUFFIXES, read_image
from edge_fg.preprocess.raw_frame import as_pixels
from edge_fg.sources.base import BaseSource
from edge_fg.sources.flip import flipped, flipped_pixels
from edge_fg.sources.frame import Frame
from edge_fg.sources.options import Flip
from edge_fg.sources.uri import VIDEO_SUFFIXES, SourceDescription

_logger = logging.getLogger("edge_fg")
_DIGITS = re.compile(r"(\d+)")


class ImageSource(BaseSource):
    """Images in the order given, at least one.

    Where `tolerant`, images that can't be read are logged as a warning, kept in `skipped` and
    passed over, so that one bad file of a memory card doesn't cost the rest; else they raise.
    """

    def __init__(self, name: str, paths: Sequence[Path], *, tolerant: bool, flip: Flip) -> None:
        super().__init__(name, frame_count=len(paths))
        self._flip: Flip = flip
        self._paths = iter(paths)
        self._tolerant = tolerant

    def _read(self) -> Frame | None:
        for path in self._paths:
            try:
                image = read_image(path)
            except ImageError as error:
                if not self._tolerant:
                    raise
                self.skipped.append(error)
                self._status.add("corrupted")
                _logger.warning("image skipped: %s", error)
                continue
            image = flipped(image, self._flip)
            return Frame(image, number=self._delivered, source=os.fspath(path))
        return None


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


def open_images(description: SourceDescription, flip: Flip) -> ImageSource:
    """Open a source of kind image, images, directory or glob; `SourceError` where no image is."""
    name, paths, tolerant = description.name, description.paths, True
    if description.kind == "directory":
        paths = _images_of_directory(Path(name))
    elif description.kind == "glob":
        paths = _images_of_glob(name)
    else:
        tolerant = len(paths) > 1
    return ImageSource(name, paths, tolerant=tolerant, flip=flip)


def natural_order(path: Path) -> tuple[list[str | int], str]:
    """Return a sorting key by which ``IMG_9`` comes before ``IMG_10``."""
    text = os.fspath(path)
    parts = _DIGITS.split(text.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], text


def _images_of_directory(folder: Path) -> tuple[Path, ...]:
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise SourceError(f"can't list {folder}: {error.strerror or error}") from error
    images = _only_images(entries)
    if images:
        return images
    if any(entry.suffix.lower() in VIDEO_SUFFIXES for entry in entries):
        raise SourceError(f"{folder} holds videos but no images: give a video by its name")
    if any(entry.is_dir() for entry in entries):
        raise SourceError(
            f"{folder} holds directories but no images: give one of them, "
            f"or the glob '{folder}/**/*.jpg' for all"
        )
    raise SourceError(f"{folder} holds no images")


def _images_of_glob(pattern: str) -> tuple[Path, ...]:
    # Path.glob can't take an absolute pattern.
    matches = [Path(match) for match in glob.iglob(pattern, recursive=True)]  # noqa: PTH207
    images = _only_images(matches)
    if images:
        return images
    if matches:
        raise SourceError(f"no image is among the {len(matches)} matches of {pattern}")
    raise SourceError(f"nothing matches {pattern}")


def _only_images(paths: Iterable[Path]) -> tuple[Path, ...]:
    # Names that begin with a dot are the leavings of file managers ("._IMG_1.JPG").
    found = {
        path
        for path in paths
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not path.name.startswith(".")
        and not path.is_dir()
    }
    return tuple(sorted(found, key=natural_order))
