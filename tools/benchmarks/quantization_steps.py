"""What the child processes of `quantization.py` do: split, calibrate by one method, judge."""

from __future__ import annotations

import logging
import resource
import sys
import time
from pathlib import Path

import numpy as np
import onnx
from common import Row, read_json, run_step, write_json
from numpy.typing import NDArray
from quantization_methods import Task, by_name

from edge_fg.label_files import read_labels
from edge_fg_calibration import ImageSet, LabelledImage, compare, read_image_set, resolve_labels
from edge_fg_calibration import sample as sampled
from edge_fg_calibration.graph.session import open_session, run_session
from edge_fg_calibration.int8.qat import int8_share
from edge_fg_tools.building.image_feed import ImageFeed, top_answers
from edge_fg_tools.building.options import fit_preprocess
from edge_fg_tools.graph import PreparedModel, load_model, prepare

_BATCH = 4
_TO_MB = 1024 if sys.platform != "darwin" else 1024 * 1024


def split(folder: Path) -> Row:
    """Write both sides of the images, chosen as a build chooses them, and the prepared model."""
    asked, prepared = _asked(folder)
    onnx.save(prepared.model, folder / "prepared.onnx")
    labels = read_labels(Path(asked["labels"]), classes=prepared.classes)
    images, _ = resolve_labels(read_image_set(Path(asked["images"])), labels)
    feed = _feed(asked, prepared)
    found = sampled(
        images,
        asked["calibration_images"],
        seed=asked["seed"],
        predict=lambda side: top_answers(prepared, feed, side, lambda *_: None),
    )
    hold_out = _spread(found.hold_out.items, asked["hold_out_images"])
    sides = {
        "calibration": [_stored(item) for item in found.calibration.items],
        "hold_out": [_stored(item) for item in hold_out],
    }
    write_json(folder / "sides.json", sides)
    return {
        "calibration": len(found.calibration),
        "hard": found.hard,
        "hold_out": len(found.hold_out),
        "seed": asked["seed"],
        "kind": prepared.kind,
    }


def calibrate(folder: Path, method: str) -> Row:
    """Quantise by one method; return its seconds and its peak memory."""
    asked, prepared = _asked(folder)
    run = by_name(method)
    task = Task(
        model=prepared,
        path=folder / "prepared.onnx",
        feed=_feed(asked, prepared),
        calibration=_side(folder, "calibration"),
        output=_graph(folder, method),
    )
    wall, cpu = time.monotonic(), time.process_time()
    notes = run(task)
    seconds = {
        "wall_seconds": time.monotonic() - wall,
        "cpu_seconds": time.process_time() - cpu,
    }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _TO_MB
    return {**seconds, "peak_mb": peak, **notes}


def judge(folder: Path, *methods: str) -> Row:
    """Compare each method's graph with float32 on images that none was calibrated on.

    All graphs are executed as written, rounding around float operators.
    """
    asked, prepared = _asked(folder)
    graphs = {method: onnx.load(_graph(folder, method)) for method in methods}
    outputs, items = _run_all(prepared, graphs, _side(folder, "hold_out"), _feed(asked, prepared))
    indices = [item.index for item in items]
    reference = outputs.pop("")
    rows = {}
    for method, output in outputs.items():
        found = compare(reference, output, kind=prepared.kind, indices=indices)
        rows[method] = {**found.to_dict(), "int8_macs": int8_share(graphs[method])}
    itself = compare(reference, reference, kind=prepared.kind, indices=indices)
    return {
        "methods": rows,
        "float32": {"images": itself.images, "labelled": itself.labelled, "top1": itself.top1},
    }


def _run_all(
    prepared: PreparedModel,
    graphs: dict[str, onnx.ModelProto],
    images: ImageSet,
    feed: ImageFeed,
) -> tuple[dict[str, NDArray[np.float32]], list[LabelledImage]]:
    """Return the outputs of all graphs, and of float32 as the graph of no name."""
    sessions = {
        name: open_session(one.SerializeToString())
        for name, one in {"": prepared.model, **graphs}.items()
    }
    rows: dict[str, list[NDArray[np.float32]]] = {name: [] for name in sessions}
    items: list[LabelledImage] = []
    for some, tensor in feed.labelled(images):
        for name, session in sessions.items():
            answer = run_session(session, [prepared.output_name], {prepared.input_name: tensor})
            rows[name].append(np.asarray(answer[0], np.float32).reshape(len(some), -1))
        items.extend(some)
    return {name: np.concatenate(parts) for name, parts in rows.items()}, items


def _asked(folder: Path) -> tuple[Row, PreparedModel]:
    asked = read_json(folder / "asked.json")
    return asked, prepare(load_model(Path(asked["model"])))


def _feed(asked: Row, prepared: PreparedModel) -> ImageFeed:
    return ImageFeed(fit_preprocess(asked["preprocess"], prepared), prepared.batch or _BATCH)


def _graph(folder: Path, method: str) -> Path:
    return folder / f"{method.replace(' ', '-').replace(',', '')}.onnx"


def _stored(item: LabelledImage) -> Row:
    return {"path": str(item.path.resolve()), "label": item.label, "index": item.index}


def _side(folder: Path, name: str) -> ImageSet:
    sides = read_json(folder / "sides.json")
    items = (LabelledImage(Path(one["path"]), one["label"], one["index"]) for one in sides[name])
    return ImageSet(tuple(items), folder, name)


def _spread(items: tuple[LabelledImage, ...], most: int | None) -> tuple[LabelledImage, ...]:
    """Return at most so many images, evenly spread."""
    if most is None or len(items) <= most:
        return items
    places = np.linspace(0, len(items) - 1, most).round().astype(int)
    return tuple(items[place] for place in places)


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    run_step({"split": split, "calibrate": calibrate, "judge": judge})
