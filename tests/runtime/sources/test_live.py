"""Live sources over connections that fail in every way, without a network."""

from __future__ import annotations

import gc
import itertools
import logging
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fg.errors import SourceError, UsageError
from edge_fg.preprocess.pixel_layout import PixelFormat, PixelLayout
from edge_fg.preprocess.raw_frame import RawFrame
from edge_fg.preprocess.yuv import ColorStandard
from edge_fg.sources import SourceOptions, StateChange
from edge_fg.sources.live import connection, supervisor
from edge_fg.sources.live.capture_thread import CaptureThread
from edge_fg.sources.live.connection import CapturedImage, CorruptedData, EncodedImage
from edge_fg.sources.live.frame_buffer import FrameBuffer
from edge_fg.sources.live.freeze_detector import FreezeDetector
from edge_fg.sources.live.reconnection import Backoff
from edge_fg.sources.live.source import LiveSource
from edge_fg.sources.live.watchdog import Watchdog
from edge_fg.sources.state import SourceStatus
from support import fake_camera
from support.fake_camera import FakeCamera, hold, image, number_of, steady
from support.properties import examples
from support.waiting import HANG, joined, unchanged, until

# A busy machine is never taken for a stall, or, where something hangs, is given up soon.
FAST = SourceOptions(timeout=20, backoff=(0.001, 0.005), seed=1)
HASTY = replace(FAST, timeout=0.3)


@pytest.fixture(autouse=True)
def _let_go() -> Iterator[None]:
    """Let the connections that `hold` end with their test."""
    fake_camera.end.clear()
    yield
    fake_camera.end.set()
    until(lambda: not threads_of("c"))


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def threads_of(source_name: str) -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith(f"edge_fg-capture-{source_name}")]


# ---------------------------------------------------------------- what every frame carries


def test_frames_carry_their_clock_and_number() -> None:
    before, wall = time.monotonic(), datetime.now().astimezone()
    with LiveSource("cam", FakeCamera(lambda n: steady()), FAST) as camera:
        frames = [next(camera) for _ in range(5)]
        assert (camera.fps, camera.size_wh, camera.live) == (25.0, (8, 8), True)
    assert [frame.number for frame in frames] == [0, 1, 2, 3, 4]
    assert {frame.source for frame in frames} == {"cam"}
    captured = [frame.captured for frame in frames]
    assert before <= captured[0]
    assert captured == sorted(captured)
    for frame in frames:
        assert frame.time is not None
        assert frame.time.tzinfo is not None
        assert wall <= frame.time <= datetime.now().astimezone()
        assert frame.position is None


def test_the_newest_frame_comes_and_the_others_are_counted() -> None:
    camera = FakeCamera(lambda n: steady())
    with LiveSource("cam", camera, FAST) as source:
        first = next(source)
        until(lambda: source.counters["dropped"] >= first.dropped + 10)
        second = next(source)
        third = next(source)
    passed = number_of(second.image) - number_of(first.image) - 1
    assert second.dropped == passed >= 10
    assert third.dropped == number_of(third.image) - number_of(second.image) - 1
    assert source.counters["dropped"] >= passed
    assert source.counters["frames"] == 3


def test_a_buffer_keeps_as_many_as_it_says() -> None:
    def script(n: int) -> Iterator[object]:
        yield "open"
        yield from (image(number) for number in range(20))
        yield hold

    options = SourceOptions(timeout=20, buffer=4)
    with LiveSource("cam", FakeCamera(script), options) as source:
        until(lambda: source.counters["dropped"] == 16)
        frames = [next(source) for _ in range(4)]
    assert [number_of(frame.image) for frame in frames] == [16, 17, 18, 19]
    assert [frame.dropped for frame in frames] == [16, 0, 0, 0]


def test_corrupted_packets_are_counted_and_never_handed_on() -> None:
    def script(n: int) -> Iterator[object]:
        yield "open"
        yield image(1)
        yield CorruptedData("rubbish", 2)
        yield CorruptedData("more rubbish")
        yield image(2)
        yield hold

    options = SourceOptions(timeout=20, buffer=9)
    with LiveSource("cam", FakeCamera(script), options) as source:
        frames = [next(source), next(source)]
    assert [number_of(frame.image) for frame in frames] == [1, 2]
    assert [frame.dropped for frame in frames] == [0, 3]
    assert source.counters["corrupted"] == 3


# ---------------------------------------------------------------- losing and finding


@pytest.mark.parametrize("how", [None, SourceError("reset by peer")])
def test_a_lost_connection_is_made_anew(how: object) -> None:
    def script(n: int) -> Iterator[object]:
        yield "open"
        for number in range(3):
            time.sleep(0.005)
            yield image(100 * n + number)
        yield how

    camera = FakeCamera(script)
    changes: list[StateChange] = []
    with LiveSource("cam", camera, SourceOptions(**{**vars(FAST), "buffer": 8})) as source:
        source.on_state(changes.append)
        numbers = [number_of(next(source).image) for _ in range(9)]
        assert numbers == [100, 101, 102, 200, 201, 202, 300, 301, 302]
        assert source.counters["reconnects"] == 2
    states = [change.state for change in changes]
    assert states[-1] == "ended"
    text = " ".join(s for s in states if s != "live")
    assert text.startswith("lost connecting lost connecting")
    assert states.count("live") >= 2
    assert all(a.at <= b.at for a, b in itertools.pairwise(changes))
    assert [c.previous for c in changes[1:]] == states[:-1]
    until(lambda: camera.closed == camera.made)


def test_a_first_failure_is_raised_at_once() -> None:
    camera = FakeCamera(lambda n: [SourceError("nobody is there")])
    with pytest.raises(SourceError, match="nobody is there"):
        LiveSource("cam", camera, FAST)
    assert camera.made == camera.closed == 1
    assert not threads_of("cam")


def test_waiting_for_a_camera_that_is_not_there_yet() -> None:
    looked = threading.Event()

    def script(n: int) -> Iterator[object]:
        if n < 4:
            yield SourceError("nobody is there")
        yield lambda: looked.wait(HANG)
        yield from steady(opens=False)

    options = SourceOptions(timeout=20, backoff=(0.001, 0.005), wait=True)
    with LiveSource("cam", FakeCamera(script), options) as source:
        assert source.state in ("connecting", "lost")
        looked.set()
        assert number_of(next(source).image) >= 1
        assert source.state == "live"
        assert source.counters["reconnects"] == 0


@pytest.mark.parametrize("tries", [0, 3])
def test_giving_up(tries: int) -> None:
    def script(n: int) -> Iterator[object]:
        if n > 1:
            yield SourceError("gone for good")
        yield "open"
        yield image(1)
        yield SourceError("the cable is cut")

    camera = FakeCamera(script)
    options = SourceOptions(timeout=20, backoff=(0.001, 0.002), reconnect=tries)
    source = LiveSource("cam", camera, options)
    assert number_of(next(source).image) == 1
    reason = "gone for good" if tries else "the cable is cut"
    with pytest.raises(SourceError, match=rf"cam gave no more frames after 1.*{reason}"):
        next(source)
    assert source.state == "ended"
    assert camera.made == camera.closed == 1 + tries
    assert list(source) == []
    source.close()


def test_what_no_try_can_fix_is_raised() -> None:
    def script(n: int) -> Iterator[object]:
        yield "open"
        yield image(1)
        yield UsageError("this can't be")

    source = LiveSource("cam", FakeCamera(script), FAST)
    assert number_of(next(source).image) == 1
    with pytest.raises(UsageError, match="this can't be"):
        next(source)


ODD = [ValueError("odd"), KeyError("odd"), UnicodeDecodeError("utf-8", b"", 0, 1, "odd")]
ODD += [RecursionError("odd"), TypeError("odd"), OverflowError("odd"), MemoryError()]


@pytest.mark.parametrize("odd", ODD, ids=lambda error: type(error).__name__)
def test_an_odd_answer_is_a_loss_like_any_other(odd: Exception) -> None:
    def fail() -> CapturedImage:
        raise odd

    scripts: list[list[object]] = [
        ["open", image(1), odd],
        [odd],
        ["open", EncodedImage(fail)],
        ["open", image(4), None],
    ]
    camera = FakeCamera(lambda number: scripts[number - 1] if number <= 4 else steady())
    with LiveSource("cam", camera, replace(FAST, buffer=8)) as source:
        numbers = [number_of(next(source).image) for _ in range(2)]
        assert numbers == [1, 4]
        assert source.counters["reconnects"] >= 1
    until(lambda: camera.opened == camera.closed >= 4)


def test_an_odd_answer_to_the_first_try_is_told_in_one_line() -> None:
    odd = ValueError("rtsp://user:secret@cam makes no sense")
    with pytest.raises(SourceError, match="cam answered what can't be understood") as caught:
        LiveSource("cam", FakeCamera(lambda n: [odd]), FAST)
    assert "secret" not in str(caught.value)


def test_waits_grow_until_a_connection_has_proven_itself() -> None:
    moments: list[tuple[str, float]] = []

    def script(n: int) -> Iterator[object]:
        yield lambda: moments.append(("open", time.monotonic()))
        yield image(n)
        moments.append(("end", time.monotonic()))
        yield None

    options = SourceOptions(timeout=20, backoff=(0.002, 0.064), seed=3)
    with LiveSource("c", FakeCamera(script), options) as source:
        until(lambda: len(moments) >= 18)
        assert next(source) is not None
    expected = Backoff(0.002, 0.064, 3)
    waits = [expected.next() for _ in range(8)]
    assert [what for what, _ in moments[:18]] == ["open", "end"] * 9
    measured = [moments[i + 1][1] - moments[i][1] for i in range(1, 17, 2)]
    assert all(took >= wait for wait, took in zip(waits, measured, strict=True))
    assert max(waits) > 0.02


@given(st.floats(0.01, 5), st.floats(5, 100), st.integers(0, 2**32))
def test_waits_are_drawn_evenly_below_a_doubling_ceiling(
    first: float, longest: float, seed: int
) -> None:
    backoff, twin = Backoff(first, longest, seed), Backoff(first, longest, seed)
    for count in range(20):
        ceiling = min(first * 2**count, longest)
        assert backoff.ceiling == pytest.approx(ceiling)
        wait = backoff.next()
        assert 0 <= wait <= ceiling
        assert twin.next() == wait
    backoff.reset()
    assert backoff.ceiling == first


def test_nothing_but_damaged_images_is_a_loss() -> None:
    def script(n: int) -> Iterator[object]:
        yield "open"
        yield image(n)
        while n == 1:
            time.sleep(0.005)
            yield CorruptedData("rubbish")
        yield from steady(1000, opens=False)

    camera = FakeCamera(script)
    with LiveSource("c", camera, HASTY) as source:
        changes: list[StateChange] = []
        source.on_state(changes.append)
        while number_of(next(source).image) < 1000:
            pass
        assert source.counters["reconnects"] == 1
        assert source.counters["corrupted"] > 5
    reasons = [change.reason for change in changes if change.state == "lost"]
    assert "nothing but damaged images" in reasons[0]
    assert camera.closed == 2


# ---------------------------------------------------------------- hanging


def test_a_read_that_hangs_does_not_stop_the_frames() -> None:
    release = threading.Event()

    def script(n: int) -> Iterator[object]:
        yield "open"
        yield image(n)
        if n <= 1:
            yield lambda: release.wait(HANG) and None
        yield from steady(1000, opens=False)

    camera = FakeCamera(script)
    changes: list[StateChange] = []
    with LiveSource("cam", camera, HASTY) as source:
        source.on_state(changes.append)
        next(source)
        frame = next(source)
        assert camera.closed == 0, "the call that hangs was waited for"
        assert number_of(frame.image) == 2 or number_of(frame.image) > 1000
        assert camera.interrupted.is_set()
        assert source.counters["stalls"] == source.counters["reconnects"] == 1
        states = [c.state for c in changes if c.state != "live"]
        assert states == ["stalled", "lost", "connecting"]
        assert len(threads_of("cam")) == 2
        release.set()
        until(lambda: len(threads_of("cam")) == 1)
        until(lambda: camera.closed == 1)
    until(lambda: not threads_of("cam"))


def test_an_open_that_hangs_is_a_failure_too() -> None:
    release = threading.Event()
    camera = FakeCamera(lambda n: [lambda: release.wait(HANG)])
    with pytest.raises(SourceError, match=r"can't open cam: it doesn't answer within 0\.3 s"):
        LiveSource("cam", camera, HASTY)
    assert camera.closed == 0, "the call that hangs was waited for"
    release.set()
    until(lambda: not threads_of("cam"))
    assert camera.closed == 1


def test_a_driver_that_always_hangs_costs_few_threads() -> None:
    release = threading.Event()

    def script(n: int) -> Iterator[object]:
        yield "open"
        yield image(n)
        yield lambda: release.wait(HANG) and None

    camera = FakeCamera(script)
    options = SourceOptions(timeout=0.05, backoff=(0.001, 0.002))
    source = LiveSource("cam", camera, options)
    reader = threading.Thread(target=lambda: [None for _ in source], daemon=True)
    reader.start()
    until(lambda: camera.made == 2)
    assert unchanged(lambda: camera.made) == 2
    assert len(threads_of("cam")) == 3  # two hang, one waits until they don't
    assert source.state == "lost"
    release.set()
    until(lambda: camera.made > 2)
    source.close()
    joined(reader)
    until(lambda: not threads_of("cam"))
    assert camera.closed == camera.made


def test_closing_ends_a_read_that_waits() -> None:
    release = threading.Event()
    camera = FakeCamera(lambda n: ["open", image(1), lambda: release.wait(HANG) and None])
    source = LiveSource("cam", camera, SourceOptions(timeout=20))
    got: list[int] = []
    reader = threading.Thread(target=lambda: got.extend(number_of(f.image) for f in source))
    reader.start()
    until(lambda: got == [1])
    source.close()
    joined(reader)
    assert camera.closed == 0, "the call that hangs was waited for"
    assert source.state == "ended"
    with pytest.raises(StopIteration):
        next(source)
    release.set()
    until(lambda: camera.closed == 1)


def test_a_source_that_nobody_holds_lets_go_of_the_camera() -> None:
    camera = FakeCamera(lambda n: steady())
    source = LiveSource("cam", camera, FAST)
    next(source)
    gone = weakref.ref(source)
    del source
    gc.collect()
    assert gone() is None
    until(lambda: not threads_of("cam"))
    assert camera.closed == 1


# ---------------------------------------------------------------- the watchdog


def test_one_watchdog_looks_after_all_sources_also_while_nobody_waits() -> None:
    release = threading.Event()

    def script(n: int) -> Iterator[object]:
        yield "open"
        yield image(n)
        if n == 1:
            yield lambda: release.wait(HANG) and None
        yield from steady(1000, opens=False)

    cameras = [FakeCamera(script) for _ in range(3)]
    sources = [LiveSource(f"cam{n}", camera, HASTY) for n, camera in enumerate(cameras)]
    until(lambda: all(source.counters["reconnects"] == 1 for source in sources))
    assert [t.name for t in threading.enumerate()].count("edge_fg-watchdog") == 1
    for source in sources:
        source.close()
    release.set()


def test_a_watchdog_ends_with_the_last_that_it_watches_and_begins_again() -> None:
    class Watched:
        check_every = 0.001
        checks = 0

        def check(self) -> None:
            self.checks += 1
            if self.checks == 3:
                raise ValueError("one that can't be checked must not end the watch")

    watchdog, first, second = Watchdog(), Watched(), Watched()
    for _ in range(2):
        watchdog.watch(first)
        watchdog.watch(second)
        thread = watchdog.thread
        assert thread is not None
        seen = first.checks, second.checks
        until(lambda: first.checks > seen[0] + 3 and second.checks > seen[1] + 3)  # noqa: B023
        watchdog.forget(first)
        seen = first.checks, second.checks
        until(lambda: second.checks > seen[1] + 3)  # noqa: B023
        assert first.checks <= seen[0] + 1
        assert watchdog.thread is thread
        watchdog.forget(second)
        joined(thread)
        assert watchdog.thread is None


def test_whatever_a_check_raises_the_watchdog_goes_on() -> None:
    class Exiting:
        check_every = 0.001
        checks = 0

        def check(self) -> None:
            self.checks += 1
            sys.exit("a listener ends its program")

    watchdog, exiting = Watchdog(), Exiting()
    watchdog.watch(exiting)
    thread = watchdog.thread
    assert thread is not None
    until(lambda: exiting.checks > 3)
    assert watchdog.thread is thread
    watchdog.forget(exiting)
    joined(thread)


def test_a_forked_process_has_a_watchdog_of_its_own() -> None:
    # The lock of the parent's watchdog is held at the moment of the fork.
    program = """
import os, threading, time
from edge_fg.sources.live.watchdog import Watchdog

class Watched:
    check_every = 0.001
    checks = 0
    def check(self):
        self.checks += 1

def hold():
    with watchdog._changed:
        held.set()
        time.sleep(3600)

watchdog, first, second, held = Watchdog(), Watched(), Watched(), threading.Event()
watchdog.watch(first)
threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if child == 0:
    before = first.checks
    watchdog.watch(second)
    while second.checks < 5:
        time.sleep(0.001)
    os._exit(0 if first.checks == before else 1)
os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=HANG, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("how", ["no thread starts", "a listener exits"])
def test_a_source_whose_check_fails_ends_with_that_error(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    camera = FakeCamera(lambda n: ["open", image(n), lambda: release.wait(HANG) and None])
    with LiveSource("cam", camera, HASTY) as source:
        next(source)
        if how == "no thread starts":

            class Unstartable(CaptureThread):
                def __init__(self, *args: Any) -> None:
                    super().__init__(*args)
                    monkeypatch.setattr(self.thread, "start", self._refuse)

                def _refuse(self) -> None:
                    raise RuntimeError("can't start new thread")

            monkeypatch.setattr(supervisor, "CaptureThread", Unstartable)
            error: type[BaseException] = RuntimeError
        else:
            reason = "can't start new thread"
            source.on_state(lambda change: sys.exit(reason) if change.state == "stalled" else None)
            error = SystemExit
        with pytest.raises(error, match="can't start new thread"):
            next(source)
        assert list(source) == []
    release.set()


def test_nothing_is_delivered_after_the_end_which_is_told_once() -> None:
    buffer = FrameBuffer(SourceStatus("cam"), 2)
    delivered: list[int] = []
    ends: list[BaseException | None] = []

    def deliver(captured: CapturedImage, lost: int) -> bool:
        delivered.append(number_of(captured.pixels))
        return True

    buffer.deliver_to(deliver, ends.append)
    buffer.put(CapturedImage(image(1)))
    buffer.close()
    buffer.finish(SourceError("too late"))
    buffer.put(CapturedImage(image(2)))
    assert (delivered, ends, len(buffer)) == ([1], [None], 0)


# ---------------------------------------------------------------- what images show


def test_an_image_that_stands_still_is_withheld_and_the_camera_connected_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def script(n: int) -> Iterator[object]:
        yield "open"
        for number in range(3):
            time.sleep(0.005)
            yield image(10 * n + number)
        if n == 3:
            yield from steady(1000, opens=False)
        # The second connection shows what the first one ended with, and nothing else.
        while True:
            time.sleep(0.005)
            yield image(12)

    options = SourceOptions(timeout=1, backoff=(0.001, 0.002), frozen_after=0.1, buffer=64)
    with caplog.at_level(logging.WARNING), LiveSource("c", FakeCamera(script), options) as source:
        numbers = []
        while not numbers or numbers[-1] < 1000:
            numbers.append(number_of(next(source).image))
        counters = source.counters
    assert [n for n in dict.fromkeys(numbers) if n < 1000] == [10, 11, 12, 20, 21, 22, 30, 31, 32]
    repeated = numbers.count(12)
    assert repeated * 0.005 <= 0.1 + 0.1 + 0.5, "still images were handed on for too long"
    assert counters["frozen"] >= 2
    assert counters["stalls"] >= 2
    assert counters["reconnects"] == 2
    assert "stood still" in caplog.text


def test_still_images_can_be_accepted() -> None:
    def script(n: int) -> Iterator[object]:
        yield "open"
        while True:
            time.sleep(0.002)
            yield image(5)

    options = SourceOptions(timeout=1, frozen_after=None)
    with LiveSource("c", FakeCamera(script), options) as source:
        for _ in range(50):
            assert number_of(next(source).image) == 5
        assert source.counters["frozen"] == source.counters["reconnects"] == 0


def test_black_images_are_counted_handed_on_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def script(n: int) -> Iterator[object]:
        yield "open"
        for number in range(60):
            time.sleep(0.002)
            yield image(number) // 16
        yield from steady(opens=False)

    options = SourceOptions(timeout=1, black_after=0.03, buffer=64)
    with caplog.at_level(logging.INFO), LiveSource("c", FakeCamera(script), options) as source:
        frames = [next(source) for _ in range(80)]
        assert source.state == "live"
        assert source.counters["black"] == 60
    assert sum(int(frame.image.max() < 20) for frame in frames) == 60
    assert caplog.text.count("has shown black") == 1
    assert caplog.text.count("shows images again") == 1


def test_a_changed_size_is_counted_and_taken() -> None:
    def script(n: int) -> Iterator[object]:
        yield "open"
        for size in (8, 8, 16, 16, 8):
            yield image(size, size)
        yield hold

    options = SourceOptions(timeout=20, buffer=9)
    with LiveSource("c", FakeCamera(script), options) as source:
        sizes = []
        for _ in range(5):
            sizes.append(next(source).size_wh)
            assert source.size_wh == sizes[-1]
        assert source.counters["size_changes"] == 2
    assert sizes == [(8, 8), (8, 8), (16, 16), (16, 16), (8, 8)]


@given(
    st.lists(st.integers(0, 3), min_size=2, max_size=30), st.sampled_from(["bgr", "nv12", "yuyv"])
)
@examples(50)
def test_stillness_is_what_comparing_all_bytes_says(kinds: list[int], form: str) -> None:
    rng = np.random.default_rng(0)
    sizes = {"bgr": 40 * 50 * 3, "nv12": 40 * 50 * 3 // 2, "yuyv": 40 * 50 * 2}
    base = rng.integers(0, 256, sizes[form], np.uint8)
    variants = [base.copy() for _ in range(4)]
    variants[1][-1] ^= 1  # in a row that is not sampled
    variants[2][0] ^= 1
    variants[3][:] = 0

    def pixels(kind: int) -> np.ndarray | RawFrame:
        if form == "bgr":
            return variants[kind].reshape(40, 50, 3)
        layout = PixelLayout(PixelFormat(form), 40, 50, standard=ColorStandard.BT601_LIMITED)
        return RawFrame(variants[kind], layout)

    detector = FreezeDetector()
    # The first of a row of equal ones is known by its rows only: two more are needed.
    run = 0
    for moment, kind in enumerate(kinds):
        run = run + 1 if moment and kinds[moment - 1] == kind else 0
        found = detector.inspect(pixels(kind), float(moment))
        assert found.still_s <= run
        if run >= 2:
            assert found.still_s >= 1
        assert (found.black_s is not None) == (kind == 3)


# ---------------------------------------------------------------- clocks, listeners, growth


def test_a_wall_clock_that_jumps_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = iter([0, 86400, -86400 * 365, 0, 3600] * 1000)

    def jumping(tz: object = None) -> datetime:
        return datetime(2026, 11, 21, tzinfo=timezone.utc) + timedelta(seconds=next(jumps))

    monkeypatch.setattr(connection, "datetime", SimpleNamespace(now=jumping))
    monkeypatch.setattr(time, "time", lambda: float(next(jumps)))
    options = SourceOptions(timeout=20, frozen_after=0.2, black_after=0.2)
    began = time.monotonic()
    with LiveSource("c", FakeCamera(lambda n: steady()), options) as source:
        frames = [next(source) for _ in range(40)]
        assert source.state == "live"
        counters = source.counters
    assert counters["stalls"] == counters["reconnects"] == counters["frozen"] == 0
    assert all(began <= frame.captured <= time.monotonic() for frame in frames)
    assert len({frame.time.year for frame in frames}) > 1


def test_a_listener_that_fails_is_logged_and_one_can_be_taken_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard: list[str] = []

    def broken(change: StateChange) -> None:
        raise ValueError("a listener's own mistake")

    with LiveSource("c", FakeCamera(lambda n: ["open", image(n), None]), FAST) as source:
        source.on_state(broken)
        forget = source.on_state(lambda change: heard.append(change.state))
        for _ in range(3):
            next(source)
        until(lambda: "lost" in heard)
        forget()
        forget()
        count = unchanged(lambda: len(heard))  # one change may be on its way
        next(source)
        next(source)
        assert len(heard) == count
    assert "a listener's own mistake" in caplog.text


def test_a_thousand_reconnections_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    # pytest keeps every record of the log.
    monkeypatch.setattr(logging.getLogger("edge_fg"), "disabled", True)

    def script(n: int) -> Iterator[object]:
        if n % 3 == 0:
            yield SourceError("not now")
        yield "open"
        yield image(n)
        yield None if n % 2 else SourceError("lost")

    camera = FakeCamera(script)
    options = SourceOptions(timeout=1, backoff=(1e-6, 1e-6))
    with LiveSource("cam", camera, options) as source:
        for _ in range(20):
            next(source)
        gc.collect()
        threads, files = threading.active_count(), open_files()
        objects = len(gc.get_objects())
        for _ in range(1000):
            next(source)
        assert source.counters["reconnects"] >= 1000

        def is_as_before() -> bool:
            gc.collect()
            return (
                threading.active_count() <= threads  # of other tests, some may have ended
                and open_files() <= files
                and len(gc.get_objects()) - objects < 200
            )

        # What is under way comes and goes: a leak never goes.
        until(is_as_before, "threads, files and objects as before")
    until(lambda: not threads_of("cam"))
    assert camera.closed == camera.made >= 1500
