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
from support.waiting import joined, until


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
    source = open_source(server.url, timeout=2.0, backoff=(0.1, 0.4), seed=3)
    pipeline: Pipeline[Any] = Pipeline(source, ReadNumber())

    def collect() -> None:
        for result in pipeline:
            answers.append((result.prediction, result.age_s, time.monotonic()))

    def more() -> None:
        count = len(answers)
        until(lambda: len(answers) > count + 2, "answers")

    reader = threading.Thread(target=collect)
    reader.start()
    try:
        more()
        for harm in ("kill", "cut", "stall"):
            if harm == "cut":
                server.cut = True
            else:
                getattr(server, harm)()
            until(lambda: source.state == "lost", "the loss")
            server.resume() if harm == "stall" else server.start()
            more()
    finally:
        pipeline.stop()
        joined(reader)
        server.close()
    numbers = [number for number, _, _ in answers]
    assert set(numbers) <= server.sent
    assert numbers == sorted(set(numbers))
    assert source.counters["reconnects"] == 3
    assert source.state == "ended"
