"""Find the image that a graph takes and the classes that it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import onnx

from edge_fg.errors import ModelError, NotAClassifierError
from edge_fg_calibration.graph.onnx_graph import attribute

Layout = Literal["nchw", "nhwc"]
_CHANNELS = (1, 3, 4)
_LARGEST_SIDE = 4096
_LARGEST_BATCH = 256
_INPUT_TYPES: dict[int, str] = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.UINT8: "uint8",
}


@dataclass(frozen=True)
class ImageInput:
    """The graph's only input, a batch of images."""

    name: str  # Name of the tensor
    shape: tuple[int, int, int]  # The three dimensions behind the batch, all known
    batch: int | None  # The fixed batch size, or None where it is dynamic
    layout: Layout  # ``"nchw"`` or ``"nhwc"``
    elem_type: int  # ONNX's element type

    @property
    def chw(self) -> tuple[int, int, int]:
        """Channels, height and width in pixels."""
        first, second, third = self.shape
        return self.shape if self.layout == "nchw" else (third, first, second)

    @property
    def dtype(self) -> str:
        """NumPy's name of the element type."""
        return _INPUT_TYPES[self.elem_type]


def image_input(graph: onnx.GraphProto, input_size: tuple[int, int] | None) -> ImageInput:
    """Find the input of an image classifier.

    The graph's initializers are not among its inputs. `input_size` is (height, width) in pixels,
    for a graph that leaves them open. Raises NotAClassifierError where there are several inputs or
    the only one is not a batch of images, ModelError where the size is open and not given, or given
    and different.
    """
    if len(graph.input) != 1:
        names = ", ".join(repr(value.name) for value in graph.input) or "none"
        raise NotAClassifierError(
            f"an image classifier has one input, this model has {len(graph.input)}: {names}"
        )
    value = graph.input[0]
    tensor = value.type.tensor_type
    shape = dimensions(value)
    if shape is None or len(shape) != 4:
        raise NotAClassifierError(
            f"input {value.name!r} has shape {shape}; images have four dimensions "
            "(batch, channels, height, width)"
        )
    if tensor.elem_type not in _INPUT_TYPES:
        types = {number: name for name, number in onnx.TensorProto.DataType.items()}
        kind = types.get(tensor.elem_type, f"of the unknown type {tensor.elem_type}")
        raise NotAClassifierError(
            f"input {value.name!r} is {kind}; images are float32, float16 or uint8"
        )
    layout = _layout(graph, value.name, shape)
    fixed = (shape[1] if layout == "nchw" else shape[3]) or _first_channels(graph, value.name) or 3
    if fixed not in (1, 3):
        raise NotAClassifierError(
            f"input {value.name!r} takes {fixed} channels; images give three (RGB) or one (grey): "
            "export the model for one of these"
        )
    height, width = _size(value.name, shape, layout, input_size)
    _refuse_giants(value.name, shape[0] or 1, height, width)
    return ImageInput(
        name=value.name,
        shape=(fixed, height, width) if layout == "nchw" else (height, width, fixed),
        batch=shape[0] or None,
        layout=layout,
        elem_type=tensor.elem_type,
    )


def _refuse_giants(name: str, batch: int, height: int, width: int) -> None:
    """Refuse inputs that would exhaust the memory as soon as the graph is run."""
    if max(height, width) > _LARGEST_SIDE or batch > _LARGEST_BATCH:
        raise ModelError(
            f"input {name!r} takes {batch} images of {height} x {width} pixels at once; at most "
            f"{_LARGEST_BATCH} of {_LARGEST_SIDE} x {_LARGEST_SIDE} are accepted: export it with a "
            "dynamic batch or a smaller size"
        )


def dimensions(value: onnx.ValueInfoProto) -> list[int | None] | None:
    """Return the shape of a value (None for a dynamic dimension), or None where unknown."""
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
        return None
    return [
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
        for dim in tensor.shape.dim
    ]


def _layout(graph: onnx.GraphProto, name: str, shape: list[int | None]) -> Layout:
    if shape[1] in _CHANNELS:
        return "nchw"
    if shape[3] in _CHANNELS:
        return "nhwc"
    if shape[1] is None and _first_channels(graph, name) in _CHANNELS:
        return "nchw"
    raise NotAClassifierError(
        f"input {name!r} has shape {shape}: neither its second nor its last dimension is 1, 3 "
        "or 4 colour channels"
    )


def _first_channels(graph: onnx.GraphProto, name: str) -> int | None:
    """Return how many channels a convolution wants that reads the input directly."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Conv" and node.input[0] == name and node.input[1] in weights:
            dims = weights[node.input[1]].dims
            return int(dims[1]) * int(attribute(node, "group", 1)) if len(dims) > 1 else None
    return None


def _size(
    name: str, shape: list[int | None], layout: Layout, input_size: tuple[int, int] | None
) -> tuple[int, int]:
    found = (shape[2], shape[3]) if layout == "nchw" else (shape[1], shape[2])
    if input_size is None:
        height, width = found
        if height is None or width is None:
            raise ModelError(
                f"input {name!r} leaves height and width open: give the size that the model was "
                "trained with (--input-size, for example 224 224)"
            )
        return height, width
    if any(one is not None and one != two for one, two in zip(found, input_size, strict=True)):
        raise ModelError(
            f"input {name!r} is {found[0]} x {found[1]} pixels, not {input_size[0]} x "
            f"{input_size[1]}; leave --input-size out"
        )
    return input_size
