"""The loops that `streaming.py` compares, one in a process: prints JSON.

::

    python tools/benchmarks/streaming_loops.py LOOP BUNDLE --onnx FILE [--fps F] [--file VIDEO]
                                               [--seconds S]

Every loop gets frames through ``cv2.VideoCapture`` (a simulated camera, or OpenCV's own on a
file), runs the same graph in ONNX Runtime with one thread, and is timed where its program has
the answer in hand.
"""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from common import parser_of, print_answer
from streaming_camera import Camera, read_stamp

WARM_UP = 1.0
_Session = onnxruntime.InferenceSession


class Clock:
    """Notes when answers came and how old their frames were; ends the loop in time."""

    def __init__(self, seconds: float, *, live: bool) -> None:
        self.live, self.seconds = live, seconds
        self.ages: list[float] = []
        self.count = 0
        self.began: float | None = None

    def answered(self, image: Any) -> bool:
        """Note an answer; returns whether to go on."""
        now = time.monotonic()
        if self.began is None:
            self.began = now
        if self.live and now - self.began < WARM_UP:
            return True
        if not self.count:
            self.first, self.used = now, _cpu()
        self.count += 1
        self.last = now
        if not self.live:
            return True
        self.ages.append(now - read_stamp(image))
        return now - self.began < self.seconds + WARM_UP

    def report(self) -> dict[str, Any]:
        """Return what was measured."""
        span = self.last - self.first
        report = {
            "answers": self.count,
            "per_second": (self.count - 1) / span,
            "cpu_ms": 1e3 * (_cpu() - self.used) / self.count,
        }
        if self.ages:
            ages = 1e3 * np.asarray(self.ages)
            report |= {f"age_p{p}_ms": float(np.percentile(ages, p)) for p in (50, 99)}
        return report


def opencv(clock: Clock, source: str, model: Callable[[Any], Any]) -> None:
    """Read and answer by turns, as tutorials do."""
    capture = cv2.VideoCapture(source)
    while True:
        good, image = capture.read()
        if not good:
            break
        model(image)
        if not clock.answered(image):
            break
    capture.release()


def edge_fg_pipeline(clock: Clock, source: str, model: Callable[[Any], Any]) -> None:
    """Iterate over our pipeline with its default policy."""
    from edge_fg.pipeline import Pipeline

    with Pipeline(_source(clock, source), model) as pipeline:
        for result in pipeline:
            if not clock.answered(result.frame.image):
                break


def edge_fg_stream(clock: Clock, source: str, model: Callable[[Any], Any]) -> None:
    """Iterate over our stream with its default policy."""
    from edge_fg.pipeline import stream

    with stream(_source(clock, source), model) as answers:
        for frame, _ in answers:
            if not clock.answered(frame.image):
                break


def roboflow(clock: Clock, source: str, model: Callable[[Any], Any]) -> None:
    """Run the inference package's pipeline with the same model as its custom logic."""
    from inference import InferencePipeline

    def on_frames(frames: list[Any]) -> list[Any]:
        return [model(frame.image) for frame in frames]

    def on_answer(_: Any, frame: Any) -> None:
        frames = frame if isinstance(frame, list) else [frame]
        if not clock.answered(frames[0].image):
            threading.Thread(target=pipeline.terminate).start()

    pipeline = InferencePipeline.init_with_custom_logic(
        video_reference=source, on_video_frame=on_frames, on_prediction=on_answer
    )
    pipeline.start(use_main_thread=False)
    pipeline.join()


def ultralytics(clock: Clock, source: str, onnx: Path, size: int) -> None:
    """Run Ultralytics' predictor, which prepares frames in its own way."""
    import torch
    from ultralytics import YOLO

    torch.set_num_threads(1)
    model = YOLO(str(onnx), task="classify")
    for result in model.predict(source, stream=True, imgsz=size, verbose=False, device="cpu"):
        if not clock.answered(result.orig_img):
            break


def _source(clock: Clock, address: str) -> Any:
    from edge_fg.sources import open_source

    # By number, so that OpenCV reads it: the simulated camera takes OpenCV's place.
    return open_source(0 if clock.live else address)


def _one_thread(*arguments: Any, **options: Any) -> Any:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options["sess_options"] = settings
    return _Session(arguments[0], **options)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Run one loop."""
    parser = parser_of(__doc__)
    parser.add_argument("loop")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--onnx", type=Path, required=True)
    parser.add_argument("--fps", type=float)
    parser.add_argument("--file")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=6.0)
    chosen = parser.parse_args()
    cv2.setNumThreads(1)
    live = chosen.file is None
    if live:
        Camera.fps = chosen.fps
        cv2.VideoCapture = Camera
    source = "rtsp://camera/1" if live else chosen.file
    clock = Clock(chosen.seconds, live=live)
    if chosen.loop == "ultralytics":
        onnxruntime.InferenceSession = _one_thread
        ultralytics(clock, source, chosen.onnx, chosen.size)
    else:
        import edge_fg

        loops = {
            "edge_fg pipeline": edge_fg_pipeline,
            "edge_fg stream": edge_fg_stream,
            "OpenCV loop": opencv,
            "roboflow": roboflow,
        }
        with edge_fg.load(chosen.bundle, backend="onnxruntime", threads=1) as classifier:
            classifier(np.zeros((480, 640, 3), np.uint8))
            loops[chosen.loop](clock, source, classifier)
    print_answer(clock.report())


if __name__ == "__main__":
    main()
