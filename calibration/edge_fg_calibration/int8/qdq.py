"""Writing explicit INT8 into a graph as QuantizeLinear and DequantizeLinear pairs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from edge_fg.errors import CalibrationError, ModelFormatError
from edge_fg_calibration.graph.editing import GraphEditor, copied
from edge_fg_calibration.graph.onnx_graph import opset_of
from edge_fg_calibration.graph.prepare import MINIMUM_OPSET
from edge_fg_calibration.int8.placement import Placement
from edge_fg_calibration.int8.ranges import LEVELS
from edge_fg_calibration.int8.weight_quantisation import (
    MINIMUM_SCALE,
    StoredWeight,
    quantise_weight,
)


def insert_qdq(
    model: onnx.ModelProto,
    placement: Placement,
    amax: Mapping[str, float],
    weights: Mapping[str, StoredWeight] | None = None,
) -> onnx.ModelProto:
    """Return a copy of the model with Q/DQ pairs where `placement` says.

    Activations are quantised per tensor (one pair a tensor, shared by its INT8 readers), weights
    are stored as INT8 with one scale a channel. Scales are float32, zero points 0; biases and all
    other nodes stay float32. Names of inputs and outputs don't change.

    Parameters
    ----------
    model
        The float32 model that `placement` was made for.
    placement
        What to quantise.
    amax
        The range of each of `placement.activations`, above 0.
    weights
        For stored weights by name, INT8 values and scales that were chosen otherwise than by
        `quantise_weight`.

    Raises
    ------
    CalibrationError
        A range is missing, not finite or not positive.
    ModelFormatError
        The operator set is older than 13, or the result is not valid ONNX.
    """
    if opset_of(model) < MINIMUM_OPSET:
        raise ModelFormatError(
            f"INT8 needs operator set {MINIMUM_OPSET} or newer, the model has {opset_of(model)}: "
            f"pass it through prepared_copy first"
        )
    result = copied(model)
    editor = GraphEditor(result)
    read = {
        name: _add_activation(editor, name, _scale(name, amax)) for name in placement.activations
    }
    stored: dict[tuple[str, int], str] = {}
    for place in placement.weights:
        source = place.initializer, place.axis
        if source not in stored:
            stored[source] = _add_weight(editor, *source, weights or {})
        editor.connect(place.node, 0, read[place.activation])
        editor.connect(place.node, place.input, stored[source])
    for skip in placement.skips:
        editor.connect(skip.node, skip.input, read[skip.tensor])
    editor.write()
    editor.drop_unused({name for name, _ in stored})
    try:
        onnx.checker.check_model(result)
    except onnx.checker.ValidationError as error:
        raise ModelFormatError(f"the quantised graph is not valid ONNX: {error}") from error
    return result


def _add_activation(editor: GraphEditor, tensor: str, scale: float) -> str:
    """Add the one Q/DQ pair of an activation, and return what its INT8 readers read."""
    stored = [
        editor.store(f"{tensor}_scale", np.array(scale, np.float32)),
        editor.store(f"{tensor}_zero_point", np.array(0, np.int8)),
    ]
    steps, back = editor.unique(f"{tensor}_quantized"), editor.unique(f"{tensor}_dequantized")
    maker = editor.maker(tensor)
    editor.insert("QuantizeLinear", [tensor, *stored], steps, behind=maker)
    editor.insert("DequantizeLinear", [steps, *stored], back, behind=maker)
    return back


def _add_weight(
    editor: GraphEditor, name: str, axis: int, chosen: Mapping[str, StoredWeight]
) -> str:
    """Store a weight as INT8, once for all its readers, and return the name of its float twin."""
    try:
        steps, scale = chosen.get(name) or quantise_weight(editor.graph.array(name), axis)
    except CalibrationError as error:
        raise CalibrationError(f"{name}: {error}") from error
    stored = [
        editor.store(f"{name}_quantized", steps),
        editor.store(f"{name}_scale", scale),
        editor.store(f"{name}_zero_point", np.zeros(scale.shape, np.int8)),
    ]
    back = editor.unique(f"{name}_dequantized")
    editor.insert("DequantizeLinear", stored, back, behind=None, axis=axis)
    return back


def _scale(tensor: str, amax: Mapping[str, float]) -> float:
    if tensor not in amax:
        raise CalibrationError(f"tensor {tensor!r} has no calibrated range")
    value = float(amax[tensor])
    if not (np.isfinite(value) and value > 0):
        raise CalibrationError(f"tensor {tensor!r} has the range {value}; it must be above 0")
    return max(value / LEVELS, MINIMUM_SCALE)
