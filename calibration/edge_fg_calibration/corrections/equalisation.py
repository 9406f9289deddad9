"""Moving range from the channels of an activation into the weights around it.

An INT8 activation has one scale for all channels, a weight one for each output channel. Where
channel c of an activation is multiplied by s_c in the convolution that makes it and divided by
s_c in those that read it, the network computes the same, and a channel that used a small part
of the range uses more of it. A depthwise reader takes 1 / s_c into the scale of its own output
channel; any other reader pays with more uneven weights. After M. Nagel, M. van Baalen,
T. Blankevoort, M. Welling, "Data-Free Quantization Through Weight Equalization and Bias
Correction" (ICCV 2019), but from observed activations, as in G. Xiao et al., "SmoothQuant"
(ICML 2023). Extremes of channels depend on single values; what few values exceed says better
how coarsely a channel is rounded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_fg_calibration.graph.channel_groups import ChannelGroup
from edge_fg_calibration.graph.editing import with_arrays
from edge_fg_calibration.graph.onnx_graph import Graph
from edge_fg_calibration.graph.weights import from_rows, over_window, weight_rows
from edge_fg_calibration.statistics.channel_statistics import ChannelRange

# How far below the limit of its Clip the observed maximum of a lifted channel stays.
_HEADROOM = 1.3
_LARGEST_FACTOR = 64.0
_SATURATED = 0.999


@dataclass(frozen=True)
class Setting:
    """One way to equalise a group."""

    exponent: float  # How much of the difference between channels is removed, 0 (none) to 1 (all)
    # Whether channels are compared by their extremes, or by what few values exceed
    # (`ChannelRange.usual`).
    extremes: bool = True
    # Behind a Clip no factor lifts the observed maximum times this above the limit, and a channel
    # that reaches the limit is left as it is, so that the Clip can stay.
    headroom: float = _HEADROOM


def channel_factors(
    group: ChannelGroup,
    ranges: Mapping[str, ChannelRange],
    quantised: Collection[str],
    setting: Setting,
) -> NDArray[np.float64] | None:
    """Return the factor of each channel of a group, None where it has no quantised tensor.

    Needs the ranges of the group's quantised tensors and of its `clips`. Factors are above 0,
    shape (channels,). Behind a Clip none is below 1; elsewhere the largest channel keeps its range.
    """
    tensors = [name for name in group.tensors if name in quantised]
    if not tensors:
        return None
    share = np.zeros(group.channels)
    for name in tensors:
        size = ranges[name].magnitude if setting.extremes else ranges[name].usual
        share = np.maximum(share, size / (size.max() or 1.0))
    alive = share > 0
    factors = np.ones(group.channels)
    factors[alive] = np.minimum(share[alive] ** -setting.exponent, _LARGEST_FACTOR)
    for name, limit in group.clips:
        high = np.maximum(ranges[name].high, limit / _LARGEST_FACTOR)
        room = np.where(high >= _SATURATED * limit, 1.0, limit / (setting.headroom * high))
        factors = np.minimum(factors, np.maximum(room, 1.0))
    return factors


def rescaled(
    model: onnx.ModelProto, factors: Mapping[ChannelGroup, NDArray[np.float64]]
) -> onnx.ModelProto:
    """Return a copy in which channel c of each tensor of a group is multiplied by its factor.

    Requires groups of this model. Ensures that outputs are the same but for rounding, as long as
    no Clip of a group acts on other values than before (see `channel_factors`).
    """
    graph = Graph(model)
    arrays: dict[str, NDArray[np.float64]] = {}

    def stored(name: str) -> NDArray[np.float64]:
        return arrays[name] if name in arrays else graph.array(name).astype(np.float64)

    for group, factor in factors.items():
        for key in dict.fromkeys((*group.makers, *group.readers)):
            node = graph.producers[key]
            weight = stored(node.input[1])
            rows = weight_rows(node, weight)
            if key in group.makers:
                rows = rows * factor.reshape(len(rows), -1, 1)
                if len(node.input) > 2 and node.input[2]:
                    arrays[node.input[2]] = stored(node.input[2]) * factor
            if key in group.readers:
                rows = rows * over_window(1 / factor, len(rows), rows.shape[2])[:, None]
            arrays[node.input[1]] = from_rows(node, rows, weight.shape)
    return with_arrays(model, arrays)
