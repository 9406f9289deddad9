"""Fold constants and BatchNorm, drop dead nodes: kept only where the outputs stay the same."""

from __future__ import annotations

import onnx

from edge_fg.errors import ModelError, import_optional
from edge_fg_tools.graph.interface import ImageInput
from edge_fg_tools.graph.nodes import has_quantisation
from edge_fg_tools.graph.running import changed_safely

# A graph may ask for a constant of any size to be folded; we don't store bigger ones.
_LARGEST_FOLDED_BYTES = 64 << 20


def simplify(model: onnx.ModelProto, image: ImageInput) -> tuple[onnx.ModelProto, str | None]:
    """Clean a graph with onnxslim and prove it with ONNX Runtime.

    BatchNormalization behind a convolution is folded into its weights, which INT8
    quantisation counts on: the ranges of the weights are those that the device multiplies.
    Returns the cleaned model, or `model` itself and why it was kept. Raises MissingDependencyError
    where onnxslim is not installed.
    """
    onnxslim = import_optional("onnxslim", "onnxslim", "build", "clean an ONNX graph")
    quantised = has_quantisation(model)
    if quantised is not None:
        # Folding would turn quantised weights back into float ones.
        return model, f"node {quantised.name!r}: the graph is quantised already and is not cleaned"

    def clean(copy: onnx.ModelProto) -> onnx.ModelProto:
        cleaned: onnx.ModelProto = onnxslim.slim(copy, size_threshold=_LARGEST_FOLDED_BYTES)
        _check_interface(model, cleaned)
        return cleaned

    cleaned, reason = changed_safely(model, clean, image)
    if reason is not None:
        return model, (
            f"the graph is kept as it is, cleaning it with onnxslim was not proven safe: {reason}"
        )
    return cleaned, None


def _check_interface(model: onnx.ModelProto, cleaned: onnx.ModelProto) -> None:
    for kind in ("input", "output"):
        wanted = [value.name for value in getattr(model.graph, kind)]
        found = [value.name for value in getattr(cleaned.graph, kind)]
        if wanted != found:
            raise ModelError(f"the {kind}s became {found} instead of {wanted}")
