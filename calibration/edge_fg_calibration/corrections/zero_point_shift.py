"""Shifting the zero point of an activation, so that symmetric INT8 wastes no half of its levels.

What comes out of a ReLU is never negative: symmetric INT8, which is all that TensorRT takes,
leaves half of its levels unused. With a constant t subtracted, ``Clip(x, 0, u)`` becomes
``Clip(x - t, -t, u - t)``: t goes into the bias in front, and what the readers make of t into
theirs. It is exact wherever the readers add no padding. Padding would have to be -t: a Pad in
front of the reader does that, at the price of one more pass over the tensor. The idea for
transformers is in X. Wei et al., "Outlier Suppression+" (EMNLP 2023).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_fg_calibration.corrections.bias import with_added_biases
from edge_fg_calibration.graph.channel_groups import clip_limits, is_addition, keeps_channels
from edge_fg_calibration.graph.editing import GraphEditor
from edge_fg_calibration.graph.onnx_graph import Graph, Use, attribute, node_key
from edge_fg_calibration.graph.weights import weight_axis, weight_of, weight_rows
from edge_fg_calibration.statistics.channel_statistics import padded


@dataclass(frozen=True)
class ShiftPlace:
    """A quantised tensor whose range can be moved."""

    tensor: str
    maker: str  # Key of the convolution or matrix product whose bias moves it
    activation: str  # Key of the Relu or Clip between the two
    # Rows and columns of padding (as the attribute of ONNX's Conv) that a Pad must add in front of
    # all readers; empty where they add none.
    pads: tuple[int, ...] = ()


def find_shift_places(graph: Graph, quantised: Collection[str]) -> tuple[ShiftPlace, ...]:
    """Return the quantised tensors behind a Relu or Clip whose range can be moved."""
    names = frozenset(quantised)
    makers = (node for node in graph.nodes if weight_of(graph, node) is not None)
    found = (_shift_place(graph, maker, names) for maker in makers)
    return tuple(place for place in found if place is not None)


def find_padded_shift_places(graph: Graph, quantised: Collection[str]) -> tuple[ShiftPlace, ...]:
    """Return the quantised tensors behind a Relu or Clip that only padding convolutions read.

    All of them must pad alike.
    """
    places = []
    for name in quantised:
        activation = graph.producers.get(name)
        limits = clip_limits(graph, activation) if activation is not None else None
        if activation is None or limits is None or limits[0] != 0:
            continue
        maker = graph.producers.get(activation.input[0])
        if maker is None or weight_of(graph, maker) is None:
            continue
        pads = _common_pads(graph, name)
        if pads and len(graph.consumers[activation.input[0]]) == 1:
            places.append(ShiftPlace(name, node_key(maker), node_key(activation), pads))
    return tuple(places)


def _common_pads(graph: Graph, tensor: str) -> tuple[int, ...]:
    """Return the padding of all readers of a tensor, nothing unless all are alike."""
    if tensor in graph.outputs or tensor in graph.captured:
        return ()
    found: set[tuple[int, ...]] = set()
    for use in graph.consumers.get(tensor, ()):
        node = use.node
        if node.op_type != "Conv" or use.position != 0 or weight_of(graph, node) is None:
            return ()
        if attribute(node, "auto_pad", b"NOTSET") not in {b"NOTSET", b""}:
            return ()
        found.add(tuple(int(one) for one in attribute(node, "pads", [])))
    pads = found.pop() if len(found) == 1 else ()
    return pads if any(pads) else ()


def shifted(model: onnx.ModelProto, shifts: Mapping[ShiftPlace, float]) -> onnx.ModelProto:
    """Return a float32 model in which a constant is subtracted from the tensor of each place.

    Its outputs are the same except for rounding.
    """
    editor = GraphEditor(with_added_biases(model, _biases(Graph(model), shifts)))
    by_activation = {place.activation: place for place in shifts}
    found = [node for node in editor.graph.nodes if node_key(node) in by_activation]
    for node in found:
        _move_limits(editor, node, shifts[by_activation[node_key(node)]])
    for node in found:
        place = by_activation[node_key(node)]
        if place.pads:
            _pad_first(editor, node, place, shifts[place])
    editor.write()
    return editor.model


def _biases(graph: Graph, shifts: Mapping[ShiftPlace, float]) -> dict[str, NDArray[np.float64]]:
    """Return what to add to the biases of the nodes around the shifted tensors, by node key."""
    added: dict[str, NDArray[np.float64]] = {}
    moved = moved_tensors(graph, shifts)
    by_maker = {place.maker: shift for place, shift in shifts.items()}

    def add(node: onnx.NodeProto, values: NDArray[np.float64] | float) -> None:
        channels = graph.initializers[node.input[1]].dims[weight_axis(node)]
        added[node_key(node)] = added.get(node_key(node), np.zeros(channels)) + values

    for node in graph.nodes:
        if weight_of(graph, node) is None:
            continue
        if node.input[0] in moved:
            rows = weight_rows(node, graph.array(node.input[1]).astype(np.float64))
            constant = np.full((len(rows), rows.shape[2], 1), moved[node.input[0]])
            add(node, np.matmul(rows, constant).reshape(-1))
        if node_key(node) in by_maker:
            add(node, -by_maker[node_key(node)])
    for node in graph.nodes:
        free = free_operand(graph, node) if is_addition(graph, node) else None
        if free is not None and node.input[1 - free] in moved:
            add(graph.producers[node.input[free]], moved[node.input[1 - free]])
    return added


def _move_limits(editor: GraphEditor, node: onnx.NodeProto, shift: float) -> None:
    """Turn a Relu or Clip into a Clip whose limits are moved."""
    limits = clip_limits(editor.graph, node) or (0.0, np.inf)
    inputs = [node.input[0]]
    for end, limit in zip(("minimum", "maximum"), limits, strict=True):
        if np.isfinite(limit):
            value = np.array(limit - shift, np.float32)
            inputs.append(editor.store(f"{node_key(node)}_{end}", value))
    node.op_type, node.name = "Clip", node.name or node_key(node)
    node.input[:] = inputs


def _pad_first(editor: GraphEditor, node: onnx.NodeProto, place: ShiftPlace, shift: float) -> None:
    """Put a Pad behind an activation, which takes over its tensor's name, and none in readers."""
    for use in editor.graph.consumers.get(place.tensor, ()):
        for one in use.node.attribute:
            if one.name == "pads":
                one.ints[:] = [0] * len(one.ints)
    before = f"{place.tensor}_unpadded"
    half = len(place.pads) // 2
    pads = np.array([0, 0, *place.pads[:half], 0, 0, *place.pads[half:]], np.int64)
    names = [
        editor.store(f"{before}_pads", pads),
        editor.store(f"{before}_value", np.array(-shift, np.float32)),
    ]
    editor.insert(
        "Pad", [before, *names], place.tensor, behind=place.activation, name=f"{before}_pad"
    )
    node.output[0] = before


def moved_tensors(graph: Graph, shifts: Mapping[ShiftPlace, float]) -> dict[str, float]:
    """Return what is subtracted from each tensor, pooling and flattening passing it on."""
    moved = {place.tensor: shift for place, shift in shifts.items()}
    for node in graph.nodes:
        if node.input and node.input[0] in moved and keeps_channels(graph, node):
            moved.setdefault(node.output[0], moved[node.input[0]])
    return moved


def free_operand(graph: Graph, node: onnx.NodeProto) -> int | None:
    """Return which operand of an addition is a convolution's, read by the addition alone."""
    for place in (0, 1):
        maker = graph.producers.get(node.input[place])
        if (
            maker is not None
            and weight_of(graph, maker) is not None
            and len(graph.consumers[node.input[place]]) == 1
            and node.input[place] not in graph.outputs
        ):
            return place
    return None


def _shift_place(
    graph: Graph, maker: onnx.NodeProto, quantised: Collection[str]
) -> ShiftPlace | None:
    """Follow the output of a convolution to the first quantised tensor."""
    name, activation = maker.output[0], None
    while name not in quantised:
        uses = graph.consumers.get(name, ())
        if len(uses) != 1 or name in graph.outputs or name in graph.captured:
            return None
        node = uses[0].node
        limits = clip_limits(graph, node)
        if limits is not None:
            if limits[0] != 0 or activation is not None:
                return None
            activation = node_key(node)
        elif is_addition(graph, node):
            if activation is not None or free_operand(graph, node) != uses[0].position:
                return None
        elif not _passes_shift(graph, node):
            return None
        name = node.output[0]
    if activation is None or not _readers_compensate(graph, name):
        return None
    return ShiftPlace(name, node_key(maker), activation)


def _readers_compensate(graph: Graph, name: str) -> bool:
    """Say whether every reader of a tensor can compensate for a constant in it."""
    if name in graph.outputs or name in graph.captured:
        return False
    return all(_compensates(graph, use) for use in graph.consumers.get(name, ()))


def _compensates(graph: Graph, use: Use) -> bool:
    node = use.node
    if weight_of(graph, node) is not None:
        return use.position == 0 and not padded(node)
    if is_addition(graph, node):
        free = free_operand(graph, node)
        return free is not None and free != use.position
    return _passes_shift(graph, node) and _readers_compensate(graph, node.output[0])


def _passes_shift(graph: Graph, node: onnx.NodeProto) -> bool:
    if node.op_type in {"Relu", "LeakyRelu", "AveragePool"}:
        return False  # of an average over padding only part would move
    return keeps_channels(graph, node)
