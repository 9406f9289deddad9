"""All that an INT8 graph is made of, so that variations of it can be made and compared."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import onnx

from edge_fg_calibration.corrections.bias import bias_corrections, with_added_biases
from edge_fg_calibration.corrections.zero_point_shift import ShiftPlace, moved_tensors, shifted
from edge_fg_calibration.graph.onnx_graph import Graph
from edge_fg_calibration.int8.placement import Placement
from edge_fg_calibration.int8.qdq import insert_qdq
from edge_fg_calibration.int8.weight_quantisation import StoredWeight
from edge_fg_calibration.statistics.channel_statistics import Window


@dataclass(frozen=True)
class Int8Recipe:
    """How to make an INT8 graph."""

    model: onnx.ModelProto  # The float graph, equalised or not
    placement: Placement  # What is quantised
    # The largest magnitude that each quantised activation of `model` keeps.
    limits: Mapping[str, float]
    # Means and covariances of what `model`'s nodes read; without them no bias correction.
    windows: Mapping[str, Window] = field(default_factory=dict)
    # Tensors behind a Relu or Clip whose range is moved to lie around 0.
    positive: tuple[ShiftPlace, ...] = ()
    # INT8 weights chosen otherwise than by rounding to the nearest.
    weights: Mapping[str, StoredWeight] = field(default_factory=dict)
    # Whether to take the mean error that rounded weights cause from the biases.
    correct_bias: bool = False

    @cached_property
    def shifts(self) -> dict[str, float]:
        """What is subtracted from each tensor of `positive`: the middle of its range."""
        return {place.tensor: self.limits[place.tensor] / 2 for place in self.positive}

    @cached_property
    def amax(self) -> dict[str, float]:
        """The range of each quantised activation of the graph that `make` returns."""
        return {name: limit - self.shifts.get(name, 0.0) for name, limit in self.limits.items()}

    def make(
        self, left_in_float: Collection[str] = (), reason: str = "left in float"
    ) -> onnx.ModelProto:
        """Return the INT8 graph, some nodes of which may be left in float for a reason."""
        placement = self.placement.without(left_in_float, reason)
        model = self._shifted_model
        if self.correct_bias:
            model = with_added_biases(
                model, bias_corrections(model, placement, self._moved_windows, self.weights)
            )
        return insert_qdq(model, placement, self.amax, self.weights)

    @cached_property
    def _by_place(self) -> dict[ShiftPlace, float]:
        return {place: self.shifts[place.tensor] for place in self.positive}

    @cached_property
    def _shifted_model(self) -> onnx.ModelProto:
        return shifted(self.model, self._by_place) if self.positive else self.model

    @cached_property
    def _moved_windows(self) -> Mapping[str, Window]:
        graph = Graph(self.model)
        moved = moved_tensors(graph, self._by_place)
        return {
            key: window.moved(moved.get(graph.producers[key].input[0], 0.0))
            for key, window in self.windows.items()
        }
