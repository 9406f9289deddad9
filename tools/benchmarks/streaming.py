"""The pipeline against other programs' loops and against bare calls, side by side in one run.

::

    python tools/benchmarks/streaming.py [--model ONNX --labels FILE --preprocess TOML]
        [--ultralytics PYTHON] [--roboflow PYTHON] [--rounds 3] [--seconds 6]
        [--only loops,file,overhead,growth] [--frames 200000]

`loops`: a simulated camera three times faster than one frame's work; answers a second, and how
old a frame is when the program has its answer. `file`: frames a second of a video file of which
every frame is answered. Each loop runs in a process of its own, all take turns, and the median
of the rounds is printed. ``--ultralytics`` and ``--roboflow`` name interpreters that have these
packages (and msgspec for edge_fg's bundle reader); without them they are left out.

`overhead`: frames are decoded, preprocessed and executed by bare calls and by the pipeline, in
turns, on one core. `growth`: memory, threads and descriptors over many synthetic frames.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from common import HERE, Row, in_turns, parser_of, run_child, table
from streaming_camera import SIZE_WH, numbered_images

import edge_fg
from edge_fg.backends.onnxruntime import import_onnxruntime
from edge_fg.pipeline import Pipeline
from edge_fg.preprocess import CpuPreprocessor
from edge_fg.sinks.base import BaseSink
from edge_fg.sources import Frame
from edge_fg.sources.base import BaseSource
from edge_fg.telemetry.process import open_descriptors, resident_bytes
from edge_fg_tools.fieldguide import model_files

BLOCK = 40


def main() -> None:
    """Measure and print Markdown tables."""
    chosen = _arguments()
    parts = chosen.only.split(",")
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        bundle = _build(chosen, Path(folder))
        with edge_fg.load(bundle, backend="onnxruntime", threads=1) as classifier:
            work = _work_seconds(classifier)
        print(f"one frame's work: {1e3 * work:.1f} ms (preprocess and inference, one thread)\n")
        if "loops" in parts:
            _compare_live(chosen, bundle, work)
        if "file" in parts:
            _compare_file(chosen, bundle, Path(folder))
        if "overhead" in parts:
            _overhead(bundle, chosen.blocks)
    if "growth" in parts:
        _growth(chosen.frames)


def _arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--model", type=Path, default=model_files.model_path())
    parser.add_argument("--labels", type=Path, default=model_files.labels_path())
    parser.add_argument("--preprocess", type=Path, default=model_files.preprocess_path())
    parser.add_argument("--ultralytics", help="interpreter that has ultralytics")
    parser.add_argument("--roboflow", help="interpreter that has roboflow's inference")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--frames", type=int, default=200_000)
    parser.add_argument("--only", default="loops,file,overhead")
    return parser.parse_args()


def _build(chosen: argparse.Namespace, folder: Path) -> Path:
    photographs = folder / "photographs"
    photographs.mkdir()
    for number, image in enumerate(numbered_images(16)):
        cv2.imwrite(str(photographs / f"{number}.png"), image)
    output = folder / "model.edgefg"
    command = [sys.executable, "-m", "edge_fg_tools", "build", str(chosen.model)]
    command += ["--labels", str(chosen.labels), "--preprocess", str(chosen.preprocess)]
    command += ["--calibration", str(photographs), "--precision", "fp32", "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return output


def _work_seconds(classifier: edge_fg.Classifier) -> float:
    image, took = numbered_images(1)[0], []
    for _ in range(40):
        began = time.perf_counter()
        classifier(image)
        took.append(time.perf_counter() - began)
    return statistics.median(took[5:])


def _take_turns(chosen: argparse.Namespace, bundle: Path, more: list[str]) -> dict[str, list[Row]]:
    size = edge_fg.Bundle(bundle).manifest.input.shape[2]
    loops = dict.fromkeys(("edge_fg pipeline", "edge_fg stream", "OpenCV loop"), sys.executable)
    peers = {"ultralytics": chosen.ultralytics, "roboflow": chosen.roboflow}
    loops |= {name: python for name, python in peers.items() if python}
    results: dict[str, list[Row]] = {name: [] for name in loops}
    paths = [HERE, HERE.parent.parent, HERE.parent]
    environment = {"PYTHONPATH": os.pathsep.join(map(str, paths)), "YOLO_OFFLINE": "true"}
    for _ in range(chosen.rounds):
        for name, python in loops.items():
            command = [python, HERE / "streaming_loops.py", name, bundle]
            command += ["--onnx", chosen.model, "--size", size, *more]
            found = run_child(command, limit_s=300, environment=environment)
            if "failed" in found:
                print(f"{name} failed: {found['failed']}", file=sys.stderr)
            else:
                results[name].append(found)
    return {name: rounds for name, rounds in results.items() if rounds}


def _compare_live(chosen: argparse.Namespace, bundle: Path, work: float) -> None:
    fps = 3 / work
    more = ["--fps", f"{fps:.2f}", "--seconds", str(chosen.seconds)]
    results = _take_turns(chosen, bundle, more)
    bound = 2 * (1e3 * work + 1e3 / fps)
    print(f"camera of {fps:.0f} frames a second, {SIZE_WH}; bound of the age: {bound:.1f} ms\n")
    ages = {"age p50 (ms)": "age_p50_ms", "age p99 (ms)": "age_p99_ms"}
    _print_loops(results, {"answers/s": "per_second", **ages, "CPU per answer (ms)": "cpu_ms"})


def _compare_file(chosen: argparse.Namespace, bundle: Path, folder: Path) -> None:
    video, frames = folder / "video.avi", 300
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 30.0, SIZE_WH)
    shown = numbered_images(10)
    for number in range(frames):
        writer.write(shown[number % len(shown)])
    writer.release()
    results = _take_turns(chosen, bundle, ["--file", str(video)])
    print(f"video file of {frames} frames\n")
    _print_loops(
        results, {"frames/s": "per_second", "answered": "answers", "CPU per answer (ms)": "cpu_ms"}
    )


def _print_loops(results: dict[str, list[Row]], columns: dict[str, str]) -> None:
    """Print a line for each loop; `columns` names what of its rounds each column shows."""
    rows = (
        [name, *(_shown(rounds, key) for key in columns.values())]
        for name, rounds in results.items()
    )
    print(table(["loop", *columns], rows), end="\n\n")


def _shown(rounds: list[Row], key: str) -> str:
    if key == "answers":
        return "/".join(str(each[key]) for each in rounds)
    values = sorted(each[key] for each in rounds)
    return f"{statistics.median(values):.1f} ({values[0]:.1f}..{values[-1]:.1f})"


class GeneratedFrames(BaseSource):
    """A number of frames, each made when it is read, as fast as they are taken."""

    def __init__(self, count: int, make: Callable[[int], Any]) -> None:
        super().__init__("generated")
        self._count = count
        self._make = make

    def _read(self) -> Frame | None:
        number = self._delivered
        return None if number == self._count else Frame(self._make(number), number, self.name)


class CountingSink(BaseSink):
    """A sink that does next to nothing."""

    def __init__(self) -> None:
        super().__init__("counting")
        self.count = 0

    def __call__(self, _: Any) -> None:
        """Count."""
        self.count += 1


def _overhead(bundle: Path, blocks: int) -> None:
    onnxruntime = import_onnxruntime()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    jpegs = [cv2.imencode(".jpg", image)[1] for image in numbered_images(4)]
    opened = edge_fg.Bundle(bundle)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(opened.graph("fp32"), options)
    preprocess = CpuPreprocessor(opened.manifest.preprocess)
    name = opened.manifest.input.name
    classifier = edge_fg.load(opened, backend="onnxruntime", threads=1)

    def decoded(number: int) -> Any:
        return cv2.imdecode(jpegs[number % len(jpegs)], cv2.IMREAD_COLOR)

    def bare() -> None:
        for number in range(BLOCK):
            session.run(None, {name: preprocess([decoded(number)])})

    def calls() -> None:
        for number in range(BLOCK):
            classifier(decoded(number))

    def piped() -> None:
        sink = CountingSink()
        Pipeline(GeneratedFrames(BLOCK, decoded), classifier, sinks=[sink]).run()
        assert sink.count == BLOCK

    ways = {"bare calls": bare, "edge_fg classifier": calls, "edge_fg pipeline": piped}
    _print_overhead(in_turns(ways, blocks + 1, time.perf_counter, time.process_time))
    classifier.close()


def _print_overhead(took: dict[str, list[tuple[float, ...]]]) -> None:
    rows = []
    bare = np.array(took["bare calls"][1:])  # the first round warms up
    for way, times in took.items():
        own = np.array(times[1:])
        # Each block against the bare one beside it: what slows both cancels out.
        wall_more, cpu_more = 100 * np.median(own / bare - 1, axis=0)
        wall, cpu = 1e3 * np.median(own, axis=0) / BLOCK
        cells = (f"{cpu:.2f}", f"{cpu_more:+.1f} %", f"{wall:.2f}", f"{wall_more:+.1f} %")
        rows.append([way, *cells])
    columns = ["CPU per frame (ms)", "more than bare", "wall (ms)", "more than bare"]
    print(table(["way, on one core", *columns], rows), end="\n\n")


def _growth(frames: int) -> None:
    """Run two sources and two sinks, and look at the process ten times."""

    def make(number: int) -> Any:
        return np.full((48, 64, 3), number % 256, np.uint8)

    pipeline = Pipeline(
        [GeneratedFrames(frames // 2, make), GeneratedFrames(frames // 2, make)],
        lambda image: int(image[0, 0, 0]),
        sinks=[CountingSink(), CountingSink()],
    )
    rows = []
    step = every = max(1, frames // 10)
    for result in pipeline:
        done = pipeline.stats().answered if result.frame.number % 500 == 0 else 0
        if done >= step:
            step += every
            memory = (resident_bytes() or 0) / 2**20
            rows.append((done, f"{memory:.1f}", threading.active_count(), open_descriptors()))
    print(table(("frames answered", "resident (MiB)", "threads", "descriptors"), rows))
    print(f"\nat the end: {threading.active_count()} threads, {open_descriptors()} descriptors")


if __name__ == "__main__":
    main()
