"""The CUDA graphs of an execution slot, one for each frame size that comes again and again."""

from __future__ import annotations

import contextlib
import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from edge_fg.closing import Closing
from edge_fg.cuda import Graph
from edge_fg.errors import CudaError
from edge_fg.preprocess.batch_input import BatchGeometry
from edge_fg.preprocess.staging import Batch

_log = logging.getLogger("edge_fg")

CAPTURE_AFTER: Final = 3
"""How often something must come before it is captured: a moving region's size seldom returns."""

MAX_FRAME_GRAPHS: Final = 4
"""Geometries that stay captured; the longest unused give way."""

_REMEMBERED: Final = 32


def close_or_log(held: Closing | contextlib.ExitStack, what: str) -> None:
    """Release something; a failure of the device goes to the log, since it is not used again."""
    try:
        held.close()
    except CudaError as error:
        _log.info("%s could not be released: %s", what, error)


@dataclass(frozen=True)
class FrameGraph:
    """What is done for a batch, captured."""

    batch: Batch  # Takes the images
    graph: Graph  # What is launched then
    whole: bool  # Whether the engine is part of it

    def close(self) -> None:
        """Release it, when the stream has passed."""
        close_or_log(self.graph, "a CUDA graph")
        close_or_log(self.batch, "a captured batch")


class FrameGraphs:
    """Counts geometries, and keeps the graphs of those that come again and again."""

    def __init__(self) -> None:
        self._seen: OrderedDict[BatchGeometry, int] = OrderedDict()
        self._kept: OrderedDict[BatchGeometry, FrameGraph] = OrderedDict()

    def find(self, geometry: BatchGeometry) -> FrameGraph | None:
        """Return the graph for a geometry, if there is one that can be launched."""
        found = self._kept.get(geometry)
        if found is None:
            return None
        if found.batch.moved:
            # Larger frames came. They seldom do, so that it is worth capturing this again.
            self._kept.pop(geometry).close()
            self._seen[geometry] = CAPTURE_AFTER - 1
            return None
        self._kept.move_to_end(geometry)
        return found

    def is_worth(self, geometry: BatchGeometry) -> bool:
        """Count a geometry that has no graph; return whether to capture it now."""
        times = self._seen.pop(geometry, 0) + 1
        self._seen[geometry] = times
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return times >= CAPTURE_AFTER

    def add(self, geometry: BatchGeometry, graph: FrameGraph) -> FrameGraph:
        """Keep a graph, and release the one that was not used for longest if there are many."""
        self._seen.pop(geometry, None)
        self._kept[geometry] = graph
        if len(self._kept) > MAX_FRAME_GRAPHS:
            self._kept.popitem(last=False)[1].close()
        return graph

    def drop_engine(self, batch: int) -> None:
        """Release the graphs that execute the engine with a batch size."""
        for geometry, graph in list(self._kept.items()):
            if graph.whole and len(geometry.layouts) == batch:
                self._kept.pop(geometry).close()

    def clear(self) -> None:
        """Release all graphs, when the stream has passed."""
        while self._kept:
            self._kept.popitem()[1].close()
