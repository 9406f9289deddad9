"""Fold constants and BatchNorm, drop dead nodes: kept only where the outputs stay the same."""

from __future__ import annotations

import onnx

from edge_fg.errors import MissingDependencyError, ModelError
from edge_fg.printing import first_line
from edge_fg_calibration.graph.editing import copied
from edge_fg_tools.graph.interface import ImageInput
from edge_fg_tools.graph.nodes import check_operators, has_quantisation, name_nodes
from edge_fg_tools.graph.running import TOLERANCE, Runner, difference, in_batches, random_images

# A graph may ask for a constant of any size to be folded; we don't store bigger ones.
_LARGEST_FOLDED_BYTES = 64 << 20


def simplify(model: onnx.ModelProto, image: ImageInput) -> tuple[onnx.ModelProto, str | None]:
    """Clean a graph with onnxslim and prove it with ONNX Runtime.

    BatchNormalization behind a convolution is folded into its weights, which INT8
    quantisation counts on: the ranges of the weights are those that the device multiplies.

    Parameters
    ----------
    model
        A checked model; it is not changed.
    image
        Its input.

    Returns
    -------
    model
        The cleaned model, or `model` itself where that is not proven.
    warning
        Why the original was kept, or None.

    Raises
    ------
    MissingDependencyError
        onnxslim is not installed.
    """
    try:
        import onnxslim
    except ImportError as error:
        raise MissingDependencyError("onnxslim", "build", "clean an ONNX graph") from error
    quantised = has_quantisation(model)
    if quantised is not None:
        # Folding would turn quantised weights back into float ones.
        return model, f"node {quantised.name!r}: the graph is quantised already and is not cleaned"
    copy = copied(model)
    try:
        cleaned = onnxslim.slim(copy, size_threshold=_LARGEST_FOLDED_BYTES)
        _same_interface(model, cleaned)
        name_nodes(cleaned.graph)
        check_operators(cleaned)
        reason = compare(model, cleaned, image)
    except ModelError as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001 (any failure of the cleaner means: keep the original)
        reason = f"onnxslim failed: {type(error).__name__}: {first_line(error)}"
    if reason is not None:
        return model, f"the graph is kept as it is, cleaning it was not proven safe: {reason}"
    return cleaned, None


def compare(
    original: onnx.ModelProto,
    changed: onnx.ModelProto,
    image: ImageInput,
    tolerance: float = TOLERANCE,
) -> str | None:
    """Say how two graphs differ on random images, in batches of 1 and 3, or None.

    Where the input's batch is fixed, that batch alone is run.

    Raises
    ------
    GraphRunError
        One of the graphs can't be run.
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


def _same_interface(model: onnx.ModelProto, cleaned: onnx.ModelProto) -> None:
    for kind in ("input", "output"):
        wanted = [value.name for value in getattr(model.graph, kind)]
        found = [value.name for value in getattr(cleaned.graph, kind)]
        if wanted != found:
            raise ModelError(f"the {kind}s became {found} instead of {wanted}")
