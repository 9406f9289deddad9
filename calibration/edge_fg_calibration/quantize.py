"""INT8 after training: statistics, the ranges that are best, and the corrections that help."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import onnx
from numpy.typing import NDArray

from edge_fg.errors import UnsupportedNodeError
from edge_fg.progress import ProgressCallback, no_progress
from edge_fg_calibration.budget.evaluation import make_validation_split
from edge_fg_calibration.budget.fidelity import OutputKind
from edge_fg_calibration.corrections.int8_recipe import Int8Recipe
from edge_fg_calibration.corrections.range_choice import (
    ALL_METHODS,
    RangeChoice,
    choose_for_all,
    propose,
)
from edge_fg_calibration.corrections.results import CorrectionTrial
from edge_fg_calibration.corrections.scoring import Scorer
from edge_fg_calibration.corrections.trials import CorrectionTrials
from edge_fg_calibration.data.validation_split import CalibrationImages
from edge_fg_calibration.graph.onnx_graph import Graph
from edge_fg_calibration.graph.prepare import prepared_copy
from edge_fg_calibration.int8.placement import Placement, Target, place
from edge_fg_calibration.int8.ranges import clipped_share
from edge_fg_calibration.int8.validation import validate_qdq
from edge_fg_calibration.statistics.collection import collect_histograms, collect_statistics
from edge_fg_calibration.statistics.histogram import Histogram
from edge_fg_calibration.statistics.tensor_statistics import Statistics

_CORRECTION_EVALUATIONS = 12
_LOGGER = logging.getLogger("edge_fg")


@dataclass(frozen=True)
class Int8Result:
    """An explicit INT8 model and how it came about.

    Parameters
    ----------
    model
        The graph with Q/DQ pairs, its other nodes float32.
    placement
        What was quantised and what was not, with the reasons.
    ranges
        For each quantised activation the range in use (``amax``), what is subtracted from the
        tensor so that the range lies around 0 (``shift``, mostly 0), what each method proposed
        (for the tensor without the shift), and the share (0..1) of calibration values that are
        clipped (``clipped_share``).
    histograms
        What was seen of each quantised activation, without its shift, during calibration.
    method
        The range method that is best as a whole.
    methods
        The range method of each quantised activation.
    candidates
        For each method, used for all tensors, ``mean_kl`` and ``softened`` (nats, with all
        confidences evened out: the least is best) and ``agreement`` (0..1) against float32 on the
        validation images; as they were when `method` was chosen for the last time.
    validation_images
        How many images that was.
    int8_macs
        Share (0..1) of the network's multiply-accumulates that run in INT8.
    corrections
        What was tried to bring INT8 nearer to float32, kept or not.
    infinite
        Activations that also had infinite values on calibration images; the layers that read them
        stay in float.
    warnings
        A line for each correction that failed, with the reason, and for what else went otherwise
        than expected.
    recipe
        Makes the graph, or variations of it with more nodes left in float.
    """

    model: onnx.ModelProto
    placement: Placement
    ranges: Mapping[str, Mapping[str, float]]
    histograms: Mapping[str, Histogram]
    method: str
    methods: Mapping[str, str]
    candidates: Mapping[str, Mapping[str, float]]
    validation_images: int
    int8_macs: float
    corrections: tuple[CorrectionTrial, ...]
    infinite: frozenset[str]
    warnings: tuple[str, ...]
    recipe: Int8Recipe


def quantize_int8(
    model: onnx.ModelProto,
    calibration_batches: Callable[[], Iterable[NDArray[Any]]],
    *,
    input_name: str,
    output_name: str,
    kind: OutputKind,
    target: Target = "portable",
    depthwise: bool | None = None,
    residual_adds: bool = False,
    corrections: bool = True,
    progress: ProgressCallback = no_progress,
    total: int = 0,
) -> Int8Result:
    """Quantise a float32 classifier after training.

    Part of the images are the validation split (see `validation_stride`): no statistic is taken
    from them. Range methods and corrections are compared on them, by the mean divergence of the
    outputs from float32, and what doesn't help is left out. At the end ranges are taken again, by
    the chosen methods, from all images. The hold-out set plays no part, so it can prove the result.

    Parameters
    ----------
    model
        The float32 classifier, batch normalisation folded.
    calibration_batches
        Gives the network inputs (n x 3 x H x W float32 each) from the start, at each call.
    input_name, output_name
        Names of the image input and the class output.
    kind
        Whether that output is logits or probabilities.
    target, depthwise, residual_adds
        See `place`.
    corrections
        Whether to try corrections and ranges that differ from block to block; see
        `edge_fg_calibration.corrections.trials`. With fewer than 64 images none are: there is
        nothing to judge them on but what they were fitted to.
    progress
        Told the images done, stages ``calibrate``, ``validation images``, ``observe channels``,
        and the evaluations, stage ``try corrections``.
    total
        Number of calibration images, for `progress`.

    Raises
    ------
    UnsupportedNodeError
        No node of the model can run in INT8.
    CalibrationError
        See `collect_histograms`.
    ModelError
        ONNX Runtime refuses the model.
    """
    model = prepared_copy(model)
    placement = place(model, target=target, depthwise=depthwise, residual_adds=residual_adds)
    if not placement.weights:
        raise UnsupportedNodeError(_nothing_to_quantise(placement))
    images = CalibrationImages(calibration_batches, total)
    validation = make_validation_split(
        model,
        images.validation,
        indices=[None] * sum(len(batch) for batch in images.validation),
        input_name=input_name,
        output_name=output_name,
        kind=kind,
        progress=progress,
    )

    def observe(variation: onnx.ModelProto) -> Statistics:
        return collect_statistics(
            variation,
            images.statistics(),
            placement.activations,
            input_name=input_name,
            progress=progress,
            total=images.counted,
        )

    evaluations = len(ALL_METHODS) * 3 + _CORRECTION_EVALUATIONS
    scorer = Scorer(validation, progress, evaluations if corrections else len(ALL_METHODS))
    statistics = observe(model)
    placement = _without_infinite(placement, statistics.infinite)
    histograms: Mapping[str, Histogram] = {
        name: statistics.histograms[name] for name in placement.activations
    }
    choices = choose_for_all(Int8Recipe(model, placement, {}), histograms, scorer)
    trials = CorrectionTrials(
        choices, histograms, scorer, images, lambda one: observe(one).histograms, progress
    )
    if corrections and images.is_split:
        trials.run()
    elif corrections:
        _LOGGER.info("INT8 corrections are not tried: too few calibration images to judge them on")
    choice, histograms = trials.choice, trials.histograms
    if images.is_split:
        choice, histograms = _with_validation(choice, histograms, images, input_name)
    best = choice.recipe.make()
    validate_qdq(best)
    return Int8Result(
        model=best,
        placement=placement,
        ranges=_described(histograms, choice),
        histograms=histograms,
        method=choice.method,
        methods=choice.methods,
        candidates={
            one.method: {
                "mean_kl": one.score.mean_kl,
                "softened": one.score.loss,
                "agreement": one.score.agreement,
            }
            for one in trials.compared
        },
        validation_images=len(validation),
        int8_macs=Graph(model).macs_share(placement.nodes),
        corrections=tuple(trials.trials),
        infinite=frozenset(statistics.infinite),
        warnings=tuple(trials.warnings),
        recipe=choice.recipe,
    )


def _without_infinite(placement: Placement, infinite: Collection[str]) -> Placement:
    """Leave in float what reads infinite values, which no INT8 range holds."""
    readers = {one.node for one in placement.weights if one.activation in infinite}
    readers |= {one.main for one in placement.skips if one.tensor in infinite}
    placement = placement.without(readers, "reads infinite values")
    if not placement.weights:
        raise UnsupportedNodeError(_nothing_to_quantise(placement))
    return placement


def _with_validation(
    choice: RangeChoice,
    histograms: Mapping[str, Histogram],
    images: CalibrationImages,
    input_name: str,
) -> tuple[RangeChoice, Mapping[str, Histogram]]:
    """Take ranges from the validation images, too, by the methods that were chosen."""
    recipe = choice.recipe
    merged = collect_histograms(
        recipe.model, images.validation, recipe.placement.activations, input_name=input_name
    )
    for name, one in histograms.items():
        merged[name].merge(one)
    proposals = propose(recipe, merged)
    limits = {name: proposals[choice.methods[name]][name] for name in merged}
    return replace(choice, recipe=replace(recipe, limits=limits)), merged


def _described(
    histograms: Mapping[str, Histogram], choice: RangeChoice
) -> dict[str, dict[str, float]]:
    recipe = choice.recipe
    return {
        name: {
            "amax": recipe.amax[name],
            "shift": recipe.shifts.get(name, 0.0),
            **{method: range_of(histogram) for method, range_of in ALL_METHODS.items()},
            "clipped_share": clipped_share(histogram, recipe.limits[name]),
        }
        for name, histogram in histograms.items()
    }


def _nothing_to_quantise(placement: Placement) -> str:
    if not placement.skipped:
        return "the model has no convolution or matrix product to run in INT8"
    node, operator, reason = placement.skipped[0]
    return (
        f"none of the model's {len(placement.skipped)} convolutions and matrix products can run "
        f"in INT8; the first, {operator} {node!r}: {reason}"
    )
