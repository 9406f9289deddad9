"""Refuse ONNX graphs that would make a runtime read files, crash, or never end.

A bundle's hashes show that nothing was changed, not that its maker can be trusted. Weights as
"external data" are a path that a runtime opens (or, with some, an address in its memory); functions
that call themselves overflow the stack of ONNX Runtime up to 1.23.2; no runtime can be stopped in a
loop whose body is empty. A device doesn't have the ``onnx`` package, so the protobuf bytes are read
directly, without the weights.

If a field occurs twice, protobuf takes the last number, or merges the two messages. Each occurrence
is therefore judged alone, and one that names external data is enough to refuse the graph.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Final

from edge_fg.bundle.attributes import read_integers
from edge_fg.bundle.tensors import dimensions, read_tensor
from edge_fg.bundle.wire import DELIMITED, VARINT, Data, WireError, expect, fields, signed, varint
from edge_fg.errors import BundleFormatError, UnsafeBundleError

# Classifiers nest an If or a Loop or two; protobuf itself ends at some 33 levels.
_MAX_SUBGRAPH_DEPTH: Final = 16
_MAX_CALL_DEPTH: Final = 32
# ONNX Runtime's time to load grows with the square of it: this many take some twenty seconds.
_MAX_NODES: Final = 100_000
_MAX_FIELDS: Final = 2_000_000
# Of a tensor that takes few bytes in the graph: a gigabyte of float32.
_MAX_VALUES: Final = 1 << 28
_MAX_QUOTED_BYTES: Final = 100
# ONNX Runtime reads bytes with this mark as its own format, even if they are ONNX as well: it would
# run another graph than the one that was checked.
_ORT_MARK: Final = b"ORTM"
_ORT_MARK_AT: Final = 4
# They run a subgraph for each row of a tensor, or as often as its values say: no constant of the
# graph limits that. All but the first two are ONNX Runtime's own.
_UNLIMITED: Final = frozenset(
    {b"Scan", b"SequenceMap", b"BeamSearch", b"WhisperBeamSearch", b"GreedySearch", b"Sampling"}
)

# Their result has as many values as an input says, at least. ONNX Runtime up to 1.18 computes such
# constants when it loads a graph, where nothing limits its memory.
_GROWING: Final = {b"ConstantOfShape": 0, b"Expand": 1, b"Tile": 1, b"Resize": 3, b"Pad": 1}

# A classifier pads by half a kernel; by a million, and one frame takes minutes and all memory.
_MAX_ENLARGEMENT: Final = 512
_TENSORS, _GRAPHS, _SPARSE = (5, 10), (6, 11), (22, 23)  # fields of an AttributeProto
_WANTED: Final = (*_TENSORS, *_GRAPHS, *_SPARSE)

_Values = tuple[int, ...]
_Calls = Counter[bytes]  # how often a body has each operator


def check_graph(
    data: Data, *, where: str, external: bool = False, advice: str = "rebuild it"
) -> None:
    """Refuse a serialized ONNX model that a runtime must not see; `where` names it in the message.

    An `UnsafeBundleError` says that data of a tensor lies outside the graph (unless `external`
    allows it) or is not as long as its shape says, that a loop has no constant limit, that
    subgraphs or calls of functions are nested too deep or endlessly, or that the graph is larger
    than any classifier; a `BundleFormatError`, that the bytes are damaged or not ONNX. Both end
    with what to do: `advice`.
    """
    if data[_ORT_MARK_AT : _ORT_MARK_AT + len(_ORT_MARK)] == _ORT_MARK:
        raise BundleFormatError(f"{where} is in ONNX Runtime's own format, not ONNX: {advice}")
    walk = _Walk(data, external)
    try:
        walk.model()
        walk.repeat_loops()
        walk.check_sizes()
        _check_calls(walk.calls, walk.functions())
    except WireError as error:
        raise BundleFormatError(f"{where} is damaged or not ONNX: {error}: {advice}") from error
    except _RefusedError as error:
        raise UnsafeBundleError(f"{where}{error}: refused; {advice}") from error


class _RefusedError(Exception):
    """The rest of a sentence that begins with the graph's name."""


class _Walk:
    """One pass over a model.

    Its numbers of fields are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto: the
    messages that lead to tensors and nodes; all others are skipped. Each method reads the message
    that stands between `start` and `end`.
    """

    def __init__(self, data: Data, external: bool) -> None:
        self.calls = Counter[bytes]()
        self._functions: list[tuple[bytes, _Calls]] = []
        self._data = data
        self._external = external
        self._read = 0
        self._nodes = 0
        # Of each Loop its limit, the body that it stands in and its own, the inner ones first.
        self._loops: list[tuple[bytes, _Calls, _Calls]] = []
        self._growing: list[tuple[bytes, bytes]] = []  # an operator and what says its size
        # The values of short constants, and the names of what is computed: the same name may stand
        # in several graphs.
        self._constants: dict[bytes, _Values] = {}
        self._computed: set[bytes] = set()

    def model(self) -> None:
        for number, start, end in self._parts("ModelProto", 0, len(self._data), (7, 20, 25)):
            if number == 7:
                self._graph(start, end, self.calls, 0)
            elif number == 25:
                self._function(start, end)
            else:  # what training starts with, and its steps
                for _, begin, stop in self._parts("TrainingInfoProto", start, end, (1, 2)):
                    self._graph(begin, stop, self.calls, 0)

    def functions(self) -> dict[bytes, _Calls]:
        """Return what each function calls.

        Functions that differ only in domain or overload count as one, because not all runtimes
        distinguish them.
        """
        merged: dict[bytes, _Calls] = {}
        for name, calls in self._functions:
            merged.setdefault(name, Counter()).update(calls)
        return merged

    def repeat_loops(self) -> None:
        """Count what is in loops as often as it runs."""
        for limit, calls, body in self._loops:
            values = () if limit in self._computed else self._constants.get(limit, ())
            if len(values) != 1:
                raise _RefusedError(
                    f" has a Loop whose number of rounds is no constant ({_quoted(limit)})"
                )
            calls[b"Loop"] += max(*values, 0)
            calls.update({name: count * max(*values, 1) for name, count in body.items()})

    def check_sizes(self) -> None:
        """Refuse results whose size is a constant, and huge."""
        for op, name in self._growing:
            _check_size(op, self._constants.get(name, ()))

    def _function(self, start: int, end: int) -> None:
        name, calls = b"", Counter[bytes]()
        for number, begin, stop in self._parts("FunctionProto", start, end, (1, 4, 7, 11)):
            if number == 7:
                self._node(begin, stop, calls, 0)
            elif number == 11:
                self._attribute(begin, stop, calls, 0)
            elif number == 4:
                self._computed.add(self._text(begin, stop))
            else:
                name = self._text(begin, stop)
        self._functions.append((name, calls))

    def _graph(self, start: int, end: int, calls: _Calls, depth: int) -> None:
        if depth > _MAX_SUBGRAPH_DEPTH:
            raise _RefusedError(f" nests subgraphs over {_MAX_SUBGRAPH_DEPTH} deep")
        for number, begin, stop in self._parts("GraphProto", start, end, (1, 5, 11, 12, 15)):
            if number == 1:
                self._node(begin, stop, calls, depth)
            elif number == 5:
                self._constant(*self._tensor(begin, stop))
            elif number == 15:
                self._sparse(begin, stop)
            else:
                for _, first, last in self._parts("ValueInfoProto", begin, stop, (1,)):
                    name = self._text(first, last)
                    # The inputs of the model itself may name its initializers.
                    if number == 11 and depth:
                        self._computed.add(name)

    def _node(self, start: int, end: int, calls: _Calls, depth: int) -> None:
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise _RefusedError(f" has more than {_MAX_NODES} nodes")
        op, inputs = b"", [b""]  # which count from 1
        outputs: list[bytes] = []
        value: _Values | None = None
        body = Counter[bytes]()
        for number, begin, stop in self._parts("NodeProto", start, end, (1, 2, 3, 4, 5, 7)):
            if number == 5:
                value = self._attribute(begin, stop, body, depth)
                continue
            text = self._text(begin, stop)
            if number == 4:
                op = text
            elif number < 3:
                (inputs if number == 1 else outputs).append(text)
        if op in _UNLIMITED:
            raise _RefusedError(f" has {_quoted(op)}, whose number of rounds no constant limits")
        calls[op] += 1
        if op == b"Loop":
            self._loops.append((inputs[min(1, len(inputs) - 1)], calls, body))
        else:
            calls.update(body)
        size = 1 + _GROWING.get(op, len(inputs))
        if size < len(inputs):
            self._growing.append((op, inputs[size]))
        for name in outputs:
            self._constant(name, value if op == b"Constant" else None)

    def _attribute(self, start: int, end: int, calls: _Calls, depth: int) -> _Values | None:
        """Return the integers in it; None where there are none, or of several kinds."""
        integers = read_integers(self._data, start, end)
        if integers.enlargement > _MAX_ENLARGEMENT:
            raise _RefusedError(f" has pads, strides or the like of {integers.enlargement}")
        found: list[_Values | None] = [integers.values] if integers.values else []
        for number, begin, stop in self._parts("AttributeProto", start, end, _WANTED, (3,)):
            if number in _TENSORS:
                found.append(self._tensor(begin, stop)[1])
            elif number in _GRAPHS:
                self._graph(begin, stop, calls, depth + 1)
            elif number in _SPARSE:
                self._sparse(begin, stop)
            else:
                found.append((signed(varint(self._data, begin, stop)[0]),))
        return found[0] if len(found) == 1 else None

    def _sparse(self, start: int, end: int) -> None:
        sizes: list[int] = []
        for number, wire_type, begin, stop in self._fields(start, end):
            if number in (1, 2):  # values, indices
                expect(DELIMITED, wire_type, "SparseTensorProto", number)
                self._tensor(begin, stop)
            elif number == 3:
                sizes += dimensions(self._data, wire_type, begin, stop)
        if math.prod(sizes) > _MAX_VALUES:
            raise _RefusedError(f" has a sparse tensor of {math.prod(sizes)} values")

    def _tensor(self, start: int, end: int) -> tuple[bytes, _Values | None]:
        """Return its name, and its values where they are a few integers."""
        tensor = read_tensor(self._data, self._fields(start, end))
        _check_text(tensor.name)
        if tensor.external and not self._external:
            raise _RefusedError(
                f": tensor {_quoted(tensor.name)} takes its data from outside the bundle, not "
                "from weights inside the graph"
            )
        if not tensor.complete:
            raise _RefusedError(
                f": tensor {_quoted(tensor.name)} declares {tensor.declared} values and holds "
                "more or fewer"
            )
        return tensor.name, tensor.values

    def _constant(self, name: bytes, values: _Values | None) -> None:
        if values is None or self._constants.get(name, values) != values:
            self._computed.add(name)
        else:
            self._constants[name] = values

    def _text(self, start: int, end: int) -> bytes:
        text = self._data[start:end]
        _check_text(text)
        return text

    def _parts(
        self,
        message: str,
        start: int,
        end: int,
        wanted: Collection[int],
        integers: Collection[int] = (),
    ) -> Iterator[tuple[int, int, int]]:
        """Yield those fields of a message that are `wanted` or `integers`."""
        for number, wire_type, begin, stop in self._fields(start, end):
            if number in wanted:
                expect(DELIMITED, wire_type, message, number)
                yield number, begin, stop
            elif number in integers:
                expect(VARINT, wire_type, message, number)
                yield number, begin, stop

    def _fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        for found in fields(self._data, start, end):
            self._read += 1
            if self._read > _MAX_FIELDS:
                raise _RefusedError(f" has more than {_MAX_FIELDS} fields")
            yield found


def _check_text(text: bytes) -> None:
    """Refuse what ONNX Runtime can't even name in its own errors."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise WireError("a name that is not UTF-8") from error


def _check_size(op: bytes, values: _Values) -> None:
    """Refuse an operator whose result is huge by these values of one of its inputs."""
    if op == b"Pad" and max(values, default=0) > _MAX_ENLARGEMENT:
        raise _RefusedError(f" has pads, strides or the like of {max(values)}")
    if op != b"Pad" and math.prod(values) > _MAX_VALUES:
        raise _RefusedError(f": {_quoted(op)} makes a tensor of {math.prod(values)} values")


def _quoted(name: bytes) -> str:
    return repr(name[:_MAX_QUOTED_BYTES].decode("utf-8", "backslashreplace"))


def _check_calls(model: _Calls, functions: dict[bytes, _Calls]) -> None:
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
            raise _RefusedError(f": function {name} calls itself, directly or through others")
        rounds += 1
        if rounds > _MAX_CALL_DEPTH:
            raise _RefusedError(f" nests calls of functions over {_MAX_CALL_DEPTH} deep")
        nodes.update({name: _expanded(waiting.pop(name), nodes) for name in ready})
    if max([_expanded(model, nodes), *nodes.values()]) > _MAX_NODES:
        raise _RefusedError(
            f" has more than {_MAX_NODES} nodes once its functions are expanded and each round of "
            "its loops is counted"
        )


def _expanded(calls: _Calls, nodes: dict[bytes, int]) -> int:
    """Return how many nodes a body has when calls of the functions in `nodes` are replaced."""
    return sum(count * (1 + nodes.get(name, 0)) for name, count in calls.items())
