"""Opening every kind of source in one way."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from edge_fg.errors import SourceError, UsageError
from edge_fg.sources.base import Source
from edge_fg.sources.credentials import with_password
from edge_fg.sources.files import IterableSource, open_files
from edge_fg.sources.live.rtsp import has_pyav
from edge_fg.sources.live.source import LiveSource
from edge_fg.sources.live.v4l2_csi import check_possible
from edge_fg.sources.options import SourceKeywords, SourceOptions
from edge_fg.sources.schemes import open_scheme
from edge_fg.sources.stdin import PipeSource
from edge_fg.sources.uri import SourceDescription, parse_source
from edge_fg.sources.video.source import VideoSource

if TYPE_CHECKING:
    from typing_extensions import Unpack

_FILES = ("image", "images", "directory", "glob")


def open_source(
    source: str | int | Path | Iterable[Any],
    options: SourceOptions | None = None,
    **overrides: Unpack[SourceKeywords],
) -> Source:
    """Open what `source` names, as an iterator of frames and a context manager.

    A live source (camera, stream) is connected again whenever it is lost, for a program that runs
    for months wants frames and not errors; `reconnect=0` raises instead. Only the first connection
    raises at once, so that nobody waits for a wrong address; `wait=True` waits for it, too.

    Parameters
    ----------
    source
        What `parse_source` understands, or an iterable of frames (H x W x 3, uint8, BGR, or
        `RawFrame`). Options behind a name override those given here.
    options
        What to ask of the source; None for the defaults.
    overrides
        Single options by keyword, such as ``timeout=5``; each is explained at `SourceOptions`.

    Raises
    ------
    SourceError
        There is no such source, or it can't be opened.
    UsageError
        An option is not known or makes no sense, or not for this kind of source.
    MissingDependencyError
        OpenCV is needed and not installed.

    Examples
    --------
    >>> for frame in open_source("meadow.mp4"):  # doctest: +SKIP
    ...     print(frame.number, frame.position, frame.image.shape)
    """
    given = (options or SourceOptions()).merged(overrides)
    if isinstance(source, (str, int, Path)) or _holds_names(source):
        described = parse_source(source)
        return _open(described, given.merged(described.options))
    _check_fit("frames", "frames", given)
    return IterableSource(_frames(source), flip=given.flip)


def _open(described: SourceDescription, options: SourceOptions) -> Source:
    kind = described.kind
    _check_fit(kind, described.name, options)
    _check_name(described)
    if kind in _FILES:
        return open_files(described, options)
    if kind == "pipe":
        return PipeSource(described.name, options=options)
    if kind == "scheme":
        return open_scheme(str(described.target), options)
    if kind == "video":
        return VideoSource(described, options)
    if kind == "stream":
        described = with_password(described, options)
    # Streams need no OpenCV where PyAV or we ourselves read them.
    if kind != "stream" or not (described.is_http or has_pyav()):
        check_possible(described, options)
    # Here, for HTTP and TLS take long to import and most programs never need them.
    from edge_fg.sources.live.openers import opener_of

    # A CSI camera's images are turned in its own memory.
    turning = replace(options, flip="none") if kind == "csi" else options
    live = LiveSource(described.name, opener_of(described, options), turning)
    if live.is_file:
        live.close()
        return VideoSource(described, options)
    return live


def _check_name(described: SourceDescription) -> None:
    """Refuse what no file and no address can be called."""
    try:
        odd = b"\0" in os.fsencode(str(described.target))  # FFmpeg would open what is before it
        what = "a null character"
    except UnicodeEncodeError:
        odd, what = True, "half of a surrogate pair"
    if odd:
        raise SourceError(f"{described.name!r} names no source: it contains {what}")


def _check_fit(kind: str, name: str, options: SourceOptions) -> None:
    """Refuse what can be chosen for cameras or for streams only."""
    is_chosen = (options.size_wh, options.fps, options.codec) != (None, None, None)
    if is_chosen and kind not in ("camera", "csi", "scheme"):
        advice = ": set them in the camera" if kind == "stream" else ""
        raise UsageError(f"size, fps and codec can't be chosen for {name}{advice}")
    if options.grey_range is not None and kind not in _FILES:
        raise UsageError(f"grey_range can't be chosen for {name}: it is for image files")
    has_password = (options.password_file, options.password_env) != (None, None)
    if has_password and kind not in ("stream", "scheme"):
        raise UsageError(f"{name} takes no password: password_file and password_env are of streams")


def _holds_names(source: Iterable[Any]) -> TypeGuard[Sequence[str | Path]]:
    return isinstance(source, Sequence) and len(source) > 0 and isinstance(source[0], (str, Path))


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
