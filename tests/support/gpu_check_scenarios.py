"""Checks of gpu_check in one process under the software CUDA driver; prints what they found.

``python scenarios.py NAME [ARGUMENT ...]``; those of engines need the stand-in of TensorRT.
"""

from __future__ import annotations

import ctypes
import json
import sys

import msgspec

from edge_fg.cuda import Device, DeviceBuffer
from edge_fg_tools.gpu_check import leaks, timing
from edge_fg_tools.gpu_check.checks import run_check
from edge_fg_tools.gpu_check.results import Settings


def engine_checks(bundle: str, images: str, work: str, *names: str) -> dict[str, object]:
    """What the checks of engines find, with ONNX Runtime behind TensorRT's interface."""
    import end_to_end
    import tensorrt

    settings = Settings(
        work=work,
        bundle=bundle,
        images=images,
        repeats=4,
        inferences=60,
        cycles=2,
        copy_mib=1,
        untimed="a stand-in",
    )
    found = {name: msgspec.to_builtins(run_check(name, settings)) for name in names}
    return {**found, "left": end_to_end.left(), "violations": tensorrt.violations}


def refused(bundle: str, images: str, work: str) -> dict[str, object]:
    """The library builds no plan."""
    import tensorrt

    tensorrt.faults.builder_fails = True
    return engine_checks(bundle, images, work, "fidelity")


def folding(bundle: str, images: str, work: str, *names: str) -> dict[str, object]:
    """The engine answers something else than the model: sums, computed without Python.

    The driver waits for the stand-in's Python while it holds its own lock, which another thread
    may wait for with Python's lock held: where there are threads, the engine must be this one.
    """
    import end_to_end
    import tensorrt

    def fold(self, stream: int) -> bool:
        return end_to_end.QUEUE.fold(self, stream)

    tensorrt.IExecutionContext.execute_async_v3 = fold
    return engine_checks(bundle, images, work, *names)


def leaking(mebibytes: str) -> dict[str, object]:
    """GPU memory that nobody gives back."""
    held = []
    with Device() as device:

        def look() -> leaks.Memory:
            return leaks.Memory(timing.free_bytes(device), leaks.process_bytes())

        def leak() -> None:
            held.append(DeviceBuffer(device, int(mebibytes) << 20))

        nothing = leaks.watch(lambda: None, look)
        growth = leaks.watch(leak, look)
        found = leaks.judge(Settings(work="", inferences=7, cycles=3), growth, nothing)
        for buffer in held:
            buffer.close()
    return msgspec.to_builtins(found)


def failing(code: str) -> dict[str, object]:
    """The driver refuses a launch in the middle of a check."""
    ctypes.CDLL("libcuda.so.1").software_cuda_fail(
        b"cuLaunchKernel", ctypes.c_long(5), int(code), 0
    )
    return msgspec.to_builtins(run_check("kernels", Settings(work="", cases=5)))


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
