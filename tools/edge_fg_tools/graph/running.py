"""Run a graph with ONNX Runtime on random images: the proof behind every change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_fg.backends.onnxruntime import open_session, run_session
from edge_fg.errors import ModelError
from edge_fg.printing import first_line
from edge_fg_calibration.graph.editing import copied
from edge_fg_tools.graph.interface import ImageInput
from edge_fg_tools.graph.nodes import check_operators, name_nodes

# Reordered float32 sums differ by about 1e-6 of the largest value, per layer.
TOLERANCE = 1e-3


class GraphRunError(ModelError):
    """ONNX Runtime can't load or run a graph."""


class Runner:
    """A graph with one input in ONNX Runtime on the CPU, with optimisation switched off.

    Without optimisation the graph is run as written, so that a comparison proves the graph
    and not what ONNX Runtime made of it. Raises GraphRunError where that refuses the graph.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._session = open_session(
            model.SerializeToString(),
            optimise=False,
            error=GraphRunError,
            extra="build",
            purpose="check a model",
        )
        image = model.graph.input[0]
        self.input_name: str = image.name
        self.input_dtype = _dtype(image.type.tensor_type.elem_type)
        self.output_names: tuple[str, ...] = tuple(o.name for o in self._session.get_outputs())

    def __call__(self, batch: NDArray[Any]) -> list[NDArray[Any]]:
        """Return all outputs for one batch; GraphRunError names a node that can't be computed."""
        return run_session(self._session, None, {self.input_name: batch}, error=GraphRunError)


def changed_safely(
    model: onnx.ModelProto,
    change: Callable[[onnx.ModelProto], onnx.ModelProto],
    image: ImageInput,
) -> tuple[onnx.ModelProto, str | None]:
    """Change a copy of a model, and prove by running both that it still computes the same.

    Returns the changed model with every node named, or `model` itself and why the change is not
    proven.
    """
    try:
        changed = change(copied(model))
        name_nodes(changed.graph)
        check_operators(changed)
        reason = compare(model, changed, image)
    except ModelError as error:
        return model, str(error)
    except Exception as error:  # noqa: BLE001 (onnxslim and ONNX's converter raise all kinds)
        return model, f"{type(error).__name__}: {first_line(error)}"
    return (changed, None) if reason is None else (model, reason)


def compare(
    original: onnx.ModelProto,
    changed: onnx.ModelProto,
    image: ImageInput,
    tolerance: float = TOLERANCE,
) -> str | None:
    """Say how two graphs differ on random images, in batches of 1 and 3, or None.

    Where the input's batch is fixed, that batch alone is run. Raises GraphRunError where one of
    the graphs can't be run.
    """
    before, after = Runner(original), Runner(changed)
    for size in (image.batch,) if image.batch else (1, 3):
        images = random_images((size, *image.shape), image.elem_type, seed=size)
        expected = in_batches(before, images, size)
        # The changed graph may take another float type.
        found = in_batches(after, images.astype(after.input_dtype), size)
        for name, one, other in zip(before.output_names, expected, found, strict=True):
            reason = difference(one, other, tolerance)
            if reason is not None:
                return f"output {name!r} at batch {size}: {reason}"
    return None


def random_images(shape: Sequence[int], elem_type: int, seed: int = 0) -> NDArray[Any]:
    """Return random images: standard normal where floating point, or 0..255 where UINT8.

    `shape` is the batch, then the input's own three dimensions. The same seed gives the same ones.
    """
    generator = np.random.default_rng(seed)
    dtype = _dtype(elem_type)
    if dtype == np.uint8:
        return generator.integers(0, 256, size=shape, dtype=np.uint8)
    return generator.standard_normal(shape, dtype=np.float32).astype(dtype)


def in_batches(runner: Runner, images: NDArray[Any], size: int) -> list[NDArray[Any]]:
    """Run `images` in batches of `size` and join what comes out along the first axis."""
    parts = [runner(images[start : start + size]) for start in range(0, len(images), size)]
    return [np.concatenate([part[index] for part in parts]) for index in range(len(parts[0]))]


def difference(one: NDArray[Any], other: NDArray[Any], tolerance: float = TOLERANCE) -> str | None:
    """Say how two outputs differ, or None where they agree.

    They agree within `tolerance` times the largest magnitude.
    """
    if one.shape != other.shape:
        return f"shape {other.shape} instead of {one.shape}"
    reference = one.astype(np.float64)
    limit = tolerance * max(float(np.abs(reference).max(initial=0.0)), 1e-6)
    with np.errstate(invalid="ignore"):
        worst = float(np.abs(reference - other.astype(np.float64)).max(initial=0.0))
    # Written so that NaN counts as different.
    if not worst <= limit:
        return f"values differ by {worst:.3g} where {limit:.3g} is allowed"
    return None


def _dtype(elem_type: int) -> np.dtype[Any]:
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(elem_type))
