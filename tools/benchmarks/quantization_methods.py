"""The INT8 methods that `quantization.py` compares, each at its best for TensorRT.

The peers are asked for what TensorRT takes and what serves them best: explicit Q/DQ, symmetric
INT8 for activations and weights, weights per channel, biases and the Softmax left in float.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_fg_calibration import Target, quantize_int8

if TYPE_CHECKING:
    from quantization_steps import Task

Method = Callable[["Task"], dict[str, Any]]

_MATRIX_OPERATORS = ["Conv", "ConvTranspose", "Gemm", "MatMul"]


def by_name(method: str) -> Method:
    """Return the method of that name, one of `quantization_names.METHODS`."""
    maker, _, how = method.partition(" ")
    if maker == "edge-fg":
        targets: dict[str, Target] = {"portable": "portable", "tensorrt": "tensorrt"}
        return partial(_ours, target=targets[how.split(",")[0]], repair="no repairs" not in how)
    if maker == "onnxruntime":
        return partial(_onnxruntime, calibrator=how.split(",")[0], inputs_only="inputs only" in how)
    return partial(_modelopt, calibrator=how)


def _ours(task: Task, *, target: Target, repair: bool) -> dict[str, Any]:
    stages = _Stages()
    found = quantize_int8(
        task.model.model,
        lambda: task.feed.tensors(task.calibration),
        input_name=task.model.input_name,
        output_name=task.model.output_name,
        kind=task.model.kind,
        target=target,
        repair=repair,
        progress=stages,
        total=len(task.calibration),
    )
    onnx.save(found.model, task.output)
    return {
        "statistics_seconds": stages.first("calibrate"),
        "kept": [one.name for one in found.repairs if one.kept],
    }


class _Stages:
    """Takes the time of each stage of a quantisation."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._runs: list[tuple[str, float]] = []
        self._stage = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._begun = now if self._runs else self._begun
            self._stage = stage
        if done >= total:
            self._runs.append((stage, now - self._begun))
            self._stage, self._begun = "", now

    def first(self, stage: str) -> float | None:
        """Return the seconds of the first run of a stage."""
        return next((seconds for name, seconds in self._runs if name == stage), None)


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
    """Return onnxruntime's reader of calibration data: picture by picture, read when wanted."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._pictures = _one_by_one(task)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            picture = next(self._pictures, None)
            return None if picture is None else {task.model.input_name: picture}

    return Reader()


def _one_by_one(task: Task) -> Iterator[NDArray[Any]]:
    for batch in task.feed.tensors(task.calibration):
        for place in range(len(batch)):
            yield batch[place : place + 1]


def _modelopt(task: Task, *, calibrator: str) -> dict[str, Any]:
    quantization = importlib.import_module("modelopt.onnx.quantization")
    pictures = np.concatenate(list(_one_by_one(task)))
    # Calibrating one by one it takes a Gemm for a product with a vector and leaves it in float.
    at_once = task.model.batch or next(n for n in (4, 3, 2, 1) if len(pictures) % n == 0)
    shape = "x".join(str(size) for size in (at_once, *pictures.shape[1:]))
    with _quiet():
        quantization.quantize(
            str(task.path),
            quantize_mode="int8",
            calibration_data={task.model.input_name: pictures},
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
