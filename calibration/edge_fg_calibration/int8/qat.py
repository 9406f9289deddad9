"""Models that were quantised by somebody else, usually while they were trained (QAT).

Their scales were learnt together with their weights, so nothing is calibrated again. What is done
here is to see how much of them runs in INT8, and to write the float form of the same network.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edge_fg.errors import UnsupportedNodeError
from edge_fg_calibration.graph.editing import replace_initializers, replace_nodes
from edge_fg_calibration.graph.onnx_graph import WEIGHTED_OPS, Graph, attribute, node_key
from edge_fg_calibration.graph.prepare import prepared_copy
from edge_fg_calibration.graph.weights import along_axis

_LOWEST, _HIGHEST = -128, 127


def is_quantised(model: onnx.ModelProto) -> bool:
    """Say whether the main graph quantises anything."""
    return any(
        node.op_type in {"QuantizeLinear", "DequantizeLinear"} or node.op_type.startswith("QLinear")
        for node in model.graph.node
    )


def int8_share(model: onnx.ModelProto) -> float:
    """Return the share (0..1) of multiply-accumulates whose operands are both dequantised."""
    graph = Graph(model)
    made = {key for key, one in graph.producers.items() if one.op_type == "DequantizeLinear"}
    return graph.macs_share(
        [
            node_key(node)
            for node in graph.nodes
            if node.op_type in WEIGHTED_OPS and made.issuperset(node.input[:2])
        ]
    )


def without_rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the float form of a quantised network: its ranges kept, its rounding gone.

    Requires what `validate_qdq` accepts. Weights become float: dequantised where they are
    stored as INT8, otherwise as they were before quantisation. A pair around an activation
    becomes a Clip to the range that it can express, because networks that were trained with it
    may count on it (a ReLU6 is often left to the quantiser). A quantised value that is used in
    another way than through a DequantizeLinear is an `UnsupportedNodeError`.
    """
    result = prepared_copy(model)
    graph = Graph(result)
    nodes: list[onnx.NodeProto] = []
    stored: dict[str, NDArray[np.float32]] = {}
    for node in graph.nodes:
        if node.op_type == "QuantizeLinear":
            _check_readers(graph, node)
        elif node.op_type == "DequantizeLinear":
            source = graph.producers.get(node.input[0])
            if source is None:
                stored[node.output[0]] = _dequantised(graph, node)
            elif source.input[0] in graph.constants:
                nodes.append(_renamed("Identity", node, [source.input[0]]))
            else:
                scale = float(graph.array(node.input[1]))
                limits = []
                for end, level in (("lowest", _LOWEST), ("highest", _HIGHEST)):
                    name = f"{node.output[0]}/{end}"
                    stored[name] = np.asarray(level * scale, np.float32)
                    limits.append(name)
                nodes.append(_renamed("Clip", node, [source.input[0], *limits]))
        else:
            nodes.append(node)
    replace_nodes(result.graph, nodes)
    used = {name for node in result.graph.node for name in node.input}
    used |= Graph(result).captured
    added = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    kept = [one for one in (*result.graph.initializer, *added) if one.name in used]
    replace_initializers(result.graph, kept)
    return result


def _renamed(operator: str, node: onnx.NodeProto, inputs: list[str]) -> onnx.NodeProto:
    return onnx.helper.make_node(operator, inputs, list(node.output), name=node.name)


def _check_readers(graph: Graph, node: onnx.NodeProto) -> None:
    readers = [use.node for use in graph.consumers.get(node.output[0], ())]
    if any(one.op_type != "DequantizeLinear" for one in readers) or (
        node.output[0] in graph.outputs
    ):
        raise UnsupportedNodeError(
            f"QuantizeLinear {node.name!r}: its result is used without a DequantizeLinear"
        )


def _dequantised(graph: Graph, node: onnx.NodeProto) -> NDArray[np.float32]:
    values = graph.array(node.input[0]).astype(np.float32)
    scale = graph.array(node.input[1]).astype(np.float32)
    if scale.size > 1:
        scale = along_axis(scale, int(attribute(node, "axis", 1)) % values.ndim, values.ndim)
    return np.asarray(values * scale, dtype=np.float32)
