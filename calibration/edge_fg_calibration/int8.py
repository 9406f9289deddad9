"""INT8 after training: one pass for the statistics, then the range method that serves best."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import onnx
from numpy.typing import NDArray

from edge_fg.errors import UnsupportedNodeError
from edge_fg.progress import ProgressCallback, no_progress
from edge_fg_calibration.collect import collect_histograms
from edge_fg_calibration.fidelity import OutputKind, compare
from edge_fg_calibration.graph import WEIGHTED_OPS, Graph, node_key
from edge_fg_calibration.histogram import Histogram
from edge_fg_calibration.placement import Placement, Target, place
from edge_fg_calibration.prepare import prepared_copy
from edge_fg_calibration.qdq import insert_qdq
from edge_fg_calibration.ranges import METHODS, clipped_share
from edge_fg_calibration.run import predict
from edge_fg_calibration.validate import validate_qdq

TRIAL_PICTURES = 64
"""Most calibration pictures on which the range methods are compared."""


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
        For each quantised activation the range in use (``amax``), what each method proposed,
        and the share (0..1) of calibration values that are clipped (``clipped_share``).
    histograms
        What was seen of each quantised activation during calibration.
    method
        The range method in use.
    candidates
        For each method that was tried, ``mean_kl`` (nats) and ``agreement`` (0..1) against
        float32 on up to 64 calibration pictures.
    trial_pictures
        How many pictures that was.
    int8_macs
        Share (0..1) of the network's multiply-accumulates that run in INT8.
    """

    model: onnx.ModelProto
    placement: Placement
    ranges: Mapping[str, Mapping[str, float]]
    histograms: Mapping[str, Histogram]
    method: str
    candidates: Mapping[str, Mapping[str, float]]
    trial_pictures: int
    int8_macs: float


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
    progress: ProgressCallback = no_progress,
    total: int = 0,
) -> Int8Result:
    """Quantise a float32 classifier after training.

    The pictures are read once for the statistics; the ranges of min-max, percentile, MSE and
    entropy all come from them. Each method then quantises the whole model, and the one whose
    outputs diverge least (mean KL) from float32 on some of the calibration pictures is kept.
    Held-out pictures play no part, so they can prove the result.

    Parameters
    ----------
    model
        The float32 classifier, batch normalisation folded.
    calibration_batches
        Gives the network inputs (n x 3 x H x W float32 each) from the start, at each call.
    input_name, output_name
        Names of the picture input and the class output.
    kind
        Whether that output is logits or probabilities.
    target
        See `place`.
    depthwise, residual_adds
        See `place`.
    progress
        Told the pictures done, stages ``calibrate`` and ``compare ranges``.
    total
        Number of calibration pictures, for `progress`.

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
    histograms = collect_histograms(
        model,
        calibration_batches(),
        placement.activations,
        input_name=input_name,
        progress=progress,
        total=total,
    )
    proposals = {
        method: {name: choose(one) for name, one in histograms.items()}
        for method, choose in METHODS.items()
    }
    trial = list(_first_pictures(calibration_batches(), TRIAL_PICTURES))
    best, method, candidates = _best(
        model, placement, proposals, trial, input_name, output_name, kind, progress
    )
    validate_qdq(best)
    return Int8Result(
        model=best,
        placement=placement,
        ranges=_described(histograms, proposals, method),
        histograms=histograms,
        method=method,
        candidates=candidates,
        trial_pictures=sum(len(batch) for batch in trial),
        int8_macs=int8_macs(model, placement),
    )


def int8_macs(model: onnx.ModelProto, placement: Placement) -> float:
    """Return the share (0..1) of multiply-accumulates in nodes that `placement` quantises."""
    graph = Graph(model)
    costs = {node_key(one): graph.macs(one) for one in graph.nodes if one.op_type in WEIGHTED_OPS}
    total = sum(costs.values())
    return sum(costs[key] for key in placement.nodes) / total if total else 0.0


def _best(
    model: onnx.ModelProto,
    placement: Placement,
    proposals: Mapping[str, Mapping[str, float]],
    trial: list[NDArray[Any]],
    input_name: str,
    output_name: str,
    kind: OutputKind,
    progress: ProgressCallback,
) -> tuple[onnx.ModelProto, str, dict[str, dict[str, float]]]:
    """Quantise with each method, and keep the one with the least mean divergence."""
    reference = predict(model, trial, input_name, output_name)
    unknown = [None] * len(reference)
    candidates: dict[str, dict[str, float]] = {}
    models: dict[str, onnx.ModelProto] = {}
    for done, (method, amax) in enumerate(proposals.items(), start=1):
        models[method] = insert_qdq(model, placement, amax)
        output = predict(models[method], trial, input_name, output_name)
        fidelity = compare(reference, output, kind=kind, indices=unknown)
        candidates[method] = {"mean_kl": fidelity.mean_kl, "agreement": fidelity.agreement}
        progress("compare ranges", done, len(proposals))
    best = min(candidates, key=lambda name: candidates[name]["mean_kl"])
    return models[best], best, candidates


def _first_pictures(batches: Iterable[NDArray[Any]], count: int) -> Iterator[NDArray[Any]]:
    left = count
    for batch in batches:
        yield batch[:left]
        left -= len(batch)
        if left <= 0:
            return


def _described(
    histograms: Mapping[str, Histogram],
    proposals: Mapping[str, Mapping[str, float]],
    method: str,
) -> dict[str, dict[str, float]]:
    found = {}
    for name, histogram in histograms.items():
        amax = proposals[method][name]
        found[name] = {
            "amax": amax,
            **{one: proposals[one][name] for one in proposals},
            "clipped_share": clipped_share(histogram, amax),
        }
    return found


def _nothing_to_quantise(placement: Placement) -> str:
    if not placement.skipped:
        return "the model has no convolution or matrix product to run in INT8"
    node, operator, reason = placement.skipped[0]
    return (
        f"none of the model's {len(placement.skipped)} convolutions and matrix products can run "
        f"in INT8; the first, {operator} {node!r}: {reason}"
    )
