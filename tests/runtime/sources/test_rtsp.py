"""RTSP by PyAV: damaged H.264, refusals, and what is said when it is not installed."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edge_fg.errors import MissingDependencyError, SourceError
from edge_fg.sources import open_source
from support.servers import camera, rtsp
from support.servers import numbered_images as images


@pytest.fixture
def serve() -> Iterator[Callable[..., Any]]:
    """Starts an RTSP server with the attributes given."""
    made: list[Any] = []

    def start(**attributes: Any) -> Any:
        made.append(rtsp.make(camera, images, **attributes))
        return made[-1]

    yield start
    for server in made:
        server.close()


@pytest.mark.parametrize("codec", ["jpeg", "h264"])
def test_frames_come_as_they_were_sent(serve: Callable[..., Any], codec: str) -> None:
    av = pytest.importorskip("av")
    server = serve(codec=codec)
    with open_source(server.url, timeout=3, buffer=32) as source:
        assert source.size_wh == images.SMALL
        if av.library_versions["libavformat"] >= (62,):
            assert source.fps == pytest.approx(33, abs=1)
        else:  # before FFmpeg 8 the description's rate is not read, only that of H.264 itself
            assert source.fps == {"jpeg": None, "h264": 30}[codec]
        numbers = [images.shown(next(source).image) for _ in range(20)]
    assert numbers == list(range(numbers[0], numbers[0] + 20))
    assert source.counters["corrupted"] == 0


def test_what_ffmpeg_made_up_of_damaged_h264_is_left_out(serve: Callable[..., Any]) -> None:
    pytest.importorskip("av")
    # In tiny images random bytes may make a valid slice, which nobody could tell from others.
    server = serve(codec="h264", size_wh=(320, 240))
    with open_source(server.url, timeout=3, buffer=64) as source:
        before = [images.shown(next(source).image) for _ in range(5)]
        server.garbage = 3
        numbers = [images.shown(next(source).image) for _ in range(40)]
        counters = source.counters
        rest = next(source)
    assert None not in [*before, *numbers]
    assert set(numbers) <= server.sent
    assert numbers == sorted(set(numbers)), "an image was repeated"
    # What is damaged, and what is built upon it up to the next of the key frames, one in 15.
    missing = numbers[-1] - numbers[0] + 1 - len(numbers)
    assert 3 <= missing <= 3 + 15
    assert counters["corrupted"] >= missing
    assert counters["reconnects"] == 0
    assert rest.number == 45


def test_what_ffmpeg_builds_upon_missing_h264_is_left_out(serve: Callable[..., Any]) -> None:
    pytest.importorskip("av")
    server = serve(codec="h264")
    with open_source(server.url, timeout=3, buffer=64) as source:
        for _ in range(5):
            next(source)
        server.lose = 3
        numbers = [images.shown(next(source).image) for _ in range(30)]
        counters = source.counters
    assert None not in numbers
    assert set(numbers) <= server.sent
    assert numbers == sorted(set(numbers)), "an image was repeated"
    assert counters["reconnects"] == 0


def test_refusals_hold_no_password(serve: Callable[..., Any]) -> None:
    pytest.importorskip("av")
    for url in ("rtsp://admin:geheim@127.0.0.1:9/x", "rtsp://admin:geheim@127.0.0.1:99999/x"):
        with pytest.raises(SourceError, match="can't open") as caught:
            open_source(url, timeout=1)
        chain: BaseException | None = caught.value
        while chain is not None:
            assert "geheim" not in str(chain)
            assert chain.__cause__ is None or chain.__suppress_context__
            chain = chain.__cause__


def test_without_pyav_opencv_reads_it_and_that_is_said(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("cv2")
    monkeypatch.setitem(sys.modules, "av", None)
    server = serve()
    with caplog.at_level(logging.INFO), open_source(server.url, timeout=3) as source:
        assert images.shown(next(source).image) in server.sent
    assert "install edge-fg[rtsp]" in caplog.text


def test_without_both_an_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("av", "cv2"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        open_source("rtsp://127.0.0.1:9/x", timeout=1)
