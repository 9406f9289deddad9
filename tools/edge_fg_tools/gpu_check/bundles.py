"""The bundle and the images that engines are checked with."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_fg.backends.options import EngineOptions
from edge_fg.backends.selection import GPU_PREFERENCE, survey
from edge_fg.backends.tensorrt.library import Library
from edge_fg.bundle import PRECISIONS, Bundle, Precision
from edge_fg.errors import UsageError
from edge_fg.images import IMAGE_SUFFIXES, read_image
from edge_fg.sources.folders import files_below, with_suffixes
from edge_fg_tools.gpu_check.settings import Settings

_PHOTOGRAPHS_PER_CLASS: Final = 4
_CALIBRATION_IMAGES: Final = 60
_SEED: Final = 20_000  # far from the seeds that the model was trained on


def best_variant(bundle: Bundle) -> Precision:
    """Return the variant that edge_fg takes on a GPU by itself."""
    return next(name for name in GPU_PREFERENCE if name in bundle.manifest.variants)


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
    """Return images for an engine: those given, or rendered ones that no model was trained on."""
    folder = Path(settings.images) if settings.images else Path(settings.work) / "images"
    if not settings.images and not folder.exists():
        from edge_fg_tools import fieldguide

        fieldguide.write_image_set(folder, settings.per_class, _SEED + 1 + settings.seed)
    paths = with_suffixes(files_below(folder), IMAGE_SUFFIXES, str(folder))
    if not paths:
        raise UsageError(f"there are no images in {folder}: give another --images")
    return [read_image(path) for path in paths]


def build_bundle(output: Path) -> None:
    """Build a bundle of the reference model, offline."""
    from edge_fg_tools import fieldguide
    from edge_fg_tools.building import BuildOptions, build

    photographs = output.parent / "photographs"
    fieldguide.write_image_set(photographs, _PHOTOGRAPHS_PER_CLASS, _SEED)
    build(
        BuildOptions(
            model=fieldguide.model_path(),
            labels=fieldguide.labels_path(),
            calibration=photographs / "images.csv",
            output=output,
            preprocess=str(fieldguide.preprocess_path()),
            precisions=PRECISIONS,
            calibration_images=_CALIBRATION_IMAGES,
            command="gpu_check",
            cache=False,
        )
    )
