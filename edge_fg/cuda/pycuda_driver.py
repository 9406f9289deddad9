"""PyCUDA's driver module: the one place that imports it, and what its start can fail with."""

from __future__ import annotations

import contextlib
import ctypes
import threading
import warnings
from typing import Any

from edge_fg.cuda import failures, libcuda
from edge_fg.errors import CudaUnavailableError, import_optional


def load() -> Any:
    """Import and start ``pycuda.driver``; never ``pycuda.autoinit``, which makes a context.

    Raises `MissingDependencyError` without PyCUDA, and `CudaUnavailableError` if there is no usable
    driver or device, or the driver is too old.
    """
    pycuda = import_optional("pycuda", "pycuda", "cuda", "use the GPU")
    try:
        with warnings.catch_warnings():
            # Of an old driver it warns before it fails; the error below says both.
            warnings.simplefilter("ignore", UserWarning)
            import pycuda.driver as cuda
    except ImportError as error:
        raise CudaUnavailableError(_why_not_importable(pycuda.VERSION_TEXT, error)) from error
    try:
        cuda.init()
    except cuda.Error as error:
        raise CudaUnavailableError(_why_not_started(error)) from error
    return cuda


def _why_not_importable(version: str, error: ImportError) -> str:
    text = str(error)
    if "undefined symbol" in text:
        return (
            f"the NVIDIA driver is too old for this PyCUDA {version}, which was built with a newer "
            f"CUDA ({text}): update the driver, or reinstall PyCUDA beside the CUDA toolkit that "
            "the driver is for"
        )
    return f"PyCUDA {version} can't be loaded ({text}): reinstall it on this machine"


def _why_not_started(error: Exception) -> str:
    code = failures.code_of(error)
    if code == libcuda.NO_DEVICE:
        return (
            "there is an NVIDIA driver but no CUDA device: check `nvidia-smi`, "
            "CUDA_VISIBLE_DEVICES and, in a container, that it was started with the GPU"
        )
    if code in libcuda.DRIVER_MISMATCHES:
        return (
            f"the NVIDIA driver is too old, or was updated without a restart ({error}): "
            "update it and restart the machine"
        )
    return f"the NVIDIA driver can't be started ({error}): check `nvidia-smi` and restart"


def open_device(cuda: Any, ordinal: int) -> Any:
    """Return PyCUDA's device of a number, or raise `CudaUnavailableError`."""
    count = cuda.Device.count()
    if count == 0:
        raise CudaUnavailableError(
            "there is an NVIDIA driver but no CUDA device: check CUDA_VISIBLE_DEVICES"
        )
    if not 0 <= ordinal < count:
        raise CudaUnavailableError(
            f"there is no GPU {ordinal}: this machine has {count}, counted from 0"
        )
    return cuda.Device(ordinal)


def release(cuda: Any, context: Any, handle: int) -> None:
    """Release a primary context, and leave the thread's stack of contexts as it was.

    PyCUDA releases only a current context, and releasing a primary context doesn't pop it. A
    second retain keeps the context alive until it is off the stack.
    """
    library = libcuda.load()
    kept, popped = ctypes.c_void_p(), ctypes.c_void_p()
    retained = library.cuDevicePrimaryCtxRetain(ctypes.byref(kept), handle) == 0
    try:
        context.push()
    except cuda.Error:
        _disown(context)
        library.cuDevicePrimaryCtxRelease_v2(handle)
    else:
        context.detach()
        library.cuCtxPopCurrent_v2(ctypes.byref(popped))
    if retained:
        library.cuDevicePrimaryCtxRelease_v2(handle)


def _disown(context: Any) -> None:
    """Make PyCUDA forget a context that can't be made current any more.

    In another thread than the one that made it, ``detach`` only marks it as gone: PyCUDA's
    destructors then don't call the driver and print no complaint.
    """
    forgetting = threading.Thread(target=context.detach)
    # No thread starts while the interpreter ends; then PyCUDA prints its complaint.
    with contextlib.suppress(RuntimeError):
        forgetting.start()
        forgetting.join()
