"""Let a graph take any number of images at once."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import onnx
import onnx.shape_inference

from edge_fg_calibration.graph.editing import GraphEditor, copied
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
    """Make the first dimension of the input and of the only output ``N``; `model` is not changed.

    Reshapes to a constant shape are repaired, and constants joined to the images (a class
    token) repeated. The result is run with batches of 1 and 3 and compared with the original;
    where that does not prove it, the batch is fixed, and the last value returned says why.
    Raises GraphRunError where the original can't be run.
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
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            constants[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
    editor = GraphEditor(model)
    for node in model.graph.node:
        if node.op_type == "Reshape" and node.input[1] in constants:
            target = [int(size) for size in constants[node.input[1]].reshape(-1)]
            known = [size for size in shapes.get(node.output[0]) or [] if size is not None]
            # What -1 stood for, where it is known: the place of -1 is needed for the batch.
            _free_reshape(editor, node, known if len(known) == len(target) else target, fixed)
        elif node.op_type == "Concat":
            _repeat_joined_constants(editor, node, constants, fixed)
    editor.write()


def _free_reshape(editor: GraphEditor, node: onnx.NodeProto, shape: list[int], fixed: int) -> None:
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
    stored = editor.store(f"{node.name}_shape", np.array(shape, np.int64))
    editor.connect(node, 1, stored)


def _repeat_joined_constants(
    editor: GraphEditor, node: onnx.NodeProto, constants: dict[str, np.ndarray], fixed: int
) -> None:
    """Expand constants that a Concat joins to the images, such as a class token."""
    if attribute(node, "axis", 0) == 0 or all(name in constants for name in node.input):
        return
    for position, name in enumerate(node.input):
        value = constants.get(name)
        if value is not None and value.ndim >= 2 and value.shape[0] == fixed:
            editor.connect(node, position, _repeated(editor, f"{node.name}_{name}", value))


def _repeated(editor: GraphEditor, stem: str, value: np.ndarray) -> str:
    """Repeat the first image's part of a constant for each image; return what holds the result."""

    def store(label: str, content: list[int]) -> str:
        return editor.store(f"{stem}_{label}", np.array(content, np.int64))

    labels = ("sizes", "batch", "target", "repeated")
    sizes, batch, target, repeated = (editor.unique(f"{stem}_{label}") for label in labels)
    first = editor.store(f"{stem}_first", np.ascontiguousarray(value[:1]))
    insert = partial(editor.insert, behind=None)
    insert("Shape", [editor.graph.inputs[0]], sizes)
    insert("Slice", [sizes, store("from", [0]), store("to", [1])], batch)
    insert("Concat", [batch, store("rest", list(value.shape[1:]))], target, axis=0)
    insert("Expand", [first, target], repeated)
    return repeated
