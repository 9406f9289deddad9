"""The INT8 methods that `quantization.py` compares, each at its best for TensorRT.

The peers are asked for what TensorRT takes and what serves them best: explicit Q/DQ, symmetric
INT8 for activations and weights, weights per channel, biases and the Softmax left in float.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_fg_calibration import Target, quantize_int8
from edge_fg_calibration.corrections.int8_recipe import Int8Recipe
from edge_fg_calibration.graph.prepare import prepared_copy
from edge_fg_calibration.int8.placement import place
from edge_fg_calibration.int8.ranges import entropy
from edge_fg_calibration.statistics.collection import collect_histograms

if TYPE_CHECKING:
    from quantization_steps import Task

Method = Callable[["Task"], dict[str, Any]]

_MATRIX_OPERATORS = ["Conv", "ConvTranspose", "Gemm", "MatMul"]


def by_name(method: str) -> Method:
    """Return the method of that name, one of `quantization_names.METHODS`."""
    maker, _, how = method.partition(" ")
    if how == "tensorrt, entropy alone":
        return _ours_entropy
    if maker == "edge-fg":
        targets: dict[str, Target] = {"portable": "portable", "tensorrt": "tensorrt"}
        return partial(
            _ours, target=targets[how.split(",")[0]], corrections="no corrections" not in how
        )
    if maker == "onnxruntime":
        return partial(_onnxruntime, calibrator=how.split(",")[0], inputs_only="inputs only" in how)
    return partial(_modelopt, calibrator=how)


def _ours(task: Task, *, target: Target, corrections: bool) -> dict[str, Any]:
    found = quantize_int8(
        task.model.model,
        lambda: task.feed.tensors(task.calibration),
        input_name=task.model.input_name,
        output_name=task.model.output_name,
        kind=task.model.kind,
        target=target,
        corrections=corrections,
        total=len(task.calibration),
    )
    onnx.save(found.model, task.output)
    return {"kept": [one.name for one in found.corrections if one.kept]}


def _ours_entropy(task: Task) -> dict[str, Any]:
    """Do what onnxruntime's Entropy does, and no more: one range method, nothing compared."""
    model = prepared_copy(task.model.model)
    placement = place(model, target="tensorrt")
    histograms = collect_histograms(
        model,
        task.feed.tensors(task.calibration),
        placement.activations,
        input_name=task.model.input_name,
    )
    limits = {name: entropy(one) for name, one in histograms.items()}
    onnx.save(Int8Recipe(model, placement, limits).make(), task.output)
    return {}


def _onnxruntime(task: Task, *, calibrator: str, inputs_only: bool) -> dict[str, Any]:
    from onnxruntime import quantization
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    operators = _MATRIX_OPERATORS
    if not inputs_only:
        operators = sorted({*QDQRegistry, *QLinearOpsRegistry} - {"Softmax"})
    extra: dict[str, Any] = {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,
    }
    if inputs_only:
        extra["OpTypesToExcludeOutputQuantization"] = _MATRIX_OPERATORS
    quantization.quantize_static(
        str(task.path),
        str(task.output),
        _reader(task),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=operators,
        per_channel=True,
        activation_type=quantization.QuantType.QInt8,
        weight_type=quantization.QuantType.QInt8,
        calibrate_method=quantization.CalibrationMethod[calibrator],
        extra_options=extra,
    )
    return {}


def _reader(task: Task) -> Any:
    """Return onnxruntime's reader of calibration data: image by image, read when wanted."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._images = _one_by_one(task)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            image = next(self._images, None)
            return None if image is None else {task.model.input_name: image}

    return Reader()


def _one_by_one(task: Task) -> Iterator[NDArray[Any]]:
    for batch in task.feed.tensors(task.calibration):
        for row in range(len(batch)):
            yield batch[row : row + 1]


def _modelopt(task: Task, *, calibrator: str) -> dict[str, Any]:
    quantization = importlib.import_module("modelopt.onnx.quantization")
    images = np.concatenate(list(_one_by_one(task)))
    # Calibrating one by one it takes a Gemm for a product with a vector and leaves it in float.
    at_once = task.model.batch or next(n for n in (4, 3, 2, 1) if len(images) % n == 0)
    shape = "x".join(str(size) for size in (at_once, *images.shape[1:]))
    with _quiet():
        quantization.quantize(
            str(task.path),
            quantize_mode="int8",
            calibration_data={task.model.input_name: images},
            calibration_method=calibrator,
            calibration_shapes=f"{task.model.input_name}:{shape}",
            calibration_eps=["cpu"],
            high_precision_dtype="fp32",
            output_path=str(task.output),
        )
    return {}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123
        yield
