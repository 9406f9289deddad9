"""JPEGs that lost data are left out wherever images come from; odd ones that are whole are used."""

from __future__ import annotations

import io
import itertools
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from edge_fg.errors import ImageError
from edge_fg.images import read_image, to_frame
from edge_fg.jpeg import decode_jpeg
from edge_fg.sources import open_source
from edge_fg.sources.stdin import PipeSource


def photograph(size_wh: tuple[int, int] = (240, 160), seed: int = 1) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (10, 15, 3), np.uint8))
    values = np.asarray(small.resize(size_wh, Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray((values + rng.normal(0, 5, values.shape)).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    (image or photograph()).save(buffer, **{"format": "JPEG", "quality": 88, **options})
    return buffer.getvalue()


KINDS = {
    "baseline": encoded(),
    "progressive": encoded(progressive=True),
    "own tables": encoded(optimize=True),
    "full colour": encoded(subsampling=0),
    "restarts": encoded(restart_marker_rows=1),
    "short restarts": encoded(restart_marker_blocks=4),
    "grey": encoded(photograph().convert("L")),
    "four colours": encoded(photograph().convert("CMYK")),
    "two images": encoded(format="MPO", save_all=True, append_images=[photograph(seed=2)]),
}
DAMAGE: dict[str, Callable[[bytes, int], bytes]] = {
    "zeros": lambda data, at: data[:at] + bytes(512) + data[at + 512 :],
    "ones": lambda data, at: data[:at] + b"\xff" * 512 + data[at + 512 :],
    "noise": lambda data, at: (
        data[:at] + np.random.default_rng(at + 1).bytes(512) + data[at + 512 :]
    ),
    "lost": lambda data, at: data[:at] + data[at + 700 :],
    "end": lambda data, at: data[:at],
    "end marker only": lambda data, at: data[:at] + b"\xff\xd9",
}


def damaged(kind: str = "baseline", how: str = "zeros") -> bytes:
    data = KINDS[kind]
    first = data[: len(data) // 2] if kind == "two images" else data
    start = data.index(b"\xff\xda")
    return DAMAGE[how](data, start + (len(first) - start) // 2)


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[:, :, ::-1]


def with_extra_bytes(data: bytes, extra: bytes = b"\x12\x34\x56" * 4) -> bytes:
    """As some cameras write it: a few bytes too many before each marker behind the first scan."""
    start = data.index(b"\xff\xda") + 14
    return data[:start] + re.sub(rb"(?=\xff[\xd0-\xd9])", extra, data[start:])


ODD = {
    "before the end": with_extra_bytes(KINDS["baseline"]),
    "before restarts": with_extra_bytes(KINDS["restarts"]),
    "before every restart": with_extra_bytes(KINDS["short restarts"], bytes(9)),
    "in the header": KINDS["baseline"].replace(b"\xff\xdb", b"\1" * 608 + b"\xff\xdb", 1),
}


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_lost_data_is_refused(tmp_path: Path, kind: str, how: str) -> None:
    path = tmp_path / "card.jpg"
    path.write_bytes(damaged(kind, how))
    with pytest.raises(
        ImageError, match=r"card\.jpg can't be used: .*(lost|zeros|truncated|decoded)"
    ):
        read_image(path)
    path.write_bytes(KINDS[kind])
    np.testing.assert_array_equal(read_image(path), pixels(KINDS[kind]))


@pytest.mark.parametrize("kind", ODD)
def test_a_few_bytes_too_many_are_named_and_the_image_used(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "odd.jpg"
    path.write_bytes(ODD[kind])
    np.testing.assert_array_equal(read_image(path), pixels(ODD[kind]))
    (record,) = caplog.records
    assert re.search(r"odd\.jpg has .*bytes too many in the (data|header)", record.getMessage())


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("how", ["zeros", "ones", "lost"])
def test_damage_shows_beside_a_cameras_own_bytes(kind: str, how: str) -> None:
    data = ODD[kind]
    start = data.index(b"\xff\xda")
    with pytest.raises(ImageError):
        decode_jpeg(DAMAGE[how](data, start + (len(data) - start) // 2))


def test_what_webcams_leave_out_or_write_twice_is_no_loss() -> None:
    data = KINDS["baseline"]
    expected = pixels(data)
    twice = decode_jpeg(b"\xff\xd8" + data)
    assert twice.note == "bytes too many in the header (2)"
    np.testing.assert_array_equal(twice.pixels, expected)
    # Without Huffman tables, those of the standard are meant, and Pillow writes these.
    without = data
    while (at := without.find(b"\xff\xc4")) >= 0:
        without = without[:at] + without[at + 2 + int.from_bytes(without[at + 2 : at + 4], "big") :]
    assert len(without) < len(data) - 300
    np.testing.assert_array_equal(decode_jpeg(without).pixels, expected)
    for behind in (bytes(1000), data):
        np.testing.assert_array_equal(decode_jpeg(data + behind).pixels, expected)


@pytest.mark.parametrize(
    "tail", [b"", b"\xff\xda", b"\xff\xda\0\2", b"\xff\xda\0\0", b"\xff\xda\0\3\1"]
)
def test_a_file_that_ends_before_its_pixels_is_named(tail: bytes) -> None:
    data = KINDS["baseline"]
    with pytest.raises(ImageError, match=r"before its pixels|decoded"):
        decode_jpeg(data[: data.index(b"\xff\xda")] + tail)


def test_a_missing_end_marker_is_no_loss(caplog: pytest.LogCaptureFixture) -> None:
    for kind, data in KINDS.items():
        if kind != "two images":
            assert decode_jpeg(data[:-2]).note is None
            filled = decode_jpeg(data[:-2] + bytes(900))  # as a driver's buffer is
            assert filled.note is None
            np.testing.assert_array_equal(filled.pixels, pixels(data))
            with pytest.raises(ImageError):
                decode_jpeg(data[: len(data) * 2 // 3] + bytes(900))
    assert not caplog.records


def test_flat_images_hold_zeros_and_are_whole() -> None:
    half = Image.new("RGB", (640, 480), "white")
    ImageDraw.Draw(half).rectangle((0, 0, 300, 480), fill="navy")
    flat = [Image.new("RGB", (640, 480), colour) for colour in ("black", "white", "grey", "red")]
    for image, optimize, quality in itertools.product([*flat, half], (False, True), (5, 95)):
        for colour in (image, image.convert("L")):
            assert decode_jpeg(encoded(colour, optimize=optimize, quality=quality)).note is None


def test_an_image_of_pillow_is_checked_while_it_is_not_decoded() -> None:
    with pytest.raises(ImageError, match="zeros"):
        to_frame(Image.open(io.BytesIO(damaged())))
    image = Image.open(io.BytesIO(KINDS["baseline"]))
    image.draft("RGB", (60, 40))
    assert to_frame(image).shape[:2] == (image.height, image.width) != (160, 240)
    image = Image.open(io.BytesIO(KINDS["baseline"]))
    image.putpixel((0, 0), (1, 2, 3))
    assert to_frame(image)[0, 0].tolist() == [3, 2, 1]


def test_a_folder_counts_what_is_damaged_and_sums_up_what_is_odd(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number, how in enumerate(DAMAGE):
        (tmp_path / f"a{number}.jpg").write_bytes(damaged(how=how))
    for number in range(5):
        (tmp_path / f"b{number}.jpg").write_bytes(ODD["before the end"])
    with open_source(tmp_path) as source:
        assert len(list(source)) == 5
    assert source.counters["corrupted"] == len(source.skipped) == len(DAMAGE)
    odd = [r.getMessage() for r in caplog.records if "bytes too many" in r.getMessage()]
    assert len(odd) == 2
    assert odd[1] == "images that have bytes too many: 5 in all"


STREAM = [KINDS["baseline"], damaged(), ODD["before the end"], damaged(how="lost")] * 3


def test_standard_input_counts_what_is_damaged(caplog: pytest.LogCaptureFixture) -> None:
    with PipeSource(stream=io.BytesIO(b"".join(STREAM))) as source:
        frames = list(source)
    assert len(frames) == 6
    assert source.counters["corrupted"] == 6
    assert sum(frame.dropped for frame in frames) == 5  # nothing comes behind the last
    assert len([r for r in caplog.records if "bytes too many" in r.getMessage()]) == 1


@pytest.mark.parametrize("lengths", [True, False])
def test_an_mjpeg_stream_counts_what_is_damaged(
    lengths: bool, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        client, _ = listener.accept()
        client.recv(4096)
        client.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=f\r\n\r\n"
        )
        for data in STREAM:
            length = b"Content-Length: %d\r\n" % len(data) if lengths else b""
            client.sendall(b"--f\r\nContent-Type: image/jpeg\r\n%s\r\n%s\r\n" % (length, data))
        client.close()

    thread = threading.Thread(target=serve)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    with listener, open_source(url, timeout=20, reconnect=0, buffer=64) as source:
        with pytest.raises(Exception, match="127"):
            for _ in source:
                pass
        assert source.counters["corrupted"] == 6
        assert source.counters["frames"] + source.counters["dropped"] == 6
    thread.join()
    assert len([r for r in caplog.records if "bytes too many" in r.getMessage()]) == 1
    assert "Corrupt JPEG" not in capfd.readouterr().err


def test_nothing_of_libjpeg_reaches_standard_error(tmp_path: Path) -> None:
    for number, (kind, how) in enumerate(itertools.product(KINDS, DAMAGE)):
        (tmp_path / f"{number}.jpg").write_bytes(damaged(kind, how))
    (tmp_path / "good.jpg").write_bytes(KINDS["baseline"])
    code = "import sys, edge_fg; print(len(list(edge_fg.open_source(sys.argv[1]))))"
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "1\n"
    assert len(done.stderr.splitlines()) == len(KINDS) * len(DAMAGE)
    assert all(line.startswith("image skipped: ") for line in done.stderr.splitlines())


# ---------------------------------------------------------------- made to take long


def stating(data: bytes, width: int, height: int) -> bytes:
    at = re.search(rb"\xff[\xc0-\xc2]\0[\x0b\x11\x14]\x08", data).end()
    return data[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[at + 4 :]


def with_scans(count: int, side: int = 64) -> bytes:
    data = encoded(Image.new("L", (side, side)), progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


BOMBS = {
    "size": stating(encoded(Image.new("RGB", (64, 64))), 13000, 13000),
    "size, progressive": stating(encoded(progressive=True)[:2000], 13000, 13000),
    "size, grey": stating(encoded(Image.new("L", (64, 64)), progressive=True), 12000, 12000),
    "scans": with_scans(2000),
    "scans, large": with_scans(90, 5000),
    "scans, one by one": KINDS["grey"][:-2] + b"\xff\xda\0\x08\1\1\0\0\x3f\0" * 2000 + b"\xff\xd9",
    "segments": KINDS["grey"][:2] + b"\xff\xfe\0\2" * 200_000 + KINDS["grey"][2:],
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_jpeg_that_was_made_to_take_long_is_refused_before_it_is_decoded(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    if kind != "scans, one by one":  # libjpeg itself refuses a scan behind one of everything
        monkeypatch.setattr("simplejpeg.decode_jpeg", lambda data, *_, **__: decoded.append(1))
    path = tmp_path / "bomb.jpg"
    path.write_bytes(BOMBS[kind])
    with pytest.raises(ImageError, match=r"bomb\.jpg") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)
    with PipeSource(stream=io.BytesIO(BOMBS[kind] + KINDS["baseline"])) as source:
        monkeypatch.undo()
        assert len(list(source)) == 1
        assert source.counters["corrupted"] == 1
    assert not decoded


@pytest.mark.parametrize("suffix", [".png", ".gif", ".tif", ".webp"])
def test_a_few_bytes_that_claim_many_pixels_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bomb{suffix}"
    options = {"compression": "group4"} if suffix == ".tif" else {}
    mode, options = ("RGB", {"lossless": True}) if suffix == ".webp" else ("1", options)
    Image.new(mode, (5000, 5000)).save(path, **options)
    assert path.stat().st_size < 25000
    with pytest.raises(ImageError, match=rf"bomb\{suffix} says that it has 5000 x 5000 pixels in"):
        read_image(path)


def test_images_of_very_many_parts_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "PNG")
    png = buffer.getvalue()
    (tmp_path / "chunks.png").write_bytes(png[:33] + (b"\0" * 4 + b"teXt" + b"\0" * 4) * 20_000)
    with pytest.raises(ImageError, match=r"chunks\.png has more than 10000 chunks"):
        read_image(tmp_path / "chunks.png")
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "JPEG2000", tile_size=(64, 64))
    data = bytearray(buffer.getvalue())
    size = data.index(b"\xff\x4f\xff\x51") + 8
    for at, side in ((0, 4000), (16, 16)):  # of the image, of a tile
        data[size + at : size + at + 8] = side.to_bytes(4, "big") * 2
    for name, content in (("tiles.jp2", data), ("tiles.j2k", data[size - 8 :])):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=rf"{name} has more than 4096 tiles"):
            read_image(tmp_path / name)
    Image.new("RGB", (640, 480)).save(tmp_path / "good.jp2", tile_size=(16, 16))
    assert read_image(tmp_path / "good.jp2").shape == (480, 640, 3)
