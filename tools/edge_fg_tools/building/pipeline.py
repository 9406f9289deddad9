"""The build from end to end."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import edge_fg
from edge_fg.bundle import Manifest, Precision
from edge_fg.bundle.manifest import (
    SCHEMA_VERSION,
    CalibrationEntry,
    FidelityEntry,
    FileEntry,
    LabelsEntry,
    OutputSpec,
    TensorSpec,
    VariantEntry,
)
from edge_fg.bundle.writer import check_output, write_bundle
from edge_fg.errors import LabelsError, UsageError
from edge_fg.files import cache_folder, sha256_of
from edge_fg.labels import Labels
from edge_fg.preprocess import PreprocessSpec
from edge_fg.printing import printable
from edge_fg.progress import ProgressCallback, no_progress
from edge_fg_calibration import Budget, ImageSet, image_set_digest
from edge_fg_calibration.int8.model_warnings import model_warnings
from edge_fg_calibration.int8.qat import is_quantised
from edge_fg_calibration.statistics.cache import StatisticsCache
from edge_fg_tools.building.class_labels import class_labels
from edge_fg_tools.building.facts import BuildFacts, make_report
from edge_fg_tools.building.first_look import image_doubts
from edge_fg_tools.building.image_feed import ImageFeed
from edge_fg_tools.building.looks import Proven, budget_error, prove_budget
from edge_fg_tools.building.options import BuildOptions, fit_preprocess
from edge_fg_tools.building.preprocess_check import preprocess_doubts
from edge_fg_tools.building.proof import Proof, prove
from edge_fg_tools.building.split import image_set, left_out, split_images
from edge_fg_tools.building.variants import KEPT, Variants, make_variants
from edge_fg_tools.compiling import check_target, compile_plans
from edge_fg_tools.graph import PreparedModel, load_model, prepare
from edge_fg_tools.report import check_report, report_html, report_json

_LOGGER = logging.getLogger("edge_fg")
_BATCH = 4
_CALIBRATION_FILE = "calibration.json"
_LIBRARIES = ("numpy", "Pillow", "onnx", "onnxruntime", "onnxslim", "tensorrt-rtx-cu13")


@dataclass(frozen=True)
class BuildResult:
    """A finished build: where the bundle is, its manifest, and the report as JSON-safe data."""

    output: Path
    manifest: Manifest
    report: dict[str, Any]


def build(options: BuildOptions, progress: ProgressCallback = no_progress) -> BuildResult:
    """Build a bundle.

    Nothing is written before everything succeeded and the budget is met; but what misses the
    budget is kept beside the output where `BuildOptions.keep_best` asks for it.

    Raises
    ------
    EdgeFGError
        What was wrong and what to do; `BudgetError` when the fidelity is too low, or the model is
        right only by chance.
    """
    for output in [options.output, *[options.best_output] * options.keep_best]:
        check_output(output, overwrite=options.overwrite)
    check_target(options.target)
    check_report()
    model = load_model(options.model)
    prepared = prepare(
        model,
        input_size=options.input_size,
        output=options.model_output,
        output_kind=options.output_kind,
    )
    spec = fit_preprocess(options.preprocess, prepared)
    for warning in (*preprocess_doubts(spec, prepared.normalisation), *prepared.warnings):
        _LOGGER.warning("%s: %s", options.model.name, warning)
    with _hinted(prepared.features_hint):
        labels = class_labels(options.labels, model, prepared.classes)
    with image_set(options, labels, progress) as images:
        facts = _gather(options, prepared, labels, spec, images, progress)
        if not facts.proven.missed:
            return _write(facts, spec, options.output)
        _write(facts, spec, options.best_output)
        raise budget_error(options, facts.proven)


@contextlib.contextmanager
def _hinted(hint: str | None) -> Iterator[None]:
    """Put a hint behind what is wrong with labels: the model may have no classes."""
    try:
        yield
    except (LabelsError, UsageError) as error:
        if hint is None:
            raise
        raise type(error)(f"{error}; the model's {hint}") from error


def _gather(
    options: BuildOptions,
    prepared: PreparedModel,
    labels: Labels,
    spec: PreprocessSpec,
    images: ImageSet,
    progress: ProgressCallback,
) -> BuildFacts:
    """Make and prove the variants; nothing is written yet."""
    cache = StatisticsCache(cache_folder("calibration")) if options.cache else None
    feed = ImageFeed(spec, prepared.batch or _BATCH, cache)
    chosen = split_images(options, prepared, images, feed, progress)
    low = options.allow_low_accuracy
    seen = image_doubts(prepared, feed, chosen, labels, progress, allow_low_accuracy=low)
    for line in seen:
        _LOGGER.warning("%s", line)
    variants = make_variants(
        prepared,
        options.precisions,
        options.target,
        chosen.calibration,
        feed,
        progress,
        budget=options.budget,
        hold_out_images=len(chosen.hold_out),
    )
    proven = prove_budget(
        variants,
        options.budget,
        lambda graphs: prove(prepared, graphs, chosen.hold_out, labels, feed, progress),
    )
    if proven.missed and not options.keep_best:
        raise budget_error(options, proven)
    variants = proven.variants
    skipped = {**left_out(chosen), **feed.skipped}
    for path, reason in {**chosen.corrupt, **feed.skipped}.items():
        _LOGGER.warning("left out %s: %s", path.name, reason)
    notes = _notes(prepared, variants)
    for line in notes:
        _LOGGER.info("%s", line)
    warnings = (*variants.warnings, *_shared_names(labels))
    for line in warnings:
        _LOGGER.warning("%s", line)
    return BuildFacts(
        options=options,
        prepared=replace(prepared, warnings=(*prepared.warnings, *notes, *warnings)),
        doubts=(*preprocess_doubts(spec, prepared.normalisation), *seen),
        labels=labels,
        calibration=chosen.calibration,
        calibration_digest=image_set_digest(chosen.calibration),
        hold_out=chosen.hold_out,
        skipped={_shown(path, images.root): reason for path, reason in skipped.items()},
        proven=replace(proven, variants=replace(variants, surer=None)),
        plans=compile_plans(variants.graphs, options.target, progress),
        model_sha256=sha256_of(options.model),
        provenance=_provenance(options, proven),
    )


def _notes(prepared: PreparedModel, variants: Variants) -> tuple[str, ...]:
    """Return what the report should mention of the model."""
    if variants.int8 is not None:
        return model_warnings(prepared.model, variants.int8.histograms)
    return (KEPT,) if is_quantised(prepared.model) else ()


def _shared_names(labels: Labels) -> tuple[str, ...]:
    """Return a warning of names that two classes or more have, if case is ignored."""
    groups = labels.of_one_name()
    if not groups:
        return ()
    first = " and ".join(f"{i} `{labels[i].label}`" for i in groups[0][:4])
    more = f", and {len(groups) - 1} more names" if len(groups) > 1 else ""
    warning = f"classes of one name: {first}{more}; they stay apart, name their images by the index"
    return (warning,)


def _shown(path: Path, root: Path) -> str:
    """Return how the report names an image: from the set's folder on, where it is in one."""
    folder = root if root.is_dir() else root.parent
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def _write(facts: BuildFacts, spec: PreprocessSpec, output: Path) -> BuildResult:
    report = make_report(facts)
    document: dict[str, Any] = dict(report_json(report))
    files: dict[str, bytes] = {
        f"model.{precision}.onnx": graph for precision, graph in facts.variants.graphs.items()
    }
    files["labels.csv"] = facts.labels.to_csv().encode()
    files["report.json"] = _json(document)
    files["report.html"] = report_html(report).encode()
    if facts.variants.int8 is not None:
        files[_CALIBRATION_FILE] = _json(_calibration(facts))
    manifest = write_bundle(
        output,
        files,
        lambda entries: _manifest(facts, spec, entries),
        overwrite=facts.options.overwrite,
    )
    return BuildResult(output, manifest, document)


def _manifest(
    facts: BuildFacts, spec: PreprocessSpec, entries: Mapping[str, FileEntry]
) -> Manifest:
    prepared, int8 = facts.prepared, facts.variants.int8
    batch = prepared.batch or "N"
    calibration = None
    if int8 is not None:
        calibration = CalibrationEntry(
            _CALIBRATION_FILE, facts.calibration_digest, len(facts.calibration), int8.method
        )
    return Manifest(
        schema=SCHEMA_VERSION,
        name=facts.options.bundle_name,
        files=dict(entries),
        input=TensorSpec(prepared.input_name, (batch, *spec.tensor_shape), spec.dtype),
        outputs=(OutputSpec(prepared.output_name, prepared.kind, (batch, prepared.classes)),),
        preprocess=spec,
        labels=LabelsEntry("labels.csv", len(facts.labels)),
        variants={
            precision: VariantEntry(
                file=f"model.{precision}.onnx",
                sha256=entries[f"model.{precision}.onnx"].sha256,
                fidelity=_fidelity(facts.proof, precision),
                int8_macs=facts.variants.int8_macs if precision.startswith("int8") else None,
            )
            for precision in facts.variants.graphs
        },
        calibration=calibration,
        provenance=facts.provenance,
    )


def _fidelity(proof: Proof, precision: Precision) -> FidelityEntry:
    measured = proof.fidelity[precision].to_dict()
    return FidelityEntry(**{field: measured[field] for field in FidelityEntry.__struct_fields__})


def _calibration(facts: BuildFacts) -> dict[str, Any]:
    int8 = facts.variants.int8
    assert int8 is not None
    return {
        "schema": SCHEMA_VERSION,
        "model_sha256": facts.model_sha256,
        "images_digest": facts.calibration_digest,
        "images": len(facts.calibration),
        "method": int8.method,
        "ranges": {tensor: dict(values) for tensor, values in int8.ranges.items()},
    }


def _provenance(options: BuildOptions, proven: Proven) -> dict[str, Any]:
    versions = {}
    for name in _LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    budget: dict[str, Any] = {}
    if options.budget != Budget():
        budget = {"budget_met": not proven.missed, "hold_out_looks": len(proven.looks)}
        if proven.missed:
            budget["budget_missed"] = "; ".join(proven.missed)
    return {
        "edge_fg": edge_fg.__version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": printable(options.command),
        "target": options.target,
        "seed": options.seed,
        "model": printable(options.model.name),
        **budget,
        "versions": versions,
    }


def _json(document: object) -> bytes:
    return (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()
