"""Which tensors of a graph must share one factor per channel, and what makes and reads them.

A factor per channel can be moved from an activation into the weights around it wherever only
convolutions, matrix products, residual additions, pooling and piecewise linear activations lie
between. Two tensors that such a node joins belong to one *channel group*.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import onnx

from edge_fg_calibration.graph.onnx_graph import Graph, attribute, node_key
from edge_fg_calibration.graph.weights import weight_of

_PASSING = frozenset(
    {"Relu", "LeakyRelu", "Identity"}
    | {"MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool"}
)
_RESHAPING = frozenset({"Flatten", "Reshape", "Squeeze"})


@dataclass(frozen=True)
class ChannelGroup:
    """Tensors of which channel c may be multiplied by a positive factor of its own."""

    tensors: tuple[str, ...]  # The tensors, in graph order
    channels: int  # How many channels each has, along axis 1
    # Keys of the convolutions and matrix products that compute some of the tensors.
    makers: tuple[str, ...]
    readers: tuple[str, ...]  # Keys of those that read some of them
    # Tensors that go into a Clip from 0, each with the upper limit of that Clip.
    clips: tuple[tuple[str, float], ...]


def find_channel_groups(graph: Graph) -> tuple[ChannelGroup, ...]:
    """Return the channel groups that convolutions make and read, in graph order.

    Left out are groups that reach the model's input or output, or a node that is not linear
    along each channel (sigmoid, concatenation, the gate of a squeeze-and-excitation branch).
    """
    finder = _GroupFinder(graph)
    for node in graph.nodes:
        finder.visit(node)
    return finder.groups()


def clip_limits(graph: Graph, node: onnx.NodeProto) -> tuple[float, float] | None:
    """Return the stored limits of a Relu (0 to infinity) or a Clip, None for anything else."""
    if node.op_type == "Relu":
        return 0.0, float("inf")
    if node.op_type != "Clip":
        return None
    limits = [-float("inf"), float("inf")]
    for place, name in enumerate(node.input[1:3]):
        if name and name not in graph.initializers:
            return None
        if name:
            value = graph.array(name)
            if value.size != 1:
                return None
            limits[place] = float(value.reshape(()))
    return limits[0], limits[1]


def is_addition(graph: Graph, node: onnx.NodeProto) -> bool:
    """Say whether a node adds two activations of one shape."""
    if node.op_type != "Add" or any(name in graph.constants for name in node.input):
        return False
    shapes = [graph.shapes.get(name) for name in (*node.input, node.output[0])]
    return shapes[0] is not None and shapes[0] == shapes[1] == shapes[2]


def keeps_channels(graph: Graph, node: onnx.NodeProto) -> bool:
    """Say whether a node moves no value to another channel and treats all channels alike."""
    if node.op_type in _PASSING:
        return len([name for name in node.output if name]) == 1
    before = graph.shapes.get(node.input[0], ()) if node.input else ()
    after = graph.shapes.get(node.output[0], ())
    if node.op_type in _RESHAPING:
        same = len(before) == 4 and len(after) == 2 and before[1] == after[1]
        return same and before[2:] == (1, 1)
    if node.op_type == "ReduceMean":
        return len(before) == 4 and _spatial_axes(graph, node) and before[1:2] == after[1:2]
    return False


def _spatial_axes(graph: Graph, node: onnx.NodeProto) -> bool:
    axes = attribute(node, "axes", None)
    if axes is None and len(node.input) > 1 and node.input[1] in graph.initializers:
        axes = graph.array(node.input[1]).tolist()
    return axes is not None and sorted(int(one) % 4 for one in axes) == [2, 3]


class _GroupFinder:
    """Joins tensors to groups, as a union of disjoint sets."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._parent: dict[str, str] = {}
        self._blocked: set[str] = set()
        self._makers: dict[str, str] = {}
        self._readers: list[tuple[str, str]] = []
        self._clips: list[tuple[str, float]] = []
        for name in (*graph.inputs, *graph.outputs, *graph.captured):
            self._block(name)

    def visit(self, node: onnx.NodeProto) -> None:
        graph = self.graph
        limits = clip_limits(graph, node)
        if weight_of(graph, node) is not None:
            self._readers.append((node.input[0], node_key(node)))
            self._makers[node.output[0]] = node_key(node)
            self._find(node.input[0])
            self._find(node.output[0])
        elif limits is not None and limits[0] == 0:
            self._join(node.input[0], node.output[0])
            if np.isfinite(limits[1]):
                self._clips.append((node.input[0], limits[1]))
        elif keeps_channels(graph, node):
            self._join(node.input[0], node.output[0])
        elif is_addition(graph, node):
            self._join(node.input[0], node.output[0])
            self._join(node.input[1], node.output[0])
        else:
            for name in (*node.input, *node.output):
                if name and name not in graph.initializers:
                    self._block(name)

    def groups(self) -> tuple[ChannelGroup, ...]:
        members: defaultdict[str, list[str]] = defaultdict(list)
        for name in self._parent:
            members[self._find(name)].append(name)
        blocked = {self._find(name) for name in self._blocked}
        found = (self._group(root, members[root]) for root in members if root not in blocked)
        return tuple(group for group in found if group is not None)

    def _group(self, root: str, tensors: list[str]) -> ChannelGroup | None:
        shapes = [self.graph.shapes.get(name, ()) for name in tensors]
        channels = {shape[1] if len(shape) in {2, 4} else None for shape in shapes}
        makers = tuple(self._makers[name] for name in tensors if name in self._makers)
        readers = tuple(key for name, key in self._readers if self._find(name) == root)
        # Each tensor must come from a convolution, else something unseen makes it.
        whole = all(name in self.graph.producers for name in tensors)
        count = channels.pop()
        if channels or count is None or not (makers and readers and whole):
            return None
        clips = tuple(one for one in self._clips if self._find(one[0]) == root)
        return ChannelGroup(tuple(tensors), count, makers, readers, clips)

    def _find(self, name: str) -> str:
        self._parent.setdefault(name, name)
        while self._parent[name] != name:
            self._parent[name] = self._parent[self._parent[name]]
            name = self._parent[name]
        return name

    def _join(self, one: str, other: str) -> None:
        first, second = self._find(one), self._find(other)
        if first != second:
            self._parent[second] = first

    def _block(self, name: str) -> None:
        self._find(name)
        self._blocked.add(name)
