"""Every way in which a backend would refuse or miscompute a Q/DQ graph is refused by us."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edge_fg.errors import UnsupportedNodeError
from edge_fg_calibration import insert_qdq, place, to_fp16, validate_qdq


@pytest.fixture
def good(residual_net) -> onnx.ModelProto:
    placement = place(residual_net, target="tensorrt")
    return insert_qdq(residual_net, placement, dict.fromkeys(placement.activations, 3.0))


def put(model: onnx.ModelProto, name: str, array: np.ndarray) -> None:
    for one in model.graph.initializer:
        if one.name == name:
            one.CopyFrom(numpy_helper.from_array(array, name))
            return
    model.graph.initializer.append(numpy_helper.from_array(array, name))


def node(model: onnx.ModelProto, output: str) -> onnx.NodeProto:
    return next(one for one in model.graph.node if output in one.output)


def wrong_axis(model: onnx.ModelProto) -> None:
    one = node(model, "fc.w_dequantized")
    one.attribute[0].i = 1
    put(model, "fc.w_scale", np.ones(16, np.float32))


def missing_scales(model: onnx.ModelProto) -> None:
    put(model, "fc.w_scale", np.ones(7, np.float32))


def per_channel_activation(model: onnx.ModelProto) -> None:
    put(model, "a_scale", np.ones(16, np.float32))
    put(model, "a_zero_point", np.zeros(16, np.int8))


def zero_point(model: onnx.ModelProto) -> None:
    put(model, "a_zero_point", np.array(3, np.int8))


def unsigned(model: onnx.ModelProto) -> None:
    put(model, "a_zero_point", np.array(0, np.uint8))


def zero_scale(model: onnx.ModelProto) -> None:
    put(model, "dw.w_scale", np.zeros(16, np.float32))


def half_scale(model: onnx.ModelProto) -> None:
    put(model, "a_scale", np.array(0.1, np.float16))


def no_zero_point(model: onnx.ModelProto) -> None:
    del node(model, "a_quantized").input[2:]


def other_scale(model: onnx.ModelProto) -> None:
    put(model, "other", np.array(0.5, np.float32))
    node(model, "a_dequantized").input[1] = "other"


def quantised_bias(model: onnx.ModelProto) -> None:
    put(model, "bias8", np.zeros(20, np.int8))
    put(model, "bias_scale", np.ones(1, np.float32)[0])
    one = helper.make_node("DequantizeLinear", ["bias8", "bias_scale"], ["bias"], name="bias")
    model.graph.node.insert(0, one)
    node(model, "logits").input[2] = "bias"


def int32_bias(model: onnx.ModelProto) -> None:
    quantised_bias(model)
    put(model, "bias8", np.zeros(20, np.int32))


def qlinear(model: onnx.ModelProto) -> None:
    node(model, "pw").op_type = "QLinearConv"


def computed_scale(model: onnx.ModelProto) -> None:
    put(model, "half", np.array(0.5, np.float32))
    model.graph.node.insert(0, helper.make_node("Relu", ["half"], ["computed"]))
    node(model, "a_quantized").input[1] = "computed"


@pytest.mark.parametrize(
    ("spoil", "where", "why"),
    [
        (wrong_axis, "Gemm 'logits'", "along axis 1; the output channels are axis 0"),
        (missing_scales, "Gemm 'logits'", "7 scales for 20 output channels"),
        (per_channel_activation, "QuantizeLinear 'a_quantized'", "per channel"),
        (zero_point, "QuantizeLinear 'a_quantized'", "zero point is not 0"),
        (unsigned, "QuantizeLinear 'a_quantized'", "uint8, not int8"),
        (zero_scale, "DequantizeLinear 'dw.w_dequantized'", "above 0"),
        (half_scale, "QuantizeLinear 'a_quantized'", "float16"),
        (no_zero_point, "QuantizeLinear 'a_quantized'", "no INT8 zero point"),
        (other_scale, "DequantizeLinear 'a_dequantized'", "differs"),
        (quantised_bias, "Gemm 'logits'", "bias is quantised"),
        (int32_bias, "DequantizeLinear 'bias'", "dequantises INT32"),
        (qlinear, "QLinearConv 'pw'", "pairs only"),
        (computed_scale, "QuantizeLinear 'a_quantized'", "not a stored tensor"),
    ],
)
def test_a_spoilt_graph_is_refused_by_node(
    good: onnx.ModelProto, spoil: Callable[[onnx.ModelProto], None], where: str, why: str
) -> None:
    validate_qdq(good)
    spoil(good)
    with pytest.raises(UnsupportedNodeError) as caught:
        validate_qdq(good)
    assert str(caught.value).startswith(where)
    assert why in str(caught.value)


def test_mixed_precision_around_the_pairs_is_accepted(good: onnx.ModelProto) -> None:
    half = to_fp16(good)
    validate_qdq(half)
    wrong_axis(half)
    with pytest.raises(UnsupportedNodeError, match="along axis 1"):
        validate_qdq(half)
