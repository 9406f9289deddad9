"""Keep the accuracy budget by leaving layers of the INT8 graph in float."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from edge_fg.progress import ProgressCallback
from edge_fg_calibration import Budget, ImageSet, Int8Result
from edge_fg_calibration.budget.confidence_margin import ConfidenceMargin
from edge_fg_calibration.budget.evaluation import Evaluator, ValidationSplit, make_validation_split
from edge_fg_calibration.budget.results import SearchResult
from edge_fg_calibration.budget.search import Finisher, search_budget, unchanged
from edge_fg_calibration.budget.sensitivity import Int8Maker
from edge_fg_calibration.graph.onnx_graph import Graph, node_key
from edge_fg_calibration.int8.validation import validate_qdq
from edge_fg_tools.building.image_feed import ImageFeed
from edge_fg_tools.graph import PreparedModel

REASON = "left in float: the budget"
"""What the report says of a layer that the search left out of INT8."""

VALIDATION_IMAGES = 256
"""Most calibration images that candidates are tried on."""

_VALIDATION_VALUES = 256 * 3 * 224 * 224
_LOGGER = logging.getLogger("edge_fg")


class BudgetKeeper:
    """Leaves as few layers in float as keep the budget on some of the calibration images.

    The hold-out set is not used; `hold_out_images` says how many images will prove the result.
    Each of `finished` makes one graph that must keep the budget from the INT8 graph.
    """

    def __init__(
        self,
        int8: Int8Result,
        prepared: PreparedModel,
        calibration: ImageSet,
        feed: ImageFeed,
        budget: Budget,
        hold_out_images: int,
        progress: ProgressCallback,
        finished: Sequence[Finisher] = (unchanged,),
    ) -> None:
        self._int8 = int8
        self._budget = budget
        self._margin = ConfidenceMargin(hold_out_images)
        self._progress = progress
        self._finished = finished
        # Kept from one search to the next: no graph is run twice.
        self._evaluator = Evaluator(_validation_split(prepared, calibration, feed, progress))
        self._maker = partial(int8.recipe.make, reason=REASON)
        graph = Graph(int8.recipe.model)
        self._costs = {node_key(node): cost for node in graph.nodes if (cost := graph.macs(node))}

    def keep(self, z: float | None = None) -> tuple[Int8Result, SearchResult]:
        """Return the INT8 graph that keeps the budget, and how it was found.

        With `z` it should keep it by so many standard errors, whatever INT8 work that costs. A
        first Ctrl-C ends the search with the best so far, if that keeps the budget; otherwise it
        ends the build (KeyboardInterrupt).
        """
        found = search_budget(
            self._maker,
            self._int8.placement.groups,
            self._costs,
            self._evaluator.validation,
            self._budget,
            self._margin if z is None else replace(self._margin, z=z, least_int8=0.0),
            finished=self._finished,
            evaluator=self._evaluator,
            progress=self._progress,
        )
        if found.stopped and not found.met:
            raise KeyboardInterrupt
        if found.met and not found.stopped:
            _LOGGER.info("budget: %s", found.reason)
        else:
            _LOGGER.warning("budget: %s", found.reason)
        return _applied(self._int8, self._maker, found), found


def _validation_split(
    prepared: PreparedModel, calibration: ImageSet, feed: ImageFeed, progress: ProgressCallback
) -> ValidationSplit:
    """Read validation images, evenly spread over the set, as many as fit in a bounded memory."""
    values = prepared.channels * prepared.height * prepared.width
    most = max(1, min(VALIDATION_IMAGES, _VALIDATION_VALUES // values, len(calibration)))
    chosen = [calibration.items[n * len(calibration) // most] for n in range(most)]
    pairs = list(feed.labelled(replace(calibration, items=tuple(chosen))))
    return make_validation_split(
        prepared.model,
        [batch for _, batch in pairs],
        indices=[item.index for items, _ in pairs for item in items],
        input_name=prepared.input_name,
        output_name=prepared.output_name,
        kind=prepared.kind,
        progress=progress,
    )


def _applied(int8: Int8Result, maker: Int8Maker, found: SearchResult) -> Int8Result:
    if found.best is None or not found.kept_float:
        return int8
    model = maker(found.kept_float)
    validate_qdq(model)
    placement = int8.placement.without(found.kept_float, REASON)
    return replace(
        int8,
        model=model,
        placement=placement,
        ranges={name: int8.ranges[name] for name in placement.activations},
        int8_macs=found.best.int8_macs,
    )
