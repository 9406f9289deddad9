"""Read-only questions about an ONNX graph: who makes a tensor, who reads it, what it costs.

Nodes are known by their *key*, the name of their first output: unlike node names it is always
there and always unique.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edge_fg.errors import ModelFormatError

WEIGHTED_OPS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators that multiply an activation by weights."""


def node_key(node: onnx.NodeProto) -> str:
    """Return the name of the node's first output that has one."""
    return next((name for name in node.output if name), node.name)


def describe(node: onnx.NodeProto) -> str:
    """Return how messages name a node."""
    return f"{node.op_type} {node.name or node_key(node)!r}"


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return the value of an attribute, or `default` where the node has none."""
    for one in node.attribute:
        if one.name == name:
            return onnx.helper.get_attribute_value(one)
    return default


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the default operator set; `ModelFormatError` where there is none."""
    for entry in model.opset_import:
        if entry.domain in {"", "ai.onnx"}:
            return int(entry.version)
    raise ModelFormatError("the model imports no version of the ONNX operator set: export it again")


@dataclass(frozen=True)
class Use:
    """One reading of a tensor."""

    node: onnx.NodeProto  # The node that reads it
    position: int  # Which of the node's inputs it is


class Graph:
    """A view of a model's main graph; the model, not copied, must not change while it is used."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: tuple[onnx.NodeProto, ...] = tuple(model.graph.node)
        self.inputs: tuple[str, ...] = tuple(one.name for one in model.graph.input)
        self.outputs: tuple[str, ...] = tuple(one.name for one in model.graph.output)

    @cached_property
    def producers(self) -> dict[str, onnx.NodeProto]:
        """The node that makes each tensor."""
        return {name: node for node in self.nodes for name in node.output if name}

    @cached_property
    def consumers(self) -> dict[str, tuple[Use, ...]]:
        """The nodes of the main graph that read each tensor."""
        uses: defaultdict[str, list[Use]] = defaultdict(list)
        for node in self.nodes:
            for position, name in enumerate(node.input):
                if name:
                    uses[name].append(Use(node, position))
        return {name: tuple(found) for name, found in uses.items()}

    @cached_property
    def initializers(self) -> dict[str, onnx.TensorProto]:
        """The stored tensors that no caller can override."""
        given = set(self.inputs)
        return {one.name: one for one in self.model.graph.initializer if one.name not in given}

    @cached_property
    def constants(self) -> frozenset[str]:
        """Tensors that are the same for every image: stored, or computed from stored ones."""
        fixed = set(self.initializers)
        for node in self.nodes:
            names = [name for name in node.input if name]
            if all(name in fixed for name in names) and not node.op_type.startswith("Random"):
                fixed.update(name for name in node.output if name)
        return frozenset(fixed)

    @cached_property
    def captured(self) -> frozenset[str]:
        """Names that the sub-graphs of control-flow nodes use."""
        return frozenset(name for node in self.nodes for name in _names_inside(node))

    @cached_property
    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        """Inferred shapes for a batch of one; None for a dimension that stays unknown.

        Raises `ModelFormatError` where the graph contradicts itself.
        """
        copy = onnx.ModelProto()
        copy.CopyFrom(self.model)
        for one in copy.graph.input:
            dims = one.type.tensor_type.shape.dim
            if dims and dims[0].WhichOneof("value") != "dim_value":
                dims[0].dim_value = 1
        for one in copy.graph.output:
            one.type.tensor_type.ClearField("shape")
        copy.graph.ClearField("value_info")
        try:
            inferred = onnx.shape_inference.infer_shapes(copy, data_prop=True).graph
        except Exception as error:  # C++ errors of all kinds
            raise ModelFormatError(f"shapes can't be inferred: {error}") from error
        found = {one.name: tuple(one.dims) for one in copy.graph.initializer}
        for value in (*inferred.input, *inferred.value_info, *inferred.output):
            if value.type.tensor_type.HasField("shape"):
                found[value.name] = tuple(
                    dim.dim_value if dim.WhichOneof("value") == "dim_value" else None
                    for dim in value.type.tensor_type.shape.dim
                )
        return found

    def made_from(self, tensors: Iterable[str], through: Callable[[str], bool] = bool) -> set[str]:
        """Return the tensors that `tensors` are made from, themselves included.

        Left out are those that `through` refuses, and what only they are made from.
        """
        found: set[str] = set()
        pending = list(tensors)
        while pending:
            name = pending.pop()
            if name in found or not through(name):
                continue
            found.add(name)
            node = self.producers.get(name)
            pending.extend(node.input if node is not None else ())
        return found

    def array(self, name: str) -> NDArray[Any]:
        """Return a stored tensor."""
        return numpy_helper.to_array(self.initializers[name])

    def is_float_initializer(self, name: str) -> bool:
        """Say whether `name` is a stored float32 tensor."""
        stored = self.initializers.get(name)
        return stored is not None and stored.data_type == onnx.TensorProto.FLOAT

    def macs(self, node: onnx.NodeProto) -> int:
        """Return the multiply-accumulates of one image in a Conv, ConvTranspose, Gemm or MatMul.

        0 for other nodes and where the shapes can't be inferred.
        """
        if node.op_type not in WEIGHTED_OPS:
            return 0
        names = (node.output[0], *node.input[:2])
        out, first, second = (self.shapes.get(name, (None,)) for name in names)
        if None in (*out, *first, *second):
            return 0
        if node.op_type == "Conv":
            return _product(out) * _product(second[1:])
        if node.op_type == "ConvTranspose":
            return _product(first) * _product(second[1:])
        inner = first[-2] if attribute(node, "transA", 0) else first[-1]
        return _product(out) * (inner or 0)

    def macs_share(self, keys: Collection[str]) -> float:
        """Return the share (0..1) of all multiply-accumulates that the nodes of these keys do."""
        costs = {node_key(node): self.macs(node) for node in self.nodes}
        total = sum(costs.values())
        return sum(costs[key] for key in keys) / total if total else 0.0


def _product(dims: tuple[int | None, ...]) -> int:
    return int(np.prod([dim or 0 for dim in dims], dtype=np.int64))


def _names_inside(node: onnx.NodeProto) -> Iterator[str]:
    for one in node.attribute:
        for graph in (*one.graphs, *([one.g] if one.HasField("g") else [])):
            for inner in graph.node:
                yield from (name for name in inner.input if name)
                yield from _names_inside(inner)
            yield from (value.name for value in graph.output)
