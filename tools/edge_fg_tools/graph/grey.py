"""Let a model of one grey channel take colour images: preprocessing then needs no other path."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx

from edge_fg.errors import ModelError
from edge_fg_calibration.graph.editing import GraphEditor, copied
from edge_fg_calibration.graph.onnx_graph import attribute
from edge_fg_tools.graph.interface import ImageInput
from edge_fg_tools.graph.running import Runner, difference, random_images

# ITU-R BT.601, as Pillow's mode L and OpenCV have it, for red, green and blue.
_LUMA = (0.299, 0.587, 0.114)

_FLOAT = onnx.TensorProto.FLOAT


def take_colour(
    model: onnx.ModelProto, image: ImageInput
) -> tuple[onnx.ModelProto, ImageInput, str | None]:
    """Put the step from RGB to grey in front of a model of one channel, and prove it by running.

    A grey image, the same in all channels, is answered as before. Returns the model, its new input
    and what the user should know; a model of three channels comes back as it is. Raises ModelError
    where the step has no place: UINT8 images that are not made float32 first.
    """
    if image.chw[0] != 1:
        return model, image, None
    first = image.layout == "nchw"
    shape = (3, *image.shape[1:]) if first else (*image.shape[:2], 3)
    wide = dataclasses.replace(image, shape=shape)
    changed = copied(model)
    dims = changed.graph.input[0].type.tensor_type.shape.dim
    dims[1 if first else 3].dim_value = 3
    del changed.graph.value_info[:]
    _insert(changed, wide)
    batch = random_images((image.batch or 1, *image.shape), image.elem_type, seed=5)
    expected = Runner(model)(batch)[0]
    found = Runner(changed)(np.repeat(batch, 3, axis=1 if first else 3))[0]
    reason = difference(expected, found)
    if reason is not None:
        raise ModelError(f"the step to grey in front of input {image.name!r} is wrong: {reason}")
    return (
        changed,
        wide,
        (
            f"input {image.name!r} takes one grey channel: the graph in the bundle takes RGB, and "
            "makes grey of it (0.299 R + 0.587 G + 0.114 B)"
        ),
    )


def _insert(model: onnx.ModelProto, image: ImageInput) -> None:
    editor = GraphEditor(model)
    colour, behind = image.name, None
    readers = editor.graph.consumers.get(colour, ())
    if image.dtype == "uint8":
        casts = [use.node for use in readers if attribute(use.node, "to", 0) == _FLOAT]
        if len(casts) != 1 or len(readers) != 1:
            raise ModelError(
                f"input {colour!r} takes one channel of UINT8 that is not made float32 first: "
                "export the model with a float32 input, or for three channels"
            )
        colour = casts[0].output[0]
        behind = editor.maker(colour)
        readers = editor.graph.consumers.get(colour, ())
    grey = editor.unique(f"{image.name}_grey")
    weights = np.array(_LUMA, np.float32)
    if image.layout == "nchw":
        stored = editor.store(f"{grey}_weights", weights.reshape(1, 3, 1, 1))
        editor.insert("Conv", [colour, stored], grey, behind=behind)
    else:
        stored = editor.store(f"{grey}_weights", weights.reshape(3, 1))
        editor.insert("MatMul", [colour, stored], grey, behind=behind)
    for use in readers:
        editor.connect(use.node, use.position, grey)
    editor.write()
