"""Checks of gpu_check in one process under the software CUDA driver; prints what they found.

``python scenarios.py NAME [ARGUMENT ...]``; those of engines need the stand-in of TensorRT.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from edge_fg.cuda import Device, DeviceBuffer, Graph, Stream
from edge_fg.errors import CudaError
from edge_fg_tools.gpu_check import runner, stand_in
from edge_fg_tools.gpu_check.checks import test_leaks as leaks
from edge_fg_tools.gpu_check.findings import Entry, Findings
from edge_fg_tools.gpu_check.settings import Settings


def run_here(checks: Iterable[str], settings: Settings) -> list[Entry]:
    """Run checks in this process, whose stand-ins they meet; pytest writes to stderr."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        answer = Path(folder, "entries")
        pytest.main(runner.arguments(list(checks), settings, answer))
        return runner.read_entries(answer)


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
    found = {entry.check: msgspec.to_builtins(entry) for entry in run_here(names, settings)}
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
    entry = Entry("leaks", "", "passed")
    settings = Settings(work="", inferences=7, cycles=3)
    with Device() as device:

        def leak() -> None:
            held.append(DeviceBuffer(device, int(mebibytes) << 20))

        nothing = leaks.watch(device, lambda: None)
        growth = leaks.watch(device, leak)
        try:
            leaks.judge(Findings(entry, settings), growth, nothing)
        except AssertionError as error:
            entry.verdict, entry.summary = "failed", str(error)
        for buffer in held:
            buffer.close()
    return msgspec.to_builtins(entry)


def slots(settings: Settings) -> dict[str, object]:
    (entry,) = run_here(["slots"], settings)
    return msgspec.to_builtins(entry)


def slots_that_mix_frames() -> dict[str, object]:
    """The engine's output lacks the last byte of the batch, as if another slot had written it."""
    copy = stand_in.copy_within

    def copy_less(target: int, source: int, nbytes: int, stream: Stream) -> None:
        copy(target, source, nbytes - 1, stream)

    stand_in.copy_within = copy_less
    return slots(Settings(work="", inferences=60))


def slots_without_graphs() -> dict[str, object]:
    """The driver can't capture."""

    def capture(*_: object) -> Graph:
        raise CudaError("it can't capture")

    Graph.capture = capture
    return slots(Settings(work="", inferences=60))


def failing(code: str) -> dict[str, object]:
    """The driver refuses a launch in the middle of a check."""
    ctypes.CDLL("libcuda.so.1").software_cuda_fail(
        b"cuLaunchKernel", ctypes.c_long(5), int(code), 0
    )
    (entry,) = run_here(["kernels"], Settings(work="", cases=5))
    return msgspec.to_builtins(entry)


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
