"""Spoilt bundles and models: their structure is changed, and the hashes are made to fit."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, MutableSequence
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.message import Message
from onnx import numpy_helper
from PIL import Image

import edge_fg
from edge_fg.bundle import PRECISIONS, Bundle
from edge_fg_tools.building import BuildOptions, build
from edge_fg_tools.cli.inspect_ import inspect
from fuzzing import mutations
from fuzzing.mutations import spoil_bytes, spoil_text, spoil_tree, words
from fuzzing.texts import LABEL_TOKENS
from support.graphs import bundle_of, classifier, looping, whole
from support.small_nets import net

OPERATORS = words("""Add Concat Conv ConstantOfShape Expand Gather Gemm GridSample If Identity
Loop MatMul MaxPool NonZero Pad QuantizeLinear Range Relu Reshape Resize Scan Shape Slice Softmax
Tile TopK Where Xx""")
# Input and nodes; the first is of a size that INT8 is worth.
NETS = """
float[N,3,8,8] image | c1 = Conv<pads=[1,1,1,1]>(image, w1) r1 = Relu(c1) \
c2 = Conv<pads=[1,1,1,1]>(r1, w2) r2 = Relu(c2) p = GlobalAveragePool(r2) f = Flatten(p) \
logits = Gemm(f, w3)
float[N,3,8,8] image | a = Sub(image, m) b = Div(a, s) c = Conv<pads=[1,1,1,1]>(b, w) \
r = Clip(c) s2 = Sigmoid(r) e = Mul(r, s2) p = ReduceMean<axes=[2,3], keepdims=0>(e) \
g = Gemm(p, d) logits = Softmax<axis=1>(g)
float[1,3,8,8] image | c = Conv<strides=[2,2]>(image, w) b = MaxPool<kernel_shape=[2,2]>(c) \
p = GlobalAveragePool(b) z = Constant<value_ints=[1,4]>() f = Reshape(p, z) logits = MatMul(f, d)
uint8[N,8,8,3] image | t = Cast<to=1>(image) a = Transpose<perm=[0,3,1,2]>(t) \
c = Conv<pads=[1,1,1,1]>(a, w) p = GlobalMaxPool(c) f = Flatten(p) g = Gemm(f, d) \
logits = LogSoftmax<axis=-1>(g)
float[N,1,H,W] image | a = Concat<axis=1>(image, image, image) c = Conv(a, w) r = Relu(c) \
p = GlobalAveragePool(r) f = Flatten(p) logits = Gemm(f, d)
float[N,3,8,8] image | z = Constant<value_ints=[0,3,64]>() a = Reshape(image, z) \
t = Transpose<perm=[0,2,1]>(a) q = MatMul(t, u) k = MatMul(t, u) kt = Transpose<perm=[0,2,1]>(k) \
e = MatMul(q, kt) h = Softmax<axis=-1>(e) v = MatMul(h, q) n = LayerNormalization<axis=-1>(v, o) \
p = ReduceMean<axes=[1], keepdims=0>(n) logits = Gemm(p, w3)
""".strip().splitlines()
METADATA = """{0: 'owl', 1: 'tit', 2: 'wren', 3: 'kite', 4: 'none'}
["owl", "tit", "wren", "kite", "none"]
owl, tit, wren, kite, none""".splitlines()
PREPROCESS = """[preprocess]
resize = { mode = "squash", size = [8, 8] }
mean = [128, 128, 128]
std = [64, 64, 64]
"""


@cache
def _models() -> list[onnx.ModelProto]:
    draw = np.random.default_rng(0).standard_normal
    shapes = {"w1": (16, 3, 3, 3), "w2": (32, 16, 3, 3), "w3": (32, 5), "u": (3, 32), "o": (32,)}
    shapes |= {"m": (1, 3, 1, 1), "s": (1, 3, 1, 1)}
    more = {name: draw(shape, dtype=np.float32) / 4 for name, shape in shapes.items()}
    pairs = [line.split(" | ") for line in NETS]
    return [net(body, image, **more) for image, body in pairs]


@cache
def _bundles() -> list[dict[str, bytes]]:
    found = []
    for graph in (classifier(), looping(whole("limit", 3)), classifier(batch=2)):
        with TemporaryDirectory() as folder:
            made = bundle_of(Path(folder) / "b", graph, batch=2 if len(found) == 2 else "N")
            found.append({path.name: path.read_bytes() for path in sorted(made.iterdir())})
    return found


@cache
def _frame() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def run_bundle(random: Random, folder: Path) -> None:
    """A bundle is refused, or verifies and answers with probabilities."""
    files = dict(random.choice(_bundles()))
    document = json.loads(files.pop("bundle.json"))
    what = random.choice(
        ["manifest", "manifest", "graph", "graph", "graph", "labels", "bytes", "zip"]
    )
    if what == "graph":
        files["model.onnx"] = spoilt_model(random, onnx.load_from_string(files["model.onnx"]))
    elif what == "labels":
        text = spoil_text(random, files["labels.csv"].decode(), LABEL_TOKENS)
        files["labels.csv"] = text.encode("utf-8", "surrogatepass")
    elif what == "bytes":
        name = random.choice(list(files))
        files[name] = spoil_bytes(random, files[name])
    if random.random() < 0.95:
        _follow(document, files)
    if what == "manifest":
        document = spoil_tree(random, document)
    manifest = json.dumps(document).encode()
    files["bundle.json"] = spoil_bytes(random, manifest) if random.random() < 0.05 else manifest
    zipped = what == "zip" or random.random() < 0.3
    path = (
        _zipped(random, folder / "b.zip", files, what == "zip")
        if zipped
        else _folder(folder / "b", files)
    )
    opened = Bundle(path)
    opened.verify()
    inspect(path)
    with edge_fg.load(opened, backend="onnxruntime", threads=1) as loaded:
        for prediction in (loaded(_frame()), *loaded.batch([_frame()] * 3)):
            assert 0 <= prediction.confidence <= 1
            assert abs(float(prediction.probabilities.sum()) - 1) < 1e-3


def run_model(random: Random, folder: Path) -> None:
    """A model is refused, or described with what its metadata say."""
    model = copy.deepcopy(random.choice(_models()))
    said = model.metadata_props.add(key="names", value="")
    text = spoil_text(random, random.choice(METADATA), LABEL_TOKENS)
    said.value = text.replace("\ud800", "")
    path = folder / "m.onnx"
    path.write_bytes(spoilt_model(random, model))
    inspect(path, input_size=(8, 8))


def run_build(random: Random, folder: Path) -> None:
    """A build ends in an error, or in a bundle that verifies."""
    (folder / "images").mkdir()
    pixels = np.random.default_rng(1).integers(0, 256, (12, 4, 5, 3), dtype=np.uint8)
    for number, one in enumerate(pixels):
        image = Image.fromarray(one).resize((20, 16), Image.Resampling.BICUBIC)
        image.save(folder / "images" / f"{number:02}.png")
    (folder / "labels.txt").write_text("a\nb\nc\nd\ne\n")
    (folder / "p.toml").write_text(PREPROCESS)
    model = random.choice([model for model in _models() if "Cast" not in str(model.graph.node)])
    (folder / "m.onnx").write_bytes(spoilt_model(random, model, gently=True))
    result = build(
        BuildOptions(
            model=folder / "m.onnx",
            labels=folder / "labels.txt",
            calibration=folder / "images",
            output=folder / "b.edgefg",
            preprocess=str(folder / "p.toml"),
            precisions=random.choice([PRECISIONS, PRECISIONS[:3], PRECISIONS[:2]]),
            calibration_images=6,
            input_size=(8, 8),
            cache=False,
            allow_low_accuracy=True,
        )
    )
    Bundle(result.output).verify()


def spoilt_model(random: Random, model: onnx.ModelProto, *, gently: bool = False) -> bytes:
    """Change the structure of a model, and rarely its bytes."""
    made = onnx.ModelProto.FromString(model.SerializeToString())
    # Values first, while there are some that can be read.
    values = sum(random.random() < 0.5 for _ in range(2))
    for _ in range(values):
        _spoil_values(random, made)
    for _ in range(not values if gently else random.choice([0, 1, 2, 8])):
        _spoil_message(random, made)
    try:
        data = made.SerializeToString()
    except ValueError:  # a string that is not UTF-8
        data = model.SerializeToString()
    return spoil_bytes(random, data) if random.random() < 0.05 else data


def _spoil_values(random: Random, model: onnx.ModelProto) -> None:
    """Change weights, an attribute or a wire so that the model may still be a valid one."""
    node = random.choice(model.graph.node)
    lists = [one for one in node.attribute if one.ints]
    tensors = [one for one in model.graph.initializer if one.raw_data]
    match random.randrange(5):
        case 0 if lists:
            values = random.choice(lists).ints
            values[random.randrange(len(values))] = random.choice(
                [-1, 0, 1, 2, 3, 100, 511, 1 << 20]
            )
        case 1 if node.input:
            node.input[random.randrange(len(node.input))] = random.choice(
                _names([*model.graph.node])
            )
        case 2:
            node.op_type = random.choice(OPERATORS)
        case _ if tensors:
            tensor = random.choice(tensors)
            array = numpy_helper.to_array(tensor).copy()
            row = random.choice([..., 0, (..., 0), -1]) if array.ndim else ...
            is_float = array.dtype.kind == "f"
            odd = random.choice(mutations.ODD_FLOATS if is_float else [-1, 0, 1, 7, 1 << 20])
            with np.errstate(all="ignore"):
                array[row] = array[row] * odd if random.random() < 0.5 else odd
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _spoil_message(random: Random, root: Message) -> None:
    """Change one field of one message: clear, repeat, drop, exchange or overwrite it."""
    messages = list(_messages(root))
    message = random.choice(messages)
    field = random.choice(message.DESCRIPTOR.fields)
    is_message = field.type == Field.TYPE_MESSAGE
    values = getattr(message, field.name)
    if not isinstance(values, MutableSequence):
        if random.random() < 0.2:
            message.ClearField(field.name)
        elif is_message:
            same = [one for one in messages if one.DESCRIPTOR is field.message_type]
            values.MergeFrom(copy.deepcopy(random.choice(same or [values])))
        else:
            setattr(message, field.name, _odd_scalar(random, field, messages, values))
        return
    at = random.randrange(len(values)) if len(values) else 0
    match random.randrange(5):
        case 0 if len(values):
            del values[at]
        case 1 if is_message:
            same = [one for one in messages if one.DESCRIPTOR is field.message_type]
            if same:
                values.add().CopyFrom(copy.deepcopy(random.choice(same)))
        case 2 if len(values) > 1:
            kept = copy.deepcopy(list(values))
            random.shuffle(kept)
            del values[:]
            values.extend(kept)
        case 3 if len(values) and not is_message:
            values[at] = _odd_scalar(random, field, messages, values[at])
        case _ if not is_message:
            values.append(_odd_scalar(random, field, messages, None))


def _odd_scalar(random: Random, field: Any, messages: list[Message], value: Any) -> Any:
    match field.cpp_type:
        case Field.CPPTYPE_FLOAT | Field.CPPTYPE_DOUBLE:
            return random.choice(mutations.ODD_FLOATS)
        case Field.CPPTYPE_STRING if field.type == Field.TYPE_BYTES:
            names = [name.encode() for name in _names(messages)]
            return random.choice([random.choice(names), spoil_bytes(random, value or b"")])
        case Field.CPPTYPE_STRING if field.name == "op_type":
            return random.choice(OPERATORS)
        case Field.CPPTYPE_STRING:
            odd = [text for text in mutations.ODD_TEXTS if text != "\ud800"]
            return random.choice([random.choice(_names(messages)), random.choice(odd)])
        case Field.CPPTYPE_ENUM:
            return random.choice([one.number for one in field.enum_type.values])
    bits = 32 if field.cpp_type in (Field.CPPTYPE_INT32, Field.CPPTYPE_UINT32) else 64
    number = random.choice([*mutations.ODD_NUMBERS, (value or 0) + 1, (value or 0) - 1]) % (
        1 << bits
    )
    unsigned = field.cpp_type in (Field.CPPTYPE_UINT32, Field.CPPTYPE_UINT64)
    return number if unsigned or number < 1 << bits - 1 else number - (1 << bits)


def _names(messages: list[Message]) -> list[str]:
    return [
        name
        for one in messages
        if isinstance(one, onnx.NodeProto)
        for name in (*one.input, *one.output)
    ] or ["x"]


def _messages(message: Message) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.type == Field.TYPE_MESSAGE:
            for one in value if isinstance(value, MutableSequence) else [value]:
                yield from _messages(one)


def _follow(document: Any, files: dict[str, bytes]) -> None:
    """Let the manifest state the sizes and hashes that the files now have."""
    for name, data in files.items():
        digest = hashlib.sha256(data).hexdigest()
        document["files"][name] = {"sha256": digest, "bytes": len(data)}
        for variant in document["variants"].values():
            if variant["file"] == name:
                variant["sha256"] = digest


def _folder(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir()
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path


def _zipped(random: Random, path: Path, files: dict[str, bytes], spoil: bool) -> Path:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            method = random.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
            archive.writestr(name, data, method)
        if spoil and random.random() < 0.3:
            odd = random.choice(["../x", "/x", "a/b", "x\n", "labels.csv", "é", "x" * 300])
            archive.writestr(odd, b"0" * random.choice([0, 10, 10**6]), zipfile.ZIP_DEFLATED)
    data = buffer.getvalue()
    tokens = [b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"\xff\xff\xff\xff"]
    path.write_bytes(spoil_bytes(random, data, tokens) if spoil else data)
    return path
