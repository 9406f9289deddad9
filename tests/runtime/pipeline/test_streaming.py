"""The loop from frames to answers: order, errors, threads."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from edge_fg.errors import ImageError, SourceError, TruncatedSourceError, UsageError
from edge_fg.pipeline import Pipeline, stream
from edge_fg.preprocess.pixel_layout import PixelFormat, PixelLayout
from edge_fg.preprocess.raw_frame import RawFrame
from edge_fg.sources import Frame, open_source
from support.pipeline_fakes import Numbers, first_value, image
from support.waiting import HANG, unchanged, until

pytestmark = pytest.mark.usefixtures("no_thread_leaks")


def test_every_frame_in_order_with_its_answer() -> None:
    source = Numbers(200)
    pairs = list(stream(source, first_value))
    assert [frame.number for frame, _ in pairs] == list(range(200))
    assert [answer for _, answer in pairs] == list(range(200))
    assert source.releases == 1


@pytest.mark.parametrize("takes_raw", [True, False])
def test_a_model_without_batches_gets_whole_frames_as_it_takes_them(takes_raw: bool) -> None:
    class Model:
        def __init__(self) -> None:
            self.takes_raw = takes_raw
            self.seen: list[object] = []

        def __call__(self, frame) -> None:
            self.seen.append(frame)

    class Part:
        def propose(self, frame):
            return [(1, 0, 2, 2)]

        def update(self, frame, regions, predictions):
            return [], []

        def finish(self):
            return []

    layout = PixelLayout(PixelFormat.GRAY, 2, 4)
    raw = RawFrame(np.arange(8, dtype=np.uint8), layout)
    whole = raw if takes_raw else raw.to_bgr()
    model = Model()
    list(stream([raw], model))
    Pipeline([raw], model).run()
    Pipeline([raw], model, visits=lambda number: Part()).run()
    for seen in model.seen[:2]:
        assert seen is whole if takes_raw else np.array_equal(seen, whole)
    assert np.array_equal(model.seen[2], raw.to_bgr()[:2, 1:3]), "a region is cut from the pixels"


def test_frames_are_read_in_one_other_thread() -> None:
    source = Numbers(20)
    list(stream(source, first_value))
    (name,) = source.threads
    assert name != threading.current_thread().name
    assert "edge_fg" in name


def test_what_open_source_opens_is_opened(tmp_path: Path) -> None:
    answers = [answer for _, answer in stream([image(3), image(5)], first_value)]
    assert answers == [3, 5]
    with pytest.raises(SourceError, match="there is no file"):
        stream(tmp_path / "none.mp4", first_value)


def test_reading_ahead_is_bounded() -> None:
    source = Numbers(1000)
    answers = stream(source, first_value)
    next(answers)
    until(lambda: source.read >= 2)
    assert unchanged(lambda: source.read) <= 8
    answers.close()
    assert source.releases == 1


def test_decoding_and_inference_overlap() -> None:
    overlap = threading.Barrier(2, timeout=HANG)  # passed by both at the same time or never

    class Source(Numbers):
        def _read(self) -> Frame | None:
            if self.read == 1:
                overlap.wait()
            return super()._read()

    def model(image: np.ndarray) -> int:
        if first_value(image) == 0:
            overlap.wait()
        return first_value(image)

    assert len(list(stream(Source(20), model))) == 20


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("limit", [1, 5])
def test_max_frames(live: bool, limit: int) -> None:
    source = Numbers(None if live else 50, live=live, period=0.001)
    pairs = list(stream(source, first_value, max_frames=limit))
    assert len(pairs) == limit
    assert source.releases == 1
    if not live:
        assert source.read == limit


def test_max_frames_stops_before_a_later_error() -> None:
    source = Numbers(5, error=SourceError("lost"))
    assert len(list(stream(source, first_value, max_frames=5))) == 5


@pytest.mark.parametrize("limit", [0, -1])
def test_max_frames_must_be_positive(limit: int) -> None:
    with pytest.raises(UsageError, match="max_frames"):
        stream(Numbers(5), first_value, max_frames=limit)


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("error", [SourceError("lost"), RuntimeError("odd")])
def test_an_error_of_the_source_comes_after_the_frames_before_it(
    live: bool, error: Exception
) -> None:
    source = Numbers(7, live=live, error=error, period=0.005)
    numbers = []
    with pytest.raises(type(error)) as caught:
        numbers.extend(frame.number for frame, _ in stream(source, first_value))
    assert caught.value is error
    assert numbers[-1] == 6
    assert live or numbers == list(range(7))
    assert source.releases == 1


def test_an_error_of_the_classifier_stops_everything() -> None:
    def broken(image: np.ndarray) -> int:
        if first_value(image) == 3:
            raise ZeroDivisionError("three")
        return first_value(image)

    source = Numbers(1000)
    seen = []
    with pytest.raises(ZeroDivisionError, match="three"):
        seen.extend(answer for _, answer in stream(source, broken))
    assert seen == [0, 1, 2]
    assert source.releases == 1


def test_leaving_the_loop_releases_the_source() -> None:
    source = Numbers(1000)
    for frame, _ in stream(source, first_value):
        if frame.number == 2:
            break
    gc.collect()
    assert source.releases == 1
    with pytest.raises(SourceError, match="closed"):
        next(source)


def test_closing_before_the_start_and_twice() -> None:
    source = Numbers(10)
    answers = stream(source, first_value)
    answers.close()
    answers.close()
    assert source.releases == 1
    assert source.read == 0
    assert list(answers) == []


def test_as_a_context_manager() -> None:
    source = Numbers(1000)
    with stream(source, first_value) as answers:
        assert next(answers).prediction == 0
    assert source.releases == 1


def test_of_a_live_source_the_newest_frame_comes_and_drops_are_counted() -> None:
    def model(image: np.ndarray) -> int:
        """Take as long as the source takes for the next four frames."""
        number, before = first_value(image), answers.dropped
        source.gate.release(4)
        until(lambda: number == 40 or answers.dropped == before + 3)
        return number

    source = Numbers(41, live=True, gate=threading.Semaphore(1))
    answers = stream(source, model)
    assert [frame.number for frame, _ in answers] == list(range(0, 41, 4))
    assert answers.dropped == 30


def test_a_live_source_that_is_slower_than_the_classifier_loses_nothing() -> None:
    source = Numbers(10, live=True, gate=threading.Semaphore(1))
    answers = stream(source, first_value)
    numbers = []
    for frame, _ in answers:
        numbers.append(frame.number)
        source.gate.release()
    assert numbers == list(range(10))
    assert answers.dropped == 0


def test_opencv_is_imported_only_when_a_video_is_opened() -> None:
    code = "import sys, edge_fg.pipeline, edge_fg.sources; print('cv2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_ctrl_c_ends_the_program_at_once(tmp_path: Path) -> None:
    code = (
        "import numpy as np, threading, time\n"
        "from edge_fg.pipeline import stream\n"
        "def frames():\n"
        "    while True:\n"
        "        time.sleep(0.01)\n"
        "        yield np.zeros((2, 2, 3), np.uint8)\n"
        "try:\n"
        "    for frame, answer in stream(frames(), lambda image: 0):\n"
        "        if frame.number == 3: print('running', flush=True)\n"
        "except KeyboardInterrupt:\n"
        "    print('threads', threading.active_count(), flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "running\n"
        child.send_signal(signal.SIGINT)
        output, errors = child.communicate(timeout=HANG)
    assert output == "threads 1\n"
    assert errors == ""
    assert child.returncode == 0


def test_a_video_file(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (32, 32))
    noise = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    for pixels in noise:
        writer.write(pixels)
    writer.release()
    with open_source(path) as video:
        direct = [frame.image for frame in video]
    with open_source(path) as video:
        pairs = list(stream(video, lambda image: image.sum()))
    assert len(direct) == len(pairs) == 40
    for pixels, (frame, answer) in zip(direct, pairs, strict=True):
        np.testing.assert_array_equal(frame.image, pixels)
        assert answer == pixels.sum()

    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    seen = []
    with pytest.raises(TruncatedSourceError) as caught:
        seen.extend(frame.number for frame, _ in stream(path, first_value))
    assert seen == list(range(len(seen)))
    assert f"after frame {len(seen)} of 40" in str(caught.value)


def test_a_broken_frame_in_an_iterable() -> None:
    seen = []
    with pytest.raises(ImageError, match="number 2"):
        seen.extend(n for _, n in stream([image(0), image(1), np.zeros(3)], first_value))
    assert seen == [0, 1]
