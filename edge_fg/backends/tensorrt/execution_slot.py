"""Lanes: what one thread needs to run frames through an engine, and the pool that shares them.

A lane has a stream, the engine's input and outputs in memory, and contexts. It allocates nothing
per frame. Lanes run beside each other; within one everything is in order.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_fg.backends.base import Region
from edge_fg.backends.tensorrt.engine import Binding, Context, Engine
from edge_fg.backends.tensorrt.slot_input import Intake
from edge_fg.cuda import Device, DeviceBuffer, Event, Graph, HostBuffer, Stream, copy_to_host
from edge_fg.errors import BackendError, CudaError, DeviceLostError, DeviceMemoryError
from edge_fg.preprocess.cuda import CudaPreprocessor
from edge_fg.preprocess.raw_frame import Pixels

_log = logging.getLogger("edge_fg")

Tensors = dict[str, NDArray[np.float32]]

CAPTURE_AFTER: Final = 3
"""How often a batch size must come before it is captured: a size that came once seldom returns."""

MAX_GRAPHS: Final = 2
"""Captured batch sizes of a lane: single frames, and full batches of several."""


class Lane:
    """Runs batches through an engine, one at a time.

    A captured CUDA graph holds the addresses and shapes that its context had, and TensorRT
    forbids changing the context afterwards: each captured batch size has a context of its own,
    and there is another for the rest once there is a rest.

    Parameters
    ----------
    engine
        What executes.
    preprocess
        Turns frames into the engine's input; may be shared between lanes.
    cuda_graph
        Whether batch sizes that come again and again are captured.
    sleep
        Whether the thread sleeps while it waits for the device.
    setting_up
        Held while something is allocated or captured, by all lanes of an engine.

    Raises
    ------
    DeviceMemoryError
        The device is too small for another lane.
    CudaError, BackendError
        The device or TensorRT failed.
    """

    def __init__(
        self,
        engine: Engine,
        preprocess: CudaPreprocessor,
        *,
        cuda_graph: bool,
        sleep: bool,
        setting_up: threading.Lock,
    ) -> None:
        self._engine = engine
        self._device: Device = engine.device
        # TensorRT-RTX captures on its own; what it specialises later could not be seen in ours.
        self._capturing = cuda_graph and not engine.captures_itself
        self._setting_up = setting_up
        self._seen: Counter[int] = Counter()
        self._graphs: dict[int, tuple[Context, Graph]] = {}
        self._context: Context | None = None
        with setting_up, contextlib.ExitStack() as memory:
            self._stream = memory.enter_context(Stream(self._device))
            self._began = memory.enter_context(Event(self._device, timing=True))
            self._ended = memory.enter_context(Event(self._device, timing=True, blocking=sleep))
            size = _bytes(engine.input, engine.max_batch)
            self._input = memory.enter_context(DeviceBuffer(self._device, size))
            self._outputs = [
                _Output(self._device, binding, engine.max_batch, memory)
                for binding in engine.outputs
            ]
            self._intake = Intake(preprocess, self._input.pointer, self._stream, capture=cuda_graph)
            self._context = self._new_context()
            self._memory = memory.pop_all()

    def run(
        self, frames: Sequence[Pixels], regions: Sequence[Region | None]
    ) -> tuple[Tensors, float]:
        """Return the outputs for frames, at most the engine's largest batch, and the time.

        Returns
        -------
        dict of (N, ...) float32, float
            By the output's name, and the milliseconds that the engine took on the device.

        Raises
        ------
        ImageError
            A frame can't be used.
        DeviceLostError, CudaError, BackendError
            The device or TensorRT failed.
        """
        wanted = len(frames)
        batch = self._engine.fixed_batch or wanted
        frames = [*frames, *[frames[-1]] * (batch - wanted)]
        regions = [*regions, *[regions[-1]] * (batch - wanted)]
        try:
            with self._device.use():
                self._intake.queue(frames, regions)
                self._began.record(self._stream)
                self._execute(batch)
                self._ended.record(self._stream)
                self._ended.synchronize()
                elapsed = self._ended.elapsed_ms_since(self._began)
        except BaseException as error:
            self._settle(error)
            raise
        return {output.name: output.take(wanted) for output in self._outputs}, elapsed

    def close_execution(self) -> None:
        """Release graphs and contexts; the lane can't be used afterwards. May be called again."""
        for context, graph in self._graphs.values():
            with _words("release a CUDA graph"):
                graph.close()
            context.close()
        self._graphs = {}
        self._intake.close()
        if self._context is not None:
            self._context.close()
            self._context = None

    def close_memory(self) -> None:
        """Release buffers, then the stream, after the engine. May be called again."""
        with _words("release a lane's memory"):
            self._memory.close()

    def _new_context(self) -> Context:
        context = self._engine.new_context()
        try:
            places = {output.name: output.pointer for output in self._outputs}
            places[self._engine.input.name] = self._input.pointer
            context.bind(places, self._stream)
        except BaseException:
            context.close()
            raise
        return context

    def _execute(self, batch: int) -> None:
        captured = self._graphs.get(batch)
        if captured is None and self._capturing and self._is_worth_capturing(batch):
            captured = self._capture(batch)
        if captured is not None:
            captured[1].launch(self._stream)
        else:
            self._enqueue(self._spare_context(), batch)

    def _spare_context(self) -> Context:
        """Return the context that is not captured; makes one, or gives a capture up for it."""
        if self._context is None:
            try:
                with self._setting_up:
                    self._context = self._new_context()
            except DeviceMemoryError as error:
                if not self._graphs:
                    raise
                self._capturing = False
                self._context, graph = self._graphs.popitem()[1]
                graph.close()
                _log.warning("fewer CUDA graphs, the GPU's memory is full: %s", error)
        return self._context

    def _enqueue(self, context: Context, batch: int) -> None:
        context.set_batch(batch)
        context.enqueue(self._stream)
        for output in self._outputs:
            output.fetch(batch, self._stream)

    def _is_worth_capturing(self, batch: int) -> bool:
        self._seen[batch] += 1
        return len(self._graphs) < MAX_GRAPHS and self._seen[batch] == CAPTURE_AFTER

    def _capture(self, batch: int) -> tuple[Context, Graph] | None:
        """Capture a batch size; None, with a word in the log, where that fails."""
        context = self._spare_context()
        if not self._capturing:
            return None
        try:
            # TensorRT finishes its preparation in the first inference, outside the capture.
            self._enqueue(context, batch)
            self._stream.synchronize()
            graph = Graph.capture(self._stream, lambda: self._enqueue(context, batch))
        except DeviceLostError:
            raise
        except BackendError as error:
            self._capturing = False
            _log.warning("no CUDA graph, each kernel is launched by itself: %s", error)
            return None
        # From here on it belongs to the graph.
        self._context = None
        self._graphs[batch] = (context, graph)
        _log.info("batches of %d run as a CUDA graph", batch)
        return self._graphs[batch]

    def _settle(self, error: BaseException) -> None:
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


class _Output:
    """One output of an engine: where it is written, and how it comes to the host.

    On an integrated device the engine writes into page-locked memory of the host itself;
    elsewhere a copy on the stream is faster than writes across the bus.
    """

    def __init__(
        self, device: Device, binding: Binding, max_batch: int, memory: contextlib.ExitStack
    ) -> None:
        self.name = binding.name
        shape = (max_batch, *binding.at(max_batch)[1:])
        self._host = memory.enter_context(
            HostBuffer(device, shape, binding.dtype, mapped=device.integrated)
        )
        self._array = self._host.array
        self._device_side: DeviceBuffer | None = None
        if device.integrated:
            self.pointer = self._host.device_pointer
        else:
            size = _bytes(binding, max_batch)
            self._device_side = memory.enter_context(DeviceBuffer(device, size))
            self.pointer = self._device_side.pointer

    def fetch(self, batch: int, stream: Stream) -> None:
        """Queue the copy to the host, where one is needed."""
        if self._device_side is not None:
            copy_to_host(self._array[:batch], self._device_side, stream)

    def take(self, batch: int) -> NDArray[np.float32]:
        """Return a copy of what was computed, once the stream has passed."""
        return self._array[:batch].astype(np.float32)


def _bytes(binding: Binding, batch: int) -> int:
    return int(np.prod(binding.at(batch), dtype=np.int64)) * binding.dtype.itemsize


@contextlib.contextmanager
def _words(action: str) -> Iterator[None]:
    """Log what fails while something is released: there is nothing left that it could spoil."""
    try:
        yield
    except CudaError as error:
        _log.info("could not %s: %s", action, error)


class LanePool:
    """Lanes that threads borrow; made when needed, up to a limit.

    Parameters
    ----------
    make
        Makes a lane.
    limit
        Most lanes; further threads wait.

    Raises
    ------
    EdgeFGError
        What `make` raises for the first lane, which is made at once.
    """

    def __init__(self, make: Callable[[], Lane], limit: int) -> None:
        self._make = make
        self._limit = limit
        self._changed = threading.Condition()
        self._lanes: list[Lane] = [make()]
        self._free: list[Lane] = list(self._lanes)
        self._making = 0
        self._stopped: str | None = None

    @property
    def closed(self) -> bool:
        """Whether it lends no more."""
        return self._stopped is not None

    @contextlib.contextmanager
    def lane(self) -> Iterator[Lane]:
        """Lend a lane while the block runs; waits for one where all are lent.

        Raises
        ------
        BackendError
            The pool is closed.
        """
        lane = self._borrow()
        try:
            yield lane
        finally:
            with self._changed:
                self._free.append(lane)
                self._changed.notify_all()

    def stop(self, reason: str) -> None:
        """Lend no more; whoever asks is told the `reason`, the first one given."""
        with self._changed:
            self._stopped = self._stopped or reason
            self._changed.notify_all()

    def drain(self) -> None:
        """Wait until every lane is back, after `stop`."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._free) == len(self._lanes) and not self._making)

    def close_execution(self) -> None:
        """Release the contexts of all lanes, after `drain`."""
        for lane in self._lanes:
            lane.close_execution()

    def close_memory(self) -> None:
        """Release what else the lanes hold, after their engine."""
        for lane in self._lanes:
            lane.close_memory()

    def _borrow(self) -> Lane:
        with self._changed:
            while True:
                if self._stopped is not None:
                    raise BackendError(self._stopped)
                if self._free:
                    # The last one returned is the warmest.
                    return self._free.pop()
                if len(self._lanes) + self._making < self._limit:
                    self._making += 1
                    break
                self._changed.wait()
        return self._grow()

    def _grow(self) -> Lane:
        lane: Lane | None = None
        try:
            lane = self._make()
        except DeviceMemoryError as error:
            _log.warning(
                "%d threads share the GPU, not %d: %s", len(self._lanes), self._limit, error
            )
            self._limit = len(self._lanes)
        finally:
            with self._changed:
                self._making -= 1
                if lane is not None:
                    self._lanes.append(lane)
                self._changed.notify_all()
        return self._borrow() if lane is None else lane
