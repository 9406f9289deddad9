"""A plan from the cache, or built now: once on this machine, and never a stale one."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edge_fg.backends.plan import Plan
from edge_fg.backends.plan_cache import PlanCache, plan_key
from edge_fg.backends.tensorrt.build import build_plan
from edge_fg.backends.tensorrt.library import Library, gpu_description, import_library, title
from edge_fg.errors import OutputError
from edge_fg.progress import ProgressCallback

_log = logging.getLogger("edge_fg")
_SECONDS_BETWEEN_WORDS = 10.0
# Of common classifiers, as long as nothing was built on this machine: TensorRT times every layer's
# tactics on the device, TensorRT-RTX leaves that to the first inference.
_USUAL_DURATION: dict[Library, str] = {
    "tensorrt": "usually 1 to 10 minutes on a Jetson, less on larger GPUs",
    "tensorrt-rtx": "usually some seconds",
}


@dataclass(frozen=True)
class PlanRequest:
    """All that a plan depends on."""

    graph: bytes = field(repr=False)  # The ONNX model
    library: Library  # What builds and executes it
    precision: str = ""  # Name of the variant
    # Smallest, usual and largest batch of the optimisation profile.
    batch: tuple[int, int, int] = (1, 1, 8)
    # See `edge_fg.backends.tensorrt.build.build_plan`.
    workspace_bytes: int | None = None
    builder_optimization_level: int | None = None
    device: int = 0

    def key(self) -> str:
        """Return the key of the plan on this machine.

        TensorRT tunes a plan to the GPU and driver that it sees; TensorRT-RTX makes one for all
        GPUs that it supports and finishes it on the device. Raises `MissingDependencyError` or
        `BackendUnavailableError` if the library is not installed or can't be loaded.
        """
        return plan_key(
            graph_sha256=hashlib.sha256(self.graph).hexdigest(),
            library=self.library,
            version=self.version(),
            precision=self.precision,
            profile=self.batch,
            flags={"workspace": self.workspace_bytes, "level": self.builder_optimization_level},
            gpu="any" if self.library == "tensorrt-rtx" else gpu_description(self.device),
        )

    def timings_key(self) -> str:
        """Return the key of the builder's timing cache: only this version, GPU and driver."""
        return plan_key(
            graph_sha256="timings",
            library=self.library,
            version=self.version(),
            gpu=gpu_description(self.device),
        )

    def version(self) -> str:
        """Return the library's version."""
        return str(import_library(self.library).__version__)


@dataclass(frozen=True)
class ProvidedPlan:
    """A plan, and where it came from."""

    plan: Plan  # The plan; `Plan.seconds` is 0 where the cache had it
    key: str  # Its key in the cache
    from_cache: bool  # Whether it was built before
    path: Path | None  # Where the cache keeps it, or None where it is only in memory


def provide_plan(
    request: PlanRequest,
    cache: PlanCache | None,
    *,
    what: str = "the model",
    progress: ProgressCallback | None = None,
    keep_timings: bool = True,
    store: bool = True,
    instead_of: bytes | None = None,
) -> ProvidedPlan:
    """Return the plan of a request; of all processes that want it now, one builds it.

    It is looked for and kept in `cache`; with None it is built for this process alone, and without
    `store` it is only looked for. `instead_of` is a plan that turned out to be unusable and must be
    built again. `what` names the model in messages. `progress` is told of the build; None tells the
    log every few seconds. `keep_timings` uses and keeps the builder's timing cache.

    Raises what `edge_fg.backends.tensorrt.build.build_plan` does: `CompileError`,
    `MissingDependencyError`, `BackendUnavailableError`.
    """
    key = request.key()
    if cache is not None and instead_of is None:
        found = _from_cache(request, cache, key, None)
        if found is not None:
            return found
    shown = _LoggedProgress() if progress is None else progress
    # With `progress` the user sees the build: a warning that it takes time is not needed.
    level = logging.WARNING if progress is None else logging.INFO
    work = _Work(request, cache, what, shown, level, timed=keep_timings and store)
    if cache is None or not store:
        return ProvidedPlan(work.build(), key, from_cache=False, path=None)
    with cache.building(key, work.wait):
        # Another process may have built it since we looked.
        found = _from_cache(request, cache, key, instead_of)
        if found is not None:
            return found
        plan = work.build()
        return ProvidedPlan(plan, key, from_cache=False, path=cache.store(key, plan))


def open_cache(opened: Callable[[], PlanCache]) -> PlanCache | None:
    """Return the cache that `opened` gives; None, with a warning, where there can be none."""
    try:
        return opened()
    except OutputError as error:
        _log.warning("no plan is kept, every start builds it again: %s", error)
        return None


def _from_cache(
    request: PlanRequest, cache: PlanCache, key: str, refused: bytes | None
) -> ProvidedPlan | None:
    data = cache.load(key)
    if data is None or data == refused:
        return None
    # The version is part of the key, so the cached plan has the one that is installed.
    plan = Plan(data, request.library, request.version(), layers=None, seconds=0.0)
    return ProvidedPlan(plan, key, from_cache=True, path=cache.path(key))


@dataclass
class _Work:
    """Builds the plan of a request, or waits for another process, and says so."""

    request: PlanRequest
    cache: PlanCache | None
    what: str
    progress: ProgressCallback
    level: int
    timed: bool
    said: bool = False

    def build(self) -> Plan:
        request, library = self.request, self.request.library
        _log.log(
            self.level,
            "%s: building a plan (%s, batches of up to %d) with %s %s, %s; this happens once",
            *(self.what, request.precision or "as it is", request.batch[2]),
            *(title(library), request.version(), _expected(library, self.cache)),
        )
        cache = self.cache if self.timed and library == "tensorrt" else None
        timings = None if cache is None else cache.load_timings(request.timings_key()) or b""
        plan = build_plan(
            request.graph,
            library=library,
            device=request.device,
            batch=request.batch,
            workspace_bytes=request.workspace_bytes,
            progress=self.progress,
            builder_optimization_level=request.builder_optimization_level,
            timings=timings,
        )
        size = len(plan.data) / 1e6
        _log.info("%s: the plan took %.1f s and has %.1f MB", self.what, plan.seconds, size)
        if cache is not None and plan.timings and plan.timings != timings:
            cache.store_timings(request.timings_key(), plan.timings)
        return plan

    def wait(self, seconds: float) -> None:
        if not self.said:
            self.said = True
            name = title(self.request.library)
            _log.warning("%s: another process builds this %s plan: waiting", self.what, name)
        # Unknown how long: the total stays ahead of what has passed.
        self.progress("Waiting for another process", int(seconds), int(seconds) + 1)


def _expected(library: Library, cache: PlanCache | None) -> str:
    """Say how long a build will take, by the earlier ones on this machine."""
    seen = [] if cache is None else [seconds for seconds in cache.durations(library) if seconds]
    if not seen:
        return _USUAL_DURATION[library]
    return f"earlier ones took {min(seen):.0f} to {max(seen):.0f} s here"


class _LoggedProgress:
    """Tells the log every few seconds how far a build is."""

    def __init__(self) -> None:
        self._spoke = time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._spoke >= _SECONDS_BETWEEN_WORDS:
            self._spoke = now
            _log.warning("still building: %s, %d of %d", stage, done, total)
