"""One answer from many frames: fused over time, and kept until another is clearly better."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_fg.errors import UsageError

Distribution = NDArray[np.float64]
"""(classes,) float64, summing to 1."""


@dataclass(frozen=True)
class SmoothingSettings:
    """How answers to single frames become one."""

    memory_s: float = 6.0  # Seconds after which a frame counts 1/e as much
    # Seconds over which frames are correlated: after so long a frame counts as new, all but 1/e of
    # it.
    correlation_s: float = 0.35
    # Largest number of independent frames that one individual can be worth: its looks and the
    # camera affect all its frames in the same way.
    most: float = 8.0
    # Divides the logarithms of the fused distribution; above 1 for an overconfident model.
    temperature: float = 1.0
    # Share of answers, 0..1, that are taken to be random: limits the effect of one frame.
    outliers: float = 0.02
    threshold: float = 0.6  # Confidence, 0..1, from which an answer is given
    release: float = 0.3  # Confidence below which an answer is withdrawn
    margin: float = 0.2  # Lead in confidence that another answer needs to replace the present one
    dwell_s: float = 0.4  # Seconds for which any of these must last
    least: float = 0.4  # Number of independent frames before any answer is given

    def __post_init__(self) -> None:
        for name in ("memory_s", "correlation_s", "most", "temperature"):
            if not getattr(self, name) > 0.0:
                raise UsageError(f"{name} must be more than 0, not {getattr(self, name)}")
        for name in ("outliers", "threshold", "release", "margin"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UsageError(f"{name} must be in 0..1, not {getattr(self, name)}")
        if self.release > self.threshold:
            raise UsageError("release must not be above threshold: answers would come and go")
        if self.dwell_s < 0.0 or self.least < 0.0:
            raise UsageError("dwell_s and least must not be negative")


class OpinionPool:
    """The class probabilities of one individual from all its frames.

    A logarithmic opinion pool (Genest and Zidek, "Combining Probability Distributions: A Critique
    and an Annotated Bibliography", 1986): the weighted mean of the frames' log-probabilities,
    times the number of independent frames that they are worth. A frame's weight is its quality,
    times exp(-age / memory_s), times how new it is: 1 - exp(-gap / correlation_s) after a gap to
    the frame before, so that twice the frame rate is not twice the evidence. What all frames of
    an individual have in common limits the number to `most`, as in a cluster of correlated
    answers (Kish, "Survey Sampling", 1965: the design effect).
    """

    def __init__(self, settings: SmoothingSettings | None = None) -> None:
        self._settings = settings or SmoothingSettings()
        self._sum: Distribution | None = None
        self._weight = 0.0
        self._time = 0.0
        self.count = 0  # frames taken in

    @property
    def evidence(self) -> float:
        """Number of independent good frames that all frames are worth; 0 until there are two."""
        if self.count < 2:
            return 0.0
        most = self._settings.most
        return self._weight * most / (self._weight + most)

    def add(self, probabilities: ArrayLike, time_s: float, quality: float = 1.0) -> None:
        """Take in the answer to one frame: (classes,), not negative, summing to 1.

        A time before the last frame's counts as the same. `quality` is the frame's weight beside
        a good one, more than 0, at most 1.
        """
        settings = self._settings
        given = np.asarray(probabilities, dtype=np.float64)
        mixed = (1.0 - settings.outliers) * given + settings.outliers / given.size
        logs = np.log(np.maximum(mixed, 1e-12))
        self.count += 1
        if self._sum is None:
            # Its full weight for now; the gap to the second frame says how new it was.
            self._sum, self._weight, self._time = quality * logs, quality, time_s
            return
        gap = max(0.0, time_s - self._time)
        news = -math.expm1(-max(gap, 1e-6) / settings.correlation_s)
        if self.count == 2:
            self._sum, self._weight = news * self._sum, news * self._weight
        decay = math.exp(-gap / settings.memory_s)
        self._sum = decay * self._sum + quality * news * logs
        self._weight = decay * self._weight + quality * news
        self._time = max(time_s, self._time)

    def distribution(self) -> Distribution | None:
        """Return the fused distribution, (classes,) float64; None before the first frame."""
        if self._sum is None:
            return None
        # Bad or old frames keep their own probabilities, which are not flattened below one frame.
        worth = max(1.0, self.evidence) / self._settings.temperature
        logs = worth * self._sum / self._weight
        fused = np.exp(logs - logs.max())
        fused /= fused.sum()
        return np.asarray(fused, dtype=np.float64)


class StableAnswer:
    """The answer that is given: it changes only for one that leads clearly, for long enough.

    A Schmitt trigger in time. There is no answer (None) until one class has had `threshold` and
    led by `margin` for `dwell_s`; another class replaces it under the same conditions, and None
    does when its own confidence stays below `release`.
    """

    def __init__(self, settings: SmoothingSettings | None = None) -> None:
        self._settings = settings or SmoothingSettings()
        self._challenger: int | None = None
        self._since: float | None = None
        self.class_id: int | None = None

    def update(self, fused: Distribution, evidence: float, time_s: float) -> int | None:
        """Take in the fused distribution at `time_s`; return the answer, or None.

        `evidence` is the number of independent frames behind it; the clock, in seconds, does not
        run backwards.
        """
        wanted = self._wanted(fused, evidence)
        if wanted == self.class_id:
            self._since = None
            return self.class_id
        if self._since is None or wanted != self._challenger:
            self._challenger, self._since = wanted, time_s
        if time_s - self._since >= self._settings.dwell_s:
            self.class_id, self._since = wanted, None
        return self.class_id

    @property
    def challenged(self) -> bool:
        """Whether another answer may soon replace the present one."""
        return self._since is not None

    def _wanted(self, fused: Distribution, evidence: float) -> int | None:
        settings = self._settings
        best, present = int(np.argmax(fused)), self.class_id
        if best == present:
            return present if fused[best] >= settings.release else None
        if present is not None:
            rival = float(fused[present])
        else:
            rival = float(np.partition(fused, -2)[-2]) if fused.size > 1 else 0.0
        is_clear = fused[best] >= settings.threshold and fused[best] - rival >= settings.margin
        if is_clear and evidence >= settings.least:
            return best
        if present is not None and fused[present] < settings.release:
            return None
        return present


def frame_quality(
    sharpness: float, sharpest: float, size: float, full_size: float, speed: float
) -> float:
    """Return the weight of a frame beside one of a sharp, large, calm individual: 0.05..1.

    `sharpness` (any scale, not negative) is compared with the individual's sharpest so far, and
    `size`, the longer side in pixels, with the side above which more does not help. `speed` is in
    its own sizes a second: motion blurs the marks that tell siblings apart.
    """
    sharp = min(1.0, sharpness / sharpest) if sharpest > 0.0 else 1.0
    large = min(1.0, size / full_size)
    calm = 1.0 / (1.0 + speed**2)
    return max(0.05, math.sqrt(sharp) * large * calm)
