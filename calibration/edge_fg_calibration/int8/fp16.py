"""Mixed precision: FP16 where it holds, FP32 where values leave its range.

Each node is either FP16 or FP32; a tensor has the type of the node that makes it, and one Cast
stands between it and readers of the other type. So neighbouring FP32 nodes hand on FP32 values:
nothing passes through FP16 in between, where it would overflow.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from edge_fg.errors import ModelFormatError, UsageError
from edge_fg_calibration.graph.editing import GraphEditor
from edge_fg_calibration.graph.onnx_graph import Graph, node_key, opset_of
from edge_fg_calibration.graph.patterns import layer_norm_nodes
from edge_fg_calibration.graph.prepare import prepared_copy
from edge_fg_calibration.statistics.histogram import Histogram

FP16_MAX = 65504.0
FP16_SMALLEST_NORMAL = 2.0**-14

RANGE_SENSITIVE_OPS = frozenset(
    {
        *("Softmax", "LogSoftmax", "Exp", "Log", "Softplus", "Reciprocal", "Pow"),
        *("LayerNormalization", "GroupNormalization", "InstanceNormalization"),
        *("LpNormalization", "MeanVarianceNormalization", "RMSNormalization"),
        *("ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceProd"),
        *("ReduceLogSum", "ReduceLogSumExp", "CumSum", "Range", "Resize"),
        *("QuantizeLinear", "DequantizeLinear"),
    }
)
"""Operators that stay FP32: sums, powers and exponentials, and scales, which must be float32."""

_ANY_TYPE_OPS = frozenset({"Shape", "Size"})


def to_fp16(
    model: onnx.ModelProto, *, keep_fp32: Collection[str] = (), wide: Collection[str] = ()
) -> onnx.ModelProto:
    """Return a mixed-precision copy of a float32 or explicit INT8 model.

    Inputs and outputs stay float32, and keep their names. Q/DQ pairs keep float32 scales with
    Casts around them, the form that every backend computes alike.

    Parameters
    ----------
    model
        A float32 model, or one from `insert_qdq`.
    keep_fp32
        Names or keys of nodes that stay FP32 on top of the built-in rules.
    wide
        Tensors whose values leave FP16's range (see `overflowing`): the nodes that make and read
        them stay FP32.

    Raises
    ------
    UsageError
        `keep_fp32` names a node that the model doesn't have.
    ModelFormatError
        The model is not valid ONNX.
    """
    result = prepared_copy(model)
    graph = Graph(result)
    types = element_types(result)
    names = {node_key(node): {node.name, node_key(node)} for node in graph.nodes}
    unknown = sorted(set(keep_fp32).difference(*names.values()))
    if unknown:
        raise UsageError(f"no node of the model is called {unknown[0]!r}")
    keep = layer_norm_nodes(graph).union(
        key for key, called in names.items() if (called - {""}).intersection(keep_fp32)
    )
    chooser = _Chooser(graph, types, opset_of(result), keep, frozenset(wide))
    half = frozenset(node_key(node) for node in graph.nodes if chooser.fits(node))
    _Writer(result, types, half).rewrite()
    try:
        onnx.checker.check_model(result, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelFormatError(f"the FP16 graph is not valid ONNX: {error}") from error
    return result


def overflowing(histograms: Mapping[str, Histogram]) -> frozenset[str]:
    """Return the tensors whose observed magnitude exceeds half of FP16's largest value."""
    return frozenset(name for name, one in histograms.items() if one.amax > FP16_MAX / 2)


def float_tensors(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the float32 tensors that nodes make, in graph order: those to observe for FP16."""
    types = element_types(model)
    return tuple(
        name
        for node in model.graph.node
        for name in node.output
        if types.get(name) == TensorProto.FLOAT
    )


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the inferred ``TensorProto.DataType`` of each tensor, by its name.

    Raises `ModelFormatError` where types can't be inferred.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(model).graph
    except Exception as error:  # C++ errors of all kinds
        raise ModelFormatError(f"types can't be inferred: {error}") from error
    types = {one.name: int(one.data_type) for one in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        if value.type.HasField("tensor_type"):
            types[value.name] = int(value.type.tensor_type.elem_type)
    return types


@dataclass(frozen=True)
class _Chooser:
    graph: Graph
    types: Mapping[str, int]
    opset: int
    keep: frozenset[str]  # Keys of nodes that stay FP32
    wide: frozenset[str]  # Tensors that leave FP16's range

    def fits(self, node: onnx.NodeProto) -> bool:
        """Say whether a node computes in FP16."""
        names = [name for name in (*node.input, *node.output) if name]
        if node.op_type in RANGE_SENSITIVE_OPS or node_key(node) in self.keep:
            return False
        if self.wide.intersection(names) or self.graph.captured.intersection(node.output):
            return False
        if any(name not in self.types for name in names):
            return False
        if any(self.types[name] != TensorProto.FLOAT for name in node.output if name):
            return False
        return self._schema_allows(node) and all(self._representable(one) for one in node.input)

    def _schema_allows(self, node: onnx.NodeProto) -> bool:
        if node.domain not in {"", "ai.onnx"} or node.op_type in {"Cast", "CastLike"}:
            return False
        if any(one.HasField("g") or one.graphs or one.HasField("t") for one in node.attribute):
            return False
        try:
            schema = onnx.defs.get_schema(node.op_type, self.opset, "")
        except onnx.defs.SchemaError:
            return False
        allowed = {one.type_param_str: one.allowed_type_strs for one in schema.type_constraints}
        for names, formals in ((node.input, schema.inputs), (node.output, schema.outputs)):
            for position, name in enumerate(names):
                if self.types.get(name) != TensorProto.FLOAT:
                    continue
                formal = formals[min(position, len(formals) - 1)]
                if "tensor(float16)" not in allowed.get(formal.type_str, [formal.type_str]):
                    return False
        # Generators take their type from an attribute; they have no float input to follow.
        return any(self.types.get(name) == TensorProto.FLOAT for name in node.input)

    def _representable(self, name: str) -> bool:
        if not self.graph.is_float_initializer(name):
            return True
        values = np.abs(self.graph.array(name))
        # FP16 has infinity, too: padding and masks keep it.
        largest = float(values.max(initial=0.0, where=np.isfinite(values)))
        return largest == 0.0 or FP16_SMALLEST_NORMAL <= largest <= FP16_MAX


class _Writer:
    """Gives each tensor its type and puts Casts where maker and reader differ."""

    def __init__(
        self, model: onnx.ModelProto, types: Mapping[str, int], half: frozenset[str]
    ) -> None:
        self._editor = GraphEditor(model)
        self._graph = self._editor.graph
        self._types, self._half = types, half
        self._twins: dict[str, str] = {}
        self._replaced: set[str] = set()

    def rewrite(self) -> None:
        """Rewrite the model in place."""
        graph, editor = self._graph, self._editor
        # A Cast makes each float32 output of the model whose node computes in FP16.
        for name in graph.outputs:
            if editor.maker(name) in self._half:
                self._twins[name] = editor.unique(f"{name}_fp16")
                self._cast(self._twins[name], name, TensorProto.FLOAT, behind=editor.maker(name))
        for node in graph.nodes:
            if node.op_type in _ANY_TYPE_OPS:
                continue
            for position, name in enumerate(node.input):
                if self._types.get(name) == TensorProto.FLOAT:
                    twin = self._in_type(name, half=node_key(node) in self._half)
                    editor.connect(node, position, twin)
        for node in graph.nodes:
            if node_key(node) in self._half:
                node.output[:] = [
                    self._twins[name] if name in graph.outputs else name for name in node.output
                ]
        editor.write()
        editor.drop_unused(self._replaced)
        del editor.model.graph.value_info[:]

    def _in_type(self, name: str, *, half: bool) -> str:
        """Return what holds tensor `name` in the type asked for; adds a Cast if needed."""
        editor = self._editor
        maker = editor.maker(name)
        if (maker in self._half) == half:
            return self._twins[name] if half and name in self._graph.outputs else name
        if name in self._graph.outputs and maker in self._half:
            return name
        if name not in self._twins:
            wanted = f"{name}_{'fp16' if half else 'fp32'}"
            if self._graph.is_float_initializer(name):
                array = self._graph.array(name).astype(np.float16)
                self._twins[name] = editor.store(wanted, array)
                self._replaced.add(name)
            else:
                self._twins[name] = editor.unique(wanted)
                kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
                self._cast(name, self._twins[name], kind, behind=maker)
        return self._twins[name]

    def _cast(self, source: str, to: str, kind: int, *, behind: str | None) -> None:
        name = self._editor.unique(f"{to}_cast")
        self._editor.insert("Cast", [source], to, behind=behind, name=name, to=kind)
