"""The build report: what answers like FP32, what changed, and what to worry about."""

from edge_fg_tools.report.corrections import CorrectionFacts
from edge_fg_tools.report.data import (
    MAX_CHANGED,
    MAX_HISTOGRAM_BINS,
    Answer,
    BudgetCheck,
    CalibrationFacts,
    ChangedAnswer,
    ModelFacts,
    PlanFacts,
    ProofFacts,
    Report,
    TensorRange,
    VariantReport,
    downsample,
)
from edge_fg_tools.report.search import LayerFacts, SearchFacts, TriedFacts
from edge_fg_tools.report.thumbnails import thumbnail
from edge_fg_tools.report.write import check_report, report_html, report_json

__all__ = [
    "MAX_CHANGED",
    "MAX_HISTOGRAM_BINS",
    "Answer",
    "BudgetCheck",
    "CalibrationFacts",
    "ChangedAnswer",
    "LayerFacts",
    "ModelFacts",
    "PlanFacts",
    "ProofFacts",
    "CorrectionFacts",
    "Report",
    "SearchFacts",
    "TensorRange",
    "TriedFacts",
    "VariantReport",
    "check_report",
    "downsample",
    "report_html",
    "report_json",
    "thumbnail",
]
