"""Compile graphs ahead of time, to a file or into the plan cache."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_fg.backends.plan_cache import PlanCache
from edge_fg.backends.plan_provider import PlanRequest, ProvidedPlan, provide_plan
from edge_fg.backends.tensorrt.library import Library, import_library
from edge_fg.bundle import Precision
from edge_fg.errors import ModelFormatError, OutputError
from edge_fg.files import write_atomically
from edge_fg.progress import ProgressCallback, no_progress

_LOGGER = logging.getLogger("edge_fg")


@dataclass(frozen=True)
class CompiledPlan:
    """A plan on disk."""

    path: Path  # Where it lies
    bytes: int  # Its size
    sha256: str  # Its digest, 64 hexadecimal digits
    seconds: float  # How long the build took; 0 where the cache had it
    # What built it, and what alone can load it.
    library: str
    version: str
    from_cache: bool  # Whether it was taken from the cache
    warnings: tuple[str, ...] = ()  # What TensorRT warned of


def compile_graph(
    model: Path | bytes,
    target: Library,
    *,
    precision: str = "",
    batch: tuple[int, int, int] = (1, 1, 8),
    workspace_bytes: int | None = None,
    builder_optimization_level: int | None = None,
    output: Path | None = None,
    overwrite: bool = False,
    cache: PlanCache | None = None,
    progress: ProgressCallback = no_progress,
) -> CompiledPlan:
    """Compile an ONNX graph, or take its plan from the cache.

    Nothing is written before the plan is complete, so an interrupted build leaves nothing.
    `model` is the file or its bytes, with the weights inside; `precision`, the name of the variant,
    is part of the cache key. The plan is written to `output`, which may exist only with
    `overwrite`, or stays in the cache, this user's
    unless another is given, where the device's loader finds it. For the other arguments see
    `edge_fg.backends.tensorrt.build.build_plan`.

    Raises what `build_plan` does, ModelFormatError where the ONNX file can't be read, and
    OutputError where `output` exists, or neither it nor the cache can be written.
    """
    onnx_bytes = model if isinstance(model, bytes) else _read(model)
    if output is not None:
        _check_output(output, overwrite)
    request = PlanRequest(
        graph=onnx_bytes,
        library=target,
        precision=precision,
        batch=batch,
        workspace_bytes=workspace_bytes,
        builder_optimization_level=builder_optimization_level,
    )
    cache = PlanCache() if cache is None else cache
    what = str(model) if isinstance(model, Path) else "the model"
    provided = provide_plan(request, cache, what=what, progress=progress, store=output is None)
    plan = provided.plan
    return CompiledPlan(
        path=_place(provided, output),
        bytes=len(plan.data),
        sha256=plan.sha256,
        seconds=plan.seconds,
        library=plan.library,
        version=plan.version,
        from_cache=provided.from_cache,
        warnings=plan.warnings,
    )


def check_target(target: str) -> None:
    """Find out before long work whether `target` can be compiled for.

    Raises MissingDependencyError or BackendUnavailableError where TensorRT-RTX is wanted and not
    there, or can't be loaded.
    """
    if target == "tensorrt-rtx":
        import_library("tensorrt-rtx")


def compile_plans(
    graphs: Mapping[Precision, bytes], target: str, progress: ProgressCallback
) -> dict[Precision, CompiledPlan]:
    """Compile each variant for TensorRT-RTX; nothing for other targets.

    A plan for TensorRT depends on the GPU that it will run on and is built there. Raises
    CompileError where a graph can't be built.
    """
    if target != "tensorrt-rtx":
        return {}
    return {name: _compile_variant(graph, name, progress) for name, graph in graphs.items()}


def _compile_variant(
    graph: bytes, precision: Precision, progress: ProgressCallback
) -> CompiledPlan:
    def renamed(stage: str, done: int, total: int) -> None:
        progress(f"{precision} plan: {stage}", done, total)

    try:
        return compile_graph(graph, "tensorrt-rtx", precision=precision, progress=renamed)
    except OutputError as error:
        _LOGGER.warning("the %s plan is built as a proof, and not kept: %s", precision, error)
    with tempfile.TemporaryDirectory(prefix="edge-fg-plan-") as folder:
        output = Path(folder) / f"{precision}.plan"
        return compile_graph(
            graph, "tensorrt-rtx", precision=precision, output=output, progress=renamed
        )


def _place(provided: ProvidedPlan, output: Path | None) -> Path:
    if output is not None:
        write_atomically(output, provided.plan.data)
        return output
    if provided.path is None:
        raise OutputError(
            "the plan cache can't be written (see the warning above): name an output file, or "
            "set EDGE_FG_PLAN_CACHE to a folder of your own"
        )
    return provided.path


def _check_output(output: Path, overwrite: bool) -> None:
    """Fail before the build, not after it."""
    if output.is_dir():
        raise OutputError(f"can't write {output}: it is a folder; name a file")
    if not output.parent.is_dir():
        raise OutputError(f"can't write {output}: the folder {output.parent} doesn't exist")
    if output.exists() and not overwrite:
        raise OutputError(f"{output} exists: give --overwrite, or name another file")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelFormatError(f"can't read {path}: {error.strerror or error}") from error
