"""Sources of frames: naming them, opening them, reading each frame once."""

from __future__ import annotations

import logging
import os
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_fg.errors import (
    ImageError,
    MissingDependencyError,
    SourceError,
    TruncatedSourceError,
    UsageError,
)
from edge_fg.images import read_image
from edge_fg.sources import Frame, Source, open_source, parse_source, redact
from edge_fg.sources.folders import natural_order
from edge_fg.sources.live.v4l2_csi import csi_pipeline
from edge_fg.sources.options import SourceOptions

cv2 = pytest.importorskip("cv2")

FRAMES = 60
MakeVideo = Callable[..., Path]


@pytest.fixture(scope="module")
def make_video(tmp_path_factory: pytest.TempPathFactory) -> MakeVideo:
    """Write a clip in which each frame shows its number, in black and white blocks."""

    def make(name: str, codec: str, frames: int = FRAMES) -> Path:
        path = tmp_path_factory.mktemp("videos") / name
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 20.0, (64, 48))
        assert writer.isOpened()
        for number in range(frames):
            bits = (number >> np.arange(8).reshape(2, 4)) & 1
            image = np.zeros((48, 64, 3), np.uint8)
            image[:32, :32] = np.kron(255 * bits, np.ones((16, 8)))[:, :, None]
            # Noise gives every frame a size, so that cutting the file cuts frames.
            image[:, 32:] = np.random.default_rng(number).integers(0, 256, (48, 32, 3))
            writer.write(image)
        writer.release()
        return path

    return make


@pytest.fixture(scope="module")
def avi(make_video: MakeVideo) -> Path:
    return make_video("clip.avi", "MJPG")


@pytest.fixture(scope="module")
def mp4(make_video: MakeVideo) -> Path:
    return make_video("clip.mp4", "mp4v")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A directory as a camera leaves it: three images, a broken one, and other things."""
    folder = tmp_path / "DCIM"
    folder.mkdir()
    for number in (1, 9, 10):
        Image.new("RGB", (6, 4), (number, 0, 0)).save(folder / f"IMG_{number}.JPG")
    (folder / "IMG_2.jpg").write_bytes(b"not an image")
    (folder / "._IMG_1.JPG").write_bytes(b"left by a file manager")
    (folder / "notes.txt").write_text("notes")
    (folder / "sub.jpg").mkdir()
    return folder


def shown_number(image: np.ndarray) -> int:
    means = image[:32, :32].reshape(2, 16, 4, 8, 3).mean(axis=(1, 3, 4))
    return int(((means > 128) << np.arange(8).reshape(2, 4)).sum())


def read_all(source: object, **options: object) -> list[Frame]:
    with open_source(source, **options) as opened:
        return list(opened)


def read_until_error(path: Path) -> tuple[int, str]:
    frames: list[Frame] = []
    with open_source(path) as video, pytest.raises(TruncatedSourceError) as caught:
        frames.extend(video)
    return len(frames), str(caught.value)


# ---------------------------------------------------------------- naming


@pytest.mark.parametrize(
    ("text", "kind", "target"),
    [
        (0, "camera", 0),
        ("2", "camera", 2),
        ("/dev/video0", "camera", "/dev/video0"),
        ("v4l2:///dev/video3", "camera", "/dev/video3"),
        ("v4l2://1", "camera", 1),
        ("csi://0", "csi", 0),
        ("CSI://1", "csi", 1),
        ("rtsp://u:p@cam:554/live", "stream", "rtsp://u:p@cam:554/live"),
        ("http://cam/mjpeg", "stream", "http://cam/mjpeg"),
        ("*.jpg", "glob", "*.jpg"),
    ],
)
def test_kinds(text: str | int, kind: str, target: str | int) -> None:
    description = parse_source(text)
    assert (description.kind, description.target) == (kind, target)


def test_kinds_of_files(images: Path, mp4: Path, tmp_path: Path) -> None:
    assert parse_source(str(mp4)).kind == parse_source(mp4).kind == "video"
    assert parse_source(images).kind == "directory"
    assert parse_source(images / "IMG_1.JPG").kind == "image"
    assert parse_source([images / "IMG_1.JPG", str(images / "IMG_9.JPG")]).kind == "images"
    spaced = tmp_path / "a 100% b.mp4"
    spaced.touch()
    for uri in (f"file://{spaced}", spaced.as_uri(), f"file://localhost{spaced}"):
        assert parse_source(uri).target == str(spaced)
    brackets = tmp_path / "a[1].jpg"
    brackets.touch()
    assert parse_source(brackets).kind == "image"


def test_relative_file_uri_and_home(
    tmp_path: Path, mp4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(mp4, tmp_path / "x.mp4")
    monkeypatch.chdir(tmp_path)
    assert parse_source("file://x.mp4").target == "x.mp4"
    assert len(read_all("x.mp4")) == FRAMES
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_source("~/x.mp4").target == str(tmp_path / "x.mp4")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "empty"),
        ("no/such.mp4", "there is no file or directory no/such.mp4"),
        ("ftp://u:secret@host/x", "ftp:// in ftp://host/x is not known"),
        ("csi://left", "csi://0"),
        ("v4l2://front", "v4l2:///dev/video0"),
        ("rtsp://", "names no host"),
        ("rtsp://u:secret@/x", "names no host"),
        ("rtsp://u:secret@host/\udcff", "not UTF-8"),
        ("http://host/\udcff", "not UTF-8"),
        (-1, "numbered from 0"),
        (True, "not a source"),
        (1.5, "float is not a source"),
        ([], "is empty"),
        ("a\0b", "null character"),
        ("admin:secret@host:554/x", r"\*\*\*"),
        ("x" * 5000, "File name too long"),
    ],
)
def test_what_names_nothing(source: object, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        parse_source(source)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        *(
            "~\0/x.jpg",
            "*\0.jpg",
            "http://cam\0/live",
            "rtsp://cam\0.example/",
            "rtsp://u:p\0w@cam/",
        ),
        *(
            "csi://\0",
            "v4l2://\0",
            "fieldguide://?seed=1\0",
            "file:///clip%00.mp4",
            Path("a\0.mp4"),
        ),
    ],
)
def test_a_null_character_is_said_in_one_line(source: str | Path) -> None:
    with pytest.raises((SourceError, UsageError)) as caught:
        open_source(source)
    message = str(caught.value)
    assert message.isprintable()
    assert "p\\x00w" not in message


def test_a_file_of_an_unknown_kind(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(SourceError, match=r"neither an image nor a video .*\.txt"):
        open_source(tmp_path / "notes.txt")


@given(st.text(max_size=40))
def test_parsing_gives_a_description_or_an_error(text: str) -> None:
    try:
        description = parse_source(text)
    except (SourceError, UsageError) as error:
        assert "\n" not in str(error)
    else:
        assert description.name


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("rtsp://cam:554/live/1", "rtsp://cam:554/live/1"),
        ("rtsp://admin:pa55@cam:554/live", "rtsp://cam:554/live"),
        ("rtsp://admin:p@ss@cam/live", "rtsp://cam/live"),
        ("http://[fe80::1]:80/x", "http://[fe80::1]:80/x"),
        ("rtsp://cam/x?channel=1&subtype=0", "rtsp://cam/x?channel=1&subtype=0"),
        ("http://cam/x?user=a&pwd=b&channel=2", "http://cam/x?user=***&pwd=***&channel=2"),
        ("http://cam/x?pa55", "http://cam/x?***"),
        ("rtsp://cam/user=admin_password=pa55_channel=1.sdp", "rtsp://cam/***"),
        ("rtsp://cam/x#pa55", "rtsp://cam/x"),
        ("rtsp://admin:pa/ss@cam/live", "rtsp://***"),
        ("http://cam/x?user=me@home&pwd=pa55", "http://***"),
        ("admin:pa55@cam/live", "***"),
        ("clip.mp4", "clip.mp4"),
        ("csi://0", "csi://0"),
    ],
)
def test_redaction(uri: str, shown: str) -> None:
    assert redact(uri) == shown


SECRET = st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=12).map(
    # A mark that can't occur in what may be shown.
    lambda text: f"Q{text}ZZ9"
)


@given(user=SECRET, password=SECRET, escaped=st.booleans(), tail=st.sampled_from(["", "/x?y=1"]))
def test_no_credentials_survive_redaction(
    user: str, password: str, escaped: bool, tail: str
) -> None:
    write = partial(quote, safe="") if escaped else str
    uri = f"rtsp://{write(user)}:{write(password)}@cam:554{tail}"
    description = parse_source(uri)
    for shown in (redact(uri), description.name, repr(description)):
        assert "ZZ9" not in shown
        assert write(user) not in shown


@given(key=st.sampled_from(["password", "PWD", "token", "x", "auth", "loginpas"]), value=SECRET)
def test_no_secret_of_a_query_survives_redaction(key: str, value: str) -> None:
    assert "ZZ9" not in redact(f"http://cam:80/x?channel=1&{key}={value}")


def test_redacting_twice_changes_nothing_more() -> None:
    once = redact("http://a:b@cam/x?user=me&channel=1")
    assert redact(once) == once == "http://cam/x?user=***&channel=1"


# ---------------------------------------------------------------- images


def test_an_image(images: Path) -> None:
    path = images / "IMG_10.JPG"
    (frame,) = read_all(str(path))
    assert (frame.number, frame.source, frame.time, frame.position) == (0, str(path), None, None)
    np.testing.assert_array_equal(frame.image, read_image(path))


def test_a_directory_in_natural_order_passes_over_what_is_broken(
    images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "edge_fg"), open_source(images) as source:
        frames = list(source)
    names = [Path(frame.source).name for frame in frames]
    assert names == ["IMG_1.JPG", "IMG_9.JPG", "IMG_10.JPG"]
    assert [frame.number for frame in frames] == [0, 1, 2]
    assert source.frame_count == 4
    assert not source.live
    (skipped,) = source.skipped
    assert isinstance(skipped, ImageError)
    assert "IMG_2.jpg" in str(skipped)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "IMG_2.jpg" in record.getMessage()


def test_a_glob(images: Path) -> None:
    frames = read_all(str(images / "IMG_1*.JPG"))
    assert [Path(frame.source).name for frame in frames] == ["IMG_1.JPG", "IMG_10.JPG"]
    nested = read_all(str(images.parent / "**" / "*_9.JPG"))
    assert [Path(frame.source).name for frame in nested] == ["IMG_9.JPG"]


def test_a_list_of_images_keeps_its_order(images: Path) -> None:
    paths = [images / "IMG_9.JPG", images / "IMG_2.jpg", images / "IMG_1.JPG"]
    with open_source(paths) as source:
        assert [frame.source for frame in source] == [str(paths[0]), str(paths[2])]
        assert len(source.skipped) == 1


def test_one_broken_image_named_alone_is_an_error(images: Path) -> None:
    with open_source(images / "IMG_2.jpg") as source, pytest.raises(ImageError, match="IMG_2"):
        next(source)
    assert source.skipped == []


def test_directories_and_globs_without_images(images: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(SourceError, match=r"neither .*empty nor a folder in it holds images"):
        open_source(empty)
    (empty / "sub").mkdir()
    (empty / "sub" / "a.txt").touch()
    with pytest.raises(SourceError, match=r"neither .*empty nor a folder in it"):
        open_source(empty)
    with pytest.raises(SourceError, match="nothing matches"):
        open_source(str(tmp_path / "*.png"))
    with pytest.raises(SourceError, match="no image or video is among the 1 matches"):
        open_source(str(images / "*.txt"))


@given(st.lists(st.integers(0, 10**6), unique=True))
def test_natural_order_is_the_order_of_numbers(numbers: list[int]) -> None:
    paths = [Path(f"IMG_{number}.jpg") for number in numbers]
    ordered = sorted(paths, key=natural_order)
    assert ordered == [Path(f"IMG_{number}.jpg") for number in sorted(numbers)]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1)))
def test_natural_order_sorts_any_names(names: list[str]) -> None:
    paths = [Path(name) for name in names]
    ordered = sorted(paths, key=natural_order)
    ordered.reverse()
    assert sorted(ordered, key=natural_order) == sorted(paths, key=natural_order)


def test_camera_trap_images(data_dir: Path) -> None:
    with open_source(data_dir / "images" / "cameratrap") as source:
        names = [Path(frame.source).name for frame in source]
    assert len(names) == 7
    (skipped,) = source.skipped
    assert "african_elephants_truncated_file.jpg" in str(skipped)


# ---------------------------------------------------------------- arrays


def test_an_iterable_of_frames() -> None:
    arrays = [np.full((2, 3, 3), value, np.uint8) for value in range(5)]
    for source in (arrays, iter(arrays), np.stack(arrays), (array for array in arrays)):
        frames = read_all(source)
        assert [int(frame.image[0, 0, 0]) for frame in frames] == [0, 1, 2, 3, 4]
        assert [frame.number for frame in frames] == [0, 1, 2, 3, 4]
    assert open_source(arrays).frame_count == 5
    assert open_source(iter(arrays)).frame_count is None


def test_a_wrong_array_is_named_by_its_number() -> None:
    arrays = [np.zeros((2, 3, 3), np.uint8), np.zeros((2, 3), np.uint8)]
    with open_source(arrays) as source:
        assert next(source).number == 0
        with pytest.raises(ImageError, match=r"number 1: .*grey"):
            next(source)


@pytest.mark.parametrize("thing", [np.zeros((4, 4, 3), np.uint8), b"abc", 1.5, None])
def test_what_is_not_an_iterable_of_frames(thing: object) -> None:
    with pytest.raises(SourceError, match="is not a source"):
        open_source(thing)


# ---------------------------------------------------------------- videos


@pytest.mark.parametrize(
    ("name", "codec"), [("a.avi", "MJPG"), ("b.mp4", "mp4v"), ("c.mkv", "mp4v"), ("d.mov", "mp4v")]
)
def test_a_video_gives_every_frame_once(make_video: MakeVideo, name: str, codec: str) -> None:
    path = make_video(name, codec)
    with open_source(path) as video:
        assert (video.name, video.fps, video.size_wh) == (str(path), 20.0, (64, 48))
        assert (video.frame_count, video.live) == (FRAMES, False)
        frames = list(video)
    assert [frame.number for frame in frames] == list(range(FRAMES))
    assert [shown_number(frame.image) for frame in frames] == list(range(FRAMES))
    np.testing.assert_allclose(
        [frame.position for frame in frames], np.arange(FRAMES) / 20, atol=0.002
    )
    assert {frame.source for frame in frames} == {str(path)}
    assert {frame.time for frame in frames} == {None}


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize(("name", "codec"), [("a.avi", "MJPG"), ("b.avi", "XVID")])
def test_a_cut_avi_gives_its_frames_and_then_an_error(
    make_video: MakeVideo, tmp_path: Path, name: str, codec: str, share: float
) -> None:
    whole = make_video(name, codec).read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole[: int(len(whole) * share)])
    count, message = read_until_error(cut)
    assert 1 <= count <= share * FRAMES + 5
    assert f"cut.avi ended after frame {count} of {FRAMES}" in message


def test_a_cut_mp4_without_its_index_can_not_be_opened(mp4: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(mp4.read_bytes()[: mp4.stat().st_size // 2])
    with pytest.raises(SourceError, match=r"can't open .*cut\.mp4 as a video"):
        open_source(cut)


def index_first(mp4: bytes) -> bytes:
    """Move the index (moov) of an MP4 before its data, as files made for streaming have it."""
    boxes = {}
    place = 0
    while place < len(mp4):
        size, kind = struct.unpack(">I4s", mp4[place : place + 8])
        boxes[kind] = mp4[place : place + size]
        place += size
    moov = bytearray(boxes[b"moov"])
    table = moov.index(b"stco") + 8
    (count,) = struct.unpack_from(">I", moov, table)
    for entry in range(table + 4, table + 4 + 4 * count, 4):
        struct.pack_into(">I", moov, entry, struct.unpack_from(">I", moov, entry)[0] + len(moov))
    rest = b"".join(box for kind, box in boxes.items() if kind not in (b"ftyp", b"moov"))
    return boxes[b"ftyp"] + bytes(moov) + rest


def test_a_cut_mp4_with_its_index_first(mp4: Path, tmp_path: Path) -> None:
    whole = index_first(mp4.read_bytes())
    (tmp_path / "whole.mp4").write_bytes(whole)
    assert len(read_all(tmp_path / "whole.mp4")) == FRAMES
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    count, message = read_until_error(tmp_path / "cut.mp4")
    assert 10 < count < 40
    assert f"ended after frame {count} of {FRAMES}" in message


def test_a_header_that_miscounts_a_little_is_forgiven(avi: Path, tmp_path: Path) -> None:
    content = avi.read_bytes()
    lying = content.replace(struct.pack("<I", FRAMES), struct.pack("<I", FRAMES + 2))
    assert lying != content
    (tmp_path / "lying.avi").write_bytes(lying)
    with open_source(tmp_path / "lying.avi") as video:
        assert video.frame_count == FRAMES + 2
        assert len(list(video)) == FRAMES


def test_a_phone_clip_is_turned_upright(mp4: Path, tmp_path: Path) -> None:
    content = bytearray(mp4.read_bytes())
    matrix = content.index(b"tkhd") + 44
    one = 1 << 16
    assert struct.unpack_from(">9i", content, matrix) == (one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", content, matrix, 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    (tmp_path / "turned.mp4").write_bytes(content)
    upright = read_all(mp4)[10].image
    with open_source(tmp_path / "turned.mp4") as video:
        assert video.size_wh == (48, 64)
        turned = list(video)[10].image
    np.testing.assert_array_equal(turned, np.rot90(upright, -1))


def test_files_that_are_no_videos(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(SourceError, match=r"empty\.mp4 is empty"):
        open_source(tmp_path / "empty.mp4")
    (tmp_path / "text.mp4").write_text("not a video\n" * 100)
    with pytest.raises(SourceError, match="as a video"):
        open_source(tmp_path / "text.mp4")


def test_a_video_whose_name_is_not_utf8(mp4: Path, tmp_path: Path) -> None:
    try:
        other = Path(shutil.copy(mp4, tmp_path / os.fsdecode(b"\xff.mp4")))
    except OSError:
        pytest.skip("this file system takes no such names")
    with pytest.raises(SourceError, match="not UTF-8"):  # OpenCV crashes on it
        open_source(other)


def test_a_closed_video_can_not_be_read_on(mp4: Path) -> None:
    with open_source(mp4) as video:
        assert isinstance(video, Source)
        next(video)
    video.close()
    with pytest.raises(SourceError, match="has been closed"):
        next(video)


def test_an_exhausted_video_stays_exhausted(mp4: Path) -> None:
    with open_source(mp4) as video:
        assert len(list(video)) == FRAMES
        assert list(video) == []


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("zamba_bwi_PICT0146.avi", 1818),
        ("zamba_chimp.mp4", 450),
        ("zamba_gorongosa_baboon_07120049.avi", 1814),
        ("zamba_grumeti_nothing_09290027.avi", 900),
    ],
)
def test_camera_trap_clips_run_to_their_end(data_dir: Path, name: str, frames: int) -> None:
    with open_source(data_dir / "videos" / name) as video:
        last = None
        for last in video:  # noqa: B007
            pass
    assert last is not None
    assert last.number == frames - 1
    assert last.position == pytest.approx(frames / video.fps, abs=0.1)


def test_ffmpeg_can_be_kept_quiet(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"\0\0\0\x18ftypisom" + b"\0" * 400)
    code = (
        "import sys\n"
        "sys.modules['av'] = None\n"  # which keeps quiet by itself
        "from edge_fg.opencv import quiet_ffmpeg\n"
        "from edge_fg.sources import open_source\n"
        "from edge_fg.errors import SourceError\n"
        "if sys.argv[2] == 'quiet': quiet_ffmpeg()\n"
        "try: open_source(sys.argv[1])\n"
        "except SourceError as error: print('said')\n"
    )
    noise = {}
    for how in ("quiet", "loud"):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "bad.mp4"), how],
            capture_output=True,
            text=True,
            env=environment,
            check=True,
        )
        assert done.stdout == "said\n"
        noise[how] = done.stderr
    assert noise["quiet"] == ""
    assert "moov" in noise["loud"]


# ---------------------------------------------------------------- cameras and streams


def test_a_missing_camera() -> None:
    with pytest.raises(SourceError, match="can't open the camera /dev/video987"):
        open_source(987)


def test_csi_needs_gstreamer() -> None:
    if cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        pytest.skip("this OpenCV has GStreamer")
    with pytest.raises(SourceError, match=r"csi://0 needs an OpenCV with GStreamer"):
        open_source("csi://0")


def test_the_csi_pipeline_asks_for_what_was_chosen() -> None:
    pipeline = csi_pipeline(1, SourceOptions(size_wh=(1280, 720), fps=29.97))
    stages = [stage.strip() for stage in pipeline.split(" ! ")]
    assert stages[0] == "nvarguscamerasrc sensor-id=1"
    assert stages[1].endswith("width=1280, height=720, format=NV12, framerate=2997/100")
    assert stages[-1].startswith("appsink drop=true")


def test_an_unreachable_stream_fails_without_its_password() -> None:
    with pytest.raises(SourceError, match=r"can't open rtsp://127\.0\.0\.1:9/x") as caught:
        open_source("rtsp://admin:pa55@127.0.0.1:9/x", timeout=2)
    assert "pa55" not in str(caught.value)


class MjpegHandler(SimpleHTTPRequestHandler):
    """Serve files, and under /mjpeg ten images without an end mark, as cameras do."""

    def do_GET(self) -> None:
        if not self.path.startswith("/mjpeg"):
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for number in range(10):
            good, jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), 20 * number, np.uint8))
            assert good
            part = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {jpeg.size}\r\n\r\n"
            self.wfile.write(part.encode() + jpeg.tobytes() + b"\r\n")

    def log_message(self, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def server(mp4: Path) -> Iterator[str]:
    handler = partial(MjpegHandler, directory=str(mp4.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_an_mjpeg_stream_is_live_and_its_loss_is_an_error(server: str) -> None:
    frames = []
    address = f"http://admin:pa55@{server}/mjpeg?token=pa55"
    with open_source(address, timeout=5, reconnect=0, buffer=64) as camera:
        assert camera.live
        assert camera.frame_count is None
        with pytest.raises(SourceError, match="gave no more frames after 10") as caught:
            frames.extend(camera)
    assert len(frames) == 10
    assert "pa55" not in str(caught.value)


def test_frames_of_a_stream_have_a_time_and_no_credentials(server: str) -> None:
    with open_source(f"http://admin:pa55@{server}/mjpeg", timeout=5, buffer=64) as camera:
        frames = [next(camera) for _ in range(5)]
    assert [frame.number for frame in frames] == [0, 1, 2, 3, 4]
    for frame in frames:
        assert frame.time is not None
        assert frame.time.tzinfo is not None
        assert frame.position is None
        assert frame.source == f"http://{server}/mjpeg"


def test_a_file_behind_http_is_read_like_a_file(server: str, mp4: Path) -> None:
    with open_source(f"http://{server}/{mp4.name}", timeout=5) as video:
        assert not video.live
        assert len(list(video)) == video.frame_count == FRAMES


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    "options",
    [
        {"size_wh": (0, 10)},
        {"fps": 0.0},
        {"fps": float("nan")},
        {"timeout": -1.0},
        {"timeout": float("inf")},
    ],
)
def test_options_that_make_no_sense(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        open_source(0, **options)


def test_size_and_rate_are_refused_where_they_can_not_be_chosen(mp4: Path, images: Path) -> None:
    for source in (mp4, images, [np.zeros((2, 2, 3), np.uint8)], "rtsp://127.0.0.1:9/x"):
        with pytest.raises(UsageError, match="can"):
            open_source(source, size_wh=(640, 480))


def test_without_opencv_the_extra_is_named(mp4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cv2", "av"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=r"edge-fg\[opencv\]"):
        open_source(mp4)


@pytest.mark.parametrize("scheme", ["", "v4l2://", "csi://"])
def test_a_camera_number_of_thousands_of_digits(scheme: str) -> None:
    with pytest.raises(SourceError, match=r"no camera 777777777\.\.\."):
        open_source(scheme + "7" * 5000)
