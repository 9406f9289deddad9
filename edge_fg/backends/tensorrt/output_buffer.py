"""Where an engine writes one of its outputs, and how it comes to the host."""

from __future__ import annotations

import contextlib

import numpy as np
from numpy.typing import NDArray

from edge_fg.backends.tensorrt.engine_context import Binding
from edge_fg.closing import Closing
from edge_fg.cuda import Device, DeviceBuffer, HostBuffer, Stream, copy_to_host


class OutputBuffer(Closing):
    """Memory for one output of an engine, up to its largest batch.

    On an integrated device the engine writes into page-locked memory of the host itself;
    elsewhere a copy on the stream is faster than writes across the bus.
    """

    def __init__(self, device: Device, binding: Binding, max_batch: int) -> None:
        self.name = binding.name
        """Of the output."""
        self._on_device: DeviceBuffer | None = None
        with contextlib.ExitStack() as memory:
            host = memory.enter_context(
                HostBuffer(device, binding.at(max_batch), binding.dtype, mapped=device.integrated)
            )
            self._array = host.array
            if device.integrated:
                self.pointer = host.device_pointer
                """Address on the device that the engine writes to."""
            else:
                self._on_device = memory.enter_context(
                    DeviceBuffer(device, binding.nbytes(max_batch))
                )
                self.pointer = self._on_device.pointer
            self._memory = memory.pop_all()

    def fetch(self, batch: int, stream: Stream) -> None:
        """Queue the copy to the host, where one is needed."""
        if self._on_device is not None:
            copy_to_host(self._array[:batch], self._on_device, stream)

    def take(self, batch: int) -> NDArray[np.float32]:
        """Return a copy of what was computed, once the stream has passed."""
        return self._array[:batch].astype(np.float32)

    def close(self) -> None:
        """Release its memory; may be called again."""
        self._memory.close()
