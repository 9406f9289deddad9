"""Geometry of boxes, (x, y, width, height)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fg.boxes import centre_distance, clipped, gap, intersection, iou, padded_square, union

SIZE_WH = (320, 180)
LENGTHS = st.floats(0.5, 400)
BOXES = st.tuples(st.floats(-100, 400), st.floats(-100, 400), LENGTHS, LENGTHS)


def test_overlaps():
    assert iou((0, 0, 10, 10), (0, 0, 10, 10)) == 1.0
    assert iou((0, 0, 10, 10), (5, 0, 10, 10)) == pytest.approx(1 / 3)
    assert iou((0, 0, 10, 10), (10, 0, 10, 10)) == 0.0
    assert intersection((0, 0, 10, 10), (5, 5, 100, 100)) == 25


def test_distances():
    assert gap((0, 0, 10, 10), (5, 5, 10, 10)) == 0
    assert gap((0, 0, 10, 10), (14, 0, 10, 10)) == 4
    assert gap((14, 30, 10, 10), (0, 0, 10, 10)) == 20, "the larger of across and down"
    assert centre_distance((0, 0, 10, 10), (3, 4, 10, 10)) == 5
    assert union((0, 0, 10, 10), (20, 5, 10, 10)) == (0, 0, 30, 15)


@given(BOXES, BOXES)
def test_what_two_boxes_have_in_common(one, other):
    assert iou(one, other) == pytest.approx(iou(other, one))
    assert 0 <= iou(one, other) <= 1 + 1e-9
    assert (intersection(one, other) == 0) or gap(one, other) == pytest.approx(0, abs=1e-9)
    around = union(one, other)
    for box in (one, other):
        assert intersection(box, around) == pytest.approx(box[2] * box[3])


@given(BOXES)
def test_a_clipped_box_lies_in_the_frame_and_has_pixels(box):
    x, y, width, height = clipped(box, SIZE_WH)
    assert 0 <= x < x + width <= SIZE_WH[0]
    assert 0 <= y < y + height <= SIZE_WH[1]


def test_the_square_for_the_model_is_padded_and_stays_inside():
    assert padded_square((100, 60, 40, 20), 1.5, SIZE_WH) == (90, 40, 60, 60)
    assert padded_square((0, 0, 40, 20), 2.0, SIZE_WH) == (0, 0, 80, 80)
    assert padded_square((300, 170, 20, 10), 2.0, SIZE_WH) == (280, 140, 40, 40)
    assert padded_square((0, 0, 320, 180), 2.0, SIZE_WH) == (0, 0, 320, 180)
