"""Where something is before a fixed camera: what must be found, and what must not."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import numpy as np
import pytest

from edge_fg.boxes import iou
from edge_fg.errors import MissingDependencyError, UsageError
from edge_fg.preprocess.pixel_layout import PixelFormat, PixelLayout
from edge_fg.preprocess.raw_frame import RawFrame
from edge_fg.preprocess.yuv import ColorStandard
from edge_fg.sources import Frame
from edge_fg.tracking.background import BackgroundSettings
from edge_fg.tracking.motion import MotionFinder, MotionSettings
from edge_fg.tracking.thumbnail import sharpness, thumbnail

cv2 = pytest.importorskip("cv2", reason="the extra opencv is not installed")

SIZE_WH = (320, 180)
BOX = (120, 60, 64, 48)
RNG = np.random.default_rng(11)


def texture(seed: int, width: int = SIZE_WH[0], height: int = SIZE_WH[1]) -> np.ndarray:
    """A soft, coloured pattern, 40..200, float32 BGR."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(50, 190, (6, 10, 3)).astype(np.float32)
    fine = random.uniform(-12, 12, (height // 6, width // 6, 3)).astype(np.float32)
    scene = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(scene + cv2.resize(fine, (width, height)), 20, 220)


SCENE = texture(1)
PLUMAGE = texture(2)[: BOX[3], : BOX[2]] * 0.35
SHAPE = cv2.ellipse(
    np.zeros(PLUMAGE.shape[:2], np.uint8), (32, 24), (31, 23), 0, 0, 360, 1, -1
).astype(bool)


def with_bird(scene: np.ndarray, dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
    image = scene.copy()
    x, y = round(BOX[0] + dx), round(BOX[1] + dy)
    image[y : y + BOX[3], x : x + BOX[2]][SHAPE] = PLUMAGE[SHAPE]
    return image


def photograph(image: np.ndarray) -> np.ndarray:
    """Add a sensor's noise."""
    return np.clip(image + RNG.normal(0, 2.5, image.shape), 0, 255).astype(np.uint8)


def look(images: Iterable[np.ndarray], *, step_s: float = 0.1, finder: MotionFinder | None = None):
    finder = finder or MotionFinder()
    return [
        finder(Frame(photograph(image), number, "test", position=number * step_s))
        for number, image in enumerate(images)
    ]


def is_bird(region, dx: float = 0.0, dy: float = 0.0) -> bool:
    return iou(region, (BOX[0] + dx, BOX[1] + dy, BOX[2], BOX[3])) > 0.5


def test_an_empty_scene_has_nothing():
    assert not any(look([SCENE] * 40))


def test_a_bird_is_found_where_it_is_and_only_it():
    found = look([SCENE] * 10 + [with_bird(SCENE, 3 * k, k) for k in range(30)])
    assert not any(found[:10])
    for k, regions in enumerate(found[10:]):
        assert len(regions) == 1
        assert is_bird(regions[0], 3 * k, k)


def test_at_dusk_less_contrast_is_enough():
    found = look([SCENE * 0.2] * 10 + [with_bird(SCENE) * 0.2] * 10 + [SCENE * 0.2] * 5)
    assert not any(found[:10] + found[20:])
    assert all(len(regions) == 1 and is_bird(regions[0]) for regions in found[10:20])


def test_a_bird_that_perches_nearly_still_for_a_minute_stays_and_leaves_no_hole():
    perched = [with_bird(SCENE, 1.4 * np.sin(k / 3), np.sin(k)) for k in range(120)]
    found = look([SCENE] * 8 + perched + [SCENE] * 12, step_s=0.5)
    assert all(len(regions) == 1 and is_bird(regions[0]) for regions in found[8:-12])
    assert not any(found[-12:])


def test_a_thing_that_never_moves_becomes_scenery():
    finder = MotionFinder(MotionSettings(background=BackgroundSettings(absorb_s=20.0)))
    found = look([SCENE] * 8 + [with_bird(SCENE)] * 60, step_s=0.5, finder=finder)
    assert found[8 + 20]
    assert not any(found[-15:])


def test_what_was_there_at_the_start_leaves_no_ghost():
    found = look([with_bird(SCENE)] * 15 + [SCENE] * 40)
    assert not any(found[-25:])


LIGHTS = {
    "exposure": lambda scene: scene * 1.35,
    "darker": lambda scene: scene * 0.5,
    "gamma": lambda scene: 255.0 * (scene / 255.0) ** 0.7,
    "white balance": lambda scene: scene * np.array([0.8, 1.0, 1.2], np.float32),
    "haze": lambda scene: scene * 0.7 + 50.0,
}


@pytest.mark.parametrize("change", LIGHTS.values(), ids=LIGHTS.keys())
def test_other_light_on_all_of_the_scene_is_nothing(change):
    assert not any(look([SCENE] * 15 + [change(SCENE)] * 15 + [SCENE] * 10))


@pytest.mark.parametrize("change", LIGHTS.values(), ids=LIGHTS.keys())
def test_a_bird_is_kept_through_other_light(change):
    bird = with_bird(SCENE)
    found = look([SCENE] * 10 + [bird] * 10 + [change(bird)] * 10 + [bird] * 5)
    for regions in found[10:]:
        assert len(regions) == 1
        assert is_bird(regions[0])


def test_a_cloud_that_passes_is_nothing():
    x, y = np.meshgrid(np.arange(SIZE_WH[0]), np.arange(SIZE_WH[1]))
    shade = [
        1.0 - 0.4 * np.exp(-(((x + 80 - 12 * k) / 65.0) ** 2) - ((y - 80) / 55.0) ** 2)
        for k in range(40)
    ]
    assert not any(look([SCENE] * 10 + [SCENE * s[..., np.newaxis] for s in shade]))


def shaken(image: np.ndarray, dx: float, dy: float) -> np.ndarray:
    move = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    return cv2.warpAffine(image, move, SIZE_WH, borderMode=cv2.BORDER_REPLICATE)


def test_a_shaken_camera_sees_no_visitor_but_still_a_bird():
    shakes = np.random.default_rng(4).normal(0, 2.0, (50, 2))
    images = [shaken(SCENE, *by) for by in shakes[:25]]
    images += [shaken(with_bird(SCENE), *by) for by in shakes[25:]]
    found = look([SCENE] * 10 + images)
    assert not any(found[:35])
    kept = [
        any(is_bird(r, *by) for r in regions)
        for regions, by in zip(found[35:], shakes[25:], strict=True)
    ]
    assert np.mean(kept) > 0.9


def test_another_scene_is_learnt_anew():
    other = texture(9)
    found = look([SCENE] * 15 + [other] * 15 + [with_bird(other)] * 5)
    assert not any(found[:30])
    assert all(len(regions) == 1 and is_bird(regions[0]) for regions in found[30:])


def test_another_frame_size_is_learnt_anew():
    small = cv2.resize(SCENE, (200, 150))
    assert not any(look([SCENE] * 10 + [small] * 10 + [SCENE] * 10))


def test_a_clock_that_goes_back_is_survived():
    finder = MotionFinder()
    look([SCENE] * 20, finder=finder)
    found = look([SCENE] * 5 + [with_bird(SCENE)] * 5, finder=finder)
    assert not any(found[:5])
    assert all(is_bird(regions[0]) for regions in found[5:])


def test_what_is_absorbed_is_found_no_more():
    finder = MotionFinder()
    found = look([SCENE] * 10 + [with_bird(SCENE)] * 5, finder=finder)
    finder.absorb(found[-1][0])
    regions = finder(Frame(photograph(with_bird(SCENE)), 15, "test", position=1.5))
    assert not any(is_bird(region) for region in regions)


def raw(image: np.ndarray, kind: PixelFormat) -> RawFrame:
    """A frame as a camera gives it, by OpenCV's own conversions."""
    height, width = image.shape[:2]
    planes = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)
    chroma = planes[height:].reshape(2, height // 2, width // 2)
    if kind is PixelFormat.NV12:
        data = np.concatenate([planes[:height].ravel(), np.moveaxis(chroma, 0, 2).ravel()])
    elif kind is PixelFormat.I420:
        data = planes.ravel()
    else:
        packed = np.empty((height, width // 2, 4), np.uint8)
        packed[..., 0], packed[..., 2] = planes[:height, ::2], planes[:height, 1::2]
        packed[..., 1], packed[..., 3] = np.repeat(chroma, 2, axis=1)
        data = packed.ravel()
    layout = PixelLayout(kind, height, width, standard=ColorStandard.BT601_LIMITED)
    return RawFrame(np.ascontiguousarray(data), layout)


@pytest.mark.parametrize("kind", [PixelFormat.NV12, PixelFormat.I420, PixelFormat.YUYV])
def test_raw_frames_are_looked_at_as_they_are(kind):
    finder = MotionFinder()
    for number in range(14):
        image = photograph(SCENE if number < 8 else with_bird(SCENE))
        frame = Frame(raw(image, kind), number, "test", position=number / 10)
        regions = finder(frame)
        assert [is_bird(region) for region in regions] == ([] if number < 8 else [True])
        assert "image" not in vars(frame), "the frame was converted"
    assert thumbnail(frame, 160).shape == (90, 160, 3)
    bgr = Frame(image, 0, "test")
    assert sharpness(frame, BOX) == pytest.approx(sharpness(bgr, BOX), rel=0.4)


def test_a_blurred_region_is_less_sharp():
    bird = with_bird(SCENE)
    blurred = cv2.GaussianBlur(bird, (0, 0), 3)
    sharp = sharpness(Frame(bird.astype(np.uint8), 0, "t"), BOX)
    assert sharpness(Frame(blurred.astype(np.uint8), 0, "t"), BOX) < 0.5 * sharp


@pytest.mark.parametrize("wrong", [{"width": 4}, {"smallest": 0.9}, {"ghost_s": 0}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UsageError):
        MotionSettings(**wrong)
    with pytest.raises(UsageError):
        BackgroundSettings(learn_s=0)


def test_without_opencv_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingDependencyError, match=r"edge-fg\[opencv\]"):
        MotionFinder()
