"""Annotated images in a folder."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from datetime import timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_fg.errors import UsageError
from edge_fg.files import output_errors, write_atomically
from edge_fg.result import Result
from edge_fg.sinks.base import RESERVE_BYTES, Annotate, BaseSink, SpaceGuard
from edge_fg.sinks.result_annotator import ResultAnnotator
from edge_fg.sources import Source

_LONGEST_STEM = 50  # of up to four bytes each; file systems take 255


class ImagesSink(BaseSink):
    """Saves each answered frame as an annotated JPEG, whole or not at all.

    A camera's frame is named by its time (``20261121T090102.345Z-000017.jpg``), a file's frame by
    the file (``clip-000017.jpg``); with several sources the source's number comes first.

    Parameters
    ----------
    folder
        Made if it is missing.
    quality
        Of the JPEG, 1..95.
    annotate
        Draws the answer; None takes a `ResultAnnotator`.
    reserve_bytes
        Of the disk, left free.
    lossless
        See `edge_fg.Sink`.

    Raises
    ------
    UsageError
        `quality` is outside its range.
    OutputError
        From `open`: the folder can't be made. From the calls: an image can't be written.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        quality: int = 90,
        annotate: Annotate | None = None,
        reserve_bytes: int = RESERVE_BYTES,
        lossless: bool | None = None,
    ) -> None:
        if not 1 <= quality <= 95:
            raise UsageError(f"quality must be between 1 and 95, not {quality}")
        self._folder = Path(folder)
        super().__init__(f"images to {self._folder.name}", lossless)
        self._quality = quality
        self._annotate = annotate or ResultAnnotator()
        self._space = SpaceGuard(self._folder, reserve_bytes)
        self._several = False

    def open(self, sources: Sequence[Source]) -> None:
        """Make the folder."""
        self._several = len(sources) > 1
        with output_errors(self._folder, "can't make the folder"):
            self._folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, result: Result[Any], /) -> None:
        """Save one frame."""
        if not result.closing:
            path = self._folder / self._file_name(result)
            self._space.check(path)
            write_atomically(path, encode_jpeg(self._annotate(result), self._quality))

    def _file_name(self, result: Result[Any]) -> str:
        frame = result.frame
        # Of files the time may be known, too, and their names say more.
        named = os.path.isfile(frame.source)  # noqa: PTH113  a source may have any name
        if frame.time is not None and not named:
            stem = frame.time.astimezone(timezone.utc).strftime("%Y%m%dT%H%M%S.%f")[:-3] + "Z"
        else:
            stem = _plain(Path(frame.source).stem) or "frame"
        source = f"{result.source_index}-" if self._several else ""
        return f"{source}{stem}-{frame.number:06}.jpg"


def encode_jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    """Return an image (H x W x 3, BGR) as a JPEG file of a quality 1..95."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image[:, :, ::-1])).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _plain(stem: str) -> str:
    """Return a name with letters, digits, dashes and dots alone: sources may have any name."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in stem).strip(".")[:_LONGEST_STEM]
