"""Raw frames: the camera's own bytes give what their BGR pixels give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edge_fg
from edge_fg.backends.base import cut
from edge_fg.errors import ImageError
from edge_fg.preprocess.pixel_layout import PixelFormat, PixelLayout
from edge_fg.preprocess.raw_frame import RawFrame, all_bgr, as_pixels
from edge_fg.preprocess.yuv import ColorStandard
from support.properties import examples

YUV = {PixelFormat.NV12, PixelFormat.YUYV, PixelFormat.I420}
NV12 = PixelLayout(PixelFormat.NV12, 40, 60, standard=ColorStandard.BT601_LIMITED)
NOTHING = dict.fromkeys(
    ["buffers", "page_locked", "streams", "events", "modules", "graphs", "retains", "pushed"], 0
)


def make(layout: PixelLayout, seed: int = 1, spare: int = 0) -> RawFrame:
    random = np.random.default_rng(seed)
    return RawFrame(random.integers(0, 256, layout.nbytes + spare, dtype=np.uint8), layout)


@st.composite
def raw_frames(draw) -> RawFrame:
    kind = draw(st.sampled_from(PixelFormat))
    height, width = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    standard = draw(st.sampled_from(ColorStandard)) if kind in YUV else None
    layout = PixelLayout(kind, height, width, standard=standard)
    if draw(st.booleans()):
        pitch = layout.row_bytes + draw(st.integers(0, 9))
        layout = PixelLayout(kind, height, width, pitch, standard)
    if kind is PixelFormat.I420 and draw(st.booleans()):
        offsets = layout.chroma_planes[::-1]
        layout = PixelLayout(kind, height, width, layout.pitch, standard, chroma_offsets=offsets)
    return make(layout, draw(st.integers(0, 1000)), draw(st.integers(0, 3)))


@examples(300)
@given(raw_frames(), st.data())
def test_a_part_holds_the_pixels_of_its_region(frame: RawFrame, data):
    width, height = frame.size_wh
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    region = (
        *(x, y),
        data.draw(st.integers(1, width - x)),
        data.draw(st.integers(1, height - y)),
    )
    described, planes = frame.part(region)
    assert all(np.shares_memory(plane, frame.data) for plane in planes)
    joined = np.concatenate([plane.reshape(-1) for plane in planes])
    assert joined.size == described.nbytes <= frame.layout.nbytes
    np.testing.assert_array_equal(
        cut(described.to_bgr(joined), described.region), cut(frame.to_bgr(), region)
    )


@examples(100)
@given(st.sampled_from(PixelFormat), st.data())
def test_wherever_a_region_lies_it_has_few_descriptions(kind: PixelFormat, data):
    layout = PixelLayout(kind, 30, 41, standard=ColorStandard.BT709_FULL if kind in YUV else None)
    size = (data.draw(st.integers(1, 20)), data.draw(st.integers(1, 15)))
    frame = make(layout)
    described = {frame.part((x, y, *size))[0] for x in range(20) for y in range(15)}
    blocks = {PixelFormat.NV12: 4, PixelFormat.I420: 4, PixelFormat.YUYV: 2}
    assert len(described) == blocks.get(kind, 1)


def test_what_is_no_raw_frame():
    enough = np.zeros(NV12.nbytes, np.uint8)
    for wrong in (enough[:-1], enough.reshape(-1, 1), enough.astype(np.int8), enough[::-1]):
        with pytest.raises(ImageError):
            RawFrame(wrong, NV12)
    with pytest.raises(ImageError, match="region"):
        RawFrame(enough, PixelLayout(PixelFormat.GRAY, 9, 9, region=(0, 0, 3, 3)))
    with pytest.raises(ImageError, match="uint8"):
        as_pixels(b"123")


@pytest.mark.parametrize("region", [(0, 0, 61, 5), (-1, 0, 3, 3), (0, 0, 0, 1), (1.5, 0, 2, 2)])
def test_a_region_outside_is_refused(region):
    with pytest.raises(ImageError, match="region"):
        make(NV12).part(region)


def test_a_frame_that_stands_twice_is_converted_once():
    frame, array = make(NV12), np.zeros((4, 5, 3), np.uint8)
    one, other, third = all_bgr([frame, array, frame])
    assert one is third
    assert other is array
    np.testing.assert_array_equal(one, frame.to_bgr())


# --- the classifier on the CPU -------------------------------------------------------------------


@pytest.mark.parametrize("kind", PixelFormat)
def test_the_classifier_says_of_raw_frames_what_it_says_of_their_pixels(
    tiny_bundle: Path, frame: np.ndarray, kind: PixelFormat
):
    pytest.importorskip("onnxruntime")
    standard = ColorStandard.BT709_LIMITED if kind in YUV else None
    raw = make(PixelLayout(kind, 41, 67, 280, standard))
    regions = [None, (3, 5, 20, 11), (1, 0, 7, 9), None]
    with edge_fg.load(tiny_bundle, backend="onnxruntime", threads=1) as classifier:
        found = classifier.batch([raw, raw, frame, frame], regions)
        pixels = raw.to_bgr()
        expected = classifier.batch([pixels, pixels, frame, frame], regions)
        alone = classifier(raw, regions[1])
        again = classifier(cut(pixels, regions[1]))
    for one, other in zip([*found, alone], [*expected, again], strict=True):
        np.testing.assert_array_equal(one.probabilities, other.probabilities)


def test_a_frame_that_lies_about_its_size_is_refused(tiny_bundle: Path):
    pytest.importorskip("onnxruntime")
    liar = make(NV12)
    liar.data.resize((NV12.nbytes - 1,), refcheck=False)
    with edge_fg.load(tiny_bundle, backend="onnxruntime", threads=1) as classifier:
        for region in (None, (1, 1, 20, 20)):
            with pytest.raises(ImageError, match="don't hold a frame"):
                classifier(liar, region)
        with pytest.raises(ImageError, match="region"):
            classifier(make(NV12), (40, 0, 21, 5))
        assert len(classifier(make(NV12)).top(2)) == 2


# --- the GPU path, under the software driver -----------------------------------------------------


def test_the_gpu_takes_raw_and_bgr_frames_in_one_batch(gpu):
    seen = gpu.run("raw_frames.mixed", 1)
    assert seen["images"] > 400
    assert seen["end"] == NOTHING


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20, 24))
def test_many_more_raw_frames(gpu, seed: int):
    assert gpu.run("raw_frames.mixed", seed, 150, 5)["images"] > 2500


@pytest.mark.parametrize("transfer", ["mapped", "staged"])
def test_each_layout_of_a_size_is_captured_by_itself(gpu, transfer: str):
    seen = gpu.run("raw_frames.graphs", transfer)
    # One more is the engine alone, in batches of one.
    assert seen == {"graphs": 4 + 1, "allocated late": 0, "end": NOTHING}


@pytest.mark.parametrize("transfer", ["mapped", "staged"])
def test_larger_frames_move_the_memory_and_are_captured_again(gpu, transfer: str):
    seen = gpu.run("raw_frames.growing", transfer)
    assert seen["graphs"] == 2 + 1
    assert sum(seen["allocated"][7:]) == 0
    assert seen["end"] == NOTHING


def test_a_region_that_moves_over_a_raw_frame_allocates_nothing(gpu):
    seen = gpu.run("raw_frames.moving")
    assert seen["first four"] >= 4
    assert seen["later"] == 0


def test_the_gpu_refuses_what_lies_and_goes_on(gpu):
    seen = gpu.run("raw_frames.lying")
    assert len(seen["errors"]) == 6
    assert all(error["kinds"][0] == "ImageError" for error in seen["errors"])
    assert seen["graphs"] == 2 + 1
    assert seen["end"] == NOTHING
