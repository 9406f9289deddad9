"""What the child processes of `architectures_int8.py` do with the peers' quantisers.

Each is asked for what TensorRT takes and what serves it best: explicit Q/DQ, symmetric INT8,
weights per channel, biases in float. It imports nothing of edge_fg: nvidia-modelopt may live in an
environment of its own.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MATRIX_OPERATORS = ["Conv", "ConvTranspose", "Gemm", "MatMul"]
_AT_ONCE = 8
Found = dict[str, Any]


def with_onnxruntime(folder: Path, calibrator: str) -> Found:
    """Quantise the inputs of all convolutions and matrix products, their outputs in float."""
    from onnxruntime import quantization

    quantization.quantize_static(
        str(folder / "prepared.onnx"),
        str(folder / "int8.onnx"),
        _reader(_images(folder), _input_name(folder)),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=_MATRIX_OPERATORS,
        per_channel=True,
        activation_type=quantization.QuantType.QInt8,
        weight_type=quantization.QuantType.QInt8,
        calibrate_method=quantization.CalibrationMethod[calibrator],
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": _MATRIX_OPERATORS,
            # Else it keeps all activations of all images until the last one was seen.
            "CalibStridedMinMax": _AT_ONCE,
        },
    )
    return {"onnxruntime": metadata.version("onnxruntime")}


def _reader(images: NDArray[Any], input_name: str) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._next, self._end = 0, len(images)

        def __len__(self) -> int:
            return len(images) // _AT_ONCE * _AT_ONCE

        def set_range(self, start_index: int, end_index: int) -> None:
            self._next, self._end = start_index, end_index

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            if self._next >= self._end:
                return None
            self._next += 1
            return {input_name: np.asarray(images[self._next - 1 : self._next])}

    return Reader()


def with_modelopt(folder: Path, calibrator: str) -> Found:
    """Quantise as nvidia-modelopt places INT8."""
    quantization = importlib.import_module("modelopt.onnx.quantization")
    images = np.array(_images(folder))
    # Calibrating one by one it takes a Gemm for a product with a vector and leaves it in float.
    at_once = next(n for n in (4, 3, 2, 1) if len(images) % n == 0)
    shape = "x".join(str(size) for size in (at_once, *images.shape[1:]))
    quantization.quantize(
        str(folder / "prepared.onnx"),
        quantize_mode="int8",
        calibration_data={_input_name(folder): images},
        calibration_method=calibrator,
        calibration_shapes=f"{_input_name(folder)}:{shape}",
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=str(folder / "int8.onnx"),
    )
    return {
        "nvidia-modelopt": metadata.version("nvidia-modelopt"),
        "onnxruntime with nvidia-modelopt": _first_version("onnxruntime", "onnxruntime-gpu"),
    }


def _first_version(*names: str) -> str:
    installed = {one.metadata["Name"]: one.version for one in metadata.distributions()}
    return next((installed[name] for name in names if name in installed), "unknown")


def _images(folder: Path) -> NDArray[Any]:
    found: NDArray[Any] = np.load(folder / "calibration.npy", mmap_mode="r")
    return found


def _input_name(folder: Path) -> str:
    return str(json.loads((folder / "names.json").read_text(encoding="utf-8"))["input"])


def main() -> int:
    """Quantise by one method and write what was found; return the exit code."""
    folder = Path(sys.argv[2])
    library, calibrator = sys.argv[3].split(" ")
    started = time.monotonic()
    versions = (with_onnxruntime if library == "onnxruntime" else with_modelopt)(folder, calibrator)
    found = {"seconds": round(time.monotonic() - started, 1), "versions": versions}
    (folder / "answer.json").write_text(json.dumps(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
