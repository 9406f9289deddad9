"""One door to every kind of source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_fg.capture.base import Source
from edge_fg.capture.files import IterableSource, open_pictures
from edge_fg.capture.opencv import CaptureOptions, VideoSource
from edge_fg.capture.uri import SourceDescription, parse_source
from edge_fg.errors import SourceError, UsageError

_PICTURES = ("image", "images", "directory", "glob")


def open_source(
    source: str | int | Path | Iterable[Any],
    *,
    size_wh: tuple[int, int] | None = None,
    fps: float | None = None,
    timeout: float = 10.0,
) -> Source:
    """Open what `source` names, as an iterator of frames and a context manager.

    Parameters
    ----------
    source
        What `parse_source` understands, or an iterable of frames (H x W x 3, uint8, BGR).
    size_wh
        Width and height in pixels to ask of a camera.
    fps
        Frames per second to ask of a camera.
    timeout
        Seconds to wait for a network stream to open, and then for each frame.

    Raises
    ------
    SourceError
        There is no such source, or it can't be opened.
    UsageError
        An option makes no sense, or not for this kind of source.
    MissingDependencyError
        OpenCV is needed and not installed.

    Examples
    --------
    >>> with open_source("meadow.mp4") as video:  # doctest: +SKIP
    ...     for frame in video:
    ...         print(frame.number, frame.position, frame.image.shape)
    """
    options = replace(CaptureOptions(), size_wh=size_wh, fps=fps, timeout=timeout)
    described = _describe(source)
    chosen = size_wh is not None or fps is not None
    if chosen and (described is None or described.kind in _PICTURES):
        raise UsageError("size_wh and fps can be chosen for cameras only")
    if described is None:
        return IterableSource(_frames(source))
    if described.kind in _PICTURES:
        return open_pictures(described)
    return VideoSource(described, options)


def _describe(source: str | int | Path | Iterable[Any]) -> SourceDescription | None:
    """Return what `source` names, or None when it is an iterable of frames."""
    if isinstance(source, (str, int, Path)):
        return parse_source(source)
    if isinstance(source, Sequence) and source and isinstance(source[0], (str, Path)):
        return parse_source(source)
    return None


def _frames(source: Any) -> Iterable[Any]:
    if isinstance(source, np.ndarray) and source.ndim != 4:
        raise SourceError(
            f"an array of shape {source.shape} is not a source: give a list of frames, "
            "or an array of N x H x W x 3"
        )
    if isinstance(source, (bytes, bytearray, memoryview)) or not isinstance(source, Iterable):
        raise SourceError(
            f"{type(source).__name__} is not a source: give a path, an address, "
            "the number of a camera, or an iterable of frames"
        )
    return source
