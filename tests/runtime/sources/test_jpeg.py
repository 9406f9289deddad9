"""JPEGs cut out of hostile streams of bytes."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_fg.errors import ImageError, SourceError
from edge_fg.jpeg import JpegDecoder, decode_jpeg, jpeg_size
from edge_fg.sources.jpeg_splitter import JpegSplitter
from support.properties import examples

cv2 = pytest.importorskip("cv2")


def encoded(seed: int = 0, size_wh: tuple[int, int] = (40, 24), **options: object) -> bytes:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (size_wh[1] // 8, size_wh[0] // 8, 3), np.uint8)
    image = Image.fromarray(small).resize(size_wh, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **{"quality": 90, **options})
    return buffer.getvalue()


def with_thumbnail(seed: int, behind: bytes = b"") -> bytes:
    """A JPEG that holds another whole one in its EXIF segment."""
    whole, small = encoded(seed), encoded(seed + 1, (16, 16))
    segment = b"Exif\0\0" + small + behind
    return whole[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + whole[2:]


# Its last SOI begins a segment that goes on beyond the image.
HOSTILE = (
    b"\xff\xd9--x\r\n\xff\xd8\xff\xe0\0\4ab\xff\xd9"
    b"\xff\xd8\xff\xdb\0\x10 not \xff\xd8\xff\xe1\5\0 an image"
)
KINDS = (
    encoded(1),
    encoded(2, progressive=True),
    encoded(3, restart_marker_blocks=1),
    encoded(4, optimize=True, subsampling=0),
    encoded(5, comment=b"\xff\xd8\xff\xd9 not an image"),
    with_thumbnail(6),
    with_thumbnail(8, b"\xff\xd9\xff\xd8\xff behind the thumbnail"),
    encoded(10, comment=HOSTILE),
)
# What cameras write between images; any text will do, and it holds no marker.
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
    return found + splitter.finish(), splitter


@given(
    st.lists(st.tuples(BETWEEN, st.sampled_from(KINDS)), min_size=1, max_size=5),
    st.lists(st.integers(0, 10**6), max_size=12),
)
def test_whole_images_come_out_as_they_went_in(
    parts: list[tuple[bytes, bytes]], places: list[int]
) -> None:
    found, splitter = cut(b"".join(a + b for a, b in parts), places)
    assert found == [image for _, image in parts]
    assert splitter.corrupted == 0
    assert not splitter.in_image


def test_byte_by_byte() -> None:
    stream = b"--b\r\n\r\n".join(KINDS)
    splitter = JpegSplitter()
    found = [p for byte in stream for p in splitter.feed(bytes([byte]))]
    assert found + splitter.finish() == list(KINDS)


def test_an_image_comes_out_with_its_last_byte() -> None:
    splitter = JpegSplitter()
    for image in KINDS[:-1] * 2:
        assert splitter.feed(b"\r\n--frame\r\n\r\n" + image[:-1]) == []
        assert splitter.in_image
        assert splitter.feed(image[-1:]) == [image]
        assert not splitter.in_image


def test_an_image_of_another_size_comes_out_once_the_next_one_begins() -> None:
    first, other = encoded(1), encoded(2, (64, 48))
    splitter = JpegSplitter()
    assert splitter.feed(first) == [first]
    assert splitter.feed(other + b"\r\n--frame\r\n\r\n\xff\xd8") == []
    assert splitter.feed(b"\xff") == [other]
    assert splitter.feed(other[3:]) == [other]
    assert splitter.feed(first) == []
    assert splitter.finish() == [first]
    assert splitter.finish() == []
    assert splitter.corrupted == 0


BOUNDARY = b"\r\n--frame\r\n\r\n"


def images_from(kind: int) -> list[bytes]:
    """Each kind of image, beginning with a given one, and this once more."""
    return [*KINDS[kind:], *KINDS[: kind + 1]]


def check_cut(broken: bytes, kind: int, place: int, boundary: bytes) -> None:
    """Of the images behind a cut, those that it did not swallow come out, exactly as sent."""
    sent = images_from(kind)
    found, splitter = cut(broken[:place] + b"".join(boundary + image for image in sent), [])
    assert len(found) >= 4
    assert found == sent[-len(found) :]
    assert splitter.corrupted == 1


def check_every_cut(broken: bytes, step: int) -> None:
    for kind in range(len(KINDS)):
        for boundary in (b"", BOUNDARY):
            for place in range(1 + (kind + len(boundary)) % step, len(broken), step):
                check_cut(broken, kind, place, boundary)


@pytest.mark.parametrize("broken", KINDS)
def test_an_image_that_is_cut_short_is_left_out_and_the_next_ones_are_not(broken: bytes) -> None:
    check_every_cut(broken, step=11)


@pytest.mark.slow
@pytest.mark.parametrize("broken", KINDS)
def test_an_image_that_is_cut_short_anywhere_is_left_out(broken: bytes) -> None:
    check_every_cut(broken, step=1)


@examples(40)
@given(
    st.sampled_from(KINDS),
    st.integers(0, len(KINDS) - 1),
    st.floats(0.01, 0.99),
    st.sampled_from([b"", BOUNDARY]),
    st.lists(st.integers(0, 10**6), max_size=12),
)
def test_the_pieces_that_bytes_arrive_in_change_nothing_behind_a_cut(
    broken: bytes, kind: int, share: float, boundary: bytes, places: list[int]
) -> None:
    place = max(1, int(len(broken) * share))
    check_cut(broken, kind, place, boundary)
    stream = broken[:place] + b"".join(boundary + image for image in images_from(kind))
    whole, _ = cut(stream, [])
    for edges in (places, list(range(len(stream)))):
        found, splitter = cut(stream, edges)
        assert found == whole
        assert splitter.corrupted == 1


def check_every_lost_head(kind: int, boundary: bytes, step: int) -> None:
    broken, first, sent = KINDS[kind], encoded(12), images_from(kind)
    places = range(1 + kind % step, len(broken), step)
    for place in places:
        parts = [first, broken[place:], *sent]
        found, splitter = cut(boundary.join(parts), [])
        assert found[0] == first
        assert len(found) >= 5
        assert found[1:] == sent[-len(found) + 1 :]
        # The gap counts, and so may what looks like the start of an image in what is left.
        assert 1 <= splitter.corrupted <= 1 + broken.count(b"\xff\xd8\xff", place)
    # The same at the start of a stream, where no size is known.
    for place in places:
        if not broken.startswith(b"\xff\xd8\xff", place):
            found, _ = cut(boundary.join([broken[place:], *sent]), [])
            assert len(found) >= 4
            assert found == sent[-len(found) :]


@pytest.mark.parametrize("boundary", [b"", BOUNDARY])
@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_an_image_whose_head_was_lost_is_left_out_with_its_thumbnail(
    kind: int, boundary: bytes
) -> None:
    check_every_lost_head(kind, boundary, step=11)


@pytest.mark.slow
@pytest.mark.parametrize("boundary", [b"", BOUNDARY])
@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_an_image_that_lost_any_part_of_its_head_is_left_out(kind: int, boundary: bytes) -> None:
    check_every_lost_head(kind, boundary, step=1)


def test_a_segment_that_claims_too_much_costs_no_more_than_it_claims() -> None:
    greedy = encoded(1, comment=b"\xff\xd8\xff\xe1\xff\xfe")
    whole = encoded(2)
    sent = 70_000 // len(whole) + 20
    for place in range(30, len(greedy), 50):
        found, splitter = cut(greedy[:place] + whole * sent, [])
        assert len(found) >= 18
        assert found == [whole] * len(found)
        assert splitter.corrupted == 1
    found, splitter = cut(greedy * 9, [])
    assert found == [greedy] * 9
    assert splitter.corrupted == 0


def test_images_between_binary_headers_come_out_once_their_size_is_known() -> None:
    stream = b"".join(len(image).to_bytes(4, "little") + image for image in KINDS)
    found, _ = cut(stream, [])
    assert found == list(KINDS[1:])


def test_memory_and_work_are_bounded_for_nested_starts() -> None:
    splitter = JpegSplitter()
    for _ in range(8):
        assert splitter.feed(b"\xff\xd8\xff\xe0\xff\xfe" * 10_000) == []
        assert len(splitter._buffer) <= 1 << 17
        assert len(splitter._heap) == len(splitter._starts) <= 1 << 15


def test_rubbish_between_images_is_counted_once() -> None:
    rubbish = bytes(range(128, 255)) * 3
    stream = KINDS[0] + rubbish + KINDS[1] + b"\r\n" + KINDS[2]
    found, splitter = cut(stream, [10, 700, 900])
    assert found == [KINDS[0], KINDS[1], KINDS[2]]
    assert splitter.corrupted == 1


@given(st.binary(max_size=600), st.lists(st.integers(0, 600), max_size=5))
@examples(300)
def test_any_bytes_are_survived_and_nothing_is_invented(data: bytes, places: list[int]) -> None:
    stream = b"\xff\xd8" + data + KINDS[0]
    found, splitter = cut(stream, places)
    for image in found:
        assert image in stream
        assert image.startswith(b"\xff\xd8")
        assert image.endswith(b"\xff\xd9")
    assert len(splitter._buffer) <= len(stream)


def test_what_never_ends_is_refused() -> None:
    splitter = JpegSplitter(max_bytes=1000, max_gap=500)
    with pytest.raises(SourceError, match="more than 1000 bytes"):
        splitter.feed(encoded()[:-2] + b"\0" * 2000)
    splitter = JpegSplitter(max_bytes=1000, max_gap=500)
    assert [splitter.feed(b"text " * 20) for _ in range(5)] == [[]] * 5
    with pytest.raises(SourceError, match="500 bytes were sent without an image"):
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
def test_the_pixels_are_those_of_pillow_and_of_opencv(data: bytes) -> None:
    decoded = decode_jpeg(data)
    assert decoded.note is None
    assert decoded.pixels.dtype == np.uint8
    oracle = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[:, :, ::-1]
    np.testing.assert_array_equal(decoded.pixels, oracle)
    by_opencv = cv2.imdecode(np.frombuffer(data, np.uint8), 1 | cv2.IMREAD_IGNORE_ORIENTATION)
    np.testing.assert_array_equal(decoded.pixels, by_opencv)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_four_colours_become_bgr(mode: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (16, 8), 77).save(buffer, "JPEG")
    assert decode_jpeg(buffer.getvalue()).pixels.shape == (8, 16, 3)


def test_what_can_not_be_decoded_is_said() -> None:
    decode = JpegDecoder("camera")
    for bad in (b"", b"\xff\xd8\xff\xd9", b"\xff\xd8" + b"\0" * 50, b"GIF89a" + b"\0" * 50):
        with pytest.raises(ImageError):
            decode(bad)
    with pytest.raises(ImageError, match="40 x 24"):
        decode_jpeg(KINDS[0], max_pixels=100)
