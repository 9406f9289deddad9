"""Fusing answers over time, and holding one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fg.errors import UsageError
from edge_fg.tracking.smoothing import (
    OpinionPool,
    SmoothingSettings,
    StableAnswer,
    frame_quality,
)
from support.properties import examples

CLASSES = 4


def normalised(weights: list[float]) -> np.ndarray:
    values = np.array(weights) + 1e-3
    return values / values.sum()


distributions = st.lists(st.floats(0, 1), min_size=CLASSES, max_size=CLASSES).map(normalised)
observations = st.lists(
    st.tuples(st.floats(0.01, 3.0), distributions, st.floats(0.05, 1.0)), min_size=1, max_size=12
)


def fused(frames, chosen: SmoothingSettings) -> OpinionPool:
    """Take in (gap, distribution, quality) one after the other."""
    pool, now = OpinionPool(chosen), 0.0
    for gap, distribution, quality in frames:
        now += gap
        pool.add(distribution, now, quality)
    return pool


def brute_force(frames, chosen: SmoothingSettings) -> np.ndarray:
    """The pool as its docstring defines it, each frame's weight written out."""
    times = np.cumsum([gap for gap, _, _ in frames])
    weights, logs = [], []
    for place, (_, distribution, quality) in enumerate(frames):
        # The first frame brings as much news as the gap behind it says.
        gap = frames[max(place, 1)][0] if len(frames) > 1 else math.inf
        news = 1.0 - math.exp(-gap / chosen.correlation_s)
        weights.append(quality * news * math.exp(-(times[-1] - times[place]) / chosen.memory_s))
        mixed = (1 - chosen.outliers) * distribution + chosen.outliers / CLASSES
        logs.append(np.log(mixed))
    total = sum(weights)
    worth = total * chosen.most / (total + chosen.most) if len(frames) > 1 else 0.0
    mean = sum(w * log for w, log in zip(weights, logs, strict=True)) / total
    scores = np.exp(max(1.0, worth) * mean / chosen.temperature)
    return scores / scores.sum()


@given(observations, st.floats(0.5, 20), st.floats(0.05, 2), st.floats(0.5, 3))
def test_the_pool_is_what_brute_force_gives(frames, memory_s, correlation_s, temperature):
    chosen = SmoothingSettings(
        memory_s=memory_s, correlation_s=correlation_s, temperature=temperature
    )
    assert np.allclose(fused(frames, chosen).distribution(), brute_force(frames, chosen), rtol=1e-6)


@given(st.lists(distributions, min_size=2, max_size=8), st.randoms())
def test_without_decay_the_order_of_evenly_spaced_frames_does_not_matter(frames, random):
    chosen = SmoothingSettings(memory_s=1e12)
    shuffled = random.sample(frames, len(frames))
    one = fused([(0.1, d, 1.0) for d in frames], chosen).distribution()
    other = fused([(0.1, d, 1.0) for d in shuffled], chosen).distribution()
    assert np.allclose(one, other, rtol=1e-6)


@given(observations)
def test_the_pool_is_a_distribution_and_its_evidence_is_bounded(frames):
    pool = fused(frames, SmoothingSettings(most=3.0))
    assert pool.distribution().sum() == pytest.approx(1.0)
    assert pool.distribution().min() >= 0.0
    assert 0.0 <= pool.evidence < 3.0
    assert pool.count == len(frames)


def test_twice_the_frame_rate_is_not_twice_the_evidence():
    answer = normalised([0.6, 0.4, 0, 0])
    slow = fused([(1 / 15, answer, 1.0)] * 30, SmoothingSettings())
    fast = fused([(1 / 60, answer, 1.0)] * 120, SmoothingSettings())
    assert fast.evidence == pytest.approx(slow.evidence, rel=0.1)
    apart = fused([(2.0, answer, 1.0)] * 4, SmoothingSettings())
    together = fused([(0.01, answer, 1.0)] * 4, SmoothingSettings())
    assert apart.evidence > 5 * together.evidence


def test_frames_that_agree_make_surer_and_one_that_disagrees_is_no_veto():
    single = normalised([0.6, 0.2, 0.2, 0])
    pool = fused([(0.5, single, 1.0)] * 6, SmoothingSettings())
    assert pool.distribution()[0] > 0.8 > single[0]
    pool.add([0.0, 1.0, 0.0, 0.0], 3.1, 1.0)
    assert pool.distribution().argmax() == 0


def test_a_bad_frame_counts_less_and_an_old_one_too():
    good, bad = normalised([1, 0.2, 0, 0]), normalised([0.2, 1, 0, 0])
    assert fused([(1, good, 1.0), (1, bad, 0.1)], SmoothingSettings()).distribution().argmax() == 0
    assert fused([(1, good, 0.1), (1, bad, 1.0)], SmoothingSettings()).distribution().argmax() == 1
    forgetful = SmoothingSettings(memory_s=0.5)
    assert fused([(1, good, 1.0), (2, bad, 1.0)], forgetful).distribution().argmax() == 1


def test_a_higher_temperature_makes_less_sure():
    frames = [(0.5, normalised([0.7, 0.3, 0, 0]), 1.0)] * 5
    cool = fused(frames, SmoothingSettings()).distribution()
    warm = fused(frames, SmoothingSettings(temperature=3.0)).distribution()
    assert warm[0] < cool[0]


def test_before_any_frame_nothing_is_believed():
    pool = OpinionPool()
    assert pool.distribution() is None
    assert pool.evidence == 0.0


@examples(200)
@given(
    st.lists(st.tuples(st.floats(0.01, 0.3), distributions), max_size=60),
    st.floats(0.05, 1.0),
    st.floats(0.0, 0.5),
)
def test_an_answer_never_changes_faster_than_its_dwell(moments, dwell_s, margin):
    held = StableAnswer(SmoothingSettings(dwell_s=dwell_s, margin=margin, threshold=0.4))
    now, before, changes = 0.0, None, []
    for gap, pool in moments:
        now += gap
        answer = held.update(pool, 5.0, now)
        if answer != before:
            changes.append(now)
            before = answer
    assert all(b - a >= dwell_s for a, b in itertools.pairwise(changes))
    assert all(when >= dwell_s for when in changes)


@given(st.lists(st.tuples(st.floats(0.01, 0.5), distributions), max_size=40))
def test_every_answer_once_stood_above_the_threshold(moments):
    chosen = SmoothingSettings(threshold=0.5)
    held, now, fit = StableAnswer(chosen), 0.0, {None}
    for gap, pool in moments:
        now += gap
        fit |= {int(k) for k in np.flatnonzero(pool >= chosen.threshold)}
        assert held.update(pool, 5.0, now) in fit


def hold(pools: list[list[float]], step_s: float = 0.5, evidence: float = 5.0) -> list:
    held = StableAnswer(SmoothingSettings(threshold=0.6, release=0.3, margin=0.2, dwell_s=0.4))
    return [held.update(np.array(b), evidence, k * step_s) for k, b in enumerate(pools)]


def test_an_answer_is_taken_kept_replaced_and_given_up():
    sure, other, torn = [0.8, 0.2, 0.0], [0.2, 0.8, 0.0], [0.45, 0.5, 0.05]
    lost = [0.1, 0.3, 0.3]
    assert hold([torn, torn, torn]) == [None, None, None]
    assert hold([sure, sure]) == [None, 0]
    assert hold([sure, sure, torn, torn, torn]) == [None, 0, 0, 0, 0]
    assert hold([sure, sure, other, sure, other, other]) == [None, 0, 0, 0, 0, 1]
    assert hold([sure, sure, lost, lost]) == [None, 0, 0, None]
    assert hold([sure, sure, sure], evidence=0.1) == [None, None, None]


def test_a_sharp_large_calm_frame_is_worth_most():
    best = frame_quality(10, 10, 200, 100, 0.0)
    assert best == 1.0
    for worse in [(1, 10, 200, 100, 0.0), (10, 10, 30, 100, 0.0), (10, 10, 200, 100, 3.0)]:
        assert 0.05 <= frame_quality(*worse) < 0.5
    assert frame_quality(0, 0, 200, 100, 0.0) == 1.0


@pytest.mark.parametrize(
    "wrong",
    [{"memory_s": 0}, {"threshold": 1.2}, {"release": 0.7}, {"dwell_s": -1}, {"temperature": -1}],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UsageError):
        SmoothingSettings(**wrong)
