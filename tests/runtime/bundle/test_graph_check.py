"""No graph of a bundle makes a runtime read files, crash or run forever, however it is written."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edge_fg
from edge_fg import Bundle
from edge_fg.bundle.graph_check import check_graph
from edge_fg.bundle.writer import write_bundle
from edge_fg.errors import BundleError, BundleFormatError, UnsafeBundleError
from support.properties import examples

onnx = pytest.importorskip("onnx")
from google.protobuf.message import DecodeError, Message  # noqa: E402  comes with onnx
from onnx import helper, numpy_helper  # noqa: E402

EXTERNAL = onnx.TensorProto.EXTERNAL
WHERE = "b.edgefg: `model.fp32.onnx`"


def check(model) -> None:
    check_graph(model if isinstance(model, bytes) else model.SerializeToString(), where=WHERE)


def tensor(name: str = "w", external: bool = False):
    made = numpy_helper.from_array(np.ones((2, 2), np.float32), name)
    if external:
        made.ClearField("raw_data")
        made.data_location = EXTERNAL
        made.external_data.add(key="location", value="secret.bin")
    return made


def node(op_type: str = "Relu", **attributes):
    return helper.make_node(op_type, ["x"], ["y"], **attributes)


def graph(nodes=(), tensors=()):
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 2])
    return helper.make_graph(list(nodes), "g", [value], [], list(tensors))


def function(name: str, *calls: str, domain: str = "local", nodes=()):
    opset = [helper.make_opsetid("", 17)]
    body = [*nodes, *(node(call, domain="local") for call in calls)]
    return helper.make_function(domain, name, ["x"], ["y"], body, opset)


def model(nodes=(), tensors=(), functions=()):
    return helper.make_model(graph(nodes, tensors), functions=list(functions), ir_version=10)


def sparse(values, indices):
    return onnx.SparseTensorProto(values=values, indices=indices, dims=[2, 2])


def nested(inner, depth: int):
    """A graph with `inner` in so many levels of subgraphs."""
    for _ in range(depth):
        inner = graph([node("If", then_branch=inner)])
    return inner


def in_sparse_initializer(values, indices):
    made = model()
    made.graph.sparse_initializer.append(sparse(values, indices))
    return made


def in_function_default(external):
    made = model(functions=[function("f")])
    made.functions[0].attribute_proto.append(helper.make_attribute("value", external))
    return made


def in_training(part: str, external):
    made = model()
    getattr(made.training_info.add(), part).CopyFrom(graph(tensors=[external]))
    return made


PLACES = {
    "initializer": lambda w: model(tensors=[tensor("v"), w, tensor("z")]),
    "sparse values": lambda w: in_sparse_initializer(w, tensor()),
    "sparse indices": lambda w: in_sparse_initializer(tensor(), w),
    "attribute": lambda w: model([node("Constant", value=w)]),
    "attribute's list": lambda w: model([node("Some", values=[tensor("v"), w])]),
    "sparse attribute": lambda w: model([node("Constant", value=sparse(w, tensor()))]),
    "sparse attribute's list": lambda w: model([node("Some", values=[sparse(tensor(), w)])]),
    "subgraph": lambda w: model([node("If", then_branch=graph(tensors=[w]))]),
    "subgraphs' list": lambda w: model([node("Some", bodies=[graph(), graph(tensors=[w])])]),
    "nested subgraph": lambda w: model([node("If", then_branch=nested(graph(tensors=[w]), 4))]),
    "function": lambda w: model(functions=[function("f", nodes=[node("Constant", value=w)])]),
    "function's default": in_function_default,
    "training's start": lambda w: in_training("initialization", w),
    "training's step": lambda w: in_training("algorithm", w),
}


@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_refused_wherever_it_stands(place: str):
    check(PLACES[place](tensor("fine")))
    with pytest.raises(UnsafeBundleError, match=r"model\.fp32\.onnx`: tensor 'w' takes its data"):
        check(PLACES[place](tensor("w", external=True)))


def test_half_a_claim_is_enough():
    marked, placed = tensor(), tensor()
    marked.data_location = EXTERNAL
    placed.external_data.add(key="location", value="*/_ORT_MEM_ADDR_/*")
    for claim in (marked, placed):
        with pytest.raises(UnsafeBundleError, match="weights inside the graph"):
            check(model(tensors=[claim]))


def test_a_tensor_s_name_can_t_command_a_terminal():
    name = "\x1b[2J\n\u202e" + "long" * 1000
    with pytest.raises(UnsafeBundleError) as caught:
        check(model(tensors=[tensor(name, external=True)]))
    text = str(caught.value)
    assert text.isprintable()
    assert r"'\x1b[2J\n\u202elong" in text
    assert len(text) < 400


# --- bytes that no library would write ------------------------------------------------------------


def number(value: int, size: int = 0) -> bytes:
    """A varint, padded to `size` bytes."""
    groups = max(size, (value.bit_length() + 6) // 7, 1)
    last = groups - 1
    return bytes(value >> 7 * i & 0x7F | (0x80 if i < last else 0) for i in range(groups))


def field(place: int, content: bytes | int, tag_size: int = 0, length_size: int = 0) -> bytes:
    if isinstance(content, int):
        return number(place << 3, tag_size) + number(content)
    return number(place << 3 | 2, tag_size) + number(len(content), length_size) + content


def with_tensor(content: bytes) -> bytes:
    return field(7, field(5, content))


LOCATION = field(14, 1)


@pytest.mark.parametrize(
    "data",
    {
        "plain": with_tensor(LOCATION),
        "the last one is harmless": with_tensor(LOCATION + field(14, 0)),
        "the first one is harmless": with_tensor(field(14, 0) + LOCATION),
        "a tag of two bytes": with_tensor(field(14, 1, tag_size=2)),
        "a tag of five bytes": with_tensor(field(14, 1, tag_size=5)),
        "a number of ten bytes": with_tensor(number(14 << 3) + number(1, 10)),
        "more than 32 bits": with_tensor(field(14, 1 << 32 | 1)),
        "an unknown place": with_tensor(field(14, 2)),
        "an empty entry": with_tensor(field(13, b"")),
        "long lengths": field(7, field(5, LOCATION, 5, 5), 5, 5),
        "a graph in two parts": field(7, field(2, b"g")) + with_tensor(LOCATION),
        "an attribute's tensor in two parts": field(
            7, field(1, field(5, field(5, LOCATION) + field(5, field(8, b"w"))))
        ),
        "after unknown fields": field(99, b"?") + field(98, 7) + with_tensor(LOCATION),
    }.items(),
    ids=lambda case: case[0],
)
def test_no_way_of_writing_hides_external_data(data):
    with pytest.raises(UnsafeBundleError, match="outside the bundle"):
        check(data[1])


@pytest.mark.parametrize(
    "data",
    {
        "no protobuf": b"not a model",
        "a length past the end": b"\x3a\x05abc",
        "a length past its message": field(7, b"\x2a\x7f") + bytes(200),
        "cut in a tag": b"\xba",
        "cut in a length": b"\x3a\x80",
        "cut in a number": b"\x08\x80\x80",
        "a number of eleven bytes": b"\x08" + number(1, 11),
        "a number over 64 bits": b"\x08" + number(1 << 64),
        "a tag of six bytes": field(7, b"", tag_size=6),
        "a tag over 32 bits": number(1 << 33 | 7 << 3 | 2) + b"\0",
        "a length of six bytes": field(7, b"", length_size=6),
        "a length over 32 bits": b"\x3a" + number(1 << 33),
        "a cut fixed number": b"\x0d\0\0",
        "a cut fixed long number": b"\x09\0\0\0\0",
        "field number 0": b"\x00\x01",
        "a group": number(50 << 3 | 3) + number(50 << 3 | 4),
        "the end of a group": number(50 << 3 | 4),
        "wire type 6": number(50 << 3 | 6),
        "wire type 7": number(50 << 3 | 7),
        "a graph that is a number": field(7, 1),
        "a tensor that is a number": field(7, field(5, 1)),
        "a name that is a number": with_tensor(field(8, 1)),
        "an operator that is a number": field(7, field(1, field(4, 1))),
        "a place that is bytes": with_tensor(field(14, b"\x01")),
        "an entry that is a number": with_tensor(field(13, 1)),
        "ONNX Runtime's own format": field(2, b"..ORTM" + bytes(20)),
    }.items(),
    ids=lambda case: case[0],
)
def test_bytes_that_parsers_could_read_differently_are_refused(data):
    with pytest.raises(BundleFormatError, match="rebuild it"):
        check(data[1])


def test_unknown_fields_and_every_way_of_storing_weights_pass():
    packed = field(1, number(2) + number(2)) + field(4, bytes(16))
    unpacked = field(1, 4) + 4 * (number(4 << 3 | 5) + bytes(4))
    doubles = number(10 << 3 | 1) + bytes(8)
    unknown = field(99, b"any") + field(98, 1) + number(97 << 3 | 5) + bytes(4)
    for content in (packed, unpacked, doubles, unknown, field(9, b"\x70\x01"), field(14, 0)):
        check(with_tensor(content) + unknown)


# --- endless and huge -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "functions",
    [
        [function("f", "f")],
        [function("f", "g"), function("g", "f")],
        [function("f", "g"), function("g", "h"), function("h", "Relu", "g")],
        # Some runtimes tell functions apart by name alone.
        [function("f", "f", domain="other")],
        [function("f", "g", domain="a"), function("f", domain="b"), function("g", "f")],
        [function("f", nodes=[node("If", then_branch=nested(graph([node("f")]), 3))])],
    ],
    ids=["itself", "each other", "later in the chain", "domain", "one name", "subgraph"],
)
def test_functions_that_call_themselves_are_refused(functions):
    with pytest.raises(UnsafeBundleError, match=r"function '[fg]' calls itself"):
        check(model([node("f", domain="local")], functions=functions))


def chain(length: int, times: int):
    """Functions of which each calls the next so often."""
    names = [f"f{i}" for i in range(length)]
    return [
        function(name, *[after] * times)
        for name, after in zip(names, [*names[1:], "Relu"], strict=True)
    ]


def test_calls_are_bounded_in_depth_and_in_what_they_expand_to():
    for harmless in (chain(32, 1), chain(12, 2), list(reversed(chain(32, 1)))):
        check(model([node("f0")], functions=harmless))
    with pytest.raises(UnsafeBundleError, match="calls of functions over 32 deep"):
        check(model([node("f0")], functions=chain(33, 1)))
    for bomb in (chain(20, 2), chain(6, 10), chain(32, 1000)):
        with pytest.raises(UnsafeBundleError, match="nodes once its functions are expanded"):
            check(model([node("f0")], functions=bomb))
    with pytest.raises(UnsafeBundleError, match="once its functions are expanded"):
        check(model([node("f0")] * 20, functions=[function("f0", *["Relu"] * 10_000)]))


def test_subgraphs_are_bounded_in_depth():
    check(model([*nested(graph(), 16).node]))
    with pytest.raises(UnsafeBundleError, match="subgraphs over 16 deep"):
        check(model([*nested(graph(), 17).node]))
    deep = b""
    for _ in range(5000):
        deep = field(1, field(5, field(6, deep)))
    with pytest.raises(UnsafeBundleError, match="subgraphs over 16 deep"):
        check(field(7, deep))


def test_a_graph_is_bounded_in_size():
    check(field(7, field(1, b"") * 100_000))
    with pytest.raises(UnsafeBundleError, match="more than 100000 nodes"):
        check(field(7, field(1, b"") * 100_001))
    with pytest.raises(UnsafeBundleError, match="more than 2000000 fields"):
        check(field(1, 1) * 2_000_001)


def test_weights_are_not_copied():
    large = numpy_helper.from_array(np.zeros(8 << 20, np.float32), "w")
    data = model(tensors=[large]).SerializeToString()
    tracemalloc.start()
    try:
        check(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000


# --- against the onnx package ---------------------------------------------------------------------


def holds_external(message: Message) -> bool:
    """Look into all that the parsed model holds, knowing nothing of where tensors may stand."""
    if isinstance(message, onnx.TensorProto):
        return message.data_location == EXTERNAL or bool(message.external_data)
    inner = [
        one
        for descriptor, value in message.ListFields()
        if descriptor.message_type
        for one in ([value] if isinstance(value, Message) else value)
    ]
    return any(map(holds_external, inner))


def refused_as_unsafe(data: bytes) -> bool:
    try:
        check(data)
    except UnsafeBundleError:
        return True
    return False


@st.composite
def tensors(draw):
    return tensor(draw(st.sampled_from("abc")), draw(st.integers(0, 19)) == 0)


def attributes(graphs):
    sparse_tensors = st.builds(sparse, tensors(), tensors())
    kinds = [tensors(), sparse_tensors, graphs]
    values = st.one_of(*kinds, *(st.lists(kind, min_size=1, max_size=2) for kind in kinds))
    return st.dictionaries(st.sampled_from("pq"), values, max_size=2)


def nodes(graphs):
    made = attributes(graphs).map(lambda values: node("Some", **values))
    return st.lists(made, max_size=2)


graphs = st.recursive(
    st.builds(graph, tensors=st.lists(tensors(), max_size=2)),
    lambda inner: st.builds(graph, nodes(inner), st.lists(tensors(), max_size=2)),
    max_leaves=6,
)


@st.composite
def models(draw):
    made = model(draw(nodes(graphs)), draw(st.lists(tensors(), max_size=3)))
    if draw(st.booleans()):
        made.functions.append(function("f", nodes=draw(nodes(graphs))))
    if draw(st.booleans()):
        made.training_info.add().initialization.CopyFrom(draw(graphs))
    if draw(st.booleans()):
        made.graph.sparse_initializer.append(sparse(draw(tensors()), draw(tensors())))
    return made


@examples(200)
@given(models())
def test_the_verdict_is_that_of_the_parsed_model(made):
    assert refused_as_unsafe(made.SerializeToString()) == holds_external(made)


@examples(400)
@given(models(), st.data())
def test_damaged_models_fail_with_bundle_errors_and_hide_nothing(made, data):
    content = bytearray(made.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        change = data.draw(st.sampled_from(["set", "flip", "delete", "insert", "copy"]))
        if change == "set":
            content[place] = data.draw(st.sampled_from([0, 1, 14 << 3, 13 << 3 | 2, 0x7F, 0xFF]))
        elif change == "flip":
            content[place] ^= 1 << data.draw(st.integers(0, 7))
        elif change == "delete" and len(content) > 1:
            del content[place]
        elif change == "insert":
            content.insert(place, data.draw(st.integers(0, 255)))
        else:
            content += content[place : place + 40]
    try:
        check(bytes(content))
    except BundleError as error:
        assert str(error)
        return
    parsed = onnx.ModelProto()
    try:
        parsed.ParseFromString(bytes(content))
    except DecodeError:
        return  # the runtime's own parser refuses it as well
    assert not holds_external(parsed)


@examples(200)
@given(st.binary(max_size=200))
def test_any_bytes_pass_or_fail_with_bundle_errors(content: bytes):
    try:
        check(content)
    except BundleError as error:
        assert WHERE in str(error)


# --- end to end -----------------------------------------------------------------------------------


def put_graph(bundle: Path, data: bytes) -> None:
    """Exchange a bundle's graph, with hashes and sizes that are right."""
    (bundle / "model.fp32.onnx").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    document = json.loads((bundle / "bundle.json").read_text())
    document["files"]["model.fp32.onnx"] = {"sha256": digest, "bytes": len(data)}
    document["variants"]["fp32"]["sha256"] = digest
    (bundle / "bundle.json").write_text(json.dumps(document))


@pytest.fixture
def outside(tiny_model: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A classifier whose last weights lie in a file of the working directory."""
    monkeypatch.chdir(tmp_path)
    made = onnx.load_from_string(tiny_model)
    last = next(w for w in made.graph.initializer if w.name == "w3")
    (tmp_path / "secret.bin").write_bytes(last.raw_data)
    last.ClearField("raw_data")
    last.data_location = EXTERNAL
    last.external_data.add(key="location", value="secret.bin")
    return made.SerializeToString()


def test_a_bundle_with_weights_outside_is_refused(tiny_bundle: Path, outside: bytes):
    put_graph(tiny_bundle, outside)
    for attempt in (
        lambda: edge_fg.load(tiny_bundle, backend="onnxruntime"),
        lambda: Bundle(tiny_bundle).graph("fp32"),
        Bundle(tiny_bundle).verify,
    ):
        with pytest.raises(UnsafeBundleError, match=r"tiny\.edgefg: .*: tensor 'w3' takes"):
            attempt()


def test_a_graph_that_could_not_be_read_is_not_written(
    tiny_bundle: Path, tmp_path: Path, outside: bytes
):
    bundle = Bundle(tiny_bundle)
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    files["model.fp32.onnx"] = outside
    with pytest.raises(UnsafeBundleError, match="tensor 'w3'"):
        write_bundle(
            tmp_path / "new.edgefg",
            {**files, "model.fp32.onnx": outside},
            lambda _: bundle.manifest,
        )
    assert not (tmp_path / "new.edgefg").exists()


def test_real_models_pass(data_dir: Path):
    found = sorted((data_dir / "models").glob("*.onnx"))
    assert found
    for path in found:
        check_graph(path.read_bytes(), where=path.name)
