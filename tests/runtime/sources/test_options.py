"""Options behind names and as keywords; flips; cameras' raw bytes; schemes of packages."""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_fg.errors import SourceError, UsageError
from edge_fg.pipeline import Pipeline
from edge_fg.preprocess.pixel_layout import PixelFormat, PixelLayout
from edge_fg.preprocess.raw_frame import RawFrame
from edge_fg.preprocess.yuv import ColorStandard
from edge_fg.sources import Frame, SourceOptions, open_source, parse_source
from edge_fg.sources.flip import NVVIDCONV_METHODS, flipped, flipped_size
from edge_fg.sources.live.connection import CorruptedData
from edge_fg.sources.live.opencv_connection import OpenCVConnection
from edge_fg.sources.live.v4l2_csi import (
    check_possible,
    csi_pipeline,
    fourcc_text,
    v4l2_pipeline,
)
from edge_fg.sources.options import FLIPS, OPTION_NAMES, SourceKeywords, parse_options

cv2 = pytest.importorskip("cv2")


# ---------------------------------------------------------------- behind a name


@pytest.mark.parametrize(
    ("text", "target", "options"),
    [
        ("0?width=1280&height=720&fps=30", 0, {"size_wh": (1280, 720), "fps": 30.0}),
        ("/dev/video2?codec=mjpeg", "/dev/video2", {"codec": "mjpeg"}),
        ("v4l2:///dev/video0?raw=1&codec=yuyv", "/dev/video0", {"raw": True, "codec": "yuyv"}),
        ("v4l2://3?fps=29.97", 3, {"fps": 29.97}),
        ("csi://1?flip=rotate-180&wait=1", 1, {"flip": "rotate-180", "wait": True}),
        ("csi://0?reconnect=none&frozen_after=none", 0, {"reconnect": None, "frozen_after": None}),
        ("rtsp://u:p@cam/x?flip=vertical", "rtsp://u:p@cam/x?flip=vertical", {}),
        ("rtsp://u:p@cam/x?ch=1#timeout=5", "rtsp://u:p@cam/x?ch=1", {"timeout": 5.0}),
        (
            "http://cam/x#flip=vertical&reconnect=3",
            "http://cam/x",
            {"flip": "vertical", "reconnect": 3},
        ),
        ("rtsp://u:p#ss@cam/x", "rtsp://u:p#ss@cam/x", {}),
        ("http://cam/x#part", "http://cam/x#part", {}),
        ("-", "-", {}),
    ],
)
def test_options_behind_a_name(text: str, target: object, options: dict[str, object]) -> None:
    described = parse_source(text)
    assert described.target == target
    assert described.options == options
    assert "?" not in described.name or described.kind == "stream"


def test_options_behind_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 4), (200, 0, 0)).save("a.png")
    Image.new("RGB", (8, 4), (0, 0, 200)).save("b b.png")
    (tmp_path / "b b.png").rename(tmp_path / "b%20b.png")
    Image.new("RGB", (8, 4), (0, 0, 200)).save("c d.png")
    for text, path in (
        ("a.png?flip=clockwise", "a.png"),
        (f"file://{tmp_path}/a.png?flip=clockwise", f"{tmp_path}/a.png"),
        (f"file://{tmp_path}/c%20d.png?flip=clockwise", f"{tmp_path}/c d.png"),
        (f"file://{tmp_path}/b%20b.png?flip=clockwise", f"{tmp_path}/b%20b.png"),
        ("?.png?flip=clockwise", "?.png"),
        (".?flip=clockwise", "."),
    ):
        described = parse_source(text)
        assert described.target == path
        assert described.options == {"flip": "clockwise"}
        with open_source(text) as source:
            assert {frame.size_wh for frame in source} == {(4, 8)}
    # A file of just that name is meant before anything else.
    (tmp_path / "a.png").rename(tmp_path / "a.png?flip=clockwise.png")
    assert parse_source("a.png?flip=clockwise.png").options == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0?foo=1", "has no option 'foo'"),
        ("0?width=640", "width and height go together"),
        ("0?fps=30&fps=25", "is given twice"),
        ("0?fps", "has no value"),
        ("0?fps=fast", "makes no sense"),
        ("0?fps=nan", "makes no sense"),
        ("0?fps=1e3", "makes no sense"),
        ("0?raw=maybe", "makes no sense"),
        ("0?width=99999&height=9", "size_wh must be"),
        ("0?buffer=0", "buffer must be"),
        ("csi://0?flip=left", "flip must be one of none, counterclockwise"),
        ("v4l2://0?codec=vp8", "codec must be one of"),
        ("csi://0?codec=h264", "gives nv12, not h264"),
        ("v4l2://0?codec=mjpeg&raw=1", "must be decoded"),
        ("v4l2://0?raw=1&flip=vertical", "raw frames can't be turned"),
        ("rtsp://u:geheim@127.0.0.1:9/x#foo=geheim", "has no option 'foo'"),
        ("http://u:geheim@127.0.0.1:9/x#fps=30", "set them in the camera"),
    ],
)
def test_options_that_make_no_sense(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        open_source(text)
    assert "geheim" not in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=60))
def test_any_query_gives_options_or_an_error(query: str) -> None:
    try:
        SourceOptions().merged(parse_options(query, "camera"))
    except UsageError as error:
        assert "camera" in str(error) or "must be" in str(error)
    else:
        assert all(pair == "" or "=" in pair for pair in query.split("&"))


@pytest.mark.parametrize(
    "options",
    [
        {"flip": "left"},
        {"codec": "x264"},
        {"reconnect": -1},
        {"reconnect": True},
        {"buffer": 0},
        {"backoff": (0.0, 1.0)},
        {"backoff": (2.0, 1.0)},
        {"frozen_after": 0.0},
        {"black_after": float("inf")},
    ],
)
def test_keywords_that_make_no_sense(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        open_source(0, **options)


def test_keywords_and_options_behind_a_name_are_the_fields_of_source_options() -> None:
    assert get_type_hints(SourceKeywords) == get_type_hints(SourceOptions)
    written = OPTION_NAMES - {"width", "height"} | {"size_wh", "backoff"}
    assert written == set(get_type_hints(SourceOptions))
    options = SourceOptions(flip="clockwise", timeout=3)
    with open_source([np.zeros((4, 8, 3), np.uint8)], options) as source:
        assert next(source).size_wh == (4, 8)
    with open_source([np.zeros((4, 8, 3), np.uint8)], options, flip="none") as source:
        assert next(source).size_wh == (8, 4)
    with pytest.raises(UsageError, match="no option 'tiemout': choose from size_wh, fps, timeout"):
        open_source(0, tiemout=5)


def test_options_behind_a_name_override_keywords(tmp_path: Path) -> None:
    Image.new("RGB", (8, 4)).save(tmp_path / "a.png")
    with open_source(f"{tmp_path / 'a.png'}?flip=none", flip="clockwise") as source:
        assert next(source).size_wh == (8, 4)


# ---------------------------------------------------------------- flips


def test_flips_are_what_opencv_makes_of_them() -> None:
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    oracle = {
        "none": image,
        "counterclockwise": cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
        "rotate-180": cv2.rotate(image, cv2.ROTATE_180),
        "clockwise": cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
        "horizontal": cv2.flip(image, 1),
        "vertical": cv2.flip(image, 0),
        "upper-left-diagonal": cv2.transpose(image),
        "upper-right-diagonal": cv2.flip(cv2.transpose(image), -1),
    }
    assert set(oracle) == set(FLIPS) == set(NVVIDCONV_METHODS)
    for flip in FLIPS:
        turned = flipped(image, flip)
        np.testing.assert_array_equal(turned, oracle[flip])
        assert turned.flags.c_contiguous
        assert flipped_size((6, 4), flip) == (turned.shape[1], turned.shape[0])


@pytest.mark.parametrize("flip", FLIPS)
def test_every_kind_of_source_flips(tmp_path: Path, flip: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    writer = cv2.VideoWriter(
        str(tmp_path / "a.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 5.0, (48, 32)
    )
    writer.write(image)
    writer.release()
    Image.fromarray(image[:, :, ::-1]).save(tmp_path / "a.png")
    for source in ([image], tmp_path / "a.png", tmp_path / "a.avi"):
        with open_source(source) as plain, open_source(source, flip=flip) as turned:
            frame = next(turned)
            if turned.size_wh is not None:
                assert turned.size_wh == frame.size_wh
            np.testing.assert_array_equal(frame.image, flipped(next(plain).image, flip))


# ---------------------------------------------------------------- pipelines


@given(
    st.integers(0, 999),
    st.none() | st.tuples(st.integers(1, 16384), st.integers(1, 16384)),
    st.none() | st.floats(0.001, 1000),
    st.sampled_from(FLIPS),
    st.booleans(),
)
def test_csi_pipelines_hold_nothing_but_what_was_checked(
    sensor: int, size_wh: tuple[int, int] | None, fps: float | None, flip: Any, raw: bool
) -> None:
    options = SourceOptions(size_wh=size_wh, fps=fps, flip=flip, raw=raw)
    text = csi_pipeline(sensor, options)
    end = r"format=NV12" if raw else r"format=BGRx ! videoconvert ! video/x-raw, format=BGR"
    pattern = (
        rf"nvarguscamerasrc sensor-id={sensor} ! video/x-raw\(memory:NVMM\), width=(\d+), "
        r"height=(\d+), format=NV12, framerate=(\d+)/(\d+) ! "
        rf"nvvidconv flip-method={NVVIDCONV_METHODS[flip]} ! video/x-raw, {end} ! "
        r"appsink drop=true max-buffers=1 sync=false"
    )
    match = re.fullmatch(pattern, text)
    assert match
    assert (int(match[1]), int(match[2])) == (size_wh or (1920, 1080))
    assert int(match[3]) >= 1
    assert int(match[3]) / int(match[4]) == pytest.approx(fps or 30, rel=0.001, abs=0.001)


def test_v4l2_pipelines() -> None:
    options = SourceOptions(codec="h264", size_wh=(1280, 720), fps=30)
    assert v4l2_pipeline("/dev/video0", options) == (
        "v4l2src device=/dev/video0 ! video/x-h264, width=1280, height=720, framerate=30/1 ! "
        "h264parse ! decodebin ! videoconvert ! video/x-raw, format=BGR ! "
        "appsink drop=true max-buffers=1 sync=false"
    )
    for device in ("/dev/video0 ! filesink location=x", "/dev/videoX", "/etc/passwd", "0"):
        with pytest.raises(UsageError):
            v4l2_pipeline(device, options)
    with pytest.raises(UsageError):
        csi_pipeline(-1, SourceOptions())


def test_an_encoded_camera_needs_gstreamer() -> None:
    if cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        pytest.skip("this OpenCV has GStreamer")
    with pytest.raises(SourceError, match="needs an OpenCV with GStreamer for h264"):
        open_source("v4l2:///dev/video0?codec=h264", wait=True)


# ---------------------------------------------------------------- a camera of OpenCV's


def jpeg_of(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", pixels)[1].tobytes()


class FakeCapture:
    """Stands for cv2.VideoCapture on a V4L2 camera, as far as we use it."""

    def __init__(self, fourcc: str, size_wh: tuple[int, int] = (8, 4)) -> None:
        self.fourcc, self.size_wh = fourcc, size_wh
        self.asked: list[tuple[int, float]] = []
        self.convert = True
        self.opened = self.plugged = True
        self.stamp_ms = 0.0
        self.jpeg = jpeg_of(np.zeros((size_wh[1], size_wh[0], 3), np.uint8))

    def __call__(self, target: object, backend: int) -> FakeCapture:
        return self

    def isOpened(self) -> bool:  # noqa: N802
        return self.opened

    def set(self, prop: int, value: float) -> bool:
        self.asked.append((prop, value))
        if prop == cv2.CAP_PROP_CONVERT_RGB:
            self.convert = bool(value)
        return True

    def get(self, prop: int) -> float:
        return {
            cv2.CAP_PROP_FRAME_WIDTH: self.size_wh[0],
            cv2.CAP_PROP_FRAME_HEIGHT: self.size_wh[1],
            cv2.CAP_PROP_FPS: 30.0,
            cv2.CAP_PROP_FOURCC: float(cv2.VideoWriter.fourcc(*self.fourcc)),
            cv2.CAP_PROP_POS_MSEC: self.stamp_ms,
        }.get(prop, 0.0)

    def grab(self) -> bool:
        return self.plugged

    def retrieve(self) -> tuple[bool, np.ndarray]:
        width, height = self.size_wh
        if self.fourcc == "MJPG" and not self.convert:
            return True, np.frombuffer(self.jpeg + bytes(500), np.uint8)[
                None
            ]  # a buffer of its own
        if self.convert:
            return True, np.zeros((height, width, 3), np.uint8)
        shape = (height * 3 // 2, width) if self.fourcc == "NV12" else (height, width, 2)
        return True, np.random.default_rng(1).integers(0, 256, shape, np.uint8)

    def release(self) -> None:
        self.opened = False


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    def put(fourcc: str, **attributes: Any) -> FakeCapture:
        made = FakeCapture(fourcc, **attributes)
        monkeypatch.setattr(cv2, "VideoCapture", made)
        return made

    return put


@pytest.mark.parametrize(("fourcc", "form"), [("YUYV", "yuyv"), ("NV12", "nv12")])
def test_raw_frames_of_a_v4l2_camera(fake: Any, fourcc: str, form: str) -> None:
    capture = fake(fourcc)
    with open_source(0, raw=True, codec=form) as source:
        frame = next(source)
    assert isinstance(frame.pixels, RawFrame)
    expected = PixelLayout(PixelFormat(form), 4, 8, standard=ColorStandard.BT601_LIMITED)
    assert frame.pixels.layout == expected
    assert frame.size_wh == (8, 4)
    _, image = capture.retrieve()
    oracle = expected.to_bgr(np.ascontiguousarray(image).reshape(-1))
    np.testing.assert_array_equal(frame.image, oracle)
    assert capture.asked[0][0] == cv2.CAP_PROP_FOURCC


def test_a_camera_that_sends_something_else_is_decoded_and_that_is_said(
    fake: Any, caplog: pytest.LogCaptureFixture
) -> None:
    fake("MJPG")
    with open_source(0, raw=True, size_wh=(640, 480), codec="nv12") as source:
        frame = next(source)
    assert frame.image.shape == (4, 8, 3)
    assert isinstance(frame.pixels, np.ndarray)
    for said in ("sends MJPG, not nv12", "is decoded, not kept raw", "not the 640 x 480 asked for"):
        assert said in caplog.text


def test_a_jpeg_of_a_camera_that_lost_data_is_left_out(
    fake: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    capture = fake("MJPG", size_wh=(160, 120))
    noise = np.random.default_rng(1).integers(0, 256, (120, 160, 3), np.uint8)
    good = jpeg_of(noise)
    middle = len(good) // 2
    extra = good[:-2] + b"\1\2\3\4" * 3 + good[-2:]
    lost = good[:middle] + good[middle + 600 :]
    connection = OpenCVConnection(parse_source(0), SourceOptions())
    connection.open()
    for data, whole in ((good, True), (lost, False), (good[:middle], False), (extra, True)) * 2:
        capture.jpeg = data
        shot = connection.read().decode()
        assert isinstance(shot, CorruptedData) is not whole
        if whole:
            np.testing.assert_array_equal(shot.pixels, cv2.imdecode(np.frombuffer(good, "u1"), 1))
    assert [record.getMessage() for record in caplog.records] == [
        "/dev/video0 sends JPEGs with a few bytes too many in the data: they are used"
    ]
    assert capfd.readouterr().err == ""


def test_raw_bytes_of_the_wrong_length_are_no_frame(fake: Any) -> None:
    capture = fake("NV12")
    connection = OpenCVConnection(parse_source(0), SourceOptions(raw=True))
    connection.open()
    capture.retrieve = lambda: (True, np.zeros((4, 8), np.uint8))
    assert isinstance(connection.read().decode(), CorruptedData)
    capture.retrieve = lambda: (False, None)
    assert isinstance(connection.read().decode(), CorruptedData)
    connection.close()
    connection.close()


def test_the_kernels_time_stamp_is_the_time_of_capture(
    fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    capture = fake("MJPG")
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda number: True)
    connection = OpenCVConnection(parse_source(0), SourceOptions())
    connection.open()
    for before, used in ((0.08, True), (-3.0, False), (1000.0, False)):
        earliest = time.monotonic()
        capture.stamp_ms = (earliest - before) * 1000
        shot = connection.read().decode()
        late = before if used else 0
        assert earliest - 1e-6 <= shot.captured + late <= time.monotonic()
    connection.close()


def test_a_csi_camera_turns_its_images_itself(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda number: True)
    capture = fake("NV12")
    opened: list[str] = []
    monkeypatch.setattr(cv2, "VideoCapture", lambda text, backend: opened.append(text) or capture)
    image = np.random.default_rng(2).integers(0, 256, (4, 8, 3), np.uint8)
    capture.retrieve = lambda: (True, image)
    with open_source("csi://0?flip=rotate-180", frozen_after=None) as source:
        np.testing.assert_array_equal(next(source).image, image)
    assert "flip-method=2" in opened[0]
    capture = fake("NV12")
    capture.convert = False
    monkeypatch.setattr(cv2, "VideoCapture", lambda text, backend: opened.append(text) or capture)
    with open_source("csi://1?raw=1&width=8&height=4", frozen_after=None) as source:
        frame = next(source)
    assert "format=NV12 ! appsink" in opened[1]
    assert isinstance(frame.pixels, RawFrame)
    assert frame.size_wh == (8, 4)


def test_an_unplugged_camera_comes_back(fake: Any) -> None:
    capture = fake("MJPG")
    with open_source(0, backoff=(0.01, 0.02), frozen_after=None) as source:
        states: list[str] = []
        source.on_state(lambda change: states.append(change.state))
        next(source)

        def plug() -> None:
            capture.plugged = capture.opened = True

        capture.plugged = False
        timer = threading.Timer(0.2, plug)
        timer.start()
        while source.counters["reconnects"] == 0:
            next(source)
        timer.join()
        assert source.state == "live"
        assert [state for state in states if state != "live"][:2] == ["lost", "connecting"]


NAMES = ["by-id/usb-046d_HD_Webcam_C920-video-index0", "by-path/pci-0000:01:00.0-usb-0:1.3:1.0"]


@pytest.mark.parametrize("name", [*NAMES, "nestbox"])
def test_a_link_to_a_device_is_a_camera(tmp_path: Path, name: str) -> None:
    link = tmp_path / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to("/dev/null")
    for text in (str(link), link, f"v4l2://{link}", f"file://{link}", f"{link}?codec=mjpeg"):
        described = parse_source(text)
        assert (described.kind, described.name) == ("camera", str(link))
    assert parse_source(f"v4l2://{link}?fps=5").options == {"fps": 5.0}


@pytest.mark.parametrize(
    "name", ["/dev/nestbox", "/dev/cams/front", *(f"/dev/v4l/{name}" for name in NAMES)]
)
def test_an_unplugged_camera_is_one_by_its_lasting_name(name: str, fake: Any) -> None:
    for text in (name, f"v4l2://{name}", f"{name}?width=640&height=480"):
        assert (parse_source(text).kind, parse_source(text).name) == ("camera", name)
    fake("MJPG").opened = False
    with pytest.raises(SourceError, match="is it plugged in") as caught:
        open_source(name)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["/dev/shm/none.mp4", "/dev/shm/none", "/dev/none.jpg", "/dev"])
def test_other_names_in_dev_are_files(name: str) -> None:
    with pytest.raises(SourceError, match=r"no file or directory|neither .* holds"):
        open_source(name)
    with pytest.raises(SourceError, match="names no camera"):
        parse_source("v4l2:///etc/passwd")


def test_a_camera_that_was_plugged_in_again_is_found_at_its_new_device(
    fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "nestbox"
    opened: list[object] = []

    def capture(target: object, backend: int) -> FakeCapture:
        opened.append(target)
        made = FakeCapture("MJPG")
        made.opened = str(target).startswith("/dev/")
        made.plugged = str(target) != "/dev/null"
        if target == "/dev/null":  # unplugged as soon as it was opened
            link.unlink()
        elif not made.opened:  # and plugged in again
            link.symlink_to("/dev/zero")
        return made

    link.symlink_to("/dev/null")
    monkeypatch.setattr(cv2, "VideoCapture", capture)
    with open_source(link, backoff=(0.01, 0.02), frozen_after=None) as source:
        next(source)
        assert source.name == str(link)
    assert opened == ["/dev/null", str(link), "/dev/zero"]


def test_an_encoded_camera_is_named_by_its_device_in_the_pipeline(
    fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda number: True)
    link = tmp_path / "usb-camera ! filesink location=x"
    description, options = parse_source(f"v4l2://{link}"), SourceOptions(codec="h264")
    check_possible(description, options)  # it may be plugged in later
    opened: list[str] = []
    made = fake("MJPG")
    monkeypatch.setattr(cv2, "VideoCapture", lambda text, backend: opened.append(text) or made)
    connection = OpenCVConnection(description, options)
    with pytest.raises(SourceError, match="is it plugged in"):
        connection.open()
    (tmp_path / "passwd").touch()
    link.symlink_to(tmp_path / "passwd")
    with pytest.raises(SourceError, match="can't open the camera"):
        connection.open()
    link.unlink()
    link.symlink_to("/dev/null")
    connection.open()
    (text,) = opened
    assert text.startswith("v4l2src device=/dev/null ! video/x-h264 ! h264parse")


def test_codes_of_formats() -> None:
    assert fourcc_text(float(cv2.VideoWriter.fourcc(*"YUYV"))) == "YUYV"
    assert fourcc_text(0.0) == fourcc_text(-1.0) == fourcc_text(1.0) == ""


def test_what_no_try_can_mend_is_found_before_the_first() -> None:
    with pytest.raises(UsageError):
        check_possible(parse_source("0?codec=mjpeg"), SourceOptions(codec="mjpeg", raw=True))


# ---------------------------------------------------------------- several, and other things


def test_of_several_sources_all_are_opened_or_none(tmp_path: Path) -> None:
    closed: list[int] = []

    class Frames:
        def __iter__(self) -> Frames:
            return self

        def __next__(self) -> np.ndarray:
            raise StopIteration

        def close(self) -> None:
            closed.append(1)

    with pytest.raises(SourceError, match=r"missing\.png"):
        Pipeline([Frames(), str(tmp_path / "missing.png")], lambda image: image)
    assert closed == [1]


def test_raw_frames_and_frames_of_an_iterable() -> None:
    layout = PixelLayout(PixelFormat.NV12, 4, 8, standard=ColorStandard.BT601_LIMITED)
    raw = RawFrame(np.arange(layout.nbytes, dtype=np.uint8), layout)
    image = np.full((4, 8, 3), 7, np.uint8)
    given_frame = Frame(image, number=77, source="elsewhere", position=1.5, captured=12.0)
    with open_source([raw, given_frame, image]) as source:
        first, second, third = source
    assert first.pixels is raw
    assert (second.number, second.source, second.position, second.captured) == (
        1,
        "frames",
        1.5,
        12.0,
    )
    assert third.number == 2
    with open_source([raw], flip="vertical") as source, pytest.raises(UsageError, match="raw"):
        next(source)


def test_sources_without_a_connection_are_live_until_they_end(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    for thing in ([np.zeros((4, 4, 3), np.uint8)], tmp_path / "a.png"):
        with open_source(thing) as source:
            states: list[str] = []
            source.on_state(lambda change: states.append(change.state))  # noqa: B023
            assert source.state == "live"
            list(source)
            assert source.state == "ended"
            assert source.counters["frames"] == 1
        assert states == ["ended"]


def test_a_scheme_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "meadow_package.py"
    package.write_text(
        "import numpy as np\n"
        "from edge_fg.sources.files import IterableSource\n"
        "def open_meadow(uri, options):\n"
        "    return IterableSource([np.zeros((2, 3, 3), np.uint8)], name=uri, flip=options.flip)\n"
    )
    info = tmp_path / "meadow-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: meadow\nVersion: 1.0\n")
    points = "[edge_fg.sources]\nmeadow = meadow_package:open_meadow\ngone = no_such_module:x\n"
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)
    with open_source("meadow://1?seed=3", flip="clockwise") as source:
        assert source.name == "meadow://1?seed=3"
        assert next(source).size_wh == (2, 3)
    with pytest.raises(SourceError, match="no_such_module:x, which can't be imported"):
        open_source("gone://")
    with pytest.raises(SourceError, match=r"wood:// .* is not known"):
        open_source("wood://")
    sys.modules.pop("meadow_package")
