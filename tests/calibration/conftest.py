"""Tiny hand-made networks and images for the calibration tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

MakeModel = Callable[..., onnx.ModelProto]


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    """Build a model from (operator, inputs, output, attributes) rows and named arrays."""

    def make(
        rows: Sequence[tuple[str, str, str] | tuple[str, str, str, dict[str, Any]]],
        arrays: Mapping[str, np.ndarray],
        *,
        inputs: Mapping[str, Sequence[Any]],
        outputs: Mapping[str, Sequence[Any]],
        opset: int = 17,
    ) -> onnx.ModelProto:
        nodes = []
        for row in rows:
            attributes = row[3] if len(row) == 4 else {}
            name = attributes.pop("name", row[2])
            nodes.append(
                helper.make_node(row[0], row[1].split(), row[2].split(), name=name, **attributes)
            )
        values = [
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in one.items()]
            for one in (inputs, outputs)
        ]
        stored = [numpy_helper.from_array(np.asarray(a), n) for n, a in arrays.items()]
        graph = helper.make_graph(nodes, "tiny", values[0], values[1], stored)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        model.ir_version = 8
        onnx.checker.check_model(model, full_check=True)
        return model

    return make


@pytest.fixture(scope="session")
def residual_net(make_model: MakeModel) -> onnx.ModelProto:
    """A small classifier: stem, depthwise, residual block, head; 10 logits -> probabilities."""
    random = np.random.default_rng(7)

    def weight(*shape: int) -> np.ndarray:
        fan = np.prod(shape[1:])
        return (random.normal(size=shape) * np.sqrt(2 / fan)).astype(np.float32)

    pads = {"pads": [1, 1, 1, 1]}
    return make_model(
        [
            ("Conv", "input stem.w stem.b", "stem", dict(pads)),
            ("Relu", "stem", "a"),
            ("Conv", "a dw.w dw.b", "dw", {**pads, "group": 16}),
            ("Relu", "dw", "b"),
            ("Conv", "b pw.w", "pw"),
            ("Add", "a pw", "sum"),
            ("Relu", "sum", "c"),
            ("GlobalAveragePool", "c", "pool"),
            ("Flatten", "pool", "flat"),
            ("Gemm", "flat fc.w fc.b", "logits", {"transB": 1}),
            ("Softmax", "logits", "probs", {"axis": 1}),
        ],
        {
            "stem.w": weight(16, 3, 3, 3),
            "stem.b": weight(16, 1)[:, 0],
            "dw.w": weight(16, 1, 3, 3),
            "dw.b": weight(16, 1)[:, 0],
            "pw.w": weight(16, 16, 1, 1),
            "fc.w": weight(20, 16),
            "fc.b": weight(20, 1)[:, 0],
        },
        inputs={"input": ["N", 3, 12, 12]},
        outputs={"probs": ["N", 20]},
    )


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """Twenty smooth coloured network inputs, 20 x 3 x 12 x 12 float32 around -1..1."""
    random = np.random.default_rng(3)
    coarse = random.uniform(-1, 1, (20, 3, 4, 4)).astype(np.float32)
    return np.ascontiguousarray(coarse.repeat(3, axis=2).repeat(3, axis=3))
