"""The GPU's own time, the rates at which it copies, and the speed of the CPU."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from edge_fg.cuda import (
    Device,
    DeviceBuffer,
    Event,
    Graph,
    HostBuffer,
    Stream,
    copy_to_device,
    copy_to_host,
    libcuda,
)
from edge_fg.preprocess.cuda import CudaPreprocessor
from edge_fg.preprocess.staging import Transfer
from edge_fg_tools.gpu_check.cases import Case
from edge_fg_tools.gpu_check.settings import Settings

Work = Callable[[], None]
"""Queues something in the stream that is measured."""

_WARM_UP: Final = 5
_COPIES: Final = 10
_FRAMES: Final = 8
_NEXT_TO_NOTHING: Final = 16
_STEPS: Final = 2000
_STEP_ROUNDS: Final = 50


class CopyRates(NamedTuple):
    """What the card reaches."""

    # Bytes a second within its memory: those read and those written both count, as they do for a
    # kernel that reads and writes.
    device: float
    to_device: float  # Bytes a second from page-locked memory; each byte counts once
    to_host: float  # Bytes a second back to it
    # GPU microseconds of a CUDA graph of two copies, one after the other, that move next to
    # nothing: what any graph of two launches takes at least.
    two_copies_us: float

    def pace_us(self, nbytes: int) -> float:
        """Return the microseconds of two launches that move some bytes at the copy rate."""
        return self.two_copies_us + 1e6 * nbytes / self.device


def gpu_times_us(
    stream: Stream, works: Sequence[Work], repeats: int, busy: Work | None = None
) -> list[float]:
    """Return microseconds of GPU time of `repeats` single runs, by events around each.

    The `works` take turns, so that none finds its data in a cache from its last run. `busy` is
    queued before each: while the GPU is still at it, the host queues what is measured, so that
    the time in which the host launches is not measured too.
    """
    times = []
    with Event(stream.device, timing=True) as began, Event(stream.device, timing=True) as ended:
        for turn in range(_WARM_UP + repeats):
            work = works[turn % len(works)]
            if busy is not None:
                busy()
            began.record(stream)
            work()
            ended.record(stream)
            ended.synchronize()
            if turn >= _WARM_UP:
                times.append(1e3 * ended.elapsed_ms_since(began))
    return times


def burst_us(stream: Stream, works: Sequence[Work], count: int) -> float:
    """Return the mean microseconds of `count` runs queued behind one another."""
    with Event(stream.device, timing=True) as began, Event(stream.device, timing=True) as ended:
        began.record(stream)
        for turn in range(count):
            works[turn % len(works)]()
        ended.record(stream)
        ended.synchronize()
        return 1e3 * ended.elapsed_ms_since(began) / count


@contextlib.contextmanager
def keeping_busy(stream: Stream, nbytes: int) -> Iterator[Work]:
    """Yield work for the GPU that takes longer than a launch: a copy of `nbytes` within it."""
    with DeviceBuffer(stream.device, nbytes) as one, DeviceBuffer(stream.device, nbytes) as other:
        yield lambda: copy_within(other.pointer, one.pointer, nbytes, stream)


def measure_copy_rates(device: Device, nbytes: int) -> CopyRates:
    """Copy `nbytes` within the device, to it and back, several times each; the medians count."""
    with contextlib.ExitStack() as held:
        stream = held.enter_context(Stream(device))
        one = held.enter_context(DeviceBuffer(device, nbytes))
        other = held.enter_context(DeviceBuffer(device, nbytes))
        host = held.enter_context(HostBuffer(device, (nbytes,), np.uint8))
        host.array[:] = 1

        def rate(work: Work) -> float:
            median_us = statistics.median(gpu_times_us(stream, [work], _COPIES))
            return nbytes / max(median_us, 1e-3) * 1e6

        to_device = rate(lambda: copy_to_device(one, host.array, stream))
        within = rate(lambda: copy_within(other.pointer, one.pointer, nbytes, stream))
        to_host = rate(lambda: copy_to_host(host.array, other, stream))

        def two_copies() -> None:
            copy_within(other.pointer, one.pointer, _NEXT_TO_NOTHING, stream)
            copy_within(one.pointer, other.pointer, _NEXT_TO_NOTHING, stream)

        graph = held.enter_context(Graph.capture(stream, two_copies))
        busy = functools.partial(copy_within, other.pointer, one.pointer, nbytes, stream)
        shortest = gpu_times_us(stream, [lambda: graph.launch(stream)], _COPIES, busy)
        return CopyRates(2 * within, to_device, to_host, statistics.median(shortest))


class _Steps:
    """The kind of Python that a frame costs the host: a look-up, a count, a small tuple."""

    def __init__(self) -> None:
        self._known = {(1080, 1920): 1}
        self._count = 0

    def step(self, size: tuple[int, int]) -> tuple[int | None, int]:
        self._count += 1
        return self._known.get(size), self._count


def host_step_us() -> float:
    """Return how many microseconds this CPU takes for one step of plain Python, the median."""
    steps = _Steps()
    taken = []
    for _ in range(_STEP_ROUNDS):
        started = time.perf_counter()
        for _ in range(_STEPS):
            steps.step((1080, 1920))
        taken.append(1e6 * (time.perf_counter() - started) / _STEPS)
    return statistics.median(taken)


def measure_upload(
    stream: Stream, case: Case, transfer: Transfer, settings: Settings
) -> tuple[list[float], float]:
    """Measure a captured batch as the backends queue it: the copy, if any, and the kernels.

    Returns the GPU microseconds of each sample, and the median of those that the host took to
    copy the frames into page-locked memory.
    """
    data, repeats = case.data, settings.repeats
    # As a camera's frames do, they come from elsewhere each time.
    turns = [[frame.copy() for frame in data] for _ in range(max(1, _FRAMES // len(data)))]
    with (
        DeviceBuffer(stream.device, case.tensor_bytes) as output,
        CudaPreprocessor(stream.device, case.spec, len(data), transfer=transfer) as gpu,
        gpu.prepare(case.sources, output.pointer, stream) as batch,
        keeping_busy(stream, settings.copy_bytes) as busy,
    ):
        fills = []
        for turn in range(max(3, repeats // 10)):
            started = time.perf_counter()
            batch.fill(turns[turn % len(turns)])
            fills.append(1e6 * (time.perf_counter() - started))
        with Graph.capture(stream, lambda: batch.queue(stream)) as graph:
            times = gpu_times_us(stream, [lambda: graph.launch(stream)], repeats, busy)
    return times, statistics.median(fills)


def copy_within(target: int, source: int, nbytes: int, stream: Stream) -> None:
    """Queue a copy from one address of the device's memory to another."""
    device = stream.device
    copy = _driver("cuMemcpyDtoDAsync_v2", ctypes.c_uint64, ctypes.c_uint64, ctypes.c_size_t)
    with device.use():
        code = copy(target, source, nbytes, ctypes.c_void_p(stream.handle))
        device.check(code, "copy from GPU memory to itself")


def current_context() -> int:
    """Return the address of the calling thread's CUDA context, 0 for none."""
    context = ctypes.c_void_p()
    _driver("cuCtxGetCurrent")(ctypes.c_void_p(ctypes.addressof(context)))
    return context.value or 0


def _driver(name: str, *leading: type[Any]) -> Callable[..., int]:
    """Return a function of the driver whose last argument is a pointer or a handle."""
    found = getattr(libcuda.load(), name)
    found.argtypes = (*leading, ctypes.c_void_p)
    found.restype = ctypes.c_int
    typed: Callable[..., int] = found
    return typed
