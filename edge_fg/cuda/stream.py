"""Streams, in which a device works in order, and events, which mark how far it got."""

from __future__ import annotations

import ctypes
from typing import Any, Final

from edge_fg.cuda import libcuda
from edge_fg.cuda.context import Device
from edge_fg.cuda.resource import Resource

_NON_BLOCKING: Final = 1
_BLOCKING_SYNC: Final = 1
_DISABLE_TIMING: Final = 2
_IN_GRAPH: Final = 1
"""CU_EVENT_RECORD_EXTERNAL: the event becomes a node of the graph that is captured."""


class Stream(Resource):
    """A queue of work on a device; independent of other queues and of the default stream.

    Raises `CudaError` if the driver refused or the device is closed.
    """

    _what = "stream"

    def __init__(self, device: Device) -> None:
        with device.use("make a stream") as cuda:
            # Non-blocking, or every use of the default stream, such as PyTorch's, would wait.
            raw = cuda.Stream(_NON_BLOCKING)
            super().__init__(device, raw)
        self._handle: int = raw.handle

    @property
    def handle(self) -> int:
        """The driver's ``CUstream``, which TensorRT takes too."""
        self._check_open()
        return self._handle

    @property
    def pycuda(self) -> Any:
        """PyCUDA's object, for the modules of `edge_fg.cuda` alone."""
        self._check_open()
        return self._raw

    def synchronize(self) -> None:
        """Wait until all that was queued is done.

        Raises `DeviceLostError` if some of it broke the device.
        """
        raw = self.pycuda
        with self.device.use("finish the work of a stream"):
            raw.synchronize()

    def wait(self, event: Event) -> None:
        """Make what is queued from now on wait for `event`, without waiting here."""
        with self.device.use():
            code = libcuda.load().cuStreamWaitEvent(self.handle, event.handle, 0)
            self.device.check(code, "make a stream wait for an event")

    def _release(self, raw: Any) -> None:
        del raw  # PyCUDA destroys it with its last reference


class Event(Resource):
    """A mark in a stream.

    With `timing` it takes the time, for `elapsed_ms_since`, which costs a little on the device.
    With `blocking`, `synchronize` sleeps rather than spins: that spares the CPU and answers some
    30 us later. Raises `CudaError` if the driver refused or the device is closed.
    """

    _what = "event"

    def __init__(self, device: Device, timing: bool = False, blocking: bool = False) -> None:
        flags = (0 if timing else _DISABLE_TIMING) | (_BLOCKING_SYNC if blocking else 0)
        handle = ctypes.c_void_p()
        with device.use():
            code = libcuda.load().cuEventCreate(ctypes.byref(handle), flags)
            device.check(code, "make an event")
            super().__init__(device, handle.value)

    @property
    def handle(self) -> int:
        """The driver's ``CUevent``."""
        self._check_open()
        handle: int = self._raw
        return handle

    def record(self, stream: Stream, *, in_graph: bool = False) -> None:
        """Mark the point that `stream` has been filled to.

        Give `in_graph` while `stream` is captured: the graph marks the point each time it runs.
        """
        library = libcuda.load()
        with self.device.use():
            if in_graph:
                code = library.cuEventRecordWithFlags(self.handle, stream.handle, _IN_GRAPH)
            else:
                code = library.cuEventRecord(self.handle, stream.handle)
            self.device.check(code, "record an event")

    def synchronize(self) -> None:
        """Wait until the device has passed the mark.

        Raises `DeviceLostError` if what came before it broke the device.
        """
        with self.device.use():
            code = libcuda.load().cuEventSynchronize(self.handle)
            self.device.check(code, "wait for an event")

    def elapsed_ms_since(self, other: Event) -> float:
        """Return the milliseconds from `other` to this one, both passed and taking the time."""
        elapsed = ctypes.c_float()
        with self.device.use():
            code = libcuda.load().cuEventElapsedTime(
                ctypes.byref(elapsed), other.handle, self.handle
            )
            self.device.check(code, "read the time between two events")
        return elapsed.value

    def _release(self, raw: Any) -> None:
        self.device.check(libcuda.load().cuEventDestroy_v2(raw), "release an event")
