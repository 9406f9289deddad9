"""Measure the reference model as shipped, and write the files that ship with it."""

from __future__ import annotations

import csv
import importlib.resources
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_fg.backends.onnxruntime import open_session, run_session
from edge_fg.files import write_atomically
from edge_fg_tools.fieldguide.dataset import BACKGROUND_INDEX, LABELS
from edge_fg_tools.fieldguide.species import BACKGROUND_LABEL, GENERA, SPECIES
from edge_fg_tools.fieldguide.training.inputs import INPUT_SIDE, MEAN, STD, normalise


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How a model answered labelled images."""

    # int64 of shape (classes, classes): rows are true classes, columns answers.
    confusion: NDArray[np.int64]
    top5: float  # Share of images whose class is among the five likeliest, 0..1

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
    """Classify resized RGB images (N, 128, 128, 3) with ONNX Runtime and compare with their labels.

    Raises MissingDependencyError or BackendError where onnxruntime is not installed or can't run
    the model.
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
        taxa = ["Aves", genus.order, genus.family, genus.name, species.epithet]
        writer.writerow([index, name, name, *taxa])
    writer.writerow([BACKGROUND_INDEX, BACKGROUND_LABEL, "", "", "", "", "", ""])
    write_atomically(path, table.getvalue())


def write_preprocess(path: Path) -> None:
    """Write the model's preprocessing as a file for ``--preprocess``."""
    size = f"{INPUT_SIDE}, {INPUT_SIDE}"
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
    """Write the model card; `facts` are about the training run, by their names in ``card.md``."""
    folder = importlib.resources.files("edge_fg_tools.fieldguide.training")
    template = (folder / "card.md").read_text(encoding="utf-8")
    shown = {
        name: f"{value:,}" if isinstance(value, int) else value for name, value in facts.items()
    }
    write_atomically(path, template.format(**_summary(evaluation), **shown))


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
