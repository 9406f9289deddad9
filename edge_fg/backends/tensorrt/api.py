"""The part of TensorRT's Python interface that edge_fg uses, as protocols.

Modules that touch TensorRT's objects type them with these, so that mypy refuses any name that
does not stand here; a test holds each name, parameter and return type here against the real
bindings of TensorRT 10.3, 10.13 and 11.4 and of TensorRT-RTX. What stands here is therefore all
that is used, and exists in each of them. TensorRT's own reference describes the methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, SupportsInt

import numpy as np


class Logger(Protocol):
    """Receives messages; subclassed."""

    def __init__(self) -> None: ...
    def log(self, severity: SupportsInt, msg: str) -> None: ...


class ProgressMonitor(Protocol):
    """Is told of a build's progress; subclassed. A step that returns False cancels the build."""

    def __init__(self) -> None: ...
    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None: ...
    def step_complete(self, phase_name: str, step: int) -> bool: ...
    def phase_finish(self, phase_name: str) -> None: ...


class HostMemory(Protocol):
    """Bytes that TensorRT holds."""

    def __buffer__(self, flags: int, /) -> memoryview: ...


class Tensor(Protocol):
    """A tensor of a network, with its name in the ONNX file; a size is -1 where it is dynamic."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> Sequence[SupportsInt]: ...


class Network(Protocol):
    """What is to be built."""

    @property
    def num_inputs(self) -> int: ...
    @property
    def num_outputs(self) -> int: ...
    @property
    def num_layers(self) -> int: ...
    def get_input(self, index: int) -> Tensor: ...


class Profile(Protocol):
    """The smallest, usual and largest shape of each input that a plan serves."""

    def set_shape(
        self,
        input: str,  # noqa: A002 (TensorRT's name)
        min: Sequence[int],  # noqa: A002
        opt: Sequence[int],
        max: Sequence[int],  # noqa: A002
    ) -> None: ...


class TimingCache(Protocol):
    """What the builder measured; spares the next build the measuring."""

    def serialize(self) -> HostMemory: ...


class BuilderConfig(Protocol):
    """How a plan is built; sizes are in bytes.

    Empty bytes give an empty timing cache; `set_timing_cache` returns False where it refuses one.
    """

    builder_optimization_level: int
    profiling_verbosity: object
    progress_monitor: ProgressMonitor

    def set_memory_pool_limit(self, pool: object, pool_size: int) -> None: ...
    def add_optimization_profile(self, profile: Profile) -> int: ...
    def create_timing_cache(self, serialized_timing_cache: bytes) -> TimingCache | None: ...
    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool: ...
    def get_timing_cache(self) -> TimingCache | None: ...


class PlanBuilder(Protocol):
    """Builds plans; None where a build failed."""

    def create_network(self, flags: int) -> Network: ...
    def create_builder_config(self) -> BuilderConfig: ...
    def create_optimization_profile(self) -> Profile: ...
    def build_serialized_network(
        self, network: Network, config: BuilderConfig
    ) -> HostMemory | None: ...


class ParserError(Protocol):
    """Why the parser gave up."""

    def desc(self) -> str: ...
    def node(self) -> int: ...
    def node_name(self) -> str: ...
    def node_operator(self) -> str: ...


class Parser(Protocol):
    """Reads ONNX into a network; `parse` returns False where that failed."""

    @property
    def num_errors(self) -> int: ...
    def parse(self, model: bytes) -> bool: ...
    def get_error(self, index: int) -> ParserError: ...


class ExecutionContext(Protocol):
    """Executes an engine, one inference at a time; methods return False where they failed.

    The profile is chosen before the shapes.
    """

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool: ...
    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool: ...
    def set_tensor_address(self, name: str, memory: int) -> bool: ...
    def execute_async_v3(self, stream_handle: int) -> bool: ...


class EngineInspector(Protocol):
    """Tells what an engine consists of."""

    def get_engine_information(self, format: object) -> str: ...  # noqa: A002 (TensorRT's name)


class CudaEngine(Protocol):
    """A plan that was loaded.

    A size is -1 where it is dynamic. A profile's shapes are the smallest, usual and largest. There
    is no context (None) where memory is short.
    """

    @property
    def num_io_tensors(self) -> int: ...
    def get_tensor_name(self, index: int) -> str: ...
    def get_tensor_mode(self, name: str) -> object: ...
    def get_tensor_dtype(self, name: str) -> object: ...
    def get_tensor_shape(self, name: str) -> Sequence[SupportsInt]: ...
    def get_tensor_profile_shape(
        self, name: str, profile_index: int
    ) -> Sequence[Sequence[SupportsInt]]: ...
    def create_execution_context(self) -> ExecutionContext | None: ...
    def create_engine_inspector(self) -> EngineInspector | None: ...


class PlanRuntime(Protocol):
    """Loads plans; None where one can't be used."""

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> CudaEngine | None: ...


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

    def Builder(self, logger: Logger) -> PlanBuilder: ...  # noqa: N802
    def OnnxParser(self, network: Network, logger: Logger) -> Parser: ...  # noqa: N802
    def Runtime(self, logger: Logger) -> PlanRuntime: ...  # noqa: N802
    def nptype(self, trt_type: object) -> type[np.generic]: ...


class RuntimeConfig(Protocol):
    """How an engine is executed; TensorRT-RTX only."""

    cuda_graph_strategy: object


class GraphStrategies(Protocol):
    """Who captures CUDA graphs; TensorRT-RTX only."""

    WHOLE_GRAPH_CAPTURE: object


class RtxEngine(Protocol):
    """What only an engine of TensorRT-RTX can do."""

    def create_runtime_config(self) -> RuntimeConfig: ...
    def create_execution_context(
        self, runtime_config: RuntimeConfig
    ) -> ExecutionContext | None: ...


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
