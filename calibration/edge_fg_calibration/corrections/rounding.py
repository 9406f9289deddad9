"""INT8 weights chosen for what they do to the output, not for the largest among them.

Two closed-form refinements of ``round(w / scale)`` with ``scale = amax / 127``. The scale of an
output channel may shrink, so that its largest weights are clipped and all others get finer
steps: each of some shrink factors is tried and the least weighted squared error wins. And weights
can be rounded one after the other, each rounding error being made up for by those that are still
free, as far as their inputs are correlated: E. Frantar, S. Ashkboos, T. Hoefler, D. Alistarh,
"GPTQ" (ICLR 2023), after B. Hassibi and D. Stork, "Optimal Brain Surgeon" (1993).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_fg_calibration.graph.onnx_graph import Graph
from edge_fg_calibration.graph.weights import from_rows, weight_rows
from edge_fg_calibration.int8.placement import Placement
from edge_fg_calibration.int8.ranges import LEVELS
from edge_fg_calibration.int8.weight_quantisation import MINIMUM_SCALE, StoredWeight, grid_levels
from edge_fg_calibration.statistics.channel_statistics import Window

SHRINKS = np.linspace(1.0, 0.5, 51)
"""Factors by which a scale may shrink, largest first."""

_DAMPING = 0.01
_BLOCK = 64


def least_error_scale(
    weight: NDArray[np.float64], importance: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return for each row (of rows x values) the scale with the least weighted squared error.

    `importance` weights each value's squared error, 0 or more, and broadcasts to `weight`. Scales
    are above 0: that of the weights' own grid, where they lie on one (see
    `edge_fg_calibration.int8.weight_quantisation`), or ``amax / 127`` times one of `SHRINKS`; of
    equals the first.
    """
    amax = np.abs(weight).max(axis=1)
    best, least = np.zeros(len(weight)), np.full(len(weight), np.inf)
    grid = amax / grid_levels(weight.astype(np.float32))
    for tried in (grid, *(amax / LEVELS * shrink for shrink in SHRINKS)):
        scale = np.maximum(tried, MINIMUM_SCALE)[:, None]
        error = np.clip(np.rint(weight / scale), -LEVELS, LEVELS) * scale - weight
        loss = (np.square(error) * importance).sum(axis=1)
        better = loss < least
        best[better], least[better] = scale[better, 0], loss[better]
    return np.asarray(best, np.float32)


def gptq_round(
    weight: NDArray[np.float64], scale: NDArray[np.float32], covariance: NDArray[np.float64]
) -> NDArray[np.int8]:
    """Round weights one after the other so that the output's squared error stays small.

    Weights are rows x values, with one scale a row; `covariance` (values x values) is of the
    inputs that they are multiplied with, and those that vary most come first. Returns -127 to 127.
    """
    size = weight.shape[1]
    order = np.argsort(-np.diag(covariance), kind="stable")
    rest = weight[:, order].copy()
    moments = covariance[np.ix_(order, order)].copy()
    mean = float(np.trace(moments)) / size
    if mean <= 0:
        return _rounded(weight, scale)
    moments[np.diag_indices(size)] += _DAMPING * mean
    # Rows of the upper Cholesky factor of the inverse: how each error is spread over the rest.
    spread = np.linalg.cholesky(np.linalg.inv(moments)).T
    steps = np.empty(weight.shape, np.int8)
    column_scale = scale[:, None].astype(np.float64)
    for start in range(0, size, _BLOCK):
        end = min(start + _BLOCK, size)
        errors = np.empty((len(weight), end - start))
        for place in range(start, end):
            column = rest[:, place : place + 1]
            rounded = _rounded(column, scale)
            steps[:, place] = rounded[:, 0]
            error = (column - rounded * column_scale)[:, 0] / spread[place, place]
            rest[:, place:end] -= error[:, None] * spread[place, place:end]
            errors[:, place - start] = error
        rest[:, end:] -= errors @ spread[start:end, end:]
    found = np.empty_like(steps)
    found[:, order] = steps
    return found


def calibrated_weights(
    model: onnx.ModelProto,
    placement: Placement,
    windows: Mapping[str, Window],
    limits: Mapping[str, float],
    *,
    gptq: bool = True,
) -> dict[str, StoredWeight]:
    """Choose scales, and with `gptq` roundings too, for the weights whose windows are known.

    Windows are those of `collect_windows`, `limits` the ranges of quantised activations, whose
    rounding noise counts as part of the input. Returns INT8 values and scales by the weight's
    name; a weight that several nodes read is left out.
    """
    graph = Graph(model)
    found: dict[str, StoredWeight] = {}
    for place in placement.weights:
        node = graph.producers[place.node]
        if place.node not in windows or len(graph.consumers[place.initializer]) != 1:
            continue
        stored = graph.array(place.initializer)
        rows = weight_rows(node, stored).astype(np.float64)
        noise = (limits[node.input[0]] / LEVELS) ** 2 / 12
        covariance = windows[place.node].covariance + noise * np.eye(rows.shape[2])
        steps = np.empty(rows.shape, np.int8)
        scales = np.empty(rows.shape[:2], np.float32)
        for group, moments in enumerate(covariance):
            scales[group] = least_error_scale(rows[group], np.diag(moments))
            if gptq:
                steps[group] = gptq_round(rows[group], scales[group], moments)
            else:
                steps[group] = _rounded(rows[group], scales[group])
        found[place.initializer] = from_rows(node, steps, stored.shape), scales.reshape(-1)
    return found


def _rounded(rows: NDArray[np.float64], scale: NDArray[np.float32]) -> NDArray[np.int8]:
    steps = np.rint(rows / scale[:, None].astype(np.float64))
    return np.clip(steps, -LEVELS, LEVELS).astype(np.int8)
