"""What the child processes of `architectures_int8.py` do with edge_fg: prepare, quantise, judge."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from common import Row, read_json, run_step, write_json
from numpy.typing import NDArray

from edge_fg.errors import EdgeFGError
from edge_fg_calibration import quantize_int8, read_image_set
from edge_fg_calibration.graph.session import open_session, run_session
from edge_fg_calibration.int8.qat import int8_share
from edge_fg_tools.building.image_feed import ImageFeed
from edge_fg_tools.building.options import fit_preprocess
from edge_fg_tools.graph import load_model, prepare

_BATCH = 4
_LEAST_POWER = 1e-30
_LIBRARIES = ("numpy", "Pillow", "onnx", "onnxruntime", "onnxslim")


def prepare_all(folder: Path) -> Row:
    """Write the prepared model, both sets of images as tensors, and the float32 outputs."""
    asked = read_json(folder / "asked.json")
    prepared = prepare(load_model(Path(asked["model"])))
    onnx.save(prepared.model, folder / "prepared.onnx")
    feed = ImageFeed(fit_preprocess(asked["preprocess"], prepared), prepared.batch or _BATCH)
    whole = read_image_set(Path(asked["images"]))
    images = whole.items
    order = np.random.default_rng(asked["seed"]).permutation(len(images))
    sides = {"calibration": asked["calibration_images"], "judge": asked["judge_images"]}
    if sum(sides.values()) > len(images):
        raise EdgeFGError(f"there are only {len(images)} images in {asked['images']}")
    begin = 0
    for side, count in sides.items():
        some = tuple(images[at] for at in order[begin : begin + count])
        begin += count
        tensors = [batch for _, batch in feed.labelled(dataclasses.replace(whole, items=some))]
        np.save(folder / f"{side}.npy", np.concatenate(tensors))
    names = {"input": prepared.input_name, "output": prepared.output_name, "kind": prepared.kind}
    write_json(folder / "names.json", names)
    np.save(folder / "reference.npy", _outputs(folder, folder / "prepared.onnx"))
    return {}


def quantise(folder: Path, method: str) -> Row:
    """Quantise as `edge-fg build --target tensorrt-rtx` does."""
    names = read_json(folder / "names.json")
    images = np.load(folder / "calibration.npy", mmap_mode="r")
    started = time.monotonic()
    found = quantize_int8(
        onnx.load(folder / "prepared.onnx"),
        lambda: _batches(images),
        input_name=names["input"],
        output_name=names["output"],
        kind=names["kind"],
        target="tensorrt-rtx",
        corrections="no corrections" not in method,
        total=len(images),
    )
    seconds = time.monotonic() - started
    onnx.save(found.model, folder / "int8.onnx")
    return {
        "seconds": round(seconds, 1),
        "range_method": found.method,
        "kept": [one.name for one in found.corrections if one.kept],
        "tried": len(found.corrections),
        "versions": {name: metadata.version(name) for name in _LIBRARIES},
    }


def judge(folder: Path) -> Row:
    """Return the signal-to-noise ratio (dB) of the INT8 outputs, and the share of INT8.

    10 log10 of the power of the float32 outputs over that of the difference, summed over all
    images. Both sides have each image's mean over the classes subtracted first: a constant
    added to all logits changes no answer.
    """
    reference = _centred(np.load(folder / "reference.npy"))
    found = _centred(_outputs(folder, folder / "int8.onnx"))
    signal = np.square(reference).sum(axis=1)
    noise = np.square(reference - found).sum(axis=1)
    by_image = _decibels(signal, noise)
    return {
        "snr_db": round(float(_decibels(signal.sum(), noise.sum())), 2),
        "by_image": [round(float(one), 2) for one in by_image],
        "int8_macs": int8_share(onnx.load(folder / "int8.onnx")),
    }


def _centred(outputs: NDArray[np.float32]) -> NDArray[np.float64]:
    values = outputs.astype(np.float64)
    return np.asarray(values - values.mean(axis=1, keepdims=True), np.float64)


def _decibels(signal: Any, noise: Any) -> NDArray[np.float64]:
    ratio = np.maximum(signal, _LEAST_POWER) / np.maximum(noise, _LEAST_POWER)
    return np.asarray(10 * np.log10(ratio), np.float64)


def _outputs(folder: Path, graph: Path) -> NDArray[np.float32]:
    names = read_json(folder / "names.json")
    session = open_session(graph.read_bytes())
    rows = [
        np.asarray(run_session(session, [names["output"]], {names["input"]: batch})[0])
        for batch in _batches(np.load(folder / "judge.npy", mmap_mode="r"))
    ]
    return np.concatenate([row.reshape(len(row), -1) for row in rows]).astype(np.float32)


def _batches(images: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for at in range(0, len(images), _BATCH):
        yield np.asarray(images[at : at + _BATCH])


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    run_step({"prepare": prepare_all, "quantise": quantise, "judge": judge})
