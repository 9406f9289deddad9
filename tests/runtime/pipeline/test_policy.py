"""Which frames are answered: what policies say, and what their queues do."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fg.errors import SourceError, UsageError
from edge_fg.pipeline import Every, Latest, Policy, Queue, Rate, parse_policy
from edge_fg.pipeline.frame_queue import FrameQueue
from edge_fg.sources import Frame
from support.clock import FakeClock
from support.waiting import unchanged

POLICIES = st.one_of(
    st.just(Every()),
    st.builds(Latest, st.sampled_from([0.5, 2.0, 7.25])),
    st.builds(Queue, st.integers(1, 10_000), st.sampled_from(["oldest", "newest", "block"])),
    st.builds(Rate, st.sampled_from([1e-6, 0.1, 5.0, 29.97])),
)


def frame(number: int, *, captured: float = 0.0, position: float | None = None) -> Frame:
    return Frame(np.zeros((2, 2, 3), np.uint8), number, "s", position=position, captured=captured)


def taken(queue: FrameQueue) -> list[int]:
    numbers = []
    while (got := queue.take()) is not None:
        numbers.append(got.number)
    return numbers


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("latest", Latest()),
        ("latest()", Latest()),
        ("latest(max_age=0.5)", Latest(0.5)),
        ("latest(max_age=inf)", Latest(float("inf"))),
        ("every", Every()),
        ("queue(8)", Queue(8)),
        ("queue(8,drop=newest)", Queue(8, "newest")),
        (' queue( 8 , drop = "block" ) ', Queue(8, "block")),
        ("rate(5)", Rate(5)),
        ("rate(0.1)", Rate(0.1)),
    ],
)
def test_policies_as_they_are_written(text: str, policy: Policy) -> None:
    assert parse_policy(text) == policy


@given(POLICIES)
def test_a_policy_is_written_as_it_is_read(policy: Policy) -> None:
    assert parse_policy(str(policy)) == policy


@pytest.mark.parametrize(
    "text",
    [
        "",
        "newest",
        "latest(1)",
        "latest(max_age=x)",
        "latest(max_age=0)",
        "latest(max_age=nan)",
        "every(2)",
        "queue",
        "queue()",
        "queue(0)",
        "queue(2.5)",
        "queue(99999)",
        "queue(8,8)",
        "queue(8,drop=all)",
        "queue(8,drop=oldest,drop=newest)",
        "rate()",
        "rate(0)",
        "rate(1e-12)",
        "rate(-1)",
        "rate(inf)",
        "rate(5",
        "rate(5)x",
    ],
)
def test_what_is_no_policy(text: str) -> None:
    with pytest.raises(UsageError):
        parse_policy(text)


@given(st.text(max_size=40))
def test_any_text_is_a_policy_or_a_usage_error(text: str) -> None:
    try:
        policy = parse_policy(text)
    except UsageError as error:
        assert "\n" not in str(error)
    else:
        assert parse_policy(str(policy)) == policy


def test_latest_the_newest_wins() -> None:
    queue = FrameQueue(Latest(), live=True, clock=FakeClock())
    for number in range(5):
        assert queue.put(frame(number))
    assert taken(queue) == [4]
    assert queue.dropped == {"overtaken": 4}
    assert queue.frames == 5


def test_latest_what_is_too_old_is_dropped() -> None:
    clock = FakeClock()
    queue = FrameQueue(Latest(max_age=0.5), live=True, clock=clock)
    queue.put(frame(0, captured=0.0))
    clock.now = 0.5
    assert taken(queue) == [0]
    queue.put(frame(1, captured=0.5))
    clock.now = 1.001
    assert queue.take() is None
    assert queue.dropped == {"stale": 1}


@pytest.mark.parametrize(("drop", "kept"), [("oldest", [3, 4]), ("newest", [0, 1])])
def test_a_full_queue_drops_its_oldest_or_newest(drop: str, kept: list[int]) -> None:
    queue = FrameQueue(Queue(2, drop), live=True, clock=FakeClock())
    for number in range(5):
        assert queue.put(frame(number))
    assert taken(queue) == kept
    assert queue.dropped == {"full": 3}


@pytest.mark.parametrize("policy", [Every(), Queue(4, "block")])
def test_back_pressure_loses_nothing(policy: Policy) -> None:
    queue = FrameQueue(policy, live=False)

    def produce() -> None:
        for number in range(200):
            queue.put(frame(number))
        queue.finish()

    producer = threading.Thread(target=produce)
    producer.start()
    numbers = []
    while (got := queue.wait()) is not None:
        numbers.append(got.number)
        assert len(queue) <= 4
    producer.join()
    assert numbers == list(range(200))
    assert queue.dropped == {}


def test_closing_frees_a_source_that_waits() -> None:
    queue = FrameQueue(Every(), live=False)
    for number in range(4):
        queue.put(frame(number))
    outcome: list[bool] = []
    producer = threading.Thread(target=lambda: outcome.append(queue.put(frame(4))))
    producer.start()
    queue.close()
    producer.join(20)
    assert outcome == [False]
    assert queue.wait() is None
    assert queue.frames == sum(queue.dropped.values()) == 5


def test_an_error_comes_after_the_frames_before_it() -> None:
    queue = FrameQueue(Every(), live=False)
    queue.put(frame(0))
    queue.finish(SourceError("lost"))
    assert queue.wait().number == 0
    with pytest.raises(SourceError, match="lost"):
        queue.wait()


@pytest.mark.parametrize("source_fps", [30.0, 29.97, 12.0, 10.0])
def test_a_rate_of_a_live_source_is_met_on_average(source_fps: float) -> None:
    """The camera's clock trembles, by up to a third of its period."""
    noise = np.random.default_rng(1).uniform(-0.33, 0.33, 3000) / source_fps
    queue = FrameQueue(Rate(5), live=True, clock=lambda: 0.0)
    numbers = []
    for number in range(3000):
        queue.put(frame(number, captured=10 + number / source_fps + float(noise[number])))
        numbers += taken(queue)
    assert len(numbers) == pytest.approx(5 * 3000 / source_fps, rel=0.01)
    gaps = np.diff(numbers) / source_fps
    assert gaps.max() <= 0.2 + 2 / source_fps, "evenly spread"
    assert queue.dropped == {"rate": 3000 - len(numbers)}


def test_a_rate_higher_than_the_source_drops_nothing() -> None:
    queue = FrameQueue(Rate(100), live=True, clock=lambda: 0.0)
    for number in range(50):
        queue.put(frame(number, captured=number / 25))
        assert taken(queue) == [number]
    assert queue.dropped == {}


def test_a_rate_does_not_catch_up_after_a_gap() -> None:
    queue = FrameQueue(Rate(10), live=True, clock=lambda: 0.0)
    times = [0.0, 60.0, 60.01, 60.02, 60.05, 60.11, 60.12]
    numbers = []
    for number, at in enumerate(times):
        queue.put(frame(number, captured=at))
        numbers += taken(queue)
    assert numbers == [0, 1, 5]


def test_of_a_live_source_with_a_rate_the_newest_is_taken() -> None:
    queue = FrameQueue(Rate(10), live=True, clock=lambda: 0.0)
    for number in range(10):
        queue.put(frame(number, captured=number * 0.05))
    assert taken(queue) == [8]
    assert queue.dropped == {"rate": 5, "overtaken": 4}


def test_a_video_file_is_thinned_by_its_own_clock_and_loses_nothing_else() -> None:
    queue = FrameQueue(Rate(5), live=False)

    def produce() -> None:
        for number in range(300):
            queue.put(frame(number, position=round(number / 30, 3)))
        queue.finish()

    producer = threading.Thread(target=produce)
    producer.start()
    numbers = []
    while (got := queue.wait()) is not None:
        numbers.append(got.number)
    producer.join()
    assert numbers == list(range(0, 300, 6))


def test_what_has_no_clock_is_held_back_and_nothing_is_lost() -> None:
    clock = FakeClock()
    queue = FrameQueue(Rate(100), live=False, clock=clock)

    def produce() -> None:
        for number in range(5):
            queue.put(frame(number))
        queue.finish()

    producer = threading.Thread(target=produce)
    producer.start()
    numbers = []
    while (got := queue.wait()) is not None:
        numbers.append(got.number)
        assert unchanged(lambda: len(queue)) == 0, "a frame came before its time"
        clock.now += 0.01
    producer.join()
    assert numbers == list(range(5))


@given(
    st.sampled_from([Latest(0.5), Queue(3), Queue(2, "newest"), Rate(7.0)]),
    st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=60),
)
def test_every_frame_is_accounted_for(policy: Policy, steps: list[tuple[bool, float]]) -> None:
    clock = FakeClock()
    queue = FrameQueue(policy, live=True, clock=clock)
    answered = []
    for number, (put, wait) in enumerate(steps):
        clock.now += wait
        if put:
            queue.put(frame(number, captured=clock.now))
        elif (got := queue.take()) is not None:
            assert policy != Latest(0.5) or clock.now - got.captured <= 0.5
            answered.append(got.number)
        assert queue.frames == len(answered) + len(queue) + sum(queue.dropped.values())
    assert answered == sorted(set(answered))
