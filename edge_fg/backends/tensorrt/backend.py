"""TensorRT and TensorRT-RTX: frames to answers without leaving the GPU."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
import weakref
from collections.abc import Callable, Sequence

import numpy as np

from edge_fg.backends.base import Outputs
from edge_fg.backends.options import EngineOptions
from edge_fg.backends.tensorrt.engine import Engine
from edge_fg.backends.tensorrt.engine_layers import EngineLayer
from edge_fg.backends.tensorrt.execution_slot import ExecutionSlot, Tensors
from edge_fg.backends.tensorrt.library import Library, import_library
from edge_fg.backends.tensorrt.loading import check_engine, load_engine
from edge_fg.boxes import Region, checked_region
from edge_fg.bundle import Bundle, Precision
from edge_fg.cuda import Device
from edge_fg.cuda.pool import Pool
from edge_fg.errors import BackendError, CudaError, DeviceMemoryError
from edge_fg.preprocess.cuda import CudaPreprocessor
from edge_fg.preprocess.raw_frame import Pixels, as_pixels, size_of
from edge_fg.progress import ProgressCallback

_log = logging.getLogger("edge_fg")


class TensorRTBackend:
    """Executes a variant with TensorRT or TensorRT-RTX; safe to share between threads.

    The first start on a machine builds a plan, which takes seconds to minutes; later ones load it
    from the plan cache. `progress` is told of the build; None tells the log. Frames are uploaded,
    preprocessed and executed on one stream per thread; more frames than the plan's largest batch
    are executed in parts.

    Raises `MissingDependencyError` or `BackendUnavailableError` if the library, PyCUDA, the driver
    or the GPU is missing; `CompileError` if the library can't build the variant's graph;
    `DeviceMemoryError` if the GPU's memory is too small; `BackendError` if the GPU or the library
    failed.
    """

    takes_raw = True

    def __init__(
        self,
        bundle: Bundle,
        precision: Precision,
        library: Library = "tensorrt",
        *,
        options: EngineOptions | None = None,
        progress: ProgressCallback | None = None,
    ) -> None:
        self.name: str = library
        self.precision: Precision = precision
        import_library(library)
        options = options or EngineOptions()
        device = Device(options.device or 0)
        self._held = _Held(device)
        # Runs when the backend is dropped, and at exit before modules are taken apart.
        self._finalizer = weakref.finalize(self, self._held.close)
        try:
            free = device.free_bytes()
            self._held.open(bundle, precision, library, options, progress)
            # What can fail, such as memory, fails now and not at the first frame.
            height, width = bundle.manifest.preprocess.output_size
            self.infer([np.zeros((height, width, 3), np.uint8)])
            # Other programs take and give back meanwhile: near enough for a gauge.
            self.engine_bytes: int | None = max(free - device.free_bytes(), 0)
        except BaseException:
            self._finalizer()
            raise

    def infer(
        self,
        frames: Sequence[Pixels],
        regions: Sequence[Region | None] | None = None,
    ) -> Outputs:
        """Return the model's outputs; see `edge_fg.backends.base.Backend.infer`.

        `Outputs.inference_ms` is the engine's time on the GPU, `Outputs.preprocess_ms` all else.
        """
        checked = [as_pixels(frame) for frame in frames]
        regions = [None] * len(checked) if regions is None else regions
        for frame, region in zip(checked, regions, strict=True):
            if region is not None:
                checked_region(region, *size_of(frame))
        started = time.perf_counter()
        try:
            parts, inference_ms = self._held.run(checked, regions)
        except DeviceMemoryError:
            raise  # it says what to reduce, and what is loaded still works
        except CudaError as error:
            self._held.fail(error)
            self._finalizer()
            raise
        total_ms = 1e3 * (time.perf_counter() - started)
        return Outputs(parts, max(total_ms - inference_ms, 0.0), inference_ms)

    def layers(self) -> list[EngineLayer]:
        """Return the engine's layers as TensorRT fused them; empty where it does not say.

        Raises `BackendError` if the backend is closed.
        """
        return self._held.layers()

    def interrupt(self, _thread: threading.Thread, /) -> None:
        """Do nothing: what runs on a GPU ends by itself."""

    def close(self) -> None:
        """Wait for what is under way, then release everything. May be called again."""
        self._finalizer()


class _Held:
    """What a backend holds, and the order in which it is released.

    Apart from the backend itself, so that its finaliser doesn't keep it alive.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._engine: Engine | None = None
        self._preprocess: CudaPreprocessor | None = None
        self._slots: Pool[ExecutionSlot] | None = None
        self._reason = "the classifier is closed: load the bundle again"

    def open(
        self,
        bundle: Bundle,
        precision: Precision,
        library: Library,
        options: EngineOptions,
        progress: ProgressCallback | None,
    ) -> None:
        """Load or build the plan and make the first slot."""
        # What can fail at once comes before a build of minutes: kernels for this GPU, the cache.
        manifest = bundle.manifest
        fixed = manifest.input.shape[0]
        batch = fixed if isinstance(fixed, int) else options.max_batch
        preprocess = CudaPreprocessor(self._device, manifest.preprocess, batch)
        self._preprocess = preprocess
        engine = self._engine = load_engine(
            bundle, precision, library, self._device, options, progress
        )
        check_engine(engine, manifest, batch, str(bundle.path))
        sleep = self._device.integrated if options.sleep is None else options.sleep
        make = functools.partial(
            ExecutionSlot,
            engine,
            preprocess,
            cuda_graph=options.cuda_graph,
            sleep=sleep,
            setting_up=threading.Lock(),
        )
        self._slots = Pool([make()], make, options.contexts)

    def run(self, frames: list[Pixels], regions: Sequence[Region | None]) -> tuple[Tensors, float]:
        """Execute any number of frames; return the outputs and the engine's milliseconds."""
        engine, slots = self._opened()
        parts: list[Tensors] = []
        inference_ms = 0.0
        with slots.lend() as slot:
            for begin in range(0, len(frames), engine.max_batch):
                end = begin + engine.max_batch
                part, elapsed = slot.run(frames[begin:end], regions[begin:end])
                parts.append(part)
                inference_ms += elapsed
        return _joined(parts, engine), inference_ms

    def layers(self) -> list[EngineLayer]:
        """Return the engine's layers; it isn't closed meanwhile."""
        engine, slots = self._opened()
        with slots.lend():
            return engine.layers()

    def fail(self, error: CudaError) -> None:
        """Remember a failure of the GPU: every later call says so."""
        if self._slots is not None and not self._slots.closed:
            self._reason = f"the classifier closed itself when the GPU failed: {error}"
            _log.error("%s", self._reason)
            self._slots.stop(BackendError(self._reason))

    def close(self) -> None:
        """Release contexts, engine, runtime, buffers, streams and the device, in this order."""
        slots = self._slots
        with contextlib.ExitStack() as closing:
            closing.callback(_logging_failure, self._device.close)
            if self._preprocess is not None:
                closing.callback(_logging_failure, self._preprocess.close)
            if slots is not None:
                closing.callback(_each, slots, ExecutionSlot.close_memory)
            if self._engine is not None:
                closing.callback(self._engine.close)
            if slots is not None:
                closing.callback(_each, slots, ExecutionSlot.close_execution)
                slots.stop(BackendError(self._reason))
                slots.drain()

    def _opened(self) -> tuple[Engine, Pool[ExecutionSlot]]:
        if self._engine is None or self._slots is None:
            raise BackendError(self._reason)
        return self._engine, self._slots


def _joined(parts: list[Tensors], engine: Engine) -> Tensors:
    if len(parts) == 1:
        return parts[0]
    nothing = {
        output.name: np.empty((0, *output.shape[1:]), np.float32) for output in engine.outputs
    }
    return {
        name: np.concatenate([part[name] for part in parts]) if parts else nothing[name]
        for name in nothing
    }


def _each(slots: Pool[ExecutionSlot], action: Callable[[ExecutionSlot], None]) -> None:
    for slot in slots.items:
        action(slot)


def _logging_failure(release: Callable[[], None]) -> None:
    try:
        release()
    except CudaError as error:
        _log.warning("the GPU could not be released in order: %s", error)
