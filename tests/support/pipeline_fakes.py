"""Sources, models and sinks that do what a test tells them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from edge_fg.sources import Frame
from edge_fg.sources.base import BaseSource
from support.waiting import HANG


def image(value: int) -> np.ndarray:
    return np.full((2, 2, 3), value % 256, np.uint8)


def first_value(image: np.ndarray) -> int:
    return int(image[0, 0, 0])


class Numbers(BaseSource):
    """Numbered frames; an error or the end after `count` of them."""

    def __init__(
        self,
        count: int | None = None,
        *,
        name: str = "numbers",
        live: bool = False,
        period: float = 0.0,
        error: BaseException | None = None,
        gate: threading.Semaphore | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name, live=live)
        self.count = count
        self.period = period
        self.error = error
        self.gate = gate
        self.clock = clock
        self.read = 0
        self.releases = 0
        self.threads: set[str] = set()

    def say(self, state: str) -> None:
        self._status.change(state, "the test says so")

    def _read(self) -> Frame | None:
        self.threads.add(threading.current_thread().name)
        if self.period:
            time.sleep(self.period)
        if self.gate is not None:
            self.gate.acquire(timeout=HANG)
        if self._delivered == self.count or self._closed:
            if self.error is not None:
                raise self.error
            return None
        self.read += 1
        number = self._delivered
        return Frame(image(number), number, self.name, captured=self.clock())

    def close(self) -> None:
        if self.gate is not None:
            self.gate.release()
        super().close()

    def _release(self) -> None:
        self.releases += 1


class Batching:
    """A model that takes several frames at once; `cost` gives the seconds that it sleeps."""

    def __init__(
        self,
        cost: Callable[[int], float] = lambda size: 0.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.cost = cost
        self.sleep = sleep
        self.sizes: list[int] = []
        self.regions: list[object] = []

    def __call__(self, image: np.ndarray, region: object = None) -> int:
        return self.batch([image], [region])[0]

    def batch(
        self, images: Sequence[np.ndarray], regions: Sequence[object] | None = None
    ) -> list[int]:
        self.sizes.append(len(images))
        self.regions.extend(regions or [None] * len(images))
        if (seconds := self.cost(len(images))) > 0:
            self.sleep(seconds)
        return [first_value(image) for image in images]


class Collecting:
    """A sink that keeps what it gets, slowly or not at all if it is told so."""

    def __init__(
        self,
        name: str = "collecting",
        *,
        seconds: float = 0.0,
        fails: Callable[[int], bool] = lambda call: False,
        lossless: bool | None = None,
    ) -> None:
        self.name = name
        if lossless is not None:
            self.lossless = lossless
        self.seconds = seconds
        self.fails = fails
        self.results: list = []
        self.calls = 0
        self.opened: list[str] | None = None
        self.closes = 0
        self.threads: set[str] = set()

    def open(self, sources: Sequence[BaseSource]) -> None:
        self.opened = [source.name for source in sources]

    def __call__(self, result) -> None:
        self.threads.add(threading.current_thread().name)
        self.calls += 1
        if self.seconds:
            time.sleep(self.seconds)
        if self.fails(self.calls):
            raise OSError(28, "No space left on device")
        self.results.append(result)

    def close(self) -> None:
        self.closes += 1

    @property
    def numbers(self) -> list[int]:
        return [result.frame.number for result in self.results if not result.closing]
