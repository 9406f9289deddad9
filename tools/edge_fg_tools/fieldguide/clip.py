"""The demo clip: birds come to a feeder, move about and leave, with the truth for every frame."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_fg.errors import OutputError
from edge_fg.files import write_atomically
from edge_fg.opencv import load_cv2
from edge_fg_tools.fieldguide.dataset import LABELS
from edge_fg_tools.fieldguide.drawing.anatomy import Pose
from edge_fg_tools.fieldguide.drawing.feeder import CLIP_WH, PERCH_Y, paint_feeder
from edge_fg_tools.fieldguide.drawing.individual import Individual, draw_individual
from edge_fg_tools.fieldguide.drawing.optics import expose, grain
from edge_fg_tools.fieldguide.drawing.painter import paint_bird
from edge_fg_tools.fieldguide.species import GENERA, SPECIES

CLIP_FPS = 15
CLIP_FRAMES = 300

_FLIGHT_S = 0.55
_BODY_PX = 138.0
# Start and end of each visit in seconds and where it perches: one at a time, except once.
_PLAN: tuple[tuple[float, float, float], ...] = (
    (0.9, 4.0, 330.0),
    (4.6, 7.3, 300.0),
    (7.9, 11.0, 200.0),
    (9.2, 12.6, 455.0),
    (13.1, 15.6, 350.0),
    (16.1, 18.9, 310.0),
)


@dataclass(frozen=True, slots=True)
class BirdTruth:
    """One bird in one frame."""

    # Its class, see `LABELS`.
    index: int
    label: str
    # Left, top, width and height of its visible part, in pixels.
    box_xywh: tuple[int, int, int, int]
    flying: bool  # Whether it is coming or leaving (True) or perched (False)


@dataclass(frozen=True, slots=True)
class FrameTruth:
    """What one frame shows: its number, its time in seconds and the birds in view."""

    frame: int
    time_s: float
    birds: tuple[BirdTruth, ...]


@dataclass(frozen=True, slots=True)
class _Visit:
    index: int
    individual: Individual
    arrives: float
    leaves: float
    perch_x: float
    from_left: bool
    to_left: bool
    phases: tuple[float, ...]


def render_clip(seed: int) -> Iterator[tuple[NDArray[np.uint8], FrameTruth]]:
    """Render the clip: 300 frames at 15 a second, uint8 (360, 640, 3) BGR, and what each shows.

    The seed (0 or more) chooses the species, their looks, the garden and the small movements; the
    same one gives the same frames (with the same numpy and Pillow).
    """
    rng = np.random.default_rng([seed, 1976])
    feeder = paint_feeder(rng)
    visits = _plan_visits(rng)
    for number in range(CLIP_FRAMES):
        time_s = number / CLIP_FPS
        image = feeder.copy()
        birds = [
            truth
            for visit in visits
            if visit.arrives <= time_s < visit.leaves
            and (truth := _add_visitor(image, visit, time_s)) is not None
        ]
        light = 1.0 + 0.035 * math.sin(0.9 * time_s) + 0.02 * math.sin(2.3 * time_s)
        image = expose(image, gain=light, gamma=1.0, balance=np.ones(3))
        image = grain(image, rng, sigma=2.5)
        frame = np.ascontiguousarray(np.asarray(image, dtype=np.uint8)[..., ::-1])
        yield frame, FrameTruth(number, time_s, tuple(birds))


def write_clip(path: str | Path, truth_path: str | Path, seed: int = 0) -> int:
    """Encode the clip as MP4 (MPEG-4 part 2), write its truth as JSON lines, and count its frames.

    Each line is ``{"frame": n, "time_s": t, "birds": [{"index", "label", "box_xywh", "flying"}]}``.
    Raises MissingDependencyError where OpenCV is not installed, OutputError where the files can't
    be written or this OpenCV can't encode.
    """
    cv2 = load_cv2("encode the demo clip")
    path = Path(path)
    # OpenCV picks the container from the name's end, so the suffix stays last.
    partial = path.with_name(f".{path.stem}.partial.mp4")
    code = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(partial), code, float(CLIP_FPS), CLIP_WH)
    if not writer.isOpened():
        raise OutputError(f"can't encode {path}: is the folder there, and can OpenCV write mp4v?")
    lines = []
    try:
        for frame, truth in render_clip(seed):
            writer.write(frame)
            birds = [asdict(bird) for bird in truth.birds]
            time_s = round(truth.time_s, 4)
            lines.append(json.dumps({"frame": truth.frame, "time_s": time_s, "birds": birds}))
    finally:
        writer.release()
    os.replace(partial, path)
    write_atomically(Path(truth_path), "\n".join(lines) + "\n")
    return len(lines)


def _plan_visits(rng: np.random.Generator) -> list[_Visit]:
    """Choose who comes when: five genera, and at last a sibling of the first visitor."""
    genera = rng.permutation(len(GENERA))[: len(_PLAN) - 1].tolist()
    chosen = []
    for genus in [*genera, genera[0]]:
        kin = [i for i, species in enumerate(SPECIES) if species.genus is GENERA[genus]]
        kin = [index for index in kin if index not in chosen]
        chosen.append(kin[int(rng.integers(len(kin)))])
    visits = []
    for index, (arrives, leaves, perch_x) in zip(chosen, _PLAN, strict=True):
        from_left = bool(perch_x < 320.0) if abs(perch_x - 320.0) > 60 else bool(rng.random() < 0.5)
        visits.append(
            _Visit(
                index=index,
                individual=draw_individual(SPECIES[index], rng),
                arrives=arrives + float(rng.uniform(-0.15, 0.15)),
                leaves=leaves + float(rng.uniform(-0.15, 0.15)),
                perch_x=perch_x + float(rng.uniform(-15.0, 15.0)),
                from_left=from_left,
                to_left=bool(rng.random() < 0.5) if abs(perch_x - 320.0) < 60 else from_left,
                phases=tuple(rng.uniform(0.0, 2.0 * math.pi, 4).tolist()),
            )
        )
    return visits


def _add_visitor(image: Image.Image, visit: _Visit, time_s: float) -> BirdTruth | None:
    """Paint a visitor where it is at `time_s`; None where nothing of it is in view."""
    pose, offset = _behaviour(visit, time_s)
    size = visit.individual.species.genus.shape.size
    bird = paint_bird(visit.individual, pose, _BODY_PX * size**0.5)
    left = round(visit.perch_x + offset[0] - bird.feet_xy[0])
    top = round(PERCH_Y + offset[1] - bird.feet_xy[1])
    image.paste(bird.image, (left, top), bird.mask)
    covered = bird.mask.getbbox()
    if covered is None:
        return None
    x0, y0 = max(0, left + covered[0]), max(0, top + covered[1])
    x1, y1 = min(CLIP_WH[0], left + covered[2]), min(CLIP_WH[1], top + covered[3])
    if x1 - x0 < 4 or y1 - y0 < 4:
        return None
    flying = pose.wing_lift is not None
    return BirdTruth(visit.index, LABELS[visit.index], (x0, y0, x1 - x0, y1 - y0), flying)


def _behaviour(visit: _Visit, time_s: float) -> tuple[Pose, tuple[float, float]]:
    """Pose at `time_s`, and the displacement from the perch in pixels."""
    posture = visit.individual.species.genus.shape.posture
    since, left = time_s - visit.arrives, visit.leaves - time_s
    if since < _FLIGHT_S or left < _FLIGHT_S:
        coming = since < _FLIGHT_S
        away = 1.0 - (since if coming else left) / _FLIGHT_S
        away = away * away if coming else away**1.6
        leftward = visit.from_left if coming else visit.to_left
        lift = 0.25 + 0.75 * math.cos(2.0 * math.pi * 4.3 * time_s + visit.phases[0])
        pose = Pose(
            tilt=0.6 * posture,
            tail_angle=8.0,
            wing_lift=max(-0.9, lift) if abs(lift) > 0.2 else 0.25,
            mirror=not visit.from_left if coming else visit.to_left,
        )
        return pose, ((-1.0 if leftward else 1.0) * 520.0 * away, -190.0 * away)
    wave = [
        math.sin(rate * since + p)
        for rate, p in zip((1.9, 3.1, 0.8), visit.phases[1:], strict=True)
    ]
    peck = max(0.0, math.sin(2.4 * since + visit.phases[0]) - 0.72) / 0.28
    pose = Pose(
        tilt=posture + 3.0 * wave[0] - 26.0 * peck,
        head_pitch=4.0 * wave[1] - 34.0 * peck,
        head_turn=0.55 * wave[2],
        tail_angle=5.0 + 4.0 * wave[1] - 8.0 * peck,
        fluff=1.0 + 0.02 * wave[0],
        mirror=not visit.from_left,
    )
    return pose, (0.0, 0.0)
