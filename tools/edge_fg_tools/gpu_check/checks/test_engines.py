"""Engines: whether they are built, and whether they answer as ONNX Runtime does on the CPU."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np
import pytest
from numpy.typing import NDArray

import edge_fg
from edge_fg.backends.tensorrt.library import Library
from edge_fg.bundle import Bundle, Precision
from edge_fg.errors import (
    BackendError,
    BackendUnavailableError,
    CompileError,
    DeviceLostError,
    EdgeFGError,
)
from edge_fg_tools.gpu_check.bundles import load_images, options
from edge_fg_tools.gpu_check.findings import Findings

LEAST_AGREEMENT: Final[dict[Precision, float]] = {
    "fp32": 0.99,
    "fp16": 0.99,
    "int8": 0.97,
    "int8-fp16": 0.97,
}
"""Share of images with the same best class as the same graph on ONNX Runtime's CPU.

TensorRT computes fp32 in TF32 by default, and rounds int8 at other places than ONNX Runtime
does, so that images between two classes may fall to the other side.
"""
_BATCH: Final = 8


def test_bundle(found: Findings, bundle: Bundle) -> None:
    """Open the bundle that engines are built of, and read each of its variants."""
    manifest = bundle.manifest
    for precision in manifest.variants:
        try:
            bundle.graph(precision)
        except EdgeFGError as error:
            pytest.fail(f"the variant {precision} can't be read: {error}", pytrace=False)
    variants = ", ".join(manifest.variants)
    found.facts({"bundle": manifest.name, "variants": variants})
    given = found.settings.bundle
    origin = f"{given} as it was given" if given else "of the reference model"
    found.conclude(f"{manifest.name} ({variants}), {origin}")


def test_fidelity(found: Findings, libraries: list[Library], bundle: Bundle) -> None:
    """Build an engine of every variant and compare its answers with ONNX Runtime's.

    A variant that a library can't build, or can't load on this GPU, is noted; the check fails
    where an engine answers otherwise, or can't be executed.
    """
    images = load_images(found.settings)
    load = partial(edge_fg.load, bundle, options=options(found.settings))
    found.figure("images", len(images))
    failures: list[str] = []
    lowest = 1.0
    fp32 = _probabilities(load(backend="onnxruntime", precision="fp32"), images)
    for precision in bundle.manifest.variants:
        same_graph = _probabilities(load(backend="onnxruntime", precision=precision), images)
        for library in libraries:
            name = f"{library} {precision}"
            started = time.perf_counter()
            try:
                with load(backend=library, precision=precision):
                    seconds = time.perf_counter() - started
                answers = _probabilities(load(backend=library, precision=precision), images)
            except (CompileError, BackendUnavailableError) as error:
                found.facts({f"{name} refused": str(error)})
                continue
            except DeviceLostError:
                raise
            except BackendError as error:
                failures.append(f"{name}: {error}")
                continue
            found.figure(f"{name} ready after", seconds, "s", 1)
            agreement = _compare(found, name, "same graph", answers, same_graph)
            _compare(found, name, "fp32", answers, fp32)
            lowest = min(lowest, agreement)
            if agreement < (least := LEAST_AGREEMENT[precision]):
                failures.append(f"{name} agrees on {agreement:.1%} only, {least:.0%} wanted")
    refused = ", ".join(name.removesuffix(" refused") for name in found.entry.facts)
    also = f"; refused: {refused}" if refused else ""
    assert not failures, "; ".join(failures) + also
    if len(found.entry.figures) == 1:
        pytest.skip(f"no variant could be built{also}")
    agreed = f"lowest agreement {lowest:.1%} with ONNX Runtime on the CPU"
    found.conclude(f"{len(images)} images, {agreed}{also}")


def _compare(
    found: Findings,
    name: str,
    other: str,
    answers: NDArray[np.float32],
    expected: NDArray[np.float32],
) -> float:
    """Note how alike two sets of (N, classes) probabilities are; return their agreement."""
    agreement = float((answers.argmax(axis=1) == expected.argmax(axis=1)).mean())
    largest = float(np.abs(answers - expected).max())
    found.figure(f"{name} agreement, {other}", 100 * agreement, "%", 2)
    found.figure(f"{name} largest difference, {other}", largest, "probability", 5)
    return agreement


def _probabilities(
    opened: edge_fg.Classifier, images: Sequence[NDArray[np.uint8]]
) -> NDArray[np.float32]:
    """Return (N, classes) probabilities, in full batches and one at a time; then close it."""
    rows: list[NDArray[np.float32]] = []
    with opened as classifier:
        half = len(images) // 2
        for begin in range(0, half, _BATCH):
            batch = classifier.batch(list(images[begin : min(begin + _BATCH, half)]))
            rows += [prediction.probabilities for prediction in batch]
        rows += [classifier(image).probabilities for image in images[half:]]
    return np.stack(rows)
