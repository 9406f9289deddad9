"""Settings of the TensorRT backends, where the defaults don't suit."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_fg.backends.plan_cache import BESIDE, FOLDER_VARIABLE, PlanCache
from edge_fg.errors import UsageError

_MAX_BATCH = 1024
_MAX_CONTEXTS = 64


@dataclass(frozen=True)
class EngineOptions:
    """Settings of the TensorRT backends; the others ignore them.

    Parameters
    ----------
    device
        Which GPU, by its number among those that ``CUDA_VISIBLE_DEVICES`` leaves visible, from 0.
        With a number the CPU is never used instead; None takes the first GPU.
    max_batch
        Largest batch of the plan's optimisation profile; more frames are executed in parts.
        Another number is another plan.
    contexts
        How many threads can execute at the same time, each with a stream and buffers of its
        own; further ones wait. A context is made when it is first needed.
    cuda_graph
        Whether batch sizes that come again and again are captured as CUDA graphs.
    sleep
        Whether a thread that waits for the GPU sleeps, which spares a core and its power and
        answers some 30 us later, or spins; None: sleeps on integrated devices such as a Jetson.
    workspace_bytes
        Most GPU memory that a layer may use while it computes; None: the library's own limit.
    builder_optimization_level
        0 (quick build) to 5 (slow build, fastest plan); None: the library's own.
    timing_cache
        Whether the builder's timings are kept beside the plans for the next build.
    plan_cache
        Folder of the plan cache; ``"beside"`` takes ``NAME.plans`` beside the bundle ``NAME``;
        None takes what the environment variable ``EDGE_FG_PLAN_CACHE`` says, a folder or
        ``beside``, or else this user's.
    plan_cache_bytes
        What the plan cache may hold; None: see `edge_fg.backends.plan_cache.PlanCache`.

    Raises
    ------
    UsageError
        A number is out of its range.
    """

    device: int | None = None
    max_batch: int = 8
    contexts: int = 2
    cuda_graph: bool = True
    sleep: bool | None = None
    workspace_bytes: int | None = None
    builder_optimization_level: int | None = None
    timing_cache: bool = True
    plan_cache: Path | Literal["beside"] | None = None
    plan_cache_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.device is not None and self.device < 0:
            raise UsageError(f"device must be the number of a GPU, from 0, not {self.device}")
        if not 1 <= self.max_batch <= _MAX_BATCH:
            raise UsageError(f"max_batch must be 1 to {_MAX_BATCH}, not {self.max_batch}")
        if not 1 <= self.contexts <= _MAX_CONTEXTS:
            raise UsageError(f"contexts must be 1 to {_MAX_CONTEXTS}, not {self.contexts}")

    @property
    def profile(self) -> tuple[int, int, int]:
        """Smallest, usual and largest batch: frames mostly come one by one."""
        return (1, 1, self.max_batch)

    def open_cache(self, bundle: Path) -> PlanCache:
        """Return the plan cache for a bundle.

        Raises `OutputError` if this user has no home folder to keep plans in, and `UsageError` if
        the limit of the cache is no positive number.
        """
        place = self.plan_cache
        if place is None and os.environ.get(FOLDER_VARIABLE) == BESIDE:
            place = BESIDE
        folder = plans_beside(bundle) if place == BESIDE else Path(place) if place else None
        return PlanCache(folder, limit_bytes=self.plan_cache_bytes)


def plans_beside(bundle: Path) -> Path:
    """Return the folder of plans beside a bundle: ``NAME.plans`` for ``NAME`` or ``NAME.zip``.

    Never inside it: a bundle holds only what its manifest lists.
    """
    bundle = bundle.absolute()
    name = bundle.stem if bundle.suffix == ".zip" else bundle.name
    return bundle.parent / f"{name}.plans"
