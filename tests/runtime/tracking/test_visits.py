"""Visits: who came, what it is, when it left."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

import edge_fg
from edge_fg.errors import UsageError
from edge_fg.sources import Frame
from edge_fg.tracking.smoothing import SmoothingSettings
from edge_fg.tracking.track import Detection
from edge_fg.tracking.visits import VisitFollower, VisitSettings, follow_visits
from support.properties import sweep

pytest.importorskip("cv2", reason="the extra opencv is not installed")

FPS = 10
SIZE_WH = (320, 180)
LEFT, RIGHT = (40, 60, 40, 40), (220, 60, 40, 40)
PIXELS = np.random.default_rng(0).integers(0, 256, (180, 320, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Name:
    label: str


LABELS = [Name("Little Owl"), Name("Great Tit"), Name("background")]


@dataclass(frozen=True, eq=False)
class Answer:
    probabilities: np.ndarray
    labels = LABELS


def says(*weights: float) -> Answer:
    return Answer(np.array(weights, np.float32))


OWL, TIT, NOTHING = says(0.9, 0.08, 0.02), says(0.08, 0.9, 0.02), says(0.03, 0.02, 0.95)
TORN = says(0.5, 0.47, 0.03)


class Stage:
    """Plays a script: what a detector sees on each frame, and what the model says of it."""

    def __init__(self, settings: VisitSettings | None = None, *, start: float = 0.0, **more):
        self.boxes: list = []
        self.follower = VisitFollower(settings, regions=lambda frame: self.boxes, **more)
        self.time = start
        self.number = 0
        self.asked = 0
        self.events: list = []
        self.sightings: list = []

    def frame(self) -> Frame:
        return Frame(PIXELS, self.number, "yard", position=self.time)

    def play(self, seconds: float, *actors) -> Stage:
        """Show (box, answer) pairs for some time."""
        for _ in range(round(seconds * FPS)):
            self.boxes = [box for box, _ in actors]
            frame = self.frame()
            regions = self.follower.propose(frame)
            answers = [self.answer(region, actors) for region in regions]
            self.asked += len(regions)
            seen, events = self.follower.update(frame, regions, answers)
            self.sightings.append(seen)
            self.events += events
            self.time += 1 / FPS
            self.number += 1
        return self

    def answer(self, region, actors) -> Answer:
        middle = region[0] + region[2] / 2
        return min(actors, key=lambda actor: abs(actor[0][0] + actor[0][2] / 2 - middle))[1]

    def end(self) -> list:
        self.events += self.follower.finish()
        return self.events

    @property
    def told(self) -> list[tuple[str, str, str | None]]:
        return [(event.kind, event.visit, event.label) for event in self.events]


def test_nobody_is_there_and_nothing_is_asked():
    stage = Stage().play(5)
    assert stage.end() == []
    assert stage.asked == 0
    assert not any(stage.sightings)


def test_one_comes_and_goes():
    stage = Stage().play(1).play(4, (LEFT, OWL)).play(4)
    assert stage.told == [
        ("visit_started", "1-1", "Little Owl"),
        ("visit_ended", "1-1", "Little Owl"),
    ]
    started, ended = stage.events
    assert started.source == "yard"
    assert started.confidence > 0.6
    assert (ended.class_id, ended.runner_up) == (0, "Great Tit")
    assert ended.started_s == pytest.approx(1.0)
    assert ended.ended_s == pytest.approx(4.9)
    assert ended.frames == 40
    assert ended.region_xywh == LEFT
    assert ended.started_at is None
    assert ended.to_dict()["event"] == "visit_ended"
    seen = [sighting for seen in stage.sightings for sighting in seen]
    assert {(s.track, s.region_xywh) for s in seen} == {(1, LEFT)}
    assert (seen[0].label, seen[-1].label) == (None, "Little Owl")


def test_a_settled_answer_is_checked_only_now_and_then():
    stage = Stage(VisitSettings(full_size=40.0)).play(5, (LEFT, OWL))
    busy = stage.asked
    stage.play(10, (LEFT, OWL))
    assert 9 <= stage.asked - busy <= 11
    assert sum(sighting.prediction is not None for s in stage.sightings for sighting in s) == (
        stage.asked
    )
    eager = Stage(VisitSettings(ask_s=0.0, recheck_s=0.0)).play(12, (LEFT, OWL))
    assert eager.asked == 118


def test_who_can_not_be_told_apart_stays_undecided_until_the_last_guess():
    stage = Stage(VisitSettings(undecided_s=2.0)).play(5, (LEFT, TORN))
    assert stage.told == [("visit_started", "1-1", None)]
    assert (stage.events[0].class_id, stage.events[0].confidence) == (None, None)
    assert stage.events[0].runner_up == "Little Owl"
    stage.end()
    assert stage.told[-1] == ("visit_ended", "1-1", "Little Owl")
    assert 0.5 <= stage.events[-1].confidence < 0.6
    unsure = Stage(VisitSettings(final=0.9)).play(5, (LEFT, TORN))
    assert unsure.end()[-1].label is None


def test_a_changed_mind_is_told_once_and_is_no_new_visit():
    stage = Stage().play(3, (LEFT, TIT)).play(12, (LEFT, OWL))
    assert stage.told == [
        ("visit_started", "1-1", "Great Tit"),
        ("visit_updated", "1-1", "Little Owl"),
    ]
    assert [kind for kind, _, _ in stage.told].count("visit_updated") == 1


def test_a_single_wrong_frame_changes_nothing():
    stage = Stage(VisitSettings(recheck_s=0.1)).play(3, (LEFT, OWL)).play(0.1, (LEFT, TIT))
    stage.play(2, (LEFT, OWL))
    assert stage.told == [("visit_started", "1-1", "Little Owl")]


def test_what_the_model_holds_for_nothing_is_no_visit():
    stage = Stage().play(6, (LEFT, NOTHING))
    assert stage.end() == []
    longer = Stage(VisitSettings(full_size=40.0)).play(5, (LEFT, NOTHING))
    busy = longer.asked
    assert longer.play(10, (LEFT, NOTHING)).asked - busy <= 11
    assert not any(longer.sightings[20:])


def test_a_visit_whose_place_turns_out_empty_has_ended():
    stage = Stage().play(3, (LEFT, OWL)).play(15, (LEFT, NOTHING))
    assert stage.told == [
        ("visit_started", "1-1", "Little Owl"),
        ("visit_ended", "1-1", "Little Owl"),
    ]


def test_too_short_a_moment_is_no_visit():
    stage = Stage().play(0.5, (LEFT, OWL)).play(4)
    assert stage.end() == []


def test_who_comes_back_at_once_is_the_same_and_another_species_is_not():
    stage = Stage().play(3, (LEFT, OWL)).play(1.5).play(3, (LEFT, OWL)).play(4)
    assert stage.told == [
        ("visit_started", "1-1", "Little Owl"),
        ("visit_ended", "1-1", "Little Owl"),
    ]
    assert stage.events[-1].frames == 60
    other = Stage().play(3, (LEFT, OWL)).play(1.5).play(3, (LEFT, TIT))
    other.end()
    assert sorted(other.told) == [
        ("visit_ended", "1-1", "Little Owl"),
        ("visit_ended", "1-2", "Great Tit"),
        ("visit_started", "1-1", "Little Owl"),
        ("visit_started", "1-2", "Great Tit"),
    ]


def test_after_a_longer_absence_it_is_a_visit_of_its_own():
    stage = Stage().play(3, (LEFT, OWL)).play(3).play(3, (LEFT, OWL))
    stage.end()
    assert [visit for _, visit, _ in stage.told] == ["1-1", "1-1", "1-2", "1-2"]


def test_two_at_a_time_are_two_visits():
    stage = Stage().play(3, (LEFT, OWL), (RIGHT, TIT))
    assert sorted(stage.told) == [
        ("visit_started", "1-1", "Little Owl"),
        ("visit_started", "1-2", "Great Tit"),
    ]
    assert [(s.track, s.label) for s in stage.sightings[-1]] == [
        (1, "Little Owl"),
        (2, "Great Tit"),
    ]


def test_of_more_than_the_model_may_be_asked_about_each_has_its_turn():
    crowd = [((10 + 60 * k, 60, 40, 40), OWL) for k in range(5)]
    stage = Stage(VisitSettings(most_regions=2, ask_s=0.0, recheck_s=0.0)).play(2, *crowd)
    asked = [sighting.track for seen in stage.sightings for sighting in seen if sighting.prediction]
    assert stage.asked == 36
    counts = np.bincount(asked, minlength=6)[1:]
    assert counts.max() - counts.min() <= 1


def test_a_looped_file_ends_its_visits():
    stage = Stage().play(3, (LEFT, OWL))
    stage.time = 0.0
    stage.play(3, (LEFT, OWL))
    assert stage.told == [
        ("visit_started", "1-1", "Little Owl"),
        ("visit_ended", "1-1", "Little Owl"),
        ("visit_started", "1-2", "Little Owl"),
    ]
    assert stage.events[1].ended_s == pytest.approx(2.9)
    assert stage.events[2].started_s == pytest.approx(0.0)


def test_presentation_times_a_little_out_of_order_are_survived():
    stage = Stage()
    for k in range(30):
        stage.time = k / FPS + (0.0 if k % 3 else -0.15)
        stage.boxes = [LEFT]
        stage.play(0.1, (LEFT, OWL))
    assert [kind for kind, _, _ in stage.told] == ["visit_started"]


def test_a_gap_in_the_clock_ends_a_visit_when_it_was_last_seen():
    stage = Stage().play(3, (LEFT, OWL))
    stage.time = 60.0
    stage.play(3, (LEFT, OWL))
    assert [(kind, visit) for kind, visit, _ in stage.told] == [
        ("visit_started", "1-1"),
        ("visit_ended", "1-1"),
        ("visit_started", "1-2"),
    ]
    assert stage.events[1].ended_s == pytest.approx(2.9)
    assert stage.events[2].started_s == pytest.approx(60.0)


def test_events_tell_when_they_became_known():
    """The start of a visit and its last sighting are other moments than that of the news."""
    stage = Stage(VisitSettings(absence_s=2.0)).play(1).play(4, (LEFT, OWL)).play(4)
    started, ended = stage.events
    assert started.started_s == pytest.approx(1.0)
    assert 1.5 < started.time_s < 2.5
    assert ended.ended_s == pytest.approx(4.9)
    assert 6.9 < ended.time_s < 7.2
    torn = Stage().play(2, (LEFT, OWL)).play(6, (LEFT, TIT)).end()
    assert [event.kind for event in torn] == ["visit_started", "visit_updated", "visit_ended"]
    assert torn[0].time_s < 2.0 < torn[1].time_s < torn[2].time_s == pytest.approx(7.9)
    assert {event.started_s for event in torn} == {0.0}
    looped = Stage().play(3, (LEFT, OWL))
    looped.time = 0.0
    looped.play(1, (LEFT, OWL))
    assert looped.events[1].kind == "visit_ended"
    assert looped.events[1].time_s == pytest.approx(2.9)


def test_live_visits_carry_wall_time():
    follower = VisitFollower(regions=lambda frame: [LEFT])
    noon = datetime(2026, 5, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    for k in range(20):
        at = noon + timedelta(seconds=k / FPS)
        frame = Frame(PIXELS, k, "camera", time=at, captured=500.0 + k / FPS)
        regions = follower.propose(frame)
        follower.update(frame, regions, [OWL] * len(regions))
    (ended,) = follower.finish()
    assert ended.started_s == pytest.approx(500.0)
    assert abs(ended.started_at - noon) < timedelta(milliseconds=1)
    assert ended.ended_at == noon + timedelta(seconds=1.9)
    assert (ended.time_s, ended.time) == (pytest.approx(501.9), ended.ended_at)
    assert ended.to_dict()["time"] == ended.time.isoformat()
    assert follower.finish() == []


def test_frames_that_got_no_answer_lose_no_event():
    stage = Stage().play(3, (LEFT, OWL))
    stage.time = 0.0
    stage.boxes = []
    for _ in range(3):
        stage.follower.propose(stage.frame())
        stage.number += 1
        stage.time += 0.1
    stage.play(0.1)
    assert stage.told[-1] == ("visit_ended", "1-1", "Little Owl")


def test_answers_may_come_a_few_frames_late():
    follower = VisitFollower(regions=lambda frame: [LEFT])
    frames = [Frame(PIXELS, k, "yard", position=k / FPS) for k in range(30)]
    regions, events = [], []
    for k, frame in enumerate(frames):
        regions.append(follower.propose(frame))
        if k >= 3:
            late = regions[k - 3]
            events += follower.update(frames[k - 3], late, [OWL] * len(late))[1]
    assert [event.kind for event in events] == ["visit_started"]


def test_what_was_not_proposed_is_refused():
    stage = Stage()
    with pytest.raises(UsageError, match="not proposed"):
        stage.follower.update(stage.frame(), [], [])
    stage.play(1, (LEFT, OWL))
    frame = stage.frame()
    regions = stage.follower.propose(frame)
    with pytest.raises(UsageError, match="1 predictions"):
        stage.follower.update(frame, [*regions, *regions], [OWL])
    with pytest.raises(UsageError, match="was not proposed"):
        stage.follower.update(frame, [(0, 0, 5, 5)], [OWL])


def test_a_detectors_scores_decide_who_is_new():
    follower = VisitFollower(regions=lambda frame: [Detection(LEFT, 0.9), Detection(RIGHT, 0.1)])
    for k in range(10):
        frame = Frame(PIXELS, k, "yard", position=k / FPS)
        regions = follower.propose(frame)
        sightings, _ = follower.update(frame, regions, [OWL] * len(regions))
    assert [sighting.region_xywh for sighting in sightings] == [LEFT]


def test_each_source_has_followers_and_names_of_its_own():
    make = follow_visits(VisitSettings(padding=1.2), regions=lambda: lambda frame: [LEFT])
    first, second = make(1), make(2)
    assert (first.number, second.number) == (1, 2)
    assert first.settings.padding == 1.2
    for k in range(15):
        frame = Frame(PIXELS, k, "yard", position=k / FPS)
        for follower in (first, second):
            regions = follower.propose(frame)
            follower.update(frame, regions, [OWL] * len(regions))
    assert [event.visit for event in first.finish() + second.finish()] == ["1-1", "2-1"]


@pytest.mark.parametrize("seed", sweep(range(4)))
def test_whatever_happens_each_visit_starts_once_and_ends_once(seed):
    """Visitors wander in and out at random, are missed now and then, and change their looks."""
    random = np.random.default_rng(seed)
    boxes: list = []
    follower = VisitFollower(regions=lambda frame: boxes)
    there: list[list] = []
    events = []
    for k in range(800):
        if random.random() < 0.03:
            look = [OWL, TIT, TORN, NOTHING][int(random.integers(4))]
            there.append([*random.uniform((0, 0), (280, 140)), look])
        for visitor in there:
            visitor[:2] = np.add(visitor[:2], random.normal(0, 3, 2)).tolist()
        there = [visitor for visitor in there if random.random() > 0.02]
        boxes = [(x, y, 30.0, 30.0) for x, y, _ in there if random.random() > 0.1]
        frame = Frame(PIXELS, k, "yard", position=k / FPS)
        regions = follower.propose(frame)
        # Whoever was added last stands for them all: the looks of a place change at random.
        answer = there[-1][2] if there else NOTHING
        events += follower.update(frame, regions, [answer] * len(regions))[1]
    events += follower.finish()
    state: dict[str, str] = {}
    for event in events:
        before = {"visit_started": None, "visit_updated": "open", "visit_ended": "open"}
        assert state.get(event.visit) == before[event.kind]
        state[event.visit] = "closed" if event.kind == "visit_ended" else "open"
        assert event.started_s <= event.ended_s
    assert set(state.values()) == {"closed"}
    assert follower.finish() == []


@pytest.mark.parametrize("wrong", [{"padding": 0.5}, {"most_regions": 0}, {"absence_s": -1}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UsageError):
        VisitSettings(**wrong)


def follow(path, frames: int | None = None):
    """Follow a real clip by movement alone, with a model that is always sure of an owl."""
    follower = VisitFollower(VisitSettings(smoothing=SmoothingSettings()))
    sightings, events = [], []
    with edge_fg.open_source(path) as source:
        for frame in source:
            if frame.number == frames:
                break
            regions = follower.propose(frame)
            seen, told = follower.update(frame, regions, [OWL] * len(regions))
            sightings += seen
            events += told
    return sightings, events + follower.finish()


@pytest.mark.real_data
def test_an_empty_savanna_has_no_visit(data_dir):
    assert follow(data_dir / "videos" / "zamba_grumeti_nothing_09290027.avi") == ([], [])


@pytest.mark.real_data
def test_a_chimpanzee_that_walks_by_close_is_one_visit(data_dir):
    sightings, events = follow(data_dir / "videos" / "zamba_chimp.mp4", 165)
    area = {
        sighting.track: sighting.region_xywh[2] * sighting.region_xywh[3] for sighting in sightings
    }
    for sighting in sightings:
        area[sighting.track] = max(
            area[sighting.track], sighting.region_xywh[2] * sighting.region_xywh[3]
        )
    large = [track for track, pixels in area.items() if pixels > 0.3 * 320 * 180]
    assert len(large) == 1
    (ended,) = [e for e in events if e.kind == "visit_ended" and e.visit == f"1-{large[0]}"]
    assert ended.started_s < 1.0
    assert 3.0 < ended.ended_s < 4.5


@pytest.mark.real_data
@pytest.mark.slow
def test_a_forest_is_empty_once_the_animal_has_left(data_dir):
    _, events = follow(data_dir / "videos" / "zamba_bwi_PICT0146.avi")
    ends = [event.ended_s for event in events if event.kind == "visit_ended"]
    assert ends
    assert max(ends) < 17.0
