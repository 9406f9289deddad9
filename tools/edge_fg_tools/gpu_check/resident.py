"""The kernels alone, on frames that lie in the GPU's memory, captured in CUDA graphs."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_fg.cuda import DeviceBuffer, Graph, Module, Stream, copy_to_device, copy_to_host
from edge_fg.preprocess.geometry import geometry
from edge_fg.preprocess.kernels import load_image
from edge_fg.preprocess.launch import LaunchPlan, LaunchPlanner
from edge_fg.preprocess.tables import across, down
from edge_fg_tools.gpu_check.cases import Case
from edge_fg_tools.gpu_check.timing import Work

_MOST_COPIES: Final = 48
"""Sets of frames that take turns at most, whatever a cache may hold."""


def bytes_to_move(case: Case) -> tuple[int, int]:
    """Return how many bytes of the frames the result depends on, and how many it has itself.

    Rows and columns that the crop does not reach are not counted, nor what the kernels write
    between their launches: both would make the share of the copy rate look better.
    """
    spec = case.spec
    read = 0.0
    for source in case.sources:
        _, _, width, height = source.part
        plan = geometry(spec, height, width)
        top, left, rows, columns = plan.crop
        how = spec.resize.filter, spec.resize.antialias
        tiles = across(width, plan.resized[1], *how, left, columns).extra
        needed = len(down(height, plan.resized[0], *how, top, rows).extra)
        wide = int(tiles[:, 1].max() - tiles[:, 0].min())
        read += needed * wide * source.nbytes / (source.width * source.height)
    return round(read), case.tensor_bytes


@contextlib.contextmanager
def resident_batches(
    stream: Stream, case: Case, cache_bytes: int
) -> Iterator[tuple[list[Work], Callable[[], NDArray[Any]]]]:
    """Hold copies of a case's batch in the GPU's memory, each with the graph that preprocesses it.

    Together they have at least `cache_bytes`, so that a cache of that size holds no frame until
    its turn comes again. Yields work for each copy, which queues its graph, and what returns the
    tensor of the batch that was queued last.
    """
    device = stream.device
    plan = LaunchPlanner(case.spec).plan(case.sources)
    size = sum(frame.nbytes for frame in case.data)
    copies = min(_MOST_COPIES, max(1, -(-cache_bytes // size)))
    tensor = np.zeros(plan.shape, plan.dtype)
    with contextlib.ExitStack() as held:
        image = load_image(device.compute_capability, device.driver_version).data
        module = held.enter_context(Module(device, image))
        output = held.enter_context(DeviceBuffer(device, tensor.nbytes))
        places = {
            "tables": _uploaded(held, stream, plan.tables),
            "scratch": held.enter_context(DeviceBuffer(device, plan.scratch_bytes)),
            "output": output,
        }
        works: list[Work] = []
        for _ in range(copies):
            frames = [_uploaded(held, stream, frame).pointer for frame in case.data]
            described = _uploaded(held, stream, plan.descriptors(frames))
            graph = _captured(stream, module, plan, {**places, "descriptors": described})
            works.append(functools.partial(held.enter_context(graph).launch, stream))
        stream.synchronize()

        def last_tensor() -> NDArray[Any]:
            copy_to_host(tensor, output, stream)
            stream.synchronize()
            return tensor

        yield works, last_tensor


def _captured(
    stream: Stream, module: Module, plan: LaunchPlan, places: dict[str, DeviceBuffer]
) -> Graph:
    launches = [
        module.function(launch.kernel).prepare(
            launch.grid,
            launch.block,
            [places[name] for name in launch.arguments],
            launch.shared_bytes,
        )
        for launch in plan.launches
    ]

    def queue() -> None:
        for launch in launches:
            launch.queue(stream)

    return Graph.capture(stream, queue)


def _uploaded(held: contextlib.ExitStack, stream: Stream, array: NDArray[np.uint8]) -> DeviceBuffer:
    buffer = held.enter_context(DeviceBuffer(stream.device, array.nbytes))
    copy_to_device(buffer, np.ascontiguousarray(array), stream)
    stream.synchronize()
    return buffer
