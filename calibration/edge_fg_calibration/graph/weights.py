"""How Conv, Gemm and MatMul nodes store their weights, and one layout for all of them.

In that layout a weight has the shape (groups, output channels of a group, window). The window is
what one output value multiplies its weights with: channels of the group, then kernel rows and
columns. Gemm and MatMul have one group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_fg_calibration.graph.onnx_graph import Graph, attribute

Number = TypeVar("Number", bound=np.generic)


def has_known_layout(graph: Graph, node: onnx.NodeProto) -> bool:
    """Say whether a node's weight has the layout above, so that corrections can treat it.

    It has for a convolution over rows and columns and for a product with a matrix. Others
    (ConvTranspose, a Conv over one or three axes) run in INT8 without corrections.
    """
    if node.op_type not in {"Conv", "Gemm", "MatMul"} or node.domain not in {"", "ai.onnx"}:
        return False
    stored = graph.initializers.get(node.input[1])
    return stored is not None and len(stored.dims) == (4 if node.op_type == "Conv" else 2)


def weight_of(graph: Graph, node: onnx.NodeProto) -> str | None:
    """Return the stored weight of a Conv, Gemm or MatMul that may be rewritten, else None.

    That is a stored float32 tensor that no other node reads, as is the bias.
    """
    if not has_known_layout(graph, node):
        return None
    rank = 4 if node.op_type == "Conv" else 2
    if node.input[0] in graph.constants or len(graph.shapes.get(node.input[0], ())) != rank:
        return None
    if node.op_type == "Gemm" and any(
        attribute(node, name, usual) != usual
        for name, usual in (("alpha", 1.0), ("beta", 1.0), ("transA", 0))
    ):
        return None
    for name in (one for one in node.input[1:] if one):
        if not graph.is_float_initializer(name) or name in graph.captured:
            return None
        if len(graph.consumers[name]) != 1 or name in graph.outputs:
            return None
    if len(node.input) > 2 and node.input[2] and len(graph.initializers[node.input[2]].dims) != 1:
        return None
    return str(node.input[1])


def weight_axis(node: onnx.NodeProto) -> int:
    """Return the output-channel axis of the weight at input 1 of a weighted node."""
    rows_first = node.op_type == "Conv" or (node.op_type == "Gemm" and attribute(node, "transB", 0))
    return 0 if rows_first else 1


def along_axis(values: NDArray[Number], axis: int, rank: int) -> NDArray[Number]:
    """Return one value for each index of an axis in a shape that broadcasts to `rank` axes."""
    return values.reshape([-1 if one == axis else 1 for one in range(rank)])


def is_depthwise(graph: Graph, node: onnx.NodeProto) -> bool:
    """Say whether a node filters each input channel by itself."""
    if node.op_type != "Conv":
        return False
    return int(graph.initializers[node.input[1]].dims[1]) == 1 and attribute(node, "group", 1) > 1


def window_shape(node: onnx.NodeProto, dims: Sequence[int]) -> tuple[int, int]:
    """Return how many groups a weight of these dimensions has, and how many values a window."""
    if node.op_type == "Conv":
        return int(attribute(node, "group", 1)), int(np.prod(dims[1:]))
    return 1, int(dims[1 - weight_axis(node)])


def weight_rows(node: onnx.NodeProto, weight: NDArray[Number]) -> NDArray[Number]:
    """Return a weight as groups x output channels of the group x window."""
    groups, size = window_shape(node, weight.shape)
    return (weight if weight_axis(node) == 0 else weight.T).reshape(groups, -1, size)


def from_rows(
    node: onnx.NodeProto, rows: NDArray[Number], shape: tuple[int, ...]
) -> NDArray[Number]:
    """Return what `weight_rows` gave in the stored layout, of that shape."""
    if weight_axis(node) == 0:
        return rows.reshape(shape)
    return np.ascontiguousarray(rows[0].T)


def over_window(values: NDArray[np.float64], groups: int, size: int) -> NDArray[np.float64]:
    """Repeat values, one for each input channel, over their windows: groups x window size."""
    inside = values.size // groups
    return values.reshape(groups, inside).repeat(size // inside, axis=1)
