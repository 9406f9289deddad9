"""A loaded plan: what goes in and out of it, and the contexts that execute it.

The same calls serve TensorRT 10.3 to 11.x and TensorRT-RTX. Everything here happens with the
device's primary context pushed, and is released in the order contexts, engine, runtime.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import numpy as np

from edge_fg.backends.tensorrt.engine_context import Binding, Context, releasing
from edge_fg.backends.tensorrt.engine_layers import EngineLayer, parse_layers
from edge_fg.backends.tensorrt.library import Library, import_library, message_log
from edge_fg.backends.tensorrt.message_log import quote
from edge_fg.closing import Closing
from edge_fg.cuda import Device
from edge_fg.errors import BackendError, CudaError

if TYPE_CHECKING:
    from edge_fg.backends.tensorrt.api import (
        CudaEngine,
        ExecutionContext,
        PlanRuntime,
        RtxEngine,
        RuntimeConfig,
        TensorRT,
        TensorRTRTX,
    )


class PlanRejectedError(BackendError):
    """The library can't load a plan: damaged, or made by another version or for another GPU."""


class Engine(Closing):
    """A plan that was loaded onto a device.

    A plan is executable code: only one from `edge_fg.backends.plan_provider` may come here.
    `shapes` are what is known of the outputs' shapes, -1 for the batch: TensorRT can't always tell
    sizes that the graph computes.

    Raises `PlanRejectedError` if the library can't load it; `DeviceMemoryError` if the device is
    too small for it; `BackendError` if it is not a classifier of frames: not one input, no output,
    or shapes that depend on data.
    """

    def __init__(
        self,
        plan: bytes,
        library: Library,
        device: Device,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        self.device = device
        self._log = message_log(library)
        self._trt: TensorRT = import_library(library)
        self._runtime: PlanRuntime | None = None
        self._engine: CudaEngine | None = None
        self._config: RuntimeConfig | None = None
        self._contexts = 0
        self._counting = threading.Lock()
        try:
            with device.use():
                self._load(plan)
                self.input, self.outputs = self._bindings(shapes or {})
                self.max_batch: int = self._largest_batch()
                """Largest batch that it takes."""
        except BaseException:
            self.close()
            raise

    @property
    def fixed_batch(self) -> int | None:
        """The one batch that it takes, or None where it takes any from 1 to the largest."""
        return self.input.shape[0] if self.input.shape[0] > 0 else None

    def new_context(self) -> Context:
        """Return a context; each executes one inference at a time.

        Raises `DeviceMemoryError` if there is no memory left for its activations, and
        `BackendError` if TensorRT refused or the engine is closed.
        """
        engine = self._opened()
        self._log.forget_error()
        with self.device.use():
            raw = self._rtx_context(engine) or engine.create_execution_context()
        if raw is None:
            raise self._log.failure("make room for a context")
        with self._counting:
            self._contexts += 1
        return Context(raw, self.input, self.device, self._log, self._context_closed)

    @property
    def captures_itself(self) -> bool:
        """Whether the library captures CUDA graphs on its own, as TensorRT-RTX does."""
        return hasattr(self._trt, "CudaGraphStrategy")

    def _rtx_context(self, engine: CudaEngine) -> ExecutionContext | None:
        """Return a context that captures CUDA graphs on its own, where there are such."""
        if not self.captures_itself or not hasattr(engine, "create_runtime_config"):
            return None
        rtx, rtx_engine = cast("TensorRTRTX", self._trt), cast("RtxEngine", engine)
        if self._config is None:
            # Kept as long as its contexts: nothing says whether they copy it.
            self._config = rtx_engine.create_runtime_config()
            self._config.cuda_graph_strategy = rtx.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return rtx_engine.create_execution_context(runtime_config=self._config)

    def layers(self) -> list[EngineLayer]:
        """Return the layers as TensorRT fused them; empty where it keeps that to itself.

        Raises `BackendError` if the engine is closed.
        """
        engine = self._opened()
        with self.device.use():
            inspector = engine.create_engine_inspector()
            if inspector is None:
                return []
            text = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
        return parse_layers(text)

    def close(self) -> None:
        """Release the engine, then the runtime. Contexts must be closed before; idempotent."""
        if self._contexts:
            raise BackendError(
                f"{self._contexts} contexts are still open: close them before their engine"
            )
        if self._engine is None and self._runtime is None:
            return
        with releasing(self.device):
            self._config = None
            self._engine = None
            self._runtime = None

    def _context_closed(self) -> None:
        with self._counting:
            self._contexts -= 1

    def _opened(self) -> CudaEngine:
        if self._engine is None:
            raise BackendError("the engine is closed: load the bundle again")
        return self._engine

    def _load(self, plan: bytes) -> None:
        with self._log.collect() as messages:
            self._runtime = self._trt.Runtime(self._log.handle)
            self._engine = self._runtime.deserialize_cuda_engine(plan)
            said = quote(messages)
        if self._engine is None:
            error = self._log.failure("load the plan", said)
            raise error if isinstance(error, CudaError) else PlanRejectedError(str(error))

    def _bindings(
        self, known: Mapping[str, tuple[int, ...]]
    ) -> tuple[Binding, tuple[Binding, ...]]:
        engine = self._opened()
        inputs: list[Binding] = []
        outputs: list[Binding] = []
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            shape = _completed(
                tuple(int(size) for size in engine.get_tensor_shape(name)), known.get(name, ())
            )
            if any(size < 0 for size in shape[1:]) or not shape:
                raise BackendError(
                    f"{name!r} of the plan has shape {shape}: only the batch may be dynamic"
                )
            binding = Binding(name, self._dtype(engine, name), shape)
            is_input = engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT
            (inputs if is_input else outputs).append(binding)
        if len(inputs) != 1 or not outputs:
            raise BackendError(
                f"the plan has {len(inputs)} inputs and {len(outputs)} outputs: one input and at "
                "least one output are needed"
            )
        return inputs[0], tuple(outputs)

    def _dtype(self, engine: CudaEngine, name: str) -> np.dtype[np.generic]:
        kind = engine.get_tensor_dtype(name)
        try:
            return np.dtype(self._trt.nptype(kind))
        except TypeError as error:
            raise BackendError(f"{name!r} of the plan is {kind}, which NumPy lacks") from error

    def _largest_batch(self) -> int:
        if self.fixed_batch is not None:
            return self.fixed_batch
        _, _, largest = self._opened().get_tensor_profile_shape(self.input.name, 0)
        return int(largest[0])


def _completed(found: tuple[int, ...], known: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape with the sizes beside the batch that TensorRT left open, where known."""
    if len(found) != len(known):
        return found
    sizes = zip(found[1:], known[1:], strict=True)
    return (*found[:1], *(there if size < 0 else size for size, there in sizes))


def plan_layers(plan: bytes, library: Library) -> list[EngineLayer]:
    """Return the layers of a plan, as `Engine.layers` does.

    Raises `MissingDependencyError`, `BackendUnavailableError` or `BackendError` if the library or
    the GPU is missing, or can't load the plan.
    """
    import_library(library)
    with Device() as device, Engine(plan, library, device) as engine:
        return engine.layers()
