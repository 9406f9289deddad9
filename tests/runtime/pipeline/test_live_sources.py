"""Live sources in a pipeline: one capture thread and one queue each, one count of what is lost."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator

import pytest

from edge_fg.errors import ImageError, SourceError, UsageError
from edge_fg.pipeline import Pipeline, stream
from edge_fg.sources import Frame, SourceOptions
from edge_fg.sources.live.source import LiveSource
from support import fake_camera
from support import pipeline_fakes as fakes
from support.fake_camera import FakeCamera, hold, image, number_of, steady
from support.waiting import HANG, until

OPTIONS = SourceOptions(timeout=HANG, backoff=(0.001, 0.002), reconnect=0)


@pytest.fixture(autouse=True)
def _let_go() -> Iterator[None]:
    fake_camera.end.clear()
    yield
    fake_camera.end.set()
    until(lambda: not ours() - {"edge_fg-watchdog"})


def ours() -> set[str]:
    """The names of edge_fg's threads."""
    return {t.name for t in threading.enumerate() if t.name.startswith("edge_fg-")}


def burst(count: int) -> FakeCamera:
    """A camera that gives so many images at once, and no more until it is interrupted."""

    def script(n: int) -> Iterator[object]:
        yield "open"
        yield from map(image, range(count))
        yield hold

    return FakeCamera(script)


@pytest.mark.parametrize("several", [False, True])
def test_no_thread_reads_a_live_source_but_its_own(several: bool) -> None:
    names = ["north", "south"] if several else ["north"]
    sources = [LiveSource(name, FakeCamera(lambda n: steady()), OPTIONS) for name in names]
    pipeline = Pipeline(sources, number_of, max_frames=40)
    threads: set[str] = set()
    for _ in pipeline:
        threads |= ours()
    expected = {"edge_fg-engine", "edge_fg-watchdog", *(f"edge_fg-capture-{n}" for n in names)}
    assert threads == expected


def test_a_stream_adds_no_thread() -> None:
    with stream(LiveSource("cam", FakeCamera(lambda n: steady()), OPTIONS), number_of) as results:
        for _ in range(5):
            result = next(results)
            assert result.prediction == number_of(result.frame.image)
        names = ours()
    assert names == {"edge_fg-capture-cam", "edge_fg-watchdog"}


def test_each_frame_that_came_is_counted_once() -> None:
    free = threading.Event()

    def classify(pixels: object) -> int:
        assert free.wait(HANG)
        return number_of(pixels)  # type: ignore[arg-type]

    def answer(policy: str) -> tuple[list[Frame], dict[str, int], dict[str, int]]:
        free.clear()
        fake_camera.end.clear()
        source = LiveSource("cam", burst(20), SourceOptions(timeout=HANG, buffer=64, wait=True))
        sink = fakes.Collecting(lossless=True)
        pipeline = Pipeline(source, classify, policy=policy, sinks=[sink])
        pipeline.start()
        until(lambda: source.counters["frames"] + source.counters["dropped"] == 20)
        free.set()
        assert pipeline.drain(HANG)
        stats, counted = pipeline.stats().sources[0], source.counters
        assert stats.frames == counted["frames"]
        assert stats.frames == stats.answered + sum(stats.dropped.values())
        assert stats.frames + counted["dropped"] == 20
        frames = [result.frame for result in sink.results]
        assert len(frames) == stats.answered
        return frames, stats.dropped, counted

    frames, dropped, counted = answer("latest")
    assert number_of(frames[-1].image) == 19
    assert counted["dropped"] == 0
    assert set(dropped) == {"overtaken"}

    frames, dropped, counted = answer("queue(5)")
    assert [number_of(frame.image) for frame in frames[-5:]] == list(range(15, 20))
    assert counted["dropped"] == 0
    assert set(dropped) == {"full"}

    # A camera can't wait: what finds no place is lost, and counted by the source.
    frames, dropped, counted = answer("every")
    numbers = [number_of(frame.image) for frame in frames]
    assert numbers[0] == 0
    assert numbers == sorted(set(numbers)), "places may become free between losses, never twice"
    assert dropped == {}
    assert counted["dropped"] == 20 - len(numbers) > 0


def test_images_that_waited_come_first() -> None:
    sent = threading.Event()

    def script(n: int) -> Iterator[object]:
        yield "open"
        yield from map(image, range(3))
        yield lambda: (sent.set(), hold())[1]

    source = LiveSource("cam", FakeCamera(script), SourceOptions(timeout=HANG, buffer=8))
    assert sent.wait(HANG)
    with stream(source, number_of, policy="queue(8)") as results:
        assert [next(results).prediction for _ in range(3)] == [0, 1, 2]


def test_an_error_comes_after_the_answers_to_what_was_before() -> None:
    camera = FakeCamera(lambda n: ["open", image(1), image(2), None])
    source = LiveSource("cam", camera, SourceOptions(reconnect=0, buffer=8))
    answers = []
    with pytest.raises(SourceError, match="cam gave no more frames after 2: the stream ended"):
        answers.extend(r.prediction for r in stream(source, number_of, policy="queue(8)"))
    assert answers == [1, 2]
    assert source.state == "ended"
    assert source.counters["frames"] == 2


def test_closing_the_source_ends_the_pipeline() -> None:
    source = LiveSource("cam", FakeCamera(lambda n: steady()), OPTIONS)
    pipeline = Pipeline(source, number_of)
    for count, _ in enumerate(pipeline):
        if count == 3:
            source.close()
    assert pipeline.stats().state == "ended"
    assert source.state == "ended"


@pytest.mark.parametrize("ending", ["stop", "drain"])
def test_a_listener_may_end_the_pipeline_from_the_capture_thread(ending: str) -> None:
    def script(n: int) -> Iterator[object]:
        yield "open"
        yield image(1)
        yield SourceError("gone")

    source = LiveSource("cam", FakeCamera(script), SourceOptions(backoff=(0.001, 0.002)))
    pipeline = Pipeline(source, number_of)
    returned: list[str] = []

    def end(change: object) -> None:
        if change.state == "lost" and not returned:  # type: ignore[attr-defined]
            getattr(pipeline, ending)()
            returned.append(threading.current_thread().name)

    source.on_state(end)
    pipeline.start()
    assert pipeline.wait(HANG)
    until(lambda: returned)
    assert "capture" in returned[0]


@pytest.mark.parametrize("ending", ["stop", "drain", "wait"])
def test_a_listener_to_the_end_of_an_unusable_source_may_end_the_pipeline(ending: str) -> None:
    failed, busy, returned = threading.Event(), threading.Event(), threading.Event()

    def good(n: int) -> Iterator[object]:
        yield "open"
        yield lambda: image(1) if failed.wait(HANG) else None
        # Not `hold`: the end of one camera lets all go that hold.
        yield lambda: (cameras[0].interrupted.wait(HANG), None)[1]

    def bad(n: int) -> Iterator[object]:
        yield "open"
        yield image(1000)
        yield lambda: image(1001) if busy.wait(HANG) else None
        yield hold

    def classify(pixels: object) -> int:
        if number_of(pixels) >= 1000:  # type: ignore[arg-type]
            failed.set()
            raise ImageError("unusable")
        busy.set()
        assert returned.wait(HANG), "the listener waits for the pipeline"
        return 1

    def end(change: object) -> None:
        if change.state == "ended":  # type: ignore[attr-defined]
            threads.append(threading.current_thread().name)
            getattr(pipeline, ending)()
            returned.set()

    threads: list[str] = []
    cameras = [FakeCamera(good), FakeCamera(bad)]
    sources = [LiveSource(name, c, OPTIONS) for name, c in zip("ab", cameras, strict=True)]
    sources[1].on_state(end)
    pipeline = Pipeline(sources, classify, policy="queue(4)")
    pipeline.start()
    assert returned.wait(HANG)
    pipeline.stop()
    pipeline.check()
    assert threads == ["edge_fg-capture-b"]


def test_of_a_camera_that_loses_nothing_only_max_frames_are_taken() -> None:
    asked, more = threading.Event(), threading.Event()

    def script(n: int) -> Iterator[object]:
        yield "open"
        yield from map(image, range(3))
        yield lambda: image(3) if asked.wait(HANG) else None
        yield from map(image, range(4, 8))
        yield lambda: (more.set(), hold())[1]

    def classify(pixels: object) -> int:
        asked.set()
        # The camera goes on while the first frame is answered.
        until(lambda: more.is_set() or source.state == "ended")
        return number_of(pixels)  # type: ignore[arg-type]

    source = LiveSource("cam", FakeCamera(script), SourceOptions(timeout=HANG, buffer=8))
    sink = fakes.Collecting(lossless=True)
    pipeline = Pipeline(source, classify, policy="queue(8,drop=block)", max_frames=5, sinks=[sink])
    pipeline.start()
    assert pipeline.wait(HANG)
    pipeline.check()
    stats = pipeline.stats().sources[0]
    assert (stats.frames, stats.answered, stats.dropped) == (5, 5, {})
    assert [result.prediction for result in sink.results] == [0, 1, 2, 3, 4]
    assert source.counters["frames"] == 5


def test_a_driver_that_hangs_keeps_no_source_alive() -> None:
    asked, release = threading.Event(), threading.Event()
    camera = FakeCamera(lambda n: ["open", image(1), lambda: release.wait(HANG) and None])
    source = LiveSource("cam", camera, OPTIONS)
    pipeline = Pipeline(source, lambda pixels: asked.set())
    pipeline.start()
    assert asked.wait(HANG)
    pipeline.stop()
    gone = weakref.ref(source)
    del source, pipeline
    gc.collect()
    assert gone() is None
    assert "edge_fg-capture-cam" in ours()
    release.set()


def test_frames_can_t_go_two_ways() -> None:
    source = LiveSource("cam", FakeCamera(lambda n: steady()), OPTIONS)
    with Pipeline(source, number_of) as pipeline:
        pipeline.start()
        with pytest.raises(UsageError, match="the frames of cam go to a pipeline already"):
            next(source)
