"""What a pipeline tells of itself: histograms, counts that add up, JSON."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fg.pipeline import Pipeline
from edge_fg.telemetry.histogram import LARGEST, RELATIVE_ERROR, SMALLEST, Histogram
from edge_fg.telemetry.meter import Meter
from edge_fg.telemetry.process import open_descriptors, resident_bytes
from support import pipeline_fakes as fakes
from support.clock import FakeClock
from support.properties import examples
from support.waiting import HANG, until

SECONDS = st.floats(SMALLEST, LARGEST)


def filled(values) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@pytest.mark.skipif(
    np.lib.NumpyVersion(np.__version__) < "1.22.0", reason="NumPy 1.21 has no such percentile"
)
@examples(200)
@given(st.lists(SECONDS, min_size=1, max_size=200), st.floats(0, 100))
def test_percentiles_against_numpy(values: list[float], percent: float) -> None:
    (found,) = filled(values).percentiles([percent])
    exact = float(np.percentile(values, percent, method="inverted_cdf"))
    assert found == pytest.approx(exact, rel=RELATIVE_ERROR + 1e-9)


@pytest.mark.parametrize("spread", [0.05, 0.5, 2.0])
def test_a_summary_against_numpy(spread: float) -> None:
    values = np.random.default_rng(0).lognormal(np.log(0.02), spread, 20_000)
    summary = filled(values.tolist()).summary()
    assert summary.count == 20_000
    assert summary.mean == pytest.approx(values.mean())
    assert summary.max == values.max()
    for told, percent in [(summary.p50, 50), (summary.p90, 90), (summary.p99, 99)]:
        assert told == pytest.approx(np.percentile(values, percent), rel=RELATIVE_ERROR + 0.001)


def test_an_empty_histogram_and_values_out_of_range() -> None:
    summary = Histogram().summary()
    assert (summary.count, summary.mean, summary.p50, summary.max) == (0, 0, 0, 0)
    summary = filled([0.0, -1e-9, 1e-12]).summary()
    assert summary.count == 3
    assert 0 <= summary.p99 <= 1.1 * SMALLEST
    summary = filled([1e9]).summary()
    assert summary.max == 1e9
    assert summary.p99 == pytest.approx(LARGEST, rel=0.1)


def test_memory_of_a_histogram_is_fixed() -> None:
    histogram = Histogram()
    before = sys.getsizeof(histogram._counts)
    for value in np.random.default_rng(0).uniform(0, 100, 10_000):
        histogram.add(float(value))
    assert sys.getsizeof(histogram._counts) == before < 10_000


def test_the_rate_is_that_of_the_latest_answers_and_sinks_when_none_comes() -> None:
    now = [0.0]
    meter = Meter([], clock=lambda: now[0])
    assert meter.rate() == 0
    for _ in range(300):
        now[0] += 0.1
        meter.answered(0.01)
    assert meter.rate() == pytest.approx(10)
    for _ in range(200):
        now[0] += 0.02
        meter.answered(0.01)
    assert meter.rate() == pytest.approx(50)
    now[0] += 1000
    assert meter.rate() < 0.2
    # What a throttle takes its share of: a camera that was away is not a slow one.
    assert meter.pace() == pytest.approx(50)
    meter.answered(0.01)
    assert meter.rate() < 0.2
    assert meter.pace() == pytest.approx(50)


def test_the_process() -> None:
    assert resident_bytes() > 5_000_000
    before = open_descriptors()
    with Path(sys.executable).open("rb"):
        assert open_descriptors() == before + 1
    assert open_descriptors() == before


def test_counts_add_up_at_any_moment() -> None:
    """Read by two threads while frames come from three sources, dropped in three ways."""
    sources = [fakes.Numbers(400, name=name, live=True, period=0.0005) for name in "abc"]
    wrong: list[object] = []
    model = fakes.Batching(lambda size: 0.001)
    pipeline = Pipeline(sources, model, policy="queue(3)", sinks=[fakes.Collecting()])
    pipeline.start()

    def look() -> None:
        before = 0
        while pipeline.stats().state != "ended":
            stats = pipeline.stats()
            in_work = 0
            for source in stats.sources:
                rest = source.answered + sum(source.dropped.values()) + source.waiting
                in_work += source.frames - rest
            answered = sum(source.answered for source in stats.sources)
            good = answered == stats.answered == stats.age.count and 0 <= in_work <= 9
            if not good or answered < before:
                wrong.append((in_work, stats))
            before = answered

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    pipeline.wait()
    for thread in threads:
        thread.join()
    assert wrong == []
    stats = pipeline.stats()
    assert [source.frames for source in stats.sources] == [400] * 3
    assert stats.answered + stats.dropped["full"] == 1200
    assert stats.rate == 0
    assert stats.sinks[0].written + stats.sinks[0].dropped == stats.answered


def test_stages_are_told_apart() -> None:
    class Latency:
        preprocess_ms, inference_ms = 4.0, 16.0

    class Answer:
        latency = Latency()

    clock, gate = FakeClock(), threading.Semaphore(0)

    class Source(fakes.Numbers):
        def _read(self):
            gate.acquire(timeout=HANG)
            clock.sleep(0.06)
            return super()._read()

    class Sink(fakes.Collecting):
        def __call__(self, result) -> None:
            clock.sleep(0.005)

    def model(image: np.ndarray) -> Answer:
        clock.sleep(0.02)
        return Answer()

    with Pipeline(Source(20, clock=clock), model, sinks=[Sink()], clock=clock) as pipeline:
        pipeline.start()
        for number in range(21):
            gate.release()
            until(lambda: pipeline.stats().sinks[0].written == min(number + 1, 20))  # noqa: B023
        pipeline.wait()
    stats = pipeline.stats()
    about = {name: summary.p50 for name, summary in stats.stages.items()}
    assert list(about) == ["capture", "queue", "preprocess", "inference", "sink"]
    assert about["preprocess"] == pytest.approx(0.004, rel=0.03)
    assert about["inference"] == pytest.approx(0.016, rel=0.03)
    assert about["sink"] == pytest.approx(0.005, rel=0.03)
    # A source waits here until the answer before has been written.
    assert 0.059 <= about["capture"] < 0.06 + 0.02 + 0.005 + 0.003
    assert stats.age.p50 == pytest.approx(0.02, rel=0.03)
    assert all(summary.count == 20 for summary in stats.stages.values())


def test_it_is_ready_for_json() -> None:
    pipeline = Pipeline(fakes.Numbers(30, live=True), fakes.first_value, sinks=[fakes.Collecting()])
    assert pipeline.stats().uptime == 0
    told = json.loads(json.dumps(pipeline.run().to_dict()))
    assert told["answered"] == told["sources"][0]["answered"]
    assert told["sources"][0]["policy"] == "latest"
    assert set(told["age"]) == {"count", "mean", "p50", "p90", "p99", "max"}
    assert told["sinks"][0]["state"] == "closed"
    assert told["rss_bytes"] > 0
    assert told["throttle"] is None
    assert told["uptime"] > 0
    later = pipeline.stats().uptime
    assert later == told["uptime"], "it stands still after the end"


def test_engine_memory_where_it_is_known() -> None:
    model = fakes.Batching()
    assert Pipeline(fakes.Numbers(1), model).run().engine_bytes is None
    model.engine_bytes = 123
    assert Pipeline(fakes.Numbers(1), model).run().engine_bytes == 123


def test_reading_them_costs_the_same_after_many_frames() -> None:
    def lines_run(frames: int) -> int:
        """Count the lines of Python that one reading runs."""

        def trace(*_: object) -> Callable[..., Any]:
            nonlocal count
            count += 1
            return trace

        count = 0
        pipeline = Pipeline(fakes.Numbers(frames), fakes.first_value, sinks=[fakes.Collecting()])
        pipeline.run()
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            pipeline.stats()
        finally:
            sys.settrace(before)
        return count

    few, many = lines_run(200), lines_run(2000)
    assert many < 1.5 * few < 15_000, (few, many)
