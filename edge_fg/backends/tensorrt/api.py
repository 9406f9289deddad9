"""The part of TensorRT's Python interface that edge_fg uses, as protocols.

Modules that touch TensorRT's objects type them with these, so that mypy refuses any name that
does not stand here; a test holds each name, parameter and return type here against the real
bindings of TensorRT 10.3, 10.13 and 11.4 and of TensorRT-RTX. What stands here is therefore all
that is used, and exists in each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, SupportsInt

import numpy as np


class Logger(Protocol):
    """Receives messages; subclassed."""

    def __init__(self) -> None: ...

    def log(self, severity: SupportsInt, msg: str) -> None:
        """Take a message."""


class ProgressMonitor(Protocol):
    """Is told of a build's progress; subclassed."""

    def __init__(self) -> None: ...

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        """Take note that a phase begins."""

    def step_complete(self, phase_name: str, step: int) -> bool:
        """Take note of a step; False cancels the build."""
        ...

    def phase_finish(self, phase_name: str) -> None:
        """Take note that a phase ended."""


class HostMemory(Protocol):
    """Bytes that TensorRT holds."""

    def __buffer__(self, flags: int, /) -> memoryview:
        """Give the bytes; `bytes` asks for them."""
        ...


class Tensor(Protocol):
    """A tensor of a network."""

    @property
    def name(self) -> str:
        """Its name in the ONNX file."""
        ...

    @property
    def shape(self) -> Sequence[SupportsInt]:
        """Its sizes, -1 where dynamic."""
        ...


class Network(Protocol):
    """What is to be built."""

    @property
    def num_inputs(self) -> int:
        """How many inputs there are."""
        ...

    @property
    def num_outputs(self) -> int:
        """How many outputs there are."""
        ...

    @property
    def num_layers(self) -> int:
        """How many layers there are."""
        ...

    def get_input(self, index: int) -> Tensor:
        """Return an input."""
        ...


class Profile(Protocol):
    """The range of shapes that a plan serves."""

    def set_shape(
        self,
        input: str,  # noqa: A002 (TensorRT's name)
        min: Sequence[int],  # noqa: A002
        opt: Sequence[int],
        max: Sequence[int],  # noqa: A002
    ) -> None:
        """Set the smallest, usual and largest shape of an input."""


class TimingCache(Protocol):
    """What the builder measured; spares the next build the measuring."""

    def serialize(self) -> HostMemory:
        """Return it as bytes."""
        ...


class BuilderConfig(Protocol):
    """How a plan is built."""

    builder_optimization_level: int
    profiling_verbosity: object
    progress_monitor: ProgressMonitor

    def set_memory_pool_limit(self, pool: object, pool_size: int) -> None:
        """Limit a kind of memory, in bytes."""

    def add_optimization_profile(self, profile: Profile) -> int:
        """Add a profile."""
        ...

    def create_timing_cache(self, serialized_timing_cache: bytes) -> TimingCache | None:
        """Return a timing cache of bytes; empty bytes give an empty one."""
        ...

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        """Use a timing cache; False where it was refused."""
        ...

    def get_timing_cache(self) -> TimingCache | None:
        """Return the timing cache in use."""
        ...


class PlanBuilder(Protocol):
    """Builds plans."""

    def create_network(self, flags: int) -> Network:
        """Return an empty network."""
        ...

    def create_builder_config(self) -> BuilderConfig:
        """Return a configuration."""
        ...

    def create_optimization_profile(self) -> Profile:
        """Return a profile that belongs to this builder."""
        ...

    def build_serialized_network(
        self, network: Network, config: BuilderConfig
    ) -> HostMemory | None:
        """Return the plan, or None where the build failed."""
        ...


class ParserError(Protocol):
    """Why the parser gave up."""

    def desc(self) -> str:
        """Return what it says."""
        ...

    def node(self) -> int:
        """Return the node's place in the graph."""
        ...

    def node_name(self) -> str:
        """Return the node's name."""
        ...

    def node_operator(self) -> str:
        """Return the node's operator."""
        ...


class Parser(Protocol):
    """Reads ONNX into a network."""

    @property
    def num_errors(self) -> int:
        """How many errors it met."""
        ...

    def parse(self, model: bytes) -> bool:
        """Read a model; False where that failed."""
        ...

    def get_error(self, index: int) -> ParserError:
        """Return one of the errors."""
        ...


class ExecutionContext(Protocol):
    """Executes an engine, one inference at a time."""

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        """Choose a profile, before the shapes; False where that failed."""
        ...

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        """Set an input's shape; False where the profile doesn't allow it."""
        ...

    def set_tensor_address(self, name: str, memory: int) -> bool:
        """Say where a tensor lies on the device."""
        ...

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Enqueue an inference; False where that failed."""
        ...


class EngineInspector(Protocol):
    """Tells what an engine consists of."""

    def get_engine_information(self, format: object) -> str:  # noqa: A002 (TensorRT's name)
        """Return a description of all layers."""
        ...


class CudaEngine(Protocol):
    """A plan that was loaded."""

    @property
    def num_io_tensors(self) -> int:
        """How many inputs and outputs there are."""
        ...

    def get_tensor_name(self, index: int) -> str:
        """Return the name of an input or output."""
        ...

    def get_tensor_mode(self, name: str) -> object:
        """Return whether a tensor is an input or an output."""
        ...

    def get_tensor_dtype(self, name: str) -> object:
        """Return a tensor's type."""
        ...

    def get_tensor_shape(self, name: str) -> Sequence[SupportsInt]:
        """Return a tensor's sizes, -1 where dynamic."""
        ...

    def get_tensor_profile_shape(
        self, name: str, profile_index: int
    ) -> Sequence[Sequence[SupportsInt]]:
        """Return the smallest, usual and largest shape of an input."""
        ...

    def create_execution_context(self) -> ExecutionContext | None:
        """Return a context, or None where memory is short."""
        ...

    def create_engine_inspector(self) -> EngineInspector | None:
        """Return an inspector."""
        ...


class PlanRuntime(Protocol):
    """Loads plans."""

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> CudaEngine | None:
        """Return the engine of a plan, or None where it can't be used."""
        ...


class CreationFlags(Protocol):
    """Kinds of networks."""

    STRONGLY_TYPED: SupportsInt


class MemoryPools(Protocol):
    """Kinds of memory."""

    WORKSPACE: object


class Verbosities(Protocol):
    """How much of its layers a plan remembers."""

    DETAILED: object


class TensorModes(Protocol):
    """Directions of an engine's tensors."""

    INPUT: object


class InformationFormats(Protocol):
    """Forms of an inspector's answer."""

    JSON: object


class TensorRT(Protocol):
    """The module itself."""

    __version__: str
    ILogger: type[Logger]
    IProgressMonitor: type[ProgressMonitor]
    NetworkDefinitionCreationFlag: CreationFlags
    MemoryPoolType: MemoryPools
    ProfilingVerbosity: Verbosities
    TensorIOMode: TensorModes
    LayerInformationFormat: InformationFormats

    def Builder(self, logger: Logger) -> PlanBuilder:  # noqa: N802
        """Make a builder."""
        ...

    def OnnxParser(self, network: Network, logger: Logger) -> Parser:  # noqa: N802
        """Make a parser."""
        ...

    def Runtime(self, logger: Logger) -> PlanRuntime:  # noqa: N802
        """Make a runtime."""
        ...

    def nptype(self, trt_type: object) -> type[np.generic]:
        """Return NumPy's type for one of TensorRT's."""
        ...


class RuntimeConfig(Protocol):
    """How an engine is executed; TensorRT-RTX only."""

    cuda_graph_strategy: object


class GraphStrategies(Protocol):
    """Who captures CUDA graphs; TensorRT-RTX only."""

    WHOLE_GRAPH_CAPTURE: object


class RtxEngine(Protocol):
    """What only an engine of TensorRT-RTX can do."""

    def create_runtime_config(self) -> RuntimeConfig:
        """Return a configuration for contexts."""
        ...

    def create_execution_context(self, runtime_config: RuntimeConfig) -> ExecutionContext | None:
        """Return a context, or None where memory is short."""
        ...


class TensorRTRTX(Protocol):
    """What only the module ``tensorrt_rtx`` has."""

    CudaGraphStrategy: GraphStrategies


REAL_NAMES: Final = {
    "Logger": "ILogger",
    "ProgressMonitor": "IProgressMonitor",
    "HostMemory": "IHostMemory",
    "Tensor": "ITensor",
    "Network": "INetworkDefinition",
    "Profile": "IOptimizationProfile",
    "TimingCache": "ITimingCache",
    "BuilderConfig": "IBuilderConfig",
    "PlanBuilder": "Builder",
    "ParserError": "ParserError",
    "Parser": "OnnxParser",
    "ExecutionContext": "IExecutionContext",
    "EngineInspector": "EngineInspector",
    "CudaEngine": "ICudaEngine",
    "PlanRuntime": "Runtime",
    "CreationFlags": "NetworkDefinitionCreationFlag",
    "MemoryPools": "MemoryPoolType",
    "Verbosities": "ProfilingVerbosity",
    "TensorModes": "TensorIOMode",
    "InformationFormats": "LayerInformationFormat",
    "RuntimeConfig": "IRuntimeConfig",
    "GraphStrategies": "CudaGraphStrategy",
    "RtxEngine": "ICudaEngine",
}
"""TensorRT's own name for each class here."""

RTX_ONLY: Final = frozenset({"RuntimeConfig", "GraphStrategies", "RtxEngine", "TensorRTRTX"})
"""Protocols that only TensorRT-RTX fulfils; code asks `hasattr` before it uses one."""
