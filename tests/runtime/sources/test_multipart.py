"""MJPEG streams cut by the lengths that their parts state."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_fg.errors import SourceError
from edge_fg.sources.live.multipart import MultipartSplitter

EOI = b"\xff\xd9"


def jpeg(number: int, size_wh: tuple[int, int] = (48, 32)) -> bytes:
    noise = np.random.default_rng(number).integers(0, 256, (size_wh[1], size_wh[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


JPEGS = [jpeg(number) for number in range(6)]


def part(data: bytes, length: int | None = -1, kind: str = "image/jpeg") -> bytes:
    head = f"--b\r\nContent-Type: {kind}\r\n"
    if length is not None:
        head += f"Content-Length: {len(data) if length < 0 else length}\r\n"
    return head.encode() + b"\r\n" + data + b"\r\n"


def cut(body: bytes, boundary: str = "b", step: int = 1 << 16) -> tuple[list[bytes], int]:
    splitter = MultipartSplitter(boundary)
    images: list[bytes] = []
    for begin in range(0, len(body), step):
        images += splitter.feed(body[begin : begin + step])
    return images + splitter.finish(), splitter.corrupted


@given(st.integers(1, 3000), st.booleans())
def test_each_part_is_one_image_however_the_bytes_arrive(step: int, end: bool) -> None:
    body = b"".join(map(part, JPEGS)) + (b"--b--\r\n" if end else b"")
    assert cut(body, step=step) == (JPEGS, 0)


def test_an_image_comes_with_its_last_byte() -> None:
    splitter = MultipartSplitter("b")
    first = part(JPEGS[0])
    assert splitter.feed(first[:-3]) == []
    assert splitter.feed(first[-3:-2]) == [JPEGS[0]]


@pytest.mark.parametrize("stated", ["b", "--b", "----b"])
@pytest.mark.parametrize("dashes", ["--", "----", "------"])
def test_boundaries_with_more_dashes_than_they_should_have(stated: str, dashes: str) -> None:
    body = b"".join(part(data).replace(b"--b", f"{dashes}b".encode(), 1) for data in JPEGS)
    assert cut(body, stated) == (JPEGS, 0)


@pytest.mark.parametrize("padding", [b"\0\0\0", b"\r\n", b"\r\n\0 "])
def test_padding_within_the_length_is_no_damage(padding: bytes) -> None:
    assert cut(b"".join(part(data + padding) for data in JPEGS)) == (JPEGS, 0)


@given(st.integers(1, 3000))
def test_a_camera_that_never_writes_the_end_marker(step: int) -> None:
    body = b"".join(part(data.removesuffix(EOI)) for data in JPEGS)
    assert cut(body, step=step) == (JPEGS, 0)


@pytest.mark.parametrize("place", range(len(JPEGS)))
def test_one_image_without_the_end_marker_was_cut(place: int) -> None:
    datas = [data[:-2] if number == place else data for number, data in enumerate(JPEGS)]
    assert cut(b"".join(map(part, datas))) == ([d for d in JPEGS if d != JPEGS[place]], 1)


@pytest.mark.parametrize("harm", ["middle", "start", "two images", "text", "nothing"])
def test_a_part_that_is_not_one_image_is_left_out(harm: str) -> None:
    bad = {
        "middle": JPEGS[2][:900] + b"\xff\x01" * 20 + JPEGS[2][940:],
        "start": JPEGS[2][10:],
        "two images": JPEGS[2] * 2,
        "text": b"no image here",
        "nothing": b"",
    }[harm]
    datas = [*JPEGS[:2], bad, *JPEGS[3:]]
    assert cut(b"".join(map(part, datas))) == ([*JPEGS[:2], *JPEGS[3:]], 1)


@pytest.mark.parametrize("wrong", [-500, -1, 1, 30, 700])
def test_one_wrong_length_costs_little(wrong: int) -> None:
    parts = [part(d, len(d) + wrong if n == 2 else -1) for n, d in enumerate(JPEGS)]
    images, corrupted = cut(b"".join(parts))
    assert corrupted >= (wrong < 0)
    assert set(images) <= set(JPEGS)
    assert images[:2] == JPEGS[:2]
    assert images[-2:] == JPEGS[-2:]


@pytest.mark.parametrize("wrong", [None, -500, -2, 2, 20, 100_000])
def test_without_lengths_that_fit_images_are_cut_by_their_structure(wrong: int | None) -> None:
    parts = [part(data, None if wrong is None else len(data) + wrong) for data in JPEGS * 60]
    images, corrupted = cut(b"".join(parts))
    assert images == JPEGS * 60
    assert corrupted == 0


def test_parts_of_another_kind_are_passed_over() -> None:
    body = part(b'{"motion": 1}', kind="application/json").join(map(part, JPEGS))
    assert cut(body) == (JPEGS, 0)


@pytest.mark.parametrize("count", [0, 2])
def test_what_has_no_end_is_refused(count: int) -> None:
    splitter = MultipartSplitter("b")
    splitter.feed(b"".join(map(part, JPEGS[:count])))
    with pytest.raises(SourceError, match="without an image"):
        splitter.feed(b"x" * (1 << 21))
    splitter = MultipartSplitter("b")
    with pytest.raises(SourceError, match="an image of more than"):
        splitter.feed(part(b"", 1 << 31))


@given(st.lists(st.sampled_from([0, 1, 2, 3, 4]), max_size=8), st.data())
def test_any_bytes_give_whole_images(kinds: list[int], data: st.DataObject) -> None:
    pieces = [
        part(JPEGS[0]),
        part(JPEGS[1][:-2]),
        JPEGS[2],
        data.draw(st.binary(max_size=40)),
        b"--b\r\nContent-Length: 20\r\n\r\n--b\r\n",
    ]
    body = b"".join(pieces[kind] for kind in kinds)
    step = data.draw(st.integers(1, 2000))
    images, corrupted = cut(body, step=step)
    assert set(images) <= set(JPEGS)
    assert (images, corrupted) == cut(body), "it must not depend on how the bytes arrive"
