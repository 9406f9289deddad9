"""Infinite values inside a sound model: padding and masks are no fault, NaN and outputs are."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from edge_fg.errors import CalibrationError, ModelError
from edge_fg_calibration import (
    collect_histograms,
    float_tensors,
    overflowing,
    quantize_int8,
    to_fp16,
    validate_qdq,
)
from edge_fg_calibration.int8.model_warnings import infinity_warnings
from edge_fg_calibration.statistics.channel_statistics import collect_channel_ranges
from edge_fg_calibration.statistics.collection import collect_statistics
from edge_fg_calibration.statistics.tensor_statistics import Statistics
from support.inference import predict

HUGE = np.float32(-3.4e38)
PADS = np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int64)
POOL = {"kernel_shape": [3, 3], "strides": [2, 2]}
# Rows that make "m" (16 channels) from "a", their arrays, what gives infinite values, what stays
# float32 beside FP16.
CASES = {
    "padding of a maximum": (
        [("Pad", "a pads low", "p"), ("MaxPool", "p", "m", POOL)],
        {"pads": PADS, "low": np.float32(-np.inf)},
        ["Pad 'p'"],
        set(),
    ),
    "a mask by selection": (
        [("Where", "keep a low", "p"), ("Softmax", "p", "m", {"axis": 3})],
        {"keep": np.arange(12) < 9, "low": np.float32(-np.inf)},
        ["Where 'p'"],
        {"m"},
    ),
    "a mask by addition": (
        [("Add", "a mask", "p"), ("Softmax", "p", "m", {"axis": 3})],
        {"mask": np.where(np.arange(12) < 9, 0, -np.inf).astype(np.float32)},
        ["Add 'p'"],
        {"m"},
    ),
    "a mask near float32's end": (
        [("Add", "a mask", "p"), ("Softmax", "p", "m", {"axis": 3})],
        {"mask": np.where(np.arange(12) < 9, 0, HUGE).astype(np.float32)},
        [],
        {"p", "m"},
    ),
    "a computed constant near float32's end": (
        [
            ("Expand", "low shape", "lows"),
            ("Mul", "lows inverse", "mask"),
            ("Add", "a mask", "p"),
            ("Softmax", "p", "m", {"axis": 3}),
        ],
        {
            "low": HUGE,
            "shape": np.array([12]),
            "inverse": (np.arange(12) >= 9).astype(np.float32),
        },
        [],
        {"lows", "mask", "p", "m"},
    ),
    "a logarithm of zero": (
        [("Log", "a", "p"), ("Exp", "p", "m")],
        {},
        ["Log 'p'"],
        {"p", "m"},
    ),
}


def net(make_model, case: str) -> onnx.ModelProto:
    random = np.random.default_rng(2)
    rows, arrays, *_ = CASES[case]
    return make_model(
        [
            ("Conv", "input stem.w stem.b", "stem", {"pads": [1, 1, 1, 1]}),
            ("Relu", "stem", "a"),
            *[(*row[:3], dict(*row[3:])) for row in rows],
            ("Conv", "m mix.w", "mix"),
            ("Relu", "mix", "b"),
            ("GlobalAveragePool", "b", "pool"),
            ("Flatten", "pool", "flat"),
            ("Gemm", "flat fc.w", "logits", {"transB": 1}),
        ],
        {
            **arrays,
            "stem.w": random.normal(size=(16, 3, 3, 3)).astype(np.float32) / 3,
            "stem.b": np.full(16, 0.5, np.float32),
            "mix.w": random.normal(size=(24, 16, 1, 1)).astype(np.float32),
            "fc.w": random.normal(size=(20, 24)).astype(np.float32) * 4,
        },
        inputs={"input": ["N", 3, 12, 12]},
        outputs={"logits": ["N", 20]},
    )


@pytest.mark.parametrize("case", CASES)
def test_fp16_keeps_infinity_where_it_can_and_names_the_node(make_model, images, case) -> None:
    model = net(make_model, case)
    *_, named, in_float = CASES[case]
    found = collect_statistics(model, [images], float_tensors(model), input_name="input")
    said = infinity_warnings(model, found.infinite)
    assert [one.split(" gives infinite")[0] for one in said] == named
    assert all(np.isfinite(one.amax) for one in found.histograms.values())
    half = to_fp16(model, wide=overflowing(found.histograms))
    types = {
        one.name: one.type.tensor_type.elem_type
        for one in onnx.shape_inference.infer_shapes(half).graph.value_info
    }
    made = {row[2] for row in CASES[case][0]}
    assert {name for name in made if types[name] == TensorProto.FLOAT} == in_float
    expected = predict(model, [images], "input", "logits")
    np.testing.assert_allclose(predict(half, [images], "input", "logits"), expected, atol=0.1)


def test_only_finite_values_are_counted_and_kept_between_builds(make_model, images) -> None:
    model = net(make_model, "padding of a maximum")
    found = collect_statistics(model, [images], ["a", "p"], input_name="input")
    assert found.infinite == {"p"}
    before, padded = found.histograms["a"], found.histograms["p"]
    assert padded.to_dict() == before.to_dict()
    assert Statistics.from_dict(found.to_dict()).to_dict() == found.to_dict()
    both = collect_statistics(model, [images], ["a", "p"], input_name="input")
    both.merge(Statistics.from_dict(found.to_dict()))
    assert both.infinite == {"p"}
    with pytest.raises(CalibrationError, match="not observed"):
        Statistics.from_dict({**found.to_dict(), "infinite": ["q"]})
    ranges = collect_channel_ranges(model, [images], ["a", "p"], input_name="input")
    for what in ("magnitude", "usual", "low"):
        np.testing.assert_array_equal(getattr(ranges["p"], what), getattr(ranges["a"], what))


def test_int8_leaves_in_float_what_reads_infinity(make_model, images) -> None:
    random = np.random.default_rng(4)
    model = make_model(
        [
            ("Conv", "input stem.w", "stem"),
            ("Where", "keep stem low", "masked"),
            ("Conv", "masked mix.w", "mix"),
            ("Relu", "mix", "b"),
            ("GlobalAveragePool", "b", "pool"),
            ("Flatten", "pool", "flat"),
            ("Gemm", "flat fc.w", "logits", {"transB": 1}),
        ],
        {
            "stem.w": random.normal(size=(16, 3, 3, 3)).astype(np.float32),
            "keep": np.arange(10) < 9,
            "low": np.float32(-np.inf),
            # Weights above 0, so that -inf stays -inf, and the Relu makes it 0.
            "mix.w": random.uniform(0.1, 1, (16, 16, 1, 1)).astype(np.float32),
            "fc.w": random.normal(size=(20, 16)).astype(np.float32),
        },
        inputs={"input": ["N", 3, 12, 12]},
        outputs={"logits": ["N", 20]},
    )
    found = quantize_int8(
        model, lambda: [images], input_name="input", output_name="logits", kind="logits"
    )
    validate_qdq(found.model)
    assert found.placement.nodes == {"stem", "logits"}
    assert ("mix", "Conv", "reads infinite values") in found.placement.skipped
    assert found.infinite == {"masked"}
    assert np.isfinite(predict(found.model, [images], "input", "logits")).all()


@pytest.mark.parametrize(
    ("rows", "begins"),
    [
        ([("Log", "s", "p"), ("Relu", "p", "q"), ("Neg", "q", "y")], "Log 'p'"),
        # Minus infinity is sound, what becomes of it is not.
        ([("Where", "keep s low", "p"), ("Mul", "p zero", "q"), ("Neg", "q", "y")], "Mul 'q'"),
        ([("Where", "keep s low", "p"), ("Sub", "p p", "q"), ("Neg", "q", "y")], "Sub 'q'"),
        ([("Where", "keep s low", "p"), ("Neg", "p", "y")], "Where 'p'"),
    ],
)
def test_nan_and_a_bad_output_are_errors_that_name_where_they_begin(
    make_model, images, rows, begins
) -> None:
    model = make_model(
        [("Neg", "input", "s"), *rows],
        {"keep": np.arange(12) < 9, "low": np.float32(-np.inf), "zero": np.float32(0)},
        inputs={"input": ["N", 3, 12, 12]},
        outputs={"y": ["N", 3, 12, 12]},
    )
    with pytest.raises(CalibrationError, match=f"NaN or infinite.*number 1, .*begins at {begins}"):
        collect_histograms(model, [images], ["y"], input_name="input")
    with pytest.raises((CalibrationError, ModelError), match=f"begins at {begins}"):
        collect_histograms(model, [images], float_tensors(model), input_name="input")
