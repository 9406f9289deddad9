"""The light on a scene: a gain and an offset of each channel, fitted to what is seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]

_GAINS = (0.1, 10.0)


@dataclass(frozen=True)
class Light:
    """Gain and offset of each channel, (channels,), that turn the scene into what is seen now."""

    gain: NDArray[np.float32]
    offset: NDArray[np.float32]

    @property
    def scale(self) -> float:
        """Grey levels now that are worth one of the scene's."""
        return float(self.gain.max())

    @classmethod
    def unchanged(cls, channels: int) -> Light:
        """Return the light of the scene itself."""
        return cls(np.ones(channels, np.float32), np.zeros(channels, np.float32))

    def apply(self, scene: Image) -> Image:
        """Return what a part of the scene, (..., channels), looks like now, 0..255."""
        seen: Image = scene * self.gain + self.offset
        np.clip(seen, 0.0, 255.0, out=seen)
        return seen

    def column(self, scene: Image) -> Image:
        """Return what pixels of the scene, (channels, pixels), look like now."""
        seen: Image = scene * self.gain[:, np.newaxis] + self.offset[:, np.newaxis]
        return seen

    def undo(self, seen: Image) -> Image:
        """Return what is seen now, (..., channels), in the light of the scene."""
        scene: Image = (seen - self.offset) / self.gain
        return scene


def fit_light(scene: Image, seen: Image, previous: Light) -> Light:
    """Fit seen = gain * scene + offset by least trimmed squares, from the better of two starts.

    Concentration steps after Rousseeuw and Van Driessen, "Computing LTS regression for large data
    sets" (2006): refit to the half of the pixels that fit best. `scene` and `seen` are
    (channels, pixels).
    """
    unclipped = ((seen > 2.0) & (seen < 253.0)).all(axis=0)
    if unclipped.mean() > 0.25:
        scene, seen = scene[:, unclipped], seen[:, unclipped]
    everything = np.ones(scene.shape, dtype=np.float32)
    fit = _better(scene, seen, previous, _least_squares(scene, seen, everything))
    for _ in range(2):
        off = np.abs(seen - fit.column(scene))
        limit = np.maximum(np.median(off, axis=1, keepdims=True), 0.5)
        fit = _least_squares(scene, seen, (off <= limit).astype(np.float32))
    return _better(scene, seen, previous, fit)


def _better(scene: Image, seen: Image, one: Light, other: Light) -> Light:
    """Return, channel by channel, the one of two that leaves the smaller median error."""
    off = [np.median(np.abs(seen - light.column(scene)), axis=1) for light in (one, other)]
    first = off[0] <= off[1]
    return Light(np.where(first, one.gain, other.gain), np.where(first, one.offset, other.offset))


def _least_squares(scene: Image, seen: Image, weight: Image) -> Light:
    total = weight.sum(axis=1)
    mean_scene = (weight * scene).sum(axis=1) / total
    mean_seen = (weight * seen).sum(axis=1) / total
    spread = weight * (scene - mean_scene[:, np.newaxis])
    variance = (spread * scene).sum(axis=1) / total
    product = (spread * seen).sum(axis=1) / total
    # A scene of one grey can't give a gain: all of a change is then taken for an offset.
    gain = np.where(variance < 4.0, 1.0, np.clip(product / np.maximum(variance, 4.0), *_GAINS))
    return Light(gain, mean_seen - gain * mean_scene)
