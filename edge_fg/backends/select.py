"""Which backend runs a bundle on this machine, and why."""

from __future__ import annotations

from dataclasses import dataclass

from edge_fg.backends import onnxruntime, tensorrt_library
from edge_fg.backends.base import Backend
from edge_fg.bundle import PRECISIONS, Bundle, Precision
from edge_fg.cuda.device import find_gpus
from edge_fg.errors import BackendError, BackendUnavailableError, UsageError

BACKENDS = ("tensorrt", "tensorrt-rtx", "onnxruntime")
"""Names of the backends, the fastest first: the order of preference."""

MAX_THREADS = 1024
"""Most threads for one inference: beyond any machine that this is for."""


@dataclass(frozen=True)
class Availability:
    """Whether a backend can run here, and the reason in a few words."""

    name: str
    usable: bool
    reason: str


@dataclass(frozen=True)
class Choice:
    """The backend and variant that will be used, and the reason in one sentence."""

    backend: str
    precision: Precision
    reason: str


def survey() -> list[Availability]:
    """Return what can be said of each backend on this machine, in order of preference."""
    return [_tensorrt("tensorrt"), _tensorrt("tensorrt-rtx"), _onnxruntime()]


def _onnxruntime() -> Availability:
    usable, reason = onnxruntime.available()
    return Availability("onnxruntime", usable, reason)


def _tensorrt(library: tensorrt_library.Library) -> Availability:
    installed, reason = tensorrt_library.available(library)
    if not installed:
        return Availability(library, False, reason)
    gpus, why_none = find_gpus()
    if not gpus:
        return Availability(library, False, f"{reason}: can build plans, but {why_none}")
    return Availability(
        library, False, f"{reason}: can build plans; this edge_fg does not execute them yet"
    )


def choose(bundle: Bundle, backend: str | None = None, precision: str | None = None) -> Choice:
    """Choose a backend and a variant.

    Parameters
    ----------
    bundle
        What to run.
    backend, precision
        What the user asked for; None leaves it to edge_fg.

    Raises
    ------
    BackendUnavailableError
        The one asked for can't run here, or none can.
    BackendError
        The bundle lacks the variant asked for.
    UsageError
        There is no backend or precision of that name.
    """
    if backend is not None and backend not in BACKENDS:
        raise UsageError(f"there is no backend `{backend}`: choose of {', '.join(BACKENDS)}")
    surveyed = survey()
    if backend is None:
        usable = [candidate for candidate in surveyed if candidate.usable]
        if not usable:
            reasons = "; ".join(f"{c.name}: {c.reason}" for c in surveyed)
            raise BackendUnavailableError(f"no backend can run here: {reasons}")
        chosen = usable[0]
        passed = surveyed[: surveyed.index(chosen)]
        reason = "; ".join([f"not {c.name} ({c.reason})" for c in passed] + [chosen.reason])
    else:
        chosen = next(candidate for candidate in surveyed if candidate.name == backend)
        if not chosen.usable:
            raise BackendUnavailableError(f"{backend} can't run here: {chosen.reason}")
        reason = f"asked for; {chosen.reason}"
    variant, why = _choose_precision(bundle, precision)
    return Choice(chosen.name, variant, f"{reason}; {why}")


def _choose_precision(bundle: Bundle, asked: str | None) -> tuple[Precision, str]:
    have = bundle.manifest.variants
    if asked is not None:
        for precision in PRECISIONS:
            if precision == asked and precision in have:
                return precision, f"{precision} asked for"
        if asked not in PRECISIONS:
            raise UsageError(f"there is no precision `{asked}`: choose of {', '.join(PRECISIONS)}")
        raise BackendError(
            f"{bundle.path} has no {asked} variant (it has {', '.join(have)}): "
            f"rebuild it with --precision {asked}"
        )
    # On a CPU the integer graphs prove what a device will answer; they are not faster.
    first = next(precision for precision in PRECISIONS if precision in have)
    if first == "fp32":
        return first, "fp32 is the fastest of the bundle on a CPU"
    return first, f"{first}, since the bundle has no fp32"


def open_backend(bundle: Bundle, choice: Choice, *, threads: int = 0) -> Backend:
    """Open what `choose` chose.

    Raises
    ------
    UsageError
        `threads` is not 0 (as many as there are cores) to `MAX_THREADS`.
    BackendError
        The backend can't execute the variant.
    """
    if not 0 <= threads <= MAX_THREADS:
        raise UsageError(f"threads must be 0 (one for each core) to {MAX_THREADS}, not {threads}")
    return onnxruntime.OnnxRuntimeBackend(bundle, choice.precision, threads=threads)
