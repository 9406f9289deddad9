"""Engines: whether they are built, and whether they answer as ONNX Runtime does on the CPU."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

import edge_fg
from edge_fg.backends.tensorrt.library import Library
from edge_fg.bundle import Bundle, Precision
from edge_fg.errors import (
    BackendError,
    BackendUnavailableError,
    CompileError,
    DeviceLostError,
)
from edge_fg_tools.gpu_check.bundles import (
    find_bundle,
    load_images,
    options,
    usable_libraries,
    why_no_engine,
)
from edge_fg_tools.gpu_check.results import CheckResult, Figure, Settings, Verdict, not_measured

LEAST_AGREEMENT: Final[dict[Precision, float]] = {
    "fp32": 0.99,
    "fp16": 0.99,
    "int8": 0.97,
    "int8-fp16": 0.97,
}
"""Share of images with the same best class as the same graph on ONNX Runtime's CPU.

TensorRT computes fp32 in TF32 by default, and rounds int8 at other places than ONNX Runtime
does, so that images on the edge between two classes may fall to the other side.
"""
_BATCH: Final = 8


@dataclass(frozen=True)
class Fidelity:
    """How alike two sets of (N, classes) probabilities are."""

    agreement: float
    largest: float

    @staticmethod
    def of(found: NDArray[np.float32], expected: NDArray[np.float32]) -> Fidelity:
        """Compare what was found with what was expected."""
        same = found.argmax(axis=1) == expected.argmax(axis=1)
        return Fidelity(float(same.mean()), float(np.abs(found - expected).max()))


def check_fidelity(settings: Settings) -> CheckResult:
    """Build an engine of every variant and compare its answers with ONNX Runtime's.

    A variant that a library can't build, or can't load on this GPU, is noted; the check fails
    where an engine answers otherwise, or can't be executed.
    """
    bundle = find_bundle(settings)
    libraries = usable_libraries()
    if not libraries or bundle is None:
        return not_measured(
            why_no_engine() if not libraries else "there is no bundle, see `bundle`"
        )
    images = load_images(settings)
    figures = [Figure("images", len(images), "")]
    failures: list[str] = []
    refused: dict[str, str] = {}
    lowest = 1.0
    fp32 = _probabilities(bundle, "onnxruntime", "fp32", images, settings)
    for precision in bundle.manifest.variants:
        oracle = _probabilities(bundle, "onnxruntime", precision, images, settings)
        for library in libraries:
            name = f"{library} {precision}"
            try:
                seconds = _seconds_to_open(bundle, library, precision, settings)
                found = _probabilities(bundle, library, precision, images, settings)
            except (CompileError, BackendUnavailableError) as error:
                refused[f"{name} refused"] = str(error)
                continue
            except DeviceLostError:
                raise
            except BackendError as error:
                failures.append(f"{name}: {error}")
                continue
            same = Fidelity.of(found, oracle)
            lowest = min(lowest, same.agreement)
            figures += _figures(name, seconds, same, Fidelity.of(found, fp32))
            if same.agreement < LEAST_AGREEMENT[precision]:
                least = LEAST_AGREEMENT[precision]
                failures.append(f"{name} agrees on {same.agreement:.1%} only, {least:.0%} wanted")
    verdict: Verdict = "passed"
    text = f"{len(images)} images, lowest agreement {lowest:.1%} with ONNX Runtime on the CPU"
    if failures:
        verdict, text = "failed", "; ".join(failures)
    elif len(figures) == 1:
        verdict, text = "not measured", "no variant could be built"
    if refused:
        text += f"; refused: {', '.join(name.removesuffix(' refused') for name in refused)}"
    return CheckResult(verdict, text, tuple(figures), facts=refused)


def _seconds_to_open(
    bundle: Bundle, library: Library, precision: Precision, settings: Settings
) -> float:
    started = time.perf_counter()
    with _loaded(bundle, library, precision, settings):
        return time.perf_counter() - started


def _figures(name: str, seconds: float, same: Fidelity, fp32: Fidelity) -> tuple[Figure, ...]:
    return (
        Figure(f"{name} ready after", round(seconds, 1), "s"),
        Figure(f"{name} agreement, same graph", round(100 * same.agreement, 2), "%"),
        Figure(f"{name} largest difference, same graph", round(same.largest, 5), "probability"),
        Figure(f"{name} agreement, fp32", round(100 * fp32.agreement, 2), "%"),
        Figure(f"{name} largest difference, fp32", round(fp32.largest, 5), "probability"),
    )


def _loaded(
    bundle: Bundle, backend: Library | str, precision: Precision, settings: Settings
) -> edge_fg.Classifier:
    return edge_fg.load(bundle, backend=backend, precision=precision, options=options(settings))


def _probabilities(
    bundle: Bundle,
    backend: str,
    precision: Precision,
    images: Sequence[NDArray[np.uint8]],
    settings: Settings,
) -> NDArray[np.float32]:
    """Return (N, classes) probabilities, in full batches and one at a time."""
    rows: list[NDArray[np.float32]] = []
    with _loaded(bundle, backend, precision, settings) as classifier:
        half = len(images) // 2
        for begin in range(0, half, _BATCH):
            batch = classifier.batch(list(images[begin : min(begin + _BATCH, half)]))
            rows += [prediction.probabilities for prediction in batch]
        rows += [classifier(image).probabilities for image in images[half:]]
    return np.stack(rows)
