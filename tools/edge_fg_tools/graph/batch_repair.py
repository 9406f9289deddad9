"""Rewrite what pins a graph to the batch that it was exported with.

An exporter that was given one example writes its batch into constants: `Reshape [1, 197, 768]`,
`Expand [1, 1, 768]`, `Resize [1, 3, 64, 64]`. How each tensor grows with the batch is followed
through the graph, node by node. Whether a rewriting was right is proven elsewhere, by running.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_fg_calibration.graph.editing import GraphEditor
from edge_fg_calibration.graph.onnx_graph import attribute, node_key
from edge_fg_tools.graph.growth import MORE, Growth, Shape

# Where what is the same for all images must have as many as the images, or one.
_JOINING = ("Concat", "GridSample", "LSTM", "GRU", "RNN")
_BROADCASTING = ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Where", "MatMul")


def free_batch(model: onnx.ModelProto, pinned: onnx.ModelProto, batch: int) -> None:
    """Rewrite `model`, whose input takes any batch, in place.

    `pinned` is the same graph, with an input of the `batch` that its constants hold.
    """
    _Repair(model, pinned, batch).run()


class _Repair:
    """One pass over a graph, from its input to its outputs."""

    def __init__(self, model: onnx.ModelProto, pinned: onnx.ModelProto, batch: int) -> None:
        self._editor = GraphEditor(model)
        self._batch = batch
        self._growth = Growth(model, pinned, batch)

    def run(self) -> None:
        """Rewrite the graph."""
        rewrite: dict[str, Callable[[onnx.NodeProto], None]] = {
            "Reshape": self._free_reshape,
            "Gather": self._free_gather,
            "Expand": self._free_expand,
            "Resize": self._free_resize,
            **dict.fromkeys(_JOINING, self._join),
            **dict.fromkeys(_BROADCASTING if self._batch > 1 else (), self._join),
        }
        for node in self._editor.graph.nodes:
            if node.op_type in rewrite:
                rewrite[node.op_type](node)
            self._growth.follow(node)
        self._editor.write()

    def _free_reshape(self, node: onnx.NodeProto) -> None:
        """Let the dimension that holds the batch follow from the others."""
        given = self._growth.constants.get(node.input[1])
        shape = self._growth.before.get(node.output[0])
        if given is None:
            return
        target = given.reshape(-1).tolist()
        if shape is not None and None not in shape and len(shape) == len(target):
            target = [size for size in shape if size is not None]
        lost = given.size and given.min() < 0 and not self._growth.is_known(node.input[0])
        if not target or min(target) <= 0 or lost:
            # Where the batch stands is unknown: what follows from the rest is left as it is.
            target = given.reshape(-1).tolist()
            if target and target[0] == self._batch and not attribute(node, "allowzero", 0):
                self._replace(node, 1, np.array([0, *target[1:]], np.int64))
            return
        if self._growth.is_same(node.input[0]):
            return
        axis = self._growth.axis(node.input[0])
        place = _place(self._growth.before.get(node.input[0]) or [], axis or 0, target, self._batch)
        if place is not None:
            target[place] = -1
            self._replace(node, 1, np.array(target, np.int64))

    def _free_gather(self, node: onnx.NodeProto) -> None:
        """Pick values image by image: torch's as_strided() makes one row of all, to pick from."""
        row = self._editor.graph.producers.get(node.input[0])
        places = self._growth.constants.get(node.input[1])
        if row is None or row.op_type != "Reshape" or places is None or self._batch != 1:
            return
        flat = self._growth.before.get(row.output[0]) or []
        readers = self._editor.graph.consumers[row.output[0]]
        if len(flat) == 1 and self._growth.axis(row.input[0]) == 0 and len(readers) == 1:
            if places.ndim < 2 or len(places) != 1 or attribute(node, "axis", 0) != 0:
                return
            self._replace(row, 1, np.array([-1, flat[0] or 0], np.int64))
            self._growth.follow(row)
            self._replace(node, 1, places[0])
            del node.attribute[:]
            node.attribute.append(onnx.helper.make_attribute("axis", 1))

    def _free_expand(self, node: onnx.NodeProto) -> None:
        """Let the batch of what is expanded stay as it is: 1 does that."""
        given, axis = self._growth.constants.get(node.input[1]), self._growth.axis(node.input[0])
        dims = self._growth.before.get(node.input[0])
        if given is None or axis is None or dims is None:
            return
        place = given.size - len(dims) + axis
        if place >= 0 and given[place] == dims[axis]:
            given = given.copy()
            given[place] = 1
            self._replace(node, 1, given)

    def _free_resize(self, node: onnx.NodeProto) -> None:
        """Say how many times larger instead of how large."""
        given = self._growth.constants.get(node.input[3]) if len(node.input) > 3 else None
        dims = self._growth.before.get(node.input[0])
        if given is None or dims is None or given.size != len(dims) or None in dims:
            return
        pairs = zip(given.tolist(), (size for size in dims if size), strict=True)
        node.input[3] = ""
        self._replace(node, 2, np.array([_scale(*pair) for pair in pairs], np.float32))

    def _join(self, node: onnx.NodeProto) -> None:
        """Take one of what is the same for all images, such as a class token, or one for each."""
        grown = {
            (len(self._growth.before[name] or ()), axis)
            for name in node.input
            if (axis := self._growth.axis(name)) is not None
        }
        for position, name in enumerate(node.input):
            dims = self._growth.before.get(name) or []
            for rank, axis in grown:
                if len(dims) != rank or dims[axis] != self._batch or not self._growth.is_same(name):
                    continue
                if node.op_type == "Concat" and attribute(node, "axis", 0) % rank == axis:
                    return
                stem = f"{node_key(node)}_{name}"
                insert = partial(self._editor.insert, behind=self._editor.maker(name))
                node.input[position] = self._first(insert, stem, name, axis)
                if node.op_type in _JOINING:
                    known = [size or 0 for size in dims]
                    first = node.input[position]
                    node.input[position] = self._repeated(insert, stem, first, known, axis)

    def _first(self, insert: Callable[..., None], stem: str, name: str, axis: int) -> str:
        """Cut a tensor's part for the first image out of it; return what holds the result."""
        first = self._editor.unique(f"{stem}_first")
        parts = [
            self._store(f"{stem}_{key}", [at])
            for key, at in (("from", 0), ("to", 1), ("axis", axis))
        ]
        insert("Slice", [name, *parts], first)
        self._growth.derive(first, name, axis, 1)
        return first

    def _store(self, name: str, content: list[int]) -> str:
        return self._editor.store(name, np.array(content, np.int64))

    def _repeated(
        self, insert: Callable[..., None], stem: str, first: str, dims: list[int], axis: int
    ) -> str:
        """Repeat what belongs to the first image for each; return what holds the result.

        `dims` are those of all images in the example, which lie on `axis`.
        """
        labels = ("sizes", "batch", "target", "repeated")
        sizes, batch, target, repeated = (self._editor.unique(f"{stem}_{one}") for one in labels)
        insert("Shape", [self._editor.graph.inputs[0]], sizes)
        insert("Gather", [sizes, self._store(f"{stem}_place", [0])], batch)
        outer = self._store(f"{stem}_outer", dims[:axis])
        inner = self._store(f"{stem}_inner", dims[axis + 1 :])
        insert("Concat", [outer, batch, inner], target, axis=0)
        insert("Expand", [first, target], repeated)
        self._growth.derive(repeated, first, axis, dims[axis] * MORE)
        return repeated

    def _replace(self, node: onnx.NodeProto, position: int, value: NDArray[Any]) -> None:
        # A tensor of its own: others may read the old one.
        stored = self._editor.store(f"{node_key(node)}_freed", value)
        self._growth.add_constant(stored, value)
        node.input[position] = stored


def _place(dims: Shape, axis: int, target: list[int], batch: int) -> int | None:
    """Return which dimension of `target` holds the batch, or None where it isn't one alone.

    `dims` is what is reshaped, of which `axis` holds the batch: as its outermost part, as in
    images x heads, or as its innermost, as in tokens x images.
    """
    known = [size for size in dims or () if size is not None]
    outer = math.prod(known[:axis]) if len(known) == len(dims or ()) else 1
    inner = outer * (known[axis] // batch) if axis < len(known) else outer
    choices = []
    for place, size in enumerate(target):
        before = math.prod(target[:place])
        for late, position in enumerate((outer, inner)):
            is_outermost, is_innermost = before == position, before * size == position * batch
            if size % batch == 0 and (is_outermost or is_innermost):
                # A dimension for the batch alone is surest. The last one holds features.
                is_last = place == len(target) - 1
                rank = (size != batch, late, is_last, not is_outermost, place)
                choices.append((rank, place))
    return min(choices)[1] if choices else None


def _scale(wanted: int, size: int) -> float:
    """Return the float32 factor that gives `wanted`: the product is rounded down."""
    factor = np.float32(wanted / size)
    while int(factor * np.float32(size)) < wanted:
        factor = np.nextafter(factor, np.float32(np.inf))
    return float(factor)
