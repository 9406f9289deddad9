"""A stand-in for `edge_fg.cuda` whose device memory is the host's, for orchestration alone.

Counts what is open, knows a memory limit, and can be made to fail or be lost. Work in a stream is
done at once, unless it is being captured.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from edge_fg.backends.base import cut
from edge_fg.errors import CudaError, DeviceLostError, DeviceMemoryError
from edge_fg.preprocess import CpuPreprocessor


class Machine:
    """The machine that the devices of one test belong to."""

    def __init__(self) -> None:
        self.open: dict[int, object] = {}
        self.released: list[str] = []
        self.memory_left: int | None = None
        self.lost = False
        self.capture_fails = False
        self.graphs_launched = 0
        self.integrated = False
        self.sleep = 0.0
        self.depth = threading.local()
        self.numbers = itertools.count(1)
        self.streams: dict[int, Stream] = {}

    def take(self, nbytes: int) -> None:
        if self.memory_left is not None:
            if nbytes > self.memory_left:
                raise DeviceMemoryError(f"can't allocate {nbytes} bytes on the GPU: it is full")
            self.memory_left -= nbytes

    def check(self) -> None:
        if self.lost:
            raise DeviceLostError("the GPU failed (illegal address): start a new process")

    def current(self) -> bool:
        return getattr(self.depth, "value", 0) > 0

    def enqueue(self, handle: int, work: Callable[[], None]) -> None:
        stream = self.streams[handle]
        if stream.captured is not None:
            stream.captured.append(work)
        else:
            work()


machine = Machine()


class Device:
    def __init__(self, ordinal: int = 0) -> None:
        self.ordinal = ordinal
        self.name, self.compute_capability, self.driver_version = "Stand-in", "8.7", 12060
        self.machine = machine
        self.integrated = machine.integrated
        self.total_bytes = 8 << 30
        self.key = next(machine.numbers)
        self.closed = False
        machine.open[self.key] = self

    @contextmanager
    def use(self) -> Iterator[None]:
        if self.closed:
            raise CudaError("the GPU is closed")
        depth = self.machine.depth
        depth.value = getattr(depth, "value", 0) + 1
        try:
            yield
        finally:
            depth.value -= 1

    def free_bytes(self) -> int:
        with self.use():
            held = (getattr(thing, "nbytes", 0) for thing in self.machine.open.values())
            return self.total_bytes - sum(held)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.machine.open.pop(self.key)
            self.machine.released.append("Device")
            left = [type(thing).__name__ for thing in self.machine.open.values()]
            assert not left, f"still open when the device was closed: {left}"


class _Resource:
    def __init__(self, device: Device, nbytes: int = 0) -> None:
        self.device = device
        self.nbytes = nbytes
        with device.use():
            device.machine.check()
            device.machine.take(nbytes)
        self.key = next(device.machine.numbers)
        device.machine.open[self.key] = self
        self.closed = False

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        machine = self.device.machine
        if machine.memory_left is not None:
            machine.memory_left += self.nbytes
        del machine.open[self.key]
        machine.released.append(type(self).__name__)

    def usable(self) -> Machine:
        if self.closed:
            raise CudaError(f"the {type(self).__name__} is closed")
        return self.device.machine

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.close()


class Stream(_Resource):
    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.captured: list[Callable[[], None]] | None = None
        self.device.machine.streams[self.key] = self

    @property
    def handle(self) -> int:
        self.usable()
        return self.key

    def synchronize(self) -> None:
        if self.captured is not None:
            raise CudaError("waiting is not allowed in a capture")
        self.usable().check()

    def close(self) -> None:
        self.device.machine.streams.pop(self.key, None)
        super().close()


class Event(_Resource):
    def __init__(self, device: Device, timing: bool = False, blocking: bool = False) -> None:
        super().__init__(device)
        self.time, self.blocking = 0.0, blocking

    def record(self, stream: Stream, *, in_graph: bool = False) -> None:
        assert in_graph == (stream.captured is not None), "a graph records no event by itself"
        self.usable().enqueue(stream.handle, self._mark)

    def _mark(self) -> None:
        self.time = time.perf_counter()

    def synchronize(self) -> None:
        machine = self.usable()
        if machine.sleep:
            time.sleep(machine.sleep)
        machine.check()

    def elapsed_ms_since(self, other: Event) -> float:
        self.usable()
        return 1e3 * (self.time - other.time)


class DeviceBuffer(_Resource):
    def __init__(self, device: Device, nbytes: int) -> None:
        super().__init__(device, nbytes)
        self.memory = np.zeros(nbytes, np.uint8)

    @property
    def pointer(self) -> int:
        self.usable()
        return self.memory.ctypes.data


class HostBuffer(_Resource):
    def __init__(self, device: Device, shape, dtype, mapped: bool = False) -> None:
        super().__init__(device)
        self._array = np.zeros(shape, dtype)
        self.mapped = mapped

    @property
    def array(self) -> np.ndarray:
        self.usable()
        return self._array

    @property
    def pointer(self) -> int:
        return self.array.ctypes.data

    @property
    def device_pointer(self) -> int:
        assert self.mapped
        return self.pointer


class Graph(_Resource):
    def __init__(self, device: Device, handle, work) -> None:
        super().__init__(device)
        self.steps = handle
        self.work = work

    @classmethod
    def capture(cls, stream: Stream, work: Callable[[], None]) -> Graph:
        if stream.device.machine.capture_fails:
            raise CudaError("can't capture a CUDA graph: operation not permitted")
        stream.captured = []
        try:
            work()
            return cls(stream.device, stream.captured, work)
        finally:
            stream.captured = None

    def launch(self, stream: Stream) -> None:
        machine = self.usable()
        machine.check()
        machine.graphs_launched += 1
        for step in self.steps:
            step()


def copy_to_device(destination, array: np.ndarray, stream: Stream) -> None:
    pointer = getattr(destination, "pointer", destination)
    ctypes.memmove(pointer, array.ctypes.data, array.nbytes)


def copy_to_host(array: np.ndarray, source, stream: Stream) -> None:
    assert array.flags.c_contiguous
    pointer, target, count = getattr(source, "pointer", source), array.ctypes.data, array.nbytes
    machine = stream.usable()
    machine.enqueue(stream.handle, lambda: ctypes.memmove(target, pointer, count))


class CudaPreprocessor(_Resource):
    def __init__(self, device: Device, spec, max_batch: int) -> None:
        super().__init__(device)
        self.inner = CpuPreprocessor(spec)
        self.max_batch = max_batch
        self.calls = 0

    def new_staging(self) -> Staging:
        return Staging(self.device)

    def batch(self, geometry, output_pointer: int, stream: Stream, staging=None) -> Batch:
        self.usable().check()
        assert 1 <= len(geometry.layouts) <= self.max_batch
        assert staging is not None
        return Batch(self, geometry, output_pointer, staging)


class Staging(_Resource):
    """Counts moves as the real one does: where what it has to hold was never as large."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.moves = self.holds = 0
        self.images: list[np.ndarray] = []


class Batch(_Resource):
    def __init__(
        self, owner: CudaPreprocessor, geometry, output_pointer: int, staging: Staging
    ) -> None:
        super().__init__(owner.device)
        self.owner, self.geometry, self.staging = owner, geometry, staging
        self.output = output_pointer
        self.sizes: dict[int, int] = {}
        for place, layout in zip(geometry.at, geometry.layouts, strict=True):
            self.sizes[place] = max(self.sizes.get(place, 0), layout.nbytes)
        if sum(self.sizes.values()) > staging.holds:
            staging.holds = sum(self.sizes.values())
            staging.moves += 1
        self.moves = staging.moves

    @property
    def moved(self) -> bool:
        return self.staging.moves != self.moves

    def fill(self, images) -> None:
        self.usable()
        assert len(images) == len(self.sizes)
        for place, image in enumerate(images):
            assert image.nbytes == self.sizes[place]
        self.staging.images = [image.copy() for image in images]
        self.owner.calls += 1

    def queue(self, stream: Stream) -> None:
        def work() -> None:
            assert not self.moved, "a graph was launched whose memory had moved"
            pairs = zip(self.geometry.at, self.geometry.layouts, strict=True)
            parts = [cut(self.staging.images[place], layout.region) for place, layout in pairs]
            tensor = np.ascontiguousarray(self.owner.inner(parts))
            ctypes.memmove(self.output, tensor.ctypes.data, tensor.nbytes)

        self.usable().enqueue(stream.handle, work)
