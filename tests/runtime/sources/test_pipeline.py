"""The pipeline over cameras that are killed and come back: answers go on, and to real images."""

from __future__ import annotations

import importlib
import threading
import time
from typing import Any

import numpy as np
import pytest

from edge_fg.pipeline import Pipeline
from edge_fg.sources import open_source
from support.servers import camera
from support.servers import numbered_images as images

LONGEST = 0.4


class ReadNumber:
    """A classifier that reads the number which an image shows."""

    def __call__(self, frame: np.ndarray) -> int | None:
        return images.shown(frame)


@pytest.mark.parametrize("protocol", ["mjpeg", "rtsp"])
def test_answers_go_on_after_each_loss(protocol: str) -> None:
    if protocol == "rtsp":
        pytest.importorskip("av")
    server = importlib.import_module(f"support.servers.{protocol}").make(camera, images)
    answers: list[tuple[int | None, float, float]] = []
    source = open_source(server.url, timeout=1.0, backoff=(0.1, LONGEST), seed=3)
    pipeline: Pipeline[Any] = Pipeline(source, ReadNumber())

    def collect() -> None:
        for result in pipeline:
            answers.append((result.prediction, result.age_s, time.monotonic()))

    def more(seconds: float) -> None:
        count, began, lag = len(answers), time.monotonic(), 0.0
        while len(answers) <= count + 2:
            before = time.monotonic()
            assert before - began < seconds + 3 * lag, (source.counters, lag)
            time.sleep(0.005)
            lag += max(0.0, time.monotonic() - before - 0.015)

    reader = threading.Thread(target=collect)
    reader.start()
    try:
        more(5)
        for harm in ("kill", "cut", "stall"):
            if harm == "cut":
                server.cut = True
            else:
                getattr(server, harm)()
            while source.state != "lost":
                time.sleep(0.005)
            server.resume() if harm == "stall" else server.start()
            more(LONGEST + 2)
    finally:
        pipeline.stop()
        reader.join(10)
        server.close()
    assert not reader.is_alive()
    numbers = [number for number, _, _ in answers]
    assert set(numbers) <= server.sent
    assert numbers == sorted(set(numbers))
    assert source.counters["reconnects"] == 3
    assert source.state == "ended"
