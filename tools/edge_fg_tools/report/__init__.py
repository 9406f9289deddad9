"""The build report: what answers like FP32, what changed, and what to worry about."""

from edge_fg_tools.report.data import (
    MAX_CHANGED,
    Answer,
    CalibrationFacts,
    ChangedAnswer,
    CostFacts,
    CostlyKernel,
    DeviceLatency,
    HoldOutLook,
    ModelFacts,
    PlanFacts,
    ProofFacts,
    Report,
    VariantReport,
)
from edge_fg_tools.report.json_document import report_json
from edge_fg_tools.report.page import check_report, report_html
from edge_fg_tools.report.ranges import MAX_HISTOGRAM_BINS, TensorRange, downsample
from edge_fg_tools.report.thumbnails import thumbnail

__all__ = [
    "MAX_CHANGED",
    "MAX_HISTOGRAM_BINS",
    "Answer",
    "CalibrationFacts",
    "ChangedAnswer",
    "CostFacts",
    "CostlyKernel",
    "DeviceLatency",
    "HoldOutLook",
    "ModelFacts",
    "PlanFacts",
    "ProofFacts",
    "Report",
    "TensorRange",
    "VariantReport",
    "check_report",
    "downsample",
    "report_html",
    "report_json",
    "thumbnail",
]
