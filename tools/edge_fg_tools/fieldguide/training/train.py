"""The training loop of the reference model, and its export."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edge_fg_tools.fieldguide.dataset import LABELS
from edge_fg_tools.fieldguide.species import GENERA, SPECIES, Marks
from edge_fg_tools.fieldguide.training.inputs import INPUT_SIDE, MEAN, STD
from edge_fg_tools.fieldguide.training.network import EMBEDDING, FieldGuideNet

TORCH_VERSION: str = torch.__version__.split("+")[0]

_BATCH = 32
_THREADS = 2
_SHIFT = 6
_TRAIT_WEIGHT = 3.0


def train(
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    seed: int,
    epochs: int,
    say: Callable[[str], None],
) -> Any:
    """Train a network on RGB images (N, 128, 128, 3) and return it in evaluation mode.

    The seed is that of weights, order and augmentation; `say` gets a line after each epoch.
    """
    torch.manual_seed(seed)
    torch.set_num_threads(_THREADS)
    torch.use_deterministic_algorithms(mode=True)
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
            batch = _augment(pixels[chosen], rng)
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
        say(f"epoch {epoch + 1:2d}/{epochs}: loss {total / steps:.4f}, {seconds:.0f} s")
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


def _augment(pixels: NDArray[np.uint8], rng: np.random.Generator) -> Any:
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


def export(network: Any, path: Path) -> None:
    """Write a network as ONNX, with a dynamic batch named ``N``."""
    network = network.to(memory_format=torch.contiguous_format).eval()
    with torch.no_grad():
        torch.onnx.export(
            network,
            (torch.zeros(2, 3, INPUT_SIDE, INPUT_SIDE),),
            str(path),
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
            opset_version=17,
            do_constant_folding=True,
            dynamo=False,
        )
