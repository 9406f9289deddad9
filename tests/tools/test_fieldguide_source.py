"""The demo clip as a source."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edge_fg.errors import UsageError
from edge_fg.sources import Source, SourceOptions, open_source
from edge_fg_tools.fieldguide import render_clip
from edge_fg_tools.fieldguide.source import FieldGuideSource, open_fieldguide
from support.clock import FakeClock

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@pytest.fixture
def _installed(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry points of pyproject.toml, as installing the package makes them known."""
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    points = project["entry-points"]["edge_fg.sources"]
    info = tmp_path / "edge_fg_points-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edge-fg-points\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[edge_fg.sources]", *lines]))
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("_installed")
def test_the_scheme_opens_the_clip() -> None:
    with open_source("fieldguide://?seed=4") as source:
        assert isinstance(source, Source)
        assert source.name == "fieldguide://?seed=4&loop=1&live=0"
        assert (source.live, source.fps, source.size_wh) == (False, 15.0, (640, 360))
        assert source.frame_count == 300
        frames = list(itertools.islice(source, 3))
    for frame, (image, truth) in zip(frames, render_clip(4), strict=False):
        np.testing.assert_array_equal(frame.image, image)
        assert frame.number == truth.frame
        assert frame.position == pytest.approx(truth.time_s)
        assert frame.time is None


def test_each_round_has_other_visitors() -> None:
    source = FieldGuideSource(seed=2, rounds=2)
    assert source.frame_count == 600
    assert FieldGuideSource(rounds=None).frame_count is None
    flip = SourceOptions(flip="clockwise")
    assert next(FieldGuideSource(options=flip)).size_wh == (360, 640)


def test_live_it_keeps_its_pace_and_counts_dropped_frames(monkeypatch) -> None:
    clock = FakeClock(100.0)
    time = SimpleNamespace(monotonic=clock, sleep=clock.sleep)
    monkeypatch.setattr("edge_fg_tools.fieldguide.source.time", time)
    with FieldGuideSource(live=True, options=SourceOptions(fps=20.0)) as source:
        first = next(source)
        assert next(source).dropped == 0
        assert clock.now == pytest.approx(100.05), "it waits for the second"
        clock.now = 100.51
        third = next(source)
        assert clock.now == 100.51, "the third is late"
        assert third.dropped == source.counters["dropped"] == 8
        next(source)
        assert clock.now == pytest.approx(100.55)
        assert first.time is not None
        assert first.position is None


@pytest.mark.parametrize(
    "uri",
    [
        "fieldguide://garden",
        "fieldguide://?seed=-1",
        "fieldguide://?seed=x",
        "fieldguide://?seed=1&seed=2",
        "fieldguide://?sed=1",
        "fieldguide://?live=2",
        "fieldguide://?seed=9999999999",
    ],
)
def test_wrong_addresses_are_refused(uri: str) -> None:
    with pytest.raises(UsageError, match="fieldguide://"):
        open_fieldguide(uri, SourceOptions())


@pytest.mark.parametrize("wrong", [{"size_wh": (64, 48)}, {"codec": "h264"}, {"raw": True}])
def test_options_of_cameras_are_refused(wrong: dict) -> None:
    with pytest.raises(UsageError, match="can't be chosen"):
        open_fieldguide("fieldguide://", SourceOptions(**wrong))
