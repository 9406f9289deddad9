"""CUDA's failures as edge_fg's errors: what failed, why, and what to do, in one line."""

from __future__ import annotations

import functools
from typing import Final

from edge_fg.cuda import libcuda
from edge_fg.errors import CudaError, DeviceLostError, DeviceMemoryError

# After these the context stays broken: the driver answers every later call with the same
# error until the process ends. Source: the CUDA driver API's reference, enum CUresult.
_LOST: Final = {
    46: "device unavailable",
    214: "ECC uncorrectable",
    220: "NVLink uncorrectable",
    226: "contained",
    700: "illegal address",
    702: "launch timeout",
    709: "context destroyed",
    710: "assert",
    714: "hardware stack",
    715: "illegal instruction",
    716: "misaligned address",
    717: "invalid address space",
    718: "invalid PC",
    719: "launch failed",
    721: "tensor memory leak",
    911: "external device",
    999: "unknown",
}
_HIGHEST_CODE: Final = 1000


def failure(code: int, action: str) -> CudaError:
    """Return the error to raise for a driver's status (``CUresult``) other than success.

    `action` is what was tried, to be read after "to", such as "launch the kernel `resize`".
    """
    why = f"{libcuda.error_name(code)}: {libcuda.error_text(code)}".removesuffix(": ")
    if code == libcuda.OUT_OF_MEMORY:
        return DeviceMemoryError(
            f"out of GPU memory on trying to {action} ({why}): close other programs that use the "
            "GPU, or use a smaller batch"
        )
    if code in _LOST:
        return DeviceLostError(
            f"the GPU failed on trying to {action} ({why}): this process can't use it any more "
            "and must restart"
        )
    if code == libcuda.NOT_INITIALIZED:
        return CudaError(
            f"can't {action} ({why}): CUDA doesn't survive a fork; start processes with `spawn`"
        )
    return CudaError(f"can't {action}: {why}")


def check(code: int, action: str) -> None:
    """Raise `failure` unless `code` is success."""
    if code != 0:
        raise failure(code, action)


def translate(error: Exception, action: str) -> CudaError:
    """Return the error to raise for one of PyCUDA's."""
    code = code_of(error)
    return failure(code, action) if code else CudaError(f"can't {action}: {error}")


def code_of(error: Exception) -> int:
    """Return the status in an error of PyCUDA's, which carries it only as text; 0 if unknown."""
    _, _, said = str(error).partition(" failed: ")
    return _codes_by_text().get(said.partition(" - ")[0], 0)


@functools.lru_cache(maxsize=1)
def _codes_by_text() -> dict[str, int]:
    texts = ((libcuda.error_text(code), code) for code in range(1, _HIGHEST_CODE))
    return {text: code for text, code in texts if text and text != "unrecognized error code"}


def closed(what: str) -> CudaError:
    """Return the error for the use of something after its ``close()``."""
    return CudaError(f"the {what} is closed: make a new one")
