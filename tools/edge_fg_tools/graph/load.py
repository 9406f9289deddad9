"""Read an ONNX file of unknown origin, and check it."""

from __future__ import annotations

import mmap
import zipfile
from pathlib import Path

import onnx
from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]

from edge_fg.bundle.graph_check import check_graph
from edge_fg.bundle.wire import Data
from edge_fg.errors import BundleFormatError, ModelFormatError, UnsafeBundleError
from edge_fg.printing import first_line, has_control, reason
from edge_fg_tools.graph.nodes import check_operators, name_nodes, within

_MAX_BYTES = 2**31 - 1
_HEAD_BYTES = 4096
# Fields with names, which messages, reports and the manifest of a bundle show.
_NAMES = frozenset({"name", "input", "output", "op_type", "domain", "dim_param", "key"})
_QUOTED = 60
# What people often give instead of ONNX, by its first bytes.
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
    (b"\x89HDF", "an HDF5 file (Keras?): export it with tf2onnx"),
    (b"ftrt", "a TensorRT plan: give the ONNX model that it was built from"),
    (b"vtrt", "a TensorRT-RTX plan: give the ONNX model that it was built from"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"\x80\x02", "a Python pickle (PyTorch?): export it with torch.onnx.export"),
    (b"\x80\x04", "a Python pickle: export the model as ONNX"),
    (b"GGUF", "a GGUF model"),
    (b"\x7fELF", "a program or shared library"),
)


def load_model(path: Path) -> onnx.ModelProto:
    """Read and check an ONNX model, bringing external weights into it.

    Weights stored outside the file must lie in its folder or below. The result is complete in
    memory (at most 2 GB, protobuf's limit), and every node of it has a unique name.

    Raises ModelFormatError where the file is missing, not ONNX, truncated, too large, breaks the
    ONNX specification or holds what `check_graph` refuses, or its external weights are missing or
    outside its folder, and UnsupportedNodeError where an operator is from another domain than
    ONNX's, or unknown there.
    """
    data = _read(path)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise ModelFormatError(f"{path} {_what_it_looks_like(path, data)}") from error
    if not model.graph.node or not model.opset_import:
        raise ModelFormatError(f"{path} {_what_it_looks_like(path, data)}")
    _check_texts(model, path)
    _load_external_data(model, path)
    name_nodes(model.graph)
    check_operators(model)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise ModelFormatError(
            f"{path} breaks the ONNX specification: {first_line(error)}; export it again"
        ) from error
    return model


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            saved = (path / "saved_model.pb").exists()
            hint = "a TensorFlow SavedModel: export it with tf2onnx" if saved else "a folder"
            raise ModelFormatError(f"{path} is {hint}; an .onnx file is needed")
        if not path.exists():
            raise ModelFormatError(f"{path} doesn't exist; give the path of an .onnx file")
        if not path.is_file():
            raise ModelFormatError(f"{path} is not an ordinary file; an .onnx file is needed")
        size = path.stat().st_size
        if size == 0:
            raise ModelFormatError(f"{path} is empty; export or copy the model again")
        if size > _MAX_BYTES:
            raise ModelFormatError(f"{path} has {size / 1e9:.1f} GB; ONNX files end at 2 GB")
        _check_unread(path)
        return path.read_bytes()
    except OSError as error:
        raise ModelFormatError(f"can't read {path}: {reason(error)}") from error


def _check_unread(path: Path) -> None:
    """Refuse what is no model, or a hostile one, before all of it is in memory."""
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        try:
            check_graph(data, where=str(path), external=True, advice="export it without that")
        except UnsafeBundleError as error:
            raise ModelFormatError(str(error)) from error
        except BundleFormatError as error:
            raise ModelFormatError(f"{path} {_what_it_looks_like(path, data)}") from error


def _what_it_looks_like(path: Path, data: Data) -> str:
    """Return the rest of a sentence that begins with the file's name."""
    head = data[:_HEAD_BYTES]
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return f"is not ONNX but {name}"
    if head[4:8] == b"ORTM":
        return "is not ONNX but in ONNX Runtime's own format: give the ONNX model"
    if head[4:8] == b"TFL3":
        return "is not ONNX but a TensorFlow Lite model: convert it with tf2onnx"
    if head.startswith(b"PK\x03\x04"):
        return f"is not ONNX but {_what_zip(path)}"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < len(data):
        return "is not ONNX but a safetensors file: it holds weights without a graph"
    if _is_text(head):
        if head.startswith(b"version https://git-lfs"):
            return "is not ONNX but a Git LFS pointer: run `git lfs pull`"
        return "is not ONNX but a text file"
    if head[0] == 0x08 and len(head) > 1 and head[1] < 64:
        return "begins like ONNX but is truncated or damaged; copy or export it again"
    return "is not an ONNX model"


def _what_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return "a damaged zip archive"
    if any(name.endswith("data.pkl") for name in names):
        return "a PyTorch checkpoint: export the model with torch.onnx.export"
    if "bundle.json" in {Path(name).name for name in names}:
        return "an edge_fg bundle: it holds a model that is already built"
    if "model.weights.h5" in names:
        return "a Keras model: export it with tf2onnx"
    return "a zip archive"


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        # A character may be cut in two where the head ends.
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode("utf-8")
    return all(letter.isprintable() or letter in "\r\n\t" for letter in text)


def _check_texts(model: onnx.ModelProto, path: Path) -> None:
    """Refuse strings that are not UTF-8 (protobuf hands them over as bytes), and unsafe names."""
    for message in within(model, Message):
        for descriptor, value in message.ListFields():
            if descriptor.type != FieldDescriptor.TYPE_STRING:
                continue
            texts = (value,) if isinstance(value, (str, bytes)) else value
            if not all(isinstance(text, str) for text in texts):
                raise ModelFormatError(
                    f"{path} is damaged: a name in it is not text; copy it again"
                )
            unsafe = descriptor.name in _NAMES and next(filter(has_control, texts), None)
            if unsafe:
                raise ModelFormatError(
                    f"{path}: the name {unsafe[:_QUOTED]!r} holds a "
                    "control character: give it another name, or export the model again"
                )


def _load_external_data(model: onnx.ModelProto, path: Path) -> None:
    folder = path.resolve().parent
    total = model.ByteSize()
    for tensor in within(model, onnx.TensorProto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            content = _external_bytes(tensor, folder, _MAX_BYTES - total)
            total += len(content)
            tensor.raw_data = content
            tensor.data_location = onnx.TensorProto.DEFAULT
        if tensor.external_data:
            # Without that mark they mean nothing, but no bundle may hold them.
            del tensor.external_data[:]


def _external_bytes(tensor: onnx.TensorProto, folder: Path, room: int) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if not location or "\0" in location:
        raise ModelFormatError(f"tensor {tensor.name!r} is external but names no file")
    target = (folder / location).resolve()
    # Links are followed before the comparison: one that leads out is refused too.
    if not target.is_relative_to(folder):
        raise ModelFormatError(
            f"tensor {tensor.name!r} wants its weights from {location!r}, outside the model's "
            "folder: refused; keep weights beside the model"
        )
    if not target.is_file():
        raise ModelFormatError(
            f"weights file {location!r} is missing from {folder}: copy it beside the model"
        )
    size = target.stat().st_size
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", size - offset))
    except ValueError as error:
        raise ModelFormatError(f"tensor {tensor.name!r}: its place is not a number") from error
    if offset < 0 or length < 0 or offset + length > size:
        raise ModelFormatError(
            f"weights file {location!r} is too short for tensor {tensor.name!r}: it has {size} "
            f"bytes and {offset + length} are needed; copy or export it again"
        )
    if length > room:
        raise ModelFormatError("the model with its external weights exceeds 2 GB")
    with target.open("rb") as file:
        file.seek(offset)
        content: bytes = file.read(length)
    return content
