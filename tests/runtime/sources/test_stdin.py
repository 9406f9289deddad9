"""Frames from standard input."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_fg.errors import EdgeFGError, SourceError, TruncatedSourceError
from edge_fg.sources import Frame, SourceOptions, open_source
from edge_fg.sources.stdin import PipeSource
from support.waiting import joined, unchanged, until


def jpeg(value: int, size_wh: tuple[int, int] = (16, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size_wh, (value, value, value)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def values(frames: list[Frame]) -> list[int]:
    return [int(frame.image.mean().round()) for frame in frames]


def read(data: bytes) -> list[Frame]:
    with PipeSource(stream=io.BytesIO(data)) as source:
        return list(source)


def test_a_row_of_jpegs() -> None:
    frames = read(jpeg(10) + b"\r\n" + jpeg(200) + jpeg(90))
    assert values(frames) == [10, 200, 90]
    assert [frame.number for frame in frames] == [0, 1, 2]
    assert {frame.source for frame in frames} == {"-"}


def test_a_multipart_body() -> None:
    parts = b"".join(b"--x\r\nContent-Type: image/jpeg\r\n\r\n%s\r\n" % jpeg(v) for v in (7, 8))
    assert values(read(parts + b"--x--\r\n")) == [7, 8]


def test_a_damaged_image_is_left_out_and_counted() -> None:
    bad = jpeg(50)[:2] + jpeg(50)[20:-2] + b"\xff\x01\xff\xd9"
    with PipeSource(stream=io.BytesIO(jpeg(9) + bad + jpeg(99))) as source:
        frames = list(source)
    assert values(frames) == [9, 99]
    assert sum(frame.dropped for frame in frames) == 1
    assert source.counters["corrupted"] == 1
    assert source.counters["frames"] == 2


@pytest.mark.parametrize("share", [0.2, 0.5, 0.97])
def test_a_pipe_that_breaks_off(share: float) -> None:
    whole, last = jpeg(9), jpeg(99)
    frames: list[Frame] = []
    with PipeSource(stream=io.BytesIO(whole + last[: int(len(last) * share)])) as source:
        with pytest.raises(TruncatedSourceError, match="in the middle of frame 1"):
            frames.extend(source)
        assert source.state == "ended"
    assert values(frames) == [9]


@pytest.mark.parametrize("data", [b"", b"text\n" * 10])
def test_bytes_without_an_image_are_refused(data: bytes) -> None:
    with pytest.raises(SourceError, match="held no frame"):
        read(data)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_give_frames_or_an_error(data: bytes, with_image: bool) -> None:
    try:
        frames = read((jpeg(7) if with_image else b"") + data)
    except EdgeFGError as error:
        assert "\n" not in str(error)
    else:
        assert frames


@pytest.fixture
def pipe() -> Iterator[tuple[object, int]]:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream:
        yield stream, writing


def test_a_silent_pipe_is_stalled_and_goes_on(pipe: tuple[object, int]) -> None:
    stream, writing = pipe
    source = PipeSource(stream=stream, options=SourceOptions(timeout=0.5))
    states: list[str] = []
    source.on_state(lambda change: states.append(change.state))

    def write() -> None:
        os.write(writing, jpeg(9))
        until(lambda: "stalled" in states)
        os.write(writing, jpeg(99))
        os.close(writing)

    writer = threading.Thread(target=write)
    writer.start()
    assert values(list(source)) == [9, 99]
    writer.join()
    assert states == ["stalled", "live", "ended"]
    assert source.counters["stalls"] == 1


def test_closing_ends_a_read_that_waits(pipe: tuple[object, int]) -> None:
    stream, writing = pipe
    source = PipeSource(stream=stream)
    frames: list[Frame] = []
    reader = threading.Thread(target=lambda: frames.extend(source))
    reader.start()
    unchanged(lambda: len(frames))
    source.close()
    joined(reader)
    os.close(writing)
    assert frames == []


def test_the_program_that_writes_waits_for_the_one_that_reads(pipe: tuple[object, int]) -> None:
    stream, writing = pipe
    written = []
    noise = np.random.default_rng(3).integers(0, 256, (100, 100, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG", quality=100)
    assert len(buffer.getvalue()) > 20_000

    def write() -> None:
        for _ in range(200):
            os.write(writing, buffer.getvalue())
            written.append(1)
        os.close(writing)

    writer = threading.Thread(target=write)
    writer.start()
    with PipeSource(stream=stream) as source:
        next(source)
        assert unchanged(lambda: len(written)) < 30
        assert len(list(source)) == 199
    writer.join()
    assert source.counters["dropped"] == 0


def test_standard_input_of_a_program() -> None:
    code = (
        "import sys; from edge_fg.sources import open_source\n"
        "with open_source('-', flip='horizontal') as source:\n"
        "    print(source.live, [int(f.image.mean().round()) for f in source])\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=jpeg(40) + jpeg(41),
        capture_output=True,
        env=environment,
        check=True,
    )
    assert done.stdout.decode() == "False [40, 41]\n"


def test_standard_input_is_named_by_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    class Input:
        buffer = io.BytesIO(jpeg(3))

    monkeypatch.setattr(sys, "stdin", Input)
    with open_source("-") as source:
        assert values(list(source)) == [3]


def test_a_closed_standard_input_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # as Python does where the descriptor is closed
    with pytest.raises(SourceError, match="standard input is closed"):
        open_source("-")
