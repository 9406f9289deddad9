"""One model shared by a program of many threads: multithreaded_host.py BUNDLE SOURCE [SOURCE ...].

Three users of one classifier at the same time: a pipeline that follows the sources, workers that
answer images from a queue (an upload service, say), and the main thread.
"""

from __future__ import annotations

import argparse
import queue
import threading

import numpy as np
from numpy.typing import NDArray

import edge_fg
from edge_fg.pipeline import Result
from edge_fg.sinks import CallbackSink

WORKERS = 3
UPLOADS = 24


def work(
    classifier: edge_fg.Classifier,
    uploads: queue.Queue[NDArray[np.uint8] | None],
    answers: queue.Queue[str],
) -> None:
    """Answer images until None comes."""
    while (image := uploads.get()) is not None:
        answers.put(classifier(image).label)


def main() -> None:
    """Run all three and print what they did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("sources", nargs="+")
    given = parser.parse_args()
    uploads: queue.Queue[NDArray[np.uint8] | None] = queue.Queue(maxsize=8)
    answers: queue.Queue[str] = queue.Queue()
    seen: list[str] = []

    def remember(result: Result[edge_fg.Prediction]) -> None:
        if result.prediction is not None:
            seen.append(result.prediction.label)

    with edge_fg.load(given.bundle) as classifier:
        workers = [
            threading.Thread(target=work, args=(classifier, uploads, answers))
            for _ in range(WORKERS)
        ]
        for worker in workers:
            worker.start()
        pipeline = edge_fg.Pipeline(given.sources, classifier, sinks=[CallbackSink(remember)])
        pipeline.start()
        rng = np.random.default_rng(0)
        for _ in range(UPLOADS):
            uploads.put(rng.integers(0, 256, (240, 320, 3), dtype=np.uint8))
        grey = classifier(np.full((240, 320, 3), 128, np.uint8))
        for _ in workers:
            uploads.put(None)
        for worker in workers:
            worker.join()
        pipeline.wait()
    stats = pipeline.stats()
    print(f"{stats.answered} frames of {len(given.sources)} sources, {len(set(seen))} classes")
    print(f"{answers.qsize()} uploads by {WORKERS} workers")
    print(f"a grey image is {grey.label}")


if __name__ == "__main__":
    main()
