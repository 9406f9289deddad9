"""edge_fg_calibration: ranges, quantisation, mixed precision and the proof of fidelity.

What stands here is loaded when it is first used. What handles images and figures needs NumPy
only; what handles graphs needs ``onnx``, so that a device can evaluate a bundle without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_fg.errors import MissingDependencyError
from edge_fg.public_names import lazy_names

if TYPE_CHECKING:
    from edge_fg_calibration.budget.budget import Budget, BudgetCheck
    from edge_fg_calibration.budget.confidence_margin import ConfidenceMargin
    from edge_fg_calibration.budget.fidelity import (
        Fidelity,
        ImageRecord,
        OutputKind,
        compare,
        image_records,
    )
    from edge_fg_calibration.budget.results import Candidate, SearchedLayer, SearchResult
    from edge_fg_calibration.budget.search import search_budget
    from edge_fg_calibration.corrections.results import CorrectionTrial
    from edge_fg_calibration.data.image_set import (
        ImageSet,
        LabelledImage,
        batches,
        read_image_set,
        resolve_labels,
    )
    from edge_fg_calibration.data.sampling import Sample, TopAnswer, sample
    from edge_fg_calibration.data.splitting import image_set_digest
    from edge_fg_calibration.graph.prepare import prepared_copy
    from edge_fg_calibration.int8.fp16 import float_tensors, overflowing, to_fp16
    from edge_fg_calibration.int8.placement import Placement, SkipPlace, Target, WeightPlace, place
    from edge_fg_calibration.int8.qdq import insert_qdq
    from edge_fg_calibration.int8.validation import validate_qdq
    from edge_fg_calibration.quantize import Int8Result, quantize_int8
    from edge_fg_calibration.statistics.cache import IdentifiedBatches, StatisticsCache
    from edge_fg_calibration.statistics.collection import collect_histograms, collect_statistics
    from edge_fg_calibration.statistics.histogram import Histogram
    from edge_fg_calibration.statistics.tensor_statistics import Statistics, StatisticsKey

__all__ = ["Budget", "BudgetCheck", "Candidate", "ConfidenceMargin", "SearchResult"]
__all__ += ["SearchedLayer", "search_budget"]
__all__ += ["Fidelity", "ImageRecord", "OutputKind", "compare", "image_records"]
__all__ += ["ImageSet", "LabelledImage", "batches", "read_image_set", "resolve_labels"]
__all__ += ["Sample", "TopAnswer", "image_set_digest", "sample"]
__all__ += ["Placement", "SkipPlace", "Target", "WeightPlace", "place"]
__all__ += ["insert_qdq", "prepared_copy", "validate_qdq"]
__all__ += ["float_tensors", "overflowing", "to_fp16"]
__all__ += ["CorrectionTrial", "Int8Result", "quantize_int8"]
__all__ += ["Histogram", "IdentifiedBatches", "Statistics", "StatisticsCache", "StatisticsKey"]
__all__ += ["collect_histograms", "collect_statistics"]

_NAMES_OF = {
    "budget.budget": "Budget BudgetCheck",
    "budget.confidence_margin": "ConfidenceMargin",
    "budget.fidelity": "Fidelity ImageRecord OutputKind compare image_records",
    "budget.results": "Candidate SearchResult SearchedLayer",
    "budget.search": "search_budget",
    "corrections.results": "CorrectionTrial",
    "data.image_set": "ImageSet LabelledImage batches read_image_set resolve_labels",
    "data.sampling": "Sample TopAnswer sample",
    "data.splitting": "image_set_digest",
    "graph.prepare": "prepared_copy",
    "int8.fp16": "float_tensors overflowing to_fp16",
    "int8.placement": "Placement SkipPlace Target WeightPlace place",
    "int8.qdq": "insert_qdq",
    "int8.validation": "validate_qdq",
    "quantize": "Int8Result quantize_int8",
    "statistics.cache": "IdentifiedBatches StatisticsCache",
    "statistics.collection": "collect_histograms collect_statistics",
    "statistics.histogram": "Histogram",
    "statistics.tensor_statistics": "Statistics StatisticsKey",
}

if not TYPE_CHECKING:
    _load, __dir__ = lazy_names(__name__, _NAMES_OF)

    def __getattr__(name: str) -> Any:
        try:
            return _load(name)
        except ModuleNotFoundError as error:
            if error.name != "onnx":
                raise
            raise MissingDependencyError("onnx", "build", "quantise a model") from error
