"""The Q/DQ graph is valid, runs, and computes what fake quantisation by hand computes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edge_fg.errors import CalibrationError, ModelFormatError
from edge_fg_calibration import insert_qdq, place, prepared_copy, validate_qdq
from edge_fg_calibration.int8.weight_quantisation import quantise_weight
from support.inference import predict


def ranges_for(placement, amax: float = 4.0) -> dict[str, float]:
    return dict.fromkeys(placement.activations, amax)


def stored(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}


@pytest.mark.parametrize("options", [{"target": "tensorrt"}, {"residual_adds": True}, {}])
def test_the_graph_is_valid_runs_and_stays_near(residual_net, images, options) -> None:
    placement = place(residual_net, **options)
    model = insert_qdq(residual_net, placement, ranges_for(placement))
    onnx.checker.check_model(model, full_check=True)
    validate_qdq(model)
    assert [one.name for one in model.graph.input] == ["input"]
    assert [one.name for one in model.graph.output] == ["probs"]
    exact = predict(residual_net, [images], "input", "probs")
    found = predict(model, [images], "input", "probs")
    assert np.abs(found - exact).max() < 0.02
    assert np.abs(found - exact).max() > 0  # it did quantise


def test_the_model_given_is_untouched(residual_net) -> None:
    before = residual_net.SerializeToString()
    placement = place(residual_net)
    insert_qdq(residual_net, placement, ranges_for(placement))
    assert residual_net.SerializeToString() == before


def test_weights_are_stored_once_as_int8_and_biases_stay_float(residual_net) -> None:
    placement = place(residual_net, target="tensorrt")
    arrays = stored(insert_qdq(residual_net, placement, ranges_for(placement)))
    original = stored(residual_net)
    for name in ("stem.w", "dw.w", "pw.w", "fc.w"):
        assert name not in arrays
        steps, scale = arrays[f"{name}_quantized"], arrays[f"{name}_scale"]
        assert steps.dtype == np.int8
        assert scale.dtype == np.float32
        back = steps * scale.reshape(-1, *[1] * (steps.ndim - 1))
        assert np.abs(back - original[name]).max() <= scale.max() / 2 * 1.001
    assert arrays["stem.b"].dtype == np.float32


def test_a_product_equals_fake_quantisation_by_hand(make_model) -> None:
    random = np.random.default_rng(0)
    weight = random.normal(size=(16, 24)).astype(np.float32)
    model = make_model(
        [("MatMul", "input w", "y")],
        {"w": weight},
        inputs={"input": ["N", 16]},
        outputs={"y": ["N", 24]},
    )
    x = random.normal(size=(5, 16)).astype(np.float32) * 3
    found = predict(insert_qdq(model, place(model), {"input": 2.0}), [x], "input", "y")
    step = np.float32(2 / 127)
    fake_x = np.clip(np.rint(x / step), -128, 127) * step
    scale = np.abs(weight).max(axis=0) / 127
    fake_w = np.rint(weight / scale) * scale
    np.testing.assert_allclose(found, fake_x @ fake_w, rtol=1e-4, atol=1e-4)


def test_one_pair_serves_all_int8_readers_and_float_readers_keep_the_float(make_model) -> None:
    weights = {name: np.ones((16, 16), np.float32) for name in ("a.w", "b.w")}
    model = make_model(
        [("MatMul", "input a.w", "a"), ("MatMul", "input b.w", "b"), ("Relu", "input", "c")],
        weights,
        inputs={"input": [1, 16]},
        outputs={"a": [1, 16], "b": [1, 16], "c": [1, 16]},
    )
    result = insert_qdq(model, place(model), {"input": 1.0})
    operators = [node.op_type for node in result.graph.node]
    assert operators.count("QuantizeLinear") == 1
    assert operators.count("DequantizeLinear") == 3
    relu = next(node for node in result.graph.node if node.op_type == "Relu")
    assert relu.input[0] == "input"


def test_a_shared_weight_is_stored_once_and_kept_for_float_readers(make_model) -> None:
    model = make_model(
        [
            ("MatMul", "input w", "a"),
            ("MatMul", "a w", "b"),
            ("Add", "b w", "y"),
        ],
        {"w": np.eye(16, dtype=np.float32)},
        inputs={"input": [16, 16]},
        outputs={"y": [16, 16]},
    )
    result = insert_qdq(model, place(model), {"input": 1.0, "a": 1.0})
    assert sorted(name for name in stored(result) if name.startswith("w")) == [
        "w",
        "w_quantized",
        "w_scale",
        "w_zero_point",
    ]


def test_dead_channels_get_a_positive_scale() -> None:
    weight = np.zeros((3, 4), np.float32)
    weight[0] = [1, -2, 0.5, 0]
    steps, scale = quantise_weight(weight, 0)
    assert (scale > 0).all()
    assert np.isfinite(1 / scale).all()
    assert steps.tolist() == [[64, -127, 32, 0], [0] * 4, [0] * 4]


def test_names_that_are_taken_are_avoided(make_model) -> None:
    model = make_model(
        [("Relu", "input", "input_quantized"), ("MatMul", "input w", "w_scale")],
        {"w": np.ones((16, 16), np.float32)},
        inputs={"input": [1, 16]},
        outputs={"input_quantized": [1, 16], "w_scale": [1, 16]},
    )
    result = insert_qdq(model, place(model), {"input": 1.0})
    onnx.checker.check_model(result, full_check=True)
    assert [one.name for one in result.graph.output] == ["input_quantized", "w_scale"]


@pytest.mark.parametrize("amax", [0.0, -1.0, float("nan"), float("inf")])
def test_a_range_that_is_none_is_refused(residual_net, amax) -> None:
    placement = place(residual_net)
    with pytest.raises(CalibrationError, match="'input' has the range"):
        insert_qdq(residual_net, placement, {**ranges_for(placement), "input": amax})
    with pytest.raises(CalibrationError, match="'input' has no calibrated range"):
        insert_qdq(residual_net, placement, {})


def test_weights_that_are_not_finite_are_refused_by_name(make_model) -> None:
    model = make_model(
        [("MatMul", "input w", "y")],
        {"w": np.full((16, 16), np.nan, np.float32)},
        inputs={"input": [1, 16]},
        outputs={"y": [1, 16]},
    )
    with pytest.raises(CalibrationError, match="w: weights are NaN"):
        insert_qdq(model, place(model), {"input": 1.0})


def test_old_operator_sets_and_constant_nodes_are_prepared(make_model) -> None:
    weight = numpy_helper.from_array(np.ones((16, 16), np.float32), "v")
    model = make_model(
        [("Constant", "", "w", {"value": weight}), ("MatMul", "input w", "y")],
        {},
        inputs={"input": [1, 16]},
        outputs={"y": [1, 16]},
        opset=11,
    )
    with pytest.raises(ModelFormatError, match="operator set 13"):
        insert_qdq(model, place(model), {})
    prepared = prepared_copy(model)
    assert prepared.opset_import[0].version == 13
    assert place(prepared).nodes == {"y"}
    validate_qdq(insert_qdq(prepared, place(prepared), {"input": 1.0}))
