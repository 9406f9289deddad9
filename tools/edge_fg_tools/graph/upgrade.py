"""Bring a model to an opset, IR version and float type that every backend reads."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.inliner
import onnx.version_converter

from edge_fg.errors import ModelError, ModelFormatError
from edge_fg_calibration.graph.editing import copied
from edge_fg_calibration.graph.onnx_graph import attribute, opset_of
from edge_fg_tools.graph.interface import ImageInput
from edge_fg_tools.graph.nodes import (
    ONNX_DOMAINS,
    check_operators,
    has_quantisation,
    name_nodes,
    within,
)
from edge_fg_tools.graph.running import changed_safely, compare

OPSET = 17
# Per-channel QuantizeLinear came with opset 13: below it there is no INT8.
_LOWEST_OPSET = 13
# https://github.com/onnx/onnx-tensorrt/blob/10.0-GA/docs/operators.md: opsets 9 to 20.
_HIGHEST_OPSET_OF_TENSORRT_10 = 20
_LOWEST_IR, _HIGHEST_IR = 8, 10


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy without local functions (torch's newer exporter writes some)."""
    copy = onnx.inliner.inline_local_functions(model) if model.functions else copied(model)
    used = {node.domain for node in within(copy.graph, onnx.NodeProto)}
    for entry in [o for o in copy.opset_import if o.domain not in used]:
        if entry.domain not in ONNX_DOMAINS:
            copy.opset_import.remove(entry)
    name_nodes(copy.graph)
    check_operators(copy)
    return copy


def settle_format(model: onnx.ModelProto) -> None:
    """Set an IR version between 8 and 10, and keep initializers out of the inputs, in place."""
    model.ir_version = min(max(model.ir_version, _LOWEST_IR), _HIGHEST_IR)
    stored = {tensor.name for tensor in model.graph.initializer}
    for value in [v for v in model.graph.input if v.name in stored]:
        model.graph.input.remove(value)


def fill_sparse(model: onnx.ModelProto) -> None:
    """Store sparse weights with their zeros, in place: neither TensorRT nor calibration reads them.

    ONNX's checker has seen that all indices lie inside.
    """
    for sparse in model.graph.sparse_initializer:
        values, indices = map(onnx.numpy_helper.to_array, (sparse.values, sparse.indices))
        dense = np.zeros(tuple(sparse.dims), values.dtype)
        places = tuple(indices.T) if indices.ndim > 1 else np.unravel_index(indices, dense.shape)
        dense[places] = values
        model.graph.initializer.append(onnx.numpy_helper.from_array(dense, sparse.values.name))
    del model.graph.sparse_initializer[:]


def refuse_training(graph: onnx.GraphProto) -> None:
    """Raise ModelError, with the BatchNormalization or Dropout, for a graph in training mode."""
    true = {
        tensor.name
        for tensor in within(graph, onnx.TensorProto)
        if tensor.data_type == onnx.TensorProto.BOOL and onnx.numpy_helper.to_array(tensor).all()
    }
    for node in within(graph, onnx.NodeProto):
        training = attribute(node, "training_mode", 0)
        dropping = node.op_type == "Dropout" and len(node.input) > 2 and node.input[2] in true
        if training or dropping:
            raise ModelError(
                f"node {node.name!r} ({node.op_type}) is in training mode: export the model "
                "after model.eval()"
            )


def raise_opset(model: onnx.ModelProto, image: ImageInput) -> tuple[onnx.ModelProto, str | None]:
    """Convert to opset 17 where the model has less, and prove it by running both.

    Returns the converted model, or the original where that is not proven, and what to know about
    the opset. Raises ModelFormatError where it is below 13 and can't be raised.
    """
    opset = opset_of(model)
    first = model.graph.node[0].name
    if opset > _HIGHEST_OPSET_OF_TENSORRT_10:
        return model, (
            f"opset {opset} (from node {first!r} on): TensorRT 10.3 (JetPack 6) reads up to opset "
            f"{_HIGHEST_OPSET_OF_TENSORRT_10}; export with opset {OPSET} for it"
        )
    if opset >= OPSET:
        return model, None

    def convert(copy: onnx.ModelProto) -> onnx.ModelProto:
        converted: onnx.ModelProto = onnx.version_converter.convert_version(copy, OPSET)
        settle_format(converted)
        return converted

    converted, reason = changed_safely(model, convert, image)
    if reason is None:
        return converted, None
    if opset < _LOWEST_OPSET:
        raise ModelFormatError(
            f"the model has opset {opset} and can't be raised to {OPSET} ({reason}): export it "
            f"again with opset {OPSET}"
        )
    return model, f"opset {opset} is kept (from node {first!r} on), raising it failed: {reason}"


def widen_half(model: onnx.ModelProto, image: ImageInput) -> tuple[onnx.ModelProto, str | None]:
    """Turn an FP16 graph into the FP32 graph of the same weights, and compare the two.

    Calibration needs FP32; FP16 comes back as a variant of its own. Raises ModelError where the
    graph mixes FP16 and quantisation, or the FP32 graph computes something else.
    """
    half = onnx.TensorProto.FLOAT16
    if not any(tensor.data_type == half for tensor in within(model.graph, onnx.TensorProto)) and (
        image.elem_type != half
    ):
        return model, None
    quantised = has_quantisation(model)
    if quantised is not None:
        raise ModelError(
            f"node {quantised.name!r} quantises an FP16 graph, which can't be made FP32; give the "
            "float model"
        )
    wide = copied(model)
    for tensor in within(wide.graph, onnx.TensorProto):
        if tensor.data_type == half:
            values = onnx.numpy_helper.to_array(tensor).astype("float32")
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    for setting in within(wide.graph, onnx.AttributeProto):
        if setting.name in {"to", "dtype"} and setting.i == half:
            setting.i = onnx.TensorProto.FLOAT
    for value in [*wide.graph.input, *wide.graph.output]:
        if value.type.tensor_type.elem_type == half:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    del wide.graph.value_info[:]
    reason = compare(model, wide, image, tolerance=0.03)
    if reason is not None:
        raise ModelError(f"the FP16 model computes something else in FP32: {reason}")
    first = model.graph.node[0].name
    return wide, f"the model is FP16 (from node {first!r} on) and was made FP32 for calibration"
