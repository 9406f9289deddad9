"""Split the images of `--calibration` into the calibration set and the hold-out set."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edge_fg.labels import Labels
from edge_fg.progress import ProgressCallback
from edge_fg.sources import open_source
from edge_fg.sources.uri import VIDEO_SUFFIXES, is_camera, parse_source
from edge_fg_calibration import ImageSet
from edge_fg_calibration.data.sampling import Sample, sample, summary
from edge_fg_calibration.data.video_frames import frames_of
from edge_fg_tools.building.image_feed import ImageFeed, top_answers
from edge_fg_tools.building.options import BuildOptions
from edge_fg_tools.evaluation.evaluate import labelled_set
from edge_fg_tools.graph import PreparedModel

_LOGGER = logging.getLogger("edge_fg")
_SIDES = 2
_MOST_FRAMES = 2048


@contextlib.contextmanager
def image_set(
    options: BuildOptions, labels: Labels, progress: ProgressCallback
) -> Iterator[ImageSet]:
    """Read a directory or CSV; frames of a video or camera are saved until the block ends.

    Raises DatasetError where there are no images or the CSV is malformed, and SourceError where
    the video or camera can't be read.
    """
    if not _is_stream(options.calibration):
        yield labelled_set(Path(options.calibration), labels)
        return
    most = min(_SIDES * options.calibration_images, _MOST_FRAMES)
    with (
        tempfile.TemporaryDirectory(prefix="edge-fg-frames-") as folder,
        open_source(options.calibration) as source,
    ):
        yield frames_of(source, Path(folder), most, progress=progress)


def split_images(
    options: BuildOptions,
    prepared: PreparedModel,
    images: ImageSet,
    feed: ImageFeed,
    progress: ProgressCallback,
) -> Sample:
    """Split the images, and log what was left out; DatasetError where too few are left."""
    found = sample(
        images,
        options.calibration_images,
        seed=options.seed,
        predict=lambda side: top_answers(prepared, feed, side, progress),
    )
    if found.duplicates:
        path, other = next(iter(found.duplicates.items()))
        _LOGGER.warning(
            "left out %d images that show the same as another, such as %s, like %s",
            len(found.duplicates),
            path.name,
            other.name,
        )
    _LOGGER.info("%s", summary(found))
    return found


def left_out(found: Sample) -> dict[Path, str]:
    """Return the reason for each file that is neither calibrated nor proven on."""
    same = {path: f"shows the same as {other.name}" for path, other in found.duplicates.items()}
    return {**found.corrupt, **same}


def _is_stream(calibration: Path | str) -> bool:
    """Tell whether frames are to be read: from a video, a camera or a stream."""
    if is_camera(str(calibration).strip()):
        return True
    if isinstance(calibration, Path) or Path(calibration).exists():
        return Path(calibration).suffix.lower() in VIDEO_SUFFIXES and Path(calibration).is_file()
    text = calibration.strip()
    if "://" not in text and not text.isdigit():
        return False
    return parse_source(text).kind in {"video", "camera", "csi", "stream"}
