"""What a classifier returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

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

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON lines write it."""
        return {"index": self.class_id, "label": self.label, "confidence": self.confidence}


@dataclass(frozen=True)
class Latency:
    """Milliseconds that a call took, for all the `frames` of its batch together."""

    preprocess_ms: float
    inference_ms: float
    total_ms: float
    frames: int = 1

    @property
    def per_frame_ms(self) -> float:
        """The share of one frame: `total_ms` / `frames`."""
        return self.total_ms / self.frames

    def __str__(self) -> str:
        """Return it for people: ``12.0 ms``, or ``48.0 ms for 4 frames, 12.0 ms each``."""
        if self.frames == 1:
            return f"{self.total_ms:.1f} ms"
        each = f"{self.per_frame_ms:.1f} ms each"
        return f"{self.total_ms:.1f} ms for {self.frames} frames, {each}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON lines write it; only a batch has ``frames`` and ``per_frame``."""
        times = {
            "preprocess": self.preprocess_ms,
            "inference": self.inference_ms,
            "total": self.total_ms,
        }
        batch: dict[str, float] = {"frames": self.frames, "per_frame": self.per_frame_ms}
        return {k: round(v, 3) for k, v in (times | (batch if self.frames > 1 else {})).items()}


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """The probabilities of all classes for one image.

    Equal to another of the same classes and probabilities, however long either took.

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

    probabilities: NDArray[np.float32]
    labels: Labels
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

    def to_dict(self, top_k: int = 5) -> dict[str, Any]:
        """Return plain data: the best class, the `top_k` likeliest, and the latency.

        ``top`` and ``latency_ms`` are those of ``edge-fg run --format jsonl``.
        """
        return {
            **self.top(1)[0].to_dict(),
            "top": [answer.to_dict() for answer in self.top(top_k)],
            "latency_ms": self.latency.to_dict(),
        }

    def __repr__(self) -> str:
        return (
            f"Prediction(label={self.label!r}, confidence={self.confidence:.3f}, "
            f"class_id={self.class_id}, latency={str(self.latency)!r})"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Prediction):
            return NotImplemented
        same = np.array_equal(self.probabilities, other.probabilities)
        return same and self.labels == other.labels

    def __hash__(self) -> int:
        return hash((self.class_id, self.confidence))

    # A copy is made anew, so that its probabilities are read-only, too.
    def __reduce__(self) -> tuple[Any, ...]:
        return Prediction, (self.probabilities, self.labels, self.latency)
