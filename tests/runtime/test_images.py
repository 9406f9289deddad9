"""Images of every odd kind, against Pillow and torchvision's way with it."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from edge_fg.errors import ImageError
from edge_fg.images import (
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    MAX_SIDE_RATIO,
    as_frame,
    read_image,
    to_frame,
)
from support.properties import examples

ORIENTATION = 0x0112


@pytest.fixture
def colours() -> Image.Image:
    """A small image in which every pixel differs."""
    values = np.random.default_rng(7).integers(0, 256, (12, 17, 3), dtype=np.uint8)
    return Image.fromarray(values)


def rgb_of(path: Path) -> np.ndarray:
    return read_image(path)[:, :, ::-1]


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png(path: Path, width: int, height: int) -> Path:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = png_chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + data + png_chunk(b"IEND", b"")
    )
    return path


def test_a_frame_is_bgr_uint8_and_contiguous(tmp_path: Path, colours: Image.Image) -> None:
    colours.save(tmp_path / "a.png")
    frame = read_image(str(tmp_path / "a.png"))
    assert frame.shape == (12, 17, 3)
    assert frame.dtype == np.uint8
    assert frame.flags.c_contiguous
    np.testing.assert_array_equal(frame[:, :, 0], np.asarray(colours)[:, :, 2])
    np.testing.assert_array_equal(frame[:, :, 2], np.asarray(colours)[:, :, 0])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_exif_orientation_is_applied_as_pillow_does(
    tmp_path: Path, colours: Image.Image, orientation: int, suffix: str
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / f"a{suffix}"
    colours.save(path, exif=exif)
    with Image.open(path) as image:
        oracle = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    np.testing.assert_array_equal(rgb_of(path), oracle)
    assert rgb_of(path).shape[:2] == ((12, 17) if orientation < 5 else (17, 12))


@pytest.mark.parametrize("orientation", [0, 9, 255, 65535])
def test_an_orientation_that_does_not_exist_changes_nothing(
    tmp_path: Path, colours: Image.Image, orientation: int
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    colours.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(rgb_of(tmp_path / "a.png"), np.asarray(colours))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_exif_block_does_not_cost_the_image(tmp_path: Path, colours: Image.Image) -> None:
    colours.save(tmp_path / "a.png", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    np.testing.assert_array_equal(rgb_of(tmp_path / "a.png"), np.asarray(colours))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_modes_come_out_as_convert_gives_them(
    tmp_path: Path, colours: Image.Image, mode: str
) -> None:
    image = colours.convert(mode)
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(rgb_of(tmp_path / "a.png"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_jpeg_colour_spaces(tmp_path: Path, colours: Image.Image, mode: str) -> None:
    colours.convert(mode).save(tmp_path / "a.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as image:
        oracle = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(rgb_of(tmp_path / "a.jpg"), oracle)


def test_alpha_is_dropped_and_not_blended(tmp_path: Path) -> None:
    Image.new("RGBA", (3, 2), (10, 20, 30, 0)).save(tmp_path / "a.png")
    assert (rgb_of(tmp_path / "a.png") == (10, 20, 30)).all()
    Image.new("LA", (3, 2), (77, 0)).save(tmp_path / "b.png")
    assert (rgb_of(tmp_path / "b.png") == 77).all()


def test_a_transparent_palette_colour_keeps_its_colour(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([255, 0, 0, 0, 128, 255])
    image.save(tmp_path / "a.png", transparency=1)
    assert (rgb_of(tmp_path / "a.png") == (0, 128, 255)).all()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.random.default_rng(3).integers(0, 65536, (9, 11), dtype=np.uint16)
    path = tmp_path / f"a{suffix}"
    if suffix == ".pgm":
        path.write_bytes(b"P5 11 9 65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(path)
    oracle = np.repeat((values >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(rgb_of(path), oracle)


def test_a_32_bit_tiff_is_taken_only_with_8_bit_values(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.int32).reshape(3, 4)
    Image.fromarray(values).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(rgb_of(tmp_path / "a.tif")[:, :, 1], values)
    Image.fromarray(values * 1000).save(tmp_path / "b.tif")
    with pytest.raises(ImageError, match=r"b\.tif has values from 0 to 11000, outside 0\.\.255"):
        read_image(tmp_path / "b.tif")


@pytest.mark.parametrize("white", [1, 255, 300])
def test_a_float_tiff_is_refused_with_advice(tmp_path: Path, white: int) -> None:
    values = np.linspace(0, white, 12, dtype=np.float32).reshape(3, 4)
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=r"a\.tif holds floating-point .* 8 or 16 unsigned bits"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif"])
def test_of_an_animation_the_first_frame(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    first, second = Image.new("RGB", (8, 6), "red"), Image.new("RGB", (8, 6), "blue")
    first.save(path, save_all=True, append_images=[second])
    pixel = rgb_of(path)[3, 3].astype(int)
    assert abs(pixel - (255, 0, 0)).max() <= 3


def test_one_pixel(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "a.bmp")
    assert read_image(tmp_path / "a.bmp").tolist() == [[[3, 2, 1]]]


def test_the_content_decides_and_not_the_suffix(tmp_path: Path, colours: Image.Image) -> None:
    colours.save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(rgb_of(tmp_path / "a.jpg"), np.asarray(colours))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".bmp", ".tif", ".webp"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_image_is_an_error_with_its_path(
    tmp_path: Path, suffix: str, share: float
) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"cut{suffix}"
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ImageError, match="cut") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"this is a text\n" * 50, "is not an image"),
        (b"\xff\xd8\xff\xe0", "cut"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "is not an image"),
    ],
)
def test_what_is_not_a_image(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "cut.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def test_missing_directory_device_and_pipe(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"there is no image .*none\.png"):
        read_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match="is a directory"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match="not a regular file"):
        read_image("/dev/zero")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="not a regular file"):
        read_image(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="can't decode"):
        read_image("null\0character.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (2, 2)).save(path)
    path.chmod(0)
    with pytest.raises(ImageError, match="Permission denied"):
        read_image(path)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("side", [13378, 20000, 1_000_000])
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path, side: int) -> None:
    path = huge_png(tmp_path / "bomb.png", side, side)
    assert side * side > MAX_PIXELS
    with pytest.raises(ImageError, match=rf"bomb\.png .*{MAX_PIXELS}"):
        read_image(path)


@pytest.mark.filterwarnings("error")
def test_a_large_photograph_is_decoded_without_pillows_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, colours: Image.Image
) -> None:
    colours.save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)
    with pytest.raises(Image.DecompressionBombWarning):
        Image.open(tmp_path / "a.png")
    before = list(warnings.filters)
    np.testing.assert_array_equal(rgb_of(tmp_path / "a.png"), np.asarray(colours))
    assert warnings.filters == before
    assert MAX_PIXELS >= 108_000_000


@pytest.mark.parametrize("turned", [False, True])
def test_a_strip_is_refused_before_it_is_decoded(tmp_path: Path, turned: bool) -> None:
    for length, width in ((60000, 1), (100_000_000, 1), (MAX_SIDE_RATIO * 3 + 1, 3)):
        path = huge_png(tmp_path / "strip.png", *((width, length) if turned else (length, width)))
        with pytest.raises(ImageError, match=r"strip\.png is a strip of .*200 times"):
            read_image(path)
    size = (3, MAX_SIDE_RATIO * 3) if turned else (MAX_SIDE_RATIO * 3, 3)
    Image.new("RGB", size).save(tmp_path / "long.png")
    assert read_image(tmp_path / "long.png").shape == (size[1], size[0], 3)


def test_the_limit_holds_when_pillows_own_is_switched_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ImageError, match="at most"):
        read_image(huge_png(tmp_path / "bomb.png", 30000, 30000))


def test_a_sparse_giant_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "giant.webp"
    with path.open("wb") as file:
        file.write(b"RIFF\xff\xff\xff\x7fWEBPVP8 ")
        file.truncate(3 << 30)
    with pytest.raises(ImageError, match="bytes"):
        read_image(path)


@examples(150)
@given(data=st.data(), suffix=st.sampled_from([".png", ".jpg", ".gif", ".tif", ".webp", ".bmp"]))
def test_flipped_bytes_give_a_frame_or_an_image_error(
    tmp_path: Path, data: st.DataObject, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    Image.linear_gradient("L").resize((24, 16)).convert("RGB").save(path)
    content = bytearray(path.read_bytes())
    places = st.integers(0, len(content) - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frame = read_image(path)
    except ImageError as error:
        assert str(path) in str(error)
    else:
        assert as_frame(frame) is frame


def test_camera_trap_images(data_dir: Path) -> None:
    folder = data_dir / "images" / "cameratrap"
    upright = read_image(folder / "african_elephants.jpg")
    turned = read_image(folder / "african_elephants_with_exif_orientation.jpg")
    cmyk = read_image(folder / "african_elephants_cmyk.jpg")
    assert upright.shape == turned.shape == cmyk.shape == (1536, 2048, 3)
    for other in (turned, cmyk):
        assert np.abs(upright.astype(int) - other).mean() < 12
    with pytest.raises(ImageError, match="truncated"):
        read_image(folder / "african_elephants_truncated_file.jpg")


def test_suffixes_are_lower_case_with_a_dot() -> None:
    assert {".jpg", ".jpeg", ".png", ".webp", ".tif"} <= IMAGE_SUFFIXES
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in IMAGE_SUFFIXES)


def test_as_frame_returns_a_frame_as_it_is_and_copies_only_strided_ones() -> None:
    frame = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert as_frame(frame) is frame
    flipped = as_frame(frame[:, ::-1])
    assert flipped.flags.c_contiguous
    np.testing.assert_array_equal(flipped, frame[:, ::-1])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 5), np.uint8), r"shape \(4, 5\) of uint8: a grey image, .*GRAY2BGR"),
        (np.zeros((4, 5, 1), np.uint8), "grey"),
        (np.zeros((4, 5, 4), np.uint8), r"\[:, :, :3\]"),
        (np.zeros((4, 5, 3), np.float32), r"of float32: scale it to 0\.\.255"),
        (np.zeros((4, 5, 3), np.int64), "astype"),
        (np.zeros((3, 40, 50), np.uint8), "channels come last"),
        (np.zeros((1, 4, 5, 3), np.uint8), r"a batch, use frames\[0\]"),
        (np.zeros((2, 4, 5, 3), np.uint8), "one by one"),
        (np.zeros((0, 5, 3), np.uint8), "empty"),
        (np.zeros(7, np.uint8), r"shape \(7,\)"),
        (None, "cv2.imread"),
        ("a.jpg", "read_image"),
        (Image.new("RGB", (2, 2)), r"not Image: use numpy\.asarray"),
        ([[1, 2, 3]], "not list"),
    ],
)
def test_as_frame_says_what_was_expected_and_what_came(array: object, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        as_frame(array)
    assert "H x W x 3 uint8" in str(caught.value)


def test_paths_may_be_bytes(tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    Image.new("L", (3, 2), 77).save(path)
    with Image.open(bytes(path)) as image:
        assert to_frame(image).shape == (2, 3, 3)
    assert read_image(os.fsencode(path)).shape == (2, 3, 3)
