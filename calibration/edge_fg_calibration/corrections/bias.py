"""Bias correction: what quantisation adds to the mean of each output channel is taken off again.

Rounded weights shift the mean output of a channel by ``(W_q - W) E[x]``, with the mean over
calibration images of the window x that the node reads; taking it from the float bias costs
nothing at run time. Each node is corrected for its own error only, so no error is taken off twice.
After M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction"
(ICCV 2019), section 4.2, with observed means.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edge_fg_calibration.graph.editing import GraphEditor, copied
from edge_fg_calibration.graph.onnx_graph import Graph
from edge_fg_calibration.graph.weights import along_axis, weight_of, weight_rows
from edge_fg_calibration.int8.placement import Placement
from edge_fg_calibration.int8.weight_quantisation import StoredWeight, quantise_weight
from edge_fg_calibration.statistics.channel_statistics import Window


def bias_corrections(
    model: onnx.ModelProto,
    placement: Placement,
    windows: Mapping[str, Window],
    weights: Mapping[str, StoredWeight],
) -> dict[str, NDArray[np.float64]]:
    """Return what to add to the bias of each quantised node, by node key.

    Windows are those of `collect_windows`; `weights` holds, by name, the weights chosen otherwise
    than by `quantise_weight`.
    """
    graph = Graph(model)
    found = {}
    for place in placement.weights:
        node = graph.producers[place.node]
        # A product of more than matrices has no bias, nor has a node whose bias others read.
        if place.node not in windows or weight_of(graph, node) is None:
            continue
        stored = graph.array(place.initializer)
        steps, scale = weights.get(place.initializer) or quantise_weight(stored, place.axis)
        quantised = steps.astype(np.float32) * along_axis(scale, place.axis, stored.ndim)
        error = weight_rows(node, stored - quantised).astype(np.float64)
        mean = windows[place.node].mean[:, :, None]
        found[place.node] = np.matmul(error, mean).reshape(-1)
    return found


def with_added_biases(
    model: onnx.ModelProto, added: Mapping[str, NDArray[np.float64]]
) -> onnx.ModelProto:
    """Return a copy with something added to the bias of each node named by key.

    A node without a bias gets one, a MatMul becomes a Gemm for it.
    """
    editor = GraphEditor(copied(model))
    for key, values in added.items():
        node = editor.graph.producers[key]
        if len(node.input) > 2 and node.input[2]:
            stored = editor.graph.initializers[node.input[2]]
            new = numpy_helper.to_array(stored).astype(np.float64) + values
            stored.CopyFrom(numpy_helper.from_array(new.astype(np.float32), stored.name))
            continue
        name = editor.store(f"{key}_bias", np.asarray(values, np.float32))
        if node.op_type == "MatMul":
            node.op_type = "Gemm"
        node.input[:] = [*node.input[:2], name]
    return editor.model
