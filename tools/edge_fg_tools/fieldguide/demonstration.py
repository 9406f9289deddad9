"""The demo: the main job from end to end, on the model and the birds that come with edge_fg."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import edge_fg
from edge_fg.backends.tensorrt.library import available
from edge_fg.errors import OutputError
from edge_fg.files import opened_atomically, write_atomically
from edge_fg.pipeline import Result
from edge_fg.progress import ProgressCallback, no_progress
from edge_fg.sinks import VideoSink
from edge_fg.sinks.records import frame_record
from edge_fg_calibration import Target
from edge_fg_tools import fieldguide
from edge_fg_tools.building import BuildOptions, BuildResult, build

_PHOTOGRAPHS_PER_CLASS = 40
_SEED = 20_000  # far from the seeds that the model was trained on
_CALIBRATION_IMAGES = 300


def demonstrate(output: Path, progress: ProgressCallback = no_progress) -> dict[str, Any]:
    """Build a bundle of the built-in model, recognise the built-in clip, and sum both up.

    Writes ``summary.json``, whose content is returned, ``annotated.mp4``, ``predictions.jsonl``,
    ``report.html``, the clip with its truth, and the bundle ``fieldguide.edgefg`` into the folder
    `output`, which is created if missing. Raises EdgeFGError for what was missing or could not be
    written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"can't make the folder {output}: {error.strerror}") from error
    with tempfile.TemporaryDirectory(prefix="edge-fg-demo-") as scratch:
        result = _build(output / "fieldguide.edgefg", Path(scratch), progress)
        write_atomically(output / "report.html", (result.output / "report.html").read_bytes())
    # The answers name the clip, so it stays where they can find it.
    clip, truth_path = output / "clip.mp4", output / "clip-truth.jsonl"
    progress("render clip", 0, 1)
    fieldguide.write_clip(clip, truth_path)
    progress("render clip", 1, 1)
    truth = [json.loads(line) for line in truth_path.read_text().splitlines()]
    live = _recognise(result.output, clip, output, truth, progress)
    summary = {**_figures(result), **live}
    write_atomically(output / "summary.json", json.dumps(summary, indent=2) + "\n")
    return summary


def _build(bundle: Path, scratch: Path, progress: ProgressCallback) -> BuildResult:
    progress("render photographs", 0, 1)
    photographs = scratch / "photographs"
    fieldguide.write_image_set(photographs, _PHOTOGRAPHS_PER_CLASS, _SEED)
    progress("render photographs", 1, 1)
    target: Target = "tensorrt-rtx" if available("tensorrt-rtx")[0] else "portable"
    options = BuildOptions(
        model=fieldguide.model_path(),
        labels=fieldguide.labels_path(),
        calibration=photographs / "images.csv",
        output=bundle,
        preprocess=str(fieldguide.preprocess_path()),
        target=target,
        calibration_images=_CALIBRATION_IMAGES,
        command="edge-fg demo",
        overwrite=True,
    )
    return build(options, progress)


def _recognise(
    bundle: Path,
    clip: Path,
    output: Path,
    truth: list[dict[str, Any]],
    progress: ProgressCallback,
) -> dict[str, Any]:
    """Run the clip as `edge-fg run` would, and count against the ground truth."""
    right = single = 0
    started = time.perf_counter()
    with (
        edge_fg.load(bundle) as classifier,
        edge_fg.open_source(clip) as source,
        contextlib.closing(VideoSink(output / "annotated.mp4")) as record,
        opened_atomically(output / "predictions.jsonl") as lines,
    ):
        record.open([source])
        frames = 0
        for frame, prediction in edge_fg.stream(source, classifier):
            result = Result(frame, prediction, time.monotonic() - frame.captured)
            lines.write((json.dumps(frame_record(result, top_k=5)) + "\n").encode())
            record(result)
            wanted = _one_answer(truth[frame.number], len(classifier.labels) - 1)
            single += wanted is not None
            right += wanted == prediction.class_id
            frames += 1
            progress("recognise clip", frames, len(truth))
        choice = classifier.choice
    seconds = time.perf_counter() - started
    return {
        "backend": choice.backend,
        "backend_reason": choice.reason,
        "precision": choice.precision,
        "frames": frames,
        "frames_per_second": round(frames / seconds, 1),
        "clip_frames_with_one_answer": single,
        "clip_frames_right": right,
    }


def _one_answer(truth: dict[str, Any], background: int) -> int | None:
    """Return the class that a frame shows; None with birds of several species or in flight."""
    species = {bird["index"] for bird in truth["birds"]}
    if any(bird["flying"] for bird in truth["birds"]) or len(species) > 1:
        return None
    return species.pop() if species else background


def _figures(result: BuildResult) -> dict[str, Any]:
    """Return what the proof of the build measured."""
    variants = {variant["name"]: variant for variant in result.report["variants"]}
    fp32, int8 = variants["fp32"]["fidelity"], variants["int8"]["fidelity"]
    plan = variants["int8"]["plan"]
    return {
        "edge_fg": edge_fg.__version__,
        "bundle": result.output.name,
        "proof_images": fp32["images"],
        "accuracy_fp32": fp32["top1"],
        "accuracy_fp16": variants["fp16"]["fidelity"]["top1"],
        "accuracy_int8": int8["top1"],
        "agreement_fp16": variants["fp16"]["fidelity"]["agreement"],
        "agreement_int8": int8["agreement"],
        "mean_kl_int8": int8["mean_kl"],
        "int8_macs": variants["int8"]["int8_macs"],
        "plan_target": plan["target"] if plan else None,
        "plan_bytes": plan["bytes"] if plan else None,
        "plan_version": plan["version"] if plan else None,
    }
