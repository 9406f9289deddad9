"""Small graphs written as text, and ONNX Runtime as anybody would use it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper, parser

IMAGE = "float[N,3,8,8] image"
LOGITS = "float[N,5] logits"
# Convolution, pooling and a dense layer: a classifier from `image` to `features` or `logits`.
FEATURES = "c = Conv<pads=[1,1,1,1]>(image, w) r = Relu(c) p = GlobalAveragePool(r)"
HEAD = f"{FEATURES} features = Flatten(p) logits = Gemm(features, d)"


def weights() -> dict[str, NDArray[Any]]:
    generator = np.random.default_rng(1)
    return {
        "w": generator.standard_normal((4, 3, 3, 3), dtype=np.float32),
        "d": generator.standard_normal((4, 5), dtype=np.float32),
    }


def net(
    body: str,
    inputs: str = IMAGE,
    outputs: str = LOGITS,
    opset: int = 17,
    ir_version: int = 8,
    domain: str = "",
    **more: NDArray[Any],
) -> onnx.ModelProto:
    extra = f', "{domain}" : 1' if domain else ""
    model = parser.parse_model(
        f'<ir_version: {ir_version}, opset_import: ["" : {opset}{extra}]> '
        f"g ({inputs}) => ({outputs}) {{ {body} }}"
    )
    for node in model.graph.node:
        # The parser's own names would hide that we give some.
        node.name = ""
    for name, value in {**weights(), **more}.items():
        if f"{name}," in body or f"{name})" in body or f", {name}" in body:
            model.graph.initializer.append(numpy_helper.from_array(value, name))
    return model


def run(model: onnx.ModelProto, images: NDArray[Any]) -> NDArray[Any]:
    """The oracle: ONNX Runtime as anybody would use it."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    result: NDArray[Any] = session.run(None, {session.get_inputs()[0].name: images})[0]
    return result


def random_images(count: int, *shape: int) -> NDArray[Any]:
    shape = shape or (3, 8, 8)
    return np.random.default_rng(2).standard_normal((count, *shape), dtype=np.float32)


def ops(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)
