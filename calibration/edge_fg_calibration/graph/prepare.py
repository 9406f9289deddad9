"""Bringing a model to the form that the other passes expect."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from edge_fg.errors import ModelFormatError
from edge_fg_calibration.graph.editing import copied, replace_nodes
from edge_fg_calibration.graph.onnx_graph import attribute, opset_of

MINIMUM_OPSET = 13  # the first where DequantizeLinear has an axis
_MINIMUM_IR = 4  # the first where a stored tensor need not be an input


def prepared_copy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy with operator set 13 or newer and every Constant node stored as initializer.

    Requires a valid model. Ensures that names of tensors, inputs and outputs don't change and
    that it computes the same.

    Raises
    ------
    ModelFormatError
        The operator set is older and can't be converted.
    """
    result = copied(model)
    if opset_of(result) < MINIMUM_OPSET:
        try:
            result = onnx.version_converter.convert_version(result, MINIMUM_OPSET)
        except Exception as error:  # C++ errors of all kinds
            raise ModelFormatError(
                f"operator set {opset_of(model)} can't be brought to {MINIMUM_OPSET}, which INT8 "
                f"needs: export the model with a newer one ({error})"
            ) from error
    result.ir_version = max(result.ir_version, _MINIMUM_IR)
    _store_constants(result.graph)
    return result


def _store_constants(graph: onnx.GraphProto) -> None:
    outputs = {one.name for one in graph.output}
    nodes = []
    for node in graph.node:
        tensor = None if node.output[0] in outputs else _constant_value(node)
        if tensor is None:
            nodes.append(node)
        else:
            graph.initializer.append(tensor)
    if len(nodes) < len(graph.node):
        replace_nodes(graph, nodes)


def _constant_value(node: onnx.NodeProto) -> onnx.TensorProto | None:
    if node.op_type != "Constant" or node.domain not in {"", "ai.onnx"}:
        return None
    stored = attribute(node, "value", None)
    if stored is not None:
        tensor = onnx.TensorProto()
        tensor.CopyFrom(stored)
        tensor.name = node.output[0]
        return tensor
    for name, dtype in (
        ("value_float", np.float32),
        ("value_floats", np.float32),
        ("value_int", np.int64),
        ("value_ints", np.int64),
    ):
        value = attribute(node, name, None)
        if value is not None:
            return numpy_helper.from_array(np.asarray(value, dtype=dtype), node.output[0])
    return None
