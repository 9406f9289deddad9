"""edge_fg_calibration: ranges, quantisation, mixed precision and the proof of fidelity.

What handles images and figures needs NumPy only; what handles graphs is imported on first use
and needs ``onnx``, so that a device can evaluate a bundle without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from edge_fg.errors import MissingDependencyError
from edge_fg_calibration.budget.budget import Budget
from edge_fg_calibration.budget.fidelity import (
    Fidelity,
    ImageRecord,
    OutputKind,
    compare,
    image_records,
)
from edge_fg_calibration.data.images import (
    ImageSet,
    LabelledImage,
    batches,
    digest,
    read_image_set,
    resolve_labels,
    split,
)
from edge_fg_calibration.data.sampling import FirstAnswer, Sample, sample
from edge_fg_calibration.statistics.cache import IdentifiedBatches, StatisticsCache
from edge_fg_calibration.statistics.histogram import Histogram
from edge_fg_calibration.statistics.tensor_statistics import Statistics, StatisticsKey

if TYPE_CHECKING:
    from edge_fg_calibration.budget.confidence_margin import ConfidenceMargin
    from edge_fg_calibration.budget.evaluation import ValidationSplit, make_validation_split
    from edge_fg_calibration.budget.results import SearchResult
    from edge_fg_calibration.budget.search import search_budget
    from edge_fg_calibration.budget.sensitivity import Sensitivity, measure_sensitivity
    from edge_fg_calibration.corrections.scoring import CorrectionTrial
    from edge_fg_calibration.graph.prepare import prepared_copy
    from edge_fg_calibration.int8.fp16 import float_tensors, overflowing, to_fp16
    from edge_fg_calibration.int8.placement import (
        TARGETS,
        Placement,
        SkipPlace,
        Target,
        WeightPlace,
        place,
    )
    from edge_fg_calibration.int8.qdq import insert_qdq
    from edge_fg_calibration.int8.validation import validate_qdq
    from edge_fg_calibration.quantize import Int8Result, quantize_int8
    from edge_fg_calibration.statistics.collection import collect_histograms, collect_statistics

_NEEDS_ONNX = {
    "CorrectionTrial": "corrections.scoring",
    "ConfidenceMargin": "budget.confidence_margin",
    "collect_histograms": "statistics.collection",
    "collect_statistics": "statistics.collection",
    "float_tensors": "int8.fp16",
    "overflowing": "int8.fp16",
    "to_fp16": "int8.fp16",
    "Int8Result": "quantize",
    "quantize_int8": "quantize",
    "TARGETS": "int8.placement",
    "Placement": "int8.placement",
    "SkipPlace": "int8.placement",
    "Target": "int8.placement",
    "WeightPlace": "int8.placement",
    "place": "int8.placement",
    "prepared_copy": "graph.prepare",
    "insert_qdq": "int8.qdq",
    "SearchResult": "budget.results",
    "search_budget": "budget.search",
    "Sensitivity": "budget.sensitivity",
    "ValidationSplit": "budget.evaluation",
    "make_validation_split": "budget.evaluation",
    "measure_sensitivity": "budget.sensitivity",
    "validate_qdq": "int8.validation",
}

__all__ = [
    "ConfidenceMargin",
    "Budget",
    "Fidelity",
    "FirstAnswer",
    "Histogram",
    "ImageRecord",
    "ImageSet",
    "Int8Result",
    "IdentifiedBatches",
    "LabelledImage",
    "OutputKind",
    "Placement",
    "SearchResult",
    "Sensitivity",
    "Sample",
    "CorrectionTrial",
    "SkipPlace",
    "Statistics",
    "StatisticsCache",
    "StatisticsKey",
    "TARGETS",
    "Target",
    "ValidationSplit",
    "WeightPlace",
    "batches",
    "collect_histograms",
    "collect_statistics",
    "compare",
    "digest",
    "float_tensors",
    "image_records",
    "insert_qdq",
    "make_validation_split",
    "measure_sensitivity",
    "overflowing",
    "place",
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
