"""The quantisers of onnxruntime and nvidia-modelopt, as the benchmarks ask them.

Each is asked for what TensorRT takes and what serves it best: explicit Q/DQ, symmetric INT8,
weights per channel, biases and the Softmax in float. It imports nothing of edge_fg: nvidia-modelopt
may live in an environment of its own. As a program it is a step of `architectures_int8.py`::

    python tools/benchmarks/peer_quantizers.py quantise FOLDER METHOD
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from common import Row, read_json, run_step
from numpy.typing import NDArray

_MATRIX_OPERATORS = ["Conv", "ConvTranspose", "Gemm", "MatMul"]
_AT_ONCE = 8


def with_onnxruntime(
    model: Path, output: Path, reader: Any, calibrator: str, *, inputs_only: bool, at_once: int = 0
) -> None:
    """Quantise with onnxruntime, by its `calibrator` (its name for a way to choose ranges).

    With `inputs_only` the inputs of convolutions and matrix products are quantised, and their
    outputs stay in float; else all operators that it can quantise are. After `at_once` images it
    reduces what it keeps; 0 keeps all activations to the end.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    extra: Row = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
    operators = sorted({*QDQRegistry, *QLinearOpsRegistry} - {"Softmax"})
    if inputs_only:
        operators = _MATRIX_OPERATORS
        extra["OpTypesToExcludeOutputQuantization"] = _MATRIX_OPERATORS
    if at_once:
        extra["CalibStridedMinMax"] = at_once
    quantization.quantize_static(
        str(model),
        str(output),
        reader,
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=operators,
        per_channel=True,
        activation_type=quantization.QuantType.QInt8,
        weight_type=quantization.QuantType.QInt8,
        calibrate_method=quantization.CalibrationMethod[calibrator],
        extra_options=extra,
    )


def reader_of(images: Iterable[NDArray[Any]], input_name: str) -> Any:
    """Return onnxruntime's reader of calibration data, each image read when it is wanted.

    Of an array it can give a range of images, as reducing after some of them needs.
    """
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._images = iter(images)

        def __len__(self) -> int:
            assert isinstance(images, np.ndarray)
            return len(images) // _AT_ONCE * _AT_ONCE

        def set_range(self, start_index: int, end_index: int) -> None:
            assert isinstance(images, np.ndarray)
            self._images = iter(images[start_index:end_index])

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            image = next(self._images, None)
            return None if image is None else {input_name: np.asarray(image)}

    return Reader()


def with_modelopt(
    model: Path,
    output: Path,
    images: NDArray[Any],
    input_name: str,
    calibrator: str,
    *,
    batch: int | None = None,
) -> None:
    """Quantise as nvidia-modelopt places INT8; `batch` is the model's, where it is fixed."""
    quantization = importlib.import_module("modelopt.onnx.quantization")
    # Calibrating one by one it takes a Gemm for a product with a vector and leaves it in float.
    at_once = batch or next(n for n in (4, 3, 2, 1) if len(images) % n == 0)
    shape = "x".join(str(size) for size in (at_once, *images.shape[1:]))
    quantization.quantize(
        str(model),
        quantize_mode="int8",
        calibration_data={input_name: images},
        calibration_method=calibrator,
        calibration_shapes=f"{input_name}:{shape}",
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=str(output),
    )


def quantise(folder: Path, method: str) -> Row:
    """Quantise the prepared graph of a folder by one method, such as "modelopt max"."""
    library, calibrator = method.split(" ")
    input_name = read_json(folder / "names.json")["input"]
    images = np.load(folder / "calibration.npy", mmap_mode="r")
    graphs = folder / "prepared.onnx", folder / "int8.onnx"
    started = time.monotonic()
    if library == "onnxruntime":
        reader = reader_of(images[:, None], input_name)
        with_onnxruntime(*graphs, reader, calibrator, inputs_only=True, at_once=_AT_ONCE)
        versions = {"onnxruntime": metadata.version("onnxruntime")}
    else:
        with_modelopt(*graphs, np.array(images), input_name, calibrator)
        versions = {
            "nvidia-modelopt": metadata.version("nvidia-modelopt"),
            "onnxruntime with nvidia-modelopt": _first_version("onnxruntime", "onnxruntime-gpu"),
        }
    return {"seconds": round(time.monotonic() - started, 1), "versions": versions}


def _first_version(*names: str) -> str:
    installed = {one.metadata["Name"]: one.version for one in metadata.distributions()}
    return next((installed[name] for name in names if name in installed), "unknown")


if __name__ == "__main__":
    run_step({"quantise": quantise})
