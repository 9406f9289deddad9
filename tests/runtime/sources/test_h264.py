"""Missing images of H.264, found in streams that x264 encoded."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fg.sources.live.h264_gaps import GapFinder

av = pytest.importorskip("av")

SETTINGS: dict[str, dict[str, str]] = {
    "baseline": {"profile": "baseline", "preset": "ultrafast"},
    "main": {"profile": "main", "x264-params": "bframes=0"},
    "b-frames": {"profile": "high", "x264-params": "bframes=3:b-pyramid=normal"},
    "slices": {"profile": "high", "x264-params": "slices=4:bframes=0"},
    "scaling lists": {"profile": "high", "x264-params": "cqm=jvt:bframes=0"},
    "4:4:4": {"profile": "high444", "x264-params": "bframes=0"},
    "open group": {"profile": "high", "x264-params": "open-gop=1:bframes=2"},
}


def encode(settings: dict[str, str], frames: int = 70) -> list[bytes]:
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height = 64, 48
    encoder.pix_fmt = "yuv444p" if settings["profile"] == "high444" else "yuv420p"
    encoder.time_base = Fraction(1, 25)
    encoder.options = {"g": "30", "crf": "30", **settings}
    rng = np.random.default_rng(5)
    found: list[Any] = []
    for number in range(frames):
        image = np.full((48, 64, 3), 90, np.uint8)
        image[:, number % 60 : number % 60 + 4] = rng.integers(0, 255, 3)
        frame = av.VideoFrame.from_ndarray(image, format="bgr24")
        found += encoder.encode(frame.reformat(format=encoder.pix_fmt))
    found += encoder.encode(None)
    return [bytes(packet) for packet in found]


@pytest.fixture(scope="module")
def streams() -> dict[str, list[bytes]]:
    try:
        return {name: encode(settings) for name, settings in SETTINGS.items()}
    except av.error.FFmpegError as error:
        pytest.skip(f"this PyAV can't encode H.264: {error}")


def unit_kinds(packet: bytes) -> list[int]:
    parts = packet.split(b"\0\0\1")[1:]
    return [part[0] for part in parts]


@pytest.mark.parametrize("name", SETTINGS)
def test_nothing_is_missing_in_a_whole_stream(streams: dict[str, list[bytes]], name: str) -> None:
    finder = GapFinder()
    assert [finder.missing_before(packet) for packet in streams[name]] == [False] * 70


@pytest.mark.parametrize("name", SETTINGS)
def test_every_missing_reference_image_is_noticed_at_once(
    streams: dict[str, list[bytes]], name: str
) -> None:
    packets = streams[name]
    tried = 0
    for lost in range(1, len(packets) - 1):
        slices = [kind for kind in unit_kinds(packets[lost]) if kind & 31 in (1, 5)]
        following = [kind & 31 for kind in unit_kinds(packets[lost + 1])]
        if not slices or not slices[0] & 0x60 or 5 in following:
            continue  # nothing is built upon it
        tried += 1
        finder = GapFinder()
        told = [finder.missing_before(p) for p in packets[:lost] + packets[lost + 1 :]]
        assert told.index(True) == lost, (name, lost)
    assert tried >= 20


def test_images_that_nothing_is_built_upon_may_be_missing(
    streams: dict[str, list[bytes]],
) -> None:
    packets = streams["b-frames"]
    kept = [p for p in packets if any(k & 31 in (1, 5) and k & 0x60 for k in unit_kinds(p))]
    assert len(kept) < len(packets)
    finder = GapFinder()
    assert not any(finder.missing_before(packet) for packet in kept)


@given(
    st.lists(st.binary(max_size=60), max_size=8),
    st.sampled_from([b"", b"\0\0\1\x67", b"\0\0\1\x41"]),
)
def test_any_bytes_are_survived(packets: list[bytes], start: bytes) -> None:
    finder = GapFinder()
    for packet in packets:
        assert finder.missing_before(start + packet) in (True, False)


@given(st.integers(0, 69), st.binary(min_size=1, max_size=4), st.integers(0, 200))
def test_damage_is_survived(
    streams: dict[str, list[bytes]], place: int, rubbish: bytes, at: int
) -> None:
    packets = list(streams["slices"])
    broken = bytearray(packets[place])
    at %= len(broken)
    broken[at : at + len(rubbish)] = rubbish
    packets[place] = bytes(broken)
    finder = GapFinder()
    assert len([finder.missing_before(packet) for packet in packets]) == 70
