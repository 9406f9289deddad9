"""Months in a few minutes: nothing grows with the number of frames or pipelines."""

from __future__ import annotations

import gc
import threading

import pytest

from edge_fg.pipeline import Pipeline, Result
from edge_fg.telemetry.process import open_descriptors, resident_bytes
from support import pipeline_fakes as fakes
from support.waiting import new_threads

MIB = 2**20


class Looking:
    """A sink that looks at the process from time to time."""

    def __init__(self, every: int) -> None:
        self.name = "looking"
        self.every = every
        self.count = 0
        self.seen: list[tuple[int, int, int]] = []

    def open(self, sources: object) -> None:
        pass

    def __call__(self, result: Result) -> None:
        self.count += 1
        if self.count % self.every == 0:
            gc.collect()
            found = resident_bytes(), threading.active_count(), open_descriptors()
            self.seen.append(found)

    def close(self) -> None:
        pass


def check_frames(frames: int) -> None:
    looking = Looking(frames // 10)
    sources = [fakes.Numbers(frames // 2, name=name) for name in "ab"]
    stats = Pipeline(sources, fakes.first_value, sinks=[looking, fakes_null()]).run()
    assert stats.answered == frames
    first, *_, last = looking.seen[1:]
    assert last[0] - first[0] < 2 * MIB, looking.seen
    # A source that has ended ends its thread.
    assert last[1] <= first[1]
    assert last[2] == first[2]


def fakes_null():
    class Null(fakes.Collecting):
        def __call__(self, result: Result) -> None:
            pass

    return Null("null")


def test_frames_leave_nothing_behind() -> None:
    check_frames(10_000)


@pytest.mark.slow
def test_two_hundred_thousand_frames_leave_nothing_behind() -> None:
    check_frames(200_000)


def test_pipelines_leave_nothing_behind() -> None:
    def once() -> None:
        with Pipeline(fakes.Numbers(live=True), fakes.first_value, sinks=[fakes_null()]) as p:
            next(iter(p))

    for _ in range(20):
        once()
    gc.collect()
    threads = set(threading.enumerate())
    descriptors, memory = open_descriptors(), resident_bytes()
    for _ in range(100):
        once()
    gc.collect()
    assert not new_threads(threads)
    assert open_descriptors() == descriptors
    assert resident_bytes() - memory < 4 * MIB
