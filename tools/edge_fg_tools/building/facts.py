"""Make the report of a build."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import edge_fg
from edge_fg.bundle import Precision
from edge_fg.errors import ImageError
from edge_fg.images import read_image
from edge_fg.labels import Labels
from edge_fg_calibration import ImageRecord, ImageSet, Int8Result, LabelledImage
from edge_fg_calibration.graph.onnx_graph import Graph
from edge_fg_tools.building.device_costs import cost_facts
from edge_fg_tools.building.looks import Proven
from edge_fg_tools.building.options import BuildOptions
from edge_fg_tools.building.proof import Proof
from edge_fg_tools.building.variants import Variants
from edge_fg_tools.compiling import CompiledPlan
from edge_fg_tools.graph import PreparedModel
from edge_fg_tools.report import (
    MAX_CHANGED,
    Answer,
    CalibrationFacts,
    ChangedAnswer,
    CostFacts,
    ModelFacts,
    PlanFacts,
    ProofFacts,
    Report,
    TensorRange,
    VariantReport,
    downsample,
    thumbnail,
)


@dataclass(frozen=True)
class BuildFacts:
    """Everything that a finished build knows; the bundle and the report are written from it."""

    options: BuildOptions
    prepared: PreparedModel
    doubts: tuple[str, ...]  # What makes preprocessing, labels or images doubtful
    labels: Labels
    calibration: ImageSet
    calibration_digest: str
    hold_out: ImageSet
    skipped: dict[str, str]
    proven: Proven
    plans: dict[Precision, CompiledPlan]
    model_sha256: str
    provenance: dict[str, Any]

    @property
    def variants(self) -> Variants:
        """What is shipped."""
        return self.proven.variants

    @property
    def proof(self) -> Proof:
        """What the hold-out set showed of it."""
        return self.proven.proof


def make_report(facts: BuildFacts) -> Report:
    """Return the report of a build."""
    int8 = facts.variants.int8
    costs = cost_facts(facts.variants.graphs, facts.options.target)
    return Report(
        name=facts.options.bundle_name,
        created=facts.provenance["created"],
        edge_fg_version=edge_fg.__version__,
        model=_model(facts),
        calibration=_calibration(facts, int8) if int8 else None,
        proof=ProofFacts(
            images=len(facts.proof.images),
            labelled=sum(image.index is not None for image in facts.proof.images),
            source=facts.hold_out.name,
            looks=facts.proven.looks,
        ),
        variants=tuple(_variant(facts, name, costs[name]) for name in facts.variants.graphs),
        ranges=_ranges(int8) if int8 else (),
        placement_skipped=int8.placement.skipped if int8 else (),
        provenance=facts.provenance,
        search=facts.variants.search,
        corrections=int8.corrections if int8 else None,
    )


def _model(facts: BuildFacts) -> ModelFacts:
    prepared = facts.prepared
    graph = Graph(prepared.model)
    size = f"N x {prepared.image_text}"
    return ModelFacts(
        file=facts.options.model.name,
        sha256=facts.model_sha256,
        input=f"{prepared.input_name}: {size} {prepared.input_dtype} ({prepared.layout})",
        classes=prepared.classes,
        kind=prepared.kind,
        parameters=sum(math.prod(tensor.dims) for tensor in graph.initializers.values()),
        macs=sum(map(graph.macs, graph.nodes)),
        warnings=(*facts.doubts, *prepared.warnings),
        doubts=len(facts.doubts),
    )


def _calibration(facts: BuildFacts, int8: Int8Result) -> CalibrationFacts:
    return CalibrationFacts(
        source=facts.calibration.name,
        images=len(facts.calibration),
        skipped=tuple(sorted(facts.skipped.items())),
        digest=facts.calibration_digest,
        method=int8.method,
        candidates=int8.candidates,
        validation_images=int8.validation_images,
    )


def _variant(
    facts: BuildFacts, precision: Precision, costs: tuple[CostFacts, ...]
) -> VariantReport:
    fidelity, records = facts.proof.fidelity[precision], facts.proof.records[precision]
    pairs = list(zip(facts.proof.images, records, strict=True))
    changed = [(image, r) for image, r in pairs if r.top1 != r.reference_top1]
    changed.sort(key=lambda pair: -pair[1].kl)
    plan = facts.plans.get(precision)
    return VariantReport(
        name=precision,
        file_bytes=len(facts.variants.graphs[precision]),
        fidelity=fidelity.to_dict(),
        int8_macs=facts.variants.int8_macs if precision.startswith("int8") else None,
        plan=_plan(plan) if plan else None,
        changed=tuple(_changed(facts.labels, *pair) for pair in changed[:MAX_CHANGED]),
        changed_total=len(changed),
        scatter=tuple(
            (r.reference_confidence, r.confidence, r.top1 == r.reference_top1) for r in records
        ),
        sibling_confusions_added=_sibling_confusions(facts.labels, records),
        looks=sum(precision in look.agreement for look in facts.proven.looks),
        budget=() if precision == "fp32" else tuple(facts.options.budget.checks(fidelity)),
        costs=costs,
    )


def _plan(plan: CompiledPlan) -> PlanFacts:
    return PlanFacts(plan.library, plan.bytes, plan.seconds, plan.version, plan.from_cache)


def _changed(labels: Labels, image: LabelledImage, record: ImageRecord) -> ChangedAnswer:
    before, after = record.reference_top1, record.top1
    try:
        small = thumbnail(read_image(image.path))
    except ImageError:  # it could be read before; the report then shows no thumbnail
        small = b""
    return ChangedAnswer(
        file=image.path.name,
        thumbnail_jpeg=small,
        truth=None if image.index is None else labels.shown(image.index),
        reference=Answer(labels.shown(before), record.reference_confidence),
        candidate=Answer(labels.shown(after), record.confidence),
        siblings=labels[before].is_sibling_of(labels[after]),
    )


def _sibling_confusions(labels: Labels, records: list[ImageRecord]) -> int | None:
    """Count right answers of FP32 that became another class of the same genus."""
    if not any(label.genus for label in labels) or all(r.index is None for r in records):
        return None
    return sum(
        r.index == r.reference_top1 and labels[r.reference_top1].is_sibling_of(labels[r.top1])
        for r in records
    )


def _ranges(int8: Int8Result) -> tuple[TensorRange, ...]:
    consumers = Graph(int8.model).consumers
    ranges = []
    for tensor, values in int8.ranges.items():
        histogram = int8.histograms[tensor]
        counts, limit = downsample(histogram.counts.tolist(), histogram.limit)
        readers = consumers.get(tensor, ())
        ranges.append(
            TensorRange(
                tensor=tensor,
                node=readers[0].node.name if readers else "",
                op=readers[0].node.op_type if readers else "",
                amax=values["amax"] + values["shift"],
                maximum=histogram.amax,
                clipped_share=values["clipped_share"],
                method=int8.methods[tensor],
                histogram=counts,
                histogram_limit=limit,
            )
        )
    return tuple(ranges)
