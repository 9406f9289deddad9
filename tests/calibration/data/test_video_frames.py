"""Frames of videos and cameras as images to calibrate on."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_fg.errors import DatasetError, OutputError, SourceError
from edge_fg.images import read_image
from edge_fg.sources import Frame, open_source
from edge_fg.sources.base import BaseSource
from edge_fg_calibration import sample
from edge_fg_calibration.data.video_frames import frames_of
from support.properties import sweep


def scene(number: int) -> np.ndarray:
    random = np.random.default_rng(number)
    small = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return np.asarray(small.resize((32, 24), Image.Resampling.BICUBIC))


class Clip(BaseSource):
    """A video or camera of 30 frames a second; a camera never ends."""

    def __init__(self, frames: int, *, live: bool = False, counted: bool = True) -> None:
        count = frames if counted and not live else None
        super().__init__("meadow.mp4", fps=30.0, frame_count=count, live=live)
        self._frames = frames

    def _read(self) -> Frame | None:
        number = self._delivered
        if not self.live and number >= self._frames:
            return None
        start = datetime(2026, 1, 1, tzinfo=timezone.utc)
        moment = start + timedelta(seconds=number / 30) if self.live else None
        return Frame(scene(number), number, self.name, time=moment)


def numbers(images) -> list[int]:
    return [int(one.path.stem.split("-")[1]) for one in images.items]


@pytest.mark.parametrize("counted", [True, False])
def test_frames_are_spread_over_the_whole_video(tmp_path: Path, counted: bool) -> None:
    found = frames_of(Clip(900, counted=counted), tmp_path, 60)
    taken = numbers(found)
    assert 30 <= len(taken) <= 60
    assert taken[0] == 0
    assert taken[-1] >= 860
    assert max(np.diff(taken)) <= 120
    assert len(list(tmp_path.iterdir())) <= 60


def test_a_frame_is_kept_without_loss(tmp_path: Path) -> None:
    found = frames_of(Clip(60), tmp_path, 10)
    for number, one in zip(numbers(found), found.items, strict=True):
        np.testing.assert_array_equal(read_image(one.path), scene(number))


@pytest.mark.parametrize("seed", sweep(range(5)))
def test_frames_near_in_time_are_never_on_both_sides(tmp_path: Path, seed: int) -> None:
    found = sample(frames_of(Clip(900), tmp_path, 120), 60, seed=seed)
    first, second = numbers(found.calibration), numbers(found.hold_out)
    assert len(first) >= 8
    assert len(second) >= 8
    assert min(abs(a - b) for a in first for b in second) >= 25


def test_a_camera_is_watched_for_some_time_only(tmp_path: Path) -> None:
    found = frames_of(Clip(0, live=True), tmp_path, 40, camera_seconds=20)
    assert 20 <= len(found) <= 40
    assert numbers(found)[-1] <= 600


def test_a_still_video_is_not_proof(tmp_path: Path) -> None:
    class Still(Clip):
        def _read(self) -> Frame | None:
            frame = super()._read()
            return frame and Frame(scene(0), frame.number, self.name)

    with pytest.raises(DatasetError, match="show the same"):
        sample(frames_of(Still(300), tmp_path, 60), 20)


def test_nothing_to_see_and_nowhere_to_write(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no frames"):
        frames_of(Clip(0, counted=False), tmp_path, 10)
    with pytest.raises(OutputError, match="TMPDIR"):
        frames_of(Clip(5), tmp_path / "missing", 10)


def test_a_real_clip(data_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    with open_source(data_dir / "videos" / "zamba_chimp.mp4") as video:
        found = sample(frames_of(video, tmp_path, 100), 50)
    assert len(found.calibration) >= 4
    assert len(found.hold_out) >= 4
    assert not {one.group for one in found.calibration.items} & {
        one.group for one in found.hold_out.items
    }


def test_a_source_that_is_not_there() -> None:
    with pytest.raises(SourceError):
        open_source("nowhere.mp4")
