"""Whether memory stays where it is: the GPU's and the process's, over many frames and openings."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from edge_fg.backends.tensorrt.backend import TensorRTBackend
from edge_fg.cuda import Device, DeviceBuffer, Stream
from edge_fg.preprocess import PreprocessSpec, Resize
from edge_fg.preprocess.cuda import CudaPreprocessor
from edge_fg_tools.gpu_check.bundles import find_bundle, options, usable_libraries, why_no_engine
from edge_fg_tools.gpu_check.latency import best_variant
from edge_fg_tools.gpu_check.results import CheckResult, Figure, Settings, not_measured
from edge_fg_tools.gpu_check.timing import free_bytes

GPU_TOLERANCE: Final = 4 << 20
"""Bytes: drivers and allocators take memory in blocks of 2 MiB."""
PROCESS_TOLERANCE: Final = 16 << 20
"""Bytes: allocators of the process keep and split what they once had."""
_WARM_UP_CYCLES: Final = 2
_BATCHES: Final = (1, 1, 3, 8)
_TURNS: Final = 5  # of each batch size, so that it comes often enough to be captured
_ROUND: Final = 3 * _TURNS * len(_BATCHES)  # until three frames begin again at the same place
_FRAMES_OF_A_ROUND: Final = 3 * _TURNS * sum(_BATCHES)


class Memory(NamedTuple):
    """Bytes: what is free on the GPU, and what the process holds."""

    gpu_free: int
    process: int


class Growth(NamedTuple):
    """Bytes more in use after some work than before, on the GPU and in the process."""

    gpu: int
    process: int


Look = Callable[[], Memory]


def check_leaks_preprocessing(settings: Settings) -> CheckResult:
    """Preprocess many frames of changing sizes, and open and close all of it again and again."""
    spec = PreprocessSpec(Resize("squash", (64, 64)))
    random = np.random.default_rng(settings.seed)
    sizes = random.integers(16, 256, (6, 2))
    frames = [random.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in sizes]
    with Device() as device:

        def run(count: int) -> None:
            with (
                Stream(device) as stream,
                DeviceBuffer(device, 4 * int(np.prod(spec.tensor_shape))) as output,
                CudaPreprocessor(device, spec, 1) as gpu,
            ):
                for turn in range(count):
                    gpu([frames[turn % len(frames)]], None, output.pointer, stream)
                stream.synchronize()

        look = _looking(device)
        run(len(frames))
        many = watch(lambda: run(settings.inferences), look)

        def cycle() -> None:
            with Device():
                run(len(frames))

        cycles = watch(lambda: _repeat(cycle, settings.cycles), look)
    return judge(settings, many, cycles)


def check_leaks_engine(settings: Settings) -> CheckResult:
    """Infer many batches of changing sizes, and open and close the backend again and again."""
    bundle = find_bundle(settings)
    libraries = usable_libraries()
    if not libraries or bundle is None:
        return not_measured(
            why_no_engine() if not libraries else "there is no bundle, see `bundle`"
        )
    opened, library, precision = bundle, libraries[0], best_variant(bundle)
    random = np.random.default_rng(settings.seed)
    sizes = ((480, 640), (240, 320), (333, 77))
    frames = [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]

    def run(backend: TensorRTBackend, count: int) -> None:
        # Whole rounds: what is prepared and captured at the end is the same each time.
        for turn in range(_ROUND * -(-count // _FRAMES_OF_A_ROUND)):
            batch = _BATCHES[turn // _TURNS % len(_BATCHES)]
            backend.infer([frames[(turn + i) % len(frames)] for i in range(batch)])

    def open_backend() -> contextlib.closing[TensorRTBackend]:
        backend = TensorRTBackend(opened, precision, library, options=options(settings))
        return contextlib.closing(backend)

    def cycle() -> None:
        with open_backend() as backend:
            run(backend, 1)

    with Device() as device:
        look = _looking(device)
        with open_backend() as backend:
            run(backend, 2 * _FRAMES_OF_A_ROUND)
            many = watch(lambda: run(backend, settings.inferences), look)
        _repeat(cycle, _WARM_UP_CYCLES)
        cycles = watch(lambda: _repeat(cycle, settings.cycles), look)
    return judge(settings, many, cycles)


def watch(work: Callable[[], None], look: Look) -> Growth:
    """Return how much more memory is in use after `work` than before."""
    gc.collect()
    before = look()
    work()
    gc.collect()
    after = look()
    return Growth(before.gpu_free - after.gpu_free, after.process - before.process)


def judge(settings: Settings, many: Growth, cycles: Growth) -> CheckResult:
    """Return the result for the growth over many frames and over openings."""
    figures = []
    failures = []
    for name, growth in (
        (f"{settings.inferences} frames", many),
        (f"{settings.cycles} openings", cycles),
    ):
        for where, grown, tolerance in (
            ("GPU memory", growth.gpu, GPU_TOLERANCE),
            ("process memory", growth.process, PROCESS_TOLERANCE),
        ):
            figures.append(Figure(f"{name}: {where} grew by", round(grown / 1024, 1), "KiB"))
            if grown > tolerance:
                failures.append(f"{where} grew by {grown / (1 << 20):.1f} MiB over {name}")
    if failures:
        text = "; ".join(failures) + " (of the GPU's, other programs take some too)"
        return CheckResult("failed", text, tuple(figures))
    text = f"nothing grew over {settings.inferences} frames and {settings.cycles} openings"
    return CheckResult("passed", text, tuple(figures))


def process_bytes() -> int:
    """Return the memory that this process holds (resident set), in bytes.

    What the C library keeps free for later is given back first, where it can be (glibc).
    """
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def _looking(device: Device) -> Look:
    return lambda: Memory(free_bytes(device), process_bytes())


def _repeat(work: Callable[[], None], times: int) -> None:
    for _ in range(times):
        work()
