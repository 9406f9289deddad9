"""One build of a plan, in the thread that it runs in.

The graph says itself which precision each tensor has (FP16 initializers and casts, explicit
QuantizeLinear / DequantizeLinear): the network is strongly typed, the only mode that
TensorRT 10.3 to 11.x and TensorRT-RTX have in common.
"""

from __future__ import annotations

import logging
import queue
import re
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge_fg.backends.plan import Plan
from edge_fg.backends.tensorrt.library import Library
from edge_fg.backends.tensorrt.message_log import (
    Message,
    MessageLog,
    is_shortage,
    quote,
    shortened,
)
from edge_fg.errors import CompileError, DeviceMemoryError

if TYPE_CHECKING:
    from edge_fg.backends.tensorrt.api import (
        BuilderConfig,
        HostMemory,
        Network,
        Parser,
        PlanBuilder,
        ProgressMonitor,
        TensorRT,
        TimingCache,
    )

_log = logging.getLogger("edge_fg")
# Beside "no implementation" of a layer, where each of them wants more than it may use.
_TOO_LITTLE_WORKSPACE = re.compile(r"insufficient workspace|workspace .*too small", re.IGNORECASE)


@dataclass(frozen=True)
class BuildSettings:
    """What is asked of a build; see `edge_fg.backends.tensorrt.build.build_plan`."""

    library: Library
    device: int
    batch: tuple[int, int, int]
    workspace_bytes: int | None
    level: int | None
    timings: bytes | None = field(repr=False)


@dataclass
class Job:
    """One build: what it needs, and how its two threads talk."""

    settings: BuildSettings
    trt: TensorRT
    log: MessageLog
    name: str
    cancelled: threading.Event = field(default_factory=threading.Event)
    events: queue.SimpleQueue[tuple[str, int, int] | None] = field(
        default_factory=queue.SimpleQueue
    )


def build(job: Job, onnx_bytes: bytes) -> Plan:
    """Build a plan in this thread.

    Raises `DeviceMemoryError` if memory ran out, and `CompileError` if the graph can't be read or
    built for another reason, or the build was cancelled.
    """
    trt, started = job.trt, time.monotonic()
    with job.log.collect() as messages:
        try:
            builder = trt.Builder(job.log.handle)
        except (TypeError, RuntimeError) as error:
            raise CompileError(
                f"{job.name} can't start its builder ({quote(messages) or error}): it needs an "
                "NVIDIA GPU and a driver that is new enough; see `edge-fg doctor`"
            ) from error
        flag = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = builder.create_network(flag)
        job.events.put(("Reading the graph", 0, 1))
        parser = trt.OnnxParser(network, job.log.handle)
        if not parser.parse(onnx_bytes):
            raise CompileError(_parser_failure(job, parser, messages))
        if not network.num_outputs:
            # Its parser takes some damaged files for an empty model.
            raise CompileError(
                f"{job.name} found no output in the graph, which is damaged or not ONNX: export it "
                "again"
            )
        job.events.put(("Reading the graph", 1, 1))
        config = builder.create_builder_config()
        _configure(job, builder, network, config)
        # The monitor must outlive the build: TensorRT holds no reference of its own.
        monitor = _monitor(job)
        config.progress_monitor = monitor
        plan = _serialized(job, builder, network, config)
        if plan is None:
            if job.cancelled.is_set():
                raise CompileError("the build was cancelled")
            raise _build_failure(job, messages)
        return Plan(
            data=bytes(plan),
            library=job.settings.library,
            version=str(trt.__version__),
            layers=int(network.num_layers),
            kernels=job.log.kernels,
            seconds=time.monotonic() - started,
            warnings=tuple(dict.fromkeys(m.text for m in messages if m.level == logging.WARNING)),
            timings=_timings_after(job, config),
        )


def _serialized(
    job: Job, builder: PlanBuilder, network: Network, config: BuilderConfig
) -> HostMemory | None:
    """Build; with a timing cache that the build fails on, build again without it."""
    # The cache must outlive the build too.
    cache = _use_timings(job, config, job.settings.timings)
    plan = builder.build_serialized_network(network, config)
    if plan is None and cache is not None and job.settings.timings and not job.cancelled.is_set():
        _log.warning("the build with kept timings failed: building once more without them")
        cache = _use_timings(job, config, b"")
        plan = builder.build_serialized_network(network, config)
    return plan


def _use_timings(job: Job, config: BuilderConfig, data: bytes | None) -> TimingCache | None:
    """Give the builder a timing cache, or an empty one where `data` is not one of its own."""
    if data is None:
        return None
    job.log.forget_error()
    cache = config.create_timing_cache(data)
    # Timings of another GPU would choose tactics that are slow here: never ignore a mismatch.
    if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
        return cache
    if data:
        _log.warning(
            "%s %s refuses the kept timing cache%s: tactics are timed again",
            *(job.name, job.trt.__version__, _in_brackets(job.log.last_error())),
        )
        return _use_timings(job, config, b"")
    return None


def _timings_after(job: Job, config: BuilderConfig) -> bytes | None:
    cache = None if job.settings.timings is None else config.get_timing_cache()
    return None if cache is None else bytes(cache.serialize())


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""


def _configure(job: Job, builder: PlanBuilder, network: Network, config: BuilderConfig) -> None:
    trt = job.trt
    if job.settings.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, job.settings.workspace_bytes)
    if job.settings.level is not None:
        config.builder_optimization_level = job.settings.level
    # Layer names in the plan lead back to the ONNX nodes; they cost a few kilobytes.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    profile = builder.create_optimization_profile()
    dynamic = False
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(int(size) for size in tensor.shape)
        if any(size < 0 for size in shape[1:]):
            raise CompileError(
                f"input {tensor.name!r} has shape {shape}: only the batch may be dynamic; "
                "build the bundle with a fixed image size"
            )
        if shape and shape[0] < 0:
            dynamic = True
            least, usual, most = ((size, *shape[1:]) for size in job.settings.batch)
            profile.set_shape(tensor.name, least, usual, most)
    if dynamic:
        config.add_optimization_profile(profile)


def _monitor(job: Job) -> ProgressMonitor:
    trt = job.trt
    totals: dict[str, int] = {}

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc,name-defined]
        """Passes progress on; TensorRT calls it from several threads."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(
            self,
            phase_name: str,
            parent_phase: str | None,  # noqa: ARG002 (TensorRT gives it)
            num_steps: int,
        ) -> None:
            totals[phase_name] = num_steps
            job.events.put((phase_name, 0, num_steps))

        def step_complete(self, phase_name: str, step: int) -> bool:
            total = totals.get(phase_name, step + 1)
            job.events.put((phase_name, min(step + 1, total), total))
            return not job.cancelled.is_set()

        def phase_finish(self, phase_name: str) -> None:
            total = totals.get(phase_name, 1)
            job.events.put((phase_name, total, total))

    return Monitor()


def _parser_failure(job: Job, parser: Parser, messages: Iterable[Message]) -> str:
    version = f"{job.name} {job.trt.__version__}"
    if not parser.num_errors:
        return f"{version} can't read the graph: {quote(messages) or 'it gives no reason'}"
    error = parser.get_error(0)
    said = shortened(error.desc())
    operator = error.node_operator()
    if not operator:
        return f"{version} can't read the graph: {said}"
    name = error.node_name() or "without a name"
    more = f" ({parser.num_errors - 1} more)" if parser.num_errors > 1 else ""
    return (
        f"{version} can't use ONNX node {name!r} (operator {operator}, node {error.node()}): "
        f"{said}{more}; export the model without this operator, or run it with ONNX Runtime"
    )


def _build_failure(job: Job, messages: Iterable[Message]) -> CompileError | DeviceMemoryError:
    said = quote(messages)
    version = f"{job.name} {job.trt.__version__}"
    if any(m.level >= logging.ERROR and is_shortage(m.text) for m in messages):
        return DeviceMemoryError(
            f"{version} ran out of memory while it built a plan: {said}; close other programs, or "
            "choose a smaller workspace_bytes or max_batch"
        )
    if _TOO_LITTLE_WORKSPACE.search(said):
        return CompileError(
            f"{version} could not build a plan: {said}; allow more workspace_bytes, or try another "
            "precision"
        )
    said = said or "it gives no reason here (another logger was registered first in this process)"
    return CompileError(
        f"{version} could not build a plan: {said}; try another precision, or a smaller largest "
        "batch if memory ran out"
    )
