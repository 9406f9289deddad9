"""Batches for the GPU: the kernels, plans and tables that they share."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import Final, Literal

from edge_fg.closing import Closing
from edge_fg.cuda import Device, Module, Stream
from edge_fg.errors import CudaError, UsageError
from edge_fg.preprocess.batch_input import BatchGeometry
from edge_fg.preprocess.device_tables import TableCache
from edge_fg.preprocess.kernels import load_image
from edge_fg.preprocess.launch import KERNELS, LaunchPlanner
from edge_fg.preprocess.pixel_layout import PixelLayout
from edge_fg.preprocess.spec import PreprocessSpec
from edge_fg.preprocess.staging import Batch, BatchLayout, Staging, Transfer

_GEOMETRIES: Final = 32
"""Batch geometries whose tables stay on the device."""


class BatchFactory(Closing):
    """Makes batches, each of at most `max_batch` images. Safe to share between threads.

    The device must outlive this, or be closed to close it. `image` is the compiled kernels; None
    takes those that are shipped.

    A `transfer` of ``mapped`` means that the kernels read the images in page-locked memory of the
    host; right where CPU and GPU share their memory, since a copy would only double the traffic.
    ``staged``: they are copied first; right for a card, whose kernels would otherwise fetch each
    neighbouring pixel through the bus. ``auto`` goes by whether the device is integrated.

    Raises `BackendUnavailableError` if the kernels were not built for this GPU or are newer than
    its driver.
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
        self.layout = functools.lru_cache(maxsize=4 * _GEOMETRIES)(self._new_layout)
        """Returns how a batch lies in staging memory; equal batches get the same object."""
        self._tables = TableCache(device, _GEOMETRIES)
        if image is None:
            image = load_image(device.compute_capability, device.driver_version).data
        self._module = Module(device, image)
        with contextlib.ExitStack() as made:
            made.callback(self._module.close)
            self._functions = {name: self._module.function(name) for name in KERNELS}
            made.pop_all()
        self._closed = False

    def prepare(
        self,
        layouts: Sequence[PixelLayout],
        output_pointer: int,
        stream: Stream,
        at: Sequence[int] | None = None,
    ) -> Batch:
        """Return a batch of fixed geometry and output, whose work can be captured in a graph.

        `layouts` say what each image will be; `at` says for each layout which of the images it is
        in, None that each is in its own. `output_pointer` is as for `CudaPreprocessor`; `stream` is
        used now, to bring the tables over.
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
        """Return a batch in staging memory from `new_staging`, or in its own; else as `prepare`.

        Batches that share staging memory are filled and queued one after the other.
        """
        if self._closed:
            raise closed_error()
        layout = self.layout(geometry)
        with contextlib.ExitStack() as held:
            tables = self._tables.take(layout.plan, stream)
            held.callback(tables.release)
            place = held.enter_context(self.new_staging()) if staging is None else staging
            return Batch(place, layout, tables, output_pointer, held)

    def close(self) -> None:
        """Release the tables and kernels; may be called again."""
        self._closed = True
        self._tables.clear()
        self._module.close()

    def _new_layout(self, geometry: BatchGeometry) -> BatchLayout:
        count = len(geometry.layouts)
        if not 1 <= count <= self.max_batch:
            raise UsageError(f"a batch of {count} images: 1 to {self.max_batch} are possible")
        return BatchLayout(self._planner.plan(geometry.layouts), geometry)


def transfer_for(device: Device) -> Transfer:
    """Return how images get to `device` best: in place where it shares the host's memory."""
    return "mapped" if device.integrated else "staged"


def closed_error() -> CudaError:
    """Return the error for a use after `close`."""
    return CudaError("the preprocessor is closed: make a new one")
