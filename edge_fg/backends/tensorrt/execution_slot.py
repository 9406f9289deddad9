"""Execution slots: context, stream and buffers of one inference in flight.

A slot allocates nothing per frame. Slots run beside each other; within one everything is in order.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_fg.backends.tensorrt.engine import Engine
from edge_fg.backends.tensorrt.frame_graphs import FrameGraph, FrameGraphs, close_or_log
from edge_fg.backends.tensorrt.slot_contexts import OutputBuffer, SlotContexts
from edge_fg.boxes import Region
from edge_fg.cuda import DeviceBuffer, Event, Graph, Stream
from edge_fg.errors import BackendError, CudaError, DeviceLostError
from edge_fg.preprocess.batch_factory import BatchFactory
from edge_fg.preprocess.batch_input import BatchGeometry, BatchInput, batch_input
from edge_fg.preprocess.raw_frame import Pixels
from edge_fg.preprocess.staging import Batch

_log = logging.getLogger("edge_fg")

Tensors = dict[str, NDArray[np.float32]]


class ExecutionSlot:
    """Runs batches through an engine, one at a time.

    Frames whose sizes come again and again run as one CUDA graph: the copy to the device, the
    preprocessing, the engine and the copy of its outputs. Other frames are preprocessed call by
    call; the engine then runs as a graph of its own where the batch size comes again and again.
    Without `cuda_graph` nothing is captured.

    `preprocess` may be shared between slots. `sleep` says whether the thread sleeps while it waits
    for the device. `setting_up` is held by one slot of an engine at a time while it makes its
    buffers or a context. Raises `DeviceMemoryError` if the device is too small for another slot,
    and `CudaError` or `BackendError` if the device or TensorRT failed.
    """

    def __init__(
        self,
        engine: Engine,
        preprocess: BatchFactory,
        *,
        cuda_graph: bool,
        sleep: bool,
        setting_up: threading.Lock,
    ) -> None:
        self._engine = engine
        self._device = engine.device
        self._preprocess = preprocess
        self._capturing = cuda_graph
        self._frames = FrameGraphs()
        device, batch = self._device, engine.max_batch
        with setting_up, contextlib.ExitStack() as memory:
            self._stream = memory.enter_context(Stream(device))
            self._began = memory.enter_context(Event(device, timing=True))
            self._ended = memory.enter_context(Event(device, timing=True, blocking=sleep))
            self._input = memory.enter_context(DeviceBuffer(device, engine.input.nbytes(batch)))
            self._outputs = [
                memory.enter_context(OutputBuffer(device, binding, batch))
                for binding in engine.outputs
            ]
            self._staging = memory.enter_context(preprocess.new_staging())
            self._contexts = SlotContexts(
                engine,
                self._input.pointer,
                self._outputs,
                self._stream,
                self._frames,
                capture=cuda_graph,
                setting_up=setting_up,
            )
            self._memory = memory.pop_all()

    def run(
        self, frames: Sequence[Pixels], regions: Sequence[Region | None]
    ) -> tuple[Tensors, float]:
        """Return the outputs for frames, and the milliseconds that the engine took on the device.

        Frames are at most the engine's largest batch; outputs are (N, ...) float32 by the output's
        name. Raises `ImageError` if a frame can't be used, and `DeviceLostError`, `CudaError` or
        `BackendError` if the device or TensorRT failed.
        """
        wanted = len(frames)
        batch = self._engine.fixed_batch or wanted
        missing = batch - wanted
        given = batch_input(
            [*frames, *[frames[-1]] * missing], [*regions, *[regions[-1]] * missing]
        )
        try:
            with self._device.use():
                self._queue(given, batch)
                self._ended.record(self._stream)
                self._ended.synchronize()
                elapsed = self._ended.elapsed_ms_since(self._began)
        except BaseException as error:
            self._wait_after(error)
            raise
        return {output.name: output.take(wanted) for output in self._outputs}, elapsed

    def close_execution(self) -> None:
        """Release graphs and contexts; the slot can't be used afterwards. May be called again."""
        self._frames.clear()
        self._contexts.close()

    def close_memory(self) -> None:
        """Release buffers, then the stream, after the engine. May be called again."""
        close_or_log(self._memory, "a slot's memory")

    def _queue(self, given: BatchInput, batch: int) -> None:
        """Queue all that is done for a batch, from the copy of its frames to its outputs."""
        graph = self._frames.find(given.geometry)
        if graph is None and self._capturing and self._frames.is_worth(given.geometry):
            graph = self._capture(given.geometry, batch)
        if graph is None:
            with self._new_batch(given.geometry) as prepared:
                prepared.fill(given.images)
                prepared.queue(self._stream)
        else:
            graph.batch.fill(given.images)
            graph.graph.launch(self._stream)
            if graph.whole:
                return
        self._began.record(self._stream)
        self._contexts.execute(batch)

    def _capture(self, geometry: BatchGeometry, batch: int) -> FrameGraph | None:
        """Capture what is done for frames of these sizes; None, with a warning, if that fails."""
        try:
            with contextlib.ExitStack() as undone:
                prepared = undone.enter_context(self._new_batch(geometry))
                context = self._contexts.to_capture(batch)

                def work() -> None:
                    prepared.queue(self._stream)
                    if context is not None:
                        self._began.record(self._stream, in_graph=True)
                        self._contexts.enqueue(context, batch)

                captured = Graph.capture(self._stream, work)
                undone.pop_all()
        except DeviceLostError:
            raise
        except BackendError as error:
            self._capturing = False
            _log.warning("no CUDA graph, frames are prepared call by call: %s", error)
            return None
        if context is not None:
            self._contexts.keep(batch, context)
        return self._frames.add(geometry, FrameGraph(prepared, captured, context is not None))

    def _new_batch(self, geometry: BatchGeometry) -> Batch:
        return self._preprocess.batch(
            geometry, self._input.pointer, self._stream, staging=self._staging
        )

    def _wait_after(self, error: BaseException) -> None:
        """Wait for what is under way, so that the next batch finds the buffers free.

        Where that shows that the device is lost, this is the failure to report.
        """
        try:
            self._stream.synchronize()
        except DeviceLostError as lost:
            if not isinstance(error, DeviceLostError):
                raise lost from error
        except CudaError as again:
            _log.info("waiting for the device after a failure failed too: %s", again)
