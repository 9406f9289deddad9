"""Frames of a video or a camera as a set of images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from edge_fg.errors import DatasetError, OutputError
from edge_fg.progress import ProgressCallback, no_progress
from edge_fg.sources import Source
from edge_fg_calibration.data.image_set import ImageSet, LabelledImage

_CAMERA_SECONDS = 120.0  # How long a camera is watched
_MOST_A_SECOND = 10.0
_USUAL_FPS = 30.0
_STRETCHES = 32
_FEWEST_STRETCHES = 8
_STRETCH_SECONDS = 4.0
_GAP_SECONDS = 1.0


@dataclass(frozen=True)
class _Kept:
    path: Path
    seconds: float


def frames_of(
    source: Source,
    folder: Path,
    most: int,
    *,
    camera_seconds: float = _CAMERA_SECONDS,
    progress: ProgressCallback = no_progress,
) -> ImageSet:
    """Save frames spread over the whole of a video, or over some time of a camera.

    The frames are cut into stretches of time, each a group of its own, with a gap between one
    and the next: frames near in time are always on the same side of a split.

    An open video is read to its end, a camera for `camera_seconds`. At most `most` frames go to
    the caller's `folder`, as PNG files without loss. The stage of `progress` is ``read frames``.

    Raises `DatasetError` where the source has no frames, `SourceError` where it can't be read on
    and `OutputError` where a frame can't be written.
    """
    kept = _spread(source, folder, most, camera_seconds, progress)
    if not kept:
        raise DatasetError(f"{source.name}: no frames")
    return ImageSet(tuple(_grouped(kept, source.name)), Path(source.name), Path(source.name).name)


def _spread(
    source: Source, folder: Path, most: int, camera_seconds: float, progress: ProgressCallback
) -> list[_Kept]:
    """Keep a frame every so often; where the length is unknown, thin out while reading on."""
    apart = 1.0 / _MOST_A_SECOND
    if source.live:
        apart = max(apart, camera_seconds / max(most - 1, 1))
    elif source.frame_count:
        apart = max(apart, source.frame_count / (source.fps or _USUAL_FPS) / most)
    kept: list[_Kept] = []
    stem = Path(source.name).stem or "frame"
    for number, (seconds, pixels) in enumerate(_timed(source)):
        progress("read frames", number + 1, max(source.frame_count or 0, number + 1))
        if source.live and seconds > camera_seconds:
            break
        # Half a millisecond of tolerance: clocks of containers are rounded.
        if kept and seconds - kept[-1].seconds < apart - 5e-4:
            continue
        path = folder / f"{stem}-{number:06}.png"
        _save(pixels, path)
        kept.append(_Kept(path, seconds))
        if len(kept) > most:
            for one in kept[1::2]:
                one.path.unlink()
            kept = kept[::2]
            apart *= 2
    return kept


def _timed(source: Source) -> Iterator[tuple[float, Image.Image]]:
    """Yield frames with their time in seconds from the first."""
    first = None
    for frame in source:
        if frame.time is not None:
            first = first or frame.time
            seconds = (frame.time - first).total_seconds()
        else:
            # Counted, not read from the container: positions of some containers jump or stay at 0.
            seconds = frame.number / (source.fps or _USUAL_FPS)
        yield seconds, Image.fromarray(frame.image[:, :, ::-1])


def _save(pixels: Image.Image, path: Path) -> None:
    try:
        pixels.save(path, compress_level=1)
    except OSError as error:
        raise OutputError(
            f"can't keep a frame in {path.parent}: {error.strerror or error} (TMPDIR chooses "
            f"another folder)"
        ) from error


def _grouped(kept: list[_Kept], name: str) -> Iterator[LabelledImage]:
    """Yield the frames by stretches of time, without those in the gaps."""
    length = kept[-1].seconds + 1e-3
    stretch = max(length / _STRETCHES, min(_STRETCH_SECONDS, length / _FEWEST_STRETCHES))
    gap = min(_GAP_SECONDS, stretch / 4)
    for one in kept:
        number = math.floor(one.seconds / stretch)
        if number == 0 or one.seconds - number * stretch >= gap:
            yield LabelledImage(one.path, None, None, f"{name} {number}")
