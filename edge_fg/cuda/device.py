"""The GPUs of this machine, without any CUDA package."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from dataclasses import dataclass

from edge_fg.cuda import failures, libcuda

_NAME_BYTES = 256
# CUdevice_attribute of the driver API.
_MULTIPROCESSORS = 16
_INTEGRATED = 18
_CAPABILITY_MAJOR = 75
_CAPABILITY_MINOR = 76


@dataclass(frozen=True)
class Gpu:
    """One CUDA device."""

    name: str  # Its product name; all of a family may have one, such as "Orin"
    compute_capability: str  # Such as "8.7"
    multiprocessors: int  # Those that the power mode leaves on
    total_bytes: int  # Its memory; of an integrated device, the machine's
    integrated: bool  # Whether it shares the CPU's memory, as on a Jetson


def find_gpus() -> tuple[list[Gpu], str]:
    """Return the CUDA devices and, where there are none, one sentence why.

    Creates no context and leaves nothing allocated.
    """
    try:
        driver = ctypes.CDLL(libcuda.LIBRARY)
    except OSError:
        return [], f"no NVIDIA driver ({libcuda.LIBRARY} is not there)"
    status = driver.cuInit(0)
    if status != 0:
        return [], f"the NVIDIA driver found no usable device (cuInit gave error {status})"
    count = ctypes.c_int()
    status = driver.cuDeviceGetCount(ctypes.byref(count))
    if status != 0 or count.value == 0:
        return [], "the NVIDIA driver is there but no CUDA device is"
    return [_describe(driver, ordinal) for ordinal in range(count.value)], ""


@contextlib.contextmanager
def current_gpu(ordinal: int) -> Iterator[None]:
    """Make a GPU current in this thread, for a library that uses the current one.

    Its primary context is retained meanwhile, as `edge_fg.cuda.Device` does it with PyCUDA. Raises
    `CudaUnavailableError` if there is no driver or it is too old, and `CudaError` if there is no
    such GPU or it can't be used.
    """
    library = libcuda.load()
    device, context = ctypes.c_int(), ctypes.c_void_p()
    action = f"use GPU {ordinal}"
    failures.check(library.cuInit(0), action)
    failures.check(library.cuDeviceGet(ctypes.byref(device), ordinal), action)
    failures.check(library.cuDevicePrimaryCtxRetain(ctypes.byref(context), device), action)
    try:
        failures.check(library.cuCtxPushCurrent_v2(context), action)
        try:
            yield
        finally:
            failures.check(library.cuCtxPopCurrent_v2(ctypes.byref(context)), action)
    finally:
        library.cuDevicePrimaryCtxRelease_v2(device)


def _describe(driver: ctypes.CDLL, ordinal: int) -> Gpu:
    device = ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(device), ordinal)
    name = ctypes.create_string_buffer(_NAME_BYTES)
    driver.cuDeviceGetName(name, _NAME_BYTES, device)
    total = ctypes.c_size_t()
    driver.cuDeviceTotalMem_v2(ctypes.byref(total), device)

    def attribute(number: int) -> int:
        value = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(value), number, device)
        return value.value

    return Gpu(
        name=name.value.decode(errors="replace"),
        compute_capability=f"{attribute(_CAPABILITY_MAJOR)}.{attribute(_CAPABILITY_MINOR)}",
        multiprocessors=attribute(_MULTIPROCESSORS),
        total_bytes=total.value,
        integrated=bool(attribute(_INTEGRATED)),
    )
