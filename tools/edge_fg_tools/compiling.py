"""Compile a graph ahead of time, to a file or into the plan cache."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from edge_fg.backends.plans import Plan, PlanCache, plan_key
from edge_fg.backends.tensorrt_build import build_plan
from edge_fg.backends.tensorrt_library import Library, gpu_description, import_library
from edge_fg.errors import ModelFormatError, OutputError
from edge_fg.files import write_atomically
from edge_fg.progress import ProgressCallback, no_progress


@dataclass(frozen=True)
class CompiledPlan:
    """A plan on disk.

    Attributes
    ----------
    path
        Where it lies.
    bytes
        Its size.
    sha256
        Its digest, 64 hexadecimal digits.
    seconds
        How long the build took; 0 where the cache had it.
    library, version
        What built it, and what alone can load it.
    from_cache
        Whether it was taken from the cache.
    warnings
        What TensorRT warned of.
    """

    path: Path
    bytes: int
    sha256: str
    seconds: float
    library: str
    version: str
    from_cache: bool
    warnings: tuple[str, ...] = ()


def cache_key(
    onnx_bytes: bytes,
    target: Library,
    *,
    precision: str = "",
    batch: tuple[int, int, int] = (1, 1, 8),
    workspace_bytes: int | None = None,
    builder_optimization_level: int | None = None,
) -> str:
    """Return the key under which the plan of a graph is cached on this machine.

    TensorRT tunes a plan to the GPU that it sees; TensorRT-RTX makes one for all GPUs that it
    supports and finishes it on the device.
    """
    return plan_key(
        graph_sha256=hashlib.sha256(onnx_bytes).hexdigest(),
        library=target,
        version=str(import_library(target).__version__),
        precision=precision,
        profile=batch,
        flags={"workspace": workspace_bytes, "level": builder_optimization_level},
        gpu=gpu_description() if target == "tensorrt" else "any",
    )


def compile_graph(
    model: Path | bytes,
    target: Library,
    *,
    precision: str = "",
    batch: tuple[int, int, int] = (1, 1, 8),
    workspace_bytes: int | None = None,
    builder_optimization_level: int | None = None,
    output: Path | None = None,
    cache: PlanCache | None = None,
    progress: ProgressCallback = no_progress,
) -> CompiledPlan:
    """Compile an ONNX graph, or take its plan from the cache.

    Nothing is written before the plan is complete, so an interrupted build leaves nothing.

    Parameters
    ----------
    model
        The ONNX file, or its bytes, with the weights inside.
    target
        ``"tensorrt"`` or ``"tensorrt-rtx"``.
    precision
        Name of the variant, part of the cache key.
    output
        File to write; None keeps the plan in the cache, where the device's loader finds it.
    cache
        The plan cache; default: this user's.
    batch, workspace_bytes, builder_optimization_level, progress
        See `edge_fg.backends.tensorrt_build.build_plan`.

    Raises
    ------
    CompileError, MissingDependencyError, BackendUnavailableError, UsageError
        See `build_plan`.
    ModelFormatError
        The ONNX file can't be read.
    OutputError
        Neither `output` nor the cache can be written.
    """
    onnx_bytes = model if isinstance(model, bytes) else _read(model)
    if output is not None:
        _check_output(output)
    cache = PlanCache() if cache is None else cache
    key = cache_key(
        onnx_bytes,
        target,
        precision=precision,
        batch=batch,
        workspace_bytes=workspace_bytes,
        builder_optimization_level=builder_optimization_level,
    )
    plan = _from_cache(cache, key, target)
    from_cache = plan is not None
    if plan is None:
        plan = build_plan(
            onnx_bytes,
            library=target,
            batch=batch,
            workspace_bytes=workspace_bytes,
            progress=progress,
            builder_optimization_level=builder_optimization_level,
        )
    path = _place(plan, key, output, cache, stored=from_cache)
    return _described(plan, path, from_cache=from_cache)


def _described(plan: Plan, path: Path, *, from_cache: bool) -> CompiledPlan:
    return CompiledPlan(
        path=path,
        bytes=len(plan.data),
        sha256=plan.sha256,
        seconds=plan.seconds,
        library=plan.library,
        version=plan.version,
        from_cache=from_cache,
        warnings=plan.warnings,
    )


def _from_cache(cache: PlanCache, key: str, target: Library) -> Plan | None:
    data = cache.load(key)
    if data is None:
        return None
    # The version is part of the key, so the cached plan has the one that is installed.
    version = str(import_library(target).__version__)
    return Plan(data=data, library=target, version=version, layers=None, seconds=0.0)


def _place(plan: Plan, key: str, output: Path | None, cache: PlanCache, *, stored: bool) -> Path:
    if output is not None:
        write_atomically(output, plan.data)
        return output
    path = cache.path(key) if stored else cache.store(key, plan)
    if path is None:
        raise OutputError(
            "the plan cache can't be written (see the warning above): name an output file, or "
            "set XDG_CACHE_HOME to a folder of your own"
        )
    return path


def _check_output(output: Path) -> None:
    """Fail before the build, not after it."""
    if output.is_dir():
        raise OutputError(f"can't write {output}: it is a folder; name a file")
    if not output.parent.is_dir():
        raise OutputError(f"can't write {output}: the folder {output.parent} doesn't exist")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelFormatError(f"can't read {path}: {error.strerror or error}") from error
