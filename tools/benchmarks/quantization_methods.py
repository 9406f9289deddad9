"""The INT8 methods that `quantization.py` compares, each at its best for TensorRT."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from common import Row
from numpy.typing import NDArray
from peer_quantizers import reader_of, with_modelopt, with_onnxruntime

from edge_fg_calibration import ImageSet, Target, quantize_int8
from edge_fg_calibration.corrections.int8_recipe import Int8Recipe
from edge_fg_calibration.graph.prepare import prepared_copy
from edge_fg_calibration.int8.placement import place
from edge_fg_calibration.int8.ranges import entropy
from edge_fg_calibration.statistics.collection import collect_histograms
from edge_fg_tools.building.image_feed import ImageFeed
from edge_fg_tools.graph import PreparedModel


@dataclasses.dataclass(frozen=True)
class Task:
    """What a method is given."""

    model: PreparedModel  # The prepared float32 model
    path: Path  # The same as a file
    feed: ImageFeed  # Reads and prepares images; it keeps no statistics from one method to the next
    calibration: ImageSet  # Images to calibrate on
    output: Path  # Where the INT8 graph goes


Method = Callable[[Task], Row]


def by_name(method: str) -> Method:
    """Return the method of that name, one of `quantization.METHODS`."""
    maker, _, how = method.partition(" ")
    if how == "tensorrt, entropy alone":
        return _ours_entropy
    if maker == "edge-fg":
        targets: dict[str, Target] = {"portable": "portable", "tensorrt": "tensorrt"}
        return partial(
            _ours, target=targets[how.split(",")[0]], corrections="no corrections" not in how
        )
    if maker == "onnxruntime":
        return partial(_onnxruntime, calibrator=how.split(",")[0], inputs_only="inputs only" in how)
    return partial(_modelopt, calibrator=how)


def _ours(task: Task, *, target: Target, corrections: bool) -> Row:
    found = quantize_int8(
        task.model.model,
        lambda: task.feed.tensors(task.calibration),
        input_name=task.model.input_name,
        output_name=task.model.output_name,
        kind=task.model.kind,
        target=target,
        corrections=corrections,
        total=len(task.calibration),
    )
    onnx.save(found.model, task.output)
    return {"kept": [one.name for one in found.corrections if one.kept]}


def _ours_entropy(task: Task) -> Row:
    """Do what onnxruntime's Entropy does, and no more: one range method, nothing compared."""
    model = prepared_copy(task.model.model)
    placement = place(model, target="tensorrt")
    histograms = collect_histograms(
        model,
        task.feed.tensors(task.calibration),
        placement.activations,
        input_name=task.model.input_name,
    )
    limits = {name: entropy(one) for name, one in histograms.items()}
    onnx.save(Int8Recipe(model, placement, limits).make(), task.output)
    return {}


def _onnxruntime(task: Task, *, calibrator: str, inputs_only: bool) -> Row:
    reader = reader_of(_one_by_one(task), task.model.input_name)
    with_onnxruntime(task.path, task.output, reader, calibrator, inputs_only=inputs_only)
    return {}


def _modelopt(task: Task, *, calibrator: str) -> Row:
    images = np.concatenate(list(_one_by_one(task)))
    name, batch = task.model.input_name, task.model.batch
    with_modelopt(task.path, task.output, images, name, calibrator, batch=batch)
    return {}


def _one_by_one(task: Task) -> Iterator[NDArray[Any]]:
    for batch in task.feed.tensors(task.calibration):
        for row in range(len(batch)):
            yield batch[row : row + 1]
