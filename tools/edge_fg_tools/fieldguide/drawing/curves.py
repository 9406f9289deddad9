"""Outlines as arrays of points: smooth curves, circles, turning and hulls."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]
"""Points of shape (n, 2): x and y."""


def closed_curve(points: Points, steps: int = 5) -> Points:
    """Smooth closed outline (Catmull-Rom spline) through `points`: `steps` points for each."""
    neighbours = np.stack(
        [np.roll(points, 1, 0), points, np.roll(points, -1, 0), np.roll(points, -2, 0)]
    )
    curve: Points = np.einsum("sk,knd->nsd", _spline_basis(steps), neighbours)
    return curve.reshape(-1, 2)


def open_curve(points: Points, steps: int = 5) -> Points:
    """Smooth open line through `points`, shape (n, 2), as Catmull-Rom spline."""
    padded = np.concatenate([points[:1], points, points[-1:]])
    neighbours = np.stack([padded[:-3], padded[1:-2], padded[2:-1], padded[3:]])
    curve = np.einsum("sk,knd->nsd", _spline_basis(steps), neighbours).reshape(-1, 2)
    return np.concatenate([curve, points[-1:]])


@lru_cache(maxsize=8)
def _spline_basis(steps: int) -> NDArray[np.float64]:
    t = np.arange(steps) / steps
    columns = [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2]
    basis: NDArray[np.float64] = 0.5 * np.stack(columns, axis=1)
    basis.setflags(write=False)
    return basis


@lru_cache(maxsize=8)
def circle(count: int) -> Points:
    """`count` points around a circle of radius 1; read-only."""
    angle = np.arange(count) * (2.0 * math.pi / count)
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points.setflags(write=False)
    return points


def rotate(points: ArrayLike, angle: float) -> Points:
    """Turn points, or one point, so that forward (+x) rises by `angle` radians (y points down)."""
    cosine, sine = math.cos(angle), math.sin(angle)
    turned: Points = np.asarray(points, np.float64) @ np.array([[cosine, -sine], [sine, cosine]])
    return turned


def hull(points: Points) -> Points:
    """Convex hull (monotone chain), for the line from head over neck to body."""
    ordered = sorted((float(x), float(y)) for x, y in points)

    def half(sequence: list[tuple[float, float]]) -> list[tuple[float, float]]:
        chain: list[tuple[float, float]] = []
        for x, y in sequence:
            while len(chain) > 1:
                (ax, ay), (bx, by) = chain[-2:]
                if (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0:
                    break
                chain.pop()
            chain.append((x, y))
        return chain[:-1]

    return np.array(half(ordered) + half(ordered[::-1]))
