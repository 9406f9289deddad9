"""The pipeline: order, overlap, several sources, errors, start, stop and drain."""

from __future__ import annotations

import gc
import logging
import threading

import numpy as np
import pytest

from edge_fg.errors import DeviceLostError, ImageError, SourceError, UsageError
from edge_fg.pipeline import Latest, Pipeline, VisitEvent
from edge_fg.sources import Frame
from support import pipeline_fakes as fakes
from support.waiting import HANG, until

pytestmark = pytest.mark.usefixtures("no_thread_leaks")


def test_every_frame_of_a_file_is_answered_in_order() -> None:
    source, sink = fakes.Numbers(300), fakes.Collecting()
    stats = Pipeline(source, fakes.first_value, sinks=[sink]).run()
    assert sink.numbers == list(range(300))
    assert [result.prediction for result in sink.results] == [n % 256 for n in range(300)]
    assert stats.answered == stats.sources[0].frames == 300
    assert stats.dropped == {}
    assert stats.state == "ended"
    assert (source.releases, sink.closes, sink.opened) == (1, 1, ["numbers"])
    assert all("sink" in name for name in sink.threads)


def test_iterating() -> None:
    pipeline = Pipeline(fakes.Numbers(100), fakes.first_value)
    assert [(r.frame.number, r.prediction) for r in pipeline] == [(n, n) for n in range(100)]
    assert pipeline.stats().state == "ended"


def test_leaving_the_loop_releases_everything() -> None:
    source, sink = fakes.Numbers(), fakes.Collecting()
    pipeline = Pipeline(source, fakes.first_value, sinks=[sink])
    for result in pipeline:
        if result.frame.number == 5:
            break
    gc.collect()
    assert pipeline.stats().state == "ended"
    assert (source.releases, sink.closes) == (1, 1)
    assert sink.numbers == list(range(len(sink.numbers)))


def test_capture_recognition_and_output_overlap() -> None:
    overlap = threading.Barrier(3, timeout=HANG)  # passed by all three at the same time or never

    class Source(fakes.Numbers):
        def _read(self) -> Frame | None:
            if self.read == 2:
                overlap.wait()
            return super()._read()

    class Sink(fakes.Collecting):
        def __call__(self, result) -> None:
            if result.frame.number == 0:
                overlap.wait()
            super().__call__(result)

    def model(image: np.ndarray) -> int:
        if fakes.first_value(image) == 1:
            overlap.wait()
        return 0

    sink = Sink()
    Pipeline(Source(20), model, sinks=[sink]).run()
    assert sink.numbers == list(range(20))


def test_of_a_live_source_answers_are_of_the_newest_frame() -> None:
    def model(image: np.ndarray) -> int:
        """Take as long as the source takes for five frames."""
        number = fakes.first_value(image)
        source.gate.release(5)
        until(lambda: pipeline.stats().sources[0].frames == min(number + 6, 61))
        return number

    sink = fakes.Collecting(lossless=True)
    source = fakes.Numbers(61, live=True, gate=threading.Semaphore(1))
    pipeline = Pipeline(source, model, sinks=[sink], policy="latest(max_age=1000)")
    stats = pipeline.run()
    assert sink.numbers == list(range(0, 61, 5))
    assert stats.dropped == {"overtaken": 48}


def test_a_live_source_can_be_told_to_wait() -> None:
    stats = Pipeline(
        fakes.Numbers(50, live=True), fakes.first_value, policy="queue(2,drop=block)"
    ).run()
    assert stats.answered == 50
    assert stats.sources[0].policy == "queue(2,drop=block)"


def test_max_frames() -> None:
    source = fakes.Numbers(100, error=SourceError("lost"))
    sink = fakes.Collecting()
    stats = Pipeline(source, fakes.first_value, sinks=[sink], max_frames=7).run()
    assert sink.numbers == list(range(7))
    assert stats.answered == 7
    stats = Pipeline(
        [fakes.Numbers(live=True, period=0.001), fakes.Numbers()], fakes.Batching(), max_frames=9
    ).run()
    assert stats.answered == 9


def test_several_sources_share_the_model() -> None:
    sources = [fakes.Numbers(60, name=name) for name in "abc"]
    sink = fakes.Collecting()
    stats = Pipeline(sources, fakes.first_value, sinks=[sink]).run()
    assert [source.answered for source in stats.sources] == [60, 60, 60]
    for name in "abc":
        numbers = [r.frame.number for r in sink.results if r.frame.source == name]
        assert numbers == list(range(60))


def test_an_error_of_one_source_ends_only_that_one(caplog: pytest.LogCaptureFixture) -> None:
    sources = [fakes.Numbers(5, name="bad", error=SourceError("unplugged")), fakes.Numbers(80)]
    sink = fakes.Collecting()
    with caplog.at_level(logging.ERROR, "edge_fg"):
        stats = Pipeline(sources, fakes.first_value, sinks=[sink]).run()
    bad, good = stats.sources
    assert (bad.state, bad.error, bad.answered) == ("ended", "unplugged", 5)
    assert (good.state, good.error, good.answered) == ("ended", None, 80)
    assert [record.getMessage() for record in caplog.records] == [
        "bad has failed, the others continue: unplugged"
    ]


def test_an_error_of_the_only_source_is_raised_after_all_answers() -> None:
    error = SourceError("unplugged")
    sink = fakes.Collecting()
    pipeline = Pipeline(fakes.Numbers(9, error=error), fakes.first_value, sinks=[sink])
    with pytest.raises(SourceError) as caught:
        pipeline.run()
    assert caught.value is error
    assert sink.numbers == list(range(9))
    assert pipeline.stats().sources[0].error == "unplugged"

    numbers = []
    with pytest.raises(SourceError, match="unplugged"):
        numbers.extend(
            r.frame.number for r in Pipeline(fakes.Numbers(9, error=error), fakes.first_value)
        )
    assert numbers == list(range(9))


def test_when_all_sources_have_failed_the_first_error_is_raised() -> None:
    sources = [fakes.Numbers(n, error=SourceError(f"lost {n}")) for n in (5, 3)]
    with pytest.raises(SourceError, match="lost 5"):
        Pipeline(sources, fakes.first_value).run()


def test_an_error_of_the_model_ends_everything() -> None:
    def broken(image: np.ndarray) -> int:
        if fakes.first_value(image) == 3:
            raise DeviceLostError("the GPU fell off the bus")
        return fakes.first_value(image)

    sources, sink = (
        [fakes.Numbers(name="a"), fakes.Numbers(name="b", live=True)],
        fakes.Collecting(),
    )
    pipeline = Pipeline(sources, broken, sinks=[sink], policy="every")
    with pytest.raises(DeviceLostError, match="fell off"):
        pipeline.run()
    assert [source.releases for source in sources] == [1, 1]
    assert sink.closes == 1
    assert {0, 1, 2} <= set(sink.numbers), "what was answered is written"
    assert pipeline.stats().state == "ended"


def test_a_frame_that_the_model_cannot_take_ends_its_source_only() -> None:
    class Picky(fakes.Batching):
        def batch(self, images, regions=None):
            if any(image[0, 0, 0] == 77 for image in images):
                raise ImageError("too narrow")
            return super().batch(images, regions)

    frames = [fakes.image(1), fakes.image(77), fakes.image(2)]
    stats = Pipeline([frames[0:1] * 3, fakes.Numbers(40)], Picky(), batch=8).run()
    assert stats.answered == 43
    stats = Pipeline([iter_source(frames), fakes.Numbers(40)], Picky(), batch=8).run()
    assert [source.error for source in stats.sources] == ["too narrow", None]
    assert [source.answered for source in stats.sources] == [1, 40]


def iter_source(frames: list[np.ndarray]):
    from edge_fg.sources import open_source

    return open_source(frames)


def test_a_source_that_cannot_be_opened_closes_the_others() -> None:
    source = fakes.Numbers(5)
    with pytest.raises(SourceError, match="there is no file"):
        Pipeline([source, "nowhere.mp4"], fakes.first_value)
    assert source.releases == 1


def test_followers_that_cannot_be_made_close_the_sources() -> None:
    def follower(number: int) -> Follower:
        raise UsageError("no OpenCV")

    source = fakes.Numbers(5)
    with pytest.raises(UsageError, match="no OpenCV"):
        Pipeline(source, fakes.first_value, visits=follower)
    assert source.releases == 1


@pytest.mark.parametrize(
    "options", [{"max_frames": 0}, {"batch": 0}, {"policy": "newest"}, {"policy": Latest}]
)
def test_options_that_make_no_sense(options: dict) -> None:
    with pytest.raises(UsageError):
        Pipeline(fakes.Numbers(5), fakes.first_value, **options)


def test_no_source() -> None:
    with pytest.raises(UsageError, match="source"):
        Pipeline([], fakes.first_value)


def test_a_pipeline_runs_once() -> None:
    pipeline = Pipeline(fakes.Numbers(3), fakes.first_value)
    with pytest.raises(UsageError, match="not been started"):
        pipeline.wait()
    pipeline.run()
    with pytest.raises(UsageError, match="runs once"):
        pipeline.run()


def test_stopping_before_the_start_and_twice() -> None:
    source = fakes.Numbers(3)
    pipeline = Pipeline(source, fakes.first_value)
    pipeline.stop()
    pipeline.stop()
    assert source.releases == 1
    assert pipeline.stats().state == "ended"


def test_working_beside_the_program() -> None:
    source, sink = fakes.Numbers(live=True, period=0.001), fakes.Collecting()
    pipeline = Pipeline(source, fakes.first_value, sinks=[sink])
    pipeline.start()
    until(lambda: len(sink.results) > 5)
    assert not pipeline.wait(0.01)
    assert pipeline.stats().state == "running"
    pipeline.stop()
    assert pipeline.stats().state == "ended"
    assert pipeline.stats().answered == len(sink.results)
    assert (source.releases, sink.closes) == (1, 1)


def test_draining_answers_what_waits() -> None:
    model, entered = threading.Semaphore(0), threading.Event()

    def gated(image: np.ndarray) -> int:
        entered.set()
        model.acquire(timeout=HANG)
        return 0

    sink = fakes.Collecting()
    pipeline = Pipeline(fakes.Numbers(live=True), gated, sinks=[sink], policy="queue(5)")
    pipeline.start()
    assert entered.wait(20)
    until(lambda: pipeline.stats().sources[0].waiting == 5)
    drained: list[bool] = []
    drainer = threading.Thread(target=lambda: drained.append(pipeline.drain(20)))
    drainer.start()
    until(lambda: pipeline.stats().state == "draining")
    model.release(100)
    drainer.join(20)
    stats = pipeline.stats()
    assert drained == [True]
    assert len(sink.results) == stats.answered == 6, "five that waited, one that was in work"
    assert stats.sources[0].frames == stats.answered + sum(stats.dropped.values())


def test_draining_that_takes_too_long_is_a_stop() -> None:
    busy = threading.Event()

    def slow(image: np.ndarray) -> int:
        busy.set()
        until(lambda: pipeline.stats().state == "stopping")
        return 0

    pipeline = Pipeline(fakes.Numbers(live=True), slow, policy="queue(100)")
    pipeline.start()
    assert busy.wait(HANG)  # or the one that it takes is counted among those that wait
    until(lambda: pipeline.stats().sources[0].waiting == 100)
    assert not pipeline.drain(0.05)
    stats = pipeline.stats()
    assert stats.state == "ended"
    assert stats.dropped["stopped"] >= 100


def test_a_sink_that_drains_loses_nothing() -> None:
    sink = fakes.Collecting()
    source = fakes.Numbers(gate=threading.Semaphore(6))
    pipeline = Pipeline(source, fakes.Batching(lambda size: 0.02), sinks=[sink])

    def drain_at_the_second(call: int) -> bool:
        if call == 2:
            until(lambda: pipeline.stats().sources[0].frames == 6)
            pipeline.drain()
        return False

    sink.fails = drain_at_the_second
    pipeline.start()
    assert pipeline.wait(HANG)
    assert sink.numbers == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("ending", ["stop", "drain"])
def test_a_listener_to_a_source_may_end_the_pipeline(ending: str) -> None:
    source, sink = fakes.Numbers(3), fakes.Collecting()
    pipeline = Pipeline([source, fakes.Numbers(period=0.01)], fakes.first_value, sinks=[sink])
    source.on_state(lambda change: getattr(pipeline, ending)())
    pipeline.start()
    assert pipeline.wait(HANG)
    assert pipeline.stats().state == "ended"
    assert sink.closes == source.releases == 1


def test_an_interrupted_run_closes_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    source, sink = fakes.Numbers(live=True, period=0.001), fakes.Collecting()
    pipeline = Pipeline(source, fakes.first_value, sinks=[sink])
    wait = pipeline.wait
    monkeypatch.setattr(
        pipeline,
        "wait",
        lambda timeout=None: (
            wait(timeout) if pipeline.stats().state != "running" else raise_interrupt()
        ),
    )
    with pytest.raises(KeyboardInterrupt):
        pipeline.run()
    assert (source.releases, sink.closes) == (1, 1)


def raise_interrupt() -> bool:
    raise KeyboardInterrupt


class Follower:
    """Looks at two regions of odd frames; one visit a source, which ends with it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.finished = 0
        self.seen = 0

    def propose(self, frame: Frame) -> list[tuple[int, int, int, int]]:
        return [(0, 0, 1, 1), (1, 1, 1, 1)] if frame.number % 2 else []

    def update(self, frame: Frame, regions, predictions):
        assert len(regions) == len(predictions)
        self.seen += 1
        return [], [self.event("visit_updated")] if regions else []

    def finish(self) -> list[VisitEvent]:
        self.finished += 1
        return [self.event("visit_ended")] if self.seen else []

    def event(self, kind) -> VisitEvent:
        nothing, box = (None, None, None, None), (0, 0, 1, 1)
        return VisitEvent(
            kind, f"{self.number}-1", "s", *nothing, 1, 0, 0, None, None, box, 0, None
        )


def test_visits_only_proposed_regions_are_looked_at() -> None:
    model, sink = fakes.Batching(), fakes.Collecting()
    sources = [fakes.Numbers(10, name="a"), fakes.Numbers(20, name="b")]
    stats = Pipeline(sources, model, sinks=[sink], visits=Follower, batch=4).run()
    assert stats.answered == 30
    assert sum(model.sizes) == len(model.regions) == 2 * 15
    assert max(model.sizes) <= 4
    assert set(model.regions) == {(0, 0, 1, 1), (1, 1, 1, 1)}
    kinds = [(event.kind, event.visit) for r in sink.results for event in r.events]
    assert kinds.count(("visit_updated", "1-1")) == 5
    assert kinds.count(("visit_updated", "2-1")) == 10
    ends = [r for r in sink.results if r.closing]
    assert sorted(event.visit for r in ends for event in r.events) == ["1-1", "2-1"]
    assert [r.frame.number for r in ends if r.frame.source == "a"][-1] == 9
    assert all(r.prediction is None for r in sink.results)


def test_visits_end_when_the_camera_is_lost() -> None:
    gate = threading.Semaphore(0)
    source, sink = fakes.Numbers(live=True, gate=gate), fakes.Collecting()
    pipeline = Pipeline(source, fakes.Batching(), sinks=[sink], visits=Follower)
    with pipeline:
        pipeline.start()
        gate.release(1)
        until(lambda: len(sink.results) == 1)
        source.say("lost")
        until(lambda: sink.results[-1].closing)
        assert pipeline.stats().sources[0].state == "lost"
        source.say("live")
        gate.release(1)
        until(lambda: not sink.results[-1].closing)


def test_visits_that_are_open_when_it_stops_end() -> None:
    source, sink = fakes.Numbers(live=True, period=0.002), fakes.Collecting()
    with Pipeline(source, fakes.Batching(), sinks=[sink], visits=Follower) as pipeline:
        pipeline.start()
        until(lambda: len(sink.results) > 3)
    assert sink.results[-1].closing
    assert [event.kind for event in sink.results[-1].events][-1] == "visit_ended"
