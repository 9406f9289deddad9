"""How the tensors of a graph grow with the batch, followed node by node."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from edge_fg_calibration.graph.onnx_graph import Graph, attribute, opset_of
from edge_fg_tools.graph.interface import dimensions

# A prime that no dimension of a model is likely to hold: what grows by it grows with the batch.
MORE = 61
# Sizes, axes and the like have at most so many values; weights tell nothing of shapes.
_SMALL = 64

# What graphs make of shapes.
_OF_SIZES = frozenset(
    {"Gather", "Slice", "Concat", "Unsqueeze", "Squeeze", "Cast", "Identity"}
    | {"Add", "Sub", "Mul", "Div"}
)
Shape = list[int | None] | None


class Growth:
    """What is known of each tensor: its dimensions for a batch, and for one `MORE` times larger.

    `pinned` is `model` with an input of the `batch` that its constants hold. The nodes are given
    to `follow` one after the other, as they are once they were rewritten.
    """

    def __init__(self, model: onnx.ModelProto, pinned: onnx.ModelProto, batch: int) -> None:
        self._opset = opset_of(model)
        self.before = _inferred(pinned)
        self.constants: dict[str, NDArray[Any]] = {}
        self._computed: dict[str, NDArray[Any]] = {}  # What is made of shapes, for a larger batch
        self._after: dict[str, onnx.TypeProto] = {}
        for name, value in _constants(model).items():
            self.add_constant(name, value)
        image = model.graph.input[0]
        shape = [batch * MORE, *(dimensions(image) or [])[1:]]
        elem_type = image.type.tensor_type.elem_type
        self._after[image.name] = onnx.helper.make_tensor_type_proto(elem_type, shape)

    def add_constant(self, name: str, value: NDArray[Any]) -> None:
        """Take note of a stored tensor."""
        self.constants[name] = value
        elem_type = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        self._after[name] = onnx.helper.make_tensor_type_proto(elem_type, value.shape)

    def derive(self, new: str, name: str, axis: int, size: int) -> None:
        """Take note of a tensor that has `size` on an axis, and else what `name` has."""
        dims = _sizes(self._after[name]) or []
        dims[axis] = size
        elem_type = self._after[name].tensor_type.elem_type
        self._after[new] = onnx.helper.make_tensor_type_proto(elem_type, dims)

    def is_known(self, name: str) -> bool:
        """Say whether all dimensions for the larger batch are known."""
        after = _sizes(self._after.get(name))
        return after is not None and None not in after

    def axis(self, name: str) -> int | None:
        """Return which axis of a tensor grows with the batch, or None where none does."""
        before, after = self.before.get(name), _sizes(self._after.get(name))
        if before is None or after is None or len(before) != len(after):
            return None
        grown = [axis for axis, size in enumerate(before) if size and after[axis] == size * MORE]
        return grown[0] if len(grown) == 1 else None

    def _value(self, name: str) -> NDArray[Any] | None:
        """Return what a tensor holds for the larger batch, where that is known."""
        return self.constants.get(name, self._computed.get(name))

    def _compute(self, node: onnx.NodeProto) -> None:
        """Compute sizes that a graph makes of shapes."""
        if node.op_type == "Shape":
            dims = _sizes(self._after.get(node.input[0]))
            if dims is not None and None not in dims:
                cut = slice(attribute(node, "start", None), attribute(node, "end", None))
                self._computed[node.output[0]] = np.array(dims[cut], np.int64)
            return
        values = {name: self._value(name) for name in node.input if name}
        if node.op_type not in _OF_SIZES or any(
            v is None or v.size > _SMALL for v in values.values()
        ):
            return
        try:
            found = ReferenceEvaluator(node).run(None, values)
        except Exception:  # noqa: BLE001 (it raises all kinds for a graph that contradicts itself)
            return
        self._computed.update(zip(node.output, map(np.asarray, found), strict=True))

    def is_same(self, name: str) -> bool:
        """Say whether a tensor is known not to grow with the batch."""
        before = self.before.get(name)
        return before is not None and None not in before and before == _sizes(self._after.get(name))

    def follow(self, node: onnx.NodeProto) -> None:
        """Infer what a node makes of a larger batch, as far as ONNX can tell."""
        self._compute(node)
        names = [name for name in node.input if name]
        if any(name not in self._after for name in names) or any(
            one.HasField("g") for one in node.attribute
        ):
            return
        small = {name: value for name in names if (value := self._value(name)) is not None}
        try:
            found = onnx.shape_inference.infer_node_outputs(
                onnx.defs.get_schema(node.op_type, self._opset, ""),
                node,
                {name: self._after[name] for name in names},
                {
                    name: numpy_helper.from_array(value)
                    for name, value in small.items()
                    if value.size <= _SMALL
                },
                opset_imports=[onnx.helper.make_opsetid("", self._opset)],
            )
        except (RuntimeError, onnx.shape_inference.InferenceError, onnx.defs.SchemaError):
            return
        self._after.update(found)


def _constants(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    stored = Graph(model).initializers
    constants = {name: numpy_helper.to_array(tensor) for name, tensor in stored.items()}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return constants


def _inferred(model: onnx.ModelProto) -> dict[str, Shape]:
    """Return the shapes of all tensors, as far as ONNX can tell."""
    shapes: dict[str, Shape] = {one.name: list(one.dims) for one in model.graph.initializer}
    try:
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except onnx.shape_inference.InferenceError:
        return shapes
    values = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    return shapes | {value.name: dimensions(value) for value in values}


def _sizes(kind: onnx.TypeProto | None) -> Shape:
    return None if kind is None else dimensions(onnx.ValueInfoProto(type=kind))
