"""Following individuals by where they are."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fg.boxes import iou
from edge_fg.errors import UsageError
from edge_fg.tracking.assignment import assign
from edge_fg.tracking.kalman import AxisFilter
from edge_fg.tracking.track import Detection, TrackerSettings
from edge_fg.tracking.tracker import Tracker
from support.properties import examples

FPS = 15


def run(tracker: Tracker, moments, *, fps: float = FPS, start: float = 0.0):
    """Update with lists of boxes, one a frame; return (number, state, box) for each frame."""
    history = []
    for count, boxes in enumerate(moments):
        tracks = tracker.update([Detection(box) for box in boxes], start + count / fps, (640, 360))
        history.append([(t.number, t.state, t.box) for t in tracks])
    return history


costs = st.integers(0, 5).flatmap(
    lambda columns: st.lists(
        st.lists(
            st.one_of(st.floats(0, 2), st.just(math.inf), st.sampled_from([0.0, 0.5])),
            min_size=columns,
            max_size=columns,
        ),
        max_size=5,
    )
)


@given(costs)
def test_the_assignment_is_as_cheap_as_the_cheapest_of_all(table):
    found = assign(table, 1.0)
    taken = [column for column in found if column is not None]
    assert len(set(taken)) == len(taken)
    price = sum(1.0 if c is None else table[row][c] for row, c in enumerate(found))
    columns = [*range(len(table[0]) if table else 0)]
    everyone_alone = [None] * len(table)
    best = min(
        sum(1.0 if c is None else table[row][c] for row, c in enumerate(choice))
        for choice in set(itertools.permutations([*columns, *everyone_alone], len(table)))
    )
    assert price == pytest.approx(best)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(-50, 50)), max_size=8))
def test_the_filter_of_one_axis_is_the_textbooks(steps):
    moving = AxisFilter(3.0, 2.0, 10.0)
    state, spread = np.array([3.0, 0.0]), np.diag([4.0, 100.0])
    for dt, found in steps:
        moving.predict(dt, 30.0)
        turn = np.array([[1.0, dt], [0.0, 1.0]])
        push = np.array([dt**2 / 2, dt])
        state = turn @ state
        spread = turn @ spread @ turn.T + 30.0**2 * np.outer(push, push)
        assert moving.innovation(2.0) == pytest.approx(spread[0, 0] + 4.0)
        gain = spread[:, 0] / (spread[0, 0] + 4.0)
        moving.update(found, 2.0)
        state = state + gain * (found - state[0])
        spread = spread - np.outer(gain, spread[0])
        assert [moving.position, moving.speed] == pytest.approx(state.tolist(), abs=1e-6)


@examples(60)
@given(st.data())
def test_identities_do_not_swap_while_they_do_not_overlap(data):
    """Two pass one another, above and below; each is missed now and then, the order is random."""
    size = data.draw(st.floats(30, 80))
    apart = size * data.draw(st.floats(1.3, 2.5))
    speeds = [data.draw(st.floats(-1.5, 1.5)) * size for _ in range(2)]
    random = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    tracker = Tracker()
    owner: dict[int, int] = {}
    for frame in range(40):
        boxes = []
        for who in range(2):
            x = 320 + speeds[who] * (frame / FPS - 1.3)
            y = 60 + who * apart + 4 * math.sin(frame / 6)
            jitter = random.normal(0, 0.02 * size, 2)
            boxes.append((x - size / 2 + jitter[0], y + jitter[1], size, size))
        seen = [box for box in boxes if frame < 5 or random.random() > 0.15]
        random.shuffle(seen)
        for track in tracker.update(
            [Detection(tuple(box)) for box in seen], frame / FPS, (640, 360)
        ):
            if track.state == "confirmed":
                who = int(np.argmax([iou(track.box, box) for box in boxes]))
                assert owner.setdefault(track.number, who) == who
    assert sorted(owner) == [1, 2]


@given(
    st.lists(
        st.lists(
            st.tuples(st.floats(0, 600), st.floats(0, 300), st.floats(5, 90), st.floats(5, 90)),
            max_size=4,
        ),
        max_size=25,
    ),
    st.randoms(),
)
def test_numbers_are_never_used_again_and_the_order_does_not_matter(moments, random):
    shuffled = [random.sample(boxes, len(boxes)) for boxes in moments]
    history = run(Tracker(), moments)
    assert history == run(Tracker(), shuffled)
    gone: set[int] = set()
    before: set[int] = set()
    for frame in history:
        now = {number for number, _, _ in frame}
        assert not now & gone
        assert len(now) == len(frame)
        gone |= before - now
        before = now


def still(frames: int, box=(100.0, 100.0, 60.0, 50.0)):
    return [[box]] * frames


def test_something_is_confirmed_only_after_some_frames():
    history = run(Tracker(), still(6))
    assert [len(frame) for frame in history] == [0, 0, 1, 1, 1, 1]
    assert history[-1][0][:2] == (1, "confirmed")


def test_flickering_noise_is_never_confirmed():
    random = np.random.default_rng(0)
    noise = [[(float(random.uniform(0, 600)), 20.0, 12.0, 12.0)] for _ in range(60)]
    assert all(not frame for frame in run(Tracker(), noise))


def test_a_short_gap_is_survived_and_a_long_one_is_not():
    tracker = Tracker(TrackerSettings(lost_s=0.5))
    history = run(tracker, still(5) + [[]] * 6 + still(4))
    assert [frame[0][:2] for frame in history[5:11]] == [(1, "lost")] * 6
    assert history[-1][0][:2] == (1, "confirmed")
    history = run(tracker, [[]] * 10 + still(5), start=1.0)
    assert history[8] == []
    assert history[-1][0][:2] == (2, "confirmed")


def test_after_a_gap_in_the_clock_it_need_not_be_the_same():
    tracker = Tracker()
    assert run(tracker, still(5))[-1][0][0] == 1
    assert run(tracker, still(5), start=60.0)[-1][0][0] == 2


def test_a_source_of_one_frame_a_second_can_be_followed():
    moments = [[(100.0 + 5 * k, 100.0, 60.0, 50.0)] for k in range(8)]
    assert [number for number, _, _ in run(Tracker(), moments, fps=1)[-1]] == [1]


def test_what_leaves_the_frame_is_not_waited_for():
    moments = [[(500.0 + 25 * k, 100.0, 60.0, 50.0)] for k in range(6)] + [[]] * 4
    history = run(Tracker(), moments)
    assert len(history[5]) == 1
    assert history[-1] == []


def test_two_that_touch_are_found_as_one_and_part_as_themselves():
    def at(k: int):
        offset = 130 - 12 * k if k <= 11 else 130 - 12 * (22 - k)
        left, right = (200.0 - offset, 100.0, 60.0, 60.0), (262.0 + offset, 100.0, 60.0, 60.0)
        if offset > 10:
            return [left, right]
        return [(left[0], 100.0, right[0] + 60.0 - left[0], 60.0)]

    history = run(Tracker(), [at(k) for k in range(23)])
    assert len(at(11)) == 1
    assert {number for number, _, _ in history[11]} == {1, 2}
    first = {number: box[0] for number, _, box in history[5]}
    last = {number: box[0] for number, _, box in history[-1]}
    assert set(first) == set(last) == {1, 2}
    assert (first[1] < first[2]) == (last[1] < last[2])


def test_a_box_of_low_score_continues_but_begins_nothing():
    tracker = Tracker()
    weak = [Detection((100.0, 100.0, 60.0, 50.0), 0.2)]
    for k in range(10):
        assert tracker.update(weak, k / FPS) == []
    for k in range(10, 15):
        tracker.update([Detection((100.0, 100.0, 60.0, 50.0), 0.9)], k / FPS)
    for k in range(15, 40):
        assert [t.number for t in tracker.update(weak, k / FPS)] == [1]


def test_what_is_removed_is_followed_no_longer():
    tracker = Tracker()
    run(tracker, still(5))
    tracker.remove(tracker.tracks[0])
    assert tracker.tracks == []
    run(tracker, still(5), start=0.4)
    assert [t.number for t in tracker.tracks] == [2]
    tracker.clear()
    assert tracker.tracks == []


@pytest.mark.parametrize("wrong", [{"confirm_hits": 0}, {"gate": 0}, {"resized": 0.5}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UsageError):
        TrackerSettings(**wrong)
