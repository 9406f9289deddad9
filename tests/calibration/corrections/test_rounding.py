"""Weight scales and roundings against brute force, and bias correction."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from edge_fg_calibration import insert_qdq, place
from edge_fg_calibration.corrections.bias import bias_corrections
from edge_fg_calibration.corrections.rounding import (
    SHRINKS,
    calibrated_weights,
    gptq_round,
    least_error_scale,
)
from edge_fg_calibration.corrections.zero_point_shift import with_added_biases
from edge_fg_calibration.statistics.channel_statistics import collect_windows, observed_tensors
from support.properties import examples


def _error(weight: np.ndarray, scale: float, importance: np.ndarray) -> float:
    rounded = np.clip(np.rint(weight / scale), -127, 127) * scale
    return float((np.square(rounded - weight) * importance).sum())


@examples(30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_the_scale_is_the_best_of_all_candidates(seed: int, size: int) -> None:
    random = np.random.default_rng(seed)
    weight = random.standard_t(3, size=(3, size))
    importance = random.uniform(0.1, 3, size)
    found = least_error_scale(weight, importance)
    for row, scale in zip(weight, found, strict=True):
        candidates = np.abs(row).max() / 127 * SHRINKS
        least = min(_error(row, one, importance) for one in candidates)
        assert _error(row, float(scale), importance) == pytest.approx(
            least, rel=1e-3, abs=1e-9 * np.square(row).max()
        )


def test_a_dead_channel_has_a_scale_above_zero() -> None:
    assert least_error_scale(np.zeros((2, 9)), np.ones(9)).min() > 0


def test_rounding_in_turn_beats_the_nearest_and_comes_near_the_optimum() -> None:
    random = np.random.default_rng(2)
    mix = random.normal(size=(5, 5)) + 2.0  # strongly correlated inputs
    covariance = mix @ mix.T
    scale = np.array([0.3], np.float32)
    nearest = turned = optimum = 0.0
    for _ in range(30):
        weight = random.normal(size=(1, 5))

        def loss(steps: np.ndarray, weight: np.ndarray = weight) -> float:
            error = (steps * scale[0] - weight)[0]
            return float(error @ covariance @ error)

        down = np.floor(weight / scale[0])
        nearest += loss(np.rint(weight / scale[0]))
        turned += loss(gptq_round(weight, scale, covariance))
        choices = itertools.product((0, 1), repeat=5)
        optimum += min(loss(down + np.array([one])) for one in choices)
    assert turned < 0.5 * nearest
    assert turned < 3 * optimum


def test_uncorrelated_inputs_are_rounded_to_the_nearest() -> None:
    weight = np.random.default_rng(4).normal(size=(3, 7))
    scale = np.array([0.1, 0.2, 0.3], np.float32)
    found = gptq_round(weight, scale, np.diag(np.arange(1.0, 8.0)))
    assert np.array_equal(found, np.rint(weight / scale[:, None]))


def test_windows_are_what_the_convolutions_read(residual_net, images) -> None:
    found = collect_windows(residual_net, [images], ["stem", "dw", "logits"], input_name="input")
    arrays = {one.name: numpy_helper.to_array(one) for one in residual_net.graph.initializer}
    (values,) = [
        {name: np.concatenate([one[name] for one in parts]) for name in ("stem", "dw", "logits")}
        for parts in [
            list(observed_tensors(residual_net, [images], ["stem", "dw", "logits"], "input"))
        ]
    ]
    for key, weight, bias in (("stem", "stem.w", "stem.b"), ("dw", "dw.w", "dw.b")):
        rows = arrays[weight].reshape(found[key].mean.shape[0], -1, found[key].mean.shape[1])
        mean = np.einsum("gow,gw->go", rows, found[key].mean).reshape(-1) + arrays[bias]
        np.testing.assert_allclose(mean, values[key].mean(axis=(0, 2, 3)), atol=1e-4)
        spread = np.einsum("gow,gwv,gov->go", rows, found[key].covariance, rows).reshape(-1)
        np.testing.assert_allclose(spread, values[key].var(axis=(0, 2, 3)), rtol=1e-3, atol=1e-7)
    spread = np.einsum("ow,wv,ov->o", arrays["fc.w"], found["logits"].covariance[0], arrays["fc.w"])
    np.testing.assert_allclose(spread, values["logits"].var(axis=0), rtol=1e-2, atol=1e-6)


def test_bias_correction_takes_off_the_mean_error_of_rounded_weights(residual_net, images) -> None:
    placement = place(residual_net, target="tensorrt")
    nodes = [one.node for one in placement.weights]
    windows = collect_windows(residual_net, [images], nodes, input_name="input")
    coarse = {}
    for one in placement.weights:  # 15 levels only, so that there is an error to take off
        weight = next(t for t in residual_net.graph.initializer if t.name == one.initializer)
        array = numpy_helper.to_array(weight)
        scale = np.full(array.shape[0], np.abs(array).max() / 7, np.float32)
        steps = np.rint(array / scale[0]).astype(np.int8)
        coarse[one.initializer] = (steps, scale)
    amax = dict.fromkeys(placement.activations, 1.0)
    corrected = with_added_biases(
        residual_net, bias_corrections(residual_net, placement, windows, coarse)
    )

    def mean_error(model) -> float:
        quantised = insert_qdq(model, placement, amax, coarse)
        wanted = np.concatenate(
            [one["stem"] for one in observed_tensors(residual_net, [images], ["stem"], "input")]
        )
        found = np.concatenate(
            [one["stem"] for one in observed_tensors(quantised, [images], ["stem"], "input")]
        )
        return float(np.abs((found - wanted).mean(axis=(0, 2, 3))).max())

    assert mean_error(corrected) < 0.3 * mean_error(residual_net)


def test_weights_keep_their_layout(residual_net, images) -> None:
    placement = place(residual_net, target="tensorrt")
    nodes = [one.node for one in placement.weights]
    windows = collect_windows(residual_net, [images], nodes, input_name="input")
    limits = dict.fromkeys(placement.activations, 4.0)
    arrays = {one.name: numpy_helper.to_array(one) for one in residual_net.graph.initializer}
    for gptq in (False, True):
        found = calibrated_weights(residual_net, placement, windows, limits, gptq=gptq)
        assert set(found) == {"stem.w", "dw.w", "pw.w", "fc.w"}
        for name, (steps, scale) in found.items():
            assert steps.shape == arrays[name].shape
            shape = (-1, *(1,) * (steps.ndim - 1))
            error = np.abs(steps * scale.reshape(shape) - arrays[name]).max()
            assert error < 0.2 * np.abs(arrays[name]).max()
