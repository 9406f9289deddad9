"""Videos, images, boxes and windows."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_fg.errors import MissingDependencyError, OutputError, UsageError
from edge_fg.pipeline import Pipeline
from edge_fg.sinks import (
    BaseSink,
    CallbackSink,
    ImagesSink,
    JsonLinesSink,
    ResultAnnotator,
    SharedAnnotator,
    VideoSink,
    WindowSink,
)
from edge_fg.sinks import fonts as fonts_module
from edge_fg.sinks import window as window_module
from edge_fg.sinks.base import SpaceGuard
from edge_fg.sinks.fonts import Fonts
from edge_fg.sources import open_source
from support import pipeline_fakes as fakes
from support import sink_results as results
from support.waiting import until

cv2 = pytest.importorskip("cv2")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def plain(result):
    return result.frame.image


# ---------------------------------------------------------------- boxes


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return (before != after).any(axis=2)


def luminance(bgr: np.ndarray) -> np.ndarray:
    """Relative luminance of sRGB, as WCAG 2 defines it."""
    values = bgr[..., ::-1] / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("value", [0, 90, 255])
def test_each_individual_has_a_box_and_a_legible_name(value) -> None:
    frame = results.grey(640, 480, value)
    one = results.sighting(1, (200, 200, 120, 90), "Burrowing Owl")
    drawn = ResultAnnotator()(results.result(image=frame, prediction=None, sightings=(one,)))
    where = changed(frame, drawn)
    rows, columns = np.nonzero(where)
    assert 160 < rows.min() < 200
    assert rows.max() in range(289, 294)
    assert columns.min() in range(196, 201)
    # What is inside the box stays as it was.
    assert not where[210:280, 210:310].any()
    plate = luminance(drawn[rows.min() : 198, 205:300])
    assert (plate.max() + 0.05) / (np.median(plate) + 0.05) > 7
    # The line is seen on any background: a dark edge beside a bright one.
    line = luminance(drawn[196:206, 310:318])
    assert (line.max() + 0.05) / (line.min() + 0.05) > 2.5


def test_an_undecided_individual_is_drawn_without_a_name() -> None:
    frame = results.grey(640, 480)
    where = [
        changed(frame, ResultAnnotator()(results.result(image=frame, prediction=None, sightings=s)))
        for s in (
            (results.sighting(1, (200, 200, 120, 90), None),),
            (results.sighting(1, (200, 200, 120, 90), "Burrowing Owl"),),
        )
    ]
    assert 0 < where[0].sum() < where[1].sum()


def test_names_do_not_cover_each_other() -> None:
    frame = results.grey(640, 480)
    box = (300, 200, 100, 100)
    one = [results.sighting(1, box, "Burrowing Owl")]
    both = [*one, results.sighting(2, box, "Little Owl")]
    single, double = (
        changed(frame, ResultAnnotator()(results.result(image=frame, prediction=None, sightings=s)))
        for s in (tuple(one), tuple(both))
    )
    assert double.sum() > 1.3 * single.sum()


@pytest.mark.parametrize(
    "box", [(-50, -50, 100, 100), (600, 440, 200, 200), (0, 0, 640, 480), (700, 500, 10, 10)]
)
@pytest.mark.parametrize("size", [(640, 480), (30, 20), (1, 1)])
def test_boxes_beyond_the_edge_are_cut(box, size) -> None:
    frame = results.grey(*size)
    one = results.sighting(1, box, "Owl " * 60)
    drawn = ResultAnnotator()(results.result(image=frame, prediction=None, sightings=(one,)))
    assert drawn.shape == frame.shape


def test_a_frame_without_anything_stays_as_it_is() -> None:
    frame = results.grey(640, 480)
    drawn = ResultAnnotator()(results.result(image=frame, prediction=None))
    np.testing.assert_array_equal(drawn, frame)
    assert drawn is not frame


def test_a_result_is_drawn_once_for_all() -> None:
    drawn = []

    def draw(result):
        drawn.append(result)
        return result.frame.image

    shared = SharedAnnotator(draw)
    first, second = results.result(0), results.result(1)
    assert shared(first) is shared(first)
    shared(second)
    assert drawn == [first, second]


def test_accents_are_drawn_or_left_out(monkeypatch) -> None:
    _, name = Fonts(None).fitted("Grünfink", 20, 500)
    assert name in ("Grünfink", "Grunfink")
    monkeypatch.setattr(fonts_module, "_SYSTEM_FONTS", ("no-such-font.ttf",))
    bare = Fonts(None)
    assert bare.fitted("Grünfink Éider 鸟", 20, 500)[1] == "Grunfink Eider ?"
    assert bare.length("Grünfink", 20) == bare.length("Grunfink", 20)


# ---------------------------------------------------------------- videos


def record(sink, sources, made) -> None:
    sink.open(sources)
    for one in made:
        sink(one)
    sink.close()


def frames_of(path: Path) -> list[np.ndarray]:
    with open_source(path) as video:
        return [frame.image for frame in video]


def test_a_file_is_saved_frame_by_frame(tmp_path) -> None:
    source = results.Camera("clip.mp4", fps=12.0)
    made = [results.result(i, results.grey(value=20 * i)) for i in range(10)]
    made.insert(5, results.result(4, closing=True))
    record(VideoSink(tmp_path / "a.mp4", annotate=plain), [source], made)
    assert names(tmp_path) == ["a.mp4"]
    with open_source(tmp_path / "a.mp4") as video:
        assert video.fps == 12.0
        values = [frame.image.mean() for frame in video]
    assert values == pytest.approx([20 * i for i in range(10)], abs=6)


def test_a_camera_keeps_its_time(tmp_path) -> None:
    """At 10 frames a second: too many, a hole of a second, and an absence of a minute."""
    source = results.Camera("cam", live=True, fps=10.0)
    seconds = [0.0, 0.02, 0.1, 1.1, 61.1, 61.2]
    made = [
        results.result(i, results.grey(value=40 * i), captured=500 + s)
        for i, s in enumerate(seconds)
    ]
    record(VideoSink(tmp_path / "a.avi", annotate=plain), [source], made)
    values = [round(image.mean() / 40) for image in frames_of(tmp_path / "a.avi")]
    # The second frame has no place; the third stands for a second; the fourth for two at most.
    assert values == [0, *[2] * 10, *[3] * 21, 4, 5]


def test_several_sources_have_a_video_each(tmp_path) -> None:
    sources = [results.Camera("a", fps=5.0), results.Camera("b", fps=7.0)]
    made = [results.result(i, source_index=i % 2) for i in range(6)]
    record(VideoSink(tmp_path / "a.mp4"), sources, made)
    assert names(tmp_path) == ["a-0.mp4", "a-1.mp4"]
    assert len(frames_of(tmp_path / "a-1.mp4")) == 3


def test_no_frame_makes_no_file(tmp_path) -> None:
    record(VideoSink(tmp_path / "a.mp4"), [results.Camera("a")], [])
    assert names(tmp_path) == []


def test_videos_that_can_not_be_saved_are_refused_at_the_start(tmp_path) -> None:
    for name, why in (
        ("a.txt", "must end in"),
        ("no/a.mp4", "folder"),
        ("\udcff.mp4", "not UTF-8"),
    ):
        path = tmp_path / name
        with pytest.raises(OutputError, match=why):
            VideoSink(path).open([results.Camera("a")])


def test_a_video_follows_the_umask(tmp_path) -> None:
    before = os.umask(0o077)
    try:
        record(VideoSink(tmp_path / "a.avi"), [results.Camera("a")], [results.result()])
    finally:
        os.umask(before)
    assert (tmp_path / "a.avi").stat().st_mode & 0o777 == 0o600


def test_what_a_killed_recording_left_is_removed(tmp_path, caplog) -> None:
    abandoned, young, held, other = (
        tmp_path / f".a.{name}.mp4" for name in ("abandond", "youngone", "heldheld", "x")
    )
    for path in (abandoned, young, held, other):
        path.write_bytes(b"half a video")
        if path != young:
            os.utime(path, (time.time() - 3600,) * 2)
    with held.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        record(VideoSink(tmp_path / "a.mp4"), [results.Camera("a")], [results.result()])
    assert names(tmp_path) == [".a.heldheld.mp4", ".a.x.mp4", ".a.youngone.mp4", "a.mp4"]
    assert ".a.abandond.mp4" in caplog.text


def test_a_nearly_full_disk_pauses_the_video(tmp_path, monkeypatch) -> None:
    sink = VideoSink(tmp_path / "a.avi", annotate=plain, reserve_bytes=1 << 20)
    free = [100 << 20]
    monkeypatch.setattr(os, "statvfs", lambda path: _Disk(free[0]))
    sink.open([results.Camera("a", fps=10.0)])
    for i in range(32):
        sink(results.result(i))
    free[0] = 1 << 19
    for i in range(3):
        with pytest.raises(OutputError, match="nearly full"):
            sink(results.result(i))
    free[0] = 5 << 18  # more than the reserve, but not clearly
    with pytest.raises(OutputError, match="nearly full"):
        sink(results.result(3))
    free[0] = 100 << 20
    sink(results.result(4))
    sink.close()
    assert len(frames_of(tmp_path / "a.avi")) == 33


class _Disk:
    f_frsize = 1

    def __init__(self, free: int) -> None:
        self.f_bavail = free


def test_a_folder_that_went_away_is_told(tmp_path) -> None:
    with pytest.raises(OutputError, match="No such file"):
        SpaceGuard(tmp_path / "gone", 1).check(tmp_path / "gone" / "a.mp4")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 2 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_keeps_whole_images_only(small_disk) -> None:
    """Without a reserve every byte is used; what does not fit leaves nothing behind."""
    sink = ImagesSink(small_disk / "frames", annotate=plain, reserve_bytes=0)
    sink.open([results.Camera("a")])
    noise = np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    errors = 0
    for number in range(12):
        try:
            sink(results.result(number, noise))
        except OutputError as error:
            assert "No space left" in str(error)
            errors += 1
    kept = names(small_disk / "frames")
    assert 0 < len(kept) == 12 - errors < 12
    for name in kept:
        Image.open(small_disk / "frames" / name).load()
    (small_disk / "frames" / kept[0]).unlink()
    sink(results.result(99, noise))
    assert "clip-000099.jpg" in names(small_disk / "frames")


# ---------------------------------------------------------------- images


def test_images_are_named_after_their_file_or_time(tmp_path) -> None:
    made = [
        results.result(3),
        results.result(4, path="a/b/../x y\n\x1b.jpg"),
        results.result(5, path="..", time=results.NOON),
        results.result(6, closing=True),
    ]
    record(ImagesSink(tmp_path / "new" / "frames"), [results.Camera("a")], made)
    assert names(tmp_path / "new" / "frames") == [
        "20260501T100000.250Z-000005.jpg",
        "clip-000003.jpg",
        "x_y__-000004.jpg",
    ]


def test_images_of_several_sources_have_their_number(tmp_path) -> None:
    sources = [results.Camera("a"), results.Camera("b")]
    record(ImagesSink(tmp_path), sources, [results.result(0), results.result(0, source_index=1)])
    assert names(tmp_path) == ["0-clip-000000.jpg", "1-clip-000000.jpg"]


def test_a_image_shows_the_answer_in_its_colours(tmp_path) -> None:
    image = results.grey(640, 480)
    image[:] = (200, 40, 10)  # blue
    record(ImagesSink(tmp_path), [results.Camera("a")], [results.result(0, image)])
    saved = np.asarray(Image.open(tmp_path / "clip-000000.jpg"))
    assert np.abs(saved[:200].astype(int) - (10, 40, 200)).mean() < 4
    assert (np.abs(saved[300:].astype(int) - (10, 40, 200)) > 30).mean() > 0.1


def test_a_folder_that_can_not_be_made(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="can't make the folder"):
        ImagesSink(tmp_path / "file" / "frames").open([])
    with pytest.raises(UsageError, match="quality"):
        ImagesSink(tmp_path, quality=100)


# ---------------------------------------------------------------- the window


class Screen:
    """What a window needs of OpenCV."""

    WND_PROP_VISIBLE = 4
    error = cv2.error

    def __init__(self) -> None:
        self.shown: list[tuple[str, np.ndarray]] = []
        self.visible = 1.0
        self.key = -1
        self.destroyed = False

    def imshow(self, title, image):
        self.shown.append((title, image))

    def waitKey(self, delay):  # noqa: N802
        return self.key

    def getWindowProperty(self, title, which):  # noqa: N802
        return self.visible

    def destroyAllWindows(self):  # noqa: N802
        self.destroyed = True


@pytest.fixture
def screen(monkeypatch):
    made = Screen()
    monkeypatch.setattr(window_module, "_cv2_with_windows", lambda title: made)
    return made


def test_a_window_shows_the_newest_of_each_source(screen) -> None:
    window = WindowSink("birds", annotate=plain)
    made = [results.result(0), results.result(1), results.result(0, source_index=1)]
    for one in (*made, results.result(9, closing=True)):
        window(one)
    assert window.refresh()
    assert [title for title, _ in screen.shown] == ["birds", "birds 1"]
    assert screen.shown[0][1] is made[1].frame.image
    assert window.refresh()
    assert len(screen.shown) == 2
    window.destroy()
    assert screen.destroyed


@pytest.mark.parametrize("key", [ord("q"), 27, None])
def test_a_window_is_closed_by_key_or_mouse(screen, key) -> None:
    window = WindowSink(annotate=plain)
    window(results.result())
    assert window.refresh()
    if key is None:
        screen.visible = 0.0
    else:
        screen.key = key
    assert not window.refresh()
    assert not window.serve(lambda: True)
    assert window.serve(lambda: False)


def test_an_opencv_without_windows_is_told() -> None:
    if "GUI:                           NONE" not in cv2.getBuildInformation():
        pytest.skip("this OpenCV has windows")
    with pytest.raises(MissingDependencyError, match="display"):
        WindowSink()


# ---------------------------------------------------------------- in a pipeline


class SlowToFinish(BaseSink):
    """Takes longer to close than a stopped pipeline grants for writing."""

    def __init__(self, seconds: float) -> None:
        super().__init__("slow")
        self.seconds = seconds
        self.finished = False

    def __call__(self, result) -> None:
        pass

    def close(self) -> None:
        time.sleep(self.seconds)
        self.finished = True


def test_a_sink_that_is_finishing_is_waited_for(monkeypatch, caplog) -> None:
    monkeypatch.setattr("edge_fg.pipeline.sink_group.GRACE", 0.05)
    sink = SlowToFinish(0.3)
    pipeline = Pipeline(fakes.Numbers(), lambda image: results.prediction(), sinks=[sink])
    pipeline.start()
    pipeline.stop()
    assert sink.finished
    assert "abandoned" not in caplog.text


def test_lines_go_on_when_a_full_disk_has_room_again(small_disk, caplog) -> None:
    """A camera, a disk that is full from the start, and somebody who makes room."""
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(1 << 16)):
            pass
    seen = []
    path = small_disk / "a.jsonl"
    pipeline = Pipeline(
        fakes.Numbers(live=True, period=0.01),
        lambda image: results.prediction(),
        sinks=[JsonLinesSink(path), CallbackSink(seen.append)],
    )
    with pipeline:
        pipeline.start()
        until(lambda: pipeline.stats().sinks[0].state == "failing")
        before = len(seen)
        ballast.unlink()
        until(lambda: pipeline.stats().sinks[0].written > 20)
    assert len(seen) > before  # recognition went on all the time
    assert caplog.text.count("No space left on device") == 1
    lines = path.read_bytes().splitlines()
    assert len(lines) > 20
    assert [json.loads(line)["frame"] for line in lines] == sorted(
        json.loads(line)["frame"] for line in lines
    )
