"""Grey images of more than 8 bits: infrared and thermal cameras."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from edge_fg.errors import ImageError, UsageError
from edge_fg.images import read_image
from edge_fg.sources import open_source
from edge_fg_calibration import read_image_set
from edge_fg_calibration.data.near_duplicates import read_fingerprints

RAMP = np.linspace(0, 1, 40 * 60).reshape(40, 60)


def ramp(low: int, high: int) -> np.ndarray:
    return (low + RAMP * (high - low)).round().astype(np.uint16)


def grey_of(path: Path, **options: object) -> np.ndarray:
    frame = read_image(path, **options)
    assert (frame == frame[:, :, :1]).all()
    return frame[:, :, 0]


def save_png(path: Path, values: np.ndarray, significant: int | None) -> None:
    Image.fromarray(values).save(path)
    if significant is not None:
        chunk = b"sBIT" + bytes([significant])
        chunk = struct.pack(">I", 1) + chunk + struct.pack(">I", zlib.crc32(chunk))
        data = path.read_bytes()
        path.write_bytes(data[:33] + chunk + data[33:])  # behind the header


def save_tiff(path: Path, values: np.ndarray, tags: dict[int, int]) -> None:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        info[tag] = value
    Image.fromarray(values).save(path, tiffinfo=info)


def save_pgm(path: Path, values: np.ndarray, white: int) -> None:
    path.write_bytes(b"P5\n# infrared\n60 40\n%d\n" % white + values.astype(">u2").tobytes())


def save_plain_pgm(path: Path, values: np.ndarray, white: int) -> None:
    text = " ".join(map(str, values.ravel()))
    path.write_bytes(f"P2 60 40 {white}\n{text}\n".encode())


def packed_tiff(path: Path, values: np.ndarray, bits: int = 12) -> None:
    """A TIFF of 12 bits a sample, two in three bytes; or one that says so of other bits."""
    pairs = values.reshape(-1, 2).astype(int)
    packed = np.stack(
        [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1
    )
    tags = [(256, 60), (257, 40), (258, bits), (259, 1), (262, 1), (273, 0), (277, 1), (278, 40)]
    tags += [(279, packed.size)]
    entries = b""
    for tag, value in tags:
        value = 8 + 2 + 12 * len(tags) + 4 if tag == 273 else value
        entries += struct.pack("<HHII", tag, 4, 1, value)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    path.write_bytes(head + packed.astype(np.uint8).tobytes())


STATED: dict[str, tuple[str, int, Callable[[Path, np.ndarray], None]]] = {
    "PNG, 10 bits": ("a.png", 1023, lambda path, v: save_png(path, v, 10)),
    "PNG, 12 bits": ("a.png", 4095, lambda path, v: save_png(path, v, 12)),
    "PNG, 14 bits": ("a.png", 16383, lambda path, v: save_png(path, v, 14)),
    "PGM, 10 bits": ("a.pgm", 1023, lambda path, v: save_pgm(path, v, 1023)),
    "PGM, white at 3000": ("a.pgm", 3000, lambda path, v: save_pgm(path, v, 3000)),
    "PGM in text": ("a.pgm", 4095, lambda path, v: save_plain_pgm(path, v, 4095)),
    "TIFF, SMaxSampleValue": ("a.tif", 4095, lambda path, v: save_tiff(path, v, {341: 4095})),
    "TIFF, MaxSampleValue": ("a.tif", 16383, lambda path, v: save_tiff(path, v, {281: 16383})),
    "TIFF, 12 bits packed": ("a.tif", 4095, packed_tiff),
}


@pytest.mark.parametrize("kind", STATED)
def test_values_are_scaled_by_what_the_file_states(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    name, white, save = STATED[kind]
    values = ramp(0, white)
    save(tmp_path / name, values)
    grey = grey_of(tmp_path / name)
    expected = values.astype(int) * 256 // (white + 1)
    assert np.abs(grey.astype(int) - expected).max() <= 1
    assert set(grey.ravel()) >= {0, 64, 128, 255}
    assert not caplog.records


def test_the_range_that_a_thermal_tiff_states_is_black_to_white(tmp_path: Path) -> None:
    save_tiff(tmp_path / "a.tif", ramp(29300, 31000), {340: 29300, 341: 31000})
    grey = grey_of(tmp_path / "a.tif")
    assert (grey.min(), grey.max()) == (0, 255)


def test_scaled_values_with_their_significant_bits_stay_as_they_are(tmp_path: Path) -> None:
    # As the PNG standard has it: 12 bits moved up, their first four repeated below.
    twelve = ramp(0, 4095)
    for values in (twelve << 4 | twelve >> 8, (twelve >> 4) << 4):
        save_png(tmp_path / "a.png", values, 12)
        np.testing.assert_array_equal(grey_of(tmp_path / "a.png"), values >> 8)


UNSTATED = {
    "10 bits": (0, 1023),
    "12 bits": (0, 4095),
    "14 bits": (0, 16383),
    "kelvin": (29300, 31000),
}


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
@pytest.mark.parametrize("kind", UNSTATED)
def test_a_small_part_of_the_range_is_named_and_can_be_stretched(
    tmp_path: Path, suffix: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    low, high = UNSTATED[kind]
    path = tmp_path / f"night{suffix}"
    if suffix == ".pgm":
        save_pgm(path, ramp(low, high), 65535)
    else:
        Image.fromarray(ramp(low, high)).save(path)
    np.testing.assert_array_equal(grey_of(path), ramp(low, high) >> 8)
    (record,) = caplog.records
    assert f"uses the values {low} to {high} of 0..65535" in record.getMessage()
    assert f"grey_range={low}-{high}" in record.getMessage()
    caplog.clear()
    grey = grey_of(path, grey_range=(low, high))
    assert (grey.min(), grey.max()) == (0, 255)
    assert not caplog.records


def test_colours_of_twelve_bits_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cv2 = pytest.importorskip("cv2")
    cv2.imwrite(str(tmp_path / "a.png"), np.repeat(ramp(0, 4095)[:, :, None], 3, axis=2))
    read_image(tmp_path / "a.png")
    assert "a.png uses a small part of its 16 bits" in caplog.text
    caplog.clear()
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((1632, 16, 3), np.uint8))
    Image.new("RGB", (1632, 16)).save(tmp_path / "b.bmp")
    for name in ("a.png", "b.bmp"):
        read_image(tmp_path / name)
    assert not caplog.records


@pytest.mark.parametrize("largest", [100, 255, 1023])
@pytest.mark.parametrize("kind", [b"P5", b"P6"])
def test_portable_images_of_any_largest_value_are_pillows(
    tmp_path: Path, kind: bytes, largest: int
) -> None:
    shape = (40, 60, 3) if kind == b"P6" else (40, 60)
    values = np.random.default_rng(0).integers(0, largest + 1, shape)
    data = values.astype(">u2" if largest > 255 else np.uint8).tobytes()
    path = tmp_path / "a.pnm"
    path.write_bytes(kind + b" 60 40 %d\n" % largest + data)
    with Image.open(path) as image:
        oracle = np.asarray(image)
    oracle = oracle >> 8 if oracle.dtype != np.uint8 else oracle
    shown = read_image(path)[:, :, ::-1] if kind == b"P6" else grey_of(path)
    assert np.abs(shown.astype(int) - oracle).max() <= (kind == b"P5" and largest > 255)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ImageError, match=r"a\.pnm"):
        read_image(path)


@pytest.mark.parametrize("save", [save_pgm, save_plain_pgm])
def test_a_range_is_in_a_portable_images_own_values(
    tmp_path: Path, save: Callable[[Path, np.ndarray, int], None]
) -> None:
    path = tmp_path / "a.pgm"
    save(path, ramp(1000, 2000), 4095)
    expected = (ramp(1000, 2000).astype(int) - 1000) * 256 // 1001
    np.testing.assert_array_equal(grey_of(path, grey_range=(1000, 2000)), expected)


def test_what_a_tiff_states_wrongly_is_not_believed(tmp_path: Path) -> None:
    for tags in ({341: 1000}, {340: 500}, {340: 9, 341: 3}):
        save_tiff(tmp_path / "a.tif", ramp(0, 65535), tags)
        np.testing.assert_array_equal(grey_of(tmp_path / "a.tif"), ramp(0, 65535) >> 8)


@pytest.mark.parametrize("bits", [10, 14])
def test_a_tiff_of_packed_bits_that_can_not_be_read_gets_advice(tmp_path: Path, bits: int) -> None:
    packed_tiff(tmp_path / "a.tif", ramp(0, 4095), bits)
    with pytest.raises(ImageError, match=r"a\.tif is a .*TIFF.*: save it with 8 or 16 bits"):
        read_image(tmp_path / "a.tif")


@pytest.mark.filterwarnings("error")
def test_floating_point_values_can_be_read_with_a_range(tmp_path: Path) -> None:
    values = (RAMP * 40 - 10).astype(np.float32)
    values[20, :2] = np.nan, np.inf  # pixels of a sensor that don't measure
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="give grey_range"):
        read_image(tmp_path / "a.tif")
    grey = grey_of(tmp_path / "a.tif", grey_range=(0, 29))
    assert (grey.min(), grey.max()) == (0, 255)
    assert grey[20, :2].tolist() == [0, 255]


def test_a_folder_takes_the_range_behind_its_name_and_sums_its_warnings_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(4):
        Image.fromarray(ramp(0, 4095 - number)).save(tmp_path / f"{number}.png")
    with open_source(f"{tmp_path}?grey_range=0-4095") as source:
        assert [frame.image.max() for frame in source] == [255] * 4
    assert not caplog.records
    with open_source(tmp_path) as source:
        assert [frame.image.max() for frame in source] == [15] * 4
    assert [record.getMessage().partition(" uses ")[0] for record in caplog.records] == [
        f"the image {tmp_path / '0.png'}",
        "images that use a small part of their range: 4 in all",
    ]
    for wrong in ("4095-0", "x", "5", "1-2-3"):
        with pytest.raises(UsageError):
            open_source(f"{tmp_path}?grey_range={wrong}")
    with pytest.raises(UsageError, match="it is for image files"):
        open_source("csi://0?grey_range=0-4095")


def test_a_calibration_set_of_such_images_warns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        Image.fromarray(ramp(number, 4095)).save(tmp_path / f"{number}.png")
    found, corrupt = read_fingerprints(read_image_set(tmp_path))
    assert (len(found), corrupt) == (3, {})
    messages = [record.getMessage() for record in caplog.records]
    assert "nearly black or flat" in messages[0]
    assert messages[1:] == ["images that use a small part of their range: 3 in all"]
