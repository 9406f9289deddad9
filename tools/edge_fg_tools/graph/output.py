"""Choose the output that holds the classes, and tell logits from probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_fg.errors import ModelError, NotAClassifierError, UsageError
from edge_fg_calibration.graph.editing import replace_nodes
from edge_fg_calibration.graph.observation import check_finite
from edge_fg_tools.graph.interface import ImageInput
from edge_fg_tools.graph.nodes import within
from edge_fg_tools.graph.running import GraphRunError, Runner, random_images

Kind = Literal["logits", "probabilities"]
# Nodes between a Softmax and the output that leave its values alone.
_PASSING = frozenset(
    {"Identity", "Reshape", "Flatten", "Squeeze", "Cast", "QuantizeLinear", "DequantizeLinear"}
)
_SUM_TOLERANCE = 1e-2


@dataclass(frozen=True)
class ClassOutput:
    """The chosen output."""

    name: str  # Name of the tensor
    classes: int  # How many classes it scores
    spatial: bool  # Whether it has two more dimensions of size 1, to be flattened away
    warning: str | None  # What was left out for it, or None


def choose_output(model: onnx.ModelProto, image: ImageInput, wanted: str | None) -> ClassOutput:
    """Choose the output that scores classes (`wanted`, if given), by running the graph once.

    Raises NotAClassifierError where no output scores classes, several do, or they are a detector's
    or a segmentation's, UsageError where there is no output of the name `wanted`, and GraphRunError
    where the graph can't be run.
    """
    outputs = _run(model, image)
    if wanted is not None:
        if wanted not in outputs:
            raise UsageError(f"the model has no output {wanted!r}; it has {_list(outputs)}")
        outputs = {wanted: outputs[wanted]}
    fitting = {name: value for name, value in outputs.items() if _scores_classes(value)}
    if len(fitting) != 1 or (wanted is None and _has_boxes(outputs)):
        raise NotAClassifierError(_refusal(outputs, fitting))
    name, value = next(iter(fitting.items()))
    if not np.issubdtype(value.dtype, np.floating):
        raise NotAClassifierError(
            f"output {name!r} is {value.dtype}: it holds the winning class, not a score for each; "
            "export the model without its ArgMax"
        )
    others = [repr(value.name) for value in model.graph.output if value.name != name]
    warning = f"output {name!r} is used; left out: {', '.join(others)}" if others else None
    return ClassOutput(name, value.size // len(value), value.ndim > 2, warning)


def keep_output(model: onnx.ModelProto, chosen: ClassOutput) -> None:
    """Remove the other outputs and what only they need; flatten N x classes x 1 x 1."""
    graph = model.graph
    kept = next(value for value in graph.output if value.name == chosen.name)
    others = [value for value in graph.output if value.name != chosen.name]
    for value in others:
        graph.output.remove(value)
    if chosen.spatial:
        _flatten(graph, kept, chosen)
    if others:
        _drop_dead(graph)


def find_kind(model: onnx.ModelProto, image: ImageInput, output: str) -> tuple[Kind, str | None]:
    """Tell logits from probabilities, from the graph and from what it computes.

    Probabilities are never negative and sum to 1 for each image; a warning tells where graph and
    values don't say the same. Raises NotAClassifierError where the graph ends in a Sigmoid
    (independent yes/no answers), ModelError where the outputs are not numbers or differ from run
    to run.
    """
    runner = Runner(model)
    images = random_images((image.batch or 1, *image.shape), image.elem_type, seed=7)
    values = runner(images)[0].astype(np.float64)
    check_finite(
        values, output, model=model, batch=images, input_name=image.name, images="random images"
    )
    if not np.allclose(values, runner(images)[0], rtol=1e-3, atol=1e-6):
        raise ModelError(
            f"output {output!r} differs from run to run: export the model in evaluation mode"
        )
    last = _last_node(model.graph, output)
    ends_in = last.op_type if last is not None else "the input"
    name = last.name if last is not None else ""
    if ends_in in {"Sigmoid", "HardSigmoid"} and values.shape[1] > 1:
        raise NotAClassifierError(
            f"node {name!r} ({ends_in}) makes each class a yes or no of its own (multi-label); "
            "export the model without it if exactly one class is right for an image"
        )
    sums = values.sum(axis=1)
    normalised = bool((values >= 0).all() and (np.abs(sums - 1) < _SUM_TOLERANCE).all())
    if ends_in == "Softmax" and not normalised:
        raise NotAClassifierError(
            f"node {name!r} (Softmax) doesn't run over the classes: its values sum to "
            f"{sums[0]:.3g} for an image"
        )
    if normalised and ends_in != "Softmax":
        return "probabilities", (
            f"node {name!r} ({ends_in}): no Softmax, but the values sum to 1 and are taken for "
            "probabilities"
        )
    return ("probabilities" if normalised else "logits"), None


def _run(model: onnx.ModelProto, image: ImageInput) -> dict[str, NDArray[Any]]:
    runner = Runner(model)
    # Two images tell the batch from any other dimension of size 1.
    size = image.batch or 2
    try:
        found = runner(random_images((size, *image.shape), image.elem_type))
    except GraphRunError:
        if image.batch:
            raise
        size = 1
        found = runner(random_images((size, *image.shape), image.elem_type))
    outputs = dict(zip(runner.output_names, found, strict=True))
    return {
        name: value
        for name, value in outputs.items()
        if isinstance(value, np.ndarray) and value.ndim and len(value) == size
    } or outputs


def _scores_classes(value: NDArray[Any]) -> bool:
    if value.ndim == 2:
        return value.shape[1] > 1 or not np.issubdtype(value.dtype, np.floating)
    if value.ndim == 4:
        spatial = value.shape[2:] == (1, 1) or value.shape[1:3] == (1, 1)
        return spatial and value.size > len(value)
    return value.ndim == 1 and np.issubdtype(value.dtype, np.integer)


def _has_boxes(outputs: dict[str, NDArray[Any]]) -> bool:
    return any(value.ndim == 3 and value.shape[2] == 4 for value in outputs.values())


def _list(outputs: dict[str, NDArray[Any]]) -> str:
    return ", ".join(f"{name!r} {list(value.shape)}" for name, value in outputs.items())


def _refusal(outputs: dict[str, NDArray[Any]], fitting: dict[str, NDArray[Any]]) -> str:
    listed = _list(outputs)
    if _has_boxes(outputs) or any(value.ndim == 3 for value in outputs.values()):
        return f"the outputs look like a detector's ({listed}); a classifier gives N x classes"
    if any(value.ndim == 4 and max(value.shape[2:]) > 1 for value in outputs.values()):
        return (
            f"the outputs are maps ({listed}), as for segmentation; a classifier gives N x classes"
        )
    if len(fitting) > 1:
        return f"several outputs could be the classes ({listed}): choose one with --model-output"
    return f"no output scores two or more classes ({listed}); a classifier gives N x classes"


def _flatten(graph: onnx.GraphProto, kept: onnx.ValueInfoProto, chosen: ClassOutput) -> None:
    inner = f"{chosen.name}_unflattened"
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == chosen.name:
                    names[index] = inner
    graph.node.append(
        onnx.helper.make_node(
            "Flatten", [inner], [chosen.name], name=f"{chosen.name}_flatten", axis=1
        )
    )
    dims = kept.type.tensor_type.shape.dim
    del dims[1:]
    dims.add().dim_value = chosen.classes


def _drop_dead(graph: onnx.GraphProto) -> None:
    needed = {value.name for value in graph.output}
    alive: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            alive.append(node)
            needed.update(_reads(node))
    replace_nodes(graph, alive[::-1])
    for tensor in [t for t in graph.initializer if t.name not in needed]:
        graph.initializer.remove(tensor)


def _reads(node: onnx.NodeProto) -> set[str]:
    """Return the tensors that a node and its subgraphs read."""
    names = {name for inner in within(node, onnx.NodeProto) for name in inner.input}
    graphs = within(node, onnx.GraphProto)
    return names.union(value.name for graph in graphs for value in graph.output)


def _last_node(graph: onnx.GraphProto, output: str) -> onnx.NodeProto | None:
    made_by = {name: node for node in graph.node for name in node.output}
    node = made_by.get(output)
    while node is not None and node.op_type in _PASSING:
        node = made_by.get(node.input[0])
    return node
