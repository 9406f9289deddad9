"""Compile an ONNX graph into a plan, with TensorRT or TensorRT-RTX."""

from __future__ import annotations

import contextlib
import queue
import threading
from dataclasses import replace

from edge_fg.backends.plan import Plan
from edge_fg.backends.tensorrt.build_apart import build_apart
from edge_fg.backends.tensorrt.build_job import BuildSettings, Job, build
from edge_fg.backends.tensorrt.library import Library, import_library, message_log, title
from edge_fg.cuda.device import current_gpu, find_gpus
from edge_fg.errors import UsageError
from edge_fg.progress import ProgressCallback, no_progress

_POLL_SECONDS = 0.1
_WORKSPACE_SHARE = 4  # Of an integrated GPU's memory, which the rest of the build needs too


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
    """Compile an ONNX model, its weights inside; Ctrl-C stops the build.

    The build runs in a thread of its own and ``progress(phase, done, total)`` is called in the
    caller's, with TensorRT's names of its phases. Whatever the caller's thread raises meanwhile
    (KeyboardInterrupt, or an error of `progress`) cancels the build and is raised again when it has
    ended.

    `device` is the number of the GPU that TensorRT builds on and for; TensorRT-RTX needs none.
    `batch` is the smallest, usual and largest batch, for a graph with a dynamic one; else ignored.
    `workspace_bytes` is the most GPU memory that a layer may use while it computes and
    `builder_optimization_level` 0 (quick build) to 5 (slow build, fastest plan); None is the
    library's own. `timings` is the timing cache of an earlier build by this version for this GPU,
    or empty to begin one: with it a build takes a fraction of the time. None goes without.
    TensorRT-RTX, which times nothing, ignores it.

    TensorRT on an integrated GPU, as on a Jetson, builds in a child process, so that the kernel
    ends the build and not this program where memory runs out. A layer may then use a quarter of the
    memory unless `workspace_bytes` says how much. Where that was too much, the build is tried once
    more with a quarter of it.

    Raises `CompileError` if the graph can't be read (names the ONNX node) or built, or the child
    process died; `DeviceMemoryError` if memory ran out; `UsageError` if `batch` is not in ascending
    order from 1, or another number makes no sense;
    `MissingDependencyError` or `BackendUnavailableError` if the library is not installed or can't
    be loaded.
    """
    smallest, usual, largest = batch
    if not 1 <= smallest <= usual <= largest:
        raise UsageError(f"batch {batch} must ascend from at least 1: smallest, usual, largest")
    if workspace_bytes is not None and workspace_bytes <= 0:
        raise UsageError(f"workspace of {workspace_bytes} bytes: it must be positive")
    if builder_optimization_level is not None and not 0 <= builder_optimization_level <= 5:
        raise UsageError(f"optimisation level {builder_optimization_level}: 0 to 5 are possible")
    settings = BuildSettings(
        library=library,
        device=device,
        batch=batch,
        workspace_bytes=workspace_bytes,
        level=builder_optimization_level,
        timings=None if library == "tensorrt-rtx" else timings,
    )
    import_library(library)  # what is missing is said before anything is started
    gpus, _ = find_gpus() if library == "tensorrt" else ([], "")
    if device < len(gpus) and gpus[device].integrated:
        share = gpus[device].total_bytes // _WORKSPACE_SHARE
        limited = replace(settings, workspace_bytes=workspace_bytes or share)
        return build_apart(onnx_bytes, limited, progress)
    return build_here(onnx_bytes, settings, progress)


def build_here(onnx_bytes: bytes, settings: BuildSettings, progress: ProgressCallback) -> Plan:
    """Compile in this process what `build_plan` has checked; raises what that does."""
    library = settings.library
    job = Job(settings, import_library(library), message_log(library), title(library))
    return _run_in_thread(job, onnx_bytes, progress)


def _run_in_thread(job: Job, onnx_bytes: bytes, progress: ProgressCallback) -> Plan:
    results: list[Plan] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with (
                current_gpu(job.settings.device)
                if job.settings.device
                else contextlib.nullcontext()
            ):
                results.append(build(job, onnx_bytes))
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


def _next_event(job: Job) -> tuple[str, int, int] | tuple[()] | None:
    # A wait with a limit lets Python deliver Ctrl-C.
    try:
        return job.events.get(timeout=_POLL_SECONDS)
    except queue.Empty:
        return ()
