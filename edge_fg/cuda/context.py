"""The device and its primary context: the one that every library in the process shares."""

from __future__ import annotations

import ctypes
import itertools
import threading
import weakref
from types import TracebackType
from typing import Any, Final

from edge_fg.closing import Closing
from edge_fg.cuda import failures, libcuda, pycuda_driver
from edge_fg.errors import CudaError, DeviceLostError

_INTEGRATED: Final = 18
_SHARED_PER_BLOCK_OPTIN: Final = 97


class Device(Closing):
    """One CUDA device, through its primary context.

    The context is retained and pushed around each use, never made: PyTorch, OpenCV and TensorRT
    in the same process work in the same one. Any number of threads may use a device; `close` it
    when none of them uses it any more.

    `ordinal` counts from 0 the devices that ``CUDA_VISIBLE_DEVICES`` leaves visible. Raises
    `MissingDependencyError` without PyCUDA, and `CudaUnavailableError` if there is no driver, no
    such device, or the driver is too old.
    """

    def __init__(self, ordinal: int = 0) -> None:
        libcuda.load()
        self._cuda = pycuda_driver.load()
        self.ordinal = ordinal
        self.lost = False
        """Whether it failed in this process: only a new process can use it again."""
        self._device = pycuda_driver.open_device(self._cuda, ordinal)
        handle = ctypes.c_int()
        code = libcuda.load().cuDeviceGet(ctypes.byref(handle), ordinal)
        self.check(code, f"open GPU {ordinal}")
        self._handle = handle.value
        self.name: str = self._device.name()
        """Its product name, such as "Orin"."""
        self.compute_capability = ".".join(str(n) for n in self._device.compute_capability())
        """Such as "8.7"."""
        self.driver_version: int = self._cuda.get_driver_version()
        """CUDA version of the driver, such as 12060 for 12.6."""
        self.total_bytes: int = self._device.total_memory()
        """Its memory; of an integrated device, the machine's."""
        self.integrated = bool(self.attribute(_INTEGRATED))
        """Whether it shares the CPU's memory, as on a Jetson."""
        self.max_shared_bytes = self.attribute(_SHARED_PER_BLOCK_OPTIN)
        """Most shared memory that a block of a kernel may ask for."""
        self._resources: weakref.WeakValueDictionary[int, Closing] = weakref.WeakValueDictionary()
        self._keys = itertools.count()
        # Re-entrant: the garbage collector may close a dropped resource while one is adopted.
        self._lock = threading.RLock()
        self._abandoned: list[object] = []
        self._context = self._retain()
        # Also when the device is dropped, and when the program ends: PyCUDA's own destructor
        # would try to detach the primary context as one of its own, and complain.
        self._release = weakref.finalize(
            self, pycuda_driver.release, self._cuda, self._context, self._handle
        )

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

        Raises `CudaError` if the device is closed or fails.
        """
        with self.use("read how much memory is free") as cuda:
            return int(cuda.mem_get_info()[0])

    def use(self, action: str = "use the GPU") -> _Use:
        """Return what pushes the primary context in a ``with`` and pops it afterwards.

        Works from any thread and inside another use. The ``with`` gives the module
        ``pycuda.driver``, whose errors it raises as ours: `action` is what is tried, to be read
        after "to". Raises `CudaError` if the device is closed or PyCUDA failed.
        """
        return _Use(self, action)

    def fail(self, error: Exception, action: str) -> CudaError:
        """Return PyCUDA's `error` as ours; remembers when the device is lost by it."""
        return self._noted(failures.translate(error, action))

    def check(self, code: int, action: str) -> None:
        """Raise unless a driver's status is success; remembers when the device is lost by it."""
        if code != 0:
            raise self._noted(failures.failure(code, action))

    def adopt(self, resource: Closing) -> int:
        """Remember a resource, to close it with the device; returns its key."""
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

    def abandon(self, held: object) -> None:
        """Keep what a lost device can't release any more until `close`: destructors complain."""
        self._abandoned.append(held)

    def close(self) -> None:
        """Close what is still open on it, the newest first, and release the primary context.

        May be called again. The context itself lives on while another library retains it.
        """
        if self._context is None:
            return
        trouble = self._finish()
        with self._lock:
            keys = sorted(self._resources, reverse=True)
            open_ones = [found for key in keys if (found := self._resources.get(key)) is not None]
        for resource in open_ones:
            try:
                resource.close()
            except CudaError as error:
                trouble = trouble or error
        self._context = None
        self._release()
        self._abandoned.clear()
        if trouble is not None:
            raise trouble

    def push(self) -> None:
        """Make the context current in this thread; `use` does it."""
        context = self._context
        if context is None:
            raise failures.closed("GPU")
        try:
            context.push()
        except self._cuda.Error as error:
            raise self.fail(error, "make the GPU's context current") from error

    def pop(self) -> None:
        """Undo `push`."""
        try:
            self._cuda.Context.pop()
        except self._cuda.Error as error:
            raise self.fail(error, "put back the context that was current") from error

    def _noted(self, error: CudaError) -> CudaError:
        self.lost = self.lost or isinstance(error, DeviceLostError)
        return error

    def _finish(self) -> CudaError | None:
        """Wait for what still runs; return what it failed with, unless that was said before."""
        if self.lost:
            return None
        try:
            with self.use("finish the GPU's work") as cuda:
                cuda.Context.synchronize()
        except CudaError as error:
            return error
        return None

    def _retain(self) -> Any:
        try:
            return self._device.retain_primary_context()
        except self._cuda.Error as error:
            raise self.fail(error, f"use GPU {self.ordinal} ({self.name})") from error


class _Use:
    """Pushes the context on entry, pops it on exit and translates PyCUDA's errors."""

    __slots__ = ("_action", "_device")

    def __init__(self, device: Device, action: str) -> None:
        self._device = device
        self._action = action

    def __enter__(self) -> Any:
        self._device.push()
        return self._device.pycuda

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if isinstance(error, self._device.pycuda.Error):
                raise self._device.fail(error, self._action) from error
        finally:
            self._device.pop()
