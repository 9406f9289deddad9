"""Count the kernels that TensorRT-RTX makes of an ONNX file, and what they read and write.

    python tools/benchmarks/rtx_kernels.py MODEL.onnx

It builds a plan for a batch of one, without a GPU, and reads the build log. It runs in a process of
its own, as the library keeps the first logger that it is given.
"""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Any

from common import print_answer

_BYTES = {"Half": 2, "BFloat16": 2, "Int8": 1, "UInt8": 1, "Bool": 1, "FP8": 1, "Int64": 8}
_TENSOR = re.compile(r"\{ Name: \S*, Dimensions: \[([\d,]*)\].*?Datatype: (\w+)")
_SIDE = r"{}: \[( \{{.*?\}}|)\], "
_NOT_KERNELS = frozenset({"signal", "wait"})  # they order streams


def count(log: str) -> dict[str, int]:
    """Return the number of kernels in a build log, and the bytes of activations and constants."""
    found = {"kernels": 0, "bytes_read": 0, "bytes_written": 0, "weight_bytes": 0}
    sides = {"Inputs": "bytes_read", "Outputs": "bytes_written", "Constants": "weight_bytes"}
    for line in log.partition("I/O Tensors:")[0].splitlines():
        kind = re.match(r"Name: .*?, LayerType: (\w+),", line)
        if kind is None or kind.group(1) in _NOT_KERNELS:
            continue
        found["kernels"] += 1
        for side, name in sides.items():
            listed = re.search(_SIDE.format(side), line)
            found[name] += _bytes(listed.group(1)) if listed else 0
    return found


def _bytes(listed: str) -> int:
    return sum(
        math.prod(int(dim) for dim in dims.split(",") if dim) * _BYTES.get(kind, 4)
        for dims, kind in _TENSOR.findall(listed)
    )


def build_log(model: bytes) -> str:
    """Return what TensorRT-RTX's build log lists of the engine."""
    import tensorrt_rtx as trt

    kept: list[str] = []

    class Logger(trt.ILogger):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if message.startswith("Layers:"):
                kept.append(message)
            elif int(severity) <= 1:
                print(message, file=sys.stderr)

    logger = Logger()
    builder = trt.Builder(logger)
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        raise SystemExit(f"TensorRT-RTX can't read the model: {parser.get_error(0).desc()}")
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    profile = builder.create_optimization_profile()
    for tensor in (network.get_input(i) for i in range(network.num_inputs)):
        profile.set_shape(tensor.name, *[[max(1, dim) for dim in tensor.shape]] * 3)
    config.add_optimization_profile(profile)
    if builder.build_serialized_network(network, config) is None or not kept:
        raise SystemExit("TensorRT-RTX built no plan")
    return kept[-1]


if __name__ == "__main__":
    print_answer(count(build_log(Path(sys.argv[1]).read_bytes())))
