"""Sinks of a pipeline: slow, failing, lossless, and what becomes of events."""

from __future__ import annotations

import itertools
import logging
import threading

import numpy as np
import pytest

from edge_fg.errors import OutputError
from edge_fg.pipeline import Pipeline, Result, VisitEvent, sink_worker
from edge_fg.pipeline.result_queue import ResultQueue
from edge_fg.pipeline.sink_worker import SinkWorker
from edge_fg.sources import Frame
from edge_fg.telemetry.histogram import RELATIVE_ERROR
from edge_fg.telemetry.meter import Meter
from support import pipeline_fakes as fakes
from support.clock import FakeClock
from support.waiting import HANG, until

pytestmark = pytest.mark.usefixtures("no_thread_leaks")


def event(name: str) -> VisitEvent:
    box = (0, 0, 1, 1)
    nothing = (None, None, None, None)
    return VisitEvent("visit_ended", name, "s", *nothing, 1, 0, 0, None, None, box, 0, None)


def result(number: int, *events: VisitEvent) -> Result:
    return Result(Frame(np.zeros((2, 2, 3), np.uint8), number, "s"), None, 0.0, events=events)


def test_a_slow_sink_never_stalls_a_live_source_nor_the_other_sinks() -> None:
    class Slow(fakes.Collecting):
        def __call__(self, result) -> None:
            slow_began.set()
            until(lambda: len(fast.results) == 60)
            super().__call__(result)

    class Fast(fakes.Collecting):
        def __call__(self, result) -> None:
            super().__call__(result)
            slow_began.wait(HANG)
            source.gate.release()

    slow_began = threading.Event()
    slow, fast = Slow("slow"), Fast("fast")
    source = fakes.Numbers(60, live=True, gate=threading.Semaphore(1))
    stats = Pipeline(source, fakes.first_value, sinks=[slow, fast], policy="queue(100)").run()
    assert fast.numbers == list(range(60))
    assert stats.answered == 60
    assert slow.numbers == [0, *range(52, 60)], "the one in work, and the newest that can wait"
    assert [(sink.name, sink.dropped) for sink in stats.sinks] == [("slow", 51), ("fast", 0)]


def test_of_files_a_slow_sink_gets_every_result() -> None:
    class Slow(fakes.Collecting):
        def __call__(self, result) -> None:
            # Eight more results wait, a ninth is held back, and behind it stand five frames.
            until(lambda: source.read >= min(40, result.frame.number + 15))
            clock.sleep(0.005)
            super().__call__(result)

    clock = FakeClock()
    source, slow = fakes.Numbers(40, clock=clock), Slow()
    stats = Pipeline(source, fakes.first_value, sinks=[slow], clock=clock).run()
    assert slow.numbers == list(range(40))
    assert stats.sinks[0].latency.p50 == pytest.approx(0.005, rel=RELATIVE_ERROR)
    assert stats.stages["sink"].count == 40


def test_a_sink_may_give_results_of_files_up() -> None:
    class Slow(fakes.Collecting):
        def __call__(self, result) -> None:
            until(lambda: pipeline.stats().answered == 100)
            super().__call__(result)

    slow = Slow(lossless=False)
    pipeline = Pipeline(fakes.Numbers(100), fakes.first_value, sinks=[slow])
    stats = pipeline.run()
    assert stats.answered == 100
    assert stats.sinks[0].dropped >= 90
    assert len(slow.results) + stats.sinks[0].dropped == 100


def test_a_lossless_sink_makes_a_live_source_wait() -> None:
    sink = fakes.Collecting(seconds=0.01, lossless=True)
    source = fakes.Numbers(60, live=True, period=0.002)
    stats = Pipeline(source, fakes.first_value, sinks=[sink]).run()
    assert len(sink.results) == stats.answered < 60
    assert stats.sinks[0].dropped == 0


def test_an_error_of_a_lossless_sink_ends_the_pipeline() -> None:
    sink = fakes.Collecting(lossless=True, fails=lambda call: call == 4)
    other = fakes.Collecting()
    source = fakes.Numbers(live=True, period=0.001)
    pipeline = Pipeline(source, fakes.first_value, sinks=[sink, other])
    with pytest.raises(OSError, match="No space left"):
        pipeline.run()
    assert len(sink.results) == 3
    assert (sink.closes, other.closes, source.releases) == (1, 1, 1)


def test_a_failing_sink_is_counted_said_once_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    sink = fakes.Collecting("card", fails=lambda call: call in (3, 5, 6))
    with caplog.at_level(logging.INFO, "edge_fg"):
        stats = Pipeline(fakes.Numbers(20), fakes.first_value, sinks=[sink]).run()
    assert sink.numbers == [n for n in range(20) if n not in (2, 4, 5)]
    (told,) = stats.sinks
    assert (told.written, told.failures, told.dropped, told.state) == (17, 3, 0, "closed")
    assert "No space left" in told.error
    said = [record.getMessage() for record in caplog.records if "card" in record.getMessage()]
    assert said == ["sink card failed: OSError: [Errno 28] No space left on device"]


def test_a_sink_that_goes_on_failing_is_left_alone_longer_and_longer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, broken = FakeClock(), True
    sink = fakes.Collecting("net", fails=lambda call: broken)
    worker = SinkWorker(sink, blocking=True, fatal=None, meter=Meter(["sink"]), clock=clock)
    worker.start()

    def give(number: int) -> None:
        worker.queue.put(result(number, event(str(number))))
        until(
            lambda: (
                worker.stats().waiting == 0
                and sum((worker.stats().written, worker.stats().failures, worker.stats().dropped))
                == number + 1
            )
        )

    with caplog.at_level(logging.INFO, "edge_fg"):
        number = 0
        calls_at = []
        for _ in range(400):  # four minutes, a result every 0.6 s
            before = sink.calls
            give(number)
            if sink.calls > before:
                calls_at.append(clock.now)
            number += 1
            clock.now += 0.6
        assert worker.stats().state == "failing"
        gaps = np.diff(calls_at)
        assert np.allclose(gaps[:4], 0.6), "five in a row"
        assert 1 <= gaps[4] <= 2
        assert all(b > 1.5 * a for a, b in itertools.pairwise(gaps[4:9])), "doubled"
        assert gaps.max() <= sink_worker.LONGEST_PAUSE + 0.7
        broken = False
        clock.now += 61
        give(number)
        assert worker.stats().state == "open"
    assert len(sink.results) == 1
    # The events of all results that were not taken came with it, up to the first that failed.
    assert [each.visit for each in sink.results[0].events] == [str(n) for n in range(401)]
    worker.queue.finish()
    worker.join(lambda: None)
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith("sink net failed: OSError")
    assert sum("failed" in line for line in said) == 1
    assert said[-1] == "sink net works again"


def test_events_of_dropped_results_come_with_the_next() -> None:
    queue = ResultQueue(1, blocking=False)
    for number in range(4):
        queue.put(result(number, event(f"v{number}")))
    got = queue.wait()
    assert got.frame.number == 3
    assert [each.visit for each in got.events] == ["v0", "v1", "v2", "v3"]
    assert queue.dropped == 3
    queue.put(result(4))
    assert queue.wait().events == ()


def test_a_sink_that_cannot_be_opened_fails_the_start() -> None:
    class Broken(fakes.Collecting):
        def open(self, sources) -> None:
            raise OutputError("the card is read-only")

    source, first = fakes.Numbers(5), fakes.Collecting()
    pipeline = Pipeline(source, fakes.first_value, sinks=[first, Broken()])
    with pytest.raises(OutputError, match="read-only"):
        pipeline.run()
    assert (source.releases, first.closes, first.calls) == (1, 1, 0)
    assert pipeline.stats().state == "ended"


def test_a_sink_that_does_not_return_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from edge_fg.pipeline import sink_group

    monkeypatch.setattr(sink_group, "GRACE", 0.3)
    let_go = threading.Event()

    class Stuck(fakes.Collecting):
        def __call__(self, result) -> None:
            let_go.wait(HANG)

    source = fakes.Numbers()
    pipeline = Pipeline(source, fakes.first_value, sinks=[Stuck("stuck", lossless=True)])
    pipeline.start()
    until(lambda: pipeline.stats().sinks[0].waiting == 8)
    pipeline.stop()
    assert source.releases == 1
    assert "sink stuck does not return: it was abandoned" in caplog.text
    let_go.set()
    until(lambda: not any("stuck" in t.name for t in threading.enumerate()))


def test_a_stop_lets_sinks_write_what_was_answered() -> None:
    sink = fakes.Collecting(seconds=0.01, lossless=True)
    pipeline = Pipeline(fakes.Numbers(), fakes.first_value, sinks=[sink])
    pipeline.start()
    until(lambda: pipeline.stats().sinks[0].waiting == 8)
    pipeline.stop()
    assert sink.numbers == list(range(pipeline.stats().answered))


def test_a_sink_may_stop_the_pipeline() -> None:
    class Stopping(fakes.Collecting):
        def __call__(self, result) -> None:
            super().__call__(result)
            if result.frame.number == 10:
                pipeline.stop()

    sink = Stopping()
    pipeline = Pipeline(fakes.Numbers(), fakes.first_value, sinks=[sink])
    stats = pipeline.run()
    assert stats.state == "ended"
    assert sink.numbers[:11] == list(range(11))
    assert sink.closes == 1


def test_a_slow_loop_over_a_live_source_gets_the_newest() -> None:
    def handed_over() -> int:
        loop = pipeline.stats().sinks[0]
        return loop.written + loop.dropped + loop.waiting

    source = fakes.Numbers(61, live=True, gate=threading.Semaphore(1))
    pipeline = Pipeline(source, fakes.first_value)
    numbers = []
    for each in pipeline:
        numbers.append(each.frame.number)
        for later in range(each.frame.number + 1, min(each.frame.number + 6, 61)):
            source.gate.release()
            until(lambda later=later: handed_over() == later + 1)
        if each.frame.number == 60:
            source.gate.release()
    (loop,) = pipeline.stats().sinks
    assert loop.name == "iteration"
    assert numbers == list(range(0, 61, 5))
    assert (loop.written, loop.dropped) == (13, 48)


def test_a_close_that_fails_is_said(caplog: pytest.LogCaptureFixture) -> None:
    class Full(fakes.Collecting):
        def close(self) -> None:
            raise OutputError("can't finish the video: no space left")

    stats = Pipeline(fakes.Numbers(3), fakes.first_value, sinks=[Full()]).run()
    assert stats.sinks[0].failures == 1
    assert stats.sinks[0].error == "can't finish the video: no space left"
    assert "can't finish the video" in caplog.text
    with pytest.raises(OutputError, match="no space left"):
        Pipeline(fakes.Numbers(3), fakes.first_value, sinks=[Full(lossless=True)]).run()
