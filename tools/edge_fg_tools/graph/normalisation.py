"""What a model does to the pixel values before its first layer: the normalisation inside."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_fg.errors import ModelError
from edge_fg_calibration.graph.observation import Observer
from edge_fg_calibration.graph.onnx_graph import Graph, attribute, node_key
from edge_fg_tools.graph.interface import ImageInput

# Operators that move values, and those that scale and shift each on its own.
_MOVING = frozenset(
    {"Cast", "Clip", "Concat", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Resize"}
    | {"Slice", "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze"}
)
_SCALING = frozenset(
    {"Add", "BatchNormalization", "DequantizeLinear", "Div", "Mul", "Neg", "QuantizeLinear", "Sub"}
)
_SAMPLED = 200_000  # Values of the tensor that are looked at, about
_PERIODS = 12  # After which colours may repeat: 3 or 4 channels, also of 2 x 2 pixels
_TOLERANCE = 0.03  # Quantisation at the input rounds
_SMALLEST_OF_BYTES = 10.0  # Some mean or deviation of pixels of 0..255 is above it
# Means and deviations of photographs in 0..1.
_UNIT_MEAN, _UNIT_STD = (0.3, 0.65), (0.1, 0.6)


@dataclass(frozen=True)
class Normalisation:
    """``(value - mean) / std`` of each colour in the model's order, in units of its input."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    node: str  # Name of the node where it begins

    @property
    def white(self) -> int | None:
        """What white is in the units that it is made for: 255, 1, or None where that is unclear."""
        if max(*map(abs, self.mean), *map(abs, self.std)) > _SMALLEST_OF_BYTES:
            return 255
        usual = all(_UNIT_MEAN[0] <= one <= _UNIT_MEAN[1] for one in self.mean)
        return 1 if usual and all(_UNIT_STD[0] <= one <= _UNIT_STD[1] for one in self.std) else None

    def __str__(self) -> str:
        """Return the formula, with the node's name."""
        mean, std = colours(self.mean), colours(self.std)
        shifted = "x" if mean == "0" else f"(x - {mean})"
        return f"{shifted} / {std} from node {self.node!r} on"


def colours(values: Iterable[float]) -> str:
    """Return a number for each colour as text, or one where they are the same."""
    texts = [f"{value + 0.0:.4g}" for value in values]
    return texts[0] if len(set(texts)) == 1 else f"[{', '.join(texts)}]"


def find_normalisation(model: onnx.ModelProto, image: ImageInput) -> Normalisation | None:
    """Find the normalisation between the input and the first layer; None where there is none.

    The graph up to there runs on one black image and one of each colour, so that it doesn't
    matter how it is written. Nothing is found either where a value depends on several colours, or
    one colour is scaled in several ways.
    """
    graph = Graph(model)
    tensor, node = _before_first_layer(graph)
    if tensor is None or node is None:
        return None
    try:
        answers = _answers(Observer(model, [tensor], image.name, arena=False), image, tensor)
    except ModelError:  # what can't be run is found elsewhere
        return None
    black, white, each = answers[0], answers[-1], answers[1:-1] - answers[0]
    together = each.sum(axis=0)
    largest = float(np.abs(together).max(initial=0.0))
    if not np.isfinite(answers).all() or not largest:
        return None
    if np.abs(white - black - together).max() > _TOLERANCE * largest:
        return None  # not linear, or the colours are mixed
    mean, std = [], []
    for one in each:
        # Padding depends on no colour.
        touched = np.abs(one) > _TOLERANCE * largest
        scales, offsets = one[touched], black[touched]
        if not scales.size or np.ptp(scales) > _TOLERANCE * np.abs(scales).max():
            return None
        if np.ptp(offsets) > _TOLERANCE * max(1.0, float(np.abs(offsets).max())):
            return None
        scale, offset = float(np.median(scales)), float(np.median(offsets))
        mean.append(-offset / scale)
        std.append(1 / scale)
    if np.allclose(std, 1, atol=_TOLERANCE) and np.allclose(mean, 0, atol=_TOLERANCE):
        return None
    return Normalisation(tuple(mean), tuple(std), node.name or node_key(node))


def _before_first_layer(graph: Graph) -> tuple[str | None, onnx.NodeProto | None]:
    """Return the tensor that the first layer reads, and the first node that changes values."""
    reached, changing = {graph.inputs[0]}, None
    frontier: set[str] = set()
    for node in graph.nodes:
        reads = [name for name in node.input if name in reached]
        if not reads:
            continue
        others = set(node.input) - set(reads) - {""}
        linear = node.op_type in _MOVING | _SCALING and not attribute(node, "training_mode", 0)
        if not linear or not others <= graph.constants:
            frontier.update(reads)
            continue
        if changing is None and node.op_type in _SCALING:
            changing = node
        reached.update(node.output)
    if len(frontier) != 1:
        return None, None
    return frontier.pop(), changing


def _answers(observer: Observer, image: ImageInput, tensor: str) -> NDArray[np.float64]:
    """Return the tensor for images of black, of each colour at 1, and of all colours at 1."""
    channels = image.chw[0]
    axis = 0 if image.layout == "nchw" else 2
    rows = []
    for shown in ((), *((one,) for one in range(channels)), tuple(range(channels))):
        pixels: NDArray[Any] = np.zeros(image.shape, image.dtype)
        np.moveaxis(pixels, axis, 0)[list(shown)] = 1
        batch = np.broadcast_to(pixels, (image.batch or 1, *image.shape))
        values = observer(np.ascontiguousarray(batch))[tensor].ravel()
        step = max(1, values.size // _SAMPLED)
        while math.gcd(step, _PERIODS) > 1:  # or values of one colour alone would be seen
            step += 1
        rows.append(values[::step].astype(np.float64))
    return np.stack(rows)
