"""Preprocessing on the GPU: the pixels of the CPU's, written where the engine reads them."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from edge_fg.boxes import Region
from edge_fg.cuda import Device, Function, Module, Stream
from edge_fg.errors import CudaError, UsageError
from edge_fg.preprocess.batch_input import (
    Image,
    bytes_of,
    cut_out,
    distinct,
    size_in_bytes,
    source_of,
)
from edge_fg.preprocess.batch_layout import Layout, LayoutCache, TableCache
from edge_fg.preprocess.kernels import load_image
from edge_fg.preprocess.launch import KERNELS, LaunchPlan, LaunchPlanner
from edge_fg.preprocess.pixel_layout import PixelLayout
from edge_fg.preprocess.raw_frame import Pixels
from edge_fg.preprocess.spec import PreprocessSpec
from edge_fg.preprocess.staging import Batch, Lane, Transfer

LANES: Final = 2
"""Batches on their way at once, if nothing else is asked for: one is copied while the one before
is computed."""
GEOMETRIES: Final = 32
"""Batch geometries whose tables stay on the device."""


class CudaPreprocessor:
    """Turn frames into the tensor that a model takes, on the GPU.

    Bit for bit what `edge_fg.preprocess.CpuPreprocessor` gives. Nothing is allocated after the
    first batch of a geometry. Safe to call from several threads, each with its own stream.

    Parameters
    ----------
    device
        Where the tensor is to be; it must outlive this, or be closed to close it.
    spec
        What to do.
    max_batch
        Most images of one call.
    transfer
        ``mapped``: the kernels read the images in page-locked memory of the host; right where
        CPU and GPU share their memory, since a copy would only double the traffic. ``staged``:
        they are copied first; right for a card, whose kernels would otherwise fetch each
        neighbouring pixel through the bus. ``auto`` goes by whether the device is integrated;
        `edge_fg.preprocess.transfer.measure_transfers` checks that on a given machine.
    lanes
        Most batches on their way at once, each with memory of its own; more callers wait.
    image
        The compiled kernels; None takes those that are shipped.

    Raises
    ------
    BackendUnavailableError
        The kernels were not built for this GPU or are newer than its driver.
    """

    def __init__(
        self,
        device: Device,
        spec: PreprocessSpec,
        max_batch: int,
        *,
        transfer: Transfer | Literal["auto"] = "auto",
        lanes: int = LANES,
        image: bytes | None = None,
    ) -> None:
        if max_batch < 1 or lanes < 1:
            raise UsageError(f"max_batch {max_batch} and lanes {lanes} must be at least 1")
        self.spec = spec
        self.device = device
        self.max_batch = max_batch
        self.transfer: Transfer = transfer_for(device) if transfer == "auto" else transfer
        """``mapped`` or ``staged``."""
        self._planner = LaunchPlanner(spec, cached_plans=GEOMETRIES)
        self._layouts = LayoutCache(4 * GEOMETRIES)
        self._tables = TableCache(device, GEOMETRIES)
        if image is None:
            image = load_image(device.compute_capability, device.driver_version).data
        self._module = Module(device, image)
        self._functions: dict[str, Function] = {}
        # None wakes those who wait for a lane while this is closed.
        self._lanes: queue.SimpleQueue[Lane | None] = queue.SimpleQueue()
        self._made = 0
        self._closed = False
        try:
            self._functions.update((name, self._module.function(name)) for name in KERNELS)
            while self._made < lanes:
                self._lanes.put(Lane(device, self.transfer, self._functions))
                self._made += 1
        except BaseException:
            self.close()
            raise

    def __call__(
        self,
        frames: Sequence[Pixels],
        regions: Sequence[Region | None] | None,
        output_pointer: int,
        stream: Stream,
    ) -> None:
        """Queue the tensor for `frames`, or for one region of each, into `output_pointer`.

        Parameters
        ----------
        frames
            Each (H, W, 3) uint8 BGR, of any size and strides, or a raw frame, which is converted
            on the GPU; free to change on return. A frame that stands several times, for several
            regions, is copied once.
        regions
            (x, y, width, height) in pixels of each, None for all of a frame; None for all.
        output_pointer
            Device address for (N, 3, h, w) or (N, h, w, 3) of the specification's dtype.
        stream
            In which it happens: the tensor is there when the stream has passed. Don't capture
            this into a graph; capture what `prepare` returns.

        Raises
        ------
        ImageError
            A frame or region can't be used.
        UsageError
            There are no frames, or more than `max_batch`.
        CudaError
            The GPU refused, or this is closed.
        """
        samples, at, images = cut_out(frames, regions)
        layout = self._layouts.get((samples, at))
        if layout is None:
            plan = self._plan([source_of(sample) for sample in samples])
            sizes = [size_in_bytes(image) for image in images]
            layout = self._layouts.add((samples, at), Layout(plan, sizes, at))
        self._run(layout, images, None, output_pointer, stream)

    def raw(
        self,
        sources: Sequence[PixelLayout],
        images: Sequence[NDArray[np.uint8]],
        output_pointer: int,
        stream: Stream,
    ) -> None:
        """Queue the tensor for images of any format, as a call does for BGR.

        Parameters
        ----------
        sources
            What each image is, its region included.
        images
            The bytes of each source's frame: uint8, one axis, contiguous, at least the source's
            ``nbytes``. The same array may stand several times and is copied once.
        output_pointer, stream
            As for a call.

        Raises
        ------
        ImageError
            An image is not as long as its source says.
        """
        if len(images) != len(sources):
            raise UsageError(f"{len(images)} images for {len(sources)} sources")
        unique, at = distinct(images)
        layout = self._layout_of(sources, at)
        checked = [bytes_of(*pair) for pair in zip(unique, layout.sizes, strict=True)]
        self._run(layout, checked, None, output_pointer, stream)

    def on_device(
        self,
        sources: Sequence[PixelLayout],
        pointers: Sequence[int],
        output_pointer: int,
        stream: Stream,
    ) -> None:
        """Queue the tensor for frames that the device can read already.

        Parameters
        ----------
        sources
            What each frame is, its region included.
        pointers
            Device address of each source's frame, which must hold the source's ``nbytes`` until
            the stream has passed.
        output_pointer, stream
            As for a call.
        """
        if len(pointers) != len(sources):
            raise UsageError(f"{len(pointers)} pointers for {len(sources)} sources")
        layout = self._layout_of(sources, ())
        self._run(layout, [], pointers, output_pointer, stream)

    def prepare(
        self,
        sources: Sequence[PixelLayout],
        output_pointer: int,
        stream: Stream,
        at: Sequence[int] | None = None,
    ) -> Batch:
        """Return a batch of fixed geometry and output, whose work can be captured in a graph.

        Parameters
        ----------
        sources
            What each image will be.
        output_pointer
            As for a call.
        stream
            Used now, to bring the tables over.
        at
            For each source, which of the images it is in; None: each is in its own.
        """
        self._check_open()
        places = tuple(range(len(sources)) if at is None else at)
        if len(places) != len(sources) or set(places) != set(range(len(set(places)))):
            raise UsageError(f"at {places} must number the image of each source, from 0")
        layout = self._layout_of(sources, places)
        with self.device.use():
            lane = Lane(self.device, self.transfer, self._functions)
            try:
                lane.arrange(layout)
                tables = self._tables.take(layout.plan, stream)
            except BaseException:
                lane.close()
                raise
        return Batch(self.device, lane, layout, tables, output_pointer)

    def close(self) -> None:
        """Wait for the batches on their way, then release all; may be called again."""
        if self._closed:
            return
        self._closed = True
        for _ in range(self._made):
            lane = self._lanes.get()
            assert lane is not None
            lane.close()
        self._lanes.put(None)
        self._tables.clear()
        self._module.close()

    def __enter__(self) -> CudaPreprocessor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _run(
        self,
        layout: Layout,
        images: Sequence[Image],
        pointers: Sequence[int] | None,
        output_pointer: int,
        stream: Stream,
    ) -> None:
        self._check_open()
        tables = self._tables.take(layout.plan, stream)
        lane = self._lanes.get()
        try:
            if lane is None:
                raise _closed()
            with self.device.use(), _Returned(lane, stream):
                lane.arrange(layout)
                lane.fill(images)
                if pointers is not None:
                    lane.point(layout, pointers)
                lane.queue(tables, output_pointer, stream)
        finally:
            self._lanes.put(lane)
            tables.let_go()

    def _layout_of(self, sources: Sequence[PixelLayout], at: tuple[int, ...]) -> Layout:
        """Return how images of these sources lie in a lane; without `at`, they don't."""
        key = (tuple(sources), at)
        layout = self._layouts.get(key)
        if layout is None:
            needed = [0] * (max(at) + 1) if at else []
            for source, place in zip(sources, at, strict=False):
                needed[place] = max(needed[place], source.nbytes)
            layout = self._layouts.add(key, Layout(self._plan(sources), needed, at))
        return layout

    def _plan(self, sources: Sequence[PixelLayout]) -> LaunchPlan:
        if not 1 <= len(sources) <= self.max_batch:
            raise UsageError(f"a batch of {len(sources)} images: 1 to {self.max_batch} will do")
        return self._planner.plan(sources)

    def _check_open(self) -> None:
        if self._closed:
            raise _closed()


class _Returned:
    """Waits for a lane's memory on entry; on exit notes when it will be free again."""

    def __init__(self, lane: Lane, stream: Stream) -> None:
        self._lane = lane
        self._stream = stream

    def __enter__(self) -> None:
        self._lane.wait()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self._lane.mark(self._stream)
            return
        # Some of it may be queued already.
        with contextlib.suppress(CudaError):
            self._stream.synchronize()


def transfer_for(device: Device) -> Transfer:
    """Return how images get to `device` best: in place where it shares the host's memory."""
    return "mapped" if device.integrated else "staged"


def _closed() -> CudaError:
    return CudaError("the preprocessor is closed: make a new one")
