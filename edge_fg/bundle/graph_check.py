"""Refuse ONNX graphs that would make a runtime read files, crash, or never end.

A bundle's hashes show that nothing was changed, not that its maker can be trusted. Weights as
"external data" are a path that a runtime opens (or, with some, an address in its memory); functions
that call themselves overflow the stack of ONNX Runtime up to 1.23.2. A device doesn't have the
``onnx`` package, so the protobuf bytes are read directly, without the weights.

If a field occurs twice, protobuf takes the last number, or merges the two messages. Each occurrence
is therefore judged alone, and one that names external data is enough to refuse the graph.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import Final

from edge_fg.bundle.wire import DELIMITED, VARINT, WireError, fields, varint
from edge_fg.errors import BundleFormatError, UnsafeBundleError

# Classifiers nest an If or a Loop or two; protobuf itself ends at some 33 levels.
_MAX_SUBGRAPH_DEPTH: Final = 16
_MAX_CALL_DEPTH: Final = 32
# ONNX Runtime's time to load grows with the square of it: this many take some twenty seconds.
_MAX_NODES: Final = 100_000
_MAX_FIELDS: Final = 2_000_000
_MAX_QUOTED_BYTES: Final = 100
# ONNX Runtime reads bytes with this mark as its own format, even if they are ONNX as well: it would
# run another graph than the one that was checked.
_ORT_MARK: Final = b"ORTM"
_ORT_MARK_AT: Final = 4


class _Kind(Enum):
    MODEL = "ModelProto"
    TRAINING = "TrainingInfoProto"
    FUNCTION = "FunctionProto"
    GRAPH = "GraphProto"
    NODE = "NodeProto"
    ATTRIBUTE = "AttributeProto"
    SPARSE = "SparseTensorProto"
    TENSOR = "TensorProto"


# Field numbers of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto: the messages that lead to
# tensors and nodes; all others are skipped.
_INNER: Final[dict[_Kind, dict[int, _Kind]]] = {
    # graph, training_info, functions
    _Kind.MODEL: {7: _Kind.GRAPH, 20: _Kind.TRAINING, 25: _Kind.FUNCTION},
    _Kind.TRAINING: {1: _Kind.GRAPH, 2: _Kind.GRAPH},  # initialization, algorithm
    _Kind.FUNCTION: {7: _Kind.NODE, 11: _Kind.ATTRIBUTE},  # node, attribute_proto
    # node, initializer, sparse_initializer
    _Kind.GRAPH: {1: _Kind.NODE, 5: _Kind.TENSOR, 15: _Kind.SPARSE},
    _Kind.NODE: {5: _Kind.ATTRIBUTE},  # attribute
    # t, g, tensors, graphs, sparse_tensor, sparse_tensors
    _Kind.ATTRIBUTE: {5: _Kind.TENSOR, 6: _Kind.GRAPH, 10: _Kind.TENSOR, 11: _Kind.GRAPH}
    | {22: _Kind.SPARSE, 23: _Kind.SPARSE},
    _Kind.SPARSE: {1: _Kind.TENSOR, 2: _Kind.TENSOR},  # values, indices
    _Kind.TENSOR: {},
}
_TENSOR_EXTERNAL_DATA: Final = 13
_TENSOR_DATA_LOCATION: Final = 14

# op_type of a node, name of a function and of a tensor
_NAME: Final = {_Kind.NODE: 4, _Kind.FUNCTION: 1, _Kind.TENSOR: 8}

_Calls = Counter[bytes]  # how often a body has each operator


def check_graph(data: bytes, *, where: str) -> None:
    """Refuse a serialized ONNX model that a runtime must not see; `where` names it in the message.

    An `UnsafeBundleError` says that data of a tensor lies outside the graph, that subgraphs or
    calls of functions are nested too deep or endlessly, or that the graph is larger than any
    classifier; a `BundleFormatError`, that the bytes are damaged or not ONNX.
    """
    if data.startswith(_ORT_MARK, _ORT_MARK_AT):
        raise BundleFormatError(f"{where} is in ONNX Runtime's own format, not ONNX: rebuild it")
    walk = _Walk(data, where)
    calls = Counter[bytes]()
    try:
        walk.message(_Kind.MODEL, 0, len(data), calls, 0)
    except WireError as error:
        raise BundleFormatError(f"{where} is damaged or not ONNX: {error}: rebuild it") from error
    _check_calls(calls, walk.functions, where)


class _Walk:
    """One pass over a model."""

    def __init__(self, data: bytes, where: str) -> None:
        # What each model-local function calls. Functions that differ only in domain or overload
        # count as one, because not all runtimes distinguish them.
        self.functions: dict[bytes, _Calls] = {}
        self._data = data
        self._where = where
        self._fields = 0
        self._nodes = 0

    def message(self, kind: _Kind, start: int, end: int, calls: _Calls, depth: int) -> None:
        """Check a message and all in it; count its nodes in `calls`."""
        if kind is _Kind.FUNCTION:
            calls, depth = Counter(), 1
        elif kind is _Kind.GRAPH:
            depth += 1
            # The model's own graph is no subgraph, nor is the body of a function.
            if depth > 1 + _MAX_SUBGRAPH_DEPTH:
                raise _unsafe(self._where, f"nests subgraphs over {_MAX_SUBGRAPH_DEPTH} deep")
        inner = _INNER[kind]
        name_number = _NAME.get(kind)
        name = b""
        external = False
        for number, wire_type, begin, stop in fields(self._data, start, end):
            self._fields += 1
            if self._fields > _MAX_FIELDS:
                raise _unsafe(self._where, f"has more than {_MAX_FIELDS} fields")
            if number in inner or number == name_number:
                _expect(DELIMITED, wire_type, kind, number)
                if number == name_number:
                    name = self._data[begin:stop]
                else:
                    self.message(inner[number], begin, stop, calls, depth)
            elif kind is _Kind.TENSOR:
                external |= self._is_external(number, wire_type, begin, stop)
        if external:
            raise UnsafeBundleError(
                f"{self._where}: tensor {_quoted(name)} takes its data from outside the bundle: "
                "refused; rebuild the bundle with the weights inside the graph"
            )
        self._count(kind, name, calls)

    def _is_external(self, number: int, wire_type: int, begin: int, stop: int) -> bool:
        if number == _TENSOR_EXTERNAL_DATA:
            _expect(DELIMITED, wire_type, _Kind.TENSOR, number)
            return True
        if number == _TENSOR_DATA_LOCATION:
            _expect(VARINT, wire_type, _Kind.TENSOR, number)
            # Every value but DEFAULT: parsers differ in how many of its bits they read.
            return varint(self._data, begin, stop)[0] != 0
        return False

    def _count(self, kind: _Kind, name: bytes, calls: _Calls) -> None:
        if kind is _Kind.NODE:
            calls[name] += 1
            self._nodes += 1
            if self._nodes > _MAX_NODES:
                raise _unsafe(self._where, f"has more than {_MAX_NODES} nodes")
        elif kind is _Kind.FUNCTION:
            self.functions.setdefault(name, Counter()).update(calls)


def _unsafe(where: str, what: str) -> UnsafeBundleError:
    return UnsafeBundleError(f"{where} {what}: refused; rebuild the bundle")


def _expect(wanted: int, wire_type: int, kind: _Kind, number: int) -> None:
    if wire_type != wanted:
        raise WireError(f"field {number} of a {kind.value} has wire type {wire_type}")


def _quoted(name: bytes) -> str:
    return repr(name[:_MAX_QUOTED_BYTES].decode("utf-8", "backslashreplace"))


def _check_calls(model: _Calls, functions: dict[bytes, _Calls], where: str) -> None:
    """Limit the nodes that there are when each call is replaced by its function's nodes.

    Each round takes the functions whose callees are known.
    """
    nodes: dict[bytes, int] = {}
    waiting = dict(functions)
    rounds = 0
    while waiting:
        ready = {name for name, calls in waiting.items() if calls.keys().isdisjoint(waiting)}
        if not ready:
            name = _quoted(min(waiting))
            raise _unsafe(f"{where}: function", f"{name} calls itself, directly or through others")
        rounds += 1
        if rounds > _MAX_CALL_DEPTH:
            raise _unsafe(where, f"nests calls of functions over {_MAX_CALL_DEPTH} deep")
        nodes.update({name: _expanded(waiting.pop(name), nodes) for name in ready})
    if max([_expanded(model, nodes), *nodes.values()]) > _MAX_NODES:
        raise _unsafe(where, f"has more than {_MAX_NODES} nodes once its functions are expanded")


def _expanded(calls: _Calls, nodes: dict[bytes, int]) -> int:
    """Return how many nodes a body has when calls of the functions in `nodes` are replaced."""
    return sum(count * (1 + nodes.get(name, 0)) for name, count in calls.items())
