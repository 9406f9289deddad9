"""Memory of the device, page-locked memory of the host, and the copies between them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edge_fg.cuda.context import Device
from edge_fg.cuda.resource import Resource
from edge_fg.cuda.stream import Stream
from edge_fg.errors import UsageError


class DeviceBuffer(Resource):
    """Memory of the device, at least one byte, not initialised.

    Raises `DeviceMemoryError` if the device has no more.
    """

    _what = "device buffer"

    def __init__(self, device: Device, nbytes: int) -> None:
        if nbytes < 1:
            raise UsageError(f"a device buffer of {nbytes} bytes can't be made")
        with device.use(f"allocate {_size(nbytes)} on the GPU") as cuda:
            raw = cuda.mem_alloc(nbytes)
            super().__init__(device, raw)
        self._pointer = int(raw)
        self.nbytes = nbytes
        """Its size."""

    @property
    def pointer(self) -> int:
        """Its address on the device; aligned to 256 bytes."""
        self._check_open()
        return self._pointer

    def _release(self, raw: Any) -> None:
        raw.free()


class HostBuffer(Resource):
    """Page-locked memory of the host, which the device copies from and to by itself.

    `array` has the shape and dtype that were given and is not initialised; it must not be touched
    after `close`. If `mapped`, the device can also read and write it in place, through
    `device_pointer`. Raises `DeviceMemoryError` if no more memory can be page-locked.
    """

    _what = "page-locked buffer"

    def __init__(
        self, device: Device, shape: tuple[int, ...], dtype: DTypeLike, mapped: bool = False
    ) -> None:
        kind = np.dtype(dtype)
        nbytes = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        if nbytes < 1:
            raise UsageError(f"a page-locked buffer of shape {shape} can't be made")
        with device.use(f"page-lock {_size(nbytes)} of memory") as cuda:
            flags = cuda.host_alloc_flags.PORTABLE
            if mapped:
                flags |= cuda.host_alloc_flags.DEVICEMAP
            array = cuda.pagelocked_empty(shape, kind, mem_flags=flags)
            device_pointer = int(array.base.get_device_pointer()) if mapped else 0
            super().__init__(device, array.base)
        self._array: NDArray[Any] | None = array
        self._device_pointer = device_pointer
        self.nbytes = nbytes
        """Its size."""

    @property
    def array(self) -> NDArray[Any]:
        """The memory as an array."""
        self._check_open()
        assert self._array is not None
        return self._array

    @property
    def pointer(self) -> int:
        """Its address on the host."""
        return self.array.ctypes.data

    @property
    def device_pointer(self) -> int:
        """Its address on the device; raises `UsageError` if it is not mapped."""
        self._check_open()
        if not self._device_pointer:
            raise UsageError("the device can't read a buffer that was not made with mapped=True")
        return self._device_pointer

    def _release(self, raw: Any) -> None:
        self._array = None
        raw.free()


def copy_to_device(destination: DeviceBuffer | int, array: NDArray[Any], stream: Stream) -> None:
    """Queue a copy of a C-contiguous `array` to a buffer or an address on the device.

    From page-locked memory the copy is asynchronous: don't change the array until the stream has
    passed. Other memory is copied before the call returns. Raises `UsageError` if the array isn't
    contiguous, or larger than the buffer.
    """
    pointer = _target(destination, array)
    with stream.device.use(f"copy {_size(array.nbytes)} to the GPU") as cuda:
        cuda.memcpy_htod_async(pointer, array, stream.pycuda)


def copy_to_host(array: NDArray[Any], source: DeviceBuffer | int, stream: Stream) -> None:
    """Queue a copy from a buffer or an address on the device into `array`.

    The array must be C-contiguous and writable; it is complete when the stream has passed. Raises
    `UsageError` if it isn't contiguous, or larger than the buffer.
    """
    pointer = _target(source, array)
    with stream.device.use(f"copy {_size(array.nbytes)} from the GPU") as cuda:
        cuda.memcpy_dtoh_async(array, pointer, stream.pycuda)


def _target(place: DeviceBuffer | int, array: NDArray[Any]) -> int:
    if not array.flags.c_contiguous:
        raise UsageError("only a contiguous array can be copied to or from the GPU")
    if not isinstance(place, DeviceBuffer):
        return place
    if array.nbytes > place.nbytes:
        raise UsageError(
            f"{array.nbytes} bytes can't be copied with a device buffer of {place.nbytes} bytes"
        )
    return place.pointer


def _size(nbytes: int) -> str:
    return f"{nbytes / (1 << 20):.1f} MiB" if nbytes >= 1 << 20 else f"{nbytes} bytes"
