"""Choose the output that holds the classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_fg.errors import NotAClassifierError, UsageError
from edge_fg_calibration.graph.editing import replace_nodes
from edge_fg_tools.graph.interface import ImageInput
from edge_fg_tools.graph.nodes import within
from edge_fg_tools.graph.running import GraphRunError, Runner, random_images

# What a transformer says of each token; what a detector says of each box is less or odd.
_FEATURES = 128


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
    if value.ndim > 1 and value.shape[1] > 1 and np.issubdtype(value.dtype, np.integer):
        raise NotAClassifierError(
            f"output {name!r} is {value.dtype}: its scores are rounded to whole numbers; export "
            "the model with outputs in float32"
        )
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


def put_behind(graph: onnx.GraphProto, output: str, inner: str, *nodes: onnx.NodeProto) -> None:
    """Put nodes that read `inner` and make `output` behind what made `output` until now."""
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == output:
                    names[index] = inner
    graph.node.extend(nodes)


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
    if any(
        value.ndim == 3 and value.shape[2] >= _FEATURES and value.shape[2] % 32 == 0
        for value in outputs.values()
    ):
        return (
            f"the outputs are tokens ({listed}): features of a backbone without its classifier; "
            "a classifier gives N x classes"
        )
    if _has_boxes(outputs) or any(value.ndim == 3 for value in outputs.values()):
        return f"the outputs look like a detector's ({listed}); a classifier gives N x classes"
    if any(value.ndim == 4 and max(value.shape[2:]) > 1 for value in outputs.values()):
        return (
            f"the outputs are maps ({listed}): features of a backbone without its classifier, or "
            "a segmentation; a classifier gives N x classes"
        )
    if any(value.ndim == 1 and value.size > 1 for value in outputs.values()):
        return (
            f"the outputs have no batch dimension ({listed}), as after torch's squeeze() of one "
            "image: export the model with flatten(1) there, and with an example of two images"
        )
    if len(fitting) > 1:
        return f"several outputs could be the classes ({listed}): choose one with --model-output"
    return f"no output scores two or more classes ({listed}); a classifier gives N x classes"


def _flatten(graph: onnx.GraphProto, kept: onnx.ValueInfoProto, chosen: ClassOutput) -> None:
    inner, name = f"{chosen.name}_unflattened", f"{chosen.name}_flatten"
    flatten = onnx.helper.make_node("Flatten", [inner], [chosen.name], name=name, axis=1)
    put_behind(graph, chosen.name, inner, flatten)
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
