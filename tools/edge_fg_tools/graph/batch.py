"""Let a graph take any number of images at once."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_fg_calibration.graph.editing import copied
from edge_fg_tools.graph.batch_repair import free_batch
from edge_fg_tools.graph.interface import ImageInput, dimensions
from edge_fg_tools.graph.running import (
    TOLERANCE,
    GraphRunError,
    Runner,
    difference,
    in_batches,
    random_images,
)

BATCH = "N"
# What people give an exporter as an example, where one image doesn't work.
_USUAL_BATCHES = (2, 3, 4, 8, 16, 32, 64)
_MOST_VALUES = 1 << 24  # of one batch that is only tried
# Where images of this contrast and less are answered alike, others are shown.
_CONTRASTS = (1, 8, 64)


def pinned_batch(model: onnx.ModelProto, image: ImageInput) -> ImageInput:
    """Return the input with the batch that the graph takes, where it says that it takes any.

    torch's exporter may declare any batch and still hold that of the example in constants. Raises
    GraphRunError where the graph can't be loaded.
    """
    if image.batch is not None:
        return image
    runner = Runner(model)
    most = _MOST_VALUES // math.prod(image.shape)
    for size in (1, *(usual for usual in _USUAL_BATCHES if usual <= most)):
        with contextlib.suppress(GraphRunError):
            runner(random_images((size, *image.shape), image.elem_type))
            return image if size == 1 else dataclasses.replace(image, batch=size)
    return image


def make_batch_dynamic(
    model: onnx.ModelProto, image: ImageInput, exported: ImageInput
) -> tuple[onnx.ModelProto, ImageInput, str | None]:
    """Make the first dimension of the input and of the only output ``N``; `model` is not changed.

    What pins the batch is rewritten, such as a Reshape to a constant shape. The result is run with
    batches of 1 and 3 and compared with the original; where that does not prove it, the batch is
    fixed, and the last value returned says why, and how to export the model, which then had the
    input `exported`.
    Raises GraphRunError where the original can't be run.
    """
    fixed = image.batch or 1
    images, expected = _answered_apart(Runner(model), image, fixed)
    found = []
    for repair in (False, True):
        candidate = _with_batch(model, image, None)
        if repair:
            free_batch(candidate, _with_batch(model, image, fixed), fixed)
        reason = _fault(candidate, images, expected)
        if reason is None:
            return candidate, dataclasses.replace(image, batch=None), None
        found.append(reason)
    # As it was exported the graph takes other batches, but not image by image.
    mixed = found[0] if found[0].startswith("values") else None
    why = (
        f"the answer to an image depends on those beside it ({mixed})"
        if mixed
        else f"with three images {found[-1]}; {_export_call(exported)}"
    )
    return (
        _with_batch(model, image, fixed),
        dataclasses.replace(image, batch=fixed),
        f"the batch stays fixed at {fixed}: {why}",
    )


def _answered_apart(
    runner: Runner, image: ImageInput, batch: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return images and their answers, which differ, or exchanged answers would not be noticed.

    A model of pixels of 0..255 sees black in all images of standard normal noise.
    """
    images = random_images((3 * batch, *image.shape), image.elem_type, seed=3)
    expected = in_batches(runner, images, batch)[0]
    if np.ptp(expected, axis=0).max() > 10 * TOLERANCE * np.abs(expected).max():
        return images, expected
    contrasts = np.repeat(_CONTRASTS, batch).reshape(-1, 1, 1, 1)
    glaring = (images * contrasts).astype(images.dtype)
    answers = in_batches(runner, glaring, batch)[0]
    return (glaring, answers) if np.isfinite(answers).all() else (images, expected)


def _fault(candidate: onnx.ModelProto, images: NDArray[Any], expected: NDArray[Any]) -> str | None:
    """Run images one by one and three at a time; say what doesn't give what is expected."""
    try:
        runner = Runner(candidate)
        return difference(expected[:1], runner(images[:1])[0]) or difference(
            expected, in_batches(runner, images, 3)[0]
        )
    except GraphRunError as error:
        # The rest of ONNX Runtime's words is long.
        node = re.search(r"running (\w+) node\. Name:'([^']+)'", str(error))
        return f"node {node[2]!r} ({node[1]}) fails" if node else str(error)


def _export_call(image: ImageInput) -> str:
    """Say how torch exports a graph that takes any batch.

    It takes a dimension for dynamic only where the example has more than one of it.
    """
    channels, height, width = image.shape
    return (
        f"export it with an example of two images: torch.onnx.export(model, (torch.rand(2, "
        f"{channels}, {height}, {width}),), 'model.onnx', dynamo=True, dynamic_shapes="
        f"({{0: 'batch'}},)), or with dynamo=False and dynamic_axes={{{image.name!r}: "
        "{0: 'batch'}}"
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
