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

Where several graphs are shipped, such as one with float32 parts and one with FP16 parts, each is
run, and the one that is furthest from the budget judges the candidate.
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
from edge_fg_calibration.budget.confidence_margin import ConfidenceMargin, expected_agreement
from edge_fg_calibration.budget.evaluation import Evaluator, ValidationSplit
from edge_fg_calibration.budget.fidelity import compare, divergences
from edge_fg_calibration.budget.results import (
    Candidate,
    SearchedLayer,
    SearchResult,
    best_of,
    describe,
)
from edge_fg_calibration.budget.sensitivity import Int8Maker, Sensitivity, measure_sensitivity

Finisher: TypeAlias = Callable[[onnx.ModelProto], onnx.ModelProto]
"""Makes of an INT8 graph what is shipped, such as one whose float parts are FP16."""


def unchanged(model: onnx.ModelProto) -> onnx.ModelProto:
    """Ship the INT8 graph itself."""
    return model


def search_budget(
    int8_model_maker: Int8Maker,
    groups: Sequence[frozenset[str]],
    costs_macs: Mapping[str, int],
    validation: ValidationSplit,
    budget: Budget,
    confidence_margin: ConfidenceMargin,
    *,
    finished: Sequence[Finisher] = (unchanged,),
    evaluator: Evaluator | None = None,
    progress: ProgressCallback = no_progress,
) -> SearchResult:
    """Find the fewest multiply-accumulates to leave in float such that a budget is kept.

    At least one group stays INT8. Where the whole graph keeps the budget nothing else is tried.
    ``KeyboardInterrupt`` ends the search with the best so far.

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
        Images that candidates are tried on; none of the hold-out set may be among them.
    budget
        What must be kept. A limit that the validation images can't judge is left to the proof.
    confidence_margin
        How much surer than that the result should be. With `z` infinite the surest candidate is
        found, whatever INT8 work that costs.
    finished
        Each makes of a candidate one graph that must keep the budget. What each layer costs in
        INT8 is measured without them.
    evaluator
        That of an earlier search on the same validation images, so that no graph is run again.
    progress
        Told the steps, stages ``sensitivity`` and ``budget search``.

    Raises
    ------
    ModelError
        ONNX Runtime refuses a candidate.
    """
    evaluator = evaluator or Evaluator(validation)
    search = _Search(
        maker=int8_model_maker,
        finished=finished,
        costs=costs_macs,
        int8_nodes=frozenset().union(*groups),
        budget=budget,
        confidence_margin=confidence_margin,
        evaluator=evaluator,
        progress=progress,
        steps=2 + len(groups).bit_length(),
    )
    sensitivity: Sensitivity | None = None
    stopped = False
    try:
        if not search.judge(frozenset()).with_margin and len(groups) > 1:
            sensitivity = measure_sensitivity(
                int8_model_maker, groups, costs_macs, evaluator, progress=progress
            )
            _try_prefixes(search, sensitivity)
    except KeyboardInterrupt:
        stopped = True
    done = max(len(search.judged), 1)
    progress("budget search", done, done)
    tried = tuple(search.judged.values())
    best = best_of(tried, confidence_margin.least_int8)
    return SearchResult(
        reason=describe(best, len(validation), confidence_margin.z, stopped=stopped),
        tried=tried,
        taken=tried.index(best) if best else None,
        layers=_layers(sensitivity, best, sum(costs_macs.values())),
        validation_images=len(validation),
        stopped=stopped,
        images_run=evaluator.images_run,
        images_cached=evaluator.images_cached,
    )


@dataclass
class _Search:
    """The candidates judged so far, and what judges them."""

    maker: Int8Maker
    finished: Sequence[Finisher]
    costs: Mapping[str, int]
    int8_nodes: frozenset[str]
    budget: Budget
    confidence_margin: ConfidenceMargin
    evaluator: Evaluator
    progress: ProgressCallback
    steps: int
    judged: dict[frozenset[str], Candidate] = field(default_factory=dict)

    def judge(self, kept: frozenset[str]) -> Candidate:
        """Try one candidate, unless it is known."""
        if kept not in self.judged:
            self.judged[kept] = self._judge(kept)
            done = len(self.judged)
            self.progress("budget search", done, max(self.steps, done + 1))
        return self.judged[kept]

    def share(self, kept: frozenset[str]) -> float:
        """Return the share (0..1) of multiply-accumulates in INT8."""
        total = sum(self.costs.values())
        left = sum(self.costs.get(node, 0) for node in self.int8_nodes - kept)
        return left / total if total else 0.0

    def _judge(self, kept: frozenset[str]) -> Candidate:
        """Judge a candidate by the graph of it that is furthest from the budget."""
        model, found = self.maker(kept), []
        for finish in self.finished:
            found.append(self._judge_graph(kept, finish(model)))
            if not found[-1].complete:
                break
        return min(found, key=lambda one: (one.holds, one.margin, -one.mean_kl))

    def _judge_graph(self, kept: frozenset[str], model: onnx.ModelProto) -> Candidate:
        """Run a graph, hardest images first, until it can't keep the divergence any more."""
        split = self.evaluator.validation
        rows: list[NDArray[np.float32]] = []
        changed, divergence = 0, 0.0
        for part, output in self.evaluator.outputs(model, range(len(split.batches))):
            reference = split.reference[part]
            rows.append(output)
            changed += int((reference.argmax(axis=1) != output.argmax(axis=1)).sum())
            divergence += float(divergences(reference, output, split.kind).sum())
            most, least = 1 - changed / len(split), divergence / len(split)
            if self.budget.mean_kl is not None and least > self.budget.mean_kl:
                share = self.share(kept)
                return Candidate(kept, share, most, least, part.stop, False, -math.inf, False)
        return self._complete(kept, np.concatenate(rows))

    def _complete(self, kept: frozenset[str], output: NDArray[np.float32]) -> Candidate:
        split = self.evaluator.validation
        fidelity = compare(split.reference, output, kind=split.kind, indices=split.indices)
        expected = expected_agreement(split, output)[0]
        # What these images can't judge, without labels, only the proof can.
        checks = self.budget.checks(replace(fidelity, agreement=expected))
        holds = all(one.met for one in checks if one.measured is not None)
        margin = self.confidence_margin.of(self.budget, split, output)
        return Candidate(
            kept_float=kept,
            int8_macs=self.share(kept),
            agreement=fidelity.agreement,
            mean_kl=fidelity.mean_kl,
            images=len(split),
            holds=holds,
            margin=margin,
            # Nothing is infinitely sure: that asks for the surest there is.
            with_margin=holds and margin >= self.confidence_margin.z < math.inf,
            fidelity=fidelity,
            expected_agreement=expected,
        )


def _layers(
    sensitivity: Sensitivity | None, best: Candidate | None, total_macs: int
) -> tuple[SearchedLayer, ...]:
    kept = best.kept_float if best else frozenset[str]()
    costliest = sorted(sensitivity.layers if sensitivity else (), key=lambda one: -one.mean_kl)
    return tuple(
        SearchedLayer(
            nodes=tuple(sorted(layer.nodes)),
            macs=layer.macs / (total_macs or 1),
            mean_kl=layer.mean_kl,
            kept_float=layer.nodes <= kept,
        )
        for layer in costliest
    )


def _try_prefixes(search: _Search, sensitivity: Sensitivity) -> None:
    """Try prefixes of the order, then put back what can be spared."""
    order = sensitivity.order()
    # The last group of the order stays INT8, or there would be nothing left that is.
    prefixes = [sensitivity.nodes(order[:count]) for count in range(len(order))]
    least = search.confidence_margin.least_int8
    affordable = sum(search.share(kept) >= least for kept in prefixes[1:])

    def found(low: int, high: int, accepts: Callable[[Candidate], bool]) -> bool:
        count = _bisect(lambda at: accepts(search.judge(prefixes[at])), low, high)
        if count is not None:
            _return_to_int8(search, sensitivity, order[:count], accepts)
        return count is not None

    if not found(1, affordable, lambda one: one.with_margin) and (
        not search.judge(prefixes[affordable]).likely
    ):
        found(affordable + 1, len(prefixes) - 1, lambda one: one.likely)


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


def _return_to_int8(
    search: _Search,
    sensitivity: Sensitivity,
    kept: Sequence[int],
    accepts: Callable[[Candidate], bool],
) -> None:
    """Return groups to INT8, the costliest first, where the rest still suffices.

    The group that came last could not be spared. One that is expected to leave more divergence
    than the candidate without that one did is not tried.
    """
    left = list(kept)
    failed_kl = sensitivity.expected_kl(left[:-1])
    for group in sorted(kept[:-1], key=lambda one: (-sensitivity.layers[one].macs, one)):
        fewer = [one for one in left if one != group]
        promising = sensitivity.expected_kl(fewer) < failed_kl
        if promising and accepts(search.judge(sensitivity.nodes(fewer))):
            left = fewer
