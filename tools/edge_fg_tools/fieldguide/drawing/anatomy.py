"""Where the parts of a bird are: from a genus's proportions and a pose to outlines.

Outlines are in *bird units* (the body is 1 long) with x forward, y down and the origin at the
centre of the body, facing right. The painter maps them to pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from edge_fg_tools.fieldguide.drawing.curves import Points, circle, closed_curve, hull, rotate
from edge_fg_tools.fieldguide.species import Genus, Shape

_CLOSED_WING = (
    *((0.29, -0.06), (0.20, -0.16), (-0.02, -0.20), (-0.34, -0.15), (-0.62, -0.055)),
    *((-0.66, -0.03), (-0.40, 0.03), (-0.12, 0.115), (0.12, 0.115), (0.25, 0.04)),
)
# x, y, and how far up each corner is when the wing is lifted all the way.
_LIFTED_WING = (
    *((0.22, -0.10, 0.0), (0.30, -0.10, 0.42), (0.12, -0.10, 0.92), (-0.10, -0.10, 1.02)),
    *((-0.28, -0.08, 0.66), (-0.30, -0.08, 0.25), (-0.20, -0.02, 0.0), (0.05, 0.02, 0.0)),
)


@dataclass(frozen=True, slots=True)
class Pose:
    """How a bird holds itself."""

    tilt: float  # Angle of the body over the horizontal, in degrees, head up
    head_pitch: float = 0.0  # Angle of the bill over the horizontal, in degrees
    head_turn: float = 0.0  # Turn of the head towards (positive) or away from the viewer, -1..1
    head_shift: float = 0.0  # Displacement of the head along the body, in bird units
    # Angle of the tail relative to the body, in degrees, positive raises it.
    tail_angle: float = 0.0
    fluff: float = 1.0  # Factor on the depth of the body
    foreshorten: float = 1.0  # Factor on horizontal distances: 1 is seen exactly from the side
    # None for a closed wing; else the flapping wing, from -1 (down) to 1 (up).
    wing_lift: float | None = None
    mirror: bool = False  # Whether the bird faces left


@dataclass(frozen=True, slots=True)
class Figure:
    """Outlines of one posed bird, each an array of shape (points, 2) in bird units."""

    body: Points
    trunk: Points
    head: Points
    crest: Points | None
    upper_bill: Points
    lower_bill: Points
    tail: Points
    tail_tip: Points
    tail_edge: Points
    wing: Points
    far_wing: Points | None
    legs: tuple[Points, ...]
    feet: Points
    head_centre: Points
    head_radius: float
    eye: Points
    tilt: float
    head_angle: float
    head_turn: float

    def on_body(self, points: list[tuple[float, float]]) -> Points:
        """Map points given along the body (x forward, y down) to bird units."""
        return rotate(points, self.tilt)

    def on_head(self, points: list[tuple[float, float]]) -> Points:
        """Map points given on the head, in head radii from its centre, to bird units."""
        local = np.array(points, dtype=np.float64)
        local[:, 0] = local[:, 0] * (1.0 - 0.25 * abs(self.head_turn)) - 0.10 * self.head_turn
        return self.head_centre + self.head_radius * rotate(local, self.head_angle)


def random_pose(rng: np.random.Generator, genus: Genus) -> Pose:
    """Draw a pose a bird of `genus` might be photographed in; one in twelve is flapping."""
    flying = rng.random() < 0.08
    pose = Pose(
        tilt=genus.shape.posture + float(rng.normal(0.0, 10.0)),
        head_pitch=float(rng.normal(2.0, 13.0)),
        head_turn=float(rng.uniform(-0.8, 0.8)),
        head_shift=float(rng.normal(0.0, 0.02)),
        tail_angle=float(rng.normal(6.0, 9.0)),
        fluff=float(rng.uniform(0.9, 1.14)),
        foreshorten=float(rng.uniform(0.80, 1.0)),
        mirror=bool(rng.random() < 0.5),
    )
    if flying:
        lift = float(rng.uniform(0.45, 1.0)) * (1.0 if rng.random() < 0.7 else -1.0)
        return replace(pose, wing_lift=lift, tilt=pose.tilt * 0.6)
    return pose


def pose_figure(shape: Shape, pose: Pose) -> Figure:
    """Outline the parts of a bird of proportions `shape` in `pose`."""
    tilt = math.radians(pose.tilt)
    depth = shape.depth * pose.fluff
    body = rotate(_egg(0.5, depth), tilt)
    head_angle = math.radians(pose.head_pitch)
    along = rotate((0.37 + pose.head_shift, -0.02), tilt)
    head_centre = along + np.array([0.03, -0.78 * shape.head])
    head = head_centre + shape.head * circle(24) * np.array([1.04, 0.98])
    neck = rotate((0.16, 0.0), tilt) + 0.93 * depth * circle(24)
    trunk = hull(np.concatenate([neck, head_centre + 0.97 * shape.head * circle(24)]))
    upper, lower = _bill(shape, pose, head_centre, head_angle)
    tail, tip, edge = _tail(shape, pose, tilt)
    wing, far_wing = _wings(pose, tilt)
    legs, feet = _legs(shape, pose, depth, tilt)
    eye = rotate((0.34 - 0.18 * pose.head_turn, -0.14), head_angle)
    return Figure(
        body=body,
        trunk=trunk,
        head=head,
        crest=_crest(shape, head_centre, head_angle) if shape.crest else None,
        upper_bill=upper,
        lower_bill=lower,
        tail=tail,
        tail_tip=tip,
        tail_edge=edge,
        wing=wing,
        far_wing=far_wing,
        legs=legs,
        feet=feet,
        head_centre=head_centre,
        head_radius=shape.head,
        eye=head_centre + shape.head * eye,
        tilt=tilt,
        head_angle=head_angle,
        head_turn=pose.head_turn,
    )


def _egg(half_length: float, half_depth: float) -> Points:
    """Outline of a body: an ellipse that is fuller in front."""
    unit = circle(32)
    fullness = 1.0 + 0.16 * unit[:, 0] - 0.10 * unit[:, 0] ** 2
    return np.stack([half_length * unit[:, 0], half_depth * unit[:, 1] * fullness], axis=1)


def _bill(shape: Shape, pose: Pose, centre: Points, angle: float) -> tuple[Points, Points]:
    length = shape.bill_length * (1.0 - 0.35 * abs(pose.head_turn))
    root, half = 0.84 * shape.head, 0.5 * shape.bill_depth
    tip = (shape.head + length, 0.10 * shape.head)
    middle = (root + 0.55 * (tip[0] - root), 0.04 * shape.head)
    upper = [(root, -half), (middle[0], -0.62 * half), tip, middle, (root, 0.1 * half)]
    short = (tip[0] - 0.12 * length, tip[1])
    lower = [(root, 0.1 * half), middle, short, (middle[0], middle[1] + 0.55 * half), (root, half)]
    return centre + rotate(upper, angle), centre + rotate(lower, angle)


def _tail(shape: Shape, pose: Pose, tilt: float) -> tuple[Points, Points, Points]:
    angle = 0.85 * tilt - math.radians(pose.tail_angle)
    base = rotate((-0.40, -0.03), tilt)
    length, half = shape.tail_length, shape.tail_width
    notch = -length + shape.tail_fork
    tail = [(0.10, -0.085), (-length, -half), (notch, 0.0), (-length, half), (0.10, 0.085)]
    cut = 0.13
    inner = half + (0.085 - half) * cut / (length + 0.1)
    tip = [*tail[1:4], (-length + cut, inner), (notch + cut, 0.0), (-length + cut, -inner)]
    edge = [(-0.02, 0.088), (-length, half), (-length, 0.55 * half), (-0.02, 0.05)]
    return base + rotate(tail, angle), base + rotate(tip, angle), base + rotate(edge, angle)


def _wings(pose: Pose, tilt: float) -> tuple[Points, Points | None]:
    lift = pose.wing_lift
    if lift is None:
        return closed_curve(rotate(_CLOSED_WING, tilt)), None
    near = rotate([(x, y - reach * lift) for x, y, reach in _LIFTED_WING], tilt)
    far = near * np.array([1.0, 0.92]) + np.array([0.13, -0.03])
    return closed_curve(near), closed_curve(far)


def _crest(shape: Shape, centre: Points, angle: float) -> Points:
    tip = (-0.95, -0.85 - shape.crest / shape.head)
    local = [(0.62, -0.72), (0.0, -1.02), tip, (-0.86, -0.72), (-0.95, -0.2), (0.0, -0.3)]
    return centre + shape.head * rotate(local, angle)


def _legs(shape: Shape, pose: Pose, depth: float, tilt: float) -> tuple[tuple[Points, ...], Points]:
    hip = rotate((0.0, 0.72 * depth), tilt)
    ground = hip[1] + 0.28 * depth + shape.leg
    feet = np.array([hip[0] + 0.03, ground])
    if pose.wing_lift is not None:
        return (), feet
    legs = []
    for offset in (0.09, -0.03):
        knee = hip + np.array([offset, 0.0])
        foot = np.array([knee[0] + 0.02, ground])
        toe = foot + np.array([0.085, 0.012])
        hind = foot + np.array([-0.05, 0.012])
        legs.append(np.array([knee, foot, toe, foot, hind]))
    return tuple(legs), feet
