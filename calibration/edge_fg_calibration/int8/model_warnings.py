"""What calibration found unusual about a model: no error, but worth knowing."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx

from edge_fg_calibration.graph.onnx_graph import WEIGHTED_OPS, Graph, describe
from edge_fg_calibration.graph.weights import weight_axis
from edge_fg_calibration.statistics.histogram import Histogram

_MOST = 8


def model_warnings(model: onnx.ModelProto, histograms: Mapping[str, Histogram]) -> tuple[str, ...]:
    """Return a line for each constant tensor and one for all dead channels of a float32 model."""
    found = _constant_tensors(histograms)
    if len(found) > _MOST:
        found = [*found[:_MOST], f"and {len(found) - _MOST} more constant tensors"]
    return (*found, *_dead_channels(model))


def infinity_warnings(model: onnx.ModelProto, infinite: Collection[str]) -> tuple[str, ...]:
    """Return a line for each node at which infinite values begin, of those in some tensors.

    `infinite` names the tensors in which they were seen (see `Statistics.infinite`).
    """
    graph = Graph(model)
    seen = frozenset(infinite) - graph.constants
    begins = [
        describe(node)
        for node in graph.nodes
        if seen.intersection(node.output) and not seen.intersection(node.input)
    ]
    lines = [
        f"{where} gives infinite values on calibration images: ranges are those of the finite "
        f"ones, and layers that read the others stay in float"
        for where in begins[:_MOST]
    ]
    if len(begins) > _MOST:
        lines.append(f"and {len(begins) - _MOST} more nodes give infinite values")
    return tuple(lines)


def _constant_tensors(histograms: Mapping[str, Histogram]) -> list[str]:
    found = []
    for name, one in histograms.items():
        if one.count and one.amax == 0:
            found.append(f"tensor {name!r} is zero on every calibration image")
        elif one.count and one.minimum == one.maximum:
            found.append(
                f"tensor {name!r} is constant, {one.maximum:.4g} on every calibration image"
            )
    return found


def _dead_channels(model: onnx.ModelProto) -> list[str]:
    graph = Graph(model)
    found: list[tuple[int, int, str]] = []
    for node in graph.nodes:
        if node.op_type not in WEIGHTED_OPS or not graph.is_float_initializer(node.input[1]):
            continue
        weights = graph.array(node.input[1])
        axis = weight_axis(node)
        others = tuple(one for one in range(weights.ndim) if one != axis)
        dead = int(np.count_nonzero(~weights.any(axis=others)))
        if dead:
            found.append((dead, weights.shape[axis], describe(node)))
    if not found:
        return []
    most, channels, where = max(found)
    total = sum(dead for dead, _, _ in found)
    where = f"{most} of {channels} of {where}"
    return [f"dead output channels (all weights zero): {total} in {len(found)} layers ({where})"]
