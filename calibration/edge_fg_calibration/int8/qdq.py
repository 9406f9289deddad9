"""Writing explicit INT8 into a graph as QuantizeLinear and DequantizeLinear pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edge_fg.errors import CalibrationError, ModelFormatError
from edge_fg_calibration.graph.onnx_graph import Graph, node_key, opset_of
from edge_fg_calibration.graph.prepare import (
    MINIMUM_OPSET,
    copied,
    replace_initializers,
    replace_nodes,
)
from edge_fg_calibration.int8.placement import Placement
from edge_fg_calibration.int8.ranges import LEVELS
from edge_fg_calibration.int8.weight_grid import grid_levels

MINIMUM_SCALE = 2.0**-60
"""Floor of a scale: a dead channel has none of its own, and TensorRT refuses zero."""

StoredWeight: TypeAlias = tuple[NDArray[np.int8], NDArray[np.float32]]
"""INT8 values of a weight, and the scale of each output channel."""


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
    writer = _Writer(result, Graph(result), weights or {})
    for tensor in placement.activations:
        writer.add_activation(tensor, _scale(tensor, amax))
    for place in placement.weights:
        node = writer.graph.producers[place.node]
        tensor = node.input[0]
        writer.edges[place.node, 0] = writer.quantised[tensor]
        writer.edges[place.node, place.input] = writer.add_weight(place.initializer, place.axis)
    for skip in placement.skips:
        writer.edges[skip.node, skip.input] = writer.quantised[skip.tensor]
    writer.rewrite()
    try:
        onnx.checker.check_model(result)
    except onnx.checker.ValidationError as error:
        raise ModelFormatError(f"the quantised graph is not valid ONNX: {error}") from error
    return result


def quantise_weight(
    weight: NDArray[np.float32], axis: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return a weight as INT8 and the scale of each index along `axis`.

    The scale is the largest magnitude divided by 127, or that of the weights' own grid (see
    `edge_fg_calibration.int8.weight_grid`).

    Parameters
    ----------
    weight
        Float32 of any shape, finite.
    axis
        The output-channel axis.

    Returns
    -------
    INT8 values from -127 to 127 of the same shape, and float32 scales, shape (channels,).

    Raises
    ------
    CalibrationError
        A weight is NaN or infinite.
    """
    if not np.isfinite(weight).all():
        raise CalibrationError("weights are NaN or infinite")
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    amax = np.abs(rows).max(axis=1).astype(np.float64)
    scale = np.maximum(amax / grid_levels(rows), MINIMUM_SCALE).astype(np.float32)
    shape = [-1 if one == axis else 1 for one in range(weight.ndim)]
    steps = np.rint(weight / scale.reshape(shape))
    return np.clip(steps, -LEVELS, LEVELS).astype(np.int8), scale


@dataclass
class _Writer:
    """Collects the new nodes and edges, then puts the graph together once."""

    model: onnx.ModelProto
    graph: Graph
    chosen: Mapping[str, StoredWeight]
    edges: dict[tuple[str, int], str] = field(default_factory=dict)
    quantised: dict[str, str] = field(default_factory=dict)
    _after: dict[str, list[onnx.NodeProto]] = field(default_factory=dict)
    _first: list[onnx.NodeProto] = field(default_factory=list)
    _weights: dict[tuple[str, int], str] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._names.update(self.graph.initializers, self.graph.producers, self.graph.inputs)
        self._names.update(node.name for node in self.graph.nodes)

    def add_activation(self, tensor: str, scale: float) -> None:
        """Add the one Q/DQ pair of an activation."""
        scale_name = self._store(f"{tensor}_scale", np.array(scale, np.float32))
        zero_name = self._store(f"{tensor}_zero_point", np.array(0, np.int8))
        steps, back = self._unique(f"{tensor}_quantized"), self._unique(f"{tensor}_dequantized")
        pair = [
            _node("QuantizeLinear", [tensor, scale_name, zero_name], steps),
            _node("DequantizeLinear", [steps, scale_name, zero_name], back),
        ]
        producer = self.graph.producers.get(tensor)
        where = self._first if producer is None else self._after.setdefault(node_key(producer), [])
        where.extend(pair)
        self.quantised[tensor] = back

    def add_weight(self, name: str, axis: int) -> str:
        """Store a weight as INT8, once for all its readers, and return its float twin's name."""
        if (name, axis) not in self._weights:
            steps, scale = self._quantised(name, axis)
            stored = self._store(f"{name}_quantized", steps)
            scale_name = self._store(f"{name}_scale", scale)
            zero = self._store(f"{name}_zero_point", np.zeros(scale.shape, np.int8))
            back = self._unique(f"{name}_dequantized")
            self._first.append(
                _node("DequantizeLinear", [stored, scale_name, zero], back, axis=axis)
            )
            self._weights[name, axis] = back
        return self._weights[name, axis]

    def _quantised(self, name: str, axis: int) -> StoredWeight:
        if name in self.chosen:
            return self.chosen[name]
        try:
            return quantise_weight(self.graph.array(name), axis)
        except CalibrationError as error:
            raise CalibrationError(f"{name}: {error}") from error

    def rewrite(self) -> None:
        """Put the nodes in order, with their new edges, and drop weights that nobody reads."""
        nodes = list(self._first)
        for node in self.graph.nodes:
            for position in range(len(node.input)):
                edge = self.edges.get((node_key(node), position))
                if edge is not None:
                    node.input[position] = edge
            nodes.append(node)
            nodes.extend(self._after.get(node_key(node), ()))
        replace_nodes(self.model.graph, nodes)
        used = {name for node in nodes for name in node.input}
        used.update(self.graph.captured, self.graph.outputs)
        stale = {name for name, _ in self._weights} - used
        kept = [one for one in self.model.graph.initializer if one.name not in stale]
        replace_initializers(self.model.graph, kept)

    def _store(self, name: str, array: NDArray[np.generic]) -> str:
        name = self._unique(name)
        self.model.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def _unique(self, name: str) -> str:
        candidate, number = name, 1
        while candidate in self._names:
            candidate, number = f"{name}_{number}", number + 1
        self._names.add(candidate)
        return candidate


def _node(operator: str, inputs: list[str], output: str, **attributes: int) -> onnx.NodeProto:
    node = helper.make_node(operator, inputs, [output], name=output)
    node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    return node


def _scale(tensor: str, amax: Mapping[str, float]) -> float:
    if tensor not in amax:
        raise CalibrationError(f"tensor {tensor!r} has no calibrated range")
    value = float(amax[tensor])
    if not (np.isfinite(value) and value > 0):
        raise CalibrationError(f"tensor {tensor!r} has the range {value}; it must be above 0")
    return max(value / LEVELS, MINIMUM_SCALE)
