"""The streaming histogram counts the same whatever the order, the batches and the merging."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fg.errors import CalibrationError
from edge_fg_calibration import Histogram

values = st.lists(
    st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=60
)


def filled(*arrays: np.ndarray, bins: int = 64) -> Histogram:
    histogram = Histogram(bins)
    for array in arrays:
        histogram.add(array)
    return histogram


@given(values, st.randoms(use_true_random=False), st.integers(1, 7))
def test_order_and_batches_do_not_matter(data: list[float], random, size: int) -> None:
    whole = filled(np.array(data, np.float32))
    mixed = list(data)
    random.shuffle(mixed)
    array = np.array(mixed, np.float32)
    parts = filled(*(array[n : n + size] for n in range(0, len(array), size)))
    assert parts.to_dict() == whole.to_dict()


@given(values, values, values)
def test_merging_does_not_depend_on_order(one, two, three) -> None:
    arrays = [np.array(data, np.float32) for data in (one, two, three)]
    whole = filled(*arrays)
    left, right = filled(arrays[0]), filled(arrays[2])
    left.merge(filled(arrays[1]))
    left.merge(filled(arrays[2]))
    right.merge(filled(arrays[0]))
    right.merge(filled(arrays[1]))
    assert left.to_dict() == right.to_dict() == whole.to_dict()


@given(values)
def test_counts_match_a_count_by_hand(data: list[float]) -> None:
    array = np.array(data, np.float32)
    histogram = filled(array)
    magnitudes = np.abs(array.astype(np.float64))
    assert histogram.count == len(data)
    assert histogram.zeros == int((array == 0).sum())
    assert histogram.amax == magnitudes.max() < histogram.limit
    assert (histogram.minimum, histogram.maximum) == (array.min(), array.max())
    by_hand, _ = np.histogram(magnitudes, bins=np.arange(65) * histogram.width)
    assert histogram.counts.tolist() == by_hand.tolist()


@given(values)
def test_json_and_back(data: list[float]) -> None:
    histogram = filled(np.array(data, np.float32))
    again = Histogram.from_dict(json.loads(json.dumps(histogram.to_dict())))
    assert again.to_dict() == histogram.to_dict()


def test_memory_is_bounded_by_the_number_of_bins() -> None:
    histogram = Histogram(256)
    for exponent in range(-30, 31):
        histogram.add(np.full(10, 2.0**exponent, np.float32))
    assert histogram.counts.shape == (256,)
    assert histogram.counts.sum() == 610
    assert histogram.limit == 2.0**31


def test_an_outlier_in_the_first_batch_is_as_good_as_in_the_last() -> None:
    normal = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    outlier = np.array([60.0], np.float32)
    assert filled(normal, outlier).to_dict() == filled(outlier, normal).to_dict()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_and_not_counted(bad: float) -> None:
    histogram = filled(np.ones(3, np.float32))
    before = histogram.to_dict()
    with pytest.raises(CalibrationError, match="NaN or infinite"):
        histogram.add(np.array([1.0, bad, 2.0], np.float32))
    assert histogram.to_dict() == before


def test_nonsense_is_refused() -> None:
    with pytest.raises(CalibrationError, match="power of two"):
        Histogram(100)
    with pytest.raises(CalibrationError, match="can't be merged"):
        Histogram(64).merge(Histogram(128))
    good = filled(np.arange(5, dtype=np.float32)).to_dict()
    for broken in (
        {},
        {**good, "count": 7},
        {**good, "exponent": 9},
        {**good, "counts": good["counts"][:-1]},
        {**good, "minimum": "low"},
    ):
        with pytest.raises(CalibrationError):
            Histogram.from_dict(broken)
