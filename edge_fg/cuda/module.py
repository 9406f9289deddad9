"""Kernels: modules of compiled code, and their functions."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from edge_fg.cuda import failures, libcuda
from edge_fg.cuda.buffers import DeviceBuffer
from edge_fg.cuda.context import Device
from edge_fg.cuda.resource import Resource
from edge_fg.cuda.stream import Stream
from edge_fg.errors import CudaUnavailableError, UsageError

Argument = DeviceBuffer | np.generic | int
"""Of a kernel: a buffer or an address (int), or a NumPy scalar of the parameter's exact type."""

_ERROR_LOG: Final = 5
_ERROR_LOG_BYTES: Final = 6
_LOG_BYTES: Final = 4096
_MAX_DYNAMIC_SHARED: Final = 8
_DEFAULT_SHARED_BYTES: Final = 48 << 10
_SCALARS: Final[dict[str, Any]] = {
    "b": ctypes.c_int8,
    "B": ctypes.c_uint8,
    "h": ctypes.c_int16,
    "H": ctypes.c_uint16,
    "i": ctypes.c_int32,
    "I": ctypes.c_uint32,
    "l": ctypes.c_int64,
    "L": ctypes.c_uint64,
    "q": ctypes.c_int64,
    "Q": ctypes.c_uint64,
    "f": ctypes.c_float,
    "d": ctypes.c_double,
}


class Module(Resource):
    """Compiled kernels on a device.

    `image` is a fat binary, a cubin or PTX, as ``nvcc`` writes it. It is code: only load what was
    shipped with edge_fg. Raises `CudaUnavailableError` if it has nothing for this GPU or its PTX
    is newer than the driver, and `CudaError` if the driver can't load it.
    """

    _what = "module"

    def __init__(self, device: Device, image: bytes) -> None:
        with device.use():
            handle = _load(device, image)
            try:
                super().__init__(device, handle)
            except BaseException:
                libcuda.load().cuModuleUnload(handle)
                raise

    def function(self, name: str) -> Function:
        """Return the kernel `name`, as ``extern "C"`` spells it; raises `CudaError` without one."""
        self._check_open()
        handle = ctypes.c_void_p()
        with self.device.use():
            code = libcuda.load().cuModuleGetFunction(
                ctypes.byref(handle), self._raw, name.encode()
            )
            self.device.check(code, f"find the kernel `{name}`")
        assert handle.value is not None
        return Function(self, name, handle.value)

    def _release(self, raw: Any) -> None:
        self.device.check(libcuda.load().cuModuleUnload(raw), "unload kernels")


class Function:
    """A kernel. It belongs to its `Module` and can't be used after that is closed."""

    def __init__(self, module: Module, name: str, handle: int) -> None:
        self.name = name
        """As in the source."""
        self._module = module
        self._handle = handle
        self._shared_bytes = _DEFAULT_SHARED_BYTES

    def launch(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Sequence[Argument],
        stream: Stream,
        shared_bytes: int = 0,
    ) -> None:
        """Queue the kernel in `stream`.

        `grid` and `block` are (x, y, z) in blocks and in threads; there is one argument for each
        parameter of the kernel, but nothing checks them against it; `shared_bytes` is the dynamic
        shared memory of each block. Raises `UsageError` if an argument is of a type that no
        parameter has, and `CudaError` if the driver refused or the module is closed.
        """
        with stream.device.use():
            self.prepare(grid, block, arguments, shared_bytes).queue(stream)

    def prepare(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Sequence[Argument | ctypes.c_uint64],
        shared_bytes: int = 0,
    ) -> PreparedLaunch:
        """Return a launch to queue again and again, which costs less each time.

        All is as for `launch`; an argument may also be a ctypes value, which each launch reads
        again.
        """
        values = [_value(argument) for argument in arguments]
        if shared_bytes > self._shared_bytes:
            self._allow_shared(shared_bytes)
        return PreparedLaunch(self, (*grid, *block, shared_bytes), values)

    @property
    def handle(self) -> int:
        """The driver's ``CUfunction``."""
        if self._module.closed:
            raise failures.closed("module")
        return self._handle

    def _allow_shared(self, nbytes: int) -> None:
        device = self._module.device
        with device.use():
            code = libcuda.load().cuFuncSetAttribute(self.handle, _MAX_DYNAMIC_SHARED, nbytes)
            device.check(code, f"give the kernel `{self.name}` {nbytes} bytes of shared memory")
        self._shared_bytes = nbytes


class PreparedLaunch:
    """A kernel with shape and arguments; made by `Function.prepare`. For one thread at a time."""

    def __init__(self, function: Function, shape: tuple[int, ...], values: list[Any]) -> None:
        self._function = function
        self._shape = shape
        self._values = values
        self._addresses = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        self._launch = libcuda.load().cuLaunchKernel

    def queue(self, stream: Stream) -> None:
        """Queue the kernel in `stream`, while its device is in use (`Device.use`).

        Raises `CudaError` if the driver refused or the module is closed.
        """
        code = self._launch(
            self._function.handle, *self._shape, stream.handle, self._addresses, None
        )
        if code != 0:
            stream.device.check(code, f"launch the kernel `{self._function.name}`")


def _value(argument: Argument | ctypes.c_uint64) -> Any:
    if isinstance(argument, np.generic):
        kind = _SCALARS.get(argument.dtype.char)
        if kind is not None:
            return kind(argument.item())
    elif isinstance(argument, DeviceBuffer):
        return ctypes.c_uint64(argument.pointer)
    elif isinstance(argument, int):
        return ctypes.c_uint64(argument)
    elif isinstance(argument, ctypes.c_uint64):
        return argument
    raise UsageError(f"{argument!r} can't be a kernel's argument: give a buffer or NumPy scalar")


def _load(device: Device, image: bytes) -> int:
    # PTX is text, which the driver reads up to a zero byte; binaries carry their own length.
    data = ctypes.create_string_buffer(image)
    log = ctypes.create_string_buffer(_LOG_BYTES)
    options = (ctypes.c_int * 2)(_ERROR_LOG, _ERROR_LOG_BYTES)
    values = (ctypes.c_void_p * 2)(ctypes.addressof(log), _LOG_BYTES)
    handle = ctypes.c_void_p()
    code = libcuda.load().cuModuleLoadDataEx(ctypes.byref(handle), data, 2, options, values)
    if code in {libcuda.NO_BINARY, libcuda.UNSUPPORTED_PTX}:
        raise CudaUnavailableError(
            f"the kernels can't run on {device.name} (compute capability "
            f"{device.compute_capability}, driver {device.driver_version}): "
            f"{libcuda.error_name(code)}; update the driver or edge_fg"
        )
    said = log.value.decode(errors="replace").strip()
    device.check(code, f"load the kernels ({said})" if said else "load the kernels")
    assert handle.value is not None
    return handle.value
