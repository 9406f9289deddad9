"""Which backend runs a bundle on this machine, and why."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from edge_fg.backends import onnxruntime
from edge_fg.backends.base import Backend
from edge_fg.backends.options import EngineOptions
from edge_fg.backends.tensorrt import library as tensorrt_library
from edge_fg.bundle import PRECISIONS, Bundle, Precision
from edge_fg.cuda.device import find_gpus
from edge_fg.errors import (
    BackendError,
    BackendUnavailableError,
    CompileError,
    MissingDependencyError,
    UsageError,
)
from edge_fg.progress import ProgressCallback

BACKENDS = ("tensorrt", "tensorrt-rtx", "onnxruntime")
"""Names of the backends, the fastest first: the order of preference."""

MAX_THREADS = 1024
"""Most threads for one inference: more cores than any machine that this is for."""

GPU_PREFERENCE: Final[tuple[Precision, ...]] = ("int8-fp16", "int8", "fp16", "fp32")
"""Variants as a GPU likes them: INT8 tensor cores where the bundle has INT8, then FP16's."""

# On a CPU the integer graphs prove what a device will answer; they are not faster.
_CPU_PREFERENCE: Final[tuple[Precision, ...]] = PRECISIONS

_WHY: Final[dict[Precision, str]] = {
    "int8-fp16": "INT8 tensor cores where the bundle has INT8 and FP16 ones elsewhere",
    "int8": "INT8 tensor cores",
    "fp16": "FP16 tensor cores",
    "fp32": "nothing faster is in the bundle",
}
_log = logging.getLogger("edge_fg")


@dataclass(frozen=True)
class Availability:
    """Whether a backend can run here, and the reason in a few words."""

    name: str  # The backend
    reason: str  # What is there, or what is missing, in one line
    missing: tuple[str, ...] = ()  # Each thing that it lacks, and what brings it
    installed: bool = True  # Whether its library is there

    @property
    def usable(self) -> bool:
        """Whether all that it needs is there."""
        return not self.missing


@dataclass(frozen=True)
class Choice:
    """The backend and variant that will be used, and the reason in one sentence."""

    backend: str
    precision: Precision
    reason: str


def survey(device: int | None = None) -> list[Availability]:
    """Return whether each backend can run on this machine, in order of preference.

    `device` is the number of the GPU to use; None for the first.
    """
    return [_tensorrt("tensorrt", device), _tensorrt("tensorrt-rtx", device), _onnxruntime()]


def _onnxruntime() -> Availability:
    usable, reason = onnxruntime.available()
    return Availability("onnxruntime", reason, () if usable else (reason,), usable)


def _tensorrt(library: tensorrt_library.Library, device: int | None) -> Availability:
    installed, found = tensorrt_library.available(library)
    gpus, why_none = find_gpus()
    number = device or 0
    if gpus and number >= len(gpus):
        why_none = f"there is no GPU {number}: this machine has {len(gpus)}, counted from 0"
    pycuda = importlib.util.find_spec("pycuda") is not None
    needed = (
        (installed, found),
        (number < len(gpus), why_none),
        (pycuda, "PyCUDA is not installed (pip install 'edge-fg[cuda]')"),
    )
    missing = tuple(text for there, text in needed if not there)
    if not missing:
        return Availability(library, f"{found} on {gpus[number].name}")
    lacks = "; ".join(missing)
    reason = f"{found}: can build plans, but {lacks}" if installed else lacks
    return Availability(library, reason, missing, installed)


def choose(
    bundle: Bundle,
    backend: str | None = None,
    precision: str | None = None,
    device: int | None = None,
) -> Choice:
    """Choose a backend and a variant; None leaves one to edge_fg.

    Raises `BackendUnavailableError` if the backend or GPU asked for can't be used here, or no
    backend can; `BackendError` if the bundle lacks the variant asked for; `UsageError` if there is
    no backend or precision of that name, or `device` is given for the CPU.
    """
    return next(_choices(bundle, backend, precision, device))


def open_best(
    bundle: Bundle,
    backend: str | None = None,
    precision: str | None = None,
    *,
    threads: int = 0,
    options: EngineOptions | None = None,
    progress: ProgressCallback | None = None,
) -> tuple[Backend, Choice]:
    """Open the best backend that works, and say which and why.

    What was asked for is opened or fails. What was left open (None) is tried in order of
    preference: a graph that TensorRT can't build is replaced by the next variant, a backend that
    fails by the next backend; the log has a warning, and the reason says it.

    `threads` of the CPU serve one inference of ONNX Runtime: 0 (as many as there are cores) to
    `MAX_THREADS`. `options` are for the TensorRT backends; with a `device` only they are
    considered. `progress` is told of the build of a plan; None tells the log.

    Raises `BackendError`, `MissingDependencyError` or `CompileError` if the one asked for, or the
    last one left, can't run the bundle; `UsageError` if there is no backend or precision of that
    name, or `threads` is out of its range.
    """
    if not 0 <= threads <= MAX_THREADS:
        raise UsageError(f"threads must be 0 (one for each core) to {MAX_THREADS}, not {threads}")
    options = options or EngineOptions()
    failed: list[str] = []
    given_up = ""
    trouble: BackendError | MissingDependencyError | CompileError | None = None
    for choice in _choices(bundle, backend, precision, options.device):
        if choice.backend == given_up:
            continue
        if failed:
            now = f"{choice.precision} on {choice.backend}"
            _log.warning("%s: %s; trying %s", bundle.path, failed[-1], now)
        try:
            opened = _open(bundle, choice, threads, options, progress)
        except (BackendError, MissingDependencyError, CompileError) as error:
            trouble = error
            failed.append(f"{choice.precision} failed on {choice.backend} ({error})")
            # Another variant may be built where one could not; a GPU that fails, fails for all.
            given_up = "" if isinstance(error, CompileError) else choice.backend
            continue
        reason = "; ".join([*failed, choice.reason])
        return opened, Choice(choice.backend, choice.precision, reason)
    assert trouble is not None  # there is at least one choice, or `_choices` has raised
    raise trouble


def _open(
    bundle: Bundle,
    choice: Choice,
    threads: int,
    options: EngineOptions,
    progress: ProgressCallback | None,
) -> Backend:
    if choice.backend == "onnxruntime":
        return onnxruntime.OnnxRuntimeBackend(bundle, choice.precision, threads=threads)
    # Imported here: only where a GPU is used.
    from edge_fg.backends.tensorrt.backend import TensorRTBackend

    library: tensorrt_library.Library = (
        "tensorrt-rtx" if choice.backend == "tensorrt-rtx" else "tensorrt"
    )
    return TensorRTBackend(bundle, choice.precision, library, options=options, progress=progress)


def _choices(
    bundle: Bundle, backend: str | None, precision: str | None, device: int | None
) -> Iterator[Choice]:
    """Yield what may be opened, the best first; raises where there is nothing."""
    if backend is not None and backend not in BACKENDS:
        raise UsageError(f"there is no backend `{backend}`: choose from {', '.join(BACKENDS)}")
    if device is not None and backend == "onnxruntime":
        raise UsageError("device chooses a GPU, and onnxruntime runs on the CPU: leave one out")
    surveyed = survey(device)
    asked = [found for found in surveyed if backend in (None, found.name)]
    if device is not None:
        asked = [found for found in asked if found.name != "onnxruntime"]
    usable = [found for found in asked if found.usable]
    if not usable and backend is not None:
        raise BackendUnavailableError(f"{backend} can't run here: {asked[0].reason}")
    if not usable:
        where = "here" if device is None else f"on GPU {device}"
        reasons = "; ".join(f"{found.name}: {found.reason}" for found in asked)
        raise BackendUnavailableError(f"no backend can run {where}: {reasons}")
    for chosen in usable:
        passed = [found for found in surveyed[: surveyed.index(chosen)] if not found.usable]
        words = [f"not {found.name} ({found.reason})" for found in passed]
        reason = "; ".join([*words, chosen.reason])
        if backend is not None:
            reason = f"asked for; {chosen.reason}"
        for variant, why in _precisions(bundle, chosen.name, precision):
            yield Choice(chosen.name, variant, f"{reason}; {why}")


def _precisions(bundle: Bundle, backend: str, asked: str | None) -> Iterator[tuple[Precision, str]]:
    """Yield the variants that a backend may run, the best first, each with the reason."""
    have = bundle.manifest.variants
    if asked is not None:
        if asked not in PRECISIONS:
            raise UsageError(
                f"there is no precision `{asked}`: choose from {', '.join(PRECISIONS)}"
            )
        if asked not in have:
            raise BackendError(
                f"{bundle.path} has no {asked} variant (it has {', '.join(have)}): "
                f"rebuild it with --precision {asked}"
            )
        yield asked, f"{asked} asked for"
        return
    if backend != "onnxruntime":
        for precision in GPU_PREFERENCE:
            if precision in have:
                yield precision, f"{precision}: {_WHY[precision]}"
        return
    first = next(precision for precision in _CPU_PREFERENCE if precision in have)
    fastest = "fp32 is the fastest of the bundle on a CPU"
    yield first, fastest if first == "fp32" else f"{first}, since the bundle has no fp32"
