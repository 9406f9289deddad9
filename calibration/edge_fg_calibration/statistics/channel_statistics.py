"""Statistics per channel of some tensors, and per window of what convolutions read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_fg.progress import ProgressCallback, no_progress
from edge_fg_calibration.graph.observation import Observer
from edge_fg_calibration.graph.onnx_graph import Graph, attribute
from edge_fg_calibration.graph.weights import has_known_layout, over_window, window_shape

# Most values of a window whose covariance is kept: memory and time grow with its square.
_LARGEST_WINDOW = 1536
# Standard deviations around the mean that hold all but a few values of a channel.
_USUAL_DEVIATIONS = 4.0
_POSITIONS = 1 << 15
_IMAGES_AT_ONCE = 4


def observed_tensors(
    model: onnx.ModelProto, batches: Iterable[NDArray[Any]], tensors: Sequence[str], input_name: str
) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the values of `tensors` for a few images at a time."""
    observer = Observer(model, tensors, input_name, arena=False)
    for batch in batches:
        for start in range(0, len(batch), _IMAGES_AT_ONCE):
            yield observer(batch[start : start + _IMAGES_AT_ONCE])


@dataclass
class ChannelRange:
    """Statistics of each channel of one tensor; arrays have the shape (channels,)."""

    low: NDArray[np.float64]  # Smallest value of each channel
    high: NDArray[np.float64]  # Largest
    sums: NDArray[np.float64]  # Of its values
    squares: NDArray[np.float64]  # Sums of the squares of its values
    count: NDArray[np.int64]  # Finite values of each channel; others are not taken in

    @classmethod
    def of(cls, channels: int) -> ChannelRange:
        """Return the range of channels of which nothing was seen yet."""
        infinite = np.full(channels, np.inf)
        return cls(
            infinite,
            -infinite,
            np.zeros(channels),
            np.zeros(channels),
            np.zeros(channels, np.int64),
        )

    def add(self, array: NDArray[Any]) -> None:
        """Take in one batch, N x C or N x C x H x W."""
        axes = tuple(one for one in range(array.ndim) if one != 1)
        finite = np.isfinite(array)
        low = array.min(axis=axes, initial=np.inf, where=finite)
        high = array.max(axis=axes, initial=-np.inf, where=finite)
        np.minimum(self.low, low, out=self.low)
        np.maximum(self.high, high, out=self.high)
        self.sums += array.sum(axis=axes, dtype=np.float64, where=finite)
        self.squares += np.square(array).sum(axis=axes, dtype=np.float64, where=finite)
        self.count += finite.sum(axis=axes)

    @property
    def magnitude(self) -> NDArray[np.float64]:
        """Largest magnitude of each channel, 0 where nothing was seen."""
        largest = np.maximum(np.abs(self.low), np.abs(self.high))
        return np.where(self.count > 0, largest, 0.0)

    @property
    def usual(self) -> NDArray[np.float64]:
        """Magnitude of each channel that few values exceed, see `_USUAL_DEVIATIONS`."""
        count = np.maximum(self.count, 1)
        mean = self.sums / count
        variance = np.maximum(self.squares / count - mean**2, 0.0)
        return np.minimum(self.magnitude, np.abs(mean) + _USUAL_DEVIATIONS * np.sqrt(variance))


def collect_channel_ranges(
    model: onnx.ModelProto,
    batches: Iterable[NDArray[Any]],
    tensors: Sequence[str],
    *,
    input_name: str,
    progress: ProgressCallback = no_progress,
    total: int = 0,
) -> dict[str, ChannelRange]:
    """Return extremes and moments of each channel of `tensors` over all images.

    Tensors have their channels on axis 1. Progress is told as stage ``observe channels``; errors
    are those of `collect_histograms`.
    """
    found: dict[str, ChannelRange] = {}
    done = 0
    for values in observed_tensors(model, batches, tensors, input_name):
        for name, array in values.items():
            found.setdefault(name, ChannelRange.of(array.shape[1])).add(array)
        done += len(values[tensors[0]])
        progress("observe channels", done, max(total, done))
    return found


@dataclass(frozen=True)
class Window:
    """Mean and covariance of what one weighted node multiplies its weights with.

    A window is flattened in the order of the node's weight: channels of the group, then kernel
    rows and columns. There is one for each group (so one a channel where depthwise).
    """

    mean: NDArray[np.float64]  # Shape (groups, window)
    covariance: NDArray[np.float64]  # Shape (groups, window, window)

    def scaled(self, factor: NDArray[np.float64]) -> Window:
        """Return the window of an input whose channel c is multiplied by ``factor[c]``."""
        each = over_window(factor, *self.mean.shape)
        return Window(self.mean * each, self.covariance * each[:, :, None] * each[:, None, :])

    def moved(self, shift: float) -> Window:
        """Return the window of an input from which a constant is subtracted."""
        return Window(self.mean - shift, self.covariance)


def collect_windows(
    model: onnx.ModelProto,
    batches: Iterable[NDArray[Any]],
    nodes: Sequence[str],
    *,
    input_name: str,
) -> dict[str, Window]:
    """Return the windows of Conv, Gemm and MatMul nodes, by node key.

    Left out are nodes whose window has more than `_LARGEST_WINDOW` values, and those that
    corrections can't treat (see `has_known_layout`).
    """
    graph = Graph(model)
    wanted, sums, products = {}, {}, {}
    for key in nodes:
        node = graph.producers[key]
        if not has_known_layout(graph, node):
            continue
        groups, size = window_shape(node, graph.initializers[node.input[1]].dims)
        if size <= _LARGEST_WINDOW:
            wanted[key] = node
            sums[key], products[key] = np.zeros((groups, size)), np.zeros((groups, size, size))
    counts = dict.fromkeys(wanted, 0)
    tensors = [node.input[0] for node in wanted.values()]
    for values in observed_tensors(model, batches, tensors, input_name):
        for key, node in wanted.items():
            windows = _windows(graph, node, values[node.input[0]])
            step = -(-windows.shape[1] // _POSITIONS)
            taken = np.ascontiguousarray(windows[:, ::step], dtype=np.float32)
            sums[key] += taken.sum(axis=1, dtype=np.float64)
            products[key] += np.matmul(taken.transpose(0, 2, 1), taken)
            counts[key] += taken.shape[1]
    found = {}
    for key, count in counts.items():
        mean = sums[key] / max(count, 1)
        outer = mean[:, :, None] * mean[:, None, :]
        found[key] = Window(mean, products[key] / max(count, 1) - outer)
    return found


def _windows(graph: Graph, node: onnx.NodeProto, array: NDArray[Any]) -> NDArray[Any]:
    """Return groups x positions x window."""
    if node.op_type != "Conv":
        return array.reshape(1, -1, array.shape[-1])
    groups = int(attribute(node, "group", 1))
    kernel = graph.initializers[node.input[1]].dims[2:]
    strides = list(attribute(node, "strides", [1, 1]))
    pads = _pads(node, array.shape[2:], kernel, strides)
    dilations = list(attribute(node, "dilations", [1, 1]))
    padded = np.pad(array, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    span = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    view = np.lib.stride_tricks.sliding_window_view(padded, span, axis=(2, 3))
    view = view[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    n, channels, rows, columns = view.shape[:4]
    view = view.reshape(n, groups, channels // groups, rows, columns, *kernel)
    flat = view.transpose(1, 0, 3, 4, 2, 5, 6)
    return np.asarray(flat.reshape(groups, n * rows * columns, -1))


def _pads(
    node: onnx.NodeProto, size: Sequence[int], kernel: Sequence[int], strides: Sequence[int]
) -> list[int]:
    automatic = attribute(node, "auto_pad", b"NOTSET")
    if automatic in {b"NOTSET", b""}:
        return list(attribute(node, "pads", [0, 0, 0, 0]))
    if automatic == b"VALID":
        return [0, 0, 0, 0]
    needed = [
        max((-(-s // t) - 1) * t + k - s, 0) for s, k, t in zip(size, kernel, strides, strict=True)
    ]
    small = [one // 2 for one in needed]
    large = [one - one // 2 for one in needed]
    return small + large if automatic == b"SAME_UPPER" else large + small


def padded(node: onnx.NodeProto) -> bool:
    """Say whether a convolution may read zeros beyond the edge of its input."""
    automatic = attribute(node, "auto_pad", b"NOTSET")
    return automatic in {b"SAME_UPPER", b"SAME_LOWER"} or any(attribute(node, "pads", []))
