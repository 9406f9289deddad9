"""Image messages of ROS as frames, and answering them without waiting."""

from __future__ import annotations

import array
import threading
from concurrent.futures import Future
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fg.errors import BackendError, ImageError, SupersededError, UsageError
from edge_fg.preprocess.raw_frame import RawFrame
from edge_fg.preprocess.yuv import ColorStandard
from edge_fg_tools.ros import MessageClassifier, frame_of

cv2 = pytest.importorskip("cv2")

WIDTH, HEIGHT, GAP = 6, 4, 5


def noise(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Smooth colours, BGR: chroma that is shared by pixels stays near."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([40 + 20 * x, 60 + 25 * y, 200 - 15 * x], axis=2).astype(np.uint8)


def message(encoding: str, rows: np.ndarray, *, gap: int = 0, **changed) -> SimpleNamespace:
    """A message of (rows, bytes) uint8, with a gap after each row."""
    wide = np.full((len(rows), rows.shape[1] + gap), 7, np.uint8)
    wide[:, : rows.shape[1]] = rows
    values = {
        "header": "h",
        "height": HEIGHT,
        "width": WIDTH,
        "encoding": encoding,
        "is_bigendian": 0,
        "step": wide.shape[1],
        "data": wide.tobytes(),
    }
    return SimpleNamespace(**{**values, **changed})


def bgr(frame) -> np.ndarray:
    return frame.to_bgr() if isinstance(frame, RawFrame) else frame


def flat(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels).reshape(len(pixels), -1)


@pytest.mark.parametrize("gap", [0, GAP])
def test_colours_come_as_they_are(gap) -> None:
    image = noise()
    alpha = np.full((HEIGHT, WIDTH, 1), 99, np.uint8)
    for encoding, pixels in (
        ("bgr8", image),
        ("8UC3", image),
        ("rgb8", image[:, :, ::-1]),
        ("bgra8", np.concatenate([image, alpha], axis=2)),
        ("rgba8", np.concatenate([image[:, :, ::-1], alpha], axis=2)),
    ):
        found = bgr(frame_of(message(encoding, flat(pixels), gap=gap)))
        np.testing.assert_array_equal(found, image, encoding)


@pytest.mark.parametrize("gap", [0, GAP])
def test_greys_of_8_and_16_bits(gap) -> None:
    grey = noise()[:, :, 0]
    wanted = np.repeat(grey[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(bgr(frame_of(message("mono8", grey, gap=gap))), wanted)
    deep = grey.astype(np.uint16) * 256 + 77
    for big, kind in ((0, "<u2"), (1, ">u2")):
        rows = flat(deep.astype(kind).view(np.uint8))
        found = bgr(frame_of(message("mono16", rows, gap=gap, is_bigendian=big)))
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("encoding", ["yuv422_yuy2", "yuyv", "uyvy", "yuv422", "nv12"])
@pytest.mark.parametrize("gap", [0, 6])
def test_luma_and_chroma_mean_what_opencv_says(encoding, gap) -> None:
    image = noise(64, 48)
    ycc = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)
    luma, chroma = ycc[:48], ycc[48:].reshape(2, 24, 32)
    if encoding == "nv12":
        rows = np.concatenate([luma, chroma.transpose(1, 2, 0).reshape(24, 64)])
        wanted = cv2.cvtColor(rows, cv2.COLOR_YUV2BGR_NV12)
    else:
        full = chroma.repeat(2, axis=1)
        pairs = np.stack([luma[:, ::2], full[0], luma[:, 1::2], full[1]], axis=2)
        yuyv = pairs.reshape(48, 128)
        wanted = cv2.cvtColor(yuyv.reshape(48, 64, 2), cv2.COLOR_YUV2BGR_YUY2)
        swapped = encoding in ("uyvy", "yuv422")
        rows = yuyv.reshape(48, 64, 2)[:, :, ::-1].reshape(48, 128) if swapped else yuyv
    found = bgr(frame_of(message(encoding, rows, gap=gap, width=64, height=48)))
    # OpenCV rounds in another order.
    assert np.abs(found.astype(int) - wanted).max() <= 2


def test_the_colour_standard_can_be_given() -> None:
    rows = np.full((HEIGHT, 2 * WIDTH), 100, np.uint8)
    limited = bgr(frame_of(message("yuyv", rows)))
    full = bgr(frame_of(message("yuyv", rows), ColorStandard.BT601_FULL))
    assert not np.array_equal(limited, full)


def test_bytes_are_not_copied_and_come_in_any_container() -> None:
    grey = noise()[:, :, 0]
    data = array.array("B", grey.tobytes())
    frame = frame_of(message("mono8", grey, data=data))
    assert np.shares_memory(frame.data, np.frombuffer(data, np.uint8))
    as_list = frame_of(message("mono8", grey, data=list(grey.tobytes())))
    np.testing.assert_array_equal(bgr(as_list), bgr(frame))


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("bayer_rggb8", "image_proc debayer"),
        ("bayer_bggr16", "image_proc debayer"),
        ("32FC1", "can't use images encoded as '32FC1', but these: bgr8"),
        ("nv21", "can't use"),
        ("", "can't use"),
    ],
)
def test_other_encodings_are_refused_with_a_way_out(encoding, words) -> None:
    with pytest.raises(ImageError, match=words):
        frame_of(message(encoding, flat(noise())))


@pytest.mark.parametrize(
    "changed",
    [
        {"step": 3 * WIDTH - 1},
        {"height": HEIGHT + 1},
        {"height": 0},
        {"width": 0},
        {"data": b""},
        {"data": None},
        {"data": [300]},
        {"data": "text"},
    ],
)
@pytest.mark.parametrize("encoding", ["bgr8", "bgra8", "mono16", "nv12", "uyvy"])
def test_messages_that_contradict_themselves_are_refused(encoding, changed) -> None:
    per_pixel = {"bgr8": 3, "bgra8": 4, "mono16": 2, "nv12": 1, "uyvy": 2}[encoding]
    rows = HEIGHT * 3 // 2 if encoding == "nv12" else HEIGHT
    whole = message(encoding, np.zeros((rows, WIDTH * per_pixel), np.uint8))
    frame_of(whole)
    if "step" in changed:
        changed = {"step": WIDTH * per_pixel - 1}
    with pytest.raises(ImageError):
        frame_of(SimpleNamespace(**{**vars(whole), **changed}))


@given(
    encoding=st.sampled_from(["bgr8", "rgba8", "mono16", "nv12", "uyvy", "yuyv"]),
    height=st.integers(-1, 9),
    width=st.integers(-1, 9),
    step=st.integers(0, 50),
    size=st.integers(0, 400),
)
def test_any_numbers_give_a_frame_or_a_refusal(encoding, height, width, step, size) -> None:
    given_message = SimpleNamespace(
        header=None, height=height, width=width, encoding=encoding, is_bigendian=0, step=step,
        data=bytes(size),
    )  # fmt: skip
    try:
        frame = frame_of(given_message)
    except ImageError:
        return
    assert bgr(frame).shape == (height, width, 3)


# ---------------------------------------------------------------- answering


class Classifier:
    """Hands futures out, and lets the test decide what becomes of them."""

    def __init__(self) -> None:
        self.futures: list[Future] = []
        self.deadline = None

    def submit(self, frame, region=None, *, deadline=None):
        self.deadline = deadline
        self.futures.append(Future())
        return self.futures[-1]


class Prediction:
    def top(self, k):
        return [SimpleNamespace(label=f"bird {i}", confidence=0.5**i) for i in range(k)]


@pytest.fixture
def classified():
    classifier, published, said = Classifier(), [], []
    made = MessageClassifier(
        classifier,
        lambda header, answers: published.append((header, answers)),
        warn=said.append,
        top_k=2,
        deadline=0.5,
    )
    return SimpleNamespace(made=made, classifier=classifier, published=published, said=said)


def test_answers_go_out_under_their_own_header(classified) -> None:
    for header in ("first", "second"):
        classified.made.submit(message("bgr8", flat(noise()), header=header))
    classified.classifier.futures[0].set_exception(SupersededError("a newer frame came"))
    classified.classifier.futures[1].set_result(Prediction())
    assert classified.published == [("second", [("bird 0", 1.0), ("bird 1", 0.5)])]
    counters = classified.made.counters
    assert (counters.received, counters.answered, counters.superseded) == (2, 1, 1)
    assert classified.classifier.deadline == 0.5
    assert classified.said == []


def test_the_same_failure_is_logged_once_until_it_works_again(classified) -> None:
    bayer, good = message("bayer_rggb8", flat(noise())), message("bgr8", flat(noise()))
    for _ in range(3):
        classified.made.submit(bayer)
    assert len(classified.said) == 1
    classified.made.submit(good)
    classified.classifier.futures[0].set_result(Prediction())
    classified.made.submit(bayer)
    assert len(classified.said) == 2
    classified.made.submit(good)
    classified.classifier.futures[1].set_exception(BackendError("the GPU is lost"))
    assert classified.said[2] == "the GPU is lost"
    assert classified.made.counters.failed == 5


def test_a_real_classifier_answers(tiny_bundle) -> None:
    pytest.importorskip("onnxruntime")
    import edge_fg

    done = threading.Event()
    published = []

    def publish(header, answers):
        published.append((header, answers))
        done.set()

    with edge_fg.load(tiny_bundle) as classifier:
        classified = MessageClassifier(classifier, publish, warn=pytest.fail, top_k=3)
        classified.submit(message("rgb8", flat(noise()[:, :, ::-1])))
        assert done.wait(30)
        wanted = classifier(noise())
    assert published == [("h", [(a.label, a.confidence) for a in wanted.top(3)])]


def test_top_k_below_one_is_refused() -> None:
    with pytest.raises(UsageError, match="top_k"):
        MessageClassifier(Classifier(), print, warn=print, top_k=0)
