"""Live sources that leave images undecoded which nobody will take."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fg.errors import SourceError
from edge_fg.jpeg import JpegDecoder
from edge_fg.pipeline import Pipeline
from edge_fg.sources import SourceOptions, open_source
from edge_fg.sources.live import capture_thread, supervisor
from edge_fg.sources.live import mjpeg as http_module
from edge_fg.sources.live import source as source_module
from edge_fg.sources.live.connection import CapturedImage, CorruptedData, EncodedImage
from edge_fg.sources.live.frame_interval import FrameInterval
from edge_fg.sources.live.source import LiveSource
from support.clock import FakeClock
from support.servers import camera, mjpeg
from support.servers import numbered_images as images
from support.waiting import until

LEARNT = 16  # images after which an interval is known
NOON = datetime(2026, 11, 21, 12, tzinfo=timezone.utc)


# ---------------------------------------------------------------- the interval


@given(
    st.floats(0.004, 0.3),
    st.lists(st.floats(0.9, 1.1), min_size=LEARNT, max_size=60),
    st.floats(0, 0.05),
    st.floats(0, 1),
)
def test_whatever_is_left_out_the_next_is_ready_in_time(
    period: float, jitter: list[float], decoding: float, ahead: float
) -> None:
    interval, now, wanted = FrameInterval(), 0.0, ahead
    moments = np.cumsum([period * share for share in jitter])
    for moment, following in zip(moments, [*moments[1:], moments[-1] + period], strict=True):
        now = float(moment)
        if now > wanted:
            wanted = now + ahead
        interval.arrived(now)
        if interval.next_in_time(wanted):
            assert following + decoding <= wanted
        else:
            interval.decoded(decoding)


@given(st.lists(st.floats(0, 3), max_size=60), st.floats(0, 9))
def test_nothing_is_left_out_before_a_interval_is_known(gaps: list[float], ahead: float) -> None:
    interval, now = FrameInterval(), 0.0
    for number, gap in enumerate(gaps):
        now += gap
        interval.arrived(now)
        assert not interval.next_in_time(now)
        if number < LEARNT - 1:
            assert not interval.next_in_time(now + ahead)


def learnt(period: float = 0.1) -> FrameInterval:
    interval = FrameInterval()
    for number in range(LEARNT):
        interval.arrived(number * period)
    assert interval.next_in_time((LEARNT - 1) * period + 1.3 * period)
    assert not interval.next_in_time((LEARNT - 1) * period + 1.2 * period)
    return interval


def test_slow_decoding_counts() -> None:
    interval = learnt()
    interval.decoded(0.5)
    assert not interval.next_in_time(1.5 + 0.6)
    assert interval.next_in_time(1.5 + 0.63)


def test_after_a_pause_an_interval_is_learnt_anew() -> None:
    interval, now = learnt(), 1.5 + 0.25
    interval.arrived(now)
    for _ in range(LEARNT - 1):
        assert not interval.next_in_time(now + 9)
        now += 0.1
        interval.arrived(now)
    assert interval.next_in_time(now + 9)
    interval.reset()
    interval.arrived(now + 0.1)
    assert not interval.next_in_time(now + 9)


def test_images_that_come_anyhow_have_no_interval() -> None:
    interval, now = FrameInterval(), 0.0
    for number in range(100):
        now += 0.05 if number % 3 else 0.4
        interval.arrived(now)
        assert not interval.next_in_time(now + 9)


# ---------------------------------------------------------------- over a fake connection and clock


class Camera:
    """Connections whose items are images, functions that are called, and None for a loss.

    An image comes `period` seconds of the fake clock after the item before it.
    """

    fps, size_wh, frame_count = 10.0, (8, 8), None

    def __init__(self, clock: FakeClock, script: Iterator[Any], period: float = 0.1) -> None:
        self.clock = clock
        self.script = script
        self.period = period
        self.came: list[tuple[int, float]] = []
        self.decoded: list[int] = []
        self.source: LiveSource | None = None
        self.ready = threading.Event()
        self.over = threading.Event()

    def __call__(self) -> Camera:
        return self

    def open(self) -> None:
        pass

    def read(self) -> EncodedImage | CorruptedData | None:
        self.ready.wait(10)
        for item in self.script:
            if callable(item):
                item()
                continue
            if item is None or isinstance(item, CorruptedData):
                return item
            self.clock.now += self.period
            self.came.append((len(self.came), self.clock.now))
            return EncodedImage(partial(self.decode, *self.came[-1], item))
        self.over.set()
        threading.Event().wait(0.01)
        return CorruptedData("nothing more", 0)

    def decode(self, number: int, moment: float, item: object) -> CapturedImage | CorruptedData:
        self.decoded.append(number)
        return (
            CapturedImage(item, moment, NOON)
            if isinstance(item, np.ndarray)
            else CorruptedData("rubbish")
        )

    def interrupt(self) -> None:
        self.ready.set()

    def close(self) -> None:
        pass

    def hint(self, ahead: float) -> Callable[[], None]:
        """An item of the script: the next frame will be wanted so many seconds later."""
        return lambda: self.source.wanted_at(self.clock.now + ahead)


def noise(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(30, 255, (8, 8, 3), np.uint8)


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[Camera, LiveSource]]]:
    """Plays a script (made from the camera) to its end, and keeps every frame."""
    clock = FakeClock(100.0)
    opened: list[LiveSource] = []
    for module in (supervisor, capture_thread, source_module):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock))

    def run(script: Callable[[Camera], Iterator[Any]], **options: Any) -> Any:
        made = Camera(clock, iter(()))
        made.script = script(made)
        chosen = {"timeout": 50, "buffer": 64, "backoff": (1e-4, 1e-4), **options}
        made.source = LiveSource("cam", made, SourceOptions(**chosen))
        opened.append(made.source)
        made.ready.set()
        assert made.over.wait(20)
        return made, made.source

    yield run
    for source in opened:
        source.close()


def moving(count: int) -> Iterator[np.ndarray]:
    return (noise(number) for number in range(count))


def test_only_the_last_before_each_moment_is_decoded(play: Any) -> None:
    def script(camera: Camera) -> Iterator[Any]:
        yield from moving(LEARNT)
        for _ in range(4):
            yield camera.hint(0.95)
            yield from moving(10)

    made, source = play(script)
    # Of ten: the eighth is the last with another sure to come, 0.125 s after it, in time.
    left_out = [n for n, _ in made.came if n >= LEARNT and (n - LEARNT) % 10 < 8]
    assert sorted({n for n, _ in made.came} - set(made.decoded)) == left_out
    frames = [next(source) for _ in made.decoded]
    assert [frame.captured for frame in frames] == [made.came[n][1] for n in made.decoded]
    assert [f.dropped for f in frames] == [0] * LEARNT + [8, 0] * 4
    counters = source.counters
    assert counters["dropped"] == len(left_out) == 32
    assert counters["frames"] + counters["dropped"] == len(made.came)
    assert counters["stalls"] == counters["reconnects"] == counters["corrupted"] == 0
    assert source.state == "live"


def test_without_a_hint_every_image_is_decoded(play: Any) -> None:
    def script(camera: Camera) -> Iterator[Any]:
        yield from moving(LEARNT)
        yield camera.hint(0.3)
        yield camera.hint(-5)  # replaces the one before
        yield from moving(20)
        yield camera.hint(float("nan"))
        yield from moving(20)

    made, source = play(script)
    assert made.decoded == list(range(len(made.came)))
    assert source.counters["dropped"] == 0


@pytest.mark.parametrize("ahead", [1.0, 60.0, float("inf")])
def test_a_hint_ends_after_a_second(play: Any, ahead: float) -> None:
    def script(camera: Camera) -> Iterator[Any]:
        yield from moving(LEARNT)
        yield camera.hint(ahead)
        yield from moving(40)

    made, _ = play(script)
    left_out = {n for n, _ in made.came} - set(made.decoded)
    assert left_out == set(range(LEARNT, LEARNT + 8))


@pytest.mark.parametrize("harm", ["loss", "stall", "damaged", "undecodable"])
def test_after_trouble_all_are_decoded_until_the_interval_is_known(play: Any, harm: str) -> None:
    def stall(camera: Camera) -> Callable[[], None]:
        return lambda: setattr(camera.clock, "now", camera.clock.now + 3)

    def script(camera: Camera) -> Iterator[Any]:
        yield from moving(LEARNT + 5)
        yield {
            "loss": None,
            "stall": stall(camera),
            "damaged": CorruptedData("x"),
            "undecodable": "rubbish",
        }[harm]
        for number in range(30):
            yield camera.hint(60)
            yield noise(number)

    made, source = play(script)
    start = LEARNT + 5 + (harm == "undecodable")
    after = [n for n in made.decoded if n >= start]
    # The interval across a loss or a pause is none.
    assert after == list(range(start, start + LEARNT - 1))
    wrong = harm in ("damaged", "undecodable")
    counters = source.counters
    assert counters["corrupted"] == wrong
    assert counters["reconnects"] == (harm == "loss")
    waiting = len(made.decoded) - (harm == "undecodable")
    assert counters["dropped"] + waiting + (harm == "undecodable") == len(made.came)


def test_an_image_that_stands_still_is_noticed_as_soon(play: Any) -> None:
    changes: list[tuple[str, float, int]] = []

    def script(camera: Camera) -> Iterator[Any]:
        def note(change: Any) -> None:
            changes.append((change.state, camera.clock.now, len(camera.came)))

        yield lambda: camera.source.on_state(note)
        yield from moving(LEARNT)
        for number in range(200):
            yield camera.hint(0.5 if number % 5 else -1)
            yield noise(0)

    made, source = play(script, frozen_after=4.0)
    number, since, count = next(
        (n, *rest) for n, (s, *rest) in enumerate(changes) if s == "stalled"
    )
    assert 4.0 < since - made.came[LEARNT][1] < 5.0
    left_out = {n for n, _ in made.came if n >= count} - set(made.decoded)
    assert left_out, "none was left undecoded while it stood still"
    states = {state for state, _, _ in changes[number:]}
    assert states == {"stalled", "lost", "connecting"}, "only what is seen shows life"
    assert source.counters["frozen"] >= 1


def test_black_images_are_said_as_soon(play: Any, caplog: pytest.LogCaptureFixture) -> None:
    said: list[float] = []

    def script(camera: Camera) -> Iterator[Any]:
        yield from moving(LEARNT)
        began = camera.clock.now
        number = 0
        while not said and number < 200:
            number += 1
            if number % 5 == 0:
                yield camera.hint(0.5)
            yield noise(number) // 16
            if "has shown black" in caplog.text:
                said.append(camera.clock.now - began)

    made, _ = play(script, black_after=3.0)
    assert said[0] == pytest.approx(3.0, abs=1.0)
    assert len(made.decoded) < len(made.came)


# ---------------------------------------------------------------- OpenCV's cameras


def test_opencv_grabs_and_does_not_retrieve(monkeypatch: pytest.MonkeyPatch) -> None:
    cv2 = pytest.importorskip("cv2")
    calls = {"grab": 0, "retrieve": 0}

    class Capture:
        def __init__(self, *arguments: Any) -> None:
            pass

        def isOpened(self) -> bool:  # noqa: N802
            return True

        def set(self, prop: int, value: float) -> bool:
            return True

        def get(self, prop: int) -> float:
            return 0.0

        def grab(self) -> bool:
            time.sleep(0.01)
            calls["grab"] += 1
            return True

        def retrieve(self) -> tuple[bool, np.ndarray]:
            calls["retrieve"] += 1
            return True, noise(calls["grab"])

        def release(self) -> None:
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    with open_source(0, buffer=64) as source:
        until(lambda: calls["grab"] >= 60)
        assert calls["grab"] - calls["retrieve"] <= 1, "nobody has said when"
        while calls["grab"] < calls["retrieve"] + 40:
            source.wanted_at(time.monotonic() + 0.5)
            time.sleep(0.01)
        assert source.counters["dropped"] >= 38
        assert source.state == "live"


# ---------------------------------------------------------------- MJPEG and the pipeline


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of each JPEG that was decoded."""
    lengths: list[int] = []

    class Counting(JpegDecoder):
        def __call__(self, data: bytes) -> np.ndarray:
            lengths.append(len(data))
            return super().__call__(data)

    monkeypatch.setattr(http_module, "JpegDecoder", Counting)
    return lengths


def answer(policy: str, sent: int, seconds: float, garbage: int = 0) -> Any:
    """Answer what a camera of 25 images a second sends until it has sent so many."""
    server = mjpeg.make(camera, images, interval=0.04, end_after=sent)
    ages: list[tuple[int | None, float]] = []
    took: list[float] = []

    def told(result: Any) -> tuple[int | None, float]:
        return result.prediction, result.age_s

    def classify(image: np.ndarray) -> int | None:
        began = time.monotonic()
        time.sleep(seconds)
        took.append(time.monotonic() - began)
        return images.shown(image)

    try:
        source = open_source(server.url, timeout=20, reconnect=0)
        pipeline: Pipeline[Any] = Pipeline(source, classify, policy=policy)
        results = iter(pipeline)
        ages.append(told(next(results)))
        server.garbage = garbage
        with pytest.raises(SourceError, match="ended"):
            ages.extend(map(told, results))
    finally:
        server.close()
    return server, source, ages, float(np.median(took))


def test_a_slow_model_has_fewer_images_decoded(decodes: list[int]) -> None:
    server, source, answers, took = answer("latest", 100, 0.2)
    counters = source.counters
    assert counters["frames"] + counters["dropped"] == 100
    assert counters["corrupted"] == counters["stalls"] == 0
    assert counters["frames"] <= len(decodes) < 95, "none was left undecoded"
    numbers = [number for number, _ in answers]
    assert set(numbers) <= server.sent
    assert numbers == sorted(set(numbers))
    assert len(numbers) >= 12
    # Twice inference and interval, as without.
    assert np.median([age for _, age in answers]) < 2 * (took + 0.045)


def test_damaged_images_are_counted_among_those_left_out(decodes: list[int]) -> None:
    _, source, _, _ = answer("latest", 60, 0.3, garbage=3)
    counters = source.counters
    # The splitter sees them; what it counts may be more than one an image.
    assert counters["corrupted"] >= 3
    assert counters["frames"] + counters["dropped"] == 57


def test_where_each_is_to_be_answered_each_is_decoded(decodes: list[int]) -> None:
    server, source, answers, _ = answer("queue(100)", 40, 0.08)
    counters = source.counters
    assert len(decodes) == 40
    assert counters["frames"] + counters["dropped"] == 40
    assert {number for number, _ in answers} <= server.sent
