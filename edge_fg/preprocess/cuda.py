"""Preprocessing on the GPU: the pixels of the CPU's, written where the engine reads them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from edge_fg.boxes import Region
from edge_fg.closing import Closing
from edge_fg.cuda import Device, Function, Module, Stream
from edge_fg.cuda.pool import Pool
from edge_fg.errors import CudaError, UsageError
from edge_fg.preprocess.batch import Batch
from edge_fg.preprocess.batch_input import BatchGeometry, batch_input, bytes_of, distinct
from edge_fg.preprocess.batch_layout import BatchLayout, TableCache
from edge_fg.preprocess.kernels import load_image
from edge_fg.preprocess.launch import KERNELS, LaunchPlanner
from edge_fg.preprocess.pixel_layout import PixelLayout
from edge_fg.preprocess.raw_frame import Pixels
from edge_fg.preprocess.spec import PreprocessSpec
from edge_fg.preprocess.staging import Staging, Transfer

_UNDER_WAY: Final = 2
"""Batches of calls under way at once: one is copied while the one before is computed."""
_GEOMETRIES: Final = 32
"""Batch geometries whose tables stay on the device."""


class CudaPreprocessor(Closing):
    """Turn frames into the tensor that a model takes, on the GPU.

    Bit for bit what `edge_fg.preprocess.CpuPreprocessor` gives. Nothing is allocated after the
    first batch of a geometry. Safe to call from several threads, each with its own stream; two
    batches may be under way at once, a third caller waits.

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
        image: bytes | None = None,
    ) -> None:
        if max_batch < 1:
            raise UsageError(f"max_batch {max_batch} must be at least 1")
        self.spec = spec
        self.device = device
        self.max_batch = max_batch
        self.transfer: Transfer = transfer_for(device) if transfer == "auto" else transfer
        """``mapped`` or ``staged``."""
        self._planner = LaunchPlanner(spec, cached_plans=_GEOMETRIES)
        self._layout = functools.lru_cache(maxsize=4 * _GEOMETRIES)(self._new_layout)
        self._tables = TableCache(device, _GEOMETRIES)
        if image is None:
            image = load_image(device.compute_capability, device.driver_version).data
        self._module = Module(device, image)
        self._functions: dict[str, Function] = {}
        with contextlib.ExitStack() as made:
            made.callback(self._module.close)
            self._functions.update((name, self._module.function(name)) for name in KERNELS)
            stagings = [made.enter_context(self.new_staging()) for _ in range(_UNDER_WAY)]
            made.pop_all()
        self._stagings = Pool(stagings, in_turn=True)

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
        geometry, images = batch_input(frames, regions)
        self._run(geometry, lambda batch: batch.fill(images), output_pointer, stream)

    def raw(
        self,
        layouts: Sequence[PixelLayout],
        images: Sequence[NDArray[np.uint8]],
        output_pointer: int,
        stream: Stream,
    ) -> None:
        """Queue the tensor for images of any format, as a call does for BGR.

        Parameters
        ----------
        layouts
            What each image is, its region included.
        images
            The bytes of each frame: uint8, one axis, contiguous, at least the layout's
            ``nbytes``. The same array may stand several times and is copied once.
        output_pointer, stream
            As for a call.

        Raises
        ------
        ImageError
            An image is not as long as its layout says.
        """
        if len(images) != len(layouts):
            raise UsageError(f"{len(images)} images for {len(layouts)} layouts")
        unique, at = distinct(images)
        geometry = BatchGeometry(tuple(layouts), at)
        sizes = self._layout(geometry).sizes
        checked = [bytes_of(*pair) for pair in zip(unique, sizes, strict=True)]
        self._run(geometry, lambda batch: batch.fill(checked), output_pointer, stream)

    def on_device(
        self,
        layouts: Sequence[PixelLayout],
        pointers: Sequence[int],
        output_pointer: int,
        stream: Stream,
    ) -> None:
        """Queue the tensor for frames that the device can read already.

        Parameters
        ----------
        layouts
            What each frame is, its region included.
        pointers
            Device address of each frame, which must hold the layout's ``nbytes`` until
            the stream has passed.
        output_pointer, stream
            As for a call.
        """
        if len(pointers) != len(layouts):
            raise UsageError(f"{len(pointers)} pointers for {len(layouts)} layouts")
        geometry = BatchGeometry(tuple(layouts), ())
        self._run(geometry, lambda batch: batch.point(pointers), output_pointer, stream)

    def prepare(
        self,
        layouts: Sequence[PixelLayout],
        output_pointer: int,
        stream: Stream,
        at: Sequence[int] | None = None,
    ) -> Batch:
        """Return a batch of fixed geometry and output, whose work can be captured in a graph.

        Parameters
        ----------
        layouts
            What each image will be.
        output_pointer
            As for a call.
        stream
            Used now, to bring the tables over.
        at
            For each layout, which of the images it is in; None: each is in its own.
        """
        places = tuple(range(len(layouts)) if at is None else at)
        if len(places) != len(layouts) or set(places) != set(range(len(set(places)))):
            raise UsageError(f"at {places} must number the image of each layout, from 0")
        return self.batch(BatchGeometry(tuple(layouts), places), output_pointer, stream)

    def new_staging(self) -> Staging:
        """Return staging memory for `batch`; its owner closes it."""
        return Staging(self.device, self.transfer, self._functions)

    def batch(
        self,
        geometry: BatchGeometry,
        output_pointer: int,
        stream: Stream,
        staging: Staging | None = None,
    ) -> Batch:
        """Return a batch in staging memory of the caller's, or in its own.

        Parameters
        ----------
        geometry
            Of its images; from `edge_fg.preprocess.batch_input.batch_input`.
        output_pointer, stream
            As for `prepare`.
        staging
            From `new_staging`. Batches that share it are filled and queued one after the other.
        """
        if self._stagings.closed:
            raise _closed()
        layout = self._layout(geometry)
        with contextlib.ExitStack() as made:
            tables = self._tables.take(layout.plan, stream)
            made.callback(tables.release)
            place = made.enter_context(self.new_staging()) if staging is None else staging
            batch = Batch(place, layout, tables, output_pointer, owned=staging is None)
            made.pop_all()
        return batch

    def close(self) -> None:
        """Wait for the batches under way, then release all; may be called again."""
        self._stagings.stop(_closed())
        self._stagings.drain()
        for staging in self._stagings.items:
            staging.close()
        self._tables.clear()
        self._module.close()

    def _run(
        self,
        geometry: BatchGeometry,
        load: Callable[[Batch], None],
        output_pointer: int,
        stream: Stream,
    ) -> None:
        with self._stagings.lend() as staging:
            staging.wait()
            try:
                with self.batch(geometry, output_pointer, stream, staging) as batch:
                    load(batch)
                    batch.queue(stream)
                staging.mark(stream)
            except BaseException:
                # Some of it may be queued already.
                with contextlib.suppress(CudaError):
                    stream.synchronize()
                raise

    def _new_layout(self, geometry: BatchGeometry) -> BatchLayout:
        count = len(geometry.layouts)
        if not 1 <= count <= self.max_batch:
            raise UsageError(f"a batch of {count} images: 1 to {self.max_batch} are possible")
        return BatchLayout(self._planner.plan(geometry.layouts), geometry)


def transfer_for(device: Device) -> Transfer:
    """Return how images get to `device` best: in place where it shares the host's memory."""
    return "mapped" if device.integrated else "staged"


def _closed() -> CudaError:
    return CudaError("the preprocessor is closed: make a new one")
