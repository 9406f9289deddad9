"""Refusing INT8 graphs that a backend would reject, or worse, accept and compute wrongly.

TensorRT-RTX accepts a wrong weight axis and per-channel activations without a word, so nothing
is left to its parser.
"""

from __future__ import annotations

import numpy as np
import onnx

from edge_fg.errors import UnsupportedNodeError
from edge_fg_calibration.graph.onnx_graph import WEIGHTED_OPS, Graph, attribute, describe
from edge_fg_calibration.graph.weights import weight_axis

_PAIR = frozenset({"QuantizeLinear", "DequantizeLinear"})
_DYNAMIC = frozenset({"DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"})


def validate_qdq(model: onnx.ModelProto) -> None:
    """Check that the explicit INT8 of a graph means the same to every backend.

    Raises
    ------
    UnsupportedNodeError
        A QLinear, integer or dynamically quantising operator, a scale that is not a stored
        positive float32, a zero point that is not 0, an activation quantised per channel, a
        weight quantised along another axis than its output channels, a quantised bias. The
        message names the node.
    """
    graph = Graph(model)
    for node in graph.nodes:
        if node.op_type.startswith("QLinear") or node.op_type in _DYNAMIC:
            raise UnsupportedNodeError(
                f"{describe(node)}: TensorRT takes INT8 as QuantizeLinear and DequantizeLinear "
                f"pairs only"
            )
        if node.op_type in _PAIR:
            _check_scale(graph, node)
            _check_zero_point(graph, node)
            _check_kind(graph, node)
        if node.op_type in WEIGHTED_OPS:
            _check_weight(graph, node)
            _check_bias(graph, node)


def _scale_of(
    graph: Graph, node: onnx.NodeProto
) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    if len(node.input) < 2 or node.input[1] not in graph.initializers:
        raise UnsupportedNodeError(f"{describe(node)}: its scale is not a stored tensor")
    return graph.array(node.input[1])


def _check_scale(graph: Graph, node: onnx.NodeProto) -> None:
    scale = _scale_of(graph, node)
    if scale.dtype != np.float32:
        raise UnsupportedNodeError(
            f"{describe(node)}: its scale is {scale.dtype}; only float32 scales mean the same to "
            f"every backend"
        )
    values = scale.astype(np.float64)
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise UnsupportedNodeError(f"{describe(node)}: scales must be finite and above 0")


def _check_zero_point(graph: Graph, node: onnx.NodeProto) -> None:
    name = node.input[2] if len(node.input) > 2 else ""
    if not name:
        # Without a zero point QuantizeLinear gives uint8, which TensorRT doesn't take.
        if node.op_type == "QuantizeLinear":
            raise UnsupportedNodeError(f"{describe(node)}: no INT8 zero point")
        return
    if name not in graph.initializers:
        raise UnsupportedNodeError(f"{describe(node)}: its zero point is not a stored tensor")
    zero = graph.array(name)
    if zero.dtype != np.int8:
        raise UnsupportedNodeError(f"{describe(node)}: its zero point is {zero.dtype}, not int8")
    if zero.any():
        raise UnsupportedNodeError(f"{describe(node)}: its zero point is not 0")


def _check_kind(graph: Graph, node: onnx.NodeProto) -> None:
    """Refuse an activation with many scales, and a DequantizeLinear without its Q."""
    tensor = node.input[0]
    if node.op_type == "DequantizeLinear":
        stored = graph.initializers.get(tensor)
        if stored is not None and stored.data_type != onnx.TensorProto.INT8:
            kind = onnx.TensorProto.DataType.Name(stored.data_type)
            raise UnsupportedNodeError(f"{describe(node)}: it dequantises {kind}, not INT8")
        if stored is not None:
            return
        maker = graph.producers.get(tensor)
        if maker is None or maker.op_type != "QuantizeLinear":
            raise UnsupportedNodeError(f"{describe(node)}: its input is not a QuantizeLinear's")
        if not np.array_equal(_scale_of(graph, node), _scale_of(graph, maker)):
            raise UnsupportedNodeError(
                f"{describe(node)}: its scale differs from that of {describe(maker)}"
            )
    if tensor not in graph.constants and _scale_of(graph, node).size != 1:
        raise UnsupportedNodeError(
            f"{describe(node)}: an activation is quantised per channel, which no backend executes"
        )


def _dequantizer(graph: Graph, tensor: str) -> onnx.NodeProto | None:
    """Return the DequantizeLinear behind a tensor, looking through one Cast."""
    node = graph.producers.get(tensor)
    if node is not None and node.op_type == "Cast":
        node = graph.producers.get(node.input[0])
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def _check_weight(graph: Graph, node: onnx.NodeProto) -> None:
    dequantize = _dequantizer(graph, node.input[1])
    if dequantize is None or dequantize.input[0] not in graph.initializers:
        return
    scale = _scale_of(graph, dequantize)
    if scale.size == 1:
        return
    dims = tuple(graph.initializers[dequantize.input[0]].dims)
    axis = int(attribute(dequantize, "axis", 1)) % len(dims)
    if axis != weight_axis(node):
        raise UnsupportedNodeError(
            f"{describe(node)}: its weight is quantised along axis {axis}; the output channels "
            f"are axis {weight_axis(node)}"
        )
    if scale.shape != (dims[axis],):
        raise UnsupportedNodeError(
            f"{describe(node)}: {scale.size} scales for {dims[axis]} output channels"
        )


def _check_bias(graph: Graph, node: onnx.NodeProto) -> None:
    if len(node.input) > 2 and node.input[2] and _dequantizer(graph, node.input[2]) is not None:
        raise UnsupportedNodeError(f"{describe(node)}: its bias is quantised; it must stay float")
