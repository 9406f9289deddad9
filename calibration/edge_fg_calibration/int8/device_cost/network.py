"""A variant's graph as a library sees it before it fuses: operations, and the tensors between.

Views (Reshape, Flatten, ...) and DequantizeLinear are no operations here: what they give is read
where it is stored, and in the type that it is stored in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from math import prod
from typing import TypeAlias

import onnx
from onnx import TensorProto

from edge_fg_calibration.graph.onnx_graph import WEIGHTED_OPS, Graph, attribute, node_key
from edge_fg_calibration.int8.fp16 import element_types

INT8, HALF, FLOAT = TensorProto.INT8, TensorProto.FLOAT16, TensorProto.FLOAT

POINTWISE = frozenset(
    {
        *("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Neg", "Abs", "Sqrt", "Reciprocal"),
        *("Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Clip", "Sigmoid", "HardSigmoid"),
        *("Tanh", "HardSwish", "Softplus", "Softsign", "Mish", "Gelu", "Erf", "Exp", "Log"),
        *("Floor", "Ceil", "Round", "Where", "BatchNormalization", "Cast"),
        *("QuantizeLinear", "DequantizeLinear"),
    }
)
"""Operators that compute each value of the result from one value of each operand."""

_VIEWS = frozenset({"Identity", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze"})
_BYTES: dict[int, int] = {
    HALF: 2,
    TensorProto.BFLOAT16: 2,
    INT8: 1,
    TensorProto.UINT8: 1,
    TensorProto.BOOL: 1,
}
_BYTES |= {TensorProto.INT64: 8, TensorProto.DOUBLE: 8}


@dataclass(frozen=True)
class Tensor:
    """An activation, for a batch of one: its dimensions and its ``TensorProto.DataType``."""

    dims: tuple[int, ...]
    kind: int

    @property
    def bytes(self) -> int:
        """What it takes in memory; a dimension that nobody knows counts as 1."""
        return prod(self.dims) * _BYTES.get(self.kind, 4)


@dataclass(frozen=True)
class Operation:
    """One step of the network."""

    name: str  # Key of the ONNX node, with a suffix where a rule has added the operation
    operator: str  # The node's, or in lower case what a rule has added
    reads: tuple[str, ...]  # Activations
    writes: tuple[str, ...]
    macs: int = 0  # Multiply-accumulates of one image
    weight_bytes: int = 0  # What it reads of stored weights, biases and scales
    is_int8: bool = False  # Whether it multiplies INT8 by INT8
    is_depthwise: bool = False
    from_zero: bool = False  # Whether it is a Clip with the lower limit 0

    @property
    def is_pointwise(self) -> bool:
        """Whether each value of the result needs one value of each operand."""
        return self.operator in POINTWISE

    @property
    def is_weighted(self) -> bool:
        """Whether it is a convolution or a matrix product."""
        return self.operator in WEIGHTED_OPS


@dataclass(frozen=True)
class Network:
    """Operations in an order in which they can run, and all tensors that they read and write."""

    operations: tuple[Operation, ...]
    tensors: Mapping[str, Tensor]
    outputs: frozenset[str]

    @cached_property
    def makers(self) -> dict[str, Operation]:
        """The operation that writes each tensor."""
        return {name: one for one in self.operations for name in one.writes}

    @cached_property
    def readers(self) -> dict[str, tuple[Operation, ...]]:
        """The operations that read each tensor."""
        found: defaultdict[str, list[Operation]] = defaultdict(list)
        for one in self.operations:
            for name in dict.fromkeys(one.reads):
                found[name].append(one)
        return {name: tuple(ones) for name, ones in found.items()}

    def leaving(self, tensors: Iterable[str], names: Collection[str]) -> set[str]:
        """Return the tensors that operations of other names read, or that the network gives."""
        return {
            name
            for name in tensors
            if name in self.outputs
            or any(one.name not in names for one in self.readers.get(name, ()))
        }

    def rewritten(self, rewrite: Rewrite) -> Network:
        """Return the network with other operations in place of each, and their new tensors."""
        tensors = dict(self.tensors)
        operations = [new for one in self.operations for new in rewrite(one, tensors)]
        return replace(self, operations=tuple(operations), tensors=tensors)

    def without(self, drops: Callable[[Network, Operation], bool]) -> Network:
        """Return the network less some operations, their operands read in place of the results."""
        network = self
        while dropped := next((one for one in network.operations if drops(network, one)), None):
            network = network.rewritten(partial(_without, dropped))
        return network


Rewrite: TypeAlias = Callable[[Operation, dict[str, Tensor]], Iterable[Operation]]


def _without(dropped: Operation, one: Operation, _: dict[str, Tensor]) -> Iterator[Operation]:
    if one is not dropped:
        result = dropped.writes[0]
        reads = [dropped.reads if name == result else (name,) for name in one.reads]
        yield replace(one, reads=tuple(chain(*reads)))


def network_of(model: onnx.ModelProto) -> Network:
    """Read a variant's graph, for a batch of one.

    Raises
    ------
    ModelFormatError
        Shapes or types can't be inferred.
    """
    return _Reader(Graph(model), element_types(model)).network()


class _Reader:
    def __init__(self, graph: Graph, types: Mapping[str, int]) -> None:
        self._graph, self._types = graph, types
        self._stored_as: dict[str, str] = {}  # What holds a view's values
        self._fixed = set(graph.constants)  # Stored tensors, and what only depends on shapes
        for node in graph.nodes:
            names = [name for name in node.input if name]
            if node.op_type in {"Shape", "Size"} or (names and self._fixed.issuperset(names)):
                self._fixed.update(node.output)

    def network(self) -> Network:
        graph = self._graph
        every = [
            self._operation(node)
            for node in graph.nodes
            if node_key(node) not in self._fixed and not self._is_view(node)
        ]
        used = {self._root(name) for name in (*graph.outputs, *graph.captured)}
        operations: list[Operation] = []
        for one in reversed(every):
            if used.intersection(one.writes):
                operations.insert(0, one)
                used.update(one.reads)
        tensors = {
            name: self._tensor(name) for one in operations for name in (*one.reads, *one.writes)
        }
        outputs = frozenset(self._root(name) for name in graph.outputs)
        return Network(tuple(operations), tensors, outputs)

    def _root(self, name: str) -> str:
        return self._stored_as.get(name, name)

    def _tensor(self, name: str) -> Tensor:
        dims = tuple(dim or 1 for dim in self._graph.shapes.get(name, ()))
        return Tensor(dims, self._types.get(name, FLOAT))

    def _is_view(self, node: onnx.NodeProto) -> bool:
        view = node.op_type in _VIEWS or node.op_type == "DequantizeLinear"
        if node.op_type in {"Slice", "Expand"}:  # of all there is
            view = self._tensor(node.input[0]).dims == self._tensor(node.output[0]).dims
        if node.op_type == "Cast":  # those around Q and DQ say in which type the scale is applied
            uses = self._graph.consumers.get(node.output[0], ())
            scaled = uses and all(use.node.op_type == "QuantizeLinear" for use in uses)
            source = self._types.get(self._root(node.input[0]))
            view = bool(scaled) or source == INT8
        if view:
            self._stored_as[node.output[0]] = self._root(node.input[0])
        return view

    def _operation(self, node: onnx.NodeProto) -> Operation:
        graph = self._graph
        given = [name for name in node.input if name]
        reads = tuple(self._root(name) for name in given if name not in self._fixed)
        stored = graph.made_from(set(given) & self._fixed, self._fixed.__contains__)
        stored &= graph.initializers.keys()
        is_weighted = node.op_type in WEIGHTED_OPS
        factors = [self._kind_of_factor(name) for name in given[:2]] if is_weighted else []
        window = graph.shapes.get(given[1], ()) if node.op_type == "Conv" else ()
        return Operation(
            node_key(node),
            node.op_type,
            reads,
            tuple(name for name in node.output if name),
            macs=graph.macs(node),
            weight_bytes=sum(self._tensor(name).bytes for name in stored),
            is_int8=bool(factors) and set(factors) == {INT8},
            is_depthwise=attribute(node, "group", 1) > 1 and window[1:2] == (1,),
            from_zero=node.op_type == "Clip" and self._clips_from_zero(node),
        )

    def _kind_of_factor(self, name: str) -> int | None:
        graph = self._graph
        if name not in self._fixed:
            return self._types.get(self._root(name))
        kinds = {self._types.get(one) for one in graph.made_from([name])}
        return INT8 if INT8 in kinds else self._types.get(name)

    def _clips_from_zero(self, node: onnx.NodeProto) -> bool:
        lower = node.input[1] if len(node.input) > 1 else ""
        return lower in self._graph.initializers and not self._graph.array(lower).any()
