"""JPEGs cut out of hostile streams of bytes."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_fg.errors import ImageError, SourceError
from edge_fg.sources import jpeg
from edge_fg.sources.jpeg import JpegSplitter, decode_by_pillow, decoder, jpeg_size

cv2 = pytest.importorskip("cv2")


def encoded(seed: int = 0, size_wh: tuple[int, int] = (40, 24), **options: object) -> bytes:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (size_wh[1] // 8, size_wh[0] // 8, 3), np.uint8)
    image = Image.fromarray(small).resize(size_wh, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **{"quality": 90, **options})
    return buffer.getvalue()


def with_thumbnail(seed: int) -> bytes:
    """A JPEG that holds another whole one in its EXIF segment."""
    whole, small = encoded(seed), encoded(seed + 1, (16, 16))
    segment = b"Exif\0\0" + small
    return whole[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + whole[2:]


KINDS = (
    encoded(1),
    encoded(2, progressive=True),
    encoded(3, restart_marker_blocks=1),
    encoded(4, optimize=True, subsampling=0),
    encoded(5, comment=b"\xff\xd8\xff\xd9 not a picture"),
    with_thumbnail(6),
)
# What cameras write between pictures; any text will do, and it holds no marker.
BETWEEN = st.sampled_from(
    [
        b"",
        b"\r\n",
        b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: 99\r\n\r\n",
        b"\r\n--x\r\n",
    ]
)


def cut(stream: bytes, places: list[int], **limits: int) -> tuple[list[bytes], JpegSplitter]:
    splitter = JpegSplitter(**limits)
    edges = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    found: list[bytes] = []
    for start, end in itertools.pairwise(edges):
        found += splitter.feed(stream[start:end])
    return found, splitter


@given(
    st.lists(st.tuples(BETWEEN, st.sampled_from(KINDS)), min_size=1, max_size=5),
    st.lists(st.integers(0, 10**6), max_size=12),
)
def test_whole_pictures_come_out_as_they_went_in(
    parts: list[tuple[bytes, bytes]], places: list[int]
) -> None:
    found, splitter = cut(b"".join(a + b for a, b in parts), places)
    assert found == [picture for _, picture in parts]
    assert splitter.corrupted == 0
    assert not splitter.in_picture


def test_byte_by_byte() -> None:
    stream = b"--b\r\n\r\n".join(KINDS)
    splitter = JpegSplitter()
    found = [p for byte in stream for p in splitter.feed(bytes([byte]))]
    assert found == list(KINDS)


@given(st.sampled_from(KINDS), st.sampled_from(KINDS), st.floats(0.05, 0.98), st.booleans())
def test_a_picture_that_is_cut_short_is_left_out_and_the_next_one_is_not(
    broken: bytes, whole: bytes, share: float, boundary: bool
) -> None:
    head = b"\r\n--frame\r\n\r\n" if boundary else b""
    stream = broken[: int(len(broken) * share)] + (head + whole) * 9
    found, splitter = cut(stream, [])
    # A cut within a header may take a few of the next pictures along, but mixes nothing: at most
    # the 20 bytes of JFIF's own segment, which say nothing of the pixels, are of the broken one.
    assert 4 <= len(found) <= 9
    assert all(picture.endswith(whole[20:]) for picture in found)
    for picture in found:
        np.testing.assert_array_equal(decode_by_pillow(picture), decode_by_pillow(whole))
    assert splitter.corrupted >= 1 or found[0] != whole


def test_rubbish_between_pictures_is_counted_once() -> None:
    rubbish = bytes(range(128, 255)) * 3
    stream = KINDS[0] + rubbish + KINDS[1] + b"\r\n" + KINDS[2]
    found, splitter = cut(stream, [10, 700, 900])
    assert found == [KINDS[0], KINDS[1], KINDS[2]]
    assert splitter.corrupted == 1


@given(st.binary(max_size=600), st.lists(st.integers(0, 600), max_size=5))
@settings(max_examples=300)
def test_any_bytes_are_survived_and_nothing_is_invented(data: bytes, places: list[int]) -> None:
    stream = b"\xff\xd8" + data + KINDS[0]
    found, splitter = cut(stream, places)
    for picture in found:
        assert picture in stream
        assert picture.startswith(b"\xff\xd8")
        assert picture.endswith(b"\xff\xd9")
    assert len(splitter._buffer) <= len(stream)


def test_what_never_ends_is_refused() -> None:
    splitter = JpegSplitter(max_bytes=1000, max_gap=500)
    with pytest.raises(SourceError, match="more than 1000 bytes"):
        splitter.feed(encoded()[:-2] + b"\0" * 2000)
    splitter = JpegSplitter(max_bytes=1000, max_gap=500)
    assert [splitter.feed(b"text " * 20) for _ in range(5)] == [[]] * 5
    with pytest.raises(SourceError, match="500 bytes were sent without a picture"):
        splitter.feed(b"x")


@pytest.mark.parametrize("data", KINDS)
def test_sizes_are_those_that_pillow_reads(data: bytes) -> None:
    assert jpeg_size(data) == Image.open(io.BytesIO(data)).size


@given(st.binary(max_size=300))
def test_a_size_of_any_bytes_is_a_size_or_an_error(data: bytes) -> None:
    for prefix in (b"", b"\xff\xd8"):
        try:
            width, height = jpeg_size(prefix + data)
        except ImageError:
            continue
        assert width >= 0
        assert height >= 0


@pytest.mark.parametrize("data", [*KINDS, encoded(7, (200, 160), quality=60)])
def test_both_decoders_give_the_same_pixels(data: bytes) -> None:
    by_opencv, by_pillow = decoder()(data), decode_by_pillow(data)
    np.testing.assert_array_equal(by_opencv, by_pillow)
    assert by_opencv.dtype == np.uint8
    oracle = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[:, :, ::-1]
    np.testing.assert_array_equal(by_pillow, oracle)


def test_without_opencv_pillow_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    assert decoder() is decode_by_pillow


def test_a_grey_picture_becomes_bgr() -> None:
    buffer = io.BytesIO()
    Image.new("L", (16, 8), 77).save(buffer, "JPEG")
    for decode in (decoder(), decode_by_pillow):
        assert decode(buffer.getvalue()).shape == (8, 16, 3)


@pytest.mark.parametrize("make", [lambda: decoder(), lambda: decode_by_pillow])
def test_what_can_not_be_decoded_is_said(make: object, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = make()
    for bad in (b"", b"\xff\xd8\xff\xd9", b"\xff\xd8" + b"\0" * 50, b"GIF89a" + b"\0" * 50):
        with pytest.raises(ImageError):
            decode(bad)
    monkeypatch.setattr(jpeg, "MAX_STREAM_PIXELS", 100)
    with pytest.raises(ImageError, match="40 x 24"):
        decode(KINDS[0])
