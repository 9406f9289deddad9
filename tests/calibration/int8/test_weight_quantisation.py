"""Weights on a grid of their own keep it; all others are left to the usual scale."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fg_calibration.corrections.rounding import least_error_scale
from edge_fg_calibration.int8.weight_quantisation import grid_levels, quantise_weight
from support.properties import examples


@examples(100)
@given(st.integers(1, 127), st.integers(8, 300), st.floats(1e-6, 1e3), st.integers(0, 2**32))
def test_weights_on_a_grid_are_stored_without_error(levels, size, step, seed) -> None:
    random = np.random.default_rng(seed)
    whole = random.integers(-levels, levels, (3, size), endpoint=True)
    whole[:, 0] = levels
    weight = (whole * step).astype(np.float32)
    assert (grid_levels(weight) <= levels).all()
    steps, scale = quantise_weight(weight, 0)
    np.testing.assert_allclose(steps * scale[:, None], weight, rtol=1e-5, atol=1e-5 * step)
    best = least_error_scale(weight.astype(np.float64), np.ones(1))
    rest = weight / best[:, None] - np.rint(weight / best[:, None])
    assert np.abs(rest).max() < 0.01


def test_each_channel_has_its_own_grid_along_any_axis() -> None:
    random = np.random.default_rng(1)
    whole = random.integers(-50, 50, (16, 4, 3, 3), endpoint=True)
    whole[:, 0, 0, 0] = 50
    steps_of = random.uniform(0.001, 0.1, 16)
    weight = (whole * steps_of[:, None, None, None]).astype(np.float32)
    for axis in (0, 1):
        steps, scale = quantise_weight(np.moveaxis(weight, 0, axis), axis)
        np.testing.assert_array_equal(np.moveaxis(steps, axis, 0), whole)
        np.testing.assert_allclose(scale, steps_of, rtol=1e-5)


@examples(50)
@given(st.integers(0, 2**32), st.integers(9, 200))
def test_ordinary_weights_have_none(seed, size) -> None:
    weight = np.random.default_rng(seed).normal(size=(20, size)).astype(np.float32)
    assert (grid_levels(weight) == 127).all()


@pytest.mark.parametrize("value", [0.0, 1e-30])
def test_dead_channels_and_short_ones_are_left_alone(value: float) -> None:
    _, scale = quantise_weight(np.full((4, 27), value, np.float32), 0)
    assert np.isfinite(scale).all()
    assert (scale > 0).all()
    assert (grid_levels(np.ones((5, 3), np.float32)) == 127).all()
