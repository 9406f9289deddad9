"""Folders and globs as a camera's card has them: what is in them is answered whole, and once."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_fg.errors import SourceError
from edge_fg.pipeline import Pipeline
from edge_fg.sources import open_source

cv2 = pytest.importorskip("cv2")


def photo(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 12), (value, 0, 0)).save(path, "JPEG")
    return path


def clip(path: Path, frames: int = 5, fps: float = 10.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_suffix(".avi")
    writer = cv2.VideoWriter(str(made), cv2.VideoWriter_fourcc(*"MJPG"), fps, (16, 12))
    for number in range(frames):
        writer.write(np.full((12, 16, 3), 40 * number % 256, np.uint8))
    writer.release()
    return made.rename(path)


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """A camera's card with photographs and clips in DCIM, and what systems leave on it."""
    root = tmp_path / "card"
    for number, name in enumerate(
        ("100MEDIA/IMG_0001.JPG", "100MEDIA/IMG_0002.jpeg", "101TRAP/IMG_0001.JPG", "top.PNG")
    ):
        photo(root / "DCIM" / name, number)
    clip(root / "DCIM" / "100MEDIA" / "IMG_0003.AVI")
    for rubbish in ("DCIM/100MEDIA/._IMG_0001.JPG", ".Trashes/501/a.jpg", "@eaDir/a.jpg/b.jpg"):
        photo(root / rubbish)
    for rubbish in ("__MACOSX/DCIM/a.jpg", "$RECYCLE.BIN/a.jpg", "DCIM/.hidden/a.jpg"):
        photo(root / rubbish)
    (root / "MISC").mkdir()
    (root / "MISC" / "AUTPRINT.MRK").touch()
    return root


ALL = ["100MEDIA/IMG_0001.JPG", "100MEDIA/IMG_0002.jpeg", *["100MEDIA/IMG_0003.AVI"] * 5]
ALL += ["101TRAP/IMG_0001.JPG", "top.PNG"]


def names(source: object, root: Path) -> list[str]:
    with open_source(source) as opened:
        frames = list(opened)
        assert opened.skipped == []
    assert [frame.number for frame in frames] == list(range(len(frames)))
    return [os.path.relpath(frame.source, root / "DCIM") for frame in frames]


@pytest.mark.parametrize("pattern", ["", "DCIM", "*", "**/*", "**", "D*", "DCIM/*", "**/DCIM/**/*"])
def test_everything_on_a_card_is_answered_once(card: Path, pattern: str) -> None:
    assert names(str(card / pattern), card) == ALL


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("**/*.jpg", [0, 7]),
        ("DCIM/1*/*.jpg", [0, 7]),
        ("DCIM/100MEDIA/*.jp*g", [0, 1]),
        ("**/*.[jp]?g", [0, 7, 8]),
        ("**/*.avi", [2, 3, 4, 5, 6]),
        ("**/1?1*", [7]),
        ("DCIM/*.png", [8]),
    ],
)
def test_a_glob_takes_suffixes_whatever_their_case(
    card: Path, pattern: str, wanted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert names(str(card / pattern), card) == [ALL[place] for place in wanted]
    monkeypatch.chdir(card)
    assert names(pattern, card) == [ALL[place] for place in wanted]


def test_links_lead_to_each_file_once(card: Path, tmp_path: Path) -> None:
    dcim = card / "DCIM"
    (dcim / "101TRAP" / "up").symlink_to(card)
    (dcim / "0-again").symlink_to(dcim / "100MEDIA")
    (dcim / "0-latest.jpg").symlink_to(dcim / "101TRAP" / "IMG_0001.JPG")
    os.link(dcim / "top.PNG", dcim / "z.png")
    assert names(card, card) == names(str(card / "**" / "*"), card) == ALL
    photo(tmp_path / "elsewhere" / "far.jpg")
    (dcim / "z").symlink_to(tmp_path / "elsewhere")
    (dcim / "y.jpg").symlink_to(tmp_path / "none.jpg")
    with open_source(card) as source:
        assert [Path(frame.source).name for frame in source][-1] == "far.jpg"
        assert "y.jpg" in str(source.skipped[0])


def test_clips_come_between_photographs_with_positions_of_their_own(card: Path) -> None:
    with open_source(card) as source:
        assert (source.frame_count, source.fps, source.live) == (None, None, False)
        frames = list(source)
    times = [frame.position for frame in frames]
    assert times[:2] == times[7:] == [None, None]
    np.testing.assert_allclose(times[2:7], np.arange(5) / 10, atol=0.002)
    shown = [int(frame.image.mean()) for frame in frames[2:7]]
    np.testing.assert_allclose(shown, 40 * np.arange(5), atol=4)


def test_a_folder_of_clips_alone_and_a_list(tmp_path: Path) -> None:
    (tmp_path / "c.mp4").write_bytes(b"x" * 100)
    paths = [clip(tmp_path / "b.avi", 3), clip(tmp_path / "a.avi", 4), photo(tmp_path / "a.jpg")]
    with open_source(str(tmp_path / "*.[am][vp]?"), flip="vertical") as source:
        assert source.fps == 10
        assert [Path(frame.source).name for frame in source] == ["a.avi"] * 4 + ["b.avi"] * 3
        assert "c.mp4" in str(source.skipped[0])
    with open_source(paths) as source:
        kinds = [Path(frame.source).name for frame in source]
    assert kinds == ["b.avi"] * 3 + ["a.avi"] * 4 + ["a.jpg"]


def test_a_clip_that_was_cut_costs_only_its_end(
    card: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cut = clip(card / "DCIM" / "100MEDIA" / "IMG_0000.AVI", 60)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    with open_source(card) as source:
        frames = [Path(frame.source).name for frame in source]
        assert source.counters["corrupted"] >= 1
    assert 1 <= frames.count("IMG_0000.AVI") < 60
    assert len(frames) == frames.count("IMG_0000.AVI") + len(ALL)
    assert "IMG_0000.AVI ended after frame" in caplog.text


def test_a_rate_counts_by_the_clock_of_each_clip(tmp_path: Path) -> None:
    for name, frames in (("a.avi", 21), ("b.avi", 5), ("c.avi", 11)):
        clip(tmp_path / name, frames)
    pipeline = Pipeline(str(tmp_path), lambda image: None, policy="rate(1)")
    taken = [Path(result.frame.source).name for result in pipeline]
    assert taken == ["a.avi"] * 3 + ["b.avi"] + ["c.avi"] * 2


def test_what_is_left_out_is_said(card: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "edge_fg"):
        open_source(card).close()
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert "1 .mrk" in record.getMessage()
    caplog.clear()
    (card / "DCIM" / "IMG_0009.DNG").touch()
    open_source(card).close()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().endswith("left out, because they are not read here: 1 .dng, 1 .mrk")
    for suffix in ("a", "b", "c", "\x1b[31m"):
        (card / f"x.{suffix}").touch()
    caplog.clear()
    open_source(card).close()
    assert caplog.messages[0].endswith(r": 1 .dng, 1 .\x1b[31m, 1 .a, 1 .b, 1 .c, ...")


def test_a_folder_that_can_not_be_listed(
    card: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hidden = card / "DCIM" / "101TRAP"

    def scandir(path: Path, listed: Callable[[Path], object] = os.scandir) -> object:
        if path == hidden:
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)  # permissions mean nothing to root
    for source in (card, f"{card}/*", f"{card}/DCIM/*", f"{card}/*/**/*"):
        assert names(source, card) == ALL[:7] + ALL[8:]
    assert "101TRAP: Permission denied; what is in it is left out" in caplog.text
    with pytest.raises(SourceError, match=r"can't list .*101TRAP: Permission denied"):
        open_source(hidden)


def test_a_folder_of_photographs_needs_no_opencv(
    card: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cv2", "av"):
        monkeypatch.setitem(sys.modules, name, None)
    with open_source(card) as source:
        assert len(list(source)) == 4
        assert "opencv" in str(source.skipped[0])
