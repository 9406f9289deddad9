"""An engine without TensorRT: its output is a copy of its input, made by the GPU.

It has what execution slots need of an engine, and queues its copy in the stream that it is given.
So slots, their CUDA graphs and the host's part of a frame run on a real driver also where no
TensorRT is, and their outputs are known to the bit: the preprocessed frames.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Final, cast

import numpy as np

from edge_fg.backends.tensorrt.engine import Engine
from edge_fg.backends.tensorrt.engine_context import Binding, Context
from edge_fg.backends.tensorrt.execution_slot import ExecutionSlot
from edge_fg.cuda import Device, Stream
from edge_fg.cuda.pool import Pool
from edge_fg.preprocess import PreprocessSpec
from edge_fg.preprocess.cuda import CudaPreprocessor
from edge_fg_tools.gpu_check.timing import copy_within

MAX_BATCH: Final = 8
OUTPUT: Final = "copy"


class StandInEngine:
    """Takes batches of up to `MAX_BATCH` preprocessed frames; its output ``copy`` is the same."""

    captures_itself = False
    fixed_batch = None
    max_batch = MAX_BATCH

    def __init__(self, device: Device, spec: PreprocessSpec) -> None:
        self.device = device
        shape, dtype = (-1, *spec.tensor_shape), np.dtype(spec.dtype)
        self.input = Binding("input", dtype, shape)
        self.outputs = (Binding(OUTPUT, dtype, shape),)
        self._contexts: list[StandInContext] = []

    @property
    def queued(self) -> int:
        """How often the host queued its work: captures count, launches of a graph do not."""
        return sum(context.queued for context in self._contexts)

    def new_context(self) -> Context:
        """Return a context; it has what `Context` has."""
        context = StandInContext(self)
        self._contexts.append(context)
        return cast("Context", context)


class StandInContext:
    """Queues the engine's copy."""

    def __init__(self, engine: StandInEngine) -> None:
        self.queued = 0
        self._input = engine.input
        self._addresses: Mapping[str, int] = {}
        self._batch = 0

    def bind(self, addresses: Mapping[str, int], stream: Stream) -> None:
        """Take note of where the input and the output lie."""
        stream.synchronize()
        self._addresses = dict(addresses)

    def set_batch(self, batch: int) -> None:
        """Set the batch of what is queued next."""
        self._batch = batch

    def enqueue(self, stream: Stream) -> None:
        """Queue the copy of a batch."""
        source, nbytes = self._addresses[self._input.name], self._input.nbytes(self._batch)
        copy_within(self._addresses[OUTPUT], source, nbytes, stream)
        self.queued += 1

    def close(self) -> None:
        """Do nothing: it holds nothing."""


@contextlib.contextmanager
def open_slots(
    engine: StandInEngine, spec: PreprocessSpec, *, cuda_graph: bool, limit: int = 1
) -> Iterator[Pool[ExecutionSlot]]:
    """Lend up to `limit` execution slots, as the backend opens and closes them."""
    with CudaPreprocessor(engine.device, spec, MAX_BATCH) as preprocess:
        make = partial(
            ExecutionSlot,
            cast("Engine", engine),
            preprocess,
            cuda_graph=cuda_graph,
            sleep=engine.device.integrated,
            setting_up=threading.Lock(),
        )
        slots = Pool([make()], make, limit)
        try:
            yield slots
        finally:
            for slot in slots.items:
                slot.close_execution()
            for slot in slots.items:
                slot.close_memory()
