"""Mixed precision keeps the interface, the range-sensitive parts and the result."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from edge_fg.errors import UsageError
from edge_fg_calibration import (
    Histogram,
    collect_histograms,
    float_tensors,
    insert_qdq,
    overflowing,
    place,
    to_fp16,
)
from edge_fg_calibration.graph.session import open_session
from support.inference import predict


def made_types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    return {one.name: one.type.tensor_type.elem_type for one in values}


def test_inside_is_half_and_the_interface_is_not(residual_net, images) -> None:
    model = to_fp16(residual_net)
    types = made_types(model)
    assert types["input"] == types["probs"] == TensorProto.FLOAT
    assert {types[name] for name in ("stem", "a", "dw", "pw", "c", "logits")} == {
        TensorProto.FLOAT16
    }
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    assert types[softmax.input[0]] == TensorProto.FLOAT
    stored = {one.name: one.data_type for one in model.graph.initializer}
    assert set(stored.values()) == {TensorProto.FLOAT16}
    exact = predict(residual_net, [images], "input", "probs")
    assert np.abs(predict(model, [images], "input", "probs") - exact).max() < 2e-3


def test_an_output_made_in_half_keeps_its_name_and_type(make_model) -> None:
    model = make_model(
        [("MatMul", "input w", "y"), ("Relu", "y", "z"), ("Softmax", "y", "s")],
        {"w": np.eye(16, dtype=np.float32)},
        inputs={"input": [1, 16]},
        outputs={"y": [1, 16], "z": [1, 16], "s": [1, 16]},
    )
    half = to_fp16(model)
    assert [(o.name, o.type.tensor_type.elem_type) for o in half.graph.output] == [
        ("y", TensorProto.FLOAT),
        ("z", TensorProto.FLOAT),
        ("s", TensorProto.FLOAT),
    ]
    x = np.linspace(-1, 1, 16, dtype=np.float32)[None]
    np.testing.assert_allclose(predict(half, [x], "input", "z"), np.maximum(x, 0), atol=1e-3)


def test_nothing_passes_through_half_between_sensitive_nodes(make_model) -> None:
    model = make_model(
        [
            ("Relu", "input", "x"),
            ("Exp", "x", "e"),
            ("ReduceSum", "e", "s", {"keepdims": 1}),
            ("Log", "s", "y"),
        ],
        {},
        inputs={"input": ["N", 8]},
        outputs={"y": [1, 1]},
    )
    half = to_fp16(model)
    x = np.full((1, 8), 20.0, np.float32)  # exp(20) is 7,400 times what FP16 holds
    expected = 20 + np.log(8)
    assert predict(half, [x], "input", "y")[0, 0] == pytest.approx(expected, rel=1e-4)
    assert made_types(half)["x"] == TensorProto.FLOAT16


def test_decomposed_layer_normalisation_stays_float(make_model) -> None:
    model = make_model(
        [
            ("MatMul", "input w", "h"),
            ("ReduceMean", "h", "m", {"axes": [-1]}),
            ("Sub", "h m", "s"),
            ("Pow", "s two", "sq"),
            ("ReduceMean", "sq", "v", {"axes": [-1]}),
            ("Add", "v eps", "ve"),
            ("Sqrt", "ve", "sd"),
            ("Div", "s sd", "n"),
            ("Mul", "n gain", "y"),
        ],
        {
            "w": np.eye(16, dtype=np.float32) * 300,
            "two": np.float32(2),
            "eps": np.float32(1e-6),
            "gain": np.ones(16, np.float32),
        },
        inputs={"input": ["N", 16]},
        outputs={"y": ["N", 16]},
    )
    half = to_fp16(model)
    types = made_types(half)
    assert {types[name] for name in ("m", "s", "sq", "v", "ve", "sd", "n")} == {TensorProto.FLOAT}
    assert types["h"] == TensorProto.FLOAT16
    x = np.random.default_rng(0).normal(size=(4, 16)).astype(np.float32)  # squares reach 1e5
    exact, found = (predict(one, [x], "input", "y") for one in (model, half))
    np.testing.assert_allclose(found, exact, atol=5e-3)


def test_constants_outside_the_range_keep_their_node_float(make_model) -> None:
    model = make_model(
        [
            ("Relu", "input", "x"),
            ("Mul", "x big", "a"),
            ("Add", "x tiny", "b"),
            ("Mul", "x ok", "c"),
        ],
        {"big": np.float32(1e6), "tiny": np.float32(1e-6), "ok": np.float32(2)},
        inputs={"input": [1, 4]},
        outputs={"a": [1, 4], "b": [1, 4], "c": [1, 4]},
    )
    half = to_fp16(model)
    stored = {one.name: numpy_helper.to_array(one) for one in half.graph.initializer}
    assert stored["big"] == np.float32(1e6)
    assert stored["tiny"] == np.float32(1e-6)
    assert stored["ok_fp16"].dtype == np.float16


def test_a_constant_read_in_both_precisions_is_stored_in_both(make_model) -> None:
    model = make_model(
        [("Mul", "input k", "x"), ("Mul", "input k", "y"), ("Softmax", "y", "z")],
        {"k": np.full(4, 0.1, np.float32)},
        inputs={"input": [1, 4]},
        outputs={"x": [1, 4], "z": [1, 4]},
    )
    half = to_fp16(model, keep_fp32=["y"])
    kinds = sorted(one.data_type for one in half.graph.initializer)
    assert kinds == [TensorProto.FLOAT, TensorProto.FLOAT16]


def test_what_overflows_on_real_values_stays_float(make_model) -> None:
    model = make_model(
        [("Relu", "input", "x"), ("Mul", "x k", "big"), ("Mul", "big j", "y"), ("Neg", "x", "z")],
        {"k": np.float32(50000), "j": np.float32(1e-3)},
        inputs={"input": ["N", 3, 2, 2]},
        outputs={"y": ["N", 3, 2, 2], "z": ["N", 3, 2, 2]},
    )
    batch = np.linspace(0, 3, 24, dtype=np.float32).reshape(2, 3, 2, 2)
    histograms = collect_histograms(model, [batch], float_tensors(model), input_name="input")
    assert overflowing(histograms) == {"big"}
    half = to_fp16(model, wide=overflowing(histograms))
    types = made_types(half)
    assert types["big"] == TensorProto.FLOAT
    assert types["x"] == TensorProto.FLOAT16
    found = open_session(half.SerializeToString()).run(["y"], {"input": batch})[0]
    np.testing.assert_allclose(found, batch * 50, rtol=2e-3)


def test_overflow_is_judged_at_half_the_largest_value() -> None:
    near, far = Histogram(), Histogram()
    near.add(np.array([32000.0]))
    far.add(np.array([-33000.0]))
    assert overflowing({"near": near, "far": far}) == {"far"}


def test_int8_graphs_keep_float32_scales(residual_net, images) -> None:
    placement = place(residual_net)
    int8 = insert_qdq(residual_net, placement, dict.fromkeys(placement.activations, 4.0))
    half = to_fp16(int8)
    types = made_types(half)
    for node in half.graph.node:
        if node.op_type == "QuantizeLinear":
            assert types[node.input[0]] == TensorProto.FLOAT
        if node.op_type == "Conv":
            assert types[node.output[0]] == TensorProto.FLOAT16
    scales = [one for one in half.graph.initializer if one.name.endswith("_scale")]
    assert scales
    assert {one.data_type for one in scales} == {TensorProto.FLOAT}
    exact = predict(int8, [images], "input", "probs")
    assert np.abs(predict(half, [images], "input", "probs") - exact).max() < 0.02


def test_control_flow_keeps_what_it_captures(make_model) -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        agraph (float[1,4] input) => (float[1,4] y) {
            x = Relu(input)
            total = ReduceSum <keepdims = 0> (x)
            zero = Constant <value_float = 0.0> ()
            some = Greater(total, zero)
            z = If (some) <
                then_branch = yes () => (float[1,4] a) { a = Mul(x, x) },
                else_branch = no () => (float[1,4] b) { b = Neg(x) }
            >
            y = Relu(z)
        }
        """
    )
    half = to_fp16(model)
    x = np.array([[1, 2, 3, 4]], np.float32)
    np.testing.assert_allclose(predict(half, [x], "input", "y"), x * x)


def test_a_node_that_is_not_there_is_refused(residual_net) -> None:
    with pytest.raises(UsageError, match="no node of the model is called 'nope'"):
        to_fp16(residual_net, keep_fp32=["nope"])
