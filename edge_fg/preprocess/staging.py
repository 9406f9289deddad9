"""Memory for one batch at a time on its way to the GPU."""

from __future__ import annotations

import ctypes
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
from edge_fg.cuda.module import PreparedLaunch
from edge_fg.errors import UsageError
from edge_fg.preprocess.batch_input import Image, bytes_of
from edge_fg.preprocess.batch_layout import Layout, Tables

Transfer = Literal["mapped", "staged"]
"""How an image gets to the GPU: read in place through page-locked memory, or copied over."""

_POINTERS: Final = ("descriptors", "tables", "scratch", "output")
_STEP: Final = 1 << 16
"""Memory is taken in steps of this many bytes, so that similar sizes share it."""


class Lane:
    """Staging, input and scratch memory for one batch at a time; grows and never shrinks.

    Descriptors and images lie behind one another in one page-locked block, so that one copy
    brings them all. For one thread at a time, with the device in use.

    Parameters
    ----------
    device
        Where the batch goes.
    transfer
        How it gets there.
    functions
        The kernels by their names.
    """

    def __init__(
        self, device: Device, transfer: Transfer, functions: Mapping[str, Function]
    ) -> None:
        self._device = device
        self._transfer = transfer
        self._functions = functions
        self._staging: HostBuffer | None = None
        self._input: DeviceBuffer | None = None
        self._scratch: DeviceBuffer | None = None
        self._layout: Layout | None = None
        self.places: list[NDArray[np.uint8]] = []
        """Page-locked memory of each image of the layout."""
        self._sent = np.empty(0, np.uint8)
        self._launches: list[PreparedLaunch] = []
        # Shared by the prepared launches, which read them anew each time.
        self._addresses = {name: ctypes.c_uint64() for name in _POINTERS}
        self._done = Event(device)

    def wait(self) -> None:
        """Wait until the memory is free."""
        self._done.synchronize()

    def arrange(self, layout: Layout) -> None:
        """Make ready for batches of `layout`; costs little if the last one had it too.

        Raises
        ------
        DeviceMemoryError
            There is not enough memory.
        """
        if self._layout is layout:
            return
        self._layout = None
        self._reserve(layout)
        staging, plan = self._host.array, layout.plan
        self.places = [
            staging[start : start + size]
            for start, size in zip(layout.starts, layout.sizes, strict=True)
        ]
        self._sent = staging[: layout.nbytes]
        self._launches = [
            self._functions[launch.kernel].prepare(
                launch.grid,
                launch.block,
                [self._addresses[name] for name in launch.arguments],
                launch.shared_bytes,
            )
            for launch in plan.launches
        ]
        if layout.offsets:
            base = self._addresses["descriptors"].value
            self.point(layout, [base + offset for offset in layout.offsets])
        self._layout = layout

    def point(self, layout: Layout, pointers: Sequence[int]) -> None:
        """Write the descriptors of images at these device addresses."""
        layout.plan.descriptors(pointers, self._host.array[: layout.plan.descriptor_bytes])

    def fill(self, images: Sequence[Image]) -> None:
        """Copy the images, of any shape and strides, to their places without gaps."""
        for place, image in zip(self.places, images, strict=True):
            if not isinstance(image, tuple):
                np.copyto(place.reshape(image.shape), image)
                continue
            start = 0
            for piece in image:
                np.copyto(place[start : start + piece.nbytes].reshape(piece.shape), piece)
                start += piece.nbytes

    def queue(self, tables: Tables, output: int, stream: Stream) -> None:
        """Queue the copy and the launches, which write to the device address `output`."""
        if self._input is not None:
            copy_to_device(self._input, self._sent, stream)
        self._addresses["tables"].value = tables.pointer
        self._addresses["output"].value = output
        for launch in self._launches:
            launch.queue(stream)

    def mark(self, stream: Stream) -> None:
        """Note that the memory is free again when `stream` gets here."""
        self._done.record(stream)

    def close(self) -> None:
        """Release all of it; may be called again."""
        for held in (self._done, self._scratch, self._input, self._staging):
            if held is not None:
                held.close()

    @property
    def _host(self) -> HostBuffer:
        assert self._staging is not None
        return self._staging

    def _reserve(self, layout: Layout) -> None:
        if self._staging is None or self._staging.nbytes < layout.nbytes:
            if self._staging is not None:
                self._staging.close()
                self._staging = None
            mapped = self._transfer == "mapped"
            shape = (_stepped(layout.nbytes),)
            self._staging = HostBuffer(self._device, shape, np.uint8, mapped=mapped)
        if self._transfer == "staged":
            self._input = _at_least(self._device, self._input, self._staging.nbytes)
            descriptors = self._input.pointer
        else:
            descriptors = self._staging.device_pointer
        self._scratch = _at_least(self._device, self._scratch, layout.plan.scratch_bytes)
        self._addresses["descriptors"].value = descriptors
        self._addresses["scratch"].value = self._scratch.pointer


class Batch:
    """A batch of fixed geometry, buffers and output; made by `CudaPreprocessor.prepare`.

    `fill` it, `queue` it or launch the graph that `queue` was captured in, and let the stream
    pass before filling it again. For one thread at a time.
    """

    def __init__(
        self, device: Device, lane: Lane, layout: Layout, tables: Tables, output_pointer: int
    ) -> None:
        self.shape = layout.plan.shape
        """Of the tensor."""
        self.dtype = layout.plan.dtype
        """Of the tensor."""
        self._device = device
        self._lane = lane
        self._layout = layout
        self._tables = tables
        self._output = output_pointer
        self._closed = False

    def fill(self, images: Sequence[Image]) -> None:
        """Take over the images.

        Parameters
        ----------
        images
            For each what its source says: all its bytes, uint8 of any shape and strides, in one
            array or in several whose bytes follow one another.

        Raises
        ------
        ImageError
            An image is not as long as its source says.
        UsageError
            There are more or fewer images than in the batch.
        """
        sizes = self._layout.sizes
        if len(images) != len(sizes):
            raise UsageError(f"{len(images)} images for a batch of {len(sizes)}")
        self._lane.fill([bytes_of(*pair) for pair in zip(images, sizes, strict=True)])

    @property
    def places(self) -> tuple[NDArray[np.uint8], ...]:
        """Page-locked memory of each image, uint8 with one axis, until `close`.

        A camera or decoder that writes into it saves the copy that `fill` makes: of a full-HD
        frame, most of what a batch costs the host.
        """
        return tuple(self._lane.places)

    def queue(self, stream: Stream) -> None:
        """Queue the copy and the launches; can be captured."""
        with self._device.use():
            self._lane.queue(self._tables, self._output, stream)

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


def _stepped(nbytes: int) -> int:
    return -(-nbytes // _STEP) * _STEP
