"""A stand-in for TensorRT: its Python interface, with ONNX Runtime behind it.

Executes over host pointers, and is stricter than the real one: what TensorRT leaves undefined
(a context changed after it was captured, objects released in the wrong order, two threads in one
context, no CUDA context pushed) is written to `violations`. Names, parameters and results are
those of the real bindings; a test compares them.
"""

from __future__ import annotations

import ctypes
import enum
import hashlib
import json
import os
import signal
import sys
import threading
import time

import numpy as np

__version__ = os.environ.get("STANDIN_TENSORRT_VERSION", "10.99.0")

MAGIC = b"ftrt stand-in\n"


class Faults:
    """What is to go wrong; set by tests."""

    def __init__(self) -> None:
        self.contexts_left: int | None = None
        self.execute_fails: str | None = None
        self.builder_fails = False
        self.refuses_timings = False
        self.build_fails_with_timings = False
        self.step_seconds = float(os.environ.get("STANDIN_TENSORRT_STEP_SECONDS", "0"))


faults = Faults()
violations: list[str] = []
events: list[str] = []
builds: list[dict[str, object]] = []
configs: list[object] = []


def run_now(stream: int, work) -> None:
    """Execute what is queued in a stream; a stand-in of CUDA puts its own in place of it."""
    work()


def no_gpu() -> str:
    return os.environ.get("STANDIN_TENSORRT_GPU", "Stand-in")


class Hooks:
    """Where a stand-in of CUDA joins in."""

    enqueue = staticmethod(run_now)
    is_current = staticmethod(lambda: True)
    gpu = staticmethod(no_gpu)


class DataType(enum.Enum):
    FLOAT = np.float32
    HALF = np.float16
    UINT8 = np.uint8
    BF16 = None


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class MemoryPoolType(enum.IntEnum):
    WORKSPACE = 0


class ProfilingVerbosity(enum.IntEnum):
    LAYER_NAMES_ONLY = 0
    DETAILED = 1


class TensorIOMode(enum.IntEnum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class LayerInformationFormat(enum.IntEnum):
    ONELINE = 0
    JSON = 1


class ILogger:
    def __init__(self) -> None:
        pass

    def log(self, severity: int, msg: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    def __init__(self) -> None:
        pass

    def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
        pass

    def step_complete(self, phase_name: str, step: int) -> bool:
        return True

    def phase_finish(self, phase_name: str) -> None:
        pass


def nptype(trt_type: DataType) -> type:
    if trt_type.value is None:
        raise TypeError("Could not resolve TensorRT datatype")
    return trt_type.value


class IHostMemory(bytes):
    """The real one gives its bytes through the buffer protocol too."""


class ITensor:
    def __init__(self, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        self.name, self.dtype, self.shape = name, dtype, shape


class INetworkDefinition:
    def __init__(self) -> None:
        self.inputs: list[ITensor] = []
        self.outputs: list[ITensor] = []
        self.num_layers = 0
        self.model = b""

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    @property
    def num_outputs(self) -> int:
        return len(self.outputs)

    def get_input(self, index: int) -> ITensor:
        return self.inputs[index]


class IOptimizationProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, input: str, min, opt, max) -> None:  # noqa: A002
        self.shapes[input] = [tuple(min), tuple(opt), tuple(max)]


class ITimingCache:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> IHostMemory:
        return IHostMemory(self.data)


class IBuilderConfig:
    def __init__(self, logger: ILogger) -> None:
        self.logger = logger
        self.builder_optimization_level = 3
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
        self.progress_monitor: IProgressMonitor | None = None
        self.pools: dict[int, int] = {}
        self.profiles: list[IOptimizationProfile] = []
        self.timing_cache: ITimingCache | None = None

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self.pools[pool] = pool_size

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
        data = bytes(serialized_timing_cache)
        if data and not data.startswith(f"timings {__version__}".encode()):
            self.logger.log(1, "timing cache of another version")
            return None
        return ITimingCache(data)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if faults.refuses_timings and cache.data:
            self.logger.log(1, "timing cache of another device")
            return False
        self.timing_cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self.timing_cache


def _end_of_build(workspace: int | None) -> str | None:
    """How a build with too large a workspace ends: a signal, ``exit``, or words in the log."""
    most, _, end = os.environ.get("STANDIN_TENSORRT_MOST_WORKSPACE", "").partition(" ")
    return end if most and (workspace is None or workspace > int(most)) else None


class Builder:
    def __init__(self, logger: ILogger) -> None:
        self.logger = logger
        if faults.builder_fails:
            logger.log(1, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig(self.logger)

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> IHostMemory | None:
        timings = config.timing_cache
        builds.append(
            {
                "timings": None if timings is None else timings.data,
                "level": config.builder_optimization_level,
                "workspace": config.pools.get(MemoryPoolType.WORKSPACE),
            }
        )
        if (end := _end_of_build(builds[-1]["workspace"])) is not None:
            if end.startswith("SIG"):
                os.kill(os.getpid(), getattr(signal, end))
            if end == "exit":
                os._exit(3)
            self.logger.log(1, end)
            return None
        if timings is not None and timings.data and faults.build_fails_with_timings:
            self.logger.log(1, "timing cache does not fit")
            return None
        monitor = config.progress_monitor
        if monitor is not None:
            monitor.phase_start("Building engine", None, 5)
            for step in range(5):
                time.sleep(faults.step_seconds)
                if not monitor.step_complete("Building engine", step):
                    return None
            monitor.phase_finish("Building engine")
        if timings is not None:
            timings.data = f"timings {__version__} of {Hooks.gpu()}".encode()
        header = {
            "version": __version__,
            "gpu": Hooks.gpu(),
            "profiles": [profile.shapes for profile in config.profiles],
            "detailed": config.profiling_verbosity == ProfilingVerbosity.DETAILED,
        }
        body = json.dumps(header).encode() + b"\n" + network.model
        return IHostMemory(MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


class ParserError:
    def __init__(self, text: str) -> None:
        self.text = text

    def desc(self) -> str:
        return self.text

    def node(self) -> int:
        return 0

    def node_name(self) -> str:
        return ""

    def node_operator(self) -> str:
        return ""


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self.network, self.errors = network, []

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def parse(self, model: bytes, path: str | None = None) -> bool:
        try:
            session = _session(model)
        except Exception as error:  # noqa: BLE001  whatever ONNX Runtime raises
            self.errors.append(ParserError(f"no model: {error}"))
            return False
        self.network.inputs = [_tensor(tensor) for tensor in session.get_inputs()]
        self.network.outputs = [_tensor(tensor) for tensor in session.get_outputs()]
        self.network.num_layers = 7
        self.network.model = model
        return True

    def get_error(self, index: int) -> ParserError:
        return self.errors[index]


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self.logger = logger
        events.append("+runtime")

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        if not Hooks.is_current():
            violations.append("an engine was loaded without a CUDA context")
        data = bytes(serialized_engine)
        digest, _, body = data[len(MAGIC) :].partition(b"\n")
        header, _, model = body.partition(b"\n")
        whole = hashlib.sha256(body).hexdigest().encode() == digest
        if not data.startswith(MAGIC) or not whole:
            self.logger.log(1, "Serialization assertion magicTagRead == kMAGIC_TAG failed.")
            return None
        facts = json.loads(header)
        if facts["version"] != __version__:
            self.logger.log(1, f"the plan is of version {facts['version']}, not {__version__}")
            return None
        if facts["gpu"] != Hooks.gpu():
            self.logger.log(1, f"the plan is for {facts['gpu']}, not {Hooks.gpu()}")
            return None
        return ICudaEngine(self, facts, model)

    def __del__(self) -> None:
        events.append("-runtime")


class ICudaEngine:
    def __init__(self, runtime: Runtime, facts: dict, model: bytes) -> None:
        # The real one holds no reference to its runtime.
        self.logger = runtime.logger
        self.facts = facts
        self.session = _session(model)
        self.inputs = [_tensor(tensor) for tensor in self.session.get_inputs()]
        self.outputs = [_tensor(tensor) for tensor in self.session.get_outputs()]
        # Where the profile leaves one batch alone, the real one states it instead of -1.
        for least, _, most in [*facts["profiles"][0].values()] if facts["profiles"] else []:
            if least == most:
                for tensor in (*self.inputs, *self.outputs):
                    tensor.shape = (least[0], *tensor.shape[1:])
        self.num_io_tensors = len(self.inputs) + len(self.outputs)
        self.contexts = 0
        events.append("+engine")

    def _find(self, name: str) -> ITensor:
        return next(tensor for tensor in (*self.inputs, *self.outputs) if tensor.name == name)

    def get_tensor_name(self, index: int) -> str:
        return (*self.inputs, *self.outputs)[index].name

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        is_input = any(tensor.name == name for tensor in self.inputs)
        return TensorIOMode.INPUT if is_input else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType(np.dtype(self._find(name).dtype).type)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._find(name).shape

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        return self.facts["profiles"][profile_index][name]

    def create_execution_context(
        self, strategy: int = 0, runtime_config: IRuntimeConfig | None = None
    ) -> IExecutionContext | None:
        configs.append(runtime_config)
        if faults.contexts_left is not None:
            if faults.contexts_left == 0:
                self.logger.log(1, "Requested amount of GPU memory could not be allocated.")
                return None
            faults.contexts_left -= 1
        return IExecutionContext(self)

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self)

    def __del__(self) -> None:
        events.append("-engine")


class _CudaGraphStrategy(enum.IntEnum):
    DISABLED = 0
    WHOLE_GRAPH_CAPTURE = 1


class IRuntimeConfig:
    def __init__(self) -> None:
        self.cuda_graph_strategy = _CudaGraphStrategy.DISABLED


def rtx_additions() -> dict[tuple[object, str], object]:
    """What TensorRT-RTX has and TensorRT has not: to be set where a test wants it."""
    here = sys.modules[__name__]
    return {
        (here, "CudaGraphStrategy"): _CudaGraphStrategy,
        (ICudaEngine, "create_runtime_config"): lambda self: IRuntimeConfig(),
    }


class EngineInspector:
    def __init__(self, engine: ICudaEngine) -> None:
        self.engine = engine

    def get_engine_information(self, format: LayerInformationFormat) -> str:  # noqa: A002
        names = [tensor.name for tensor in (*self.engine.inputs, *self.engine.outputs)]
        layer = {
            "Name": "c1 + r1",
            "LayerType": "CaskConvolution",
            "Inputs": [{"Name": "image", "Format/Datatype": "Row major linear FP32"}],
            "Outputs": [{"Name": "r1", "Format/Datatype": "Row major linear FP32"}],
        }
        return json.dumps({"Layers": [layer, "pool"], "Bindings": names})


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self.engine = engine
        self.shape: tuple[int, ...] | None = None
        self.profile: int | None = None
        self.addresses: dict[str, int] = {}
        self.version = 0
        self.busy = threading.Lock()
        if not engine.inputs[0].shape[0] < 0:
            self.shape = engine.inputs[0].shape
            self.profile = 0
        engine.contexts += 1
        events.append("+context")

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self.profile, self.shape = profile_index, None
        self.version += 1
        return profile_index == 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        tensor, profiles = self.engine._find(name), self.engine.facts["profiles"]
        if profiles:
            least, _, most = profiles[0][name]
            fits = all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True))
        else:
            fits = tuple(shape) == tensor.shape
        if not fits:
            self.engine.logger.log(1, f"the shape {shape} is outside the profile")
            return False
        self.shape = tuple(shape)
        self.version += 1
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        self.version += 1
        return bool(memory)

    def execute_async_v3(self, stream_handle: int) -> bool:
        if not Hooks.is_current():
            violations.append("an inference was queued without a CUDA context")
        if faults.execute_fails is not None:
            self.engine.logger.log(1, faults.execute_fails)
            return False
        if self.profile is None:
            violations.append("an inference was queued before a profile was chosen")
        if self.shape is None or len(self.addresses) != self.engine.num_io_tensors:
            violations.append("an inference was queued without shapes and addresses")
            return False
        version = self.version
        Hooks.enqueue(stream_handle, lambda: self._execute(version))
        return True

    def _execute(self, version: int) -> None:
        if version != self.version:
            violations.append("a context was changed after it had been captured")
        if not self.busy.acquire(blocking=False):
            violations.append("two inferences ran in one context at the same time")
            return
        try:
            engine = self.engine
            tensor = engine.inputs[0]
            given = _at(self.addresses[tensor.name], self.shape, tensor.dtype)
            results = engine.session.run(None, {tensor.name: given})
            for output, result in zip(engine.outputs, results, strict=True):
                _at(self.addresses[output.name], result.shape, output.dtype)[...] = result
        finally:
            self.busy.release()

    def __del__(self) -> None:
        events.append("-context")


def _at(address: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = (ctypes.c_ubyte * count).from_address(address)
    return np.frombuffer(memory, np.uint8).view(dtype).reshape(shape)


def _tensor(found) -> ITensor:
    kinds = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}
    shape = tuple(size if isinstance(size, int) else -1 for size in found.shape)
    return ITensor(found.name, kinds[found.type], shape)


def _session(model: bytes):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
