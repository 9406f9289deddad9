"""Tell what an output holds: logits, probabilities, or something that can be made one of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_fg.errors import ModelError, NotAClassifierError, UsageError
from edge_fg_calibration.graph.editing import GraphEditor
from edge_fg_calibration.graph.observation import check_finite
from edge_fg_calibration.graph.onnx_graph import Graph, attribute
from edge_fg_tools.graph.interface import ImageInput
from edge_fg_tools.graph.output import put_behind
from edge_fg_tools.graph.running import Runner, random_images

Kind = Literal["logits", "probabilities"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

# Nodes between what decides and the output that leave the values as they are.
_PASSING = frozenset(
    {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Dropout", "Clip"}
    | {"Gather", "Slice", "QuantizeLinear", "DequantizeLinear", "Round", "Floor"}
)
_ROUNDING = frozenset({"QuantizeLinear", "Round", "Floor"})
_WITH_CONSTANT = frozenset({"Mul", "Div", "Add", "Sub"})
_SIGMOIDS = frozenset({"Sigmoid", "HardSigmoid"})
# What ends in one of these holds scores, even if they happen to lie between 0 and 1.
_SUMS = frozenset({"Gemm", "MatMul", "Conv", "Einsum", "Add", "Sub", "Sum", "Mean"})
_POOLS = frozenset({"GlobalAveragePool", "AveragePool", "ReduceMean", "ReduceSum"})
_FEATURE_ENDS = _POOLS | {"LayerNormalization", "BatchNormalization", "Relu", "Tanh", "Div", "Mul"}
_FEATURE_NAMES = ("embed", "feature", "pooler", "hidden")
# How much the sum of an image's values may differ, as a share; 8-bit values are rounded.
_SUM_TOLERANCE, _ROUNDED_TOLERANCE = 1e-2, 1e-1
# Images from nearly grey to glaring: scores change their size with them, probabilities don't.
_CONTRASTS = (0.1, 0.5, 1.0, 1.0, 2.0, 5.0, 20.0, 60.0)
# By which share of the largest value some class must vary before what is alike says something,
# and how much may vary of what is alike.
_VARIED, _ALIKE = 0.05, 1e-3
_SURE = 0.9  # Probability above which a class says little of the others
_LEAST_SUM = 1e-3  # of values that are made probabilities: FP16 holds it, too
_ASK = "or say what the output holds with --output-kind logits|probabilities"


@dataclass(frozen=True)
class _End:
    """What a graph ends in."""

    node: onnx.NodeProto | None  # The last node that is no mere change of shape, type or scale
    scaled: bool  # Whether constants are added or multiplied behind it
    rounded: bool  # Whether its values are rounded, to 8 bits for example

    @property
    def op(self) -> str:
        return self.node.op_type if self.node is not None else ""

    @property
    def scales_softmax(self) -> bool:
        """Whether the graph itself says that a softmax over the classes is scaled."""
        if self.node is None or self.op not in {"Softmax", "LogSoftmax"}:
            return False
        return self.scaled and attribute(self.node, "axis", -1) in {1, -1}

    @property
    def text(self) -> str:
        return "the input itself" if self.node is None else f"node {self.node.name!r} ({self.op})"


def settle_kind(
    model: onnx.ModelProto, image: ImageInput, output: str, wanted: Kind | None = None
) -> tuple[Kind, str | None]:
    """Tell logits from probabilities, from the graph and from what it computes, and make them so.

    Probabilities are never negative and sum to 1 for each image. Where they sum to another number
    (100, say), or their logarithms have another base or sign, nodes behind the output mend that, in
    place. `wanted` is what the user says: it is believed, and makes probabilities sum to 1. What
    was done and what is unusual is returned as a warning.

    Raises NotAClassifierError where the values are neither (independent yes or no answers, an
    embedding) or have no batch, ModelError where they are not numbers or differ from run to run,
    and UsageError where `wanted` can't be.
    """
    values = _observe(model, image, output)
    end = _end(Graph(model), output)
    sums = values.sum(axis=1)
    tolerance = _ROUNDED_TOLERANCE if end.rounded else _SUM_TOLERANCE
    positive = bool(values.min() >= -1e-6 * np.abs(values).max())
    varied = bool(np.ptp(values, axis=0).max() > _VARIED * np.abs(values).max())
    normalised = positive and bool((np.abs(sums - 1) < tolerance).all())
    if end.op in _SIGMOIDS and not varied:
        normalised = False  # one yes and many a no sum to 1, too
    if wanted is not None:
        return wanted, _as_wanted(model, output, wanted, positive, normalised)
    if normalised:
        unusual = f"{end.text}: no Softmax, but the values sum to 1 and are taken for probabilities"
        return "probabilities", None if end.op == "Softmax" else unusual
    # What hardly depends on the image has everything in common, unless the graph says as much.
    if end.scales_softmax or varied:
        total = float(np.median(sums))
        if positive and np.ptp(sums) < (_ROUNDED_TOLERANCE if end.rounded else _ALIKE) * total:
            total = round(total) if abs(round(total) - total) < tolerance * total else total
            _scale(model, output, 1 / total)
            return "probabilities", (
                f"output {output!r} sums to {total:g} for each image: it is divided by that and "
                "taken for probabilities"
            )
        factor = _logarithm_factor(values, output)
        if factor is not None and abs(factor - 1) > _SUM_TOLERANCE:
            _scale(model, output, factor)
            return "logits", (
                f"output {output!r} is {1 / factor:.3g} times the logarithm of probabilities: it "
                "is divided by that and taken for logits"
            )
        _refuse_unit_length(values, output)
    _refuse_others(values, end, output)
    return "logits", None


def features_hint(model: onnx.ModelProto, output: str) -> str | None:
    """Say why an output may be features instead of scores for classes, or None."""
    end = _end(Graph(model), output)
    named = next((word for word in _FEATURE_NAMES if word in output.lower()), None)
    if named is None and end.op not in _FEATURE_ENDS:
        return None
    why = f"last layer is {end.text}" if named is None else f"output is called {output!r}"
    return f"{why}: it may be a feature extractor without its classifier"


def _observe(model: onnx.ModelProto, image: ImageInput, output: str) -> NDArray[np.float64]:
    """Return the output for images of all contrasts, where it is finite."""
    runner = Runner(model)
    batch = image.batch or 1
    images = random_images((batch, *image.shape), image.elem_type, seed=7)
    plain = runner(images)[0].astype(np.float64)
    check_finite(
        plain, output, model=model, batch=images, input_name=image.name, images="random images"
    )
    if not np.allclose(plain, runner(images)[0], rtol=1e-3, atol=1e-6):
        raise ModelError(
            f"output {output!r} differs from run to run: export the model in evaluation mode"
        )
    if plain.ndim != 2 or len(plain) != batch:
        raise NotAClassifierError(
            f"output {output!r} has the shape {list(plain.shape)} for a batch of {batch}: export "
            "the model with flatten(1) where it has squeeze()"
        )
    values = [plain]
    most = 1 if images.dtype == np.uint8 else math.inf
    for start in range(0, len(_CONTRASTS), batch):
        images = random_images((batch, *image.shape), image.elem_type, seed=8 + start)
        contrasts = np.resize(np.minimum(_CONTRASTS[start:], most), (batch, 1, 1, 1))
        shown = (images * contrasts.astype(np.float32)).astype(images.dtype)
        values.append(runner(shown)[0].astype(np.float64))
    seen = np.concatenate(values)
    return np.asarray(seen[np.isfinite(seen).all(axis=1)], np.float64)


def _end(graph: Graph, output: str) -> _End:
    node, scaled, rounded = graph.producers.get(output), False, False
    while node is not None:
        varying = [name for name in node.input if name not in graph.constants]
        if node.op_type in _WITH_CONSTANT and len(varying) == 1:
            scaled = True
        elif node.op_type not in _PASSING:
            break
        rounded |= node.op_type in _ROUNDING
        node = graph.producers.get(varying[0]) if varying else None
    return _End(node, scaled, rounded)


def _as_wanted(
    model: onnx.ModelProto, output: str, wanted: Kind, positive: bool, normalised: bool
) -> str | None:
    """Make the output what the user says; return what is unusual."""
    if wanted == "logits":
        unusual = f"output {output!r} sums to 1 for each image, and is taken for logits as asked"
        return unusual if normalised else None
    if not positive:
        raise UsageError(f"output {output!r} has negative values, which are no probabilities")
    if normalised:
        return None
    editor = GraphEditor(model)
    given, total, divisor = (editor.unique(f"{output}_{one}") for one in ("given", "sum", "least"))
    axes = editor.store(f"{output}_axes", np.array([1], np.int64))
    least = editor.store(f"{output}_floor", np.array(_LEAST_SUM, np.float32))
    put_behind(
        model.graph,
        output,
        given,
        onnx.helper.make_node("ReduceSum", [given, axes], [total], name=total, keepdims=1),
        onnx.helper.make_node("Max", [total, least], [divisor], name=divisor),
        onnx.helper.make_node("Div", [given, divisor], [output], name=f"{output}_share"),
    )
    return f"output {output!r} is divided by its sum for each image, to give probabilities"


def _scale(model: onnx.ModelProto, output: str, factor: float) -> None:
    """Multiply an output by a number."""
    editor = GraphEditor(model)
    given = editor.unique(f"{output}_given")
    stored = editor.store(f"{output}_factor", np.array(factor, np.float32))
    node = onnx.helper.make_node("Mul", [given, stored], [output], name=f"{output}_scaled")
    put_behind(model.graph, output, given, node)


def _logarithm_factor(values: NDArray[np.float64], output: str) -> float | None:
    """Return what makes all values natural logarithms of probabilities, or None.

    It is 1 behind a LogSoftmax, 2.3 for logarithms to the base 10, -1 for costs. Raises
    NotAClassifierError where values could be scores or costs, as one class is sure in all.
    """
    sign = 1.0 if values.max() <= _ALIKE else -1.0
    logs = sign * values
    if logs.max() > _ALIKE or not logs.any(axis=1).all():
        return None
    factors = []
    for row in logs:
        low, high = 1e-4, 1e4
        for _ in range(60):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if np.exp(middle * row).sum() > 1 else (low, middle)
        factors.append(middle)
    # A row that is sure of one class says little of the factor.
    best = factors[int(logs.max(axis=1).argmin())]
    found = np.exp(best * logs)
    if (np.abs(found.sum(axis=1) - 1) >= _SUM_TOLERANCE).any():
        return None
    if found.max(axis=1).min() <= _SURE:
        return sign * best
    if sign > 0:
        return None
    raise NotAClassifierError(
        f"output {output!r} could hold scores, of which the largest is best, or costs, of which "
        f"the least is best: export the model with scores, {_ASK}"
    )


def _refuse_unit_length(values: NDArray[np.float64], output: str) -> None:
    lengths = np.sqrt((values**2).sum(axis=1))
    if np.ptp(lengths) < _ALIKE * lengths.max():
        raise NotAClassifierError(
            f"output {output!r} has the length {lengths.mean():.3g} for each image, as the "
            f"embedding of a feature extractor has: give the model with its classifier, {_ASK}"
        )


def _refuse_others(values: NDArray[np.float64], end: _End, output: str) -> None:
    """Raise NotAClassifierError for values that are neither logits nor probabilities."""
    total = f"{values[0].sum():.3g}"
    if end.op in _SIGMOIDS and not end.scaled:
        raise NotAClassifierError(
            f"{end.text} makes each class a yes or no of its own (multi-label): export the model "
            f"without it if exactly one class is right for an image, {_ASK}"
        )
    if end.op == "Softmax" and not end.scaled:
        raise NotAClassifierError(
            f"{end.text} doesn't run over the classes: its values sum to {total} for an image"
        )
    if end.op in _SIGMOIDS | {"Softmax"} or (end.op == "LogSoftmax" and end.scaled):
        raise NotAClassifierError(
            f"the values of {end.text} are changed behind it and sum to {total} for an image: "
            f"export the model without that, {_ASK}"
        )
    if values.min() >= 0 and values.max() <= 1 and end.op not in _SUMS | _POOLS:
        raise NotAClassifierError(
            f"the values of output {output!r} lie between 0 and 1 and don't sum to 1 (multi-label "
            f"answers?): export the model without {end.text}, {_ASK}"
        )
