"""What a classifier returns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_fg.labels import Labels
from edge_fg.public_names import deprecated_alias


@dataclass(frozen=True)
class Answer:
    """One class with its confidence 0..1."""

    class_id: int
    label: str
    confidence: float

    index = deprecated_alias("class_id")


@dataclass(frozen=True)
class Latency:
    """Milliseconds that a prediction took; the frames of one batch share them."""

    preprocess_ms: float
    inference_ms: float
    total_ms: float


@dataclass(frozen=True, eq=False)
class Prediction:
    """The probabilities of all classes for one image; equal only to itself.

    Parameters
    ----------
    probabilities
        (classes,) float32, summing to 1. Read-only.
    labels
        The classes.
    latency
        How long it took.

    Attributes
    ----------
    class_id
        The likeliest class: its position in the model's output.
    """

    probabilities: NDArray[np.float32] = field(repr=False)
    labels: Labels = field(repr=False)
    latency: Latency
    class_id: int = field(init=False)

    index = deprecated_alias("class_id")

    def __post_init__(self) -> None:
        self.probabilities.flags.writeable = False
        object.__setattr__(self, "class_id", int(np.argmax(self.probabilities)))

    @property
    def label(self) -> str:
        """Return the label of the likeliest class."""
        return self.labels[self.class_id].label

    @property
    def confidence(self) -> float:
        """Return the probability of the likeliest class, 0..1."""
        return float(self.probabilities[self.class_id])

    def top(self, k: int = 5) -> list[Answer]:
        """Return the `k` likeliest classes (all, if there are fewer), the likeliest first.

        Equal probabilities are in the order of the classes, so that the result is always the same.
        """
        order = np.argsort(-self.probabilities, kind="stable")[: max(k, 0)].tolist()
        return [Answer(i, self.labels[i].label, float(self.probabilities[i])) for i in order]
