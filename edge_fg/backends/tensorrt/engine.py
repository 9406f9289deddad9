"""A loaded plan: what goes in and out of it, and the contexts that execute it.

The same calls serve TensorRT 10.3 to 11.x and TensorRT-RTX. Everything here happens with the
device's primary context pushed, and is released in the order contexts, engine, runtime.
"""

from __future__ import annotations

import contextlib
import math
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from edge_fg.backends.tensorrt.engine_layers import EngineLayer, parse_layers
from edge_fg.backends.tensorrt.library import (
    Library,
    MessageLog,
    import_library,
    message_log,
    quote,
    title,
)
from edge_fg.cuda import Device, Stream
from edge_fg.errors import BackendError, CudaError, DeviceMemoryError

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

# Not every word of memory: an illegal access is another failure.
_OUT_OF_MEMORY = re.compile(r"out ?of ?memory|allocat|bad_alloc|not enough.*memory", re.IGNORECASE)


class PlanRejectedError(BackendError):
    """The library can't load a plan: damaged, or made by another version or for another GPU."""


@dataclass(frozen=True)
class Binding:
    """An input or output of an engine.

    Attributes
    ----------
    name
        Its name in the graph.
    dtype
        Its type.
    shape
        Its sizes; -1 stands for the batch.
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]

    def at(self, batch: int) -> tuple[int, ...]:
        """Return its shape for a batch."""
        return tuple(batch if size < 0 else size for size in self.shape)

    def nbytes(self, batch: int) -> int:
        """Return how many bytes a batch has."""
        return math.prod(self.at(batch)) * self.dtype.itemsize


class Engine:
    """A plan that was loaded onto a device.

    Parameters
    ----------
    plan
        The plan. It is executable code: only one from `edge_fg.backends.plan_provider` may
        come here.
    library
        What built it.
    device
        Where it runs.
    shapes
        What is known of the outputs' shapes, -1 for the batch: TensorRT can't always tell sizes
        that the graph computes.

    Raises
    ------
    PlanRejectedError
        The library can't load it.
    DeviceMemoryError
        The device is too small for it.
    BackendError
        It is not a classifier of frames: not one input, no output, or shapes that depend on data.
    """

    def __init__(
        self,
        plan: bytes,
        library: Library,
        device: Device,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        self.library: Library = library
        self.device = device
        self.log: MessageLog = message_log(library)
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
                self.batches: tuple[int, int] = self._batches()
        except BaseException:
            self.close()
            raise

    @property
    def fixed_batch(self) -> int | None:
        """The one batch that it takes, or None where it takes any from 1 to the largest."""
        return self.input.shape[0] if self.input.shape[0] > 0 else None

    @property
    def max_batch(self) -> int:
        """Largest batch that it takes."""
        return self.batches[1]

    def new_context(self) -> Context:
        """Return a context; each executes one inference at a time.

        Raises
        ------
        DeviceMemoryError
            There is no memory left for its activations.
        BackendError
            TensorRT refused, or the engine is closed.
        """
        engine = self._opened()
        self.log.forget_error()
        with self.device.use():
            raw = self._rtx_context(engine) or engine.create_execution_context()
        if raw is None:
            raise self.failure("make room for a context", self.log.last_error())
        with self._counting:
            self._contexts += 1
        return Context(self, raw)

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

        Raises
        ------
        BackendError
            The engine is closed.
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
        with _current(self.device):
            self._config = None
            self._engine = None
            self._runtime = None

    def failure(self, action: str, said: str) -> BackendError:
        """Return the error to raise where TensorRT failed to do `action` and said `said`."""
        name = title(self.library)
        if _OUT_OF_MEMORY.search(said):
            return DeviceMemoryError(
                f"{name} can't {action}, GPU memory ran out ({said}): choose a smaller max_batch, "
                "fewer contexts or the int8-fp16 variant, or close what else uses the GPU"
            )
        return BackendError(f"{name} can't {action}: {said or 'it gives no reason'}")

    def context_closed(self) -> None:
        """Take note that a context was closed."""
        with self._counting:
            self._contexts -= 1

    def _opened(self) -> CudaEngine:
        if self._engine is None:
            raise BackendError("the engine is closed: load the bundle again")
        return self._engine

    def _load(self, plan: bytes) -> None:
        with self.log.collect() as messages:
            self._runtime = self._trt.Runtime(self.log.handle)
            self._engine = self._runtime.deserialize_cuda_engine(plan)
            said = quote(messages)
        if self._engine is None:
            error = self.failure("load the plan", said)
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

    def _batches(self) -> tuple[int, int]:
        if self.fixed_batch is not None:
            return self.fixed_batch, self.fixed_batch
        shapes = self._opened().get_tensor_profile_shape(self.input.name, 0)
        return int(shapes[0][0]), int(shapes[2][0])


class Context:
    """Executes an engine, one inference at a time; made by `Engine.new_context`."""

    def __init__(self, engine: Engine, raw: ExecutionContext) -> None:
        self._engine = engine
        self._raw: ExecutionContext | None = raw
        self._batch = 0

    def bind(self, addresses: Mapping[str, int], stream: Stream) -> None:
        """Say where each input and output lies on the device, and wait until that is known.

        Raises
        ------
        BackendError
            TensorRT refused one.
        """
        raw = self._opened()
        self._engine.log.forget_error()
        # Only an engine's first context is promised to have the profile without being told.
        dynamic = self._engine.fixed_batch is None
        if dynamic and not raw.set_optimization_profile_async(0, stream.handle):
            raise self._engine.failure("choose the profile", self._engine.log.last_error())
        stream.synchronize()
        for name, address in addresses.items():
            if not raw.set_tensor_address(name, address):
                raise self._engine.failure(f"bind {name!r}", self._engine.log.last_error())

    def set_batch(self, batch: int) -> None:
        """Set the batch of the inferences that follow.

        Raises
        ------
        BackendError
            The plan was not built for it.
        """
        if batch == self._batch:
            return
        binding = self._engine.input
        self._engine.log.forget_error()
        if not self._opened().set_input_shape(binding.name, binding.at(batch)):
            self._batch = 0
            raise self._engine.failure(f"take a batch of {batch}", self._engine.log.last_error())
        self._batch = batch

    def enqueue(self, stream: Stream) -> None:
        """Queue one inference; the device's context must be pushed.

        Raises
        ------
        BackendError
            TensorRT refused; what it said is in the message.
        """
        self._engine.log.forget_error()
        if not self._opened().execute_async_v3(stream.handle):
            raise self._engine.failure("execute the model", self._engine.log.last_error())

    def close(self) -> None:
        """Release it; its work must be done. May be called again."""
        if self._raw is not None:
            with _current(self._engine.device):
                self._raw = None
            self._engine.context_closed()

    def _opened(self) -> ExecutionContext:
        if self._raw is None:
            raise BackendError("the execution context is closed: load the bundle again")
        return self._raw


def _completed(found: tuple[int, ...], known: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape with the sizes beside the batch that TensorRT left open, where known."""
    if len(found) != len(known):
        return found
    sizes = zip(found[1:], known[1:], strict=True)
    return (*found[:1], *(there if size < 0 else size for size, there in sizes))


def plan_layers(plan: bytes, library: Library) -> list[EngineLayer]:
    """Return the layers of a plan, as `Engine.layers` does.

    Parameters
    ----------
    plan, library
        As for `Engine`.

    Raises
    ------
    MissingDependencyError, BackendUnavailableError, BackendError
        The library or the GPU is missing, or can't load the plan.
    """
    import_library(library)
    with Device() as device:
        engine = Engine(plan, library, device)
        try:
            return engine.layers()
        finally:
            engine.close()


@contextlib.contextmanager
def _current(device: Device) -> Iterator[None]:
    """Push the device's context for a release, where the device still has one to push."""
    with contextlib.ExitStack() as pushed:
        with contextlib.suppress(CudaError):
            pushed.enter_context(device.use())
        yield
