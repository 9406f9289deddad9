"""Compile an ONNX graph into a plan, with TensorRT or TensorRT-RTX.

The graph says itself which precision each tensor has (FP16 initializers and casts, explicit
QuantizeLinear / DequantizeLinear): the network is strongly typed, the only mode that
TensorRT 10.3 to 11.x and TensorRT-RTX have in common.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge_fg.backends.plan_cache import Plan
from edge_fg.backends.tensorrt.library import (
    Library,
    Message,
    MessageLog,
    available,
    import_library,
    message_log,
    quote,
    shortened,
    title,
)
from edge_fg.cuda.device import current_gpu
from edge_fg.errors import CompileError, UsageError
from edge_fg.progress import ProgressCallback, no_progress

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

__all__ = ["Library", "available", "build_plan"]

_POLL_SECONDS = 0.1
_log = logging.getLogger("edge_fg")


def build_plan(
    onnx_bytes: bytes,
    *,
    library: Library,
    device: int = 0,
    batch: tuple[int, int, int] = (1, 1, 8),
    workspace_bytes: int | None = None,
    progress: ProgressCallback = no_progress,
    builder_optimization_level: int | None = None,
    timings: bytes | None = None,
) -> Plan:
    """Compile a graph; Ctrl-C stops the build.

    The build runs in a thread of its own and `progress` is called in the caller's; whatever
    the caller's thread raises meanwhile (KeyboardInterrupt, or an error of `progress`)
    cancels the build and is raised again when it has ended.

    Parameters
    ----------
    onnx_bytes
        The ONNX model, its weights inside.
    library
        ``"tensorrt"`` or ``"tensorrt-rtx"``.
    device
        Number of the GPU that TensorRT builds on and for; TensorRT-RTX needs none.
    batch
        Smallest, usual and largest batch, for a graph with a dynamic one; else ignored.
    workspace_bytes
        Most GPU memory that a layer may use while it computes, or None for the library's own
        limit.
    progress
        Called as ``progress(phase, done, total)`` with TensorRT's names of its phases.
    builder_optimization_level
        0 (quick build) to 5 (slow build, fastest plan), or None for the library's own.
    timings
        The timing cache of an earlier build by this version for this GPU, or empty to begin
        one: with it a build takes a fraction of the time. None goes without. TensorRT-RTX, which
        times nothing, ignores it.

    Raises
    ------
    CompileError
        The graph can't be read (names the ONNX node) or built.
    UsageError
        `batch` is not in ascending order from 1, or another number makes no sense.
    MissingDependencyError, BackendUnavailableError
        The library is not installed or can't be loaded.
    """
    smallest, usual, largest = batch
    if not 1 <= smallest <= usual <= largest:
        raise UsageError(f"batch {batch} must ascend from at least 1: smallest, usual, largest")
    if workspace_bytes is not None and workspace_bytes <= 0:
        raise UsageError(f"workspace of {workspace_bytes} bytes: it must be positive")
    if builder_optimization_level is not None and not 0 <= builder_optimization_level <= 5:
        raise UsageError(f"optimisation level {builder_optimization_level}: 0 to 5 are possible")
    job = _Job(
        trt=import_library(library),
        log=message_log(library),
        name=title(library),
        device=device,
        batch=batch,
        workspace_bytes=workspace_bytes,
        level=builder_optimization_level,
        timings=None if library == "tensorrt-rtx" else timings,
    )
    started = time.monotonic()
    built = _run_in_thread(job, onnx_bytes, progress)
    return Plan(
        data=built.data,
        library=library,
        version=str(job.trt.__version__),
        layers=built.layers,
        seconds=time.monotonic() - started,
        warnings=built.warnings,
        timings=built.timings,
    )


@dataclass
class _Job:
    """One build: what it needs, and how its two threads talk."""

    trt: TensorRT
    log: MessageLog
    name: str
    device: int
    batch: tuple[int, int, int]
    workspace_bytes: int | None
    level: int | None
    timings: bytes | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    events: queue.SimpleQueue[tuple[str, int, int] | None] = field(
        default_factory=queue.SimpleQueue
    )


@dataclass(frozen=True)
class _Built:
    data: bytes
    layers: int
    warnings: tuple[str, ...]
    timings: bytes | None


def _run_in_thread(job: _Job, onnx_bytes: bytes, progress: ProgressCallback) -> _Built:
    results: list[_Built] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with current_gpu(job.device) if job.device else contextlib.nullcontext():
                results.append(_build(job, onnx_bytes))
        except BaseException as error:  # noqa: BLE001 (raised again in the caller's thread)
            failures.append(error)
        finally:
            job.events.put(None)

    worker = threading.Thread(target=work, name="edge-fg-build")
    worker.start()
    try:
        while (event := _next_event(job)) is not None:
            if event:
                progress(*event)
    except BaseException:
        job.cancelled.set()
        worker.join()
        raise
    worker.join()
    if failures:
        raise failures[0]
    return results[0]


def _next_event(job: _Job) -> tuple[str, int, int] | tuple[()] | None:
    # A wait with a limit lets Python deliver Ctrl-C.
    try:
        return job.events.get(timeout=_POLL_SECONDS)
    except queue.Empty:
        return ()


def _build(job: _Job, onnx_bytes: bytes) -> _Built:
    trt = job.trt
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
            raise CompileError(_build_failure(job, messages))
        layers = int(network.num_layers)
        told = dict.fromkeys(m.text for m in messages if m.level == logging.WARNING)
        return _Built(bytes(plan), layers, tuple(told), _timings_after(job, config))


def _serialized(
    job: _Job, builder: PlanBuilder, network: Network, config: BuilderConfig
) -> HostMemory | None:
    """Build; with a timing cache that the build fails on, build again without it."""
    # The cache must outlive the build too.
    cache = _use_timings(job, config, job.timings)
    plan = builder.build_serialized_network(network, config)
    if plan is None and cache is not None and job.timings and not job.cancelled.is_set():
        _log.warning("the build with kept timings failed: building once more without them")
        cache = _use_timings(job, config, b"")
        plan = builder.build_serialized_network(network, config)
    return plan


def _use_timings(job: _Job, config: BuilderConfig, data: bytes | None) -> TimingCache | None:
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
            "%s %s refuses the kept timing cache%s: tactics are timed anew",
            *(job.name, job.trt.__version__, _in_brackets(job.log.last_error())),
        )
        return _use_timings(job, config, b"")
    return None


def _timings_after(job: _Job, config: BuilderConfig) -> bytes | None:
    cache = None if job.timings is None else config.get_timing_cache()
    return None if cache is None else bytes(cache.serialize())


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""


def _configure(job: _Job, builder: PlanBuilder, network: Network, config: BuilderConfig) -> None:
    trt = job.trt
    if job.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, job.workspace_bytes)
    if job.level is not None:
        config.builder_optimization_level = job.level
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
            least, usual, most = ((size, *shape[1:]) for size in job.batch)
            profile.set_shape(tensor.name, least, usual, most)
    if dynamic:
        config.add_optimization_profile(profile)


def _monitor(job: _Job) -> ProgressMonitor:
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


def _parser_failure(job: _Job, parser: Parser, messages: Iterable[Message]) -> str:
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


def _build_failure(job: _Job, messages: Iterable[Message]) -> str:
    said = quote(messages) or (
        "it gives no reason here (another logger was registered first in this process)"
    )
    return (
        f"{job.name} {job.trt.__version__} could not build a plan: {said}; try another precision, "
        "or a smaller largest batch if memory ran out"
    )
