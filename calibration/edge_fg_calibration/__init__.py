"""edge_fg_calibration: ranges, quantisation, mixed precision and the proof of fidelity.

What handles pictures and figures needs NumPy only; what handles graphs is imported on first use
and needs ``onnx``, so that a device can evaluate a bundle without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from edge_fg.errors import MissingDependencyError
from edge_fg_calibration.budget import Budget
from edge_fg_calibration.cache import KnownPictures, StatisticsCache
from edge_fg_calibration.fidelity import Fidelity, ImageRecord, OutputKind, compare, image_records
from edge_fg_calibration.histogram import Histogram
from edge_fg_calibration.images import (
    ImageSet,
    LabelledImage,
    batches,
    digest,
    read_image_set,
    resolve_labels,
    split,
)
from edge_fg_calibration.sampling import FirstAnswer, Sample, sample
from edge_fg_calibration.statistics import Statistics, StatisticsKey

if TYPE_CHECKING:
    from edge_fg_calibration.assurance import Assurance
    from edge_fg_calibration.bench import Repair
    from edge_fg_calibration.collect import collect_histograms, collect_statistics
    from edge_fg_calibration.fp16 import float_tensors, overflowing, to_fp16
    from edge_fg_calibration.int8 import Int8Result, quantize_int8
    from edge_fg_calibration.placement import (
        TARGETS,
        Placement,
        SkipPlace,
        Target,
        WeightPlace,
        place,
    )
    from edge_fg_calibration.prepare import prepared_copy
    from edge_fg_calibration.qdq import insert_qdq
    from edge_fg_calibration.run import predict
    from edge_fg_calibration.search import SearchResult, search_budget
    from edge_fg_calibration.sensitivity import Sensitivity, Trial, make_trial, measure_sensitivity
    from edge_fg_calibration.validate import validate_qdq

_NEEDS_ONNX = {
    "Repair": "bench",
    "Assurance": "assurance",
    "collect_histograms": "collect",
    "collect_statistics": "collect",
    "float_tensors": "fp16",
    "overflowing": "fp16",
    "to_fp16": "fp16",
    "Int8Result": "int8",
    "quantize_int8": "int8",
    "TARGETS": "placement",
    "Placement": "placement",
    "SkipPlace": "placement",
    "Target": "placement",
    "WeightPlace": "placement",
    "place": "placement",
    "prepared_copy": "prepare",
    "insert_qdq": "qdq",
    "predict": "run",
    "SearchResult": "search",
    "search_budget": "search",
    "Sensitivity": "sensitivity",
    "Trial": "sensitivity",
    "make_trial": "sensitivity",
    "measure_sensitivity": "sensitivity",
    "validate_qdq": "validate",
}

__all__ = [
    "Assurance",
    "Budget",
    "Fidelity",
    "FirstAnswer",
    "Histogram",
    "ImageRecord",
    "ImageSet",
    "Int8Result",
    "KnownPictures",
    "LabelledImage",
    "OutputKind",
    "Placement",
    "SearchResult",
    "Sensitivity",
    "Sample",
    "Repair",
    "SkipPlace",
    "Statistics",
    "StatisticsCache",
    "StatisticsKey",
    "TARGETS",
    "Target",
    "Trial",
    "WeightPlace",
    "batches",
    "collect_histograms",
    "collect_statistics",
    "compare",
    "digest",
    "float_tensors",
    "image_records",
    "insert_qdq",
    "make_trial",
    "measure_sensitivity",
    "overflowing",
    "place",
    "predict",
    "prepared_copy",
    "quantize_int8",
    "read_image_set",
    "resolve_labels",
    "search_budget",
    "sample",
    "split",
    "to_fp16",
    "validate_qdq",
]


def __getattr__(name: str) -> object:
    module = _NEEDS_ONNX.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        found = importlib.import_module(f"{__name__}.{module}")
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        raise MissingDependencyError("onnx", "build", "quantise a model") from error
    value: object = getattr(found, name)
    return value
