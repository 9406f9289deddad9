"""What the CUDA driver says of this machine, asked without loading any CUDA package."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

_LIBRARY = "libcuda.so.1"
_NAME_BYTES = 256
# CUdevice_attribute of the driver API.
_CAPABILITY_MAJOR = 75
_CAPABILITY_MINOR = 76


@dataclass(frozen=True)
class Gpu:
    """One CUDA device: its name and compute capability, such as "8.7"."""

    name: str
    compute_capability: str


def find_gpus() -> tuple[list[Gpu], str]:
    """Return the CUDA devices and, where there are none, one sentence why.

    Creates no context and leaves nothing allocated.
    """
    try:
        driver = ctypes.CDLL(_LIBRARY)
    except OSError:
        return [], f"no NVIDIA driver ({_LIBRARY} is not there)"
    status = driver.cuInit(0)
    if status != 0:
        return [], f"the NVIDIA driver found no usable device (cuInit gave error {status})"
    count = ctypes.c_int()
    status = driver.cuDeviceGetCount(ctypes.byref(count))
    if status != 0 or count.value == 0:
        return [], "the NVIDIA driver is there but no CUDA device is"
    return [_describe(driver, ordinal) for ordinal in range(count.value)], ""


def _describe(driver: ctypes.CDLL, ordinal: int) -> Gpu:
    device = ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(device), ordinal)
    name = ctypes.create_string_buffer(_NAME_BYTES)
    driver.cuDeviceGetName(name, _NAME_BYTES, device)
    numbers = []
    for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR):
        value = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        numbers.append(str(value.value))
    return Gpu(name.value.decode(errors="replace"), ".".join(numbers))
