"""Any classifier's ONNX graph is checked and cleaned; whatever is not one is refused by name."""

from __future__ import annotations

import importlib
import os
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxslim
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper, parser

from edge_fg.errors import (
    MissingDependencyError,
    ModelError,
    ModelFormatError,
    NotAClassifierError,
    UnsupportedNodeError,
    UsageError,
)
from edge_fg_tools.graph import load_model, prepare
from support.properties import examples
from support.small_nets import FEATURES, HEAD, IMAGE, LOGITS, net, ops, random_images, run, weights

# --- reading -------------------------------------------------------------------------------


def saved(folder: Path, data: bytes, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def pytorch_zip(folder: Path) -> bytes:
    with zipfile.ZipFile(folder / "weights.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}")
    return (folder / "weights.pt").read_bytes()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(100), "JPEG"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "PNG"),
        (b"these are notes, not a model\n" * 5, "text file"),
        (("Ünïcödé " * 700).encode()[:4097], "text file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(50), "TensorFlow Lite"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5"),
        (b"\x80\x02}q\x00", "pickle"),
        (b"ftrt" + bytes(100), "TensorRT plan"),
        (b"\x02\x00\x00\x00\x00\x00\x00\x00{}" + bytes(8), "safetensors"),
        (bytes(range(128, 256)), "not an ONNX model"),
    ],
)
def test_what_is_not_onnx_is_named_by_its_kind(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(ModelFormatError, match=says) as caught:
        load_model(saved(tmp_path, data))
    assert "model.onnx" in str(caught.value)


def test_a_pytorch_checkpoint_is_recognised(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"PyTorch checkpoint.*torch\.onnx\.export"):
        load_model(saved(tmp_path, pytorch_zip(tmp_path)))


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="doesn't exist"):
        load_model(tmp_path / "absent.onnx")
    with pytest.raises(ModelFormatError, match="a folder"):
        load_model(tmp_path)
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(ModelFormatError, match="SavedModel"):
        load_model(tmp_path)


def test_a_file_over_two_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "big.onnx"
    with path.open("wb") as file:
        file.truncate(2**31 + 10)
    with pytest.raises(ModelFormatError, match=r"2\.1 GB"):
        load_model(path)


@examples(60)
@given(st.data())
def test_a_truncated_model_is_refused(tmp_path: Path, data: st.DataObject) -> None:
    content = net(HEAD).SerializeToString()
    # The last field is the opset: without any part of it the model is not complete.
    length = data.draw(st.integers(1, len(content) - 1))
    with pytest.raises(ModelError) as caught:
        load_model(saved(tmp_path, content[:length]))
    assert "\n" not in str(caught.value)


@examples(60)
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_damaged_model_fails_with_our_errors_only(
    tmp_path: Path, place: int, change: int
) -> None:
    content = bytearray(net(HEAD).SerializeToString())
    content[place % len(content)] ^= change
    try:
        prepare(load_model(saved(tmp_path, bytes(content))))
    except ModelError as error:
        assert str(error)


@pytest.mark.parametrize("head", [b"", b"\x08\x08", b"\x08\x08\x3a\xff\xff\xff\xff\x07"])
def test_a_sparse_file_is_refused_unread(tmp_path: Path, head: bytes) -> None:
    path = saved(tmp_path, head)
    os.truncate(path, (1 << 31) - 100)
    tracemalloc.start()
    try:
        with pytest.raises(ModelFormatError):
            load_model(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def hostile(change: Callable[[onnx.ModelProto], object]) -> bytes:
    model = net(HEAD)
    change(model)
    data: bytes = model.SerializeToString()
    return data


def recursive(model: onnx.ModelProto) -> None:
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("own", 1)]
    call = onnx.helper.make_node("f", ["image"], ["again"], domain="own")
    model.functions.append(
        onnx.helper.make_function("own", "f", ["image"], ["again"], [call], opsets)
    )
    model.graph.node.append(call)
    model.opset_import.append(opsets[1])


def endless(model: onnx.ModelProto) -> None:
    state = onnx.helper.make_tensor_value_info("s", onnx.TensorProto.FLOAT, [])
    body = onnx.helper.make_graph([], "body", [], [state])
    model.graph.node.append(onnx.helper.make_node("Loop", ["", "", "x"], ["y"], body=body))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (recursive, "function 'f' calls itself"),
        (endless, "a Loop whose number of rounds is no constant"),
        (
            lambda m: m.graph.initializer.add(name="b", data_type=9, dims=[1 << 40]),
            "declares 10995",
        ),
        (lambda m: m.graph.initializer.add(name="b", data_type=9, dims=[2], int32_data=[1]), "'b'"),
        (lambda m: setattr(m.opset_import[0], "version", 1 << 62), f"at opset {1 << 62}"),
        (lambda m: setattr(m.opset_import[0], "version", 1 << 31), f"at opset {1 << 31}"),
        (lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 99), "unknown type 99"),
    ],
    ids=["recursive", "endless", "huge", "short", "opset", "32 bits", "type"],
)
def test_a_hostile_model_is_refused_in_one_line(
    tmp_path: Path, change: Callable[[onnx.ModelProto], object], says: str
) -> None:
    with pytest.raises(ModelError, match=says) as caught:
        prepare(load_model(saved(tmp_path, hostile(change))))
    assert len(str(caught.value)) < 400


def external(folder: Path, location: str, length: int | None = None) -> Path:
    model = net(HEAD)
    tensor = model.graph.initializer[0]
    del tensor.float_data[:]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entries = {"location": location, "offset": "4"}
    if length is not None:
        entries["length"] = str(length)
    for key, value in entries.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return saved(folder, model.SerializeToString())


def test_external_weights_are_brought_in(tmp_path: Path) -> None:
    content = weights()["w"].tobytes()
    saved(tmp_path, b"skip" + content, "model.data")
    model = load_model(external(tmp_path, "model.data", len(content)))
    assert model.graph.initializer[0].raw_data == content
    assert np.array_equal(run(model, random_images(2)), run(net(HEAD), random_images(2)))


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret", "a/../../secret", "link"])
def test_external_weights_outside_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(500))
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelFormatError, match="outside the model's folder"):
        load_model(external(folder, location))


def test_external_weights_are_found_wherever_a_tensor_can_be(tmp_path: Path) -> None:
    def outside() -> onnx.TensorProto:
        tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[2])
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../secret")
        return tensor

    sparse = onnx.SparseTensorProto(values=outside(), dims=[4])
    for place, content in (("t", outside()), ("sparse_tensor", sparse), ("sparse_tensors", sparse)):
        model = net(HEAD)
        attribute = model.graph.node[0].attribute.add(name="more")
        if place.endswith("s"):
            getattr(attribute, place).append(content)
        else:
            getattr(attribute, place).CopyFrom(content)
        with pytest.raises(ModelFormatError, match="outside the model's folder"):
            load_model(saved(tmp_path, model.SerializeToString()))
    default = net(HEAD)
    default.functions.add(name="f").attribute_proto.add(name="value").t.CopyFrom(outside())
    training = net(HEAD)
    training.training_info.add().algorithm.initializer.append(outside())
    for model in (default, training):
        with pytest.raises(ModelFormatError, match="outside the model's folder"):
            load_model(saved(tmp_path, model.SerializeToString()))


def test_a_place_outside_that_is_not_used_is_dropped(tmp_path: Path) -> None:
    model = net(HEAD)
    model.graph.initializer[0].external_data.add(key="location", value="../secret")
    loaded = load_model(saved(tmp_path, model.SerializeToString()))
    assert not loaded.graph.initializer[0].external_data
    assert np.array_equal(run(loaded, random_images(2)), run(net(HEAD), random_images(2)))


def test_external_weights_that_are_missing_or_short_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"'model\.data' is missing"):
        load_model(external(tmp_path, "model.data"))
    saved(tmp_path, bytes(10), "model.data")
    with pytest.raises(ModelFormatError, match=r"'model\.data' is too short for tensor 'w'"):
        load_model(external(tmp_path, "model.data", 432))


def test_operators_outside_onnx_are_named(tmp_path: Path) -> None:
    custom = net("logits = com.acme.Magic(image)", domain="com.acme")
    with pytest.raises(UnsupportedNodeError, match=r"'magic_0' is Magic .*'com\.acme'"):
        load_model(saved(tmp_path, custom.SerializeToString()))
    unknown = net("x = Relu(image) logits = Magic(x)")
    with pytest.raises(UnsupportedNodeError, match=r"'magic_1'.*'Magic' at opset 17"):
        load_model(saved(tmp_path, unknown.SerializeToString()))


def test_every_node_gets_a_stable_name(tmp_path: Path) -> None:
    model = net(HEAD)
    model.graph.node[3].name = "relu_1"
    model.graph.node[4].name = "relu_1"
    path = saved(tmp_path, model.SerializeToString())
    names = [node.name for node in load_model(path).graph.node]
    assert names == ["conv_0", "relu_1_2", "globalaveragepool_2", "relu_1", "gemm_4"]
    assert names == [node.name for node in load_model(path).graph.node]


def test_without_onnx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.startswith("edge_fg_tools.graph")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match=r"edge-fg\[build\]"):
        importlib.import_module("edge_fg_tools.graph")


# --- preparing what is a classifier --------------------------------------------------------


def test_a_plain_classifier_is_described() -> None:
    prepared = prepare(net(HEAD))
    assert (prepared.input_name, prepared.output_name) == ("image", "logits")
    assert (prepared.channels, prepared.height, prepared.width) == (3, 8, 8)
    assert (prepared.layout, prepared.input_dtype) == ("nchw", "float32")
    assert (prepared.classes, prepared.kind, prepared.batch) == (5, "logits", None)
    assert prepared.warnings == ()
    assert prepared.model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    np.testing.assert_allclose(
        run(prepared.model, random_images(3)),
        run(net(HEAD), random_images(3)),
        rtol=1e-5,
        atol=1e-5,
    )


def test_batch_normalisation_is_folded() -> None:
    generator = np.random.default_rng(3)
    statistics = {
        name: generator.uniform(0.5, 2, 4).astype(np.float32)
        for name in ("scale", "shift", "mean", "var")
    }
    body = HEAD.replace("Conv<pads=[1,1,1,1]>(image, w)", "Conv<pads=[1,1,1,1]>(image, w)", 1)
    body = body.replace("r = Relu(c)", "b = BatchNormalization(c, scale, shift, mean, var) ")
    body = body.replace("GlobalAveragePool(r)", "GlobalAveragePool(b)")
    model = net(body, **statistics)
    prepared = prepare(model)
    assert "BatchNormalization" in ops(model)
    assert "BatchNormalization" not in ops(prepared.model)
    assert prepared.warnings == ()
    np.testing.assert_allclose(
        run(prepared.model, random_images(3)), run(model, random_images(3)), rtol=1e-4, atol=1e-4
    )


def test_softmax_makes_probabilities() -> None:
    body = HEAD.replace("logits =", "z =") + " probs = Softmax(z)"
    assert prepare(net(body, outputs="float[N,5] probs")).kind == "probabilities"


def test_probabilities_without_a_softmax_are_found_by_running() -> None:
    body = HEAD.replace("logits =", "z =") + (
        " n = Softplus(z) s = ReduceSum<keepdims=1>(n, axes) logits = Div(n, s)"
    )
    prepared = prepare(net(body, axes=np.array([1], np.int64)))
    assert prepared.kind == "probabilities"
    assert any("no Softmax" in text for text in prepared.warnings)


def test_an_old_opset_is_raised() -> None:
    model = net(HEAD, opset=11, ir_version=5)
    prepared = prepare(model)
    assert [entry.version for entry in prepared.model.opset_import if not entry.domain] == [17]
    assert prepared.model.ir_version == 8
    np.testing.assert_allclose(
        run(prepared.model, random_images(2)), run(model, random_images(2)), rtol=1e-5, atol=1e-5
    )


def test_a_new_opset_and_ir_are_readable_by_tensorrt() -> None:
    prepared = prepare(net(HEAD, opset=21, ir_version=11))
    assert prepared.model.ir_version == 10
    assert any("JetPack 6" in text for text in prepared.warnings)


@pytest.mark.parametrize("fixed", [1, 2, 4])
@pytest.mark.parametrize("width", [4, -1])
def test_a_fixed_batch_is_freed(fixed: int, width: int) -> None:
    body = f"{FEATURES} features = Reshape<allowzero=0>(p, shape) logits = Gemm(features, d)"
    model = net(
        body,
        inputs=IMAGE.replace("N", str(fixed)),
        outputs=LOGITS.replace("N", str(fixed)),
        shape=np.array([fixed, width], np.int64),
    )
    prepared = prepare(model)
    assert prepared.batch is None
    assert prepared.warnings == ()
    expected = run(model, random_images(fixed))
    np.testing.assert_allclose(
        run(prepared.model, random_images(4))[:fixed], expected, rtol=1e-5, atol=1e-5
    )


def test_a_class_token_is_repeated_for_each_image() -> None:
    generator = np.random.default_rng(4)
    body = (
        "c = Conv<strides=[4,4]>(image, patch) f = Reshape(c, tokens) "
        "t = Transpose<perm=[0,2,1]>(f) j = Concat<axis=1>(token, t) "
        "m = ReduceMean<axes=[1], keepdims=0>(j) logits = Gemm(m, d)"
    )
    model = net(
        body,
        inputs="float[1,3,8,8] image",
        outputs="float[1,5] logits",
        patch=generator.standard_normal((4, 3, 4, 4), dtype=np.float32),
        token=generator.standard_normal((1, 1, 4), dtype=np.float32),
        tokens=np.array([1, 4, 4], np.int64),
    )
    prepared = prepare(model)
    assert prepared.batch is None
    expected = np.concatenate([run(model, image[None]) for image in random_images(3)])
    np.testing.assert_allclose(
        run(prepared.model, random_images(3)), expected, rtol=1e-4, atol=1e-5
    )


def test_a_batch_that_can_not_be_freed_stays_and_names_the_node() -> None:
    # Each image makes the kernel that it is convolved with: how many, a graph can't leave open.
    body = (
        "a = GlobalAveragePool(image) f = Conv(a, k) own = Reshape(f, shape) "
        "c = Conv(image, own) p = GlobalAveragePool(c) features = Flatten(p) "
        "logits = Gemm(features, d)"
    )
    model = net(
        body,
        inputs="float[1,3,8,8] image",
        outputs="float[1,5] logits",
        k=np.ones((12, 3, 1, 1), np.float32),
        shape=np.array([4, 3, 1, 1], np.int64),
    )
    prepared = prepare(model)
    assert prepared.batch == 1
    (warning,) = prepared.warnings
    assert "stays fixed at 1: with three images node 'gemm_" in warning
    assert "torch.onnx.export(model, (torch.rand(2, 3, 8, 8),)" in warning
    assert "dynamic_shapes=({0: 'batch'},)" in warning
    assert "dynamic_axes={'image': {0: 'batch'}}" in warning
    assert len(warning) < 400
    assert run(prepared.model, random_images(1)).shape == (1, 5)


def test_images_that_influence_each_other_keep_the_batch_fixed() -> None:
    body = (
        f"{FEATURES} flat = Flatten(p) m = ReduceMean<axes=[0]>(flat) "
        "features = Sub(flat, m) s = Add(features, flat) logits = Gemm(s, d)"
    )
    prepared = prepare(net(body))
    assert prepared.batch == 1
    assert any("depends on those beside it" in text for text in prepared.warnings)
    assert not any("export" in text for text in prepared.warnings)


def test_nhwc_is_recognised() -> None:
    body = f"t = Transpose<perm=[0,3,1,2]>(image) {HEAD.replace('(image', '(t')}"
    prepared = prepare(net(body, inputs="float[N,6,8,3] image"))
    assert (prepared.layout, prepared.height, prepared.width) == ("nhwc", 6, 8)


def test_a_half_model_becomes_float() -> None:
    half = {name: value.astype(np.float16) for name, value in weights().items()}
    model = net(HEAD, "float16[N,3,8,8] image", "float16[N,5] logits", **half)
    prepared = prepare(model)
    assert prepared.input_dtype == "float32"
    assert any("FP16" in text for text in prepared.warnings)
    expected = run(model, random_images(2).astype(np.float16)).astype(np.float32)
    np.testing.assert_allclose(
        run(prepared.model, random_images(2)), expected, rtol=0.03, atol=0.03
    )


def test_a_spatial_output_is_flattened() -> None:
    model = net(
        f"{FEATURES} logits = Conv(p, k)",
        outputs="float[N,5,1,1] logits",
        k=np.ones((5, 4, 1, 1), np.float32),
    )
    prepared = prepare(model)
    assert prepared.classes == 5
    assert prepared.output_name == "logits"
    assert run(prepared.model, random_images(3)).shape == (3, 5)


def test_open_image_sizes_need_an_answer() -> None:
    model = net(HEAD, "float[N,3,H,W] image")
    with pytest.raises(ModelError, match="leaves height and width open"):
        prepare(model)
    prepared = prepare(model, input_size=(12, 16))
    assert (prepared.height, prepared.width) == (12, 16)
    with pytest.raises(ModelError, match="8 x 8 pixels, not 12 x 16"):
        prepare(net(HEAD), input_size=(12, 16))


@pytest.mark.parametrize("shape", ["1000000,3,8,8", "N,3,100000,100000"])
def test_inputs_that_would_exhaust_the_memory_are_refused(shape: str) -> None:
    with pytest.raises(ModelError, match="at most 256 of 4096 x 4096"):
        prepare(net(HEAD, f"float[{shape}] image"))


def test_the_one_output_that_scores_classes_is_chosen() -> None:
    model = net(HEAD, outputs="float[N,5] logits, float[N,4,8,8] r")
    prepared = prepare(model)
    assert prepared.output_name == "logits"
    assert [value.name for value in prepared.model.graph.output] == ["logits"]
    assert any("left out: 'r'" in text for text in prepared.warnings)


def test_two_possible_outputs_need_a_choice() -> None:
    model = net(HEAD, outputs="float[N,5] logits, float[N,4] features")
    with pytest.raises(NotAClassifierError, match=r"several outputs.*'features'"):
        prepare(model)
    assert prepare(model, output="logits").classes == 5
    features = prepare(model, output="features")
    assert features.classes == 4
    assert "Gemm" not in ops(features.model)
    with pytest.raises(UsageError, match="no output 'scores'"):
        prepare(model, output="scores")


def test_a_quantised_model_is_kept_as_it_is() -> None:
    body = HEAD.replace("(image, w)", "(dq, w)")
    body = f"q = QuantizeLinear(image, s, zero) dq = DequantizeLinear(q, s, zero) {body}"
    prepared = prepare(net(body, s=np.array(0.03, np.float32), zero=np.array(0, np.int8)))
    assert ops(prepared.model)["QuantizeLinear"] == 1
    assert [text for text in prepared.warnings if "quantizelinear_0" in text]


@pytest.mark.parametrize("in_pairs", [False, True])
def test_sparse_weights_are_filled_with_their_zeros(in_pairs: bool) -> None:
    dense = weights()["d"] * (weights()["d"] > 0)
    places = np.argwhere(dense) if in_pairs else np.flatnonzero(dense)
    model = net(HEAD, d=dense)
    del model.graph.initializer[[one.name for one in model.graph.initializer].index("d")]
    sparse = model.graph.sparse_initializer.add(dims=dense.shape)
    sparse.values.CopyFrom(numpy_helper.from_array(dense[dense != 0], "d"))
    sparse.indices.CopyFrom(numpy_helper.from_array(places.astype(np.int64), "at"))
    prepared = prepare(model)
    assert not prepared.model.graph.sparse_initializer
    images = random_images(2)
    np.testing.assert_allclose(
        run(prepared.model, images), run(net(HEAD, d=dense), images), rtol=1e-5, atol=1e-5
    )


def test_local_functions_are_inlined() -> None:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "mine" : 1]> '
        f"g ({IMAGE}) => ({LOGITS}) {{ {HEAD.replace('Relu(c)', 'mine.Twice(c)')} }} "
        '<domain: "mine", opset_import: ["" : 17]> Twice (x) => (y) { y = Add(x, x) }'
    )
    for name, value in weights().items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    prepared = prepare(model)
    assert not prepared.model.functions
    assert {node.domain for node in prepared.model.graph.node} == {""}
    np.testing.assert_allclose(
        run(prepared.model, random_images(2)), run(model, random_images(2)), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("fault", ["wrong", "crash", "renamed", "custom"])
def test_a_cleaning_that_is_not_proven_is_dropped(
    monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def slim(model: onnx.ModelProto, **_: object) -> onnx.ModelProto:
        if fault == "crash":
            raise IndexError("list index out of range")
        if fault == "wrong":
            kernel = numpy_helper.to_array(model.graph.initializer[0]) * 1.01
            model.graph.initializer[0].CopyFrom(numpy_helper.from_array(kernel, "w"))
        if fault == "renamed":
            model.graph.output[0].name = "other"
        if fault == "custom":
            model.graph.node[1].domain = "com.microsoft"
        return model

    monkeypatch.setattr(onnxslim, "slim", slim)
    prepared = prepare(net(HEAD))
    assert any("kept as it is" in text for text in prepared.warnings)
    np.testing.assert_allclose(
        run(prepared.model, random_images(2)),
        run(net(HEAD), random_images(2)),
        rtol=1e-6,
        atol=1e-6,
    )


def test_the_given_model_is_not_changed() -> None:
    model = net(HEAD, opset=13)
    before = model.SerializeToString(deterministic=True)
    prepare(model)
    assert model.SerializeToString(deterministic=True) == before


def test_preparing_twice_changes_nothing_more() -> None:
    once = prepare(net(HEAD)).model
    assert [n.name for n in prepare(once).model.graph.node] == [n.name for n in once.graph.node]


# --- refusing what is not ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (net(HEAD, f"{IMAGE}, float[N,2] place"), "one input, this model has 2"),
        (net("logits = Gemm(x, d)", "float[N,4] x"), "four dimensions"),
        (net("logits = Identity(x)", "int64[N,3,8,8] x", "int64[N,3,8,8] logits"), "INT64"),
        (net("logits = Identity(x)", "float[N,7,8,8] x", "float[N,7,8,8] logits"), "colour"),
        (net(FEATURES, outputs="float[N,4,8,8] r"), "segmentation"),
        (
            net(
                f"{FEATURES} boxes = Reshape(p, s)",
                outputs="float[N,1,4] boxes",
                s=np.array([0, 1, 4]),
            ),
            "detector",
        ),
        (
            net(
                f"{HEAD} boxes = Reshape(features, s)",
                outputs="float[N,5] logits, float[N,1,4] boxes",
                s=np.array([0, 1, 4]),
            ),
            "detector",
        ),
        (
            net(f"{HEAD} best = ArgMax<axis=1, keepdims=0>(logits)", outputs="int64[N] best"),
            "ArgMax",
        ),
        (
            net(f"{HEAD} yes = Sigmoid(logits)", outputs="float[N,5] yes"),
            r"'sigmoid_\d+' .*multi-label",
        ),
        (
            net(f"{HEAD} probs = Softmax<axis=0>(logits)", outputs="float[N,5] probs"),
            "doesn't run over the classes",
        ),
        (
            net(
                f"{FEATURES} f = Flatten(p) y = Gemm(f, one)",
                outputs="float[N,1] y",
                one=np.ones((4, 1), np.float32),
            ),
            "two or more classes",
        ),
    ],
)
def test_other_models_are_refused_with_what_was_found(model: onnx.ModelProto, says: str) -> None:
    with pytest.raises(NotAClassifierError, match=says) as caught:
        prepare(model)
    assert "\n" not in str(caught.value)


def test_a_model_in_training_mode_is_refused() -> None:
    body = HEAD.replace("r = Relu(c)", "r = Dropout(c, ratio, train)")
    model = net(body, ratio=np.array(0.5, np.float32), train=np.array(True))
    with pytest.raises(ModelError, match=r"'dropout_1' \(Dropout\) is in training mode"):
        prepare(model)


def test_a_model_that_gives_nan_is_refused() -> None:
    body = HEAD.replace("logits =", "z =") + " logits = Log(z)"
    with pytest.raises(ModelError, match="NaN"):
        prepare(net(body))


def test_a_model_that_can_not_run_says_why() -> None:
    body = HEAD.replace("Gemm(features, d)", "Gemm(features, wrong)")
    with pytest.raises(ModelError, match="ONNX Runtime can't"):
        prepare(net(body, wrong=np.ones((9, 5), np.float32)))


# --- real models ---------------------------------------------------------------------------


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "classes"), [("birds", 965), ("insects", 1022)])
def test_real_models_are_prepared(data_dir: Path, name: str, classes: int) -> None:
    original = load_model(data_dir / "models" / f"inat_{name}_mnv2.onnx")
    prepared = prepare(original)
    assert (prepared.classes, prepared.kind, prepared.warnings) == (classes, "probabilities", ())
    images = random_images(2, 3, 224, 224)
    np.testing.assert_allclose(
        run(prepared.model, images), run(original, images), rtol=1e-3, atol=1e-6
    )
