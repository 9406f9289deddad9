"""Memory for one batch at a time on its way to the GPU, and the tables that batches share."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from edge_fg.cuda import (
    Device,
    DeviceBuffer,
    Event,
    Function,
    HostBuffer,
    Stream,
    copy_to_device,
)
from edge_fg.errors import UsageError
from edge_fg.preprocess.launch import LaunchPlan
from edge_fg.preprocess.pictures import bytes_of

Transfer = Literal["mapped", "staged"]
"""How a picture gets to the GPU: read in place through page-locked memory, or copied over."""

_ALIGNMENT: Final = 256
_STEP: Final = 1 << 16
"""Memory is taken in steps of this many bytes, so that similar sizes share it."""


class Tables:
    """The tables of one geometry on the device."""

    def __init__(self, device: Device, plan: LaunchPlan, stream: Stream) -> None:
        self._buffer = DeviceBuffer(device, plan.tables.nbytes)
        self._holders = 1
        self._lock = threading.Lock()
        try:
            copy_to_device(self._buffer, plan.tables, stream)
            # Once per geometry: from here on, any stream may read them.
            stream.synchronize()
        except BaseException:
            self._buffer.close()
            raise

    @property
    def pointer(self) -> int:
        """Address on the device."""
        return self._buffer.pointer

    def hold(self) -> None:
        """Keep them until one more `let_go`."""
        with self._lock:
            self._holders += 1

    def let_go(self) -> None:
        """Free them when nobody holds them any more."""
        with self._lock:
            self._holders -= 1
            unused = self._holders == 0
        if unused:
            self._buffer.close()


class TableCache:
    """The tables of the geometries that were used last. Safe to share between threads.

    Parameters
    ----------
    device
        Where they lie.
    most
        How many geometries to keep.
    """

    def __init__(self, device: Device, most: int) -> None:
        self._device = device
        self._most = most
        self._kept: OrderedDict[LaunchPlan, Tables] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, plan: LaunchPlan, stream: Stream) -> Tables:
        """Return the tables of `plan`, held for the caller, who lets them go."""
        with self._lock:
            found = self._kept.get(plan)
            if found is None:
                found = Tables(self._device, plan, stream)
                self._kept[plan] = found
            self._kept.move_to_end(plan)
            found.hold()
            oldest = self._kept.popitem(last=False)[1] if len(self._kept) > self._most else None
        if oldest is not None:
            # Freeing device memory waits for the work that reads it.
            oldest.let_go()
        return found

    def clear(self) -> None:
        """Let go of all."""
        with self._lock:
            kept, self._kept = self._kept, OrderedDict()
        for tables in kept.values():
            tables.let_go()


class Lane:
    """Staging, input and scratch memory for one batch at a time; grows and never shrinks.

    Descriptors and pictures lie behind one another in one page-locked block, so that one copy
    brings them all.

    Parameters
    ----------
    device
        Where the batch goes.
    transfer
        How it gets there.
    """

    def __init__(self, device: Device, transfer: Transfer) -> None:
        self._device = device
        self._transfer = transfer
        self._staging: HostBuffer | None = None
        self._input: DeviceBuffer | None = None
        self._scratch: DeviceBuffer | None = None
        self._done = Event(device)
        self._used = 0

    def reserve(self, plan: LaunchPlan, sizes: Sequence[int]) -> None:
        """Have memory for a batch of `plan` with pictures of these many bytes.

        Raises
        ------
        DeviceMemoryError
            There is not enough.
        """
        starts = self._starts(plan, sizes)
        self._used = starts[-1]
        if self._staging is None or self._staging.nbytes < self._used:
            if self._staging is not None:
                self._staging.close()
                self._staging = None
            mapped = self._transfer == "mapped"
            shape = (_stepped(self._used),)
            self._staging = HostBuffer(self._device, shape, np.uint8, mapped=mapped)
        if self._transfer == "staged":
            self._input = _at_least(self._device, self._input, self._staging.nbytes)
        self._scratch = _at_least(self._device, self._scratch, plan.scratch_bytes)

    def describe(self, plan: LaunchPlan, sizes: Sequence[int], at: Sequence[int]) -> None:
        """Write the descriptors of what `fill` stages; `at` is each source's picture."""
        base = self._base
        starts = self._starts(plan, sizes)
        self.describe_elsewhere(plan, [base + starts[place] for place in at])

    def describe_elsewhere(self, plan: LaunchPlan, pointers: Sequence[int]) -> None:
        """Write descriptors of frames at these device addresses."""
        plan.descriptors(pointers, self._host.array[: plan.descriptor_bytes])

    def fill(self, plan: LaunchPlan, pictures: Sequence[NDArray[np.uint8]]) -> None:
        """Copy the pictures, of any shape and strides, into page-locked memory without gaps."""
        staging = self._host.array
        starts = self._starts(plan, [picture.nbytes for picture in pictures])
        for picture, start in zip(pictures, starts[:-1], strict=True):
            target = staging[start : start + picture.nbytes].reshape(picture.shape)
            np.copyto(target, picture)

    def queue(
        self,
        plan: LaunchPlan,
        tables: Tables,
        output: int,
        functions: Mapping[str, Function],
        stream: Stream,
    ) -> None:
        """Queue the copy and the launches, which write to the device address `output`."""
        assert self._scratch is not None
        if self._input is not None:
            copy_to_device(self._input, self._host.array[: self._used], stream)
        pointers = {
            "descriptors": self._base,
            "tables": tables.pointer,
            "scratch": self._scratch.pointer,
            "output": output,
        }
        for launch in plan.launches:
            arguments = [pointers[name] for name in launch.arguments]
            function = functions[launch.kernel]
            function.launch(launch.grid, launch.block, arguments, stream, launch.shared_bytes)

    def mark(self, stream: Stream) -> None:
        """Note that the memory is free again when `stream` gets here."""
        self._done.record(stream)

    def wait(self) -> None:
        """Wait until the memory is free."""
        self._done.synchronize()

    def close(self) -> None:
        """Release all of it; may be called again."""
        for held in (self._done, self._scratch, self._input, self._staging):
            if held is not None:
                held.close()

    @property
    def _host(self) -> HostBuffer:
        assert self._staging is not None
        return self._staging

    @property
    def _base(self) -> int:
        """Where the device sees the staged bytes."""
        return self._input.pointer if self._input is not None else self._host.device_pointer

    @staticmethod
    def _starts(plan: LaunchPlan, sizes: Sequence[int]) -> list[int]:
        """Return where each picture starts in the block, and where the last ends."""
        starts = [_aligned(plan.descriptor_bytes)]
        for size in sizes:
            starts.append(_aligned(starts[-1] + size))
        return starts


class Batch:
    """A batch of fixed geometry, buffers and output; made by `CudaPreprocessor.prepare`.

    `fill` it, `queue` it or launch the graph that `queue` was captured in, and let the stream
    pass before filling it again. For one thread at a time.
    """

    def __init__(
        self,
        lane: Lane,
        plan: LaunchPlan,
        sizes: Sequence[int],
        tables: Tables,
        functions: Mapping[str, Function],
        output_pointer: int,
    ) -> None:
        self.shape = plan.shape
        """Of the tensor."""
        self.dtype = plan.dtype
        """Of the tensor."""
        self._lane = lane
        self._plan = plan
        self._sizes = sizes
        self._tables = tables
        self._functions = functions
        self._output = output_pointer
        self._closed = False

    def fill(self, pictures: Sequence[NDArray[np.uint8]]) -> None:
        """Take over the pictures.

        Parameters
        ----------
        pictures
            For each what its source says: all its bytes, uint8 of any shape and strides.

        Raises
        ------
        ImageError
            A picture is not as long as its source says.
        """
        if len(pictures) != len(self._sizes):
            raise UsageError(f"{len(pictures)} pictures for a batch of {len(self._sizes)}")
        checked = [bytes_of(*pair) for pair in zip(pictures, self._sizes, strict=True)]
        self._lane.fill(self._plan, checked)

    def queue(self, stream: Stream) -> None:
        """Queue the copy and the launches; can be captured."""
        self._lane.queue(self._plan, self._tables, self._output, self._functions, stream)

    def close(self) -> None:
        """Release its memory, once the device is through with it; may be called again."""
        if self._closed:
            return
        self._closed = True
        self._lane.close()
        self._tables.let_go()

    def __enter__(self) -> Batch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _at_least(device: Device, buffer: DeviceBuffer | None, nbytes: int) -> DeviceBuffer:
    if buffer is not None:
        if buffer.nbytes >= nbytes and not buffer.closed:
            return buffer
        buffer.close()
    return DeviceBuffer(device, _stepped(nbytes))


def _aligned(nbytes: int) -> int:
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT


def _stepped(nbytes: int) -> int:
    return -(-nbytes // _STEP) * _STEP
