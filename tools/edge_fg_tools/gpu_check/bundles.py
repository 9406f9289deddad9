"""The bundle and the images that engines are checked with."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_fg.backends.options import EngineOptions
from edge_fg.backends.selection import survey
from edge_fg.backends.tensorrt.library import Library
from edge_fg.bundle import PRECISIONS, Bundle
from edge_fg.errors import EdgeFGError, MissingDependencyError, UsageError
from edge_fg.images import read_image
from edge_fg_tools.gpu_check.results import CheckResult, Settings, not_measured

_BUILT: Final = "fieldguide.edgefg"
_PHOTOGRAPHS_PER_CLASS: Final = 4
_CALIBRATION_IMAGES: Final = 60
_SEED: Final = 20_000  # far from the seeds that the model was trained on
_IMAGES: Final = "images"
_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})


def check_bundle(settings: Settings) -> CheckResult:
    """Open the bundle that was given, or build one from the reference model, offline."""
    if settings.bundle:
        bundle = Bundle(Path(settings.bundle))
        return _opened(bundle, f"{settings.bundle} as it was given")
    if not usable_libraries():
        return not_measured(why_no_engine())
    try:
        _build(Path(settings.work))
    except MissingDependencyError as error:
        return not_measured(f"no bundle can be built here ({error}); or give --bundle")
    found = find_bundle(settings)
    assert found is not None
    return _opened(found, "built from the reference model")


def find_bundle(settings: Settings) -> Bundle | None:
    """Return the bundle of `check_bundle`, None if it made none."""
    path = Path(settings.bundle) if settings.bundle else Path(settings.work) / _BUILT
    return Bundle(path) if settings.bundle or path.exists() else None


def usable_libraries() -> list[Library]:
    """Return which of TensorRT and TensorRT-RTX can run on this machine."""
    found = {availability.name for availability in survey() if availability.usable}
    libraries: tuple[Library, ...] = ("tensorrt", "tensorrt-rtx")
    return [library for library in libraries if library in found]


def why_no_engine() -> str:
    """Return what TensorRT and TensorRT-RTX lack here, in one line."""
    return "; ".join(
        f"{found.name}: {found.reason}" for found in survey() if found.name != "onnxruntime"
    )


def options(settings: Settings, *, contexts: int = 1, cuda_graph: bool = True) -> EngineOptions:
    """Return settings of a backend whose plans all checks share; it never sleeps."""
    plans = Path(settings.work) / "plans"
    return EngineOptions(
        max_batch=8, contexts=contexts, cuda_graph=cuda_graph, plan_cache=plans, sleep=False
    )


def load_images(settings: Settings) -> list[NDArray[np.uint8]]:
    """Return images for an engine: those given, or rendered ones that no model was trained on.

    Raises
    ------
    UsageError
        There are no images where some were promised.
    """
    folder = Path(settings.images) if settings.images else Path(settings.work) / _IMAGES
    if not settings.images and not folder.exists():
        from edge_fg_tools import fieldguide

        fieldguide.write_image_set(folder, settings.per_class, _SEED + 1 + settings.seed)
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise UsageError(f"there are no images in {folder}: give another --images")
    return [read_image(path) for path in paths]


def _build(work: Path) -> None:
    """Build all variants; what is lacking for that is an error of ours."""
    from edge_fg_tools import fieldguide
    from edge_fg_tools.building import BuildOptions, build

    if (work / _BUILT).exists():
        return
    photographs = work / "photographs"
    fieldguide.write_image_set(photographs, _PHOTOGRAPHS_PER_CLASS, _SEED)
    build(
        BuildOptions(
            model=fieldguide.model_path(),
            labels=fieldguide.labels_path(),
            calibration=photographs / "images.csv",
            output=work / _BUILT,
            preprocess=str(fieldguide.preprocess_path()),
            precisions=PRECISIONS,
            calibration_images=_CALIBRATION_IMAGES,
            command="gpu_check",
            cache=False,
        )
    )


def _opened(bundle: Bundle, origin: str) -> CheckResult:
    variants = ", ".join(bundle.manifest.variants)
    for precision in bundle.manifest.variants:
        try:
            bundle.graph(precision)
        except EdgeFGError as error:
            return CheckResult("failed", f"the variant {precision} can't be read: {error}")
    text = f"{bundle.manifest.name} ({variants}), {origin}"
    return CheckResult("passed", text, facts={"bundle": bundle.manifest.name, "variants": variants})
