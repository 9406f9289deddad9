"""Make the variants of one model."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import onnx

from edge_fg.bundle import PRECISIONS, Precision
from edge_fg.progress import ProgressCallback
from edge_fg_calibration import (
    Budget,
    ImageSet,
    Int8Result,
    Target,
    float_tensors,
    overflowing,
    quantize_int8,
    to_fp16,
    validate_qdq,
)
from edge_fg_calibration.budget.results import SearchResult
from edge_fg_calibration.budget.search import Finisher, unchanged
from edge_fg_calibration.int8.model_warnings import infinity_warnings
from edge_fg_calibration.int8.qat import int8_share, is_quantised, without_rounding
from edge_fg_calibration.statistics.collection import collect_statistics
from edge_fg_calibration.statistics.tensor_statistics import Statistics
from edge_fg_tools.building.budgeting import BudgetKeeper
from edge_fg_tools.building.image_feed import ImageFeed
from edge_fg_tools.graph import PreparedModel

_FP16_RANGE_IMAGES = 32
_LOGGER = logging.getLogger("edge_fg")

KEPT = (
    "the model's own quantisation is kept: `int8` is the graph as it was given; `fp32` and `fp16` "
    "are the same network with its ranges but without their rounding, and are compared with the "
    "graph as it was given"
)
"""What the report says of such a build."""


@dataclass(frozen=True)
class Variants:
    """The variants of one model."""

    graphs: dict[Precision, bytes]  # ONNX files by precision
    int8: Int8Result | None  # How the INT8 ranges were found; None without INT8
    # Which layers the budget left in float; None without INT8 or without a budget.
    search: SearchResult | None = None
    # Share (0..1) of the multiply-accumulates that the INT8 variants do in INT8; None without.
    int8_macs: float | None = None
    # What the report must warn of: corrections that failed, nodes that give infinite values.
    warnings: tuple[str, ...] = ()
    # Makes them again so that the INT8 variants should keep the budget by a number of standard
    # errors; infinity asks for the surest. None without a search that found a graph to keep it.
    surer: Callable[[float], Variants] | None = None


def make_variants(
    prepared: PreparedModel,
    precisions: tuple[Precision, ...],
    target: Target,
    calibration: ImageSet,
    feed: ImageFeed,
    progress: ProgressCallback,
    *,
    budget: Budget,
    hold_out_images: int,
) -> Variants:
    """Make each variant asked for; errors name the node or the image.

    A model that its author has quantised keeps its quantisation, and nothing is calibrated (see
    `KEPT`). Where INT8 misses `budget` on validation images of the calibration set, layers are left
    in float until it does not, or would not on `hold_out_images` others; see `BudgetKeeper`.
    """
    if is_quantised(prepared.model):
        _LOGGER.info("%s", KEPT)
        validate_qdq(prepared.model)
        smooth = without_rounding(prepared.model)
        graphs = {name: _graph(name, smooth, prepared.model) for name in precisions}
        return Variants(graphs, None, int8_macs=int8_share(prepared.model))
    wide, infinite = frozenset[str](), frozenset[str]()
    if any("fp16" in name for name in precisions):
        seen = _seen_for_fp16(prepared, calibration, feed, progress)
        wide, infinite = overflowing(seen.histograms), frozenset(seen.infinite)
    in_order = [name for name in PRECISIONS if name in precisions]
    if not any("int8" in name for name in precisions):
        graphs = {name: _graph(name, prepared.model, prepared.model, wide) for name in in_order}
        return Variants(graphs, None, warnings=infinity_warnings(prepared.model, infinite))
    int8 = quantize_int8(
        prepared.model,
        lambda: feed.tensors(calibration),
        input_name=prepared.input_name,
        output_name=prepared.output_name,
        kind=prepared.kind,
        target=target,
        progress=progress,
        total=len(calibration),
    )
    warnings = (*infinity_warnings(prepared.model, infinite | int8.infinite), *int8.warnings)

    def made(kept: Int8Result) -> Variants:
        graphs = {name: _graph(name, prepared.model, kept.model, wide) for name in in_order}
        return Variants(graphs, kept, int8_macs=kept.int8_macs, warnings=warnings)

    if budget == Budget():
        return made(int8)
    finishers: dict[Precision, Finisher] = {
        "int8": unchanged,
        "int8-fp16": partial(to_fp16, wide=wide),
    }
    finished = [finishers[name] for name in in_order if name in finishers]
    keeper = BudgetKeeper(
        int8, prepared, calibration, feed, budget, hold_out_images, progress, finished
    )

    def searched(z: float | None = None) -> Variants:
        kept, search = keeper.keep(z)
        surer = searched if search.met and not search.stopped else None
        return replace(made(kept), search=search, surer=surer)

    return searched()


def _graph(
    precision: Precision,
    in_float: onnx.ModelProto,
    in_int8: onnx.ModelProto,
    wide: frozenset[str] = frozenset(),
) -> bytes:
    """Return the ONNX file of a variant; `wide` names what stays float32 beside FP16."""
    model = in_int8 if precision.startswith("int8") else in_float
    if precision.endswith("fp16"):
        model = to_fp16(model, wide=wide)
    return bytes(model.SerializeToString(deterministic=True))


def _seen_for_fp16(
    prepared: PreparedModel, calibration: ImageSet, feed: ImageFeed, progress: ProgressCallback
) -> Statistics:
    """Return what all float tensors hold on some real images."""
    names = float_tensors(prepared.model)
    some = replace(calibration, items=calibration.items[:_FP16_RANGE_IMAGES])

    def renamed(_stage: str, done: int, total: int) -> None:
        progress("FP16 ranges", done, total)

    return collect_statistics(
        prepared.model,
        feed.tensors(some),
        names,
        input_name=prepared.input_name,
        progress=renamed,
        total=len(some),
    )
