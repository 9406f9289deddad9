"""Cameras on loopback that are killed, stalled, slowed, changed, and talk rubbish.

Every image shows its number and a check of it, and the servers keep the numbers they sent: a
image that was made up, mixed or repeated is found out.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_fg.errors import SourceError
from edge_fg.sources import Frame, StateChange, open_source, opening
from edge_fg.sources.live import openers
from support import waiting
from support.servers import camera
from support.servers import numbered_images as images
from support.waiting import HANG

pytest.importorskip("cv2")

LONGEST = 0.4  # of the back-off, in seconds
TIMEOUT = 10.0  # long enough that a busy machine is not taken for a stall
SHORT = 1.0


def _serve(kind: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Run a server: MJPEG, RTSP as PyAV reads it (JPEG or H.264), or as OpenCV does."""
    protocol, _, way = kind.partition(" ")
    attributes = {"codec": way} if way == "h264" else {}
    if way in ("pyav", "h264"):
        pytest.importorskip("av")
    elif way == "opencv":
        for module in (openers, opening):
            monkeypatch.setattr(module, "has_pyav", lambda: False)
    made = importlib.import_module(f"support.servers.{protocol}").make(camera, images, **attributes)
    yield made
    made.close()


# Connecting to RTSP takes OpenCV most of a second.
KINDS = ["mjpeg", "rtsp pyav"]
SLOW_KINDS = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("rtsp opencv", "rtsp h264")]


@pytest.fixture(params=[*KINDS, *SLOW_KINDS])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    yield from _serve(request.param, monkeypatch)


@pytest.fixture(params=["mjpeg", pytest.param("rtsp pyav", marks=pytest.mark.slow), *SLOW_KINDS])
def server_of_choice(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    yield from _serve(request.param, monkeypatch)


@pytest.fixture(params=["mjpeg", "rtsp pyav", *SLOW_KINDS[:1]])
def jpeg_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Those whose images stand alone: size and contents may change from one to the next."""
    yield from _serve(request.param, monkeypatch)


@pytest.fixture
def mjpeg() -> Iterator[Any]:
    made = importlib.import_module("support.servers.mjpeg").make(camera, images)
    yield made
    made.close()


class Watcher:
    """Reads a source in a thread and checks each frame against what the server sent."""

    def __init__(self, server: Any, **options: Any) -> None:
        settings = {"timeout": TIMEOUT, "backoff": (0.1, LONGEST), "seed": 5, **options}
        self.server = server
        self.numbers: list[int] = []
        self.wrong: list[Frame] = []
        self.changes: list[StateChange] = []
        self.error: Exception | None = None
        self.source = open_source(server.url, **settings)
        self.source.on_state(self.changes.append)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.source.close()
        waiting.joined(self._thread)
        assert not self.wrong, "an image was made up"
        assert self.error is None
        counted = self.source.counters["frames"]
        assert counted == len(self.numbers)

    def _read(self) -> None:
        try:
            for frame in self.source:
                number = images.shown(frame.image)
                if number is None or number not in self.server.sent:
                    self.wrong.append(frame)
                self.numbers.append(number)
        except SourceError as error:
            self.error = error

    def __str__(self) -> str:
        return f"the source: {self.states}, {self.source.counters}"

    @property
    def states(self) -> list[str]:
        return [change.state for change in self.changes]

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that the source does."""
        waiting.until(condition, self)

    def more(self, count: int = 3) -> None:
        """Wait for so many more frames."""
        wanted = len(self.numbers) + count
        self.until(lambda: len(self.numbers) >= wanted)


def test_images_tell_their_number() -> None:
    import cv2
    import numpy as np

    for number in (0, 1, 77, 70_000, 2**24 - 1):
        for size_wh in (images.SMALL, images.LARGE):
            data = np.frombuffer(images.jpeg(images.numbered(number, size_wh)), np.uint8)
            image = cv2.imdecode(data, 1)
            assert images.shown(image) == number
            image[: image.shape[0] // 2] = 128
            assert images.shown(image) is None


def test_a_server_that_is_killed_and_comes_back(server: Any) -> None:
    with Watcher(server) as seen:
        seen.more(5)
        for round_ in (1, 2):
            server.kill()
            seen.until(lambda: seen.source.state == "lost")
            tries = seen.states.count("connecting")
            seen.until(lambda: seen.states.count("connecting") > tries)  # noqa: B023
            server.start()
            seen.more()
            assert seen.source.state == "live"
            assert seen.source.counters["reconnects"] == round_
        assert seen.source.counters["corrupted"] == 0
        assert seen.numbers == sorted(set(seen.numbers)), "an image came twice"


def test_a_server_that_dies_in_the_middle_of_a_frame(server_of_choice: Any) -> None:
    server = server_of_choice
    with Watcher(server) as seen:
        seen.more(5)
        server.cut = True
        seen.until(lambda: seen.source.state == "lost")
        server.start()
        seen.more()
        assert seen.source.counters["reconnects"] == 1
        assert seen.numbers == sorted(set(seen.numbers))


def test_a_short_stall_is_waited_out(server_of_choice: Any) -> None:
    server = server_of_choice
    with Watcher(server, timeout=4.0) as seen:
        seen.more(5)
        server.stall()
        seen.until(lambda: seen.source.state == "stalled")
        server.resume()
        seen.more()
        assert seen.source.state == "live"
        counters = seen.source.counters
        assert (counters["stalls"], counters["reconnects"]) == (1, 0)


def test_a_long_stall_is_a_loss(server: Any) -> None:
    with Watcher(server, timeout=SHORT) as seen:
        seen.more(5)
        server.stall()
        seen.until(lambda: "lost" in seen.states)
        quiet = [state for state in seen.states if state != "live"]
        assert list(dict.fromkeys(quiet))[:2] == ["stalled", "lost"]
        server.resume()
        seen.more()
        assert seen.source.state == "live"
        assert seen.source.counters["reconnects"] == 1
        assert seen.source.counters["stalls"] >= 1


def test_a_slow_server_is_not_a_lost_one(server_of_choice: Any) -> None:
    server = server_of_choice
    with Watcher(server, timeout=5.0) as seen:
        seen.more(5)
        server.interval = 0.3
        seen.more(4)
        assert seen.source.state == "live"
        assert seen.source.counters["reconnects"] == seen.source.counters["stalls"] == 0


def test_a_size_that_changes_in_the_stream(jpeg_server: Any) -> None:
    server = jpeg_server
    with Watcher(server) as seen:
        seen.more(5)
        assert seen.source.size_wh == images.SMALL
        for changes, size_wh in ((1, images.LARGE), (2, images.SMALL)):
            server.size_wh = size_wh
            seen.until(lambda: seen.source.size_wh == size_wh)  # noqa: B023
            seen.more()
            assert seen.source.counters["size_changes"] == changes
        assert seen.source.counters["reconnects"] == 0


def test_a_size_that_changes_while_the_server_is_away(server_of_choice: Any) -> None:
    server = server_of_choice
    with Watcher(server) as seen:
        seen.more(5)
        server.kill()
        server.size_wh = images.LARGE
        seen.until(lambda: seen.source.state == "lost")
        server.start()
        seen.more()
        assert seen.source.size_wh == images.LARGE
        assert seen.source.counters["size_changes"] == 1


def test_rubbish_is_left_out(jpeg_server: Any) -> None:
    server = jpeg_server
    with Watcher(server) as seen:
        seen.more(5)
        server.garbage = 8
        seen.until(lambda: server.garbage == 0)
        seen.more(5)
        assert seen.source.state == "live"
        assert seen.source.counters["reconnects"] == 0
        if server.url.startswith("http"):
            assert seen.source.counters["corrupted"] == 8


def test_a_stream_that_ends_is_opened_again(server_of_choice: Any) -> None:
    server = server_of_choice
    server.end_after = 20
    with Watcher(server) as seen:
        seen.until(lambda: seen.source.counters["reconnects"] == 2)
        seen.more()
        assert server.connections == 3
        assert seen.numbers == sorted(set(seen.numbers))


def test_a_frozen_camera_is_noticed(jpeg_server: Any) -> None:
    server = jpeg_server
    with Watcher(server, timeout=SHORT, frozen_after=0.5) as seen:
        seen.more(5)
        server.frozen = True
        seen.until(lambda: seen.source.state == "stalled")
        still = seen.numbers.count(seen.numbers[-1])
        seen.until(lambda: "lost" in seen.states)
        assert seen.numbers.count(seen.numbers[-1]) <= still + 1
        server.frozen = False
        seen.more()
        counters = seen.source.counters
        assert counters["frozen"] >= 1
        assert counters["reconnects"] >= 1
        assert counters["stalls"] >= 1


def test_giving_up_says_what_was_wrong(server_of_choice: Any) -> None:
    server = server_of_choice
    with open_source(server.url, timeout=TIMEOUT, reconnect=2, backoff=(0.05, 0.1)) as source:
        first = next(source)
        assert images.shown(first.image) in server.sent
        server.kill()
        rest: list[Frame] = []
        with pytest.raises(SourceError, match=r"gave no more frames after .* 2 more tries"):
            rest.extend(source)
        assert all(images.shown(frame.image) in server.sent for frame in rest)
        assert source.state == "ended"


def test_nobody_is_there_at_first(server: Any) -> None:
    server.kill()
    with pytest.raises(SourceError, match="can't open"):
        open_source(server.url, timeout=TIMEOUT)
    threading.Timer(0.4, server.start).start()
    with Watcher(server, wait=True) as seen:
        seen.more()


def test_credentials_are_nowhere_to_be_seen(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    scheme, rest = server.url.split("://")
    url = f"{scheme}://admin:Pa55w0rd@{rest}?token=Pa55w0rd"
    with caplog.at_level(logging.DEBUG):
        source = open_source(url, timeout=TIMEOUT, backoff=(0.05, 0.1), reconnect=1)
        frame = next(source)
        names = [thread.name for thread in threading.enumerate()]
        server.kill()
        with pytest.raises(SourceError) as caught:
            list(source)
        source.close()
    shown = [caplog.text, str(caught.value), repr(caught.value), source.name, repr(source)]
    shown += [frame.source, repr(frame), *names]
    assert "lost" in caplog.text
    for text in shown:
        assert "Pa55w0rd" not in text
        assert "admin" not in text


@pytest.mark.parametrize(
    "how", ["reading", "lost", pytest.param("stalled", marks=pytest.mark.slow)]
)
def test_a_program_that_ends_without_closing_ends(mjpeg: Any, how: str) -> None:
    code = (
        "import sys, time, threading\n"
        "from edge_fg.sources import open_source\n"
        "source = open_source(sys.argv[1], timeout=30, backoff=(20, 20))\n"
        "threading.Thread(target=lambda: [0 for _ in source], daemon=True).start()\n"
        "while source.counters['frames'] < 3: time.sleep(0.01)\n"
        "print('here', flush=True)\n"
        "while source.state not in sys.argv[2:]: time.sleep(0.01)\n"
    )
    states = {"reading": "live", "stalled": "stalled", "lost": "lost"}
    with subprocess.Popen(
        [sys.executable, "-c", code, mjpeg.url, states[how]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout.readline() == "here\n"
        {"reading": lambda: None, "stalled": mjpeg.stall, "lost": mjpeg.kill}[how]()
        _, noise = program.communicate(timeout=HANG)
    assert program.returncode == 0
    assert "Traceback" not in noise


# ---------------------------------------------------------------- growth


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mjpeg", "rtsp pyav"])
def test_a_thousand_real_reconnections_leave_nothing_behind(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind != "mjpeg":
        pytest.importorskip("av")
    # pytest keeps every record of the log.
    monkeypatch.setattr(logging.getLogger("edge_fg"), "disabled", True)
    made = importlib.import_module(f"support.servers.{kind.split()[0]}").make(
        camera, images, interval=0.001, end_after=2
    )
    with open_source(made.url, timeout=5, backoff=(1e-6, 1e-6), frozen_after=None) as cameras:
        while cameras.counters["reconnects"] < 100:
            next(cameras)
        gc.collect()
        files = len(list(Path("/proc/self/fd").iterdir()))
        threads, memory = threading.active_count(), resident()
        while cameras.counters["reconnects"] < 1100:
            assert images.shown(next(cameras).image) in made.sent
        gc.collect()
        assert len(list(Path("/proc/self/fd").iterdir())) <= files + 4
        assert threading.active_count() <= threads + 4
        assert resident() - memory < 8 << 20
    made.close()
