"""Loops end, and tensors hold what they declare, or no runtime sees the graph."""

from __future__ import annotations

import numpy as np
import pytest

from edge_fg.bundle.graph_check import check_graph
from edge_fg.errors import BundleFormatError, UnsafeBundleError

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402  comes with onnx

from support.graphs import classifier, looping, value, whole  # noqa: E402

RUN_LONG = "once its functions are expanded and each round of its loops is counted"


def check(graph: bytes) -> None:
    check_graph(graph, where="g")


@pytest.mark.parametrize("rounds", [0, 1, -5, 1000])
def test_a_loop_with_a_constant_limit_passes(rounds: int):
    check(looping(whole("limit", rounds)))


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("rounds", [1 << 62, 100_001])
def test_a_loop_that_runs_too_often_is_refused(rounds: int, empty: bool):
    with pytest.raises(UnsafeBundleError, match=RUN_LONG):
        check(looping(whole("limit", rounds), empty=empty))


def with_function(limit_inside: bool) -> bytes:
    made = onnx.load_from_string(looping(whole("limit", 5)))
    opset = [helper.make_opsetid("", 17)]
    loop = next(node for node in made.graph.node if node.op_type == "Loop")
    constant = helper.make_node("Constant", [], ["often"], value=whole("", 9))
    inside = onnx.NodeProto.FromString(loop.SerializeToString())
    inside.input[0] = "often"
    made.functions.append(
        helper.make_function(
            "local",
            "f",
            ["yes", "unit"] if limit_inside else ["often", "yes", "unit"],
            ["state"],
            [constant, inside] if limit_inside else [inside],
            opset,
        )
    )
    return made.SerializeToString()


def nested(*limits: int) -> bytes:
    """Loops inside one another, with a limit for each."""
    made = onnx.load_from_string(looping(None))
    loop = next(node for node in made.graph.node if node.op_type == "Loop")
    for depth, limit in enumerate(limits):
        loop.input[0] = f"limit{depth}"
        made.graph.initializer.append(whole(f"limit{depth}", limit))
        if depth + 1 < len(limits):
            inner = onnx.NodeProto.FromString(loop.SerializeToString())
            loop = loop.attribute[0].g.node.add()
            loop.CopyFrom(inner)
    return made.SerializeToString()


def computed_limit() -> bytes:
    made = onnx.load_from_string(looping(whole("limit", 5)))
    loop = next(node for node in made.graph.node if node.op_type == "Loop")
    loop.input[0] = "twice"
    made.graph.node.insert(0, helper.make_node("Add", ["limit", "limit"], ["twice"]))
    return made.SerializeToString()


def shadowed_limit() -> bytes:
    """A subgraph's input has the name of a constant."""
    made = onnx.load_from_string(looping(whole("limit", 5)))
    loop = next(node for node in made.graph.node if node.op_type == "Loop")
    loop.attribute[0].g.input[0].name = "limit"
    return made.SerializeToString()


@pytest.mark.parametrize("make", [lambda: with_function(True), lambda: nested(10, 10, 10)])
def test_limits_may_be_constants_of_any_graph(make):
    check(make())


@pytest.mark.parametrize(
    "make",
    [
        lambda: looping(None),
        lambda: looping(whole("limit", 5, 6)),
        computed_limit,
        shadowed_limit,
        lambda: with_function(False),
    ],
    ids=["none", "two", "computed", "shadowed", "of a function's caller"],
)
def test_a_loop_without_a_constant_limit_is_refused(make):
    with pytest.raises(UnsafeBundleError, match="a Loop whose number of rounds is no constant"):
        check(make())


def test_loops_in_loops_multiply():
    with pytest.raises(UnsafeBundleError, match=RUN_LONG):
        check(nested(100, 100, 100))


@pytest.mark.parametrize("op", ["Scan", "SequenceMap", "BeamSearch", "GreedySearch", "Sampling"])
def test_what_no_constant_limits_is_refused(op: str):
    with pytest.raises(UnsafeBundleError, match=f"'{op}', whose number of rounds"):
        check(looping(whole("limit", 5), op=op))


def filled(**fields) -> bytes:
    return classifier(tensors=[onnx.TensorProto(name="w", **fields)])


@pytest.mark.parametrize(
    "fields",
    [
        {"data_type": TensorProto.FLOAT, "dims": [2, 3], "raw_data": bytes(24)},
        {"data_type": TensorProto.FLOAT, "dims": [], "float_data": [1.0]},
        {"data_type": TensorProto.FLOAT, "dims": [0, 1 << 40]},
        {"data_type": TensorProto.BOOL, "dims": [3], "int32_data": [1, 0, 1]},
        {"data_type": TensorProto.INT64, "dims": [3], "int64_data": [-1, 1 << 60, 3]},
        {"data_type": TensorProto.DOUBLE, "dims": [2], "double_data": [1.0, 2.0]},
        {"data_type": TensorProto.COMPLEX64, "dims": [1], "float_data": [1.0, 2.0]},
        {"data_type": TensorProto.UINT32, "dims": [2], "uint64_data": [1, 1 << 31]},
        {"data_type": TensorProto.STRING, "dims": [2], "string_data": [b"", b"b"]},
        {"data_type": 22, "dims": [3], "raw_data": bytes(2)},
        {"data_type": 22, "dims": [3], "int32_data": [1, 2]},
    ],
)
def test_tensors_that_hold_what_they_declare_pass(fields):
    check(filled(**fields))
    with pytest.raises(UnsafeBundleError, match=r"'w' declares .* holds more or fewer"):
        check(filled(**{**fields, "dims": [*fields["dims"], 1 << 40, 2, 3][-3:]}))
    for extra in ("raw_data", "float_data", "int32_data", "int64_data", "string_data"):
        if fields.get(extra):
            with pytest.raises(UnsafeBundleError, match=r"'w' declares .* holds more or fewer"):
                check(filled(**{**fields, extra: fields[extra] + fields[extra]}))


@pytest.mark.parametrize("dims", [[-1], [2, -2], [1] * 65], ids=["negative", "two", "many"])
def test_shapes_that_are_none_are_refused(dims):
    with pytest.raises(BundleFormatError, match="negative size or too many dimensions"):
        check(filled(data_type=TensorProto.FLOAT, dims=dims, raw_data=bytes(4)))


def test_a_sparse_tensor_must_not_stand_for_gigabytes():
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    for dims, unsafe in (([1 << 10, 1 << 10], False), ([1 << 15, 1 << 15], True)):
        sparse = onnx.SparseTensorProto(values=values, indices=whole("i", 0), dims=dims)
        node = helper.make_node("Constant", [], ["c"], sparse_value=sparse)
        graph = classifier([node], output=value("flat", shape=["N", 3]))
        if unsafe:
            with pytest.raises(UnsafeBundleError, match="a sparse tensor of 1073741824 values"):
                check(graph)
        else:
            check(graph)


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("ConstantOfShape", ["s"], ["c"]),
        helper.make_node("Expand", ["x", "s"], ["c"]),
        helper.make_node("Tile", ["x", "s"], ["c"]),
        helper.make_node("Resize", ["x", "", "", "s"], ["c"], mode="nearest"),
    ],
    ids=lambda node: node.op_type,
)
def test_a_result_of_a_huge_constant_size_is_refused(node):
    def graph(*shape: int, constant: bool) -> bytes:
        stored = whole("s", *shape)
        made = [helper.make_node("Constant", [], ["s"], value=stored)] if constant else []
        tensors = [] if constant else [stored]
        return classifier([*made, node], tensors=tensors, output=value("flat", shape=["N", 3]))

    for constant in (False, True):
        check(graph(1, 3, 1 << 10, 1 << 10, constant=constant))
        with pytest.raises(UnsafeBundleError, match="makes a tensor of 1610612736 values"):
            check(graph(1, 3, 1 << 15, 1 << 14, constant=constant))


@pytest.mark.parametrize("old", [b"GlobalAveragePool", b"means", b"flat", b"y"])
def test_names_that_are_no_text_are_refused(old: bytes):
    graph = classifier()
    assert old in graph
    with pytest.raises(BundleFormatError, match="a name that is not UTF-8"):
        check(graph.replace(old, b"\xff" * len(old)))
