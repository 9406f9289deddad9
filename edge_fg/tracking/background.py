"""The background model: what a fixed camera sees while no visitor is there."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_fg.errors import UsageError
from edge_fg.opencv import load_cv2
from edge_fg.tracking.light import Image, Light, fit_light

Mask = NDArray[np.bool_]

_FITTED_PIXELS = 700
# Grey levels that the sensor's noise may reach in a small, blurred image.
_DARKEST = 5.0
# Fraction of the frame's longer side by which a shaken camera may have moved.
_FARTHEST_SHIFT = 0.06
# Share of an 8 x 8 grid's cells in which something differs when all of the frame moved.
_SPREAD = 0.25


@dataclass(frozen=True)
class BackgroundSettings:
    """How a scene is learnt."""

    # Grey levels, 0..255, by which a pixel must differ, once the light is compensated.
    threshold: float = 15.0
    # Where it is dark, a difference of this share of the scene's own brightness is enough.
    contrast: float = 0.14
    noise: float = 4.0  # And by this many of its own mean deviations: moving leaves always deviate
    learn_s: float = 5.0  # Time constant, in seconds, of slow changes where no visitor is
    # Seconds after which an object that does not move at all belongs to the scene.
    absorb_s: float = 120.0
    # Share of the frame, 0..1, that no visitor fills: if more differs, the scene itself has changed
    # and is learnt again.
    global_share: float = 0.5
    # Seconds in which the scene is learnt, at the start and whenever it changed.
    warm_up_s: float = 0.4

    def __post_init__(self) -> None:
        for name in ("threshold", "contrast", "noise", "learn_s", "absorb_s"):
            if not getattr(self, name) > 0.0:
                raise UsageError(f"{name} must be more than 0, not {getattr(self, name)}")
        if not 0.0 < self.global_share <= 1.0 or self.warm_up_s < 0.0:
            raise UsageError("global_share must be in 0..1 and warm_up_s not negative")


class Background:
    """Model of the empty scene: one image, how much each pixel deviates, and the light.

    The image is kept in the light of its first frames, and each frame's light is fitted to it
    as a gain and an offset of each channel: an exposure step changes two numbers and no pixel of
    the model. Where an object is, the model does not change, so a bird that sits for a minute
    neither fades nor leaves a hole. An object that has not moved at all for `absorb_s` becomes
    part of the scene as a whole. (Mixture models such as MOG2, Zivkovic 2004, take a still bird
    into the background within their history, and see an exposure step everywhere.)

    All images are (height, width, channels) float32, 0..255, of the same shape as the first.
    """

    def __init__(self, settings: BackgroundSettings, image: Image) -> None:
        self._settings = settings
        self._cv2 = load_cv2("find motion")
        self.scene = image.copy()
        self.light = Light.unchanged(image.shape[2])  # that of the last image
        self._deviation = np.full(image.shape[:2], 1.0, dtype=np.float32)
        self._last = image.copy()
        self._still = np.zeros(image.shape[:2], dtype=np.float32)
        self._mask = np.zeros(image.shape[:2], dtype=np.bool_)
        self._limit = np.zeros(image.shape[:2], dtype=np.float32)
        self._age = 0.0  # seconds
        self._frames = 0
        self.shift_xy = (0.0, 0.0)  # small pixels by which the last image was moved

    @property
    def settled(self) -> bool:
        """Whether the scene is known well enough to find differences."""
        return self._age >= self._settings.warm_up_s and self._frames >= 3

    def compare(self, image: Image) -> tuple[Image, Mask]:
        """Return the image, moved back by the camera's shake and in the scene's light, and a mask.

        The mask, (height, width), is True where something else than the scene is seen.
        """
        self.light = self._fit_light(image)
        self.shift_xy = (0.0, 0.0)
        aligned = self.light.undo(image)
        mask = self._differs(image)
        if self._is_everywhere(mask):
            aligned, mask = self._unshake(image, aligned, mask)
        self._mask = mask
        return aligned, mask

    def learn(self, aligned: Image, occupied: Mask, dt: float) -> None:
        """Update the scene where no object is, `dt` seconds after the frame before.

        `aligned` is what `compare` returned; `occupied`, (height, width), is True where an object
        is.
        """
        settings = self._settings
        self._frames += 1
        self._age += dt
        rate = 1.0 - np.exp(-dt / settings.learn_s)
        if not self.settled:
            rate = max(rate, 1.0 / self._frames)
            occupied = np.zeros_like(occupied)
        step = np.where(occupied, np.float32(0.0), np.float32(rate))
        off = aligned - self.scene
        self.scene += step[..., np.newaxis] * off
        size = largest(np.abs(off)) * self.light.scale
        self._deviation += step * (size - self._deviation)
        changed = largest(np.abs(aligned - self._last)) * self.light.scale > self._limit
        np.copyto(self._last, aligned, where=changed[..., np.newaxis])
        self._still += np.float32(dt)
        self._still[changed] = 0.0

    def still_s(self, mask: Mask) -> float:
        """Return for how many seconds nine tenths of a masked part have not changed."""
        return float(np.quantile(self._still[mask], 0.1)) if mask.any() else 0.0

    def absorb(self, aligned: Image, mask: Mask) -> None:
        """Make what is seen in a masked part a part of the scene."""
        self.scene[mask] = aligned[mask]
        self._still[mask] = 0.0

    def _differs(self, image: Image) -> Mask:
        """Return where an image is outside what the scene shows within a pixel around.

        The pixel around forgives what is left of shake, and leaves that move a little.
        """
        expected = self.light.apply(self.scene)
        around = np.ones((3, 3), dtype=np.uint8)
        low = self._cv2.erode(expected, around).reshape(expected.shape)
        high = self._cv2.dilate(expected, around).reshape(expected.shape)
        off = largest(np.maximum(image - high, low - image))
        limit = np.clip(
            self._settings.contrast * grey(expected), _DARKEST, self._settings.threshold
        )
        self._limit = np.maximum(limit, self._settings.noise * self._deviation)
        mask: Mask = off > self._limit
        return mask

    def _is_everywhere(self, mask: Mask) -> bool:
        """Whether what differs is spread over the frame, as edges are that shook."""
        cells = self._cv2.resize(
            mask.astype(np.float32), (8, 8), interpolation=self._cv2.INTER_AREA
        )
        return float((cells > 0.0).mean()) > _SPREAD

    def _unshake(self, image: Image, aligned: Image, mask: Mask) -> tuple[Image, Mask]:
        """Undo a shift of the whole image, if that explains most of what differs."""
        height, width = mask.shape
        if min(height, width) < 16:
            return aligned, mask
        before, now = grey(self.scene), grey(aligned)
        window = self._cv2.createHanningWindow((width, height), self._cv2.CV_32F)
        (dx, dy), _ = self._cv2.phaseCorrelate(before, now, window)
        if not 0.2 < float(np.hypot(dx, dy)) < _FARTHEST_SHIFT * max(height, width):
            return aligned, mask
        matrix = np.array([[1.0, 0.0, dx], [0.0, 1.0, dy]], dtype=np.float32)
        flags = self._cv2.INTER_LINEAR | self._cv2.WARP_INVERSE_MAP
        moved = self._cv2.warpAffine(
            image, matrix, (width, height), flags=flags, borderMode=self._cv2.BORDER_REPLICATE
        ).reshape(image.shape)
        after = self._differs(moved)
        # A large visitor drags the estimate along: a shift counts only if the rest then fits.
        if after.mean() > 0.6 * mask.mean():
            return aligned, mask
        self.shift_xy = (float(dx), float(dy))
        return self.light.undo(moved), after

    def _fit_light(self, image: Image) -> Light:
        """Fit each channel's gain and offset to the part of the image that shows the scene."""
        step = max(1, int(np.sqrt(image.shape[0] * image.shape[1] / _FITTED_PIXELS)))
        free = ~self._mask[::step, ::step]
        if free.mean() < 0.2:
            free = np.ones_like(free)
        scene = np.ascontiguousarray(self.scene[::step, ::step][free].T)
        seen = np.ascontiguousarray(image[::step, ::step][free].T)
        return fit_light(scene, seen, self.light)


def largest(image: Image) -> Image:
    """Return each pixel's largest channel; numpy's own reduction is slow on so short an axis."""
    found: Image = functools.reduce(np.maximum, np.moveaxis(image, -1, 0))
    return found


def grey(image: Image) -> Image:
    """Return the mean of each pixel's channels."""
    mean: Image = functools.reduce(np.add, np.moveaxis(image, -1, 0)) / np.float32(image.shape[2])
    return mean
