"""Videos as worn cards and odd recorders leave them: read to their end, by either decoder."""

from __future__ import annotations

import io
import logging
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_fg.errors import SourceError, TruncatedSourceError
from edge_fg.sources import Frame, Source, open_source
from support.waiting import HANG

pytest.importorskip("cv2")
av = pytest.importorskip("av")

FRAMES = 50
ONE = 1 << 16
Damage = Callable[[bytearray, list[tuple[int, int]]], object]


@pytest.fixture(params=["pyav", "opencv"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "opencv":
        monkeypatch.setitem(sys.modules, "av", None)
    return str(request.param)


def scene(number: int) -> np.ndarray:
    """A frame by whose grey its number can be told, and whose corners differ."""
    image = np.full((96, 160, 3), 4 * number + 20, np.uint8)
    image[:16, :16] = 255
    image[60:, 100:] = np.random.default_rng(number).integers(0, 60, (36, 60, 3))
    return image


def write_video(path: Path, codec: str = "libx264", *, start: int = 0, **metadata: str) -> Path:
    with av.open(str(path), "w") as file:
        file.metadata.update(metadata)
        stream = file.add_stream(codec, rate=10, options={"bf": "0", "g": "10"})
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        if codec == "mjpeg":
            stream.pix_fmt = "yuvj420p"
        for number in range(FRAMES):
            if codec == "mjpeg":
                buffer = io.BytesIO()
                Image.fromarray(scene(number)).save(buffer, "JPEG", quality=90, subsampling=2)
                packet = av.Packet(buffer.getvalue())
                packet.stream, packet.time_base = stream, Fraction(1, 10)
                packet.pts = packet.dts = start + number
                file.mux(packet)
                continue
            frame = av.VideoFrame.from_ndarray(scene(number), "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = start + number, Fraction(1, 10)
            file.mux(stream.encode(frame))
        if codec != "mjpeg":
            file.mux(stream.encode())
    return path


def packets(path: Path) -> list[tuple[int, int]]:
    """Return where each packet lies in the file, and its length."""
    with av.open(str(path)) as file:
        return [(p.pos, p.size) for p in file.demux(video=0) if p.size]


def damaged(path: Path, damage: Damage) -> Path:
    content = bytearray(path.read_bytes())
    damage(content, packets(path))
    path.write_bytes(content)
    return path


def read_all(path: Path | str, **options: Any) -> tuple[Source, list[Frame]]:
    with open_source(path, **options) as video:
        return video, list(video)


def zero(*numbers: int) -> Damage:
    def overwrite(content: bytearray, places: list[tuple[int, int]]) -> None:
        # In Matroska the place is that of a block, whose head is left.
        head = 8 if content.startswith(b"\x1a\x45\xdf\xa3") else 0
        for number in numbers:
            at, size = places[number]
            content[at + head : at + size] = bytes(size - head)

    return overwrite


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.avi", "mjpeg"), ("b.mp4", "libx264"), ("c.mkv", "libx264"), ("d.avi", "mpeg4")],
)
@pytest.mark.parametrize("bad", [(7,), (20, 21, 22, 41)])
def test_damaged_frames_cost_no_others(
    decoder: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    codec: str,
    bad: tuple[int, ...],
) -> None:
    path = damaged(write_video(tmp_path / name, codec), zero(*bad))
    with caplog.at_level(logging.WARNING, logger="edge_fg"):
        video, frames = read_all(path)
    # Without a key frame, its group of ten may be lost with it.
    groups = 9 if 20 in bad and codec != "mjpeg" else 0
    assert FRAMES - len(bad) - groups <= len(frames) <= FRAMES - len(bad)
    assert frames[-1].position == pytest.approx(4.9)
    if decoder == "pyav":
        assert video.counters["corrupted"] == FRAMES - len(frames)
        assert [(round(10 * frame.position), frame.dropped) for frame in frames[:8]][7:] == (
            [(8, 1)] if bad == (7,) else [(7, 0)]
        )
    else:  # OpenCV passes over some in silence
        assert 1 <= video.counters["corrupted"] <= FRAMES - len(frames)
    said = [r.getMessage() for r in caplog.records if r.name == "edge_fg"]
    assert f"{path} is damaged after frame {bad[0]}" in said[0]
    assert f"{path}: frames left out as damaged: {video.counters['corrupted']}" in said[-1]
    assert len(said) == 2


def test_a_frame_that_was_patched_up_is_left_out(tmp_path: Path) -> None:
    def change(content: bytearray, places: list[tuple[int, int]]) -> None:
        at, size = places[30]
        content[at + size // 2 : at + size // 2 + 8] = b"\x5a" * 8

    video, frames = read_all(damaged(write_video(tmp_path / "a.mp4"), change))
    assert len(frames) == FRAMES - 1
    assert video.counters["corrupted"] == frames[30].dropped == 1


def test_mjpeg_that_ffmpeg_would_pass_over_is_left_out(tmp_path: Path) -> None:
    def change(content: bytearray, places: list[tuple[int, int]]) -> None:
        at, size = places[10]
        content[at + size // 2 : at + size - 100] = bytes(size // 2 - 100)
        at, size = places[20]
        content[at + size // 2 : at + size // 2 + 40] = b"\x5a\xa5" * 20

    whole = read_all(write_video(tmp_path / "whole.avi", "mjpeg"))[1]
    video, frames = read_all(damaged(write_video(tmp_path / "a.avi", "mjpeg"), change))
    assert video.counters["corrupted"] == FRAMES - len(frames)
    assert 10 not in {round(10 * frame.position) for frame in frames}
    for frame in frames:  # what is handed on is as it was recorded
        np.testing.assert_array_equal(frame.image, whole[round(10 * frame.position)].image)


def test_mjpeg_has_the_pixels_that_images_have(tmp_path: Path) -> None:
    frame = read_all(write_video(tmp_path / "a.avi", "mjpeg"))[1][3]
    buffer = io.BytesIO()
    Image.fromarray(scene(3)).save(buffer, "JPEG", quality=90, subsampling=2)
    np.testing.assert_array_equal(frame.image[:, :, ::-1], np.asarray(Image.open(buffer)))


def test_frames_lost_with_the_structure_around_them_are_named(
    decoder: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def overwrite(content: bytearray, places: list[tuple[int, int]]) -> None:
        content[places[20][0] - 8 : places[28][0]] = bytes(places[28][0] - places[20][0] + 8)

    path = damaged(write_video(tmp_path / "a.mkv"), overwrite)
    _, frames = read_all(path)
    assert 25 <= len(frames) <= FRAMES - 8
    assert frames[-1].position == pytest.approx(4.9)
    assert f"{path} gave {len(frames)} of the {FRAMES} frames" in caplog.text


def test_hundreds_of_damaged_frames_in_a_row(decoder: str, tmp_path: Path) -> None:
    path = damaged(write_video(tmp_path / "a.avi", "mjpeg"), zero(*range(3, FRAMES - 2)))
    video, frames = read_all(path)
    assert [round(10 * frame.position) for frame in frames] == [0, 1, 2, 48, 49]
    assert video.counters["corrupted"] == FRAMES - 5


@pytest.mark.parametrize("name", ["a.avi", "b.mp4"])
def test_a_video_without_one_good_frame(decoder: str, tmp_path: Path, name: str) -> None:
    codec = "mjpeg" if name.endswith("avi") else "libx264"
    path = damaged(write_video(tmp_path / name, codec), zero(*range(FRAMES)))
    with pytest.raises(SourceError, match=r"no frame that can be decoded|as a video"):
        read_all(path)


@pytest.mark.parametrize("name", ["a.mkv", "b.webm", "c.mp4", "d.ts", "e.flv", "f.mov"])
def test_a_clock_that_does_not_begin_at_zero(decoder: str, tmp_path: Path, name: str) -> None:
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    _, frames = read_all(write_video(tmp_path / name, codec, start=1000))
    assert len(frames) == FRAMES
    assert [frames[0].position, frames[-1].position] == pytest.approx([0, 4.9], abs=0.002)


def patch(kind: bytes, offset: int, form: str, *values: object) -> Damage:
    def overwrite(content: bytearray, _: object) -> None:
        struct.pack_into(form, content, content.index(kind) + offset, *values)

    return overwrite


def test_containers_that_count_wrongly(decoder: str, tmp_path: Path) -> None:
    wrong = {
        "a.avi": ("mjpeg", patch(b"strh", 40, "<I", 500)),
        "b.mkv": ("libx264", patch(b"\x44\x89\x88", 3, ">d", 90_000.0)),
        "c.flv": ("flv1", patch(b"duration", 9, ">d", 90.0)),
    }
    for name, (codec, change) in wrong.items():
        video, frames = read_all(damaged(write_video(tmp_path / name, codec), change))
        assert len(frames) == FRAMES, name
        assert video.frame_count is not None
        assert video.frame_count > 400, name


@pytest.mark.parametrize("name", ["a.mkv", "b.avi", "c.flv"])
def test_a_cut_file_is_still_an_error(decoder: str, tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / name, {"a": "libx264", "b": "mpeg4", "c": "flv1"}[name[0]])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(TruncatedSourceError, match="cut short"):
        read_all(path)


def test_a_large_avi_that_is_cut_in_its_second_part(decoder: str, tmp_path: Path) -> None:
    def second_part(content: bytearray, _: object) -> None:
        content += b"RIFF" + struct.pack("<I", 5000) + b"AVIX" + bytes(100)
        struct.pack_into("<I", content, content.index(b"strh") + 40, 10 * FRAMES)

    path = damaged(write_video(tmp_path / "a.avi", "mjpeg"), second_part)
    with pytest.raises(TruncatedSourceError, match=f"after frame {FRAMES} of {10 * FRAMES}"):
        read_all(path)


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((-ONE, 0, 0, 0, ONE), lambda image: image[:, ::-1]),
        ((ONE, 0, 0, 0, -ONE), lambda image: image[::-1]),
        ((0, ONE, 0, ONE, 0), lambda image: image.transpose(1, 0, 2)),
        ((0, -ONE, 0, -ONE, 0), lambda image: np.rot90(image, 2).transpose(1, 0, 2)),
        ((-ONE, 0, 0, 0, -ONE), lambda image: np.rot90(image, 2)),
        ((0, -ONE, 0, ONE, 0), np.rot90),
        ((46341, 46341, 0, -46341, 46341), lambda image: image),
    ],
)
def test_what_mirrors_or_turns_is_honoured_or_named(
    decoder: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    matrix: tuple[int, ...],
    turn: Callable[[np.ndarray], np.ndarray],
) -> None:
    plain = read_all(write_video(tmp_path / "plain.mp4"))[1][0].image
    change = patch(b"tkhd", 44, ">5i", *matrix)
    path = damaged(write_video(tmp_path / "turned.mp4"), change)
    video, frames = read_all(path)
    np.testing.assert_array_equal(frames[0].image, turn(plain))
    assert video.size_wh == frames[0].size_wh
    assert ("angle other than 90" in caplog.text) == (46341 in matrix)
    flipped = read_all(path, flip="horizontal")[1][0].image
    np.testing.assert_array_equal(flipped, turn(plain)[:, ::-1])


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\ngood.avi\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.avi", b"ffconcat version 1.0\nfile good.avi\n"),
        ("b.mp4", PLAYLIST),
        ("c.mkv", b"ID3\3\0\0\0\0\0\x04abcd" + PLAYLIST + b"\0\0"),
        ("d.mp4", b"v=0\r\nc=IN IP4 127.0.0.1\r\nm=video 5004 RTP/AVP 96\r\n"),
        ("e.ts", b"G\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n\0\0\0\0"),
        ("f.webm", b"<?xml version='1.0'?>\n<MPD><Period/></MPD>\n"),
    ],
)
def test_a_list_of_other_files_is_refused(
    decoder: str, tmp_path: Path, name: str, content: bytes
) -> None:
    write_video(tmp_path / "good.avi")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match="is a text"):
        open_source(tmp_path / name)


@pytest.mark.parametrize("name", ["clip.mp4", "CLIP.AVI?x=1"])
def test_a_list_behind_http_is_refused_where_it_is_named_like_a_video(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name.partition("?")[0]).write_bytes(PLAYLIST)
    write_video(tmp_path / "good.avi")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        with pytest.raises(SourceError, match="is a text"):
            open_source(f"{address}/{name}", timeout=5)
        assert len(read_all(f"{address}/good.avi", timeout=5)[1]) == FRAMES
    finally:
        server.shutdown()


@pytest.mark.parametrize(
    ("length", "said"),
    [(0, "can't open .*: check the address"), (5, "no answer for 0.3 s")],
)
def test_a_video_behind_http_that_sends_nothing_is_no_text(length: int, said: str) -> None:
    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "video/mp4")
            self.send_header("Content-Length", str(length))
            self.end_headers()
            ended.wait(HANG if length else 0)

    ended = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(SourceError, match=said):
            open_source(f"http://127.0.0.1:{server.server_address[1]}/a.mp4", timeout=0.3)
    finally:
        ended.set()
        server.shutdown()


@pytest.mark.parametrize("level", [None, "16"])
def test_ffmpeg_does_not_write_without_bound(tmp_path: Path, level: str | None) -> None:
    path = damaged(write_video(tmp_path / "a.avi", "mjpeg"), zero(*range(5, FRAMES - 5)))
    code = """if True:
        import sys
        sys.modules["av"] = None
        from edge_fg.sources import open_source
        with open_source(sys.argv[1]) as video:
            print(len(list(video)), video.counters["corrupted"])
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("OPENCV_FFMPEG_LOGLEVEL", None)
    if level is not None:
        environment["OPENCV_FFMPEG_LOGLEVEL"] = level
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    *lines, last = (done.stderr + done.stdout).splitlines()
    assert last == f"10 {FRAMES - 10}"
    lines = [line for line in lines if "JPEG data" in line]
    assert len(lines) >= FRAMES - 10 if level else len(lines) <= 2, lines


def test_mjpeg_of_two_fields_a_frame(tmp_path: Path) -> None:
    path = tmp_path / "fields.avi"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuvj420p"
        for number in range(5):
            data = b""
            for field in (0, 1):
                buffer = io.BytesIO()
                Image.fromarray(scene(number)[field::2]).save(buffer, "JPEG", subsampling=2)
                data += buffer.getvalue()
            packet = av.Packet(data)
            packet.stream, packet.time_base, packet.pts = stream, Fraction(1, 10), number
            packet.dts = number
            file.mux(packet)
    video, frames = read_all(path)
    assert [frame.size_wh for frame in frames] == [(160, 96)] * 5
    assert video.counters["corrupted"] == 0
    for number, frame in enumerate(frames):
        error = frame.image[:, :96].astype(float) - scene(number)[:, :96, ::-1]
        assert abs(error).mean() < 3
