"""Preprocessing on the GPU: the pixels of the CPU's, written where the engine reads them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from edge_fg.boxes import Region
from edge_fg.cuda import Device, Stream
from edge_fg.cuda.pool import Pool
from edge_fg.errors import CudaError, UsageError
from edge_fg.preprocess.batch_factory import BatchFactory, closed_error
from edge_fg.preprocess.batch_input import BatchGeometry, batch_input, bytes_of
from edge_fg.preprocess.pixel_layout import PixelLayout
from edge_fg.preprocess.raw_frame import Pixels, distinct
from edge_fg.preprocess.spec import PreprocessSpec
from edge_fg.preprocess.staging import Batch, Transfer

_UNDER_WAY: Final = 2
"""Batches of calls under way at once: one is copied while the one before is computed."""


class CudaPreprocessor(BatchFactory):
    """Turn frames into the tensor that a model takes, on the GPU.

    Bit for bit what `edge_fg.preprocess.CpuPreprocessor` gives. Nothing is allocated after the
    first batch of a geometry. Safe to call from several threads, each with its own stream; two
    batches may be under way at once, a third caller waits.

    The parameters and errors are those of `edge_fg.preprocess.batch_factory.BatchFactory`.
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
        super().__init__(device, spec, max_batch, transfer=transfer, image=image)
        with contextlib.ExitStack() as made:
            made.callback(super().close)
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

        Each frame is (H, W, 3) uint8 BGR, of any size and strides, or a raw frame, which is
        converted on the GPU; it is free to change on return. A frame that stands several times, for
        several regions, is copied once. Regions are (x, y, width, height) in pixels, None for all
        of a frame. `output_pointer` is a device address for (N, 3, h, w) or (N, h, w, 3) of the
        specification's dtype: the tensor is there when `stream` has passed. Don't capture this into
        a graph; capture what `prepare` returns.

        Raises `ImageError` if a frame or region can't be used, `UsageError` if there are no frames
        or more than `max_batch`, and `CudaError` if the GPU refused or this is closed.
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

        A layout says what an image is, its region included; an image is the bytes of a frame:
        uint8, one axis, contiguous, at least the layout's ``nbytes``. The same array may stand
        several times and is copied once. Raises `ImageError` if one is shorter than its layout.
        """
        if len(images) != len(layouts):
            raise UsageError(f"{len(images)} images for {len(layouts)} layouts")
        unique, at = distinct(images)
        geometry = BatchGeometry(tuple(layouts), at)
        sizes = self.layout(geometry).sizes
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

        A layout says what a frame is, its region included; a pointer is its device address, which
        must hold the layout's ``nbytes`` until the stream has passed.
        """
        if len(pointers) != len(layouts):
            raise UsageError(f"{len(pointers)} pointers for {len(layouts)} layouts")
        geometry = BatchGeometry(tuple(layouts), ())
        self._run(geometry, lambda batch: batch.point(pointers), output_pointer, stream)

    def close(self) -> None:
        """Wait for the batches under way, then release all; may be called again."""
        self._stagings.stop(closed_error())
        self._stagings.drain()
        for staging in self._stagings.items:
            staging.close()
        super().close()

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
