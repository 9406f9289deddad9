"""Let a graph take any number of images at once."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnx.shape_inference

from edge_fg_calibration.graph.editing import copied
from edge_fg_calibration.graph.onnx_graph import attribute
from edge_fg_tools.graph.interface import ImageInput, dimensions
from edge_fg_tools.graph.running import (
    GraphRunError,
    Runner,
    difference,
    in_batches,
    random_images,
)

BATCH = "N"


def make_batch_dynamic(
    model: onnx.ModelProto, image: ImageInput
) -> tuple[onnx.ModelProto, ImageInput, str | None]:
    """Make the first dimension of the input and of the only output ``N``.

    Reshapes to a constant shape are repaired, and constants joined to the images (a class
    token) repeated. The result is run with batches of 1 and 3 and compared with the original.

    Parameters
    ----------
    model
        A model with one input and one output; it is not changed.
    image
        Its input.

    Returns
    -------
    model
        The model with a dynamic batch, or with the batch fixed where that is not proven.
    image
        Its input.
    warning
        Why the batch is fixed, or None.

    Raises
    ------
    GraphRunError
        The original can't be run.
    """
    fixed = image.batch or 1
    images = random_images((3 * fixed, *image.shape), image.elem_type, seed=3)
    expected = in_batches(Runner(model), images, fixed)[0]
    reason = ""
    for repair in (False, True):
        candidate = _with_batch(model, image, None)
        if repair:
            _repair(candidate, fixed, _inferred(_with_batch(model, image, fixed)))
        try:
            runner = Runner(candidate)
            reasons = [
                difference(expected[:1], runner(images[:1])[0]),
                difference(expected, in_batches(runner, images, 3)[0]),
            ]
            reason = next((text for text in reasons if text is not None), "")
        except GraphRunError as error:
            reason = str(error)
        if not reason:
            return candidate, dataclasses.replace(image, batch=None), None
    return (
        _with_batch(model, image, fixed),
        dataclasses.replace(image, batch=fixed),
        (
            f"the batch stays fixed at {fixed}: the graph doesn't work with another ({reason}); "
            "export it with a dynamic batch"
        ),
    )


def _with_batch(model: onnx.ModelProto, image: ImageInput, batch: int | None) -> onnx.ModelProto:
    """Return a copy whose input and output say `batch`; inferred shapes are forgotten."""
    copy = copied(model)
    graph = copy.graph
    shape = graph.input[0].type.tensor_type.shape
    del shape.dim[:]
    _add_batch(shape, batch)
    for size in image.shape:
        shape.dim.add().dim_value = size
    output = graph.output[0].type.tensor_type
    known = dimensions(graph.output[0])
    if known:
        del output.shape.dim[:]
        _add_batch(output.shape, batch)
        for known_size in known[1:]:
            dim = output.shape.dim.add()
            if known_size is not None:
                dim.dim_value = known_size
    del graph.value_info[:]
    return copy


def _add_batch(shape: onnx.TensorShapeProto, batch: int | None) -> None:
    dim = shape.dim.add()
    if batch is None:
        dim.dim_param = BATCH
    else:
        dim.dim_value = batch


def _inferred(model: onnx.ModelProto) -> dict[str, list[int | None] | None]:
    """Return the shapes of all tensors, as far as ONNX can tell."""
    try:
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except onnx.shape_inference.InferenceError:
        return {}
    return {value.name: dimensions(value) for value in model.graph.value_info}


def _repair(model: onnx.ModelProto, fixed: int, shapes: dict[str, list[int | None] | None]) -> None:
    """Rewrite what commonly pins the batch; whether it was right is proven by running."""
    graph = model.graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            constants[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[1] in constants:
            target = [int(size) for size in constants[node.input[1]].reshape(-1)]
            known = [size for size in shapes.get(node.output[0]) or [] if size is not None]
            # What -1 stood for, where it is known: the place of -1 is needed for the batch.
            _free_reshape(graph, node, known if len(known) == len(target) else target, fixed)
    _repeat_joined_constants(graph, constants, fixed)


def _free_reshape(
    graph: onnx.GraphProto, node: onnx.NodeProto, shape: list[int], fixed: int
) -> None:
    """Let the first dimension follow from the others, which stay as they are.

    The batch is the outermost dimension, so more images make the first dimension longer
    and leave the rest alone.
    """
    if not shape or attribute(node, "allowzero", 0):
        return
    if all(size > 0 for size in shape):
        shape[0] = -1
    elif shape[0] == fixed and 0 not in shape:
        shape[0] = 0
    else:
        return
    # A tensor of its own: others may read the old one.
    name = f"{node.name}_shape"
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(shape, np.int64), name))
    node.input[1] = name


def _repeat_joined_constants(
    graph: onnx.GraphProto, constants: dict[str, np.ndarray], fixed: int
) -> None:
    """Expand constants that a Concat joins to the images, such as a class token."""
    for index, node in reversed(list(enumerate(graph.node))):
        if node.op_type != "Concat":
            continue
        axis = attribute(node, "axis", 0)
        joined = [name for name in node.input if name in constants]
        if axis == 0 or not joined or len(joined) == len(node.input):
            continue
        for name in joined:
            value = constants[name]
            if value.ndim < 2 or value.shape[0] != fixed:
                continue
            made = _repeated(graph, node, name, value, index)
            for place, read in enumerate(node.input):
                if read == name:
                    node.input[place] = made


def _repeated(
    graph: onnx.GraphProto, node: onnx.NodeProto, name: str, value: np.ndarray, index: int
) -> str:
    """Insert Shape, Slice, Concat and Expand in front of `node`; return what they make."""
    stem = f"{node.name}_{name}"

    def constant(label: str, content: list[int]) -> str:
        made = f"{stem}_{label}"
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(content, np.int64), made))
        return made

    first = f"{stem}_first"
    graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(value[:1]), first))
    make = onnx.helper.make_node
    inserted = [
        make("Shape", [graph.input[0].name], [f"{stem}_sizes"], name=f"{stem}_shape"),
        make(
            "Slice",
            [f"{stem}_sizes", constant("from", [0]), constant("to", [1])],
            [f"{stem}_batch"],
            name=f"{stem}_slice",
        ),
        make(
            "Concat",
            [f"{stem}_batch", constant("rest", list(value.shape[1:]))],
            [f"{stem}_target"],
            name=f"{stem}_concat",
            axis=0,
        ),
        make("Expand", [first, f"{stem}_target"], [f"{stem}_repeated"], name=f"{stem}_expand"),
    ]
    for node_made in reversed(inserted):
        graph.node.insert(index, node_made)
    return f"{stem}_repeated"
