"""Where INT8 goes: which tensors are quantised, and why the others are not.

Only the *inputs* of convolutions and matrix products are quantised, activations per tensor and
weights per output channel; in convolutional networks, on request, also the skip operand of
residual additions. Everything else stays float. These are NVIDIA's recommendations for explicit
quantisation ("Working with Quantized Types", TensorRT documentation); the rule for small
convolutions follows TensorRT Model Optimizer's.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import onnx

from edge_fg.errors import UsageError
from edge_fg_calibration.graph.onnx_graph import WEIGHTED_OPS, Graph, attribute, node_key
from edge_fg_calibration.graph.patterns import is_transformer, skip_operand, squeeze_nodes
from edge_fg_calibration.graph.weights import weight_axis

Target: TypeAlias = Literal["portable", "tensorrt", "tensorrt-rtx"]

_NARROW = 16


@dataclass(frozen=True)
class WeightPlace:
    """One stored weight to quantise.

    Parameters
    ----------
    node
        Key of the node that reads it.
    input
        Which of the node's inputs it is.
    initializer
        Name of the stored tensor.
    axis
        The tensor's output-channel axis: one scale for each index along it.
    operator
        The node's operator.
    activation
        The activation that the node multiplies by it.
    """

    node: str
    input: int
    initializer: str
    axis: int
    operator: str
    activation: str


@dataclass(frozen=True)
class SkipPlace:
    """The skip operand of one residual addition.

    Parameters
    ----------
    node
        Key of the Add.
    input
        Which operand, 0 or 1.
    tensor
        The operand's name.
    main
        Key of the INT8 node that makes the other operand, and that the addition fuses into.
    """

    node: str
    input: int
    tensor: str
    main: str


@dataclass(frozen=True)
class Placement:
    """What to quantise in one model.

    Parameters
    ----------
    target
        What it was decided for.
    activations
        Tensors with a range of their own, in graph order.
    weights
        Weights quantised per channel; their nodes are the ones that run in INT8.
    skips
        Residual operands that are quantised.
    skipped
        ``(node key, operator, reason)`` of each weighted node that stays float.
    """

    target: Target
    activations: tuple[str, ...]
    weights: tuple[WeightPlace, ...]
    skips: tuple[SkipPlace, ...]
    skipped: tuple[tuple[str, str, str], ...]

    @property
    def nodes(self) -> frozenset[str]:
        """Keys of the nodes that run in INT8."""
        return frozenset(place.node for place in self.weights)

    @property
    def groups(self) -> tuple[frozenset[str], ...]:
        """Nodes that change precision together, in graph order.

        Those that read one tensor share its quantisation, and TensorRT may run them as one; those
        that share a weight keep one copy of it.
        """
        groups: list[tuple[set[str], set[str]]] = []
        for place in self.weights:
            nodes, tensors = {place.node}, {place.activation, place.initializer}
            for joined in [one for one in groups if one[1] & tensors]:
                groups.remove(joined)
                nodes |= joined[0]
                tensors |= joined[1]
            groups.append((nodes, tensors))
        order = {place.node: number for number, place in enumerate(self.weights)}
        found = [frozenset(nodes) for nodes, _ in groups]
        return tuple(sorted(found, key=lambda nodes: min(order[one] for one in nodes)))

    def without(self, nodes: Collection[str], reason: str = "left in float") -> Placement:
        """Return the placement with some of its INT8 nodes left in float.

        Activations that no other INT8 node reads lose their range, and additions that fused into
        one of the nodes their quantised skip operand.

        Parameters
        ----------
        nodes
            Keys of nodes that run in INT8 so far.
        reason
            What `skipped` says of them.

        Raises
        ------
        UsageError
            One of them doesn't run in INT8.
        """
        unknown = sorted(set(nodes) - self.nodes)
        if unknown:
            raise UsageError(f"no INT8 node of the model is called {unknown[0]!r}")
        weights = tuple(place for place in self.weights if place.node not in nodes)
        skips = tuple(skip for skip in self.skips if skip.main not in nodes)
        read = {place.activation for place in weights} | {skip.tensor for skip in skips}
        left = tuple(
            (place.node, place.operator, reason) for place in self.weights if place.node in nodes
        )
        activations = tuple(name for name in self.activations if name in read)
        return Placement(self.target, activations, weights, skips, (*self.skipped, *left))


def place(
    model: onnx.ModelProto,
    *,
    target: Target = "portable",
    depthwise: bool | None = None,
    residual_adds: bool = False,
) -> Placement:
    """Decide what runs in INT8.

    Parameters
    ----------
    model
        A float32 classifier, batch normalisation already folded.
    target
        What must run the graph; ``portable`` means all of them.
    depthwise
        Whether depthwise convolutions run in INT8. None lets the target decide: only
        ``tensorrt`` does. TensorRT-RTX needs many times the weight memory for them, they are
        the few multiply-accumulates that cost most agreement, and a portable graph must suit
        both.
    residual_adds
        Also quantise the skip operand of residual additions, which lets TensorRT fuse the
        addition into an INT8 convolution; never done in networks with layer normalisation.

    Raises
    ------
    UsageError
        `target` is not one of the three.
    """
    if target not in get_args(Target):
        raise UsageError(f"target must be one of {', '.join(get_args(Target))}, not {target!r}")
    graph = Graph(model)
    if depthwise is None:
        depthwise = target == "tensorrt"
    gates = squeeze_nodes(graph)
    weights: list[WeightPlace] = []
    skipped: list[tuple[str, str, str]] = []
    for node in graph.nodes:
        if node.op_type not in WEIGHTED_OPS:
            continue
        reason = _reason_for_float(graph, node, depthwise, gates)
        if reason:
            skipped.append((node_key(node), node.op_type, reason))
        else:
            axis = weight_axis(node)
            weights.append(
                WeightPlace(node_key(node), 1, node.input[1], axis, node.op_type, node.input[0])
            )
    skips: list[SkipPlace] = []
    if residual_adds and not is_transformer(graph):
        skips = _residual_skips(graph, frozenset(place.node for place in weights))
    read = [*(place.activation for place in weights), *(skip.tensor for skip in skips)]
    activations = tuple(dict.fromkeys(read))
    return Placement(target, activations, tuple(weights), tuple(skips), tuple(skipped))


def _reason_for_float(
    graph: Graph, node: onnx.NodeProto, depthwise: bool, gates: Collection[str]
) -> str | None:
    """Say why a weighted node stays float; None where it runs in INT8."""
    if node.input[0] in graph.constants:
        return "the left operand is constant"
    if node.input[1] not in graph.constants:
        return "product of two activations"
    if not graph.is_float_initializer(node.input[1]):
        return "the weight is not a stored float32 tensor"
    is_matrix = node.op_type in {"Gemm", "MatMul"}
    dims = graph.initializers[node.input[1]].dims
    if is_matrix and len(dims) != 2:
        return f"the weight has {len(dims)} dimensions, not 2"
    if attribute(node, "transA", 0):  # it mixes images
        return "transposes its activation"
    if node_key(node) in gates:  # they cost little and err much
        return "gate of a squeeze-and-excitation branch"
    if not is_matrix:
        return _convolution_in_float(graph, node, depthwise)
    # With fewer than 16 rows or columns of weights nothing is gained.
    return f"narrow matrix ({dims[0]} x {dims[1]})" if min(dims) < _NARROW else None


def _convolution_in_float(graph: Graph, node: onnx.NodeProto, depthwise: bool) -> str | None:
    """Leave depthwise convolutions, unless asked for, and small ones.

    One filter a channel means few operations, much weight memory and much loss. Below 16 channels
    INT8 pays only where the layout is a multiple of 8 and the kernel square. The stem, which reads
    the image, counts as wide enough on its input side.
    """
    group = int(attribute(node, "group", 1))
    inputs, outputs = _channels(graph, node)
    if not depthwise and group > 1 and group in {inputs, outputs}:
        return "depthwise convolution"
    if min(inputs, outputs) >= _NARROW:
        return None
    kernel = graph.initializers[node.input[1]].dims[2:]
    aligned = inputs % 8 == 0 or outputs % 8 == 0
    wide = node.input[0] in graph.inputs or max(inputs, outputs) >= _NARROW
    if aligned and wide and len(set(kernel)) <= 1:
        return None
    return f"small convolution ({inputs} to {outputs} channels)"


def _channels(graph: Graph, node: onnx.NodeProto) -> tuple[int, int]:
    """Return input and output channels over all groups."""
    first, second = graph.initializers[node.input[1]].dims[:2]
    group = int(attribute(node, "group", 1))
    if node.op_type == "ConvTranspose":
        return int(first), int(second) * group
    return int(second) * group, int(first)


def _residual_skips(graph: Graph, quantised: frozenset[str]) -> list[SkipPlace]:
    """Find the skip operand of each Add whose main path ends in an INT8 convolution."""
    found = []
    for node in graph.nodes:
        if node.op_type != "Add" or any(name in graph.constants for name in node.input):
            continue
        position = skip_operand(graph, node)
        if position is None:
            continue
        main = graph.producers.get(node.input[1 - position])
        if main is not None and node_key(main) in quantised:
            tensor = node.input[position]
            found.append(SkipPlace(node_key(node), position, tensor, node_key(main)))
    return found
