"""Refusing INT8 graphs that a backend would reject, or worse, accept and compute wrongly.

TensorRT-RTX accepts a wrong weight axis and per-channel activations without a message, so nothing
is left to its parser.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

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
        for problem in _problems(graph, node):
            raise UnsupportedNodeError(f"{describe(node)}: {problem}")


def _problems(graph: Graph, node: onnx.NodeProto) -> Iterator[str]:
    if node.op_type.startswith("QLinear") or node.op_type in _DYNAMIC:
        yield "TensorRT takes INT8 as QuantizeLinear and DequantizeLinear pairs only"
    if node.op_type in _PAIR:
        yield from _scale_problems(graph, node)
        yield from _zero_point_problems(graph, node)
        yield from _pair_problems(graph, node)
    if node.op_type in WEIGHTED_OPS:
        yield from _weight_problems(graph, node)
        if len(node.input) > 2 and _dequantizer(graph, node.input[2]) is not None:
            yield "its bias is quantised; it must stay float"


def _scale_problems(graph: Graph, node: onnx.NodeProto) -> Iterator[str]:
    scale = _scale_of(graph, node)
    if scale is None:
        yield "its scale is not a stored tensor"
    elif scale.dtype != np.float32:
        yield f"its scale is {scale.dtype}; only float32 scales mean the same to every backend"
    elif not (np.isfinite(scale).all() and (scale > 0).all()):
        yield "scales must be finite and above 0"


def _zero_point_problems(graph: Graph, node: onnx.NodeProto) -> Iterator[str]:
    name = node.input[2] if len(node.input) > 2 else ""
    if not name:
        # Without a zero point QuantizeLinear gives uint8, which TensorRT doesn't take.
        if node.op_type == "QuantizeLinear":
            yield "no INT8 zero point"
    elif name not in graph.initializers:
        yield "its zero point is not a stored tensor"
    elif (zero := graph.array(name)).dtype != np.int8:
        yield f"its zero point is {zero.dtype}, not int8"
    elif zero.any():
        yield "its zero point is not 0"


def _pair_problems(graph: Graph, node: onnx.NodeProto) -> Iterator[str]:
    """Refuse an activation with many scales, and a DequantizeLinear without its Q."""
    tensor, scale = node.input[0], _scale_of(graph, node)
    if scale is None:
        return
    if node.op_type == "DequantizeLinear":
        stored = graph.initializers.get(tensor)
        if stored is not None:
            if stored.data_type != onnx.TensorProto.INT8:
                kind = onnx.TensorProto.DataType.Name(stored.data_type)
                yield f"it dequantises {kind}, not INT8"
            return
        maker = graph.producers.get(tensor)
        if maker is None or maker.op_type != "QuantizeLinear":
            yield "its input is not a QuantizeLinear's"
        elif (other := _scale_of(graph, maker)) is None or not np.array_equal(scale, other):
            yield f"its scale differs from that of {describe(maker)}"
    if tensor not in graph.constants and scale.size != 1:
        yield "an activation is quantised per channel, which no backend executes"


def _weight_problems(graph: Graph, node: onnx.NodeProto) -> Iterator[str]:
    dequantize = _dequantizer(graph, node.input[1])
    if dequantize is None or dequantize.input[0] not in graph.initializers:
        return
    scale = _scale_of(graph, dequantize)
    if scale is None or scale.size == 1:
        return
    dims = tuple(graph.initializers[dequantize.input[0]].dims)
    axis = int(attribute(dequantize, "axis", 1)) % len(dims)
    if axis != weight_axis(node):
        yield (
            f"its weight is quantised along axis {axis}; the output channels are axis "
            f"{weight_axis(node)}"
        )
    elif scale.shape != (dims[axis],):
        yield f"{scale.size} scales for {dims[axis]} output channels"


def _scale_of(graph: Graph, node: onnx.NodeProto) -> NDArray[Any] | None:
    """Return the stored scale of a QuantizeLinear or DequantizeLinear; None where there is none."""
    if len(node.input) < 2 or node.input[1] not in graph.initializers:
        return None
    return graph.array(node.input[1])


def _dequantizer(graph: Graph, tensor: str) -> onnx.NodeProto | None:
    """Return the DequantizeLinear behind a tensor, looking through one Cast."""
    node = graph.producers.get(tensor)
    if node is not None and node.op_type == "Cast":
        node = graph.producers.get(node.input[0])
    return node if node is not None and node.op_type == "DequantizeLinear" else None
