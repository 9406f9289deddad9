"""From a bundle to an engine on the GPU: the plan is built if needed, and checked."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from edge_fg.backends.options import EngineOptions
from edge_fg.backends.plan_provider import PlanRequest, open_cache, provide_plan
from edge_fg.backends.tensorrt.engine import Engine, PlanRejectedError
from edge_fg.backends.tensorrt.library import Library, title
from edge_fg.bundle import Bundle, Manifest, Precision
from edge_fg.cuda import Device
from edge_fg.errors import BackendError, BackendUnavailableError
from edge_fg.progress import ProgressCallback

_log = logging.getLogger("edge_fg")


def load_engine(
    bundle: Bundle,
    precision: Precision,
    library: Library,
    device: Device,
    options: EngineOptions,
    progress: ProgressCallback | None,
) -> Engine:
    """Load a variant's plan; one from the cache that the library refuses is built again.

    Raises `BackendUnavailableError` if the library can't load the plan that it has just built;
    `CompileError`, `DeviceMemoryError` or `BackendError` if the plan can't be built, the GPU's
    memory is too small, or for another failure.
    """
    request = PlanRequest(
        graph=bundle.graph(precision),
        library=library,
        device=device.ordinal,
        precision=precision,
        batch=options.profile,
        workspace_bytes=options.workspace_bytes,
        builder_optimization_level=options.builder_optimization_level,
    )
    cache = open_cache(lambda: options.open_cache(bundle.path))
    shapes = {output.name: _shape(output.shape) for output in bundle.manifest.outputs}
    refused: bytes | None = None
    while True:
        provided = provide_plan(
            request,
            cache,
            what=str(bundle.path),
            progress=progress,
            keep_timings=options.timing_cache,
            instead_of=refused,
        )
        try:
            return Engine(provided.plan.data, library, device, shapes)
        except PlanRejectedError as error:
            if not provided.from_cache:
                raise BackendUnavailableError(
                    f"{title(library)} built a plan that it can't load on this GPU: {error}"
                ) from error
            _log.warning("the cached plan can't be used, it is built again: %s", error)
        refused = provided.plan.data


def _shape(axes: Sequence[int | str]) -> tuple[int, ...]:
    """Return a shape of the manifest as TensorRT writes it: -1 for the batch."""
    return tuple(size if isinstance(size, int) else -1 for size in axes)


def check_engine(engine: Engine, manifest: Manifest, batch: int, where: str) -> None:
    """Raise unless the engine has the bundle's input and outputs: buffers are sized by both."""
    if engine.max_batch != batch:
        raise BackendError(f"{where}: the plan takes batches of {engine.max_batch}, not {batch}")
    wanted = manifest.input
    shape = _shape(wanted.shape)
    found = engine.input
    # TensorRT states the batch of a profile whose smallest and largest batch are 1 as 1.
    shapes = {shape, (1, *shape[1:])} if batch == 1 else {shape}
    if (found.name, found.dtype.name) != (wanted.name, wanted.dtype) or found.shape not in shapes:
        raise BackendError(
            f"{where}: the plan takes {found.name} {found.shape} {found.dtype}, the bundle says "
            f"{wanted.name} {shape} {wanted.dtype}: rebuild the bundle"
        )
    missing = {output.name for output in manifest.outputs} - {o.name for o in engine.outputs}
    if missing:
        raise BackendError(f"{where}: the plan lacks the output {min(missing)!r}: rebuild it")
