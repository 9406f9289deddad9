"""What is inside a graph: names of nodes, nested parts, and the operators that may be used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import onnx
from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]
from google.protobuf.message import Message  # type: ignore[import-untyped]

from edge_fg.errors import UnsupportedNodeError
from edge_fg_calibration.graph.onnx_graph import opset_of

ONNX_DOMAINS = ("", "ai.onnx")
QUANTISATION_OPS = frozenset({"QuantizeLinear", "DequantizeLinear"})

Part = TypeVar("Part")


def name_nodes(graph: onnx.GraphProto, prefix: str = "", taken: set[str] | None = None) -> None:
    """Give each node without a name, or with one used before, a unique one: ``op_index``.

    The index is the node's place in its graph, so that the same file gives the same names.
    Subgraphs (If, Loop, Scan) are named with their owner's name in front (`prefix`).
    """
    taken = set() if taken is None else taken
    # Names that the author gave come first, so that an invented one never takes theirs.
    free: list[tuple[int, onnx.NodeProto]] = []
    for index, node in enumerate(graph.node):
        if node.name and node.name not in taken:
            taken.add(node.name)
        else:
            free.append((index, node))
    for index, node in free:
        wanted = f"{prefix}{node.op_type.lower()}_{index}"
        name, suffix = wanted, 1
        while name in taken:
            suffix += 1
            name = f"{wanted}_{suffix}"
        taken.add(name)
        node.name = name
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                name_nodes(inner, f"{node.name}/", taken)


def within(message: Message, kind: type[Part]) -> Iterator[Part]:
    """Yield each message of `kind` in `message`, itself included, the outer before the inner.

    The parts of tensors are left out, unless every `Message` is asked for.
    """
    if isinstance(message, kind):
        yield message
    if isinstance(message, onnx.TensorProto) and kind is not Message:
        return
    for descriptor, value in message.ListFields():
        if descriptor.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in (value,) if isinstance(value, Message) else value:
                yield from within(inner, kind)


def check_operators(model: onnx.ModelProto) -> None:
    """Refuse operators that ONNX doesn't define at the model's opset, or that lack an attribute.

    Raises UnsupportedNodeError with the first such node and its domain, and ModelFormatError where
    the model imports no version of ONNX's operators.
    """
    local = {(function.domain, function.name) for function in model.functions}
    for node in within(model.graph, onnx.NodeProto):
        if any(attribute.ref_attr_name for attribute in node.attribute):
            raise UnsupportedNodeError(
                f"node {node.name!r} takes an attribute from a function, but is in none: "
                "export the model again"
            )
        if (node.domain, node.op_type) in local:
            continue
        if node.domain not in ONNX_DOMAINS:
            raise UnsupportedNodeError(
                f"node {node.name!r} is {node.op_type} of the custom domain {node.domain!r}, "
                "which TensorRT doesn't have: export the model with ONNX's own operators only"
            )
        opset = opset_of(model)
        try:
            onnx.defs.get_schema(node.op_type, opset, "")
        except (onnx.defs.SchemaError, TypeError) as error:  # TypeError: over 32 bits
            raise UnsupportedNodeError(
                f"node {node.name!r}: ONNX has no operator {node.op_type!r} at opset {opset}; "
                "export the model with ONNX's own operators only"
            ) from error


def has_quantisation(model: onnx.ModelProto) -> onnx.NodeProto | None:
    """Return the first QuantizeLinear or DequantizeLinear node, if there is any."""
    return next(
        (n for n in within(model.graph, onnx.NodeProto) if n.op_type in QUANTISATION_OPS), None
    )
