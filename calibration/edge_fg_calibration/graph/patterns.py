"""Sub-graphs that placement and mixed precision treat in their own way."""

from __future__ import annotations

import onnx

from edge_fg_calibration.graph.onnx_graph import WEIGHTED_OPS, Graph, node_key

_GLOBAL_POOLS = frozenset({"GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax"})


def squeeze_nodes(graph: Graph) -> frozenset[str]:
    """Return the keys of weighted nodes that compute a gate from pooled features.

    A gate is the operand of a Mul that depends on the image through global pooling only, the
    other operand being a feature map that doesn't. A classifier's head is pooled too, but no
    feature map is multiplied by it.
    """
    pooled = _pooled_tensors(graph)
    found: set[str] = set()
    for node in graph.nodes:
        if node.op_type != "Mul" or any(name in graph.constants for name in node.input):
            continue
        gates = [name for name in node.input if name in pooled]
        if len(gates) == 1:
            for name in graph.made_from(gates, pooled.__contains__):
                maker = graph.producers[name]
                if maker.op_type in WEIGHTED_OPS:
                    found.add(node_key(maker))
    return frozenset(found)


def _pooled_tensors(graph: Graph) -> frozenset[str]:
    pooled: set[str] = set()
    for node in graph.nodes:
        varying = [name for name in node.input if name and name not in graph.constants]
        if not varying:
            continue
        if node.op_type in _GLOBAL_POOLS or all(name in pooled for name in varying):
            pooled.update(name for name in node.output if name)
    return frozenset(pooled)


def skip_operand(graph: Graph, node: onnx.NodeProto) -> int | None:
    """Return which operand (0 or 1) of a residual Add is the skip, None where it is not one.

    From the nearest tensor that both operands come from, the main path is the longer one in
    nodes; an operand that *is* that tensor is an identity skip.
    """
    order = {name: place for place, one in enumerate(graph.nodes) for name in one.output if name}
    order.update(dict.fromkeys(graph.inputs, -1))
    ancestors = [
        graph.made_from([name], lambda one: bool(one) and one not in graph.constants)
        for name in node.input
    ]
    common = ancestors[0] & ancestors[1]
    if not common:
        return None
    nearest = max(common, key=lambda name: order.get(name, -1))
    lengths = [
        _longest_path(graph, nearest, name, ancestors[i]) for i, name in enumerate(node.input)
    ]
    return None if lengths[0] == lengths[1] else int(lengths[0] > lengths[1])


def _longest_path(graph: Graph, start: str, end: str, within: set[str]) -> int:
    lengths = {start: 0}
    for node in graph.nodes:
        reached = [lengths[name] for name in node.input if name in lengths]
        if reached:
            for name in node.output:
                if name in within and name != start:
                    lengths[name] = max(reached) + 1
    return lengths.get(end, 0)


def is_transformer(graph: Graph) -> bool:
    """Say whether the network normalises layers, whole or decomposed into simple operators."""
    return any(
        node.op_type in {"LayerNormalization", "SkipLayerNormalization"} for node in graph.nodes
    ) or bool(layer_norm_nodes(graph))


def layer_norm_nodes(graph: Graph) -> frozenset[str]:
    """Return the keys of the nodes of decomposed layer (or group, or RMS) normalisations.

    The pattern is ``x / Sqrt(Add(ReduceMean(Pow or Mul(x)), epsilon))``: the squares, their mean,
    the root and the quotient, whose intermediate values leave FP16's range first.
    """
    found: set[str] = set()
    for node in graph.nodes:
        if node.op_type == "Sqrt":
            chain = _variance_chain(graph, node)
            if chain:
                found.update(chain)
                found.update(
                    node_key(use.node)
                    for use in graph.consumers.get(node.output[0], ())
                    if use.node.op_type in {"Div", "Mul", "Reciprocal"}
                )
    return frozenset(found)


def _variance_chain(graph: Graph, root: onnx.NodeProto) -> set[str]:
    """Return the keys from a Sqrt back to the squares, or nothing where it is not a deviation."""
    keys = {node_key(root)}
    tensor = root.input[0]
    for operators in ({"Add"}, {"ReduceMean"}, {"Pow", "Mul"}):
        node = graph.producers.get(tensor)
        if node is None or node.op_type not in operators:
            return set()
        keys.add(node_key(node))
        varying = [name for name in node.input if name and name not in graph.constants]
        if not varying:
            return set()
        tensor = varying[0]
    before = graph.producers.get(tensor)
    if before is not None and before.op_type == "Sub":
        keys.add(node_key(before))
        mean = graph.producers.get(before.input[1])
        if mean is not None and mean.op_type == "ReduceMean":
            keys.add(node_key(mean))
    return keys
