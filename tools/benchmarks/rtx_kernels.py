"""Count the kernels that TensorRT-RTX makes of an ONNX file, and what they read and write.

    python tools/benchmarks/rtx_kernels.py MODEL.onnx

It builds a plan for a batch of one, without a GPU, and reads what the build says of it.
"""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

from common import print_answer

from edge_fg.backends.tensorrt.build import build_plan

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


if __name__ == "__main__":
    plan = build_plan(Path(sys.argv[1]).read_bytes(), library="tensorrt-rtx", batch=(1, 1, 1))
    print_answer(count(plan.kernels))
