"""Train the reference model: ``python -m edge_fg_tools.fieldguide.training.train --output DIR``.

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
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_fg.errors import MissingDependencyError
from edge_fg_tools.fieldguide.dataset import LABELS
from edge_fg_tools.fieldguide.species import GENERA, SPECIES, Marks
from edge_fg_tools.fieldguide.training.evaluation import (
    evaluate_model,
    write_card,
    write_labels,
    write_preprocess,
)
from edge_fg_tools.fieldguide.training.inputs import MEAN, STD, render_inputs

__all__ = ["main"]

# Image sets of the shipped model; far from the small seeds that people pick for their own sets.
_FIRST_SET = 1_000_000
_BATCH = 32
_THREADS = 2
_TRAINING_IMAGES = 400
_HELD_OUT_IMAGES = 60
_SHIFT = 6
_TRAIT_WEIGHT = 3.0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parse(arguments)
    started = time.perf_counter()
    _keep_freed_memory()
    torch = _torch()
    torch.manual_seed(options.seed)
    torch.set_num_threads(_THREADS)
    torch.use_deterministic_algorithms(mode=True)
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    training_set, held_out_set = _FIRST_SET + 2 * options.seed, _FIRST_SET + 2 * options.seed + 1
    pixels, labels = render_inputs(training_set, options.images_per_class)
    held_out = render_inputs(held_out_set, _HELD_OUT_IMAGES)
    rendered = time.perf_counter()
    _say(f"rendered {len(pixels)} + {len(held_out[0])} photographs in {rendered - started:.0f} s")
    network = _train(torch, pixels, labels, options.seed, options.epochs)
    trained = time.perf_counter()
    _say(f"trained {options.epochs} epochs in {trained - rendered:.0f} s")
    model = output / "fieldguide.onnx"
    _export(torch, network, model)
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
            "training images": len(pixels),
            "parameters": sum(p.numel() for p in network.parameters()),
            "bytes": model.stat().st_size,
            "PyTorch": torch.__version__.split("+")[0],
            "seconds rendering": round(rendered - started),
            "seconds training": round(trained - rendered),
        },
    )
    _say(f"all of it took {finished - started:.0f} s; files are in {output}")
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m edge_fg_tools.fieldguide.training.train")
    parser.add_argument("--output", required=True, help="folder for the model and its papers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--images-per-class", type=int, default=_TRAINING_IMAGES)
    return parser.parse_args(arguments)


def _torch() -> Any:
    # Threads that wait without spinning: on a busy machine spinning ones cost more than they help.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError("torch", "train", "train the reference model") from error
    return torch


def _train(
    torch: Any,
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    seed: int,
    epochs: int,
) -> Any:
    """Train a network on `pixels` (N, 128, 128, 3) and return it in evaluation mode."""
    from edge_fg_tools.fieldguide.training.network import EMBEDDING, FieldGuideNet

    network = FieldGuideNet(len(LABELS)).to(memory_format=torch.channels_last)
    traits = torch.from_numpy(_traits())
    # Learns marks across genera beside the classes; only training needs it.
    tutor = torch.nn.Linear(EMBEDDING, traits.shape[1])
    steps = len(pixels) // _BATCH
    weights = [*network.parameters(), *tutor.parameters()]
    decayed = [p for p in weights if p.ndim > 1]
    others = [p for p in weights if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.03}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=3e-3, total_steps=steps * epochs, pct_start=0.2
    )
    class_loss = torch.nn.CrossEntropyLoss(label_smoothing=0.05)
    trait_loss = torch.nn.BCEWithLogitsLoss()
    rng = np.random.default_rng([seed, 1])
    for epoch in range(epochs):
        began = time.perf_counter()
        network.train()
        total = 0.0
        order = rng.permutation(len(pixels))
        for step in range(steps):
            chosen = order[step * _BATCH : (step + 1) * _BATCH]
            batch = _augment(torch, pixels[chosen], rng)
            optimiser.zero_grad(set_to_none=True)
            target = torch.from_numpy(labels[chosen])
            embedding = network.embed(batch)
            loss = class_loss(network.classifier(embedding), target)
            loss = loss + _TRAIT_WEIGHT * trait_loss(tutor(embedding), traits[target])
            loss.backward()
            optimiser.step()
            schedule.step()
            total += float(loss.detach())
        seconds = time.perf_counter() - began
        _say(f"epoch {epoch + 1:2d}/{epochs}: loss {total / steps:.4f}, {seconds:.0f} s")
    return network.eval()


def _traits() -> NDArray[np.float32]:
    """Tell for every class (rows) which genus it is of and which marks it has: 0 or 1."""
    names = [field.name for field in fields(Marks) if field.name != "wing_bar"]
    rows = []
    for species in SPECIES:
        values = [getattr(species.marks, name) for name in names]
        marks = [value is not None and value != 0 for value in values]
        genus = [species.genus is other for other in GENERA]
        rows.append([*marks, species.marks.wing_bars > 1, *genus])
    rows.append([False] * len(rows[0]))
    return np.array(rows, dtype=np.float32)


def _augment(torch: Any, pixels: NDArray[np.uint8], rng: np.random.Generator) -> Any:
    """Flip, shift and tint a batch (N, 128, 128, 3); float32 (N, 3, 128, 128), normalised."""
    count, height, width, _ = pixels.shape
    margins = ((0, 0), (_SHIFT, _SHIFT), (_SHIFT, _SHIFT), (0, 0))
    padded = np.pad(pixels, margins, mode="edge")
    offsets = rng.integers(0, 2 * _SHIFT + 1, (count, 2))
    flips = np.asarray(rng.random(count) < 0.5)
    batch = np.empty_like(pixels)
    for index, ((top, left), flip) in enumerate(zip(offsets.tolist(), flips.tolist(), strict=True)):
        view = padded[index, top : top + height, left : left + width]
        batch[index] = view[:, ::-1] if flip else view
    gains = np.exp(rng.normal(0.0, 0.10, (count, 1, 1, 1)) + rng.normal(0, 0.03, (count, 1, 1, 3)))
    mean, std = np.array(MEAN), np.array(STD)
    slope = torch.from_numpy((gains / std).astype(np.float32))
    offset = torch.from_numpy((mean / std).astype(np.float32))
    # The permuted view is channels-last in memory, which is how the network computes.
    return (torch.from_numpy(batch).float() * slope - offset).permute(0, 3, 1, 2)


def _export(torch: Any, network: Any, path: Path) -> None:
    network = network.to(memory_format=torch.contiguous_format).eval()
    with torch.no_grad():
        torch.onnx.export(
            network,
            (torch.zeros(2, 3, 128, 128),),
            str(path),
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
            opset_version=17,
            do_constant_folding=True,
            dynamo=False,
        )


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
