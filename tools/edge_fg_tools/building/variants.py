"""Making the variants of one model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from edge_fg.bundle import Precision
from edge_fg.progress import ProgressCallback
from edge_fg_calibration import (
    Budget,
    ImageSet,
    Int8Result,
    Target,
    collect_histograms,
    float_tensors,
    overflowing,
    quantize_int8,
    to_fp16,
)
from edge_fg_calibration.budget.results import SearchResult
from edge_fg_calibration.budget.search import unchanged
from edge_fg_tools.building.budgeting import keep_budget
from edge_fg_tools.building.image_feed import ImageFeed
from edge_fg_tools.graph import PreparedModel

_FP16_RANGE_IMAGES = 32


@dataclass(frozen=True)
class Variants:
    """The variants of one model.

    Parameters
    ----------
    graphs
        ONNX files by precision.
    int8
        How the INT8 ranges were found; None without INT8.
    search
        Which layers the budget left in float; None without INT8 or without a budget.
    int8_macs
        Share (0..1) of the multiply-accumulates that the INT8 variants do in INT8; None without.
    """

    graphs: dict[Precision, bytes]
    int8: Int8Result | None
    search: SearchResult | None = None
    int8_macs: float | None = None


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
    """Make each variant asked for.

    Where INT8 misses `budget` on validation images of the calibration set, layers are left in
    float until it does not, or would not on `hold_out_images` others; see `keep_budget`.

    Raises
    ------
    EdgeFGError
        A variant can't be made; the message names the node or the image.
    """
    graphs: dict[Precision, bytes] = {}
    int8, search = None, None
    if "fp32" in precisions:
        graphs["fp32"] = prepared.model.SerializeToString(deterministic=True)
    wide = frozenset[str]()
    if "fp16" in precisions or "int8-fp16" in precisions:
        wide = _too_wide_for_fp16(prepared, calibration, feed, progress)
    if "fp16" in precisions:
        half = to_fp16(prepared.model, wide=wide)
        graphs["fp16"] = half.SerializeToString(deterministic=True)
    if "int8" in precisions or "int8-fp16" in precisions:
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
        if budget != Budget():
            # Of the two the variant with FP16 parts is further from float32.
            mixed = "int8-fp16" in precisions
            int8, search = keep_budget(
                int8,
                prepared,
                calibration,
                feed,
                budget,
                hold_out_images,
                progress,
                finished=partial(to_fp16, wide=wide) if mixed else unchanged,
            )
        if "int8" in precisions:
            graphs["int8"] = int8.model.SerializeToString(deterministic=True)
        if "int8-fp16" in precisions:
            both = to_fp16(int8.model, wide=wide)
            graphs["int8-fp16"] = both.SerializeToString(deterministic=True)
    return Variants(graphs, int8, search, int8.int8_macs if int8 else None)


def _too_wide_for_fp16(
    prepared: PreparedModel, calibration: ImageSet, feed: ImageFeed, progress: ProgressCallback
) -> frozenset[str]:
    """Return the tensors that leave FP16's range on real images."""
    names = float_tensors(prepared.model)
    some = replace(calibration, items=calibration.items[:_FP16_RANGE_IMAGES])

    def renamed(_stage: str, done: int, total: int) -> None:
        progress("FP16 ranges", done, total)

    histograms = collect_histograms(
        prepared.model,
        feed.tensors(some),
        names,
        input_name=prepared.input_name,
        progress=renamed,
        total=len(some),
    )
    return overflowing(histograms)
