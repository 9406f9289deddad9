"""Train the reference model: ``python -m edge_fg_tools.fieldguide.training --output DIR``.

Renders the photographs, trains on the CPU, exports ONNX, measures the exported file with ONNX
Runtime and writes what ships beside it: labels, preprocessing and the model card. Needs the extra
``train``. The same seed gives the same photographs; weights repeat as far as PyTorch's CPU kernels
do (same version, same number of threads).
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
import time
from pathlib import Path

from edge_fg.errors import MissingDependencyError
from edge_fg_tools.fieldguide.training.evaluation import (
    evaluate_model,
    write_card,
    write_labels,
    write_preprocess,
)
from edge_fg_tools.fieldguide.training.inputs import render_inputs

# Image sets of the shipped model; far from the small seeds that people pick for their own sets.
_FIRST_SET = 1_000_000
_HELD_OUT_IMAGES = 60


def main(arguments: list[str] | None = None) -> int:
    """Train and return the exit code."""
    options = _parse(arguments)
    started = time.perf_counter()
    _keep_freed_memory()
    # Threads that wait without spinning: on a busy machine spinning ones cost more than they help.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from edge_fg_tools.fieldguide.training.train import TORCH_VERSION, export, train
    except ModuleNotFoundError as error:
        raise MissingDependencyError("torch", "train", "train the reference model") from error
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    training_set, held_out_set = _FIRST_SET + 2 * options.seed, _FIRST_SET + 2 * options.seed + 1
    pixels, labels = render_inputs(training_set, options.images_per_class)
    held_out = render_inputs(held_out_set, _HELD_OUT_IMAGES)
    rendered = time.perf_counter()
    _say(f"rendered {len(pixels)} + {len(held_out[0])} photographs in {rendered - started:.0f} s")
    network = train(pixels, labels, options.seed, options.epochs, _say)
    trained = time.perf_counter()
    _say(f"trained {options.epochs} epochs in {trained - rendered:.0f} s")
    model = output / "fieldguide.onnx"
    export(network, model)
    evaluation = evaluate_model(model, *held_out)
    finished = time.perf_counter()
    _say(f"held out: top-1 {evaluation.top1:.4f}, top-5 {evaluation.top5:.4f}")
    write_labels(output / "labels.csv")
    write_preprocess(output / "preprocess.toml")
    write_card(
        output / "MODEL_CARD.md",
        evaluation,
        {
            "seed": options.seed,
            "epochs": options.epochs,
            "training_images": len(pixels),
            "parameters": sum(p.numel() for p in network.parameters()),
            "bytes": model.stat().st_size,
            "pytorch": TORCH_VERSION,
            "seconds_rendering": round(rendered - started),
            "seconds_training": round(trained - rendered),
        },
    )
    _say(f"all of it took {finished - started:.0f} s; files are in {output}")
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m edge_fg_tools.fieldguide.training",
        description="Train the reference model.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="folder for the model and its documents"
    )
    for option, default, meaning in (
        ("--seed", 0, "seed of photographs and weights"),
        ("--epochs", 12, "passes over the photographs"),
        ("--images-per-class", 400, "photographs to train on"),
    ):
        parser.add_argument(option, type=int, default=default, metavar="N", help=meaning)
    return parser.parse_args(arguments)


def _keep_freed_memory() -> None:
    """Let glibc keep freed buffers: handing them back at each step costs a third of the time."""
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h.
        mallopt(-3, 1 << 30)
        mallopt(-1, (1 << 31) - 1)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
