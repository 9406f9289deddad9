"""Visits on the clip that comes with edge_fg, against its truth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import edge_fg
from edge_fg.result import Sighting, VisitEvent
from edge_fg.sources import Frame
from edge_fg_tools import fieldguide
from edge_fg_tools.building import BuildOptions, build
from support.visit_score import (
    VisitScore,
    clip_frames,
    follow_clip,
    score_visits,
    true_visits,
)

pytest.importorskip("cv2", reason="the extra opencv is not installed")
pytest.importorskip("onnxruntime", reason="the extra cpu is not installed")

# Those after 9 took no part in choosing any setting but one: what is enough in the dark.
SEEDS = (1, 2, 3, 4, 5, 10, 11, 12)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory):
    """The reference model in a bundle of its float32 graph alone."""
    folder = tmp_path_factory.mktemp("reference")
    fieldguide.write_image_set(folder / "photographs", 1, 20_000)
    options = BuildOptions(
        model=fieldguide.model_path(),
        labels=fieldguide.labels_path(),
        calibration=folder / "photographs" / "images.csv",
        output=folder / "fieldguide.edgefg",
        preprocess=str(fieldguide.preprocess_path()),
        precisions=("fp32",),
        cache=False,
    )
    build(options)
    with edge_fg.load(options.output, backend="onnxruntime", threads=1) as loaded:
        yield loaded


def check(score: VisitScore) -> None:
    assert len(score.pairs) == 6
    assert score.precision >= 0.9
    assert score.recall >= 0.9
    assert score.species_share >= 0.9
    # The model alone, on single frames, is wrong more often.
    assert score.single_frames > 50
    assert score.single_share < 1.0
    assert score.classified < 0.5 * score.frames


def test_visits_of_the_encoded_clip_are_reported_as_they_happened(classifier, tmp_path: Path):
    clip, lines = tmp_path / "clip.mp4", tmp_path / "truth.jsonl"
    fieldguide.write_clip(clip, lines)
    truth = [as_truth(json.loads(line)) for line in lines.read_text().splitlines()]
    with edge_fg.open_source(clip) as source:
        score = follow_clip(((frame, truth[frame.number]) for frame in source), classifier)
    check(score)
    assert score.species_share > score.single_share


def as_truth(line: dict) -> fieldguide.FrameTruth:
    birds = tuple(
        fieldguide.BirdTruth(bird["index"], bird["label"], tuple(bird["box_xywh"]), bird["flying"])
        for bird in line["birds"]
    )
    return fieldguide.FrameTruth(line["frame"], line["time_s"], birds)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_visits_of_other_clips_are_reported_as_they_happened(classifier, seed):
    check(follow_clip(clip_frames(seed), classifier))


def test_the_clip_without_its_birds_has_no_visit(classifier):
    def empty():
        for frame, truth in clip_frames(1):
            if truth.frame == 45:
                return
            no_bird = fieldguide.FrameTruth(truth.frame, truth.time_s, ())
            # The feeder before the first bird, over and over, in its changing light.
            yield Frame(frame.image, truth.frame, "clip", position=truth.time_s), no_bird

    frames = [pair for pair in empty() if pair[0].number < 12]
    looped = [
        (Frame(f.image, 12 * turn + f.number, "clip", position=(12 * turn + f.number) / 15), t)
        for turn in range(5)
        for f, t in frames
    ]
    score = follow_clip(looped, classifier)
    assert (score.pairs, score.false_reports, score.classified) == ((), (), 0)
    assert (score.precision, score.recall) == (1.0, 1.0)


BOX = (100, 100, 50, 50)
AWAY = (400, 100, 50, 50)


def truth_of(label: str, frames: range, box=BOX) -> list[fieldguide.FrameTruth]:
    bird = fieldguide.BirdTruth(fieldguide.LABELS.index(label), label, box, flying=False)
    return [fieldguide.FrameTruth(k, k / 15, (bird,) if k in frames else ()) for k in range(100)]


def reported(name: str, label: str | None) -> VisitEvent:
    index = None if label is None else fieldguide.LABELS.index(label)
    return VisitEvent(
        "visit_ended",
        name,
        "clip",
        label,
        index,
        None,
        None,
        1,
        0.0,
        1.0,
        None,
        None,
        BOX,
        1.0,
        None,
    )


def seen(track: int, frames: range, box=BOX) -> list[tuple[int, Sighting]]:
    return [(k, Sighting(track, box, None)) for k in frames]


ONE, OTHER = fieldguide.LABELS[:2]


@pytest.mark.parametrize(
    ("events", "sightings", "expected"),
    [
        ([reported("1-1", ONE)], seen(1, range(20, 60)), (1.0, 1.0, 1.0)),
        ([reported("1-1", OTHER)], seen(1, range(20, 60)), (1.0, 1.0, 0.0)),
        ([reported("1-1", None)], seen(1, range(20, 60)), (1.0, 1.0, 0.0)),
        ([], [], (1.0, 0.0, 0.0)),
        ([reported("1-1", ONE)], seen(1, range(20, 60), AWAY), (0.0, 0.0, 0.0)),
        ([reported("1-1", ONE)], seen(1, range(20, 35)), (0.0, 0.0, 0.0)),
        (
            [reported("1-1", ONE), reported("1-2", ONE)],
            seen(1, range(20, 60)) + seen(2, range(20, 60), AWAY),
            (0.5, 1.0, 1.0),
        ),
    ],
    ids=["right", "species", "undecided", "missed", "elsewhere", "too short", "false report"],
)
def test_reported_visits_are_scored(events, sightings, expected):
    score = score_visits(truth_of(ONE, range(20, 60)), events, sightings)
    assert (score.precision, score.recall, score.species_share) == expected


def test_a_species_that_comes_back_later_is_another_visit():
    first, again = truth_of(ONE, range(20)), truth_of(ONE, range(60, 80))
    both = [a if a.birds else b for a, b in zip(first, again, strict=True)]
    assert [sorted(visit.boxes)[0] for visit in true_visits(both)] == [0, 60]
    assert np.array_equal([len(visit.boxes) for visit in true_visits(both)], [20, 20])
