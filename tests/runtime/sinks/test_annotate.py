"""Answers drawn on frames, and videos saved whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageFont

from edge_fg.errors import ImageError, OutputError, UsageError
from edge_fg.sinks.annotator import Annotator
from edge_fg.sinks.video_file import VideoSaver
from edge_fg.sources import open_source
from support.properties import examples

cv2 = pytest.importorskip("cv2")


@dataclass
class Scored:
    label: str
    confidence: float


class Prediction:
    def __init__(self, *answers: tuple[str, float]) -> None:
        self.answers = [Scored(*answer) for answer in answers]

    def top(self, k: int = 5) -> list[Scored]:
        return self.answers[:k]


OWL = Prediction(
    ("Athene cunicularia (Burrowing Owl)", 0.9731),
    ("Athene noctua (Little Owl)", 0.0142),
    ("Strix nebulosa", 0.0061),
)


def grey(width: int, height: int, value: int = 128) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return (before != after).any(axis=2)


def luminance(bgr: np.ndarray) -> np.ndarray:
    """Relative luminance of sRGB, as WCAG 2 defines it."""
    values = bgr[..., ::-1] / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def test_the_frame_is_left_alone_and_the_panel_stays_in_its_corner() -> None:
    frame = grey(640, 480)
    drawn = Annotator()(frame, OWL)
    assert (frame == 128).all()
    assert drawn.shape == frame.shape
    assert drawn.dtype == np.uint8
    where = changed(frame, drawn)
    assert 0.03 < where.mean() < 0.45
    assert not where[:240].any()
    rows, columns = np.nonzero(where)
    assert rows.min() > 240
    assert columns.min() < 32


@pytest.mark.parametrize("value", [0, 128, 255])
def test_the_text_is_legible_on_any_background(value: int) -> None:
    drawn = Annotator()(grey(640, 480, value), OWL)
    panel = drawn[changed(grey(640, 480, value), drawn)]
    light = luminance(panel)
    background = np.median(light)
    # WCAG 2 asks for 4.5 to 1.
    assert (light.max() + 0.05) / (background + 0.05) > 7


@pytest.mark.parametrize("confidence", [0.0, 0.25, 0.5, 1.0])
def test_the_bar_is_as_long_as_the_confidence(confidence: float) -> None:
    drawn = Annotator(top_k=1)(grey(1280, 720), Prediction(("owl", confidence)))
    blue, green, red = (drawn[:, :, channel].astype(int) for channel in range(3))
    accent = (green > red + 60) & (green > blue + 30)
    full = Annotator(top_k=1)(grey(1280, 720), Prediction(("owl", 1.0)))
    blue, green, red = (full[:, :, channel].astype(int) for channel in range(3))
    whole = ((green > red + 60) & (green > blue + 30)).any(axis=0).sum()
    assert whole > 100
    assert accent.any(axis=0).sum() / whole == pytest.approx(confidence, abs=0.02)


def test_the_panel_grows_with_the_frame() -> None:
    heights = []
    for scale in (1, 2, 4):
        frame = grey(320 * scale, 240 * scale)
        rows = np.nonzero(changed(frame, Annotator()(frame, OWL)).any(axis=1))[0]
        heights.append((rows.max() - rows.min() + 1) / (240 * scale))
    assert heights[0] >= heights[1] == pytest.approx(heights[2], rel=0.1)


def test_top_k_adds_lines() -> None:
    frame = grey(640, 480)
    areas = [changed(frame, Annotator(top_k=k)(frame, OWL)).sum() for k in (1, 2, 3)]
    assert areas[0] < areas[1] < areas[2]


def test_a_long_name_is_cut_and_stays_inside() -> None:
    frame = grey(320, 240)
    drawn = Annotator()(frame, Prediction(("Owl " * 200, 0.5)))
    columns = np.nonzero(changed(frame, drawn).any(axis=0))[0]
    assert columns.max() < 320 - 4
    # The percentage at the right end is still there: bright pixels in the last fifth.
    assert drawn[:, 250:].max() > 200


def test_names_differ_when_their_accents_do() -> None:
    frame = grey(640, 480)
    plain = Annotator(top_k=1)(frame, Prediction(("Gruene Eule", 0.5)))
    accented = Annotator(top_k=1)(frame, Prediction(("Grüne Éule", 0.5)))
    assert changed(plain, accented).any()


def test_a_thumbnail_and_an_empty_answer_stay_bare() -> None:
    for frame, prediction in ((grey(26, 20), OWL), (grey(640, 480), Prediction())):
        np.testing.assert_array_equal(Annotator()(frame, prediction), frame)


@examples(60)
@given(
    width=st.integers(1, 900),
    height=st.integers(1, 500),
    answers=st.lists(
        st.tuples(st.text(max_size=60), st.floats(0, 1) | st.just(float("nan"))), max_size=8
    ),
)
def test_any_frame_and_any_names_can_be_drawn(
    width: int, height: int, answers: list[tuple[str, float]]
) -> None:
    frame = grey(width, height)
    drawn = Annotator(top_k=8)(frame, Prediction(*answers))
    assert drawn.shape == frame.shape
    # The panel never takes the upper third.
    assert not changed(frame, drawn)[: height // 3].any()


def test_wrong_frames_fonts_and_numbers(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="H x W x 3"):
        Annotator()(np.zeros((4, 4), np.uint8), OWL)
    with pytest.raises(UsageError, match="top_k"):
        Annotator(top_k=0)
    (tmp_path / "font.ttf").write_text("no font")
    with pytest.raises(UsageError, match=r"font\.ttf"):
        Annotator(font=tmp_path / "font.ttf")


def test_a_font_of_ones_own(tmp_path: Path) -> None:
    font = ImageFont.load_default(size=20)
    if not hasattr(font, "font_bytes"):
        pytest.skip("this Pillow keeps its font out of reach")
    (tmp_path / "own.ttf").write_bytes(font.font_bytes)
    frame = grey(640, 480)
    own = changed(frame, Annotator(font=tmp_path / "own.ttf")(frame, OWL))
    builtin = changed(frame, Annotator()(frame, OWL))
    # Kerning may differ with the text layout engine; the height of the panel may not.
    np.testing.assert_array_equal(own.any(axis=1), builtin.any(axis=1))


# ---------------------------------------------------------------- saving


def blocks(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : (number + 1) * 4] = 255
    return image


def leftovers(folder: Path, *wanted: str) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name not in wanted)


@pytest.mark.parametrize("suffix", [".mp4", ".m4v", ".mov", ".mkv", ".avi", ".MP4"])
def test_a_saved_video_has_every_frame(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    with VideoSaver(path, 12.5, (64, 48)) as saver:
        for number in range(12):
            saver.write(blocks(number))
            assert not path.exists()
    assert leftovers(tmp_path, path.name) == []
    assert path.stat().st_mode & 0o444 == 0o444
    with open_source(path) as video:
        assert (video.fps, video.size_wh) == (12.5, (64, 48))
        images = [frame.image for frame in video]
    assert len(images) == saver.frames == 12
    for number, image in enumerate(images):
        assert np.abs(image.astype(int) - blocks(number)).mean() < 12


def codec_of(path: Path) -> str:
    av = pytest.importorskip("av")
    with av.open(str(path)) as video:
        return video.streams.video[0].codec_context.name


@pytest.mark.parametrize("suffix", [".mp4", ".m4v", ".mov", ".mkv", ".MP4"])
@pytest.mark.parametrize(("fps", "frames"), [(0.5, 1), (29.97, 2), (1000, 40)])
def test_videos_are_h264_which_browsers_play(
    tmp_path: Path, suffix: str, fps: float, frames: int, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("av")
    path = tmp_path / f"out{suffix}"
    with VideoSaver(path, fps, (64, 48)) as saver:
        for number in range(frames):
            saver.write(blocks(number))
    assert codec_of(path) == "h264"
    with open_source(path) as video:
        images = [frame.image for frame in video]
    assert len(images) == frames
    assert np.abs(images[-1].astype(int) - blocks(frames - 1)).mean() < 12
    assert caplog.records == []


@pytest.mark.parametrize("missing", ["module", "encoder"])
def test_without_an_encoder_of_h264_that_is_said(
    tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if missing == "module":
        monkeypatch.setitem(sys.modules, "av", None)
    else:
        av = pytest.importorskip("av")
        monkeypatch.setattr(av, "open", lambda *_, **__: av.codec.Codec("no such encoder", "w"))
    with VideoSaver(tmp_path / "a.mp4", 10, (64, 48)) as saver:
        saver.write(blocks(1))
    monkeypatch.undo()
    codec = codec_of(tmp_path / "a.mp4")
    assert codec == "h264" or "a.mp4 is written as MPEG-4 part 2" in caplog.text
    assert codec in ("h264", "mpeg4")
    assert leftovers(tmp_path, "a.mp4") == []


def test_frames_of_other_sizes_are_framed_in_black(tmp_path: Path) -> None:
    with VideoSaver(tmp_path / "a.avi", 10, (80, 40)) as saver:
        for size in ((80, 40), (40, 40), (300, 20), (1, 1)):
            saver.write(grey(*size, 255))
    with open_source(tmp_path / "a.avi") as video:
        first, square, strip, dot = (frame.image for frame in video)
    assert first.min() > 240
    assert square[:, 22:58].min() > 220
    assert square[:, :16].max() < 30
    assert strip[18:22].min() > 200
    assert strip[:12].max() < 30
    assert dot[:, 22:58].min() > 220


def test_odd_sizes_lose_a_row_or_column(tmp_path: Path) -> None:
    with VideoSaver(tmp_path / "a.mp4", 10, (65, 49)) as saver:
        saver.write(grey(65, 49))
    assert open_source(tmp_path / "a.mp4").size_wh == (64, 48)


def test_an_error_in_the_block_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), VideoSaver(path, 10, (64, 48)) as saver:  # noqa: PT012
        saver.write(blocks(1))
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert leftovers(tmp_path, "a.mp4") == []


def test_an_error_of_the_block_is_not_hidden_by_saving(tmp_path: Path) -> None:
    with pytest.raises(ImageError), VideoSaver(tmp_path / "a.mp4", 10, (64, 48)) as saver:
        saver.write(np.zeros((3, 3), np.uint8))
    assert leftovers(tmp_path) == []


def test_no_frame_is_an_error_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no frame"), VideoSaver(tmp_path / "a.mp4", 10, (64, 48)):
        pass
    assert leftovers(tmp_path) == []


def test_places_that_can_not_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"must end in one of \.mp4"):
        VideoSaver(tmp_path / "a.txt", 10, (64, 48))
    (tmp_path / "b.mp4").mkdir()
    with pytest.raises(OutputError, match="is a directory"):
        VideoSaver(tmp_path / "b.mp4", 10, (64, 48))
    with (
        pytest.raises(OutputError, match=r"can't write .*none/a\.mp4: No such file"),
        VideoSaver(tmp_path / "none" / "a.mp4", 10, (64, 48)),
    ):
        pass
    with pytest.raises(OutputError, match="not open"):
        VideoSaver(tmp_path / "a.mp4", 10, (64, 48)).write(blocks(0))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with (
        pytest.raises(OutputError, match="Permission denied"),
        VideoSaver(tmp_path / "a.mp4", 10, (64, 48)),
    ):
        pass


@pytest.mark.parametrize(
    ("fps", "size_wh"), [(0, (64, 48)), (float("nan"), (64, 48)), (10, (1, 48)), (10, (0, 0))]
)
def test_numbers_that_make_no_sense(tmp_path: Path, fps: float, size_wh: tuple[int, int]) -> None:
    with pytest.raises(UsageError):
        VideoSaver(tmp_path / "a.mp4", fps, size_wh)


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_a_full_disk_is_noticed(tmp_path: Path, suffix: str) -> None:
    # A limit on the size of files makes writes fail as a full disk does.
    code = (
        "import resource, sys, numpy as np\n"
        "from edge_fg.errors import OutputError\n"
        "from edge_fg.sinks.video_file import VideoSaver\n"
        "import cv2\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)\n"
        "try:\n"
        "    with VideoSaver(sys.argv[1], 10, (320, 240)) as saver:\n"
        "        for shift in range(40): saver.write(np.roll(noise, 7 * shift, axis=1))\n"
        "except OutputError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / f"a{suffix}")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "is the disk full?" in done.stdout, done.stderr
    assert done.returncode == 0
    assert leftovers(tmp_path) == []
