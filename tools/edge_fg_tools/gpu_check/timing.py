"""The GPU's own time, and the rates at which it copies."""

from __future__ import annotations

import contextlib
import ctypes
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from edge_fg.cuda import (
    Device,
    DeviceBuffer,
    Event,
    HostBuffer,
    Stream,
    copy_to_device,
    copy_to_host,
    libcuda,
)

Work = Callable[[], None]
"""Queues something in the stream that is measured."""

_WARM_UP: Final = 5
_COPIES: Final = 10


class CopyRates(NamedTuple):
    """What the card reaches, in bytes a second.

    ``device`` counts the bytes read and those written, as a kernel that reads and writes does;
    the other two count each byte once.
    """

    device: float
    to_device: float
    to_host: float


def gpu_times_us(
    device: Device, stream: Stream, works: Sequence[Work], repeats: int, busy: Work | None = None
) -> list[float]:
    """Return microseconds of GPU time of single runs, by events around each.

    Parameters
    ----------
    device, stream
        Where `works` queue.
    works
        They take turns, so that none finds its data in a cache from its last run.
    repeats
        Runs that count; a few more warm up.
    busy
        Queued before each, so that the GPU is still at it while the host queues what is
        measured: otherwise the time in which the host launches is measured too.
    """
    times = []
    with Event(device, timing=True) as began, Event(device, timing=True) as ended:
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


def burst_us(device: Device, stream: Stream, works: Sequence[Work], count: int) -> float:
    """Return the mean microseconds of `count` runs queued behind one another."""
    with Event(device, timing=True) as began, Event(device, timing=True) as ended:
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
        yield lambda: copy_within(other, one, nbytes, stream)


def measure_copy_rates(device: Device, nbytes: int) -> CopyRates:
    """Copy `nbytes` within the device, to it and back, several times each; the medians count.

    Raises
    ------
    CudaError
        The GPU refused, or has less memory.
    """
    with contextlib.ExitStack() as held:
        stream = held.enter_context(Stream(device))
        one = held.enter_context(DeviceBuffer(device, nbytes))
        other = held.enter_context(DeviceBuffer(device, nbytes))
        host = held.enter_context(HostBuffer(device, (nbytes,), np.uint8))
        host.array[:] = 1

        def rate(work: Work) -> float:
            median_us = statistics.median(gpu_times_us(device, stream, [work], _COPIES))
            return nbytes / max(median_us, 1e-3) * 1e6

        to_device = rate(lambda: copy_to_device(one, host.array, stream))
        within = rate(lambda: copy_within(other, one, nbytes, stream))
        to_host = rate(lambda: copy_to_host(host.array, other, stream))
        return CopyRates(2 * within, to_device, to_host)


def copy_within(target: DeviceBuffer, source: DeviceBuffer, nbytes: int, stream: Stream) -> None:
    """Queue a copy from one place on the device to another."""
    device = stream.device
    copy = _driver("cuMemcpyDtoDAsync_v2", ctypes.c_uint64, ctypes.c_uint64, ctypes.c_size_t)
    with device.use():
        handle = ctypes.c_void_p(stream.handle)
        device.check(
            copy(target.pointer, source.pointer, nbytes, handle), "copy from GPU memory to itself"
        )


def free_bytes(device: Device) -> int:
    """Return how much of the device's memory nobody uses."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    ask = _driver("cuMemGetInfo_v2", ctypes.c_void_p)
    with device.use():
        code = ask(ctypes.addressof(free), ctypes.c_void_p(ctypes.addressof(total)))
        device.check(code, "ask how much GPU memory is free")
    return free.value


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
