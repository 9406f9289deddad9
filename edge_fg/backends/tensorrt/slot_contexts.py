"""The contexts of an execution slot, of which some are captured, and where they write."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_fg.backends.tensorrt.engine import Engine
from edge_fg.backends.tensorrt.engine_context import Binding, Context
from edge_fg.backends.tensorrt.frame_graphs import CAPTURE_AFTER, FrameGraphs, close_or_log
from edge_fg.closing import Closing
from edge_fg.cuda import Device, DeviceBuffer, Graph, HostBuffer, Stream, copy_to_host
from edge_fg.errors import BackendError, DeviceLostError, DeviceMemoryError

_log = logging.getLogger("edge_fg")

MAX_CAPTURED_BATCHES: Final = 2
"""Captured batch sizes of a slot, each with a context: single frames, and full batches."""


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


class SlotContexts:
    """Executes an engine in one stream, captured where a batch size comes again and again.

    A graph holds the addresses and shapes that its context had when it was captured, and TensorRT
    forbids changing the context afterwards. Each captured batch size therefore has a context of its
    own; the spare one serves the others.

    Each batch must have passed the stream before the next is queued. `frames` are graphs that may
    use the contexts too. Without `capture` nothing is captured. `setting_up` is held while a
    context is made: by one slot of an engine at a time. Raises `DeviceMemoryError` if there is no
    memory for a context, and `BackendError` if TensorRT failed.
    """

    def __init__(
        self,
        engine: Engine,
        input_pointer: int,
        outputs: Sequence[OutputBuffer],
        stream: Stream,
        frames: FrameGraphs,
        *,
        capture: bool,
        setting_up: threading.Lock,
    ) -> None:
        self._engine = engine
        self._addresses = {output.name: output.pointer for output in outputs}
        self._addresses[engine.input.name] = input_pointer
        self._outputs = outputs
        self._stream = stream
        self._frames = frames
        # TensorRT-RTX captures on its own; what it specialises later could not be seen in ours.
        self._capturing = capture and not engine.captures_itself
        self._setting_up = setting_up
        self._seen: Counter[int] = Counter()
        self._graphs: dict[int, Graph] = {}
        self._captured: dict[int, Context] = {}
        self._spare: Context | None = self._new()

    def execute(self, batch: int) -> None:
        """Queue the engine and the copy of its outputs, as a graph where that is worth it."""
        graph = self._graphs.get(batch)
        self._seen[batch] += 1
        if graph is None and (batch in self._captured or self._seen[batch] >= CAPTURE_AFTER):
            graph = self._capture(batch)
        if graph is not None:
            graph.launch(self._stream)
        else:
            self.enqueue(self._spare_one(), batch)

    def enqueue(self, context: Context, batch: int) -> None:
        """Queue the engine and the copy of its outputs by themselves; can be captured."""
        context.set_batch(batch)
        context.enqueue(self._stream)
        for output in self._outputs:
            output.fetch(batch, self._stream)

    def to_capture(self, batch: int) -> Context | None:
        """Return a context that is ready to be captured with a batch size, where one may be."""
        found, capturing = self._captured.get(batch), self._capturing
        if found is not None or not capturing or len(self._captured) >= MAX_CAPTURED_BATCHES:
            return found
        context = self._spare_one()
        if not self._capturing:
            return None
        # TensorRT finishes its preparation in the first inference, outside the capture.
        self.enqueue(context, batch)
        self._stream.synchronize()
        return context

    def keep(self, batch: int, context: Context) -> None:
        """Note that a context belongs to the graphs of a batch size from here on."""
        if batch not in self._captured:
            self._captured[batch] = context
            self._spare = None
            _log.info("batches of %d run as a CUDA graph", batch)

    def close(self) -> None:
        """Release graphs and contexts. May be called again."""
        for batch in list(self._captured):
            self._release(batch).close()
        if self._spare is not None:
            self._spare.close()
            self._spare = None

    def _capture(self, batch: int) -> Graph | None:
        """Capture the engine alone; None, with a warning, if that fails."""
        try:
            context = self.to_capture(batch)
            if context is None:
                return None
            graph = Graph.capture(self._stream, partial(self.enqueue, context, batch))
        except DeviceLostError:
            raise
        except BackendError as error:
            self._capturing = False
            _log.warning("no CUDA graph, each kernel is launched by itself: %s", error)
            return None
        self.keep(batch, context)
        self._graphs[batch] = graph
        return graph

    def _spare_one(self) -> Context:
        """Return the context that is not captured; makes one, or gives a capture up for it."""
        if self._spare is None:
            try:
                with self._setting_up:
                    self._spare = self._new()
            except DeviceMemoryError as error:
                if not self._captured:
                    raise
                self._capturing = False
                self._spare = self._release(next(reversed(self._captured)))
                _log.warning("fewer CUDA graphs, the GPU's memory is full: %s", error)
        return self._spare

    def _release(self, batch: int) -> Context:
        """Give up the graphs of a batch size; return their context."""
        self._frames.drop_engine(batch)
        graph = self._graphs.pop(batch, None)
        if graph is not None:
            close_or_log(graph, "a CUDA graph")
        return self._captured.pop(batch)

    def _new(self) -> Context:
        context = self._engine.new_context()
        try:
            context.bind(self._addresses, self._stream)
        except BaseException:
            context.close()
            raise
        return context
