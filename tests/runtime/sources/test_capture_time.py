"""When frames were captured, by EXIF data, files, and the clocks of cameras."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_fg.sources import Frame, open_source
from edge_fg.sources.capture_time import parse_time, photo_time
from edge_fg.sources.stdin import PipeSource
from support.servers import camera, mjpeg, rtsp
from support.servers import numbered_images as images

NOON = datetime(2024, 5, 1, 12, 0, 0)
UTC_NOON = NOON.replace(tzinfo=timezone.utc)
PIECES = r"\d{4}:\d\d:\d\d \d\d:\d\d:\d\d(\.\d+)?[+-]\d\d:\d\d"


def at_noon(hours: float, microsecond: int = 0) -> datetime:
    """Noon in a zone."""
    return NOON.replace(microsecond=microsecond, tzinfo=timezone(timedelta(hours=hours)))


def write_photo(file: Any, form: str = "JPEG", **tags: Any) -> Any:
    exif = Image.Exif()
    exif[0x0132] = "2030:01:01 00:00:00"  # when it was changed: says nothing of the capture
    exif[0x8769] = {int(tag, 16): value for tag, value in tags.items()}
    Image.new("RGB", (32, 24), (9, 99, 199)).save(file, form, exif=exif)
    return file


def tags(*values: str) -> dict[str, str]:
    return dict(zip(("0x9003", "0x9291", "0x9011"), values, strict=False))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_the_time_of_a_large_image_is_read_without_a_warning_and_without_decoding_it(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    decoded: list[object] = []
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", decoded.append)
    plain, told = io.BytesIO(), write_photo(io.BytesIO(), form, **tags("2024:05:01 12:00:00"))
    Image.new("RGB", (32, 24)).save(plain, form)
    assert [photo_time(plain), photo_time(told)] == [None, NOON]
    assert not decoded


@pytest.mark.parametrize(
    ("given_tags", "expected"),
    [
        (tags("2024:05:01 12:00:00"), NOON),
        (tags("2024:05:01 12:00:00", "25"), NOON.replace(microsecond=250_000)),
        (tags("2024:05:01 12:00:00", "123456", "+05:30"), at_noon(5.5, 123_456)),
        (
            tags("2024:05:01 12:00:00", "", "-03:00"),
            at_noon(-3),
        ),
        (tags("2024:05:01 12:00:00", "", "what?"), NOON),
        ({"0x9004": "2024-05-01 12:00:00"}, NOON),
        (tags("0000:00:00 00:00:00"), None),
        (tags("2024:13:01 12:00:00"), None),
        (tags("1980:01:01 00:00:00"), None),  # a camera that lost its clock
        (tags("    :  :     :  :  "), None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("name", ["a.jpg", "b.png", "c.webp"])
def test_photographs(
    tmp_path: Path, given_tags: dict[str, str], expected: datetime | None, name: str
) -> None:
    form = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[name[2:]]
    write_photo(tmp_path / name, form, **given_tags)
    with open_source(tmp_path / name) as one, open_source(tmp_path) as folder:
        assert [frame.time for frame in (*one, *folder)] == [expected] * 2


def test_damaged_exif_data_cost_the_time_only(tmp_path: Path) -> None:
    data = bytearray(write_photo(io.BytesIO(), **tags("2024:05:01 12:00:00")).getvalue())
    at = data.index(b"Exif") + 6
    data[at + 8 : at + 40] = b"\xff" * 32
    (tmp_path / "a.jpg").write_bytes(data)
    with open_source(tmp_path / "a.jpg") as source:
        assert [frame.time for frame in source] == [None]


def test_photographs_through_a_pipe() -> None:
    first = write_photo(io.BytesIO(), **tags("2024:05:01 12:00:00", "5", "+02:00")).getvalue()
    second = io.BytesIO()
    Image.new("RGB", (32, 24)).save(second, "JPEG")
    with PipeSource(stream=io.BytesIO(first + second.getvalue())) as source:
        times = [frame.time for frame in source]
    assert times == [at_noon(2, 500_000), None]


@pytest.mark.parametrize(
    ("name", "codec", "metadata", "expected"),
    [
        (
            "a.mp4",
            "mpeg4",
            {"creation_time": "2024-05-01T12:00:00Z"},
            UTC_NOON,
        ),
        (
            "b.mkv",
            "mpeg4",
            {"creation_time": "2024-05-01T12:00:00Z"},
            UTC_NOON,
        ),
        ("c.avi", "mpeg4", {"date": "2024-05-01 12:00:00"}, NOON),
        (
            "d.mov",
            "mpeg4",
            {
                "com.apple.quicktime.creationdate": "2024-05-01T12:00:00+0200",
                "creation_time": "2024-05-09T00:00:00Z",
            },
            at_noon(2),
        ),
        ("e.mp4", "mpeg4", {"creation_time": "1970-01-01T00:00:00Z"}, None),
        ("f.avi", "mpeg4", {"date": "2024"}, None),
    ],
)
def test_videos(
    tmp_path: Path, name: str, codec: str, metadata: dict[str, str], expected: datetime | None
) -> None:
    av = pytest.importorskip("av")
    options = {"movflags": "use_metadata_tags"} if name.endswith("mov") else {}
    with av.open(str(tmp_path / name), "w", options=options) as file:
        file.metadata.update(metadata)
        stream = file.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(3):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
        file.mux(stream.encode())
    with open_source(tmp_path / name) as video:
        times = [frame.time for frame in video]
    steps = [timedelta(seconds=n / 10) for n in range(3)]
    assert times == [expected and expected + step for step in steps]


@given(st.text(max_size=40) | st.from_regex(PIECES))
def test_any_text_is_a_time_or_none(text: str) -> None:
    found = parse_time(text)
    assert found is None or found.year >= 1990


def test_zones_as_cameras_write_them() -> None:
    for text, hours in {"Z": 0, "+0200": 2, "-09:00": -9, " +02:00": 2}.items():
        found = parse_time(f"2024-05-01T12:00:00{text}")
        assert found == at_noon(hours), text
    assert parse_time("2024-05-01T12:00:00+99:00") == NOON


@pytest.mark.parametrize("protocol", ["mjpeg", "rtsp"])
@pytest.mark.parametrize(("behind", "is_used"), [(20.0, True), (100_000.0, False), (None, False)])
def test_the_clock_of_a_camera(protocol: str, behind: float | None, is_used: bool) -> None:
    make: Callable[..., Any] = {"mjpeg": mjpeg, "rtsp": rtsp}[protocol].make
    if protocol == "rtsp" and not hasattr(pytest.importorskip("av").Packet, "has_sidedata"):
        pytest.skip("this PyAV doesn't show the camera's clock")
    server = make(camera, images, clock_behind=behind)
    try:
        with open_source(server.url, timeout=3) as source:
            frame: Frame = [next(source) for _ in range(5)][-1]
    finally:
        server.close()
    assert frame.time is not None
    assert frame.time.tzinfo is not None
    late = (datetime.now(timezone.utc) - frame.time).total_seconds()
    # Twenty seconds apart, so that no busy machine takes one for the other.
    assert (late > 15) == is_used
