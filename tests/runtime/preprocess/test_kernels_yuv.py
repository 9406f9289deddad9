"""Camera formats against OpenCV and against the standards' real-valued formulas."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edge_fg.errors import ImageError
from edge_fg.preprocess.pixel_layout import PixelFormat, PixelLayout
from edge_fg.preprocess.yuv import (
    ColorStandard,
    exact_factors,
    i420_to_bgr,
    nv12_to_bgr,
    to_bgr,
    yuyv_to_bgr,
)

STANDARDS = list(ColorStandard)


def exact_bgr(luma: np.ndarray, cb: np.ndarray, cr: np.ndarray, standard: ColorStandard):
    """Real-valued levels, limited to 0..255."""
    offset, scale, blue_u, green_u, green_v, red_v = exact_factors(standard)
    y = (luma.astype(float) - offset) * scale
    u, v = cb.astype(float) - 128, cr.astype(float) - 128
    bgr = np.stack([y + blue_u * u, y - green_u * u - green_v * v, y + red_v * v], axis=-1)
    return bgr.clip(0, 255)


@pytest.mark.parametrize("standard", STANDARDS)
def test_the_fixed_point_is_the_formula_rounded(standard):
    # Every luma with every fifth chroma: 256 x 52 x 52 triples.
    steps = np.arange(0, 256, 5, dtype=np.uint8)
    luma, cb, cr = np.meshgrid(np.arange(256, dtype=np.uint8), steps, steps, indexing="ij")
    ours = to_bgr(luma, cb, cr, standard).astype(float)
    difference = np.abs(ours - exact_bgr(luma, cb, cr, standard)).max()
    # Rounding costs half a level; the factors' 16 bits a little more.
    assert difference <= 0.51


@pytest.mark.slow
@pytest.mark.parametrize("standard", STANDARDS)
def test_every_triple_is_within_a_level_of_the_formula(standard):
    luma, cb = np.meshgrid(*[np.arange(256, dtype=np.uint8)] * 2, indexing="ij")
    for level in range(256):
        cr = np.full_like(luma, level)
        ours = to_bgr(luma, cb, cr, standard).astype(float)
        assert np.abs(ours - exact_bgr(luma, cb, cr, standard)).max() <= 0.51


@pytest.mark.parametrize(
    ("standard", "white", "red"),
    [
        # BT.601-7 and BT.709-6 with 8 bits: pure colours in limited range, (Y, Cb, Cr).
        (ColorStandard.BT601_LIMITED, (235, 128, 128), (81, 90, 240)),
        (ColorStandard.BT709_LIMITED, (235, 128, 128), (63, 102, 240)),
        # JFIF 1.02.
        (ColorStandard.BT601_FULL, (255, 128, 128), (76, 85, 255)),
    ],
)
def test_pure_colours_are_the_standards(standard, white, red):
    triples = np.array([white, red], np.uint8)
    bgr = to_bgr(triples[:, 0], triples[:, 1], triples[:, 2], standard).astype(int)
    assert (bgr[0] == 255).all()
    assert np.abs(bgr[1] - [0, 0, 255]).max() <= 1


def legal_frame(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(4).integers(16, 236, shape, dtype=np.uint8)


def test_limited_bt601_is_opencvs_within_rounding():
    cv2 = pytest.importorskip("cv2")
    height, width = 48, 64
    standard = ColorStandard.BT601_LIMITED
    frame = legal_frame((height * 3 // 2, width))
    luma, rest = frame[:height], frame[height:]
    ours = nv12_to_bgr(luma, rest.reshape(height // 2, width // 2, 2), standard)
    theirs = cv2.cvtColor(frame, cv2.COLOR_YUV2BGR_NV12)
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    cb, cr = rest.reshape(2, height // 2, width // 2)
    ours = i420_to_bgr(luma, cb, cr, standard)
    theirs = cv2.cvtColor(frame, cv2.COLOR_YUV2BGR_I420)
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    packed = legal_frame((height, width, 2))
    ours = yuyv_to_bgr(packed.reshape(height, width // 2, 4), width, standard)
    theirs = cv2.cvtColor(packed, cv2.COLOR_YUV2BGR_YUYV)
    assert np.abs(ours.astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("standard", STANDARDS)
@pytest.mark.parametrize("kind", ["nv12", "i420", "yuyv"])
@pytest.mark.parametrize("gap", [0, 5])
def test_a_frame_is_its_pixels_one_by_one(standard, kind, gap):
    height, width = 5, 7
    tight = PixelLayout(PixelFormat(kind), height, width, standard=standard)
    source = PixelLayout(PixelFormat(kind), height, width, tight.row_bytes + gap, standard)
    data = np.random.default_rng(6).integers(0, 256, source.nbytes, dtype=np.uint8)
    pitch, chroma_pitch = source.row_pitch, source.chroma_row_pitch
    bgr = source.to_bgr(data)
    assert bgr.shape == (height, width, 3)
    for y, x in itertools.product(range(height), range(width)):
        if kind == "yuyv":
            pair = y * pitch + x // 2 * 4
            triple = data[[pair + x % 2 * 2, pair + 1, pair + 3]]
        elif kind == "nv12":
            pair = pitch * height + y // 2 * chroma_pitch + x // 2 * 2
            triple = data[[y * pitch + x, pair, pair + 1]]
        else:
            first, second = source.chroma_planes
            place = y // 2 * chroma_pitch + x // 2
            triple = data[[y * pitch + x, first + place, second + place]]
        expected = to_bgr(*(triple[i : i + 1] for i in range(3)), standard)
        np.testing.assert_array_equal(bgr[y, x], expected[0])


def test_yv12_is_i420_with_its_planes_swapped():
    plain = PixelLayout(PixelFormat.I420, 6, 8, standard=ColorStandard.BT709_FULL)
    first, second = plain.chroma_planes
    swapped = PixelLayout(
        PixelFormat.I420,
        6,
        8,
        standard=ColorStandard.BT709_FULL,
        chroma_offsets=(second, first),
    )
    data = np.random.default_rng(7).integers(0, 256, plain.nbytes, dtype=np.uint8)
    exchanged = np.concatenate([data[:first], data[second:], data[first:second]])
    np.testing.assert_array_equal(plain.to_bgr(data), swapped.to_bgr(exchanged))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"height": 0}, "sides must be"),
        ({"width": 1 << 21}, "sides must be"),
        ({"pitch": 29}, "pitch 29"),
        ({"standard": ColorStandard.BT601_FULL}, "no colour standard"),
        ({"format": PixelFormat.NV12}, "needs a colour standard"),
        ({"chroma_pitch": 40}, "no chroma_pitch"),
        ({"chroma_offsets": (300,)}, "chroma_offsets"),
        ({"region": (0, 0, 11, 1)}, "reaches outside"),
        ({"region": (0, -1, 1, 1)}, "x, y >= 0"),
        ({"region": (0, 0, 0, 1)}, "sides > 0"),
        ({"region": (0.5, 0, 1, 1)}, "whole pixels"),
        ({"region": (0, 0, 1)}, "whole pixels"),
    ],
)
def test_a_source_that_contradicts_itself_is_refused(fields, told):
    given = {"format": PixelFormat.BGR, "height": 8, "width": 10, **fields}
    with pytest.raises(ImageError, match=told):
        PixelLayout(**given)


def test_too_few_bytes_are_refused():
    source = PixelLayout(PixelFormat.NV12, 8, 10, standard=ColorStandard.BT601_LIMITED)
    assert source.nbytes == 120
    with pytest.raises(ImageError, match="119 bytes"):
        source.to_bgr(np.zeros(119, np.uint8))
    with pytest.raises(ImageError, match="one row of uint8"):
        source.to_bgr(np.zeros((12, 10), np.uint8))


def test_planes_that_do_not_fit_are_refused():
    luma = np.zeros((8, 10), np.uint8)
    with pytest.raises(ImageError, match="NV12 chroma of 4 x 4"):
        nv12_to_bgr(luma, np.zeros((4, 4, 2), np.uint8), ColorStandard.BT601_FULL)
    with pytest.raises(ImageError, match="don't hold 9"):
        yuyv_to_bgr(np.zeros((8, 4, 4), np.uint8), 9, ColorStandard.BT601_FULL)
