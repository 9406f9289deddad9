"""Staging memory, and the batches that are in it on their way to the GPU, one at a time."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Mapping, Sequence
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from edge_fg.closing import Closing
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
from edge_fg.preprocess.batch_input import BatchGeometry, Image, bytes_of
from edge_fg.preprocess.device_tables import Tables
from edge_fg.preprocess.launch import LaunchPlan, Pointer

Transfer = Literal["mapped", "staged"]
"""How an image gets to the GPU: read in place through page-locked memory, or copied over."""

_ALIGNMENT: Final = 256
_STEP: Final = 1 << 16
"""Memory is taken in steps of this many bytes, so that similar sizes share it."""


class BatchLayout:
    """How a batch lies in staging memory: descriptors first, then each image, at aligned places."""

    def __init__(self, plan: LaunchPlan, geometry: BatchGeometry) -> None:
        self.plan = plan
        sizes = [0] * (max(geometry.at, default=-1) + 1)
        # Where frames lie elsewhere on the device, there is no image to place.
        for place, nbytes in zip(geometry.at, plan.frame_bytes, strict=False):
            sizes[place] = max(sizes[place], nbytes)
        self.sizes = tuple(sizes)
        """Bytes of each image."""
        starts = [_rounded(plan.descriptor_bytes, _ALIGNMENT)]
        for size in sizes:
            starts.append(_rounded(starts[-1] + size, _ALIGNMENT))
        self.starts = tuple(starts[:-1])
        """Where each image starts, in bytes."""
        self.nbytes = starts[-1]
        """Of all."""
        self.offsets = tuple(starts[place] for place in geometry.at)
        """Where the image of each row of the tensor starts."""


class Staging(Closing):
    """The staging, input and scratch buffers of one batch at a time; they grow, never shrink.

    Descriptors and images lie behind one another in one page-locked block, so that one copy
    brings them all. `functions` are the kernels by their names. For one thread at a time.
    """

    def __init__(
        self, device: Device, transfer: Transfer, functions: Mapping[str, Function]
    ) -> None:
        self.device = device
        """Where the batch goes."""
        self.moves = 0
        """How often a buffer got another address: what was captured before is no longer valid."""
        self.places: list[NDArray[np.uint8]] = []
        """Page-locked memory of each image of the layout."""
        self._transfer = transfer
        self._functions = functions
        self._host: HostBuffer | None = None
        self._input: DeviceBuffer | None = None
        self._scratch: DeviceBuffer | None = None
        self._layout: BatchLayout | None = None
        self._launches: list[PreparedLaunch] = []
        # Shared by the prepared launches, which read them each time.
        self._addresses = {name: ctypes.c_uint64() for name in get_args(Pointer)}
        self._done = Event(device)

    def wait(self) -> None:
        """Wait until the stream has passed the last `mark`."""
        self._done.synchronize()

    def mark(self, stream: Stream) -> None:
        """Note that the memory is free again when `stream` gets here."""
        self._done.record(stream)

    def arrange(self, layout: BatchLayout) -> None:
        """Make ready for batches of `layout`; costs little if the last one had it too.

        Raises `DeviceMemoryError` if there is not enough memory.
        """
        if self._layout is layout:
            return
        self._layout = None
        self._launches = []
        self._reserve(layout)
        memory = self._memory(layout)
        self.places = [
            memory[start : start + size]
            for start, size in zip(layout.starts, layout.sizes, strict=True)
        ]
        if layout.offsets:
            base = self._addresses["descriptors"].value
            self.describe(layout, [base + offset for offset in layout.offsets])
        self._layout = layout

    def describe(self, layout: BatchLayout, pointers: Sequence[int]) -> None:
        """Write the descriptors of images at these device addresses."""
        layout.plan.descriptors(pointers, self._memory(layout)[: layout.plan.descriptor_bytes])

    def fill(self, images: Sequence[Image]) -> None:
        """Copy the images, of any shape and strides, to their places without gaps."""
        for place, image in zip(self.places, images, strict=True):
            start = 0
            for piece in image if isinstance(image, tuple) else (image,):
                np.copyto(place[start : start + piece.nbytes].reshape(piece.shape), piece)
                start += piece.nbytes

    def queue(self, layout: BatchLayout, tables: Tables, output: int, stream: Stream) -> None:
        """Queue the copy and the launches, which write to the device address `output`."""
        if self._transfer == "staged":
            assert self._input is not None  # `arrange` came before
            copy_to_device(self._input, self._memory(layout), stream)
        if not self._launches:
            self._launches = [
                self._functions[launch.kernel].prepare(
                    launch.grid,
                    launch.block,
                    [self._addresses[name] for name in launch.arguments],
                    launch.shared_bytes,
                )
                for launch in layout.plan.launches
            ]
        self._addresses["tables"].value = tables.pointer
        self._addresses["output"].value = output
        with self.device.use():
            for launch in self._launches:
                launch.queue(stream)

    def close(self) -> None:
        """Release all of it; may be called again."""
        for held in (self._done, self._scratch, self._input, self._host):
            if held is not None:
                held.close()

    def _memory(self, layout: BatchLayout) -> NDArray[np.uint8]:
        assert self._host is not None  # `arrange` came before
        return self._host.array[: layout.nbytes]

    def _reserve(self, layout: BatchLayout) -> None:
        mapped = self._transfer == "mapped"
        host = self._host
        if host is None or host.closed or host.nbytes < layout.nbytes:
            if host is not None:
                host.close()
            self.moves += 1
            shape = (_rounded(layout.nbytes, _STEP),)
            host = self._host = HostBuffer(self.device, shape, np.uint8, mapped=mapped)
        if mapped:
            descriptors = host.device_pointer
        else:
            self._input = self._at_least(self._input, host.nbytes)
            descriptors = self._input.pointer
        self._scratch = self._at_least(self._scratch, layout.plan.scratch_bytes)
        self._addresses["descriptors"].value = descriptors
        self._addresses["scratch"].value = self._scratch.pointer

    def _at_least(self, buffer: DeviceBuffer | None, nbytes: int) -> DeviceBuffer:
        if buffer is not None:
            if buffer.nbytes >= nbytes and not buffer.closed:
                return buffer
            buffer.close()
        self.moves += 1
        return DeviceBuffer(self.device, _rounded(nbytes, _STEP))


class Batch(Closing):
    """A batch of fixed geometry and output; made by `CudaPreprocessor`.

    `fill` it, `queue` it or launch the graph that `queue` was captured in, and let the stream
    pass before filling it again. For one thread at a time. `close` releases
    what is `held` for it: its tables, and the staging memory if that is its own.
    """

    def __init__(
        self,
        staging: Staging,
        layout: BatchLayout,
        tables: Tables,
        output_pointer: int,
        held: contextlib.ExitStack,
    ) -> None:
        self._staging = staging
        self._layout = layout
        self._tables = tables
        self._output = output_pointer
        staging.arrange(layout)
        self._moves = staging.moves
        self._held = held.pop_all()

    @property
    def moved(self) -> bool:
        """Whether the staging memory has moved since: a graph that was captured can't be used."""
        return self._staging.moves != self._moves

    @property
    def places(self) -> tuple[NDArray[np.uint8], ...]:
        """Page-locked memory of each image, uint8 with one axis, until `close`.

        A camera or decoder that writes into it saves the copy that `fill` makes: of a full-HD
        frame, most of what a batch costs the host.
        """
        return tuple(self._staging.places)

    def fill(self, images: Sequence[Image]) -> None:
        """Take over the images.

        Each is what its layout says: all its bytes, uint8 of any shape and strides, in one array or
        in several whose bytes follow one another. Raises `ImageError` if one has another length
        than its layout says, and `UsageError` if there are more or fewer images than in the batch.
        """
        sizes = self._layout.sizes
        if len(images) != len(sizes):
            raise UsageError(f"{len(images)} images for a batch of {len(sizes)}")
        checked = [bytes_of(*pair) for pair in zip(images, sizes, strict=True)]
        self._staging.arrange(self._layout)
        self._staging.fill(checked)

    def point(self, pointers: Sequence[int]) -> None:
        """Take the images from these device addresses instead, one for each row of the tensor."""
        self._staging.describe(self._layout, pointers)

    def queue(self, stream: Stream) -> None:
        """Queue the copy and the launches; can be captured."""
        self._staging.queue(self._layout, self._tables, self._output, stream)

    def close(self) -> None:
        """Release what it holds, once the device is done with it; may be called again."""
        self._held.close()


def _rounded(nbytes: int, step: int) -> int:
    return -(-nbytes // step) * step
