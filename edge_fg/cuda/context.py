"""The device and its primary context: the one that every library in the process shares."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import threading
import warnings
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from edge_fg.cuda import failures, libcuda
from edge_fg.cuda.resource import Resource
from edge_fg.errors import CudaError, CudaUnavailableError, DeviceLostError, MissingDependencyError

_INTEGRATED: Final = 18
_SHARED_PER_BLOCK_OPTIN: Final = 97


class Device:
    """One CUDA device, through its primary context.

    The context is retained here and pushed around each use, never made: PyTorch, OpenCV and
    TensorRT in the same process work in the same one. Any number of threads may use a device;
    `close` it when none of them does any more.

    Parameters
    ----------
    ordinal
        Which of the devices that ``CUDA_VISIBLE_DEVICES`` leaves visible, from 0.

    Raises
    ------
    MissingDependencyError
        PyCUDA is not installed.
    CudaUnavailableError
        There is no driver, no such device, or the driver is too old.
    """

    def __init__(self, ordinal: int = 0) -> None:
        libcuda.load()
        self._cuda = _load_pycuda()
        self.ordinal = ordinal
        self.lost = False
        """Whether it failed in this process: only a new process can use it again."""
        self._device = _open(self._cuda, ordinal)
        handle = ctypes.c_int()
        code = libcuda.load().cuDeviceGet(ctypes.byref(handle), ordinal)
        self.check(code, f"open GPU {ordinal}")
        self._handle = handle.value
        self.name: str = self._device.name()
        """Its maker's name for it, such as "Orin"."""
        self.compute_capability = ".".join(str(n) for n in self._device.compute_capability())
        """Such as "8.7"."""
        self.driver_version: int = self._cuda.get_driver_version()
        """CUDA version of the driver, such as 12060 for 12.6."""
        self.total_bytes: int = self._device.total_memory()
        """Memory that it has; on an integrated device, the machine's."""
        self.integrated = bool(self.attribute(_INTEGRATED))
        """Whether it shares the CPU's memory, as on a Jetson."""
        self.max_shared_bytes = self.attribute(_SHARED_PER_BLOCK_OPTIN)
        """Most shared memory that a block of a kernel may ask for."""
        self._resources: weakref.WeakValueDictionary[int, Resource] = weakref.WeakValueDictionary()
        self._keys = itertools.count()
        # Re-entrant: the garbage collector may close a dropped resource while one is adopted.
        self._lock = threading.RLock()
        self._abandoned: list[object] = []
        self._use = _Use(self._push, self._pop)
        self._context = self._retain()
        # Also when it is dropped, and when the program ends: PyCUDA's own destructor would try
        # to detach the primary context as one of its own making, and complain.
        self._let_go = weakref.finalize(self, _release, self._cuda, self._context, self._handle)

    @property
    def pycuda(self) -> Any:
        """The module ``pycuda.driver``, for the modules of `edge_fg.cuda` alone."""
        return self._cuda

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._context is None

    def attribute(self, number: int) -> int:
        """Return a ``CUdevice_attribute`` of the driver API, by its number."""
        value = ctypes.c_int()
        code = libcuda.load().cuDeviceGetAttribute(ctypes.byref(value), number, self._handle)
        self.check(code, f"read attribute {number} of GPU {self.ordinal}")
        return value.value

    def free_bytes(self) -> int:
        """Return the memory that is free now; on an integrated device, the machine's.

        Raises
        ------
        CudaError
            The device is closed or fails.
        """
        with self.use():
            try:
                return int(self._cuda.mem_get_info()[0])
            except self._cuda.Error as error:
                raise self.fail(error, "read how much memory is free") from error

    def use(self) -> _Use:
        """Return what pushes the primary context in a ``with`` and pops it afterwards.

        Works from any thread and inside another use.

        Raises
        ------
        CudaError
            The device is closed.
        """
        if self._context is None:
            raise failures.closed("GPU")
        return self._use

    def fail(self, error: Exception, action: str) -> CudaError:
        """Return PyCUDA's `error` as ours; remembers when the device is lost by it."""
        return self.noted(failures.translate(error, action))

    def check(self, code: int, action: str) -> None:
        """Raise unless a driver's status is success; remembers when the device is lost by it."""
        if code != 0:
            raise self.noted(failures.failure(code, action))

    def noted(self, error: CudaError) -> CudaError:
        """Return `error`; remembers when it says that the device is lost."""
        self.lost = self.lost or isinstance(error, DeviceLostError)
        return error

    def adopt(self, resource: Resource) -> int:
        """Take note of a resource, to close it with the device; returns its key."""
        if self._context is None:
            raise failures.closed("GPU")
        with self._lock:
            key = next(self._keys)
            self._resources[key] = resource
        return key

    def disown(self, key: int) -> None:
        """Forget a resource that is closed."""
        with self._lock:
            self._resources.pop(key, None)

    def abandon(self, *held: object) -> None:
        """Keep what a lost device can't release any more until `close`, lest it complain."""
        self._abandoned.extend(held)

    def close(self) -> None:
        """Close what is still open on it, the youngest first, and let go of the primary context.

        May be called again. The context itself lives on while another library retains it.
        """
        if self._context is None:
            return
        trouble = self._settle()
        with self._lock:
            keys = sorted(self._resources, reverse=True)
            open_ones = [found for key in keys if (found := self._resources.get(key)) is not None]
        for resource in open_ones:
            try:
                resource.close()
            except CudaError as error:
                trouble = trouble or error
        self._context = None
        self._let_go()
        self._abandoned.clear()
        if trouble is not None:
            raise trouble

    def _settle(self) -> CudaError | None:
        """Wait for what still runs; return what it failed with, unless that was said before."""
        if self.lost:
            return None
        try:
            with self.use():
                self._cuda.Context.synchronize()
        except self._cuda.Error as error:
            return self.fail(error, "finish the GPU's work")
        except CudaError as error:
            return error
        return None

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _retain(self) -> Any:
        try:
            return self._device.retain_primary_context()
        except self._cuda.Error as error:
            raise self.fail(error, f"use GPU {self.ordinal} ({self.name})") from error

    def _push(self) -> None:
        context = self._context
        if context is None:
            raise failures.closed("GPU")
        try:
            context.push()
        except self._cuda.Error as error:
            raise self.fail(error, "make the GPU's context current") from error

    def _pop(self) -> None:
        try:
            self._cuda.Context.pop()
        except self._cuda.Error as error:
            raise self.fail(error, "put back the context that was current") from error


class _Use:
    """Push on entry, pop on exit. Holds no state: one serves all threads and depths."""

    __slots__ = ("_pop", "_push")

    def __init__(self, push: Callable[[], None], pop: Callable[[], None]) -> None:
        self._push = push
        self._pop = pop

    def __enter__(self) -> None:
        self._push()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pop()


def _load_pycuda() -> Any:
    """Import and start ``pycuda.driver``; never ``pycuda.autoinit``, which makes a context."""
    try:
        import pycuda
    except ModuleNotFoundError as error:
        raise MissingDependencyError("pycuda", "cuda", "use the GPU") from error
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


def _open(cuda: Any, ordinal: int) -> Any:
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


def _release(cuda: Any, context: Any, handle: int) -> None:
    """Let go of a primary context, and leave the thread's stack of contexts as it was.

    PyCUDA releases only a context that is current, and releasing a primary context doesn't pop
    it. So that none is destroyed while it lies on the stack, another retain outlasts the pop.
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

    Outside the thread that made it, ``detach`` only marks it as gone, which keeps PyCUDA's
    destructors from calling the driver and complaining.
    """
    forgetting = threading.Thread(target=context.detach)
    # Refused while the interpreter ends; then the complaint stands.
    with contextlib.suppress(RuntimeError):
        forgetting.start()
        forgetting.join()
