"""Whether the GPU's and the process's memory grow over many frames and openings."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_fg.backends.tensorrt.backend import TensorRTBackend
from edge_fg.backends.tensorrt.library import Library
from edge_fg.bundle import Bundle
from edge_fg.cuda import Device, DeviceBuffer, Stream
from edge_fg.preprocess import PreprocessSpec, Resize
from edge_fg.preprocess.cuda import CudaPreprocessor
from edge_fg.telemetry.process import resident_bytes
from edge_fg_tools.gpu_check.bundles import best_variant, options
from edge_fg_tools.gpu_check.findings import Findings

GPU_TOLERANCE: Final = 4 << 20
"""Bytes: drivers and allocators take memory in blocks of 2 MiB."""
PROCESS_TOLERANCE: Final = 16 << 20
"""Bytes: allocators of the process keep and split what they once had."""
_WARM_UP_CYCLES: Final = 2
_BATCHES: Final = (1, 1, 3, 8)
_TURNS: Final = 5  # of each batch size, so that it comes often enough to be captured
_ROUND: Final = 3 * _TURNS * len(_BATCHES)  # until three frames begin again at the same place
_FRAMES_OF_A_ROUND: Final = 3 * _TURNS * sum(_BATCHES)


class Growth(NamedTuple):
    """Bytes more in use than at another time, on the GPU and in the process."""

    gpu: int
    process: int


def test_leaks(found: Findings, device: Device) -> None:
    """Preprocess many frames of changing sizes, and open and close everything again and again."""
    spec = PreprocessSpec(Resize("squash", (64, 64)))
    random = np.random.default_rng(found.settings.seed)
    frames = _frames(random, random.integers(16, 256, (6, 2)))

    def run(count: int) -> None:
        with (
            Stream(device) as stream,
            DeviceBuffer(device, 4 * int(np.prod(spec.tensor_shape))) as output,
            CudaPreprocessor(device, spec, 1) as gpu,
        ):
            for turn in range(count):
                gpu([frames[turn % len(frames)]], None, output.pointer, stream)
            stream.synchronize()

    def cycle() -> None:
        with Device():
            run(len(frames))

    run(len(frames))
    many = watch(device, lambda: run(found.settings.inferences))
    judge(found, many, watch(device, cycle, found.settings.cycles))


def test_leaks_engine(
    found: Findings, libraries: list[Library], bundle: Bundle, device: Device
) -> None:
    """Infer many batches of changing sizes, and open and close the backend again and again."""
    settings = found.settings
    frames = _frames(np.random.default_rng(settings.seed), ((480, 640), (240, 320), (333, 77)))

    def run(backend: TensorRTBackend, count: int) -> None:
        # Whole rounds: what is prepared and captured at the end is the same each time.
        for turn in range(_ROUND * -(-count // _FRAMES_OF_A_ROUND)):
            batch = _BATCHES[turn // _TURNS % len(_BATCHES)]
            backend.infer([frames[(turn + i) % len(frames)] for i in range(batch)])

    def open_backend() -> contextlib.closing[TensorRTBackend]:
        precision = best_variant(bundle)
        return contextlib.closing(
            TensorRTBackend(bundle, precision, libraries[0], options=options(settings))
        )

    def cycle() -> None:
        with open_backend() as backend:
            run(backend, 1)

    with open_backend() as backend:
        run(backend, 2 * _FRAMES_OF_A_ROUND)
        many = watch(device, lambda: run(backend, settings.inferences))
    watch(device, cycle, _WARM_UP_CYCLES)
    judge(found, many, watch(device, cycle, settings.cycles))


def watch(device: Device, work: Callable[[], None], times: int = 1) -> Growth:
    """Return how much more memory is in use after some work than before."""
    before = _held(device)
    for _ in range(times):
        work()
    after = _held(device)
    return Growth(after.gpu - before.gpu, after.process - before.process)


def judge(found: Findings, many: Growth, cycles: Growth) -> None:
    """Note the growth over many frames and over openings; fail where it is too much."""
    frames, openings = f"{found.settings.inferences} frames", f"{found.settings.cycles} openings"
    failures = []
    for name, growth in ((frames, many), (openings, cycles)):
        for where, grown, tolerance in (
            ("GPU memory", growth.gpu, GPU_TOLERANCE),
            ("process memory", growth.process, PROCESS_TOLERANCE),
        ):
            found.figure(f"{name}: {where} grew by", grown / 1024, "KiB", 1)
            if grown > tolerance:
                failures.append(f"{where} grew by {grown / (1 << 20):.1f} MiB over {name}")
    said = "; ".join(failures)
    assert not failures, f"{said} (of the GPU's memory, other programs take some too)"
    found.conclude(f"nothing grew over {frames} and {openings}")


def _held(device: Device) -> Growth:
    """Return what is held now, less what can be given back first."""
    gc.collect()
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # of glibc
    return Growth(-device.free_bytes(), resident_bytes() or 0)


def _frames(random: np.random.Generator, sizes: Iterable[Sequence[int]]) -> list[NDArray[np.uint8]]:
    return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
