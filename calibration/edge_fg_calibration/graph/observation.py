"""Running a model so that the tensors inside it can be seen."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_fg.errors import ModelError, UsageError
from edge_fg_calibration.graph.editing import copied, replace_initializers, replace_nodes
from edge_fg_calibration.graph.onnx_graph import Graph, describe
from edge_fg_calibration.graph.session import open_session, run_session

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


class Observer:
    """Runs a model and returns some of its tensors.

    The graph is cut down to what the tensors need and runs unoptimised, so the tensors are those
    that it describes. They are float: the input, or outputs of nodes; one that is not in the model
    is a `UsageError`. Without `arena` memory is returned after each run instead of kept.
    """

    def __init__(
        self, model: onnx.ModelProto, tensors: Sequence[str], input_name: str, *, arena: bool = True
    ) -> None:
        self._names = list(dict.fromkeys(tensors))
        self._made = [name for name in self._names if name != input_name]
        self.input_name = input_name
        self.model = model
        # What no sound model gives infinite values in: its input and its outputs.
        self.must_be_finite = frozenset([input_name, *(one.name for one in model.graph.output)])
        self._arena = arena
        # The graph that runs.
        self.graph = _reduced(model, self._made).SerializeToString(deterministic=True)

    @cached_property
    def _session(self) -> InferenceSession:
        return open_session(
            self.graph, optimise=False, arena=self._arena, purpose="collect calibration statistics"
        )

    def __call__(self, batch: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return the tensors, by name, for one batch (n x 3 x H x W).

        Raises `ModelError` where ONNX Runtime refuses the model or fails on the batch.
        """
        found = {self.input_name: batch}
        if self._made:
            values = run_session(self._session, self._made, {self.input_name: batch})
            found.update(zip(self._made, values, strict=True))
        return {name: found[name] for name in self._names}


def check_finite(
    output: NDArray[Any],
    name: str,
    *,
    model: onnx.ModelProto,
    batch: NDArray[Any],
    input_name: str,
    images: str,
) -> None:
    """Refuse an output of a model that is NaN or infinite, as `ModelError`.

    It names the output, the node where that begins and what `images` the batch is of.
    """
    if not np.isfinite(output).all():
        begin = where_it_begins(model, name, batch, input_name)
        raise ModelError(
            f"output {name!r} is NaN or infinite for {images}, which begins at {begin}; check it "
            f"in float32"
        )


def where_it_begins(
    model: onnx.ModelProto, tensor: str, batch: NDArray[Any], input_name: str
) -> str:
    """Name the node at which the NaN of a tensor begins, or its infinite values where it has none.

    The model runs once more on the batch (n x 3 x H x W). Of a sound input that is the first node
    on the way to the tensor that makes such values from others.
    """
    graph = Graph(model)
    needed = graph.made_from([tensor])
    names = [name for node in graph.nodes for name in node.output if name in needed]
    values = {**Observer(model, names, input_name, arena=False)(batch), input_name: batch}
    has_nan = bool(np.isnan(values[tensor]).any())

    def is_bad(name: str) -> bool:
        array = np.asarray(values.get(name, 0))
        if array.dtype.kind != "f":
            return False
        return bool(np.isnan(array).any() if has_nan else np.isinf(array).any())

    while tensor in graph.producers:
        node = graph.producers[tensor]
        earlier = next((name for name in node.input if is_bad(name)), None)
        if earlier is None:
            return describe(node)
        tensor = earlier
    return f"the input {tensor!r}"


def _reduced(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return a copy whose outputs are `names`, with only the nodes that these need."""
    graph = Graph(model)
    missing = [name for name in names if name not in graph.producers]
    if missing:
        raise UsageError(f"the model has no tensor called {missing[0]!r}")
    # What sub-graphs use is kept whether or not they are.
    needed = graph.made_from([*names, *graph.captured])
    result = copied(model)
    kept = [node for node in result.graph.node if needed.intersection(node.output)]
    replace_nodes(result.graph, kept)
    stored = [one for one in result.graph.initializer if one.name in needed]
    replace_initializers(result.graph, stored)
    del result.graph.output[:]
    # Without a type ONNX Runtime infers it, which also holds for tensors of unknown shape.
    result.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return result
