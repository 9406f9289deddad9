"""Graphs that a hostile maker of bundles could write, and bundles around them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_fg.bundle.manifest import (
    FileEntry,
    LabelsEntry,
    Manifest,
    OutputKind,
    OutputSpec,
    TensorSpec,
    VariantEntry,
)
from edge_fg.bundle.writer import write_bundle
from edge_fg.labels import Label, Labels
from edge_fg.preprocess import PreprocessSpec, Resize

SIZE = 8


def value(name: str, kind: int = TensorProto.FLOAT, shape: Any = ()) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def whole(name: str, *numbers: int) -> onnx.TensorProto:
    """An int64 scalar, or a list of several."""
    array = np.array(numbers, np.int64)
    return numpy_helper.from_array(array[0] if len(numbers) == 1 else array, name)


def classifier(
    nodes: list[onnx.NodeProto] = [],  # noqa: B006  never changed
    *,
    tensors: list[onnx.TensorProto] = [],  # noqa: B006
    added: str = "",
    output: onnx.ValueInfoProto | None = None,
    batch: int | str = "N",
) -> bytes:
    """A graph whose `output`, by default ``y`` with the three mean colours, may need `nodes`.

    `added` names a tensor of which the largest value is added to them.
    """
    means = [
        helper.make_node("GlobalAveragePool", ["x"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("ReduceMax", [added], ["largest"], keepdims=0),
        helper.make_node("Add", ["flat", "largest"], ["y"]),
    ]
    if not added:
        means[2:] = [] if output is not None else [helper.make_node("Identity", ["flat"], ["y"])]
    graph = helper.make_graph(
        [*means[:2], *nodes, *means[2:]],
        "g",
        [value("x", shape=[batch, 3, SIZE, SIZE])],
        [output or value("y", shape=[batch, 3])],
        tensors,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = made.SerializeToString()
    return data


def looping(
    rounds: onnx.TensorProto | None, *, side: int = 2, empty: bool = False, op: str = "Loop"
) -> bytes:
    """A classifier with a Loop, each round of which multiplies two matrices of `side`."""
    state, more = value("s", shape=[side, side]), value("more", TensorProto.BOOL)
    nodes = [
        helper.make_node("Identity", ["more"], ["goes_on"]),
        helper.make_node("MatMul", ["s", "unit"], ["product"]),
    ]
    outputs = [value("goes_on", TensorProto.BOOL), value("product", shape=[side, side])]
    body = helper.make_graph(
        [] if empty else nodes,
        "body",
        [value("i", TensorProto.INT64), more, state],
        [more, state] if empty else outputs,
    )
    limit = "" if rounds is None else rounds.name
    return classifier(
        [helper.make_node(op, [limit, "yes", "unit"], ["state"], body=body)],
        tensors=[
            numpy_helper.from_array(np.array(True), "yes"),
            numpy_helper.from_array(np.eye(side, dtype=np.float32), "unit"),
            *([] if rounds is None else [rounds]),
        ],
        added="state",
    )


def bundle_of(
    folder: Path,
    graph: bytes,
    *,
    output: str = "y",
    kind: OutputKind = "logits",
    batch: int | str = "N",
) -> Path:
    """Write a bundle of three classes around a graph."""

    def manifest(entries: dict[str, FileEntry]) -> Manifest:
        return Manifest(
            schema=1,
            name="hostile",
            files=entries,
            input=TensorSpec("x", (batch, 3, SIZE, SIZE), "float32"),
            outputs=(OutputSpec(output, kind, ("N", 3)),),
            preprocess=PreprocessSpec(Resize("squash", (SIZE, SIZE))),
            labels=LabelsEntry("labels.csv", 3),
            variants={"fp32": VariantEntry("model.onnx", entries["model.onnx"].sha256)},
            calibration=None,
            provenance={},
        )

    labels = Labels([Label(i, f"bird {i}") for i in range(3)]).to_csv().encode()
    write_bundle(folder, {"model.onnx": graph, "labels.csv": labels}, manifest)
    return folder
