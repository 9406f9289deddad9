"""The accuracy budget as a search: the fewest multiply-accumulates in float that keep it.

Layers are ordered by the divergence that they win for each multiply-accumulate they give up
(see `edge_fg_calibration.budget.sensitivity`). A bisection finds how many of the first must stay
float, then those that can be spared are put back. Candidates are judged on validation images,
hardest first, and dropped as soon as they can't keep the allowed divergence any more.

Validation images are few, and what holds on them may not hold on others: the answers to the
hardest change by chance with any change of the graph. So agreement is not counted but estimated
from the leads and errors of all images (see `expected_agreement`). A candidate is taken first if
it keeps the budget *with a margin* (see `ConfidenceMargin`), which may cost INT8 work down to a
given share; if none does, a candidate must be more likely than not to keep the budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_fg.progress import ProgressCallback, no_progress
from edge_fg_calibration.budget.budget import Budget
from edge_fg_calibration.budget.candidates import Judged, Tried, best_of, describe
from edge_fg_calibration.budget.confidence_margin import ConfidenceMargin, expected_agreement
from edge_fg_calibration.budget.fidelity import Fidelity, compare
from edge_fg_calibration.budget.sensitivity import (
    SENSITIVITY_IMAGES,
    Evaluator,
    Int8Maker,
    Sensitivity,
    ShouldStop,
    ValidationSplit,
    measure_sensitivity,
    never,
)

Finisher: TypeAlias = Callable[[onnx.ModelProto], onnx.ModelProto]
"""Makes of an INT8 graph what shall be shipped, such as one whose float parts are FP16."""


def unchanged(model: onnx.ModelProto) -> onnx.ModelProto:
    """Ship the INT8 graph itself."""
    return model


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Parameters
    ----------
    kept_float
        Keys of the nodes to leave in float.
    int8_macs
        Share (0..1) of the network's multiply-accumulates that stay in INT8.
    fidelity
        On the validation images; None where the search was stopped before it was known.
    expected_agreement
        Agreement (0..1) to expect on other images, see `expected_agreement`; None likewise.
    tried
        Every candidate, in the order of trying.
    taken
        Position of this one in `tried`; None where the search was stopped before the first.
    validation_images
        Images that candidates were tried on.
    total_macs
        Multiply-accumulates of the whole network for one image.
    met
        Whether the budget is to be expected to hold, judged on the validation images.
    with_margin
        Whether it holds with the margin.
    reason
        What was found, in one sentence.
    sensitivity
        What each group of layers costs; None where that was not needed or not finished.
    stopped
        Whether the search was ended early.
    images_run, images_cached
        Images that candidates were run on, and those whose answers were known already.
    """

    kept_float: frozenset[str]
    int8_macs: float
    fidelity: Fidelity | None
    expected_agreement: float | None
    tried: tuple[Tried, ...]
    taken: int | None
    validation_images: int
    total_macs: int
    met: bool
    with_margin: bool
    reason: str
    sensitivity: Sensitivity | None
    stopped: bool
    images_run: int
    images_cached: int


@dataclass
class _Search:
    """The state of one search: what is known of which candidate."""

    maker: Int8Maker
    costs: Mapping[str, int]
    int8_nodes: frozenset[str]
    budget: Budget
    confidence_margin: ConfidenceMargin
    evaluator: Evaluator
    progress: ProgressCallback
    steps: int
    finished: Finisher
    judged: dict[frozenset[str], Judged] = field(default_factory=dict)
    sensitivity: Sensitivity | None = None

    def judge(self, kept: frozenset[str]) -> Tried:
        """Try one candidate, unless it is known."""
        if kept not in self.judged:
            self.judged[kept] = self._judge(kept)
            done = len(self.judged)
            self.progress("budget search", done, max(self.steps, done + 1))
        return self.judged[kept].tried

    def share(self, kept: frozenset[str]) -> float:
        """Return the share (0..1) of multiply-accumulates in INT8."""
        total = sum(self.costs.values())
        left = sum(self.costs.get(node, 0) for node in self.int8_nodes - kept)
        return left / total if total else 0.0

    def _judge(self, kept: frozenset[str]) -> Judged:
        validation = self.evaluator.validation
        rows: list[NDArray[np.float32]] = []
        changed, divergence = 0, 0.0
        everything = range(len(validation.batches))
        model = self.finished(self.maker(kept))
        for part, output in self.evaluator.outputs(model, everything):
            one = compare(
                validation.reference[part],
                output,
                kind=validation.kind,
                indices=[None] * len(output),
            )
            rows.append(output)
            changed += round((1 - one.agreement) * len(output))
            divergence += one.mean_kl * len(output)
            bounds = (1 - changed / len(validation), divergence / len(validation))
            if self.budget.mean_kl is not None and bounds[1] > self.budget.mean_kl:
                seen = part.stop
                tried = Tried(len(kept), self.share(kept), *bounds, seen, False, -math.inf, False)
                return Judged(kept, tried, None, None)
        return self._complete(kept, np.concatenate(rows))

    def _complete(self, kept: frozenset[str], output: NDArray[np.float32]) -> Judged:
        validation = self.evaluator.validation
        fidelity = compare(
            validation.reference, output, kind=validation.kind, indices=validation.indices
        )
        expected = expected_agreement(validation, output)[0]
        judged = replace(fidelity, agreement=expected)
        # What these images can't judge, for want of labels, only the proof can.
        checks = [one for one in self.budget.checks(judged) if one.measured is not None]
        holds = all(one.met for one in checks)
        margin = self.confidence_margin.margin(self.budget, validation, output)
        tried = Tried(
            kept=len(kept),
            int8_macs=self.share(kept),
            agreement=fidelity.agreement,
            mean_kl=fidelity.mean_kl,
            images=len(validation),
            holds=holds,
            margin=margin,
            with_margin=holds and margin >= self.confidence_margin.z,
        )
        return Judged(kept, tried, fidelity, expected)


def search_budget(
    int8_model_maker: Int8Maker,
    groups: Sequence[frozenset[str]],
    costs_macs: Mapping[str, int],
    validation: ValidationSplit,
    budget: Budget,
    confidence_margin: ConfidenceMargin,
    *,
    sensitivity_images: int = SENSITIVITY_IMAGES,
    finished: Finisher = unchanged,
    progress: ProgressCallback = no_progress,
    should_stop: ShouldStop = never,
) -> SearchResult:
    """Find the fewest multiply-accumulates to leave in float such that a budget is kept.

    At least one group stays INT8. Where the whole graph keeps the budget nothing else is tried.
    ``KeyboardInterrupt`` and `should_stop` end the search with the best so far.

    Parameters
    ----------
    int8_model_maker
        Makes the INT8 graph in which the nodes with the given keys are left in float; the same
        graph for the same keys.
    groups
        Keys of the INT8 nodes, those together that change precision together.
    costs_macs
        Multiply-accumulates of *all* the network's nodes that have any, by key.
    validation
        Images that candidates are tried on; the proof's must not be among them.
    budget
        What must be kept. A limit that the validation images can't judge is left to the proof.
    confidence_margin
        How much surer than that the result should be.
    sensitivity_images
        About how many validation images each layer is measured on.
    finished
        Makes of a candidate what must keep the budget. What each layer costs in INT8 is measured
        without it.
    progress
        Told the steps, stages ``sensitivity`` and ``budget search``.
    should_stop
        Asked before each batch.

    Raises
    ------
    ModelError
        ONNX Runtime refuses a candidate.
    """
    search = _Search(
        maker=int8_model_maker,
        costs=costs_macs,
        int8_nodes=frozenset().union(*groups),
        budget=budget,
        confidence_margin=confidence_margin,
        evaluator=Evaluator(validation, should_stop),
        progress=progress,
        steps=2 + len(groups).bit_length(),
        finished=finished,
    )
    stopped = False
    try:
        if not search.judge(frozenset()).with_margin and len(groups) > 1:
            search.sensitivity = measure_sensitivity(
                int8_model_maker,
                groups,
                costs_macs,
                search.evaluator,
                images=sensitivity_images,
                progress=progress,
            )
            _walk(search, search.sensitivity)
    except KeyboardInterrupt:
        stopped = True
    progress("budget search", max(len(search.judged), 1), max(len(search.judged), 1))
    return _result(search, stopped=stopped)


def _walk(search: _Search, sensitivity: Sensitivity) -> None:
    """Try prefixes of the order, then put back what can be spared."""
    order = sensitivity.order()
    # The last group of the order stays INT8, or there would be nothing left that is.
    prefixes = [_nodes(sensitivity, order[:count]) for count in range(len(order))]
    least = search.confidence_margin.least_int8
    affordable = sum(search.share(kept) >= least for kept in prefixes[1:])
    count = _bisect(lambda at: search.judge(prefixes[at]).with_margin, 1, affordable)
    if count is not None:
        _put_back(search, sensitivity, order[:count], lambda tried: tried.with_margin)
    elif not search.judge(prefixes[affordable]).likely:
        last = len(prefixes) - 1
        count = _bisect(lambda at: search.judge(prefixes[at]).likely, affordable + 1, last)
        if count is not None:
            _put_back(search, sensitivity, order[:count], lambda tried: tried.likely)


def _bisect(passes: Callable[[int], bool], low: int, high: int) -> int | None:
    """Return the least place from `low` to `high` that passes, if later ones all do."""
    found = None
    while low <= high:
        middle = (low + high) // 2
        if passes(middle):
            found, high = middle, middle - 1
        else:
            low = middle + 1
    return found


def _put_back(
    search: _Search,
    sensitivity: Sensitivity,
    kept: Sequence[int],
    accepts: Callable[[Tried], bool],
) -> None:
    """Return to INT8, dearest first, each group without which the rest still suffices.

    The group that came last could not be spared. One that is expected to leave more divergence
    than the candidate without that one did is not tried.
    """
    left = list(kept)
    hopeless = sensitivity.expected_kl(left[:-1])
    for group in sorted(kept[:-1], key=lambda one: (-sensitivity.layers[one].macs, one)):
        fewer = [one for one in left if one != group]
        if sensitivity.expected_kl(fewer) < hopeless and accepts(
            search.judge(_nodes(sensitivity, fewer))
        ):
            left = fewer


def _nodes(sensitivity: Sensitivity, groups: Sequence[int]) -> frozenset[str]:
    return frozenset().union(*(sensitivity.layers[one].nodes for one in groups))


def _result(search: _Search, *, stopped: bool) -> SearchResult:
    images = len(search.evaluator.validation)
    best = best_of(list(search.judged.values()), search.confidence_margin)
    kept = best.kept if best else frozenset[str]()
    return SearchResult(
        kept_float=kept,
        int8_macs=search.share(kept),
        fidelity=best.fidelity if best else None,
        expected_agreement=best.expected if best else None,
        tried=tuple(one.tried for one in search.judged.values()),
        taken=list(search.judged).index(kept) if best else None,
        validation_images=images,
        total_macs=sum(search.costs.values()),
        met=best is not None and best.tried.holds,
        with_margin=best is not None and best.tried.with_margin,
        reason=describe(best, images, search.confidence_margin, stopped=stopped),
        sensitivity=search.sensitivity,
        stopped=stopped,
        images_run=search.evaluator.images_run,
        images_cached=search.evaluator.images_cached,
    )
