"""Measure the reference model as shipped, and write the papers that ship with it."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_fg.backends.onnxruntime import open_session, run_session
from edge_fg.files import write_atomically
from edge_fg_tools.fieldguide.dataset import BACKGROUND_INDEX, LABELS
from edge_fg_tools.fieldguide.species import BACKGROUND_LABEL, GENERA, SPECIES
from edge_fg_tools.fieldguide.training.inputs import INPUT_WH, MEAN, STD, normalise

__all__ = ["Evaluation", "evaluate_model", "write_card", "write_labels", "write_preprocess"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a model made of labelled images.

    Attributes
    ----------
    confusion
        int64 of shape (classes, classes): rows are true classes, columns answers.
    top5
        Share of images whose class is among the five likeliest, 0..1.
    """

    confusion: NDArray[np.int64]
    top5: float

    @property
    def images(self) -> int:
        """How many images were classified."""
        return int(self.confusion.sum())

    @property
    def top1(self) -> float:
        """Share of right answers, 0..1."""
        return float(np.trace(self.confusion)) / self.images


def evaluate_model(
    path: Path, pixels: NDArray[np.uint8], labels: NDArray[np.int64], *, batch: int = 64
) -> Evaluation:
    """Classify resized images with ONNX Runtime and compare with their labels.

    Parameters
    ----------
    path
        ONNX file of the reference model.
    pixels
        uint8, shape (N, 128, 128, 3), RGB.
    labels
        Class indices, shape (N,).
    batch
        Images a run.

    Raises
    ------
    MissingDependencyError, BackendError
        onnxruntime is not installed, or can't run the model.
    """
    session = open_session(path.read_bytes(), threads=2, purpose="measure the model")
    logits = np.concatenate(
        [
            run_session(session, ["logits"], {"image": normalise(pixels[start : start + batch])})[0]
            for start in range(0, len(pixels), batch)
        ]
    )
    order = np.argsort(-logits, axis=1)
    confusion = np.zeros((len(LABELS), len(LABELS)), dtype=np.int64)
    np.add.at(confusion, (labels, order[:, 0]), 1)
    top5 = float((order[:, :5] == labels[:, np.newaxis]).any(axis=1).mean())
    return Evaluation(confusion, top5)


def write_labels(path: Path) -> None:
    """Write labels and taxonomy as CSV: one row a class, in the order of the logits."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    ranks = ["class", "order", "family", "genus", "species"]
    writer.writerow(["index", "label", "common_name", *ranks])
    for index, species in enumerate(SPECIES):
        name, genus = species.common_name, species.genus
        taxa = ["Aves", genus.order, genus.family, genus.name, species.binomial]
        writer.writerow([index, name, name, *taxa])
    writer.writerow([BACKGROUND_INDEX, BACKGROUND_LABEL, "", "", "", "", "", ""])
    write_atomically(path, table.getvalue())


def write_preprocess(path: Path) -> None:
    """Write the model's preprocessing as a file for ``--preprocess``."""
    size = ", ".join(map(str, INPUT_WH))
    lines = [
        "# How the field guide's model wants its images; means and deviations in 0..255 units.",
        "[preprocess]",
        'color = "rgb"',
        f'resize = {{ mode = "squash", size = [{size}], filter = "bilinear", antialias = true }}',
        f"mean = [{', '.join(map(str, MEAN))}]",
        f"std = [{', '.join(map(str, STD))}]",
        'layout = "nchw"',
        'dtype = "float32"',
    ]
    write_atomically(path, "\n".join(lines) + "\n")


def write_card(path: Path, evaluation: Evaluation, facts: dict[str, int | str]) -> None:
    """Write the model card from measurements and the facts of the training run."""
    write_atomically(path, _CARD.format(**_summary(evaluation), **_named(facts)))


def _named(facts: dict[str, int | str]) -> dict[str, str]:
    return {
        name.replace(" ", "_").lower(): f"{value:,}" if isinstance(value, int) else value
        for name, value in facts.items()
    }


def _summary(evaluation: Evaluation) -> dict[str, str]:
    confusion = evaluation.confusion
    genus_of = np.array([GENERA.index(species.genus) for species in SPECIES] + [len(GENERA)])
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    sibling = wrong[genus_of[:, np.newaxis] == genus_of[np.newaxis, :]].sum()
    background = wrong[BACKGROUND_INDEX].sum() + wrong[:, BACKGROUND_INDEX].sum()
    rows = []
    for number, genus in enumerate(GENERA):
        mine = np.flatnonzero(genus_of == number)
        block = confusion[mine]
        right = np.trace(block[:, mine]) / block.sum()
        inside = block[:, mine].sum() / block.sum()
        worst = np.unravel_index(wrong[np.ix_(mine, mine)].argmax(), (len(mine), len(mine)))
        pair = (LABELS[mine[worst[0]]], LABELS[mine[worst[1]]])
        count = wrong[mine[worst[0]], mine[worst[1]]]
        often = f"{pair[0]} taken for {pair[1]} ({count})" if count else "none"
        rows.append(f"| *{genus.name}* | {right:.1%} | {inside:.1%} | {often} |")
    empty = confusion[BACKGROUND_INDEX]
    rows.append(f"| (background) | {empty[BACKGROUND_INDEX] / empty.sum():.1%} | | |")
    errors = max(1, int(wrong.sum()))
    return {
        "classes": str(len(LABELS)),
        "species": str(len(SPECIES)),
        "genera": str(len(GENERA)),
        "families": str(len({genus.family for genus in GENERA})),
        "held_out_images": f"{evaluation.images:,}",
        "top1": f"{evaluation.top1:.2%}",
        "top5": f"{evaluation.top5:.2%}",
        "errors": str(int(wrong.sum())),
        "sibling_share": f"{sibling / errors:.0%}",
        "background_share": f"{background / errors:.0%}",
        "rows": "\n".join(rows),
    }


_CARD = """# Model card: field guide

A small classifier of {species} birds in {genera} genera and {families} families, and of images
without a bird ({classes} classes). **The birds are invented**: names, looks and taxonomy are made
up and every image is drawn by the generator in `edge_fg_tools.fieldguide`. The model shows what
edge_fg does and gives its tests a model with a known history. It is of no use on real birds.

## Model

- Input `image`: N x 3 x 128 x 128, float32, RGB, prepared as `preprocess.toml` says (whole image
  squashed to 128 x 128 with Pillow's antialiased bilinear filter). Output `logits`: N x {classes}.
- Convolutional stem, plain residual block, inverted residuals with depthwise convolutions and
  squeeze-and-excitation, one multi-head self-attention block on the final 8 x 8
  grid, mean and maximum pooling.
- {parameters} parameters, {bytes} bytes of ONNX (opset 17), batch normalisation folded.
- Trained in float32. No quantisation took part in training, and no pretrained weights.

## Data

Photographs rendered from seeds: pose, size, light, blur, noise, occlusion, clutter and compression
vary; siblings (species of one genus) differ only in marks such as crown, brow, eye stripe, eye
ring, wing bars, bill, breast and tail. {training_images} training images (the same number of each
class), and {held_out_images} held-out images of another set seed.

## Training

    python -m edge_fg_tools.fieldguide.training.train --output DIR --seed {seed} --epochs {epochs}

PyTorch {pytorch}, two threads on a CPU busy with other work: {seconds_rendering} s rendering and
{seconds_training} s training. AdamW, one-cycle learning rate, label smoothing 0.05, flips, shifts
and tints. Beside the classes a second head, dropped at export, learnt each class's genus and marks.

## Measured on the held-out images, with ONNX Runtime in float32

Top-1 {top1}, top-5 {top5} ({errors} errors in {held_out_images} images).
{sibling_share} of the errors are between siblings; {background_share} involve the background class.

| genus | species right | genus right | most frequent confusion within it (images) |
|---|---|---|---|
{rows}

## Limits

- Invented birds, drawn: nothing here says how a model does on photographs of real animals.
- One bird an image. With two species in view the answer is one of them.
- Birds smaller than about a third of the image's shorter side are outside what it was trained on.
- Confidence is that of a classifier trained with label smoothing: calibrate it before trusting it.
"""
