"""Several sources, one engine: fair shares, batches where they pay, a rate that is lowered."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fg.errors import OutputError, UsageError
from edge_fg.pipeline import Every, Latest, Pipeline, Throttle
from edge_fg.pipeline.batch_size import BatchSizer
from edge_fg.pipeline.frame_queue import FrameQueue
from edge_fg.pipeline.scheduler import Scheduler, Turn
from edge_fg.sources import Frame
from edge_fg.telemetry.device import Reading
from edge_fg.telemetry.stats import SourceStats
from support import pipeline_fakes as fakes
from support.clock import FakeClock
from support.properties import examples
from support.waiting import unchanged, until


class Sharing:
    """Queues and their schedule, worked without threads."""

    def __init__(self, count: int, **options: object) -> None:
        lock = threading.RLock()
        changed = threading.Condition(lock)
        self.queues = [
            FrameQueue(Every(), live=False, lock=lock, changed=changed) for _ in range(count)
        ]
        self.schedule = Scheduler(self.queues, changed, **options)
        self.put = [0] * count

    def fill(self, numbers) -> None:
        for number in numbers:
            while len(self.queues[number]) < 4:
                frame = Frame(np.zeros((2, 2, 3), np.uint8), self.put[number], str(number))
                self.queues[number].put(frame)
                self.put[number] += 1


@examples(25)
@given(st.lists(st.sampled_from([1.0, 2.0, 5.0, 30.0]), min_size=2, max_size=6))
def test_sources_that_always_have_frames_get_equal_time(costs: list[float]) -> None:
    sharing = Sharing(len(costs))
    time = [0.0] * len(costs)
    for _ in range(600):
        sharing.fill(range(len(costs)))
        ((number, _),) = sharing.schedule.take(lambda waiting: 1).frames
        time[number] += costs[number]
        sharing.schedule.charge(number, costs[number])
    # Nobody is ahead of anybody by more than the longest frame.
    assert max(time) - min(time) <= max(costs)


def test_with_equal_costs_it_is_round_robin() -> None:
    sharing = Sharing(4)
    order = []
    for _ in range(12):
        sharing.fill(range(4))
        ((number, _),) = sharing.schedule.take(lambda waiting: 1).frames
        sharing.schedule.charge(number, 1.0)
        order.append(number)
    assert order == [0, 1, 2, 3] * 3


@examples(30)
@given(st.data())
def test_no_source_waits_for_more_than_one_turn_of_each_other(data: st.DataObject) -> None:
    """Whatever frames cost, and whoever comes and goes: costs are equal within a source."""
    count = data.draw(st.integers(2, 5))
    sharing = Sharing(count)
    waited = [0] * count
    for _ in range(60):
        sharing.fill(data.draw(st.sets(st.integers(0, count - 1), min_size=1)))
        ((number, _),) = sharing.schedule.take(lambda waiting: 1).frames
        sharing.schedule.charge(number, 1.0)
        for other, queue in enumerate(sharing.queues):
            waited[other] = waited[other] + 1 if other != number and len(queue) else 0
        # One turn of each that was there first, and one of each that came meanwhile.
        assert max(waited) <= 2 * (count - 1)


def test_time_of_idleness_is_not_saved_up() -> None:
    sharing = Sharing(2)
    for _ in range(100):
        sharing.fill([0])
        sharing.schedule.take(lambda waiting: 1)
        sharing.schedule.charge(0, 1.0)
    order = []
    for _ in range(10):
        sharing.fill([0, 1])
        ((number, _),) = sharing.schedule.take(lambda waiting: 1).frames
        sharing.schedule.charge(number, 1.0)
        order.append(number)
    assert order.count(1) in (5, 6), "the one that was idle must not take all"


@pytest.mark.parametrize("ending", ["finish", "interrupt"])
def test_a_source_whose_last_frames_are_stale_is_closed_all_the_same(ending: str) -> None:
    clock, lock = FakeClock(), threading.RLock()
    changed = threading.Condition(lock)
    queue = FrameQueue(Latest(max_age=1), live=True, lock=lock, changed=changed, clock=clock)
    schedule = Scheduler([queue], changed)
    queue.put(Frame(np.zeros((2, 2, 3), np.uint8), 0, "cam", captured=0.0))
    getattr(queue, ending)()
    clock.now = 5.0
    turns: list[Turn | None] = []
    taking = threading.Thread(
        target=lambda: turns.append(schedule.take(lambda waiting: 1)), daemon=True
    )
    taking.start()
    taking.join(5)
    assert [(turn.frames, turn.closing) for turn in turns] == [([], [0])]
    assert queue.dropped == {"stale": 1}


def test_a_batch_may_hold_one_frame_of_each_or_several() -> None:
    sharing = Sharing(3)
    sharing.fill(range(3))
    assert len(sharing.schedule.take(lambda waiting: waiting).frames) == 12
    sharing = Sharing(3, one_each=True)
    sharing.fill(range(3))
    taken = sharing.schedule.take(lambda waiting: 8).frames
    assert sorted(number for number, _ in taken) == [0, 1, 2]


def test_shares_through_the_pipeline() -> None:
    """A camera of 500 frames a second beside one of 50: the engine takes 10 ms a frame."""
    clock, turns = FakeClock(), itertools.count(1)
    fast, slow = (
        fakes.Numbers(live=True, gate=threading.Semaphore(1), name=name, clock=clock)
        for name in ("fast", "slow")
    )
    given = {"fast": 1, "slow": 1}

    def cost(size: int) -> float:
        for _ in range(size):
            fast.gate.release(5)
            given["fast"] += 5
            if next(turns) % 2 == 0:
                slow.gate.release()
                given["slow"] += 1
        until(lambda: all(each.frames == given[each.name] for each in pipeline.stats().sources))
        return 0.01 * size

    model = fakes.Batching(cost, clock.sleep)
    pipeline = Pipeline([fast, slow], model, max_frames=80, clock=clock)
    stats = pipeline.run()
    fast_stats, slow_stats = stats.sources
    assert slow_stats.answered >= 25, "nearly its half, though it offers a tenth of the frames"
    assert fast_stats.answered >= 35


def work(batch: BatchSizer, cost, waiting: int, calls: int) -> list[int]:
    sizes = []
    for _ in range(calls):
        size = batch.choose(waiting)
        assert 1 <= size <= waiting
        batch.add(size, cost(size))
        sizes.append(size)
    return sizes


def test_where_a_batch_does_not_pay_frames_are_asked_for_one_by_one() -> None:
    batch = BatchSizer()
    sizes = work(batch, lambda size: 0.010 * size, 16, 1000)
    assert batch.current == 1
    assert sizes.count(1) > 980
    assert max(sizes) == 2, "what is worse is not made worse yet"


def test_where_a_batch_pays_the_largest_that_waits_is_taken() -> None:
    batch = BatchSizer()
    sizes = work(batch, lambda size: 0.002 + 0.0002 * size, 16, 1000)
    assert batch.current == 16
    assert sizes.count(16) > 900
    assert batch.choose(5) == 4
    assert batch.split(21) == [16, 4, 1]


def test_the_best_size_lies_where_the_cost_per_frame_ceases_to_fall() -> None:
    cost = {1: 1.0, 2: 1.2, 4: 1.6, 8: 3.1, 16: 6.2}
    batch = BatchSizer()
    work(batch, cost.__getitem__, 16, 200)
    assert batch.current == 4


def test_what_was_measured_is_measured_again() -> None:
    batch = BatchSizer()
    work(batch, lambda size: 0.010 * size, 16, 600)
    assert batch.current == 1
    work(batch, lambda size: 0.002 + 0.0002 * size, 16, 3000)
    assert batch.current == 16


def test_the_first_call_of_a_size_does_not_count() -> None:
    batch, seen = BatchSizer(), set()

    def cost(size: int) -> float:
        warm = size in seen
        seen.add(size)
        return 0.001 if warm else 10.0

    work(batch, cost, 16, 100)
    assert batch.current == 16


@given(st.integers(1, 20), st.integers(1, 50))
def test_a_size_that_was_chosen_is_kept(fixed: int, waiting: int) -> None:
    batch = BatchSizer(fixed)
    assert batch.choose(waiting) == min(fixed, waiting)
    assert sum(batch.split(waiting)) == waiting


def test_batches_through_the_pipeline() -> None:
    def run(sources: list[fakes.Numbers], cost: Callable[[int], float]):
        """Run with a model that starts when all queues are full, and takes so many seconds."""

        def cost_of_full(size: int) -> float:
            until(lambda: all(map(is_full, pipeline.stats().sources)))
            return cost(size)

        clock = FakeClock()
        model = fakes.Batching(cost_of_full, clock.sleep)
        pipeline = Pipeline(sources, model, clock=clock)
        return model, pipeline.run()

    def is_full(source: SourceStats) -> bool:
        return source.waiting == 4 or source.state == "ended"

    sources = [fakes.Numbers(200, name=str(n)) for n in range(4)]
    model, stats = run(sources, lambda size: 0.004 + 0.0001 * size)
    assert stats.answered == sum(model.sizes) == 800
    assert np.median(model.sizes) >= 4
    assert stats.batch >= 4
    model, stats = run([fakes.Numbers(100) for _ in range(2)], lambda size: 0.003 * size**1.5)
    assert stats.batch == 1
    assert sum(size > 1 for size in model.sizes) <= 4 + stats.answered // 100


class Sensors:
    def __init__(self) -> None:
        self.reading = Reading(40.0, 5.0)

    def __call__(self) -> Reading:
        if isinstance(self.reading, Exception):
            raise self.reading
        return self.reading


@pytest.fixture
def sensors() -> Sensors:
    return Sensors()


def test_a_throttle_steps_down_and_up_again(
    sensors: Sensors, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    throttle = Throttle(sensors, max_temperature_c=80, settle=10, clock=clock)

    def after(seconds: float, temperature: float) -> float:
        clock.now += seconds
        sensors.reading = Reading(temperature, 5.0)
        throttle.update(20.0)
        return throttle.stats().share

    with caplog.at_level(logging.INFO, "edge_fg"):
        assert after(2, 79.9) == 1.0
        assert throttle.rate_limit() is None
        assert after(2, 80.1) == 0.75
        assert throttle.rate_limit() == 15.0
        assert throttle.stats().reason == "80.1 °C is over 80 °C"
        assert after(2, 85.0) == 0.75, "it gets time to settle"
        assert after(8, 85.0) == 0.5
        assert [after(20, 90.0) for _ in range(5)] == [0.35, 0.25, 0.1, 0.1, 0.1]
        assert after(20, 78.0) == 0.1, "hysteresis"
        assert after(20, 74.9) == 0.25
        assert [after(20, 60.0) for _ in range(5)] == [0.35, 0.5, 0.75, 1.0, 1.0]
    assert throttle.rate_limit() is None
    assert throttle.stats().reason is None
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "throttle: 80.1 °C is over 80 °C, lowered to 75 % of the rate"
    assert said[-1] == "throttle: back to the full rate"
    assert len(said) == 10


def test_a_power_budget(sensors: Sensors) -> None:
    clock = FakeClock()
    throttle = Throttle(sensors, max_power_w=10, max_temperature_c=80, settle=0, clock=clock)
    for power, share in [(9.9, 1.0), (10.1, 0.75), (9.5, 0.75), (8.9, 1.0)]:
        clock.now += 1
        sensors.reading = Reading(50.0, power)
        throttle.update(10)
        assert throttle.stats().share == share


def test_a_sensor_that_fails_is_said_once_and_changes_nothing(
    sensors: Sensors, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    throttle = Throttle(sensors, max_temperature_c=80, settle=0, clock=clock)
    sensors.reading = Reading(90.0)
    throttle.update(10)
    caplog.clear()
    sensors.reading = OutputError("no thermal zone")
    with caplog.at_level(logging.WARNING, "edge_fg"):
        for _ in range(3):
            clock.now += 10
            throttle.update(10)
    assert throttle.stats().share == 0.75
    assert len(caplog.records) == 1
    sensors.reading = Reading(None, 3.0)
    clock.now += 10
    throttle.update(10)
    assert throttle.stats().share == 0.75, "without a temperature nobody knows that it is cool"


def test_a_device_that_is_too_hot_from_the_start(sensors: Sensors) -> None:
    throttle = Throttle(sensors, max_temperature_c=80, settle=10, clock=FakeClock())
    sensors.reading = Reading(95.0)
    throttle.update(0.0)
    assert throttle.rate_limit() is None, "there is no rate yet to take a share of"
    throttle.update(20.0)
    assert throttle.rate_limit() == 15.0


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_temperature_c": float("nan")},
        {"max_power_w": 0},
        {"max_power_w": 10, "hysteresis_share": 1.0},
        {"max_temperature_c": 80, "hysteresis_c": -1},
        {"max_temperature_c": 80, "steps": (1.0,)},
        {"max_temperature_c": 80, "steps": (0.9, 0.5)},
        {"max_temperature_c": 80, "steps": (1.0, 0.5, 0.5)},
        {"max_temperature_c": 80, "steps": (1.0, 0.0)},
        {"max_temperature_c": 80, "period": 0},
    ],
)
def test_a_throttle_that_makes_no_sense(sensors: Sensors, options: dict) -> None:
    with pytest.raises(UsageError):
        Throttle(sensors, **options)


def test_a_hot_device_through_the_pipeline(sensors: Sensors) -> None:
    clock = FakeClock()
    throttle = Throttle(
        sensors, max_temperature_c=80, period=0.001, settle=600, steps=(1.0, 0.2), clock=clock
    )
    source = fakes.Numbers(live=True, gate=threading.Semaphore(0), clock=clock)
    sink = fakes.Collecting(lossless=True)

    def give_frame(after_s: float) -> None:
        clock.sleep(after_s)
        source.gate.release()

    with Pipeline(
        source, fakes.first_value, sinks=[sink], throttle=throttle, clock=clock
    ) as pipeline:
        pipeline.start()
        for number in range(60):
            give_frame(0.02)
            until(lambda: len(sink.results) == number + 1)  # noqa: B023
        sensors.reading = Reading(95.0)
        until(lambda: pipeline.stats().throttle.share == 0.2)
        assert pipeline.stats().throttle.rate_limit == pytest.approx(0.2 * 50)
        # The first comes at once; then one in 0.1 s, which is every fourth.
        for number in range(40):
            give_frame(0.03)
            until(lambda: len(sink.results) >= 61 + number // 4)  # noqa: B023
        assert unchanged(lambda: len(sink.results)) == 70
        # Fewer answers, not older ones.
        assert max(result.age_s for result in sink.results[60:]) < 0.031
    assert pipeline.stats().throttle.temperature_c == 95.0


def test_a_camera_hears_when_its_next_frame_is_wanted() -> None:
    """So that it need not decode the frames before: at the end of the turn, not later."""

    class Camera(fakes.Numbers):
        def __init__(self, **options) -> None:
            super().__init__(live=True, clock=clock, **options)
            self.told: list[float] = []

        def wanted_at(self, moment: float) -> None:
            self.told.append(moment - clock.now)

    def cost(size: int) -> float:
        camera.gate.release()
        return 0.02

    clock = FakeClock()
    camera = Camera(count=60, gate=threading.Semaphore(1))
    stats = Pipeline(camera, fakes.Batching(cost, clock.sleep), clock=clock).run()
    assert stats.answered == 60
    assert camera.told == pytest.approx([0.02] * 51), "once a turn, when nine have been timed"
    for policy in ("every", "queue(4)"):
        camera = Camera(count=20)
        Pipeline(camera, fakes.Batching(), policy=policy).run()
        assert camera.told == [], "each frame may be answered"
