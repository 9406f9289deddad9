"""Equalised and shifted graphs compute what they did before."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edge_fg_calibration.corrections.equalisation import Setting, channel_factors, rescaled
from edge_fg_calibration.corrections.zero_point_shift import (
    find_padded_shift_places,
    find_shift_places,
    shifted,
)
from edge_fg_calibration.graph.channel_groups import find_channel_groups
from edge_fg_calibration.graph.onnx_graph import Graph
from edge_fg_calibration.statistics.channel_statistics import collect_channel_ranges
from support.inference import predict

PADS = {"pads": [1, 1, 1, 1]}


def _weight(random: np.random.Generator, *shape: int) -> np.ndarray:
    uneven = np.exp(random.normal(size=(shape[0], *(1,) * (len(shape) - 1))))
    return (random.normal(size=shape) * uneven / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


@pytest.fixture(params=["Relu", "Clip"])
def inverted_residual(request, make_model) -> onnx.ModelProto:
    """Two inverted residual blocks, as in MobileNetV2, and a head."""
    random = np.random.default_rng(11)
    extra = " zero six" if request.param == "Clip" else ""
    rows = [("Conv", "input stem.w stem.b", "stem", dict(PADS))]
    arrays = {"stem.w": _weight(random, 8, 3, 3, 3), "stem.b": _weight(random, 8)}
    arrays |= {"zero": np.float32(0), "six": np.float32(6)} if extra else {}
    tensor = "stem"
    for block in ("a", "b"):
        rows += [
            ("Conv", f"{tensor} {block}1.w {block}1.b", f"{block}1"),
            (request.param, f"{block}1{extra}", f"{block}1r"),
            ("Conv", f"{block}1r {block}2.w {block}2.b", f"{block}2", {**PADS, "group": 16}),
            (request.param, f"{block}2{extra}", f"{block}2r"),
            ("Conv", f"{block}2r {block}3.w {block}3.b", f"{block}3"),
            ("Add", f"{block}3 {tensor}", f"{block}sum"),
        ]
        for place, shape in ((1, (16, 8, 1, 1)), (2, (16, 1, 3, 3)), (3, (8, 16, 1, 1))):
            arrays[f"{block}{place}.w"] = _weight(random, *shape)
            arrays[f"{block}{place}.b"] = _weight(random, shape[0])
        tensor = f"{block}sum"
    rows += [
        ("Conv", f"{tensor} last.w", "last"),
        (request.param, f"last{extra}", "lastr"),
        ("GlobalAveragePool", "lastr", "pool"),
        ("Flatten", "pool", "flat"),
        ("Gemm", "flat fc.w fc.b", "logits", {"transB": 1}),
    ]
    arrays |= {"last.w": _weight(random, 16, 8, 1, 1)}
    arrays |= {"fc.w": _weight(random, 10, 16), "fc.b": _weight(random, 10)}
    shapes = {"input": ["N", 3, 12, 12]}, {"logits": ["N", 10]}
    return make_model(rows, arrays, inputs=shapes[0], outputs=shapes[1])


QUANTISED = ["stem", "a1r", "a2r", "asum", "b1r", "b2r", "bsum", "flat"]


def _run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    return predict(model, [images], "input", "logits")


def _ranges(model, images):
    names = [*QUANTISED, "a1", "a2", "b1", "b2", "last"]
    return collect_channel_ranges(model, [images], names, input_name="input")


def test_a_residual_chain_is_one_group_with_all_that_make_and_read_it(inverted_residual) -> None:
    groups = find_channel_groups(Graph(inverted_residual))
    chain = next(group for group in groups if "asum" in group.tensors)
    assert set(chain.tensors) == {"stem", "a3", "asum", "b3", "bsum"}
    assert set(chain.makers) == {"stem", "a3", "b3"}
    assert set(chain.readers) == {"a1", "b1", "last"}
    assert chain.channels == 8
    assert not any({"input", "logits"} & set(group.tensors) for group in groups)


@pytest.mark.parametrize("setting", [Setting(0.5), Setting(1.0), Setting(1.0, extremes=False)])
def test_equalising_keeps_the_function(inverted_residual, images, setting) -> None:
    graph = Graph(inverted_residual)
    ranges = _ranges(inverted_residual, images)
    factors = {}
    for group in find_channel_groups(graph):
        factor = channel_factors(group, ranges, QUANTISED, setting)
        if factor is not None:
            factors[group] = factor
    assert len(factors) == 6
    assert any(factor.max() > 1.5 for factor in factors.values())
    found = _run(rescaled(inverted_residual, factors), images)
    np.testing.assert_allclose(found, _run(inverted_residual, images), rtol=2e-4, atol=2e-5)


def test_equalised_channels_use_the_same_range(inverted_residual, images) -> None:
    graph = Graph(inverted_residual)
    before = _ranges(inverted_residual, images)
    group = next(one for one in find_channel_groups(graph) if "asum" in one.tensors)
    factor = channel_factors(group, before, ["asum"], Setting(1.0))
    assert factor is not None
    after = _ranges(rescaled(inverted_residual, {group: factor}), images)["asum"].magnitude
    np.testing.assert_allclose(after, before["asum"].magnitude.max(), rtol=1e-4)


def test_behind_a_clip_saturated_channels_stay_and_others_keep_below(make_model) -> None:
    gains = np.array([10.0, 1.0, 0.5, 0.0], np.float32).reshape(4, 1, 1, 1)
    model = make_model(
        [
            ("Conv", "input a.w", "a"),
            ("Clip", "a zero six", "r"),
            ("Conv", "r b.w", "b", {"group": 4}),
            ("Relu", "b", "y"),
        ],
        {
            "a.w": gains,
            "b.w": np.ones((4, 1, 1, 1), np.float32),
            "zero": np.float32(0),
            "six": np.float32(6),
        },
        inputs={"input": ["N", 1, 4, 4]},
        outputs={"y": ["N", 4, 4, 4]},
    )
    images = np.linspace(0, 2, 16, dtype=np.float32).reshape(1, 1, 4, 4)
    graph = Graph(model)
    ranges = collect_channel_ranges(model, [images], ["a", "r"], input_name="input")
    (group,) = [one for one in find_channel_groups(graph) if "r" in one.tensors]
    assert group.clips == (("a", 6.0),)
    factor = channel_factors(group, ranges, ["r"], Setting(1.0, headroom=1.5))
    # Observed maxima are 6 (clipped from 20), 2, 1 and 0; 6 / 1.5 = 4 is the highest allowed.
    np.testing.assert_allclose(factor, [1, 2, 4, 1])
    endless = float("inf")
    none = channel_factors(group, ranges, ["r"], Setting(1.0, headroom=endless))
    np.testing.assert_allclose(none, 1)


def test_a_gate_or_a_concatenation_blocks_a_group(make_model) -> None:
    model = make_model(
        [
            ("Conv", "input a.w", "a"),
            ("Sigmoid", "a", "gate"),
            ("Mul", "a gate", "swish"),
            ("Conv", "swish b.w", "b"),
            ("Concat", "b input", "both", {"axis": 1}),
            ("Conv", "both c.w", "c"),
        ],
        {
            "a.w": np.ones((4, 3, 1, 1), np.float32),
            "b.w": np.ones((4, 4, 1, 1), np.float32),
            "c.w": np.ones((2, 7, 1, 1), np.float32),
        },
        inputs={"input": ["N", 3, 4, 4]},
        outputs={"c": ["N", 2, 4, 4]},
    )
    assert find_channel_groups(Graph(model)) == ()


def test_shifting_keeps_the_function(inverted_residual, images) -> None:
    graph = Graph(inverted_residual)
    places = find_shift_places(graph, QUANTISED)
    # The depthwise convolutions add padding, so what they read can't be moved.
    assert {one.tensor for one in places} == {"a2r", "b2r", "flat"}
    shifts = {one: 0.7 + number for number, one in enumerate(places)}
    moved = shifted(inverted_residual, shifts)
    onnx.checker.check_model(moved, full_check=True)
    np.testing.assert_allclose(
        _run(moved, images), _run(inverted_residual, images), rtol=2e-4, atol=2e-5
    )
    names = [one.tensor for one in places]
    before = collect_channel_ranges(inverted_residual, [images], names, input_name="input")
    after = collect_channel_ranges(moved, [images], names, input_name="input")
    for place, shift in shifts.items():
        expected = before[place.tensor].high - shift
        np.testing.assert_allclose(after[place.tensor].high, expected, rtol=1e-4, atol=1e-4)


def test_shifting_behind_padding_pads_before_it_is_rounded(inverted_residual, images) -> None:
    places = find_padded_shift_places(Graph(inverted_residual), QUANTISED)
    assert {one.tensor: one.pads for one in places} == {"a1r": (1, 1, 1, 1), "b1r": (1, 1, 1, 1)}
    shifts = {one: 0.7 + place for place, one in enumerate(places)}
    moved = shifted(inverted_residual, shifts)
    onnx.checker.check_model(moved, full_check=True)
    np.testing.assert_allclose(
        _run(moved, images), _run(inverted_residual, images), rtol=2e-4, atol=2e-5
    )
    makers = {node.output[0]: node.op_type for node in moved.graph.node}
    # The tensor that is quantised is the padded one, or INT8 zeros would stand for -0.7.
    assert makers["a1r"] == makers["b1r"] == "Pad"


def test_readers_that_pad_differently_block_a_padded_shift(make_model) -> None:
    ones = np.ones((4, 1, 3, 3), np.float32)
    rows = [
        ("Conv", "input a.w", "a"),
        ("Relu", "a", "r"),
        ("Conv", "r b.w", "b", {**PADS, "group": 4}),
        ("Conv", "r c.w", "c", {"pads": [1, 1, 0, 0], "group": 4}),
    ]
    arrays = {"a.w": np.ones((4, 3, 1, 1), np.float32), "b.w": ones, "c.w": ones}
    shapes = {"b": ["N", 4, 4, 4], "c": ["N", 4, 3, 3]}
    for count, expected in ((3, ["r"]), (4, [])):
        outputs = dict(list(shapes.items())[: count - 2])
        model = make_model(rows[:count], arrays, inputs={"input": ["N", 3, 4, 4]}, outputs=outputs)
        assert [one.tensor for one in find_padded_shift_places(Graph(model), ["r"])] == expected
