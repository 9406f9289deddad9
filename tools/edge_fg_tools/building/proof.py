"""The proof: every variant against FP32 on images that the build did not calibrate on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_fg.bundle import Precision
from edge_fg.errors import DatasetError
from edge_fg.labels import Labels
from edge_fg.progress import ProgressCallback
from edge_fg_calibration import (
    Fidelity,
    ImageRecord,
    ImageSet,
    LabelledImage,
    compare,
    image_records,
)
from edge_fg_calibration.graph.observation import check_finite
from edge_fg_calibration.graph.session import open_session, run_session
from edge_fg_tools.building.image_feed import ImageFeed
from edge_fg_tools.graph import PreparedModel


@dataclass(frozen=True)
class Proof:
    """What the images of the hold-out set showed."""

    images: tuple[LabelledImage, ...]  # Those that could be read, in order
    fidelity: dict[Precision, Fidelity]  # Of each variant against FP32
    records: dict[Precision, list[ImageRecord]]  # Both answers to each of `images`, by variant


def prove(
    prepared: PreparedModel,
    graphs: dict[Precision, bytes],
    hold_out: ImageSet,
    labels: Labels,
    feed: ImageFeed,
    progress: ProgressCallback,
) -> Proof:
    """Run FP32 and every variant over `hold_out`; each image is read once."""
    reference_graph = prepared.model.SerializeToString(deterministic=True)
    all_graphs = {"reference": reference_graph, **{str(name): graphs[name] for name in graphs}}
    outputs, images = _run_all(prepared, all_graphs, hold_out, feed, progress)
    indices = [image.index for image in images]
    reference = outputs["reference"]
    shown = [labels.shown(index) for index in range(len(labels))]
    fidelity = {
        name: compare(reference, outputs[name], kind=prepared.kind, indices=indices, labels=shown)
        for name in graphs
    }
    records = {
        name: image_records(reference, outputs[name], kind=prepared.kind, indices=indices)
        for name in graphs
    }
    return Proof(tuple(images), fidelity, records)


def _run_all(
    prepared: PreparedModel,
    graphs: dict[str, bytes],
    hold_out: ImageSet,
    feed: ImageFeed,
    progress: ProgressCallback,
) -> tuple[dict[str, NDArray[Any]], list[LabelledImage]]:
    sessions = {name: open_session(graph) for name, graph in graphs.items()}
    rows: dict[str, list[NDArray[Any]]] = {name: [] for name in graphs}
    images: list[LabelledImage] = []
    for some, tensor in feed.labelled(hold_out):
        for name, session in sessions.items():
            answer = run_session(session, [prepared.output_name], {prepared.input_name: tensor})
            rows[name].append(np.asarray(answer[0], np.float32))
        check_finite(
            rows["reference"][-1],
            prepared.output_name,
            model=prepared.model,
            batch=tensor,
            input_name=prepared.input_name,
            images="images of the hold-out set",
        )
        images.extend(some)
        progress("prove", len(images), len(hold_out))
    if not images:
        raise DatasetError(f"none of the {len(hold_out)} images of the hold-out set could be read")
    return {name: np.concatenate(parts) for name, parts in rows.items()}, images
