"""Rewriting a model: new nodes, stored tensors and edges, put together in one go."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edge_fg_calibration.graph.onnx_graph import Graph, node_key


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a deep copy of a model."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Make `nodes`, some of which may be the graph's own, the graph's nodes."""
    kept = onnx.GraphProto(node=nodes)
    del graph.node[:]
    graph.node.extend(kept.node)


def replace_initializers(graph: onnx.GraphProto, tensors: list[onnx.TensorProto]) -> None:
    """Make `tensors`, some of which may be the graph's own, the graph's stored tensors."""
    kept = onnx.GraphProto(initializer=tensors)
    del graph.initializer[:]
    graph.initializer.extend(kept.initializer)


def with_arrays(
    model: onnx.ModelProto, arrays: Mapping[str, NDArray[np.floating]]
) -> onnx.ModelProto:
    """Return a copy of a model with other values of some stored float32 tensors."""
    result = copied(model)
    for tensor in result.graph.initializer:
        if tensor.name in arrays:
            new = np.asarray(arrays[tensor.name], dtype=np.float32)
            tensor.CopyFrom(numpy_helper.from_array(new, tensor.name))
    return result


class GraphEditor:
    """Collects new nodes, stored tensors and edges; `write` changes the model in place."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.graph = Graph(model)  # Before the changes; its nodes are the model's own
        self._names = {*self.graph.initializers, *self.graph.producers, *self.graph.inputs}
        self._names.update(node.name for node in self.graph.nodes)
        self._keys = [node_key(node) for node in self.graph.nodes]
        self._edges: dict[tuple[str, int], str] = {}
        self._behind: defaultdict[str | None, list[onnx.NodeProto]] = defaultdict(list)

    def unique(self, name: str) -> str:
        """Return `name`, with a number behind it where a tensor or node is called so already."""
        candidate, number = name, 1
        while candidate in self._names:
            candidate, number = f"{name}_{number}", number + 1
        self._names.add(candidate)
        return candidate

    def store(self, name: str, array: NDArray[Any]) -> str:
        """Store a tensor under a unique name, and return that."""
        name = self.unique(name)
        self.model.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def insert(
        self,
        operator: str,
        inputs: list[str],
        output: str,
        *,
        behind: str | None,
        name: str | None = None,
        **attributes: int,
    ) -> None:
        """Add a node behind the node of that key, or in front of all nodes where it is None."""
        node = helper.make_node(operator, inputs, [output], name=name or output)
        node.attribute.extend(helper.make_attribute(*one) for one in attributes.items())
        self._behind[behind].append(node)

    def maker(self, tensor: str) -> str | None:
        """Return the key of the node that makes a tensor; None for inputs and stored tensors."""
        node = self.graph.producers.get(tensor)
        return None if node is None else node_key(node)

    def connect(self, node: onnx.NodeProto | str, position: int, tensor: str) -> None:
        """Let a node, or the one of that key, read another tensor at one of its inputs."""
        self._edges[node if isinstance(node, str) else node_key(node), position] = tensor

    def write(self) -> None:
        """Put the nodes in order, with the new ones and the new edges."""
        nodes = [*self._behind[None]]
        for key, node in zip(self._keys, self.graph.nodes, strict=True):
            for position in range(len(node.input)):
                if (key, position) in self._edges:
                    node.input[position] = self._edges[key, position]
            nodes.append(node)
            nodes.extend(self._behind.get(key, ()))
        replace_nodes(self.model.graph, nodes)

    def drop_unused(self, names: set[str]) -> None:
        """Remove the stored tensors among `names` that nothing uses any more; after `write`."""
        used = {name for node in self.model.graph.node for name in node.input}
        used.update(self.graph.captured, self.graph.outputs, self.graph.inputs)
        kept = [
            one for one in self.model.graph.initializer if one.name in used or one.name not in names
        ]
        replace_initializers(self.model.graph, kept)
