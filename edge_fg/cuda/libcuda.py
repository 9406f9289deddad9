"""What PyCUDA lacks, or does with hidden state, called in the CUDA driver itself through ctypes.

PyCUDA has no graphs and no stream capture, and its events can't become part of a graph. Its kernel
calls set the block size on the function first (``cuFuncSetBlockShape``, deprecated): two threads
would change it for each other.

Names and signatures are those of ``cuda.h`` of CUDA 11.4 to 13. The header renames functions by
macros, which ctypes doesn't see: what C calls ``cuGraphInstantiate`` since CUDA 12 is the symbol
``cuGraphInstantiateWithFlags`` (since 11.4), while the symbol ``cuGraphInstantiate`` still takes
the five arguments of CUDA 10. Each symbol below has kept one meaning in all of these versions.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, c_char_p, c_float, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from typing import Any, Final

from edge_fg.errors import CudaUnavailableError

LIBRARY: Final = "libcuda.so.1"

NOT_INITIALIZED: Final = 3
NO_DEVICE: Final = 100
NO_BINARY: Final = 209
UNSUPPORTED_PTX: Final = 222
OUT_OF_MEMORY: Final = 2
DRIVER_MISMATCHES: Final = frozenset({36, 803, 804})
"""Statuses that say that the driver is older than what calls it, or only half updated."""

THREAD_LOCAL_CAPTURE: Final = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do meanwhile can't spoil a capture."""

_HANDLE = c_void_p
_SIGNATURES: Final[dict[str, tuple[Any, ...]]] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuDeviceGetCount": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuGetErrorName": (c_int, POINTER(c_char_p)),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
    "cuDevicePrimaryCtxRetain": (POINTER(_HANDLE), c_int),
    "cuDevicePrimaryCtxRelease_v2": (c_int,),
    "cuCtxPushCurrent_v2": (_HANDLE,),
    "cuCtxPopCurrent_v2": (POINTER(_HANDLE),),
    "cuModuleLoadDataEx": (POINTER(_HANDLE), c_void_p, c_uint, POINTER(c_int), POINTER(c_void_p)),
    "cuModuleUnload": (_HANDLE,),
    "cuModuleGetFunction": (POINTER(_HANDLE), _HANDLE, c_char_p),
    "cuFuncSetAttribute": (_HANDLE, c_int, c_int),
    "cuLaunchKernel": (_HANDLE, *(c_uint,) * 7, _HANDLE, POINTER(c_void_p), POINTER(c_void_p)),
    "cuMemcpyHtoDAsync_v2": (c_ulonglong, c_void_p, c_size_t, _HANDLE),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_ulonglong, c_size_t, _HANDLE),
    "cuEventCreate": (POINTER(_HANDLE), c_uint),
    "cuEventDestroy_v2": (_HANDLE,),
    "cuEventElapsedTime": (POINTER(c_float), _HANDLE, _HANDLE),
    "cuEventRecord": (_HANDLE, _HANDLE),
    "cuEventRecordWithFlags": (_HANDLE, _HANDLE, c_uint),
    "cuEventSynchronize": (_HANDLE,),
    "cuStreamWaitEvent": (_HANDLE, _HANDLE, c_uint),
    "cuStreamBeginCapture_v2": (_HANDLE, c_int),
    "cuStreamEndCapture": (_HANDLE, POINTER(_HANDLE)),
    "cuGraphInstantiateWithFlags": (POINTER(_HANDLE), _HANDLE, c_ulonglong),
    "cuGraphLaunch": (_HANDLE, _HANDLE),
    "cuGraphExecDestroy": (_HANDLE,),
    "cuGraphDestroy": (_HANDLE,),
}


@functools.lru_cache(maxsize=1)
def load() -> ctypes.CDLL:
    """Return the driver's library with every function that edge_fg calls typed.

    Raises `CudaUnavailableError` if there is no driver, or one older than CUDA 11.4.
    """
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise CudaUnavailableError(
            f"there is no NVIDIA driver ({LIBRARY} can't be loaded): install it, or choose the "
            "CPU with `--backend onnxruntime`"
        ) from error
    for name, arguments in _SIGNATURES.items():
        try:
            function = getattr(library, name)
        except AttributeError as error:
            raise CudaUnavailableError(
                f"the NVIDIA driver is too old: it lacks {name}; edge_fg needs one of CUDA 11.4 "
                "or newer"
            ) from error
        function.argtypes = arguments
        function.restype = c_int
    return library


def error_name(code: int) -> str:
    """Return the driver's name of an error, such as ``CUDA_ERROR_INVALID_VALUE``."""
    return _text("cuGetErrorName", code) or f"CUDA error {code}"


def error_text(code: int) -> str:
    """Return the driver's sentence about an error, "" where it has none."""
    return _text("cuGetErrorString", code)


def _text(function: str, code: int) -> str:
    text = c_char_p()
    if getattr(load(), function)(code, ctypes.byref(text)) != 0 or text.value is None:
        return ""
    return text.value.decode(errors="replace")
