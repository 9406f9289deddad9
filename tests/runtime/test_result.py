"""Results, sightings and events: unpacking, and the names that they had before."""

from __future__ import annotations

import numpy as np
import pytest

import edge_fg
from edge_fg.pipeline import Pipeline, Result
from support import sink_results

OLD_NAMES = [
    (sink_results.result(), {"age": "age_s", "source": "source_index"}),
    (
        sink_results.sighting(1, (1, 2, 3, 4), "Little Owl"),
        {"region": "region_xywh", "index": "class_id"},
    ),
    (
        sink_results.event(),
        {
            "region": "region_xywh",
            "index": "class_id",
            "started": "started_s",
            "ended": "ended_s",
        },
    ),
]


@pytest.mark.parametrize(
    ("owner", "old", "new"),
    [(owner, old, new) for owner, names in OLD_NAMES for old, new in names.items()],
)
def test_old_names_work_and_warn(owner: object, old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"use {new}"):
        assert getattr(owner, old) == getattr(owner, new)


@pytest.mark.parametrize("answering", [edge_fg.stream, Pipeline])
def test_the_stream_and_the_pipeline_give_results_that_unpack(answering) -> None:
    images = [np.full((2, 2, 3), value, np.uint8) for value in range(5)]
    seen = []
    for result in answering(images, lambda image: int(image[0, 0, 0])):
        frame, prediction = result
        assert isinstance(result, Result)
        assert (frame, prediction) == (result.frame, result.prediction)
        assert result.age_s >= 0
        seen.append((frame.number, prediction))
    assert seen == [(number, number) for number in range(5)]
