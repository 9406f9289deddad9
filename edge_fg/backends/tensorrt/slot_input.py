"""How frames get into a lane's input: prepared and captured for sizes that come again and again."""

from __future__ import annotations

import contextlib
import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, NamedTuple

from edge_fg.backends.base import Region
from edge_fg.cuda import Graph, Stream
from edge_fg.errors import BackendError, CudaError, DeviceLostError
from edge_fg.preprocess.batch_input import Sample, part_of, source_of
from edge_fg.preprocess.cuda import CudaPreprocessor
from edge_fg.preprocess.raw_frame import Pixels
from edge_fg.preprocess.staging import Batch

_log = logging.getLogger("edge_fg")

PREPARE_AFTER: Final = 3
"""How often sizes must come before they are prepared: a moving region's seldom return."""

MAX_PREPARED: Final = 4
"""Sizes that stay prepared, each with memory for its frames; the longest unused give way."""

_REMEMBERED: Final = 32

Sizes = tuple[Sample, ...]
"""Size and layout of each image of a batch."""


class _Prepared(NamedTuple):
    batch: Batch
    graph: Graph


class Intake:
    """Queues the tensor for frames into one place, in one stream.

    A camera's frames all have one size and layout: its copy and launches are captured as one CUDA
    graph, which costs the host one call. What is of others takes the preprocessor's usual way.

    Parameters
    ----------
    preprocess
        Does it; may be shared between intakes.
    output_pointer
        Device address of the tensor.
    stream
        In which it happens. Each batch must have passed before the next is queued.
    capture
        Whether sizes are prepared and captured.
    """

    def __init__(
        self, preprocess: CudaPreprocessor, output_pointer: int, stream: Stream, *, capture: bool
    ) -> None:
        self._preprocess = preprocess
        self._output = output_pointer
        self._stream = stream
        self._capturing = capture
        self._seen: OrderedDict[Sizes, int] = OrderedDict()
        self._prepared: OrderedDict[Sizes, _Prepared] = OrderedDict()

    def queue(self, frames: Sequence[Pixels], regions: Sequence[Region | None]) -> None:
        """Queue the tensor for frames, or for one region of each.

        Raises
        ------
        ImageError
            A frame can't be used.
        CudaError
            The device failed.
        """
        # Of one frame given several times the preprocessor makes a single copy.
        alone = len({id(frame) for frame in frames}) == len(frames)
        if self._capturing and alone:
            parts = [part_of(*pair) for pair in zip(frames, regions, strict=True)]
            ready = self._ready(tuple(sample for sample, _ in parts))
            if ready is not None:
                ready.batch.fill([image for _, image in parts])
                ready.graph.launch(self._stream)
                return
        self._preprocess(frames, regions, self._output, self._stream)

    def close(self) -> None:
        """Release what is prepared, when the stream has passed. May be called again."""
        while self._prepared:
            _release(self._prepared.popitem()[1])

    def _ready(self, sizes: Sizes) -> _Prepared | None:
        found = self._prepared.get(sizes)
        if found is not None:
            self._prepared.move_to_end(sizes)
            return found
        return self._prepare(sizes) if self._is_worth_it(sizes) else None

    def _is_worth_it(self, sizes: Sizes) -> bool:
        times = self._seen.pop(sizes, 0) + 1
        self._seen[sizes] = times
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return times >= PREPARE_AFTER

    def _prepare(self, sizes: Sizes) -> _Prepared | None:
        """Prepare and capture a batch; None, with a word in the log, where that fails."""
        if len(self._prepared) >= MAX_PREPARED:
            _release(self._prepared.popitem(last=False)[1])
        sources = [source_of(sample) for sample in sizes]
        with contextlib.ExitStack() as undone:
            try:
                batch = self._preprocess.prepare(sources, self._output, self._stream)
                undone.callback(batch.close)
                stream = self._stream
                graph = Graph.capture(stream, lambda: batch.queue(stream))
            except DeviceLostError:
                raise
            except BackendError as error:
                self._capturing = False
                _log.warning("no CUDA graph, frames are prepared call by call: %s", error)
                return None
            undone.pop_all()
        self._seen.pop(sizes, None)
        self._prepared[sizes] = _Prepared(batch, graph)
        return self._prepared[sizes]


def _release(prepared: _Prepared) -> None:
    for held in (prepared.graph, prepared.batch):
        try:
            held.close()
        except CudaError as error:
            _log.info("a prepared batch could not be released: %s", error)
