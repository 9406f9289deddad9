"""The pipeline against other programs' loops and against bare calls, side by side in one run.

::

    python tools/benchmarks/streaming.py [--model ONNX --labels FILE --preprocess TOML]
        [--ultralytics PYTHON] [--roboflow PYTHON] [--rounds 3] [--seconds 6]
        [--only loops,file,overhead,growth] [--frames 200000]

`loops`: a simulated camera three times faster than one frame's work; answers a second, and how
old a frame is when the program has its answer. `file`: frames a second of a video file of which
every frame is answered. Each loop runs in a process of its own, all take turns, and the middle of
the rounds is told. ``--ultralytics`` and ``--roboflow`` name interpreters that have these
packages (and msgspec for edge_fg's bundle reader); without them they are left out.

`overhead`: frames are decoded, preprocessed and executed by bare calls and by the pipeline, in
turns, on one core. `growth`: memory, threads and descriptors over many synthetic frames.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from streaming_camera import SIZE_WH, numbered_images

import edge_fg
from edge_fg.pipeline import Pipeline
from edge_fg.preprocess import CpuPreprocessor
from edge_fg.sources import Frame
from edge_fg.sources.base import BaseSource
from edge_fg.telemetry.process import open_descriptors, resident_bytes
from edge_fg_tools.fieldguide import model_files

HERE = Path(__file__).resolve().parent
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
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
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


def _loops(chosen: argparse.Namespace) -> dict[str, str]:
    own = dict.fromkeys(("edge_fg pipeline", "edge_fg stream", "OpenCV loop"), sys.executable)
    peers = {"ultralytics": chosen.ultralytics, "roboflow": chosen.roboflow}
    return own | {name: python for name, python in peers.items() if python}


def _take_turns(
    chosen: argparse.Namespace, bundle: Path, more: list[str]
) -> dict[str, list[dict[str, Any]]]:
    with edge_fg.load(bundle, backend="onnxruntime", threads=1):
        size = edge_fg.Bundle(bundle).manifest.input.shape[2]
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in _loops(chosen)}
    paths = [str(HERE), *(str(HERE.parent.parent / part) for part in (".", "tools"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "YOLO_OFFLINE": "true"}
    for _ in range(chosen.rounds):
        for name, python in _loops(chosen).items():
            command = [python, str(HERE / "streaming_loops.py"), name, str(bundle)]
            command += ["--onnx", str(chosen.model), "--size", str(size), *more]
            done = subprocess.run(
                command, capture_output=True, text=True, env=environment, timeout=300, check=False
            )
            if done.returncode:
                print(f"{name} failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
                continue
            results[name].append(json.loads(done.stdout.strip().splitlines()[-1]))
    return {name: rounds for name, rounds in results.items() if rounds}


def _compare_live(chosen: argparse.Namespace, bundle: Path, work: float) -> None:
    fps = 3 / work
    more = ["--fps", f"{fps:.2f}", "--seconds", str(chosen.seconds)]
    results = _take_turns(chosen, bundle, more)
    bound = 2 * (1e3 * work + 1e3 / fps)
    print(f"camera of {fps:.0f} frames a second, {SIZE_WH}; bound of the age: {bound:.1f} ms\n")
    print("| loop | answers/s | age p50 (ms) | age p99 (ms) | CPU per answer (ms) |")
    print("|---|---|---|---|---|")
    for name, rounds in results.items():
        keys = ("per_second", "age_p50_ms", "age_p99_ms", "cpu_ms")
        print(f"| {name} | " + " | ".join(_middle(rounds, key) for key in keys) + " |")
    print()


def _compare_file(chosen: argparse.Namespace, bundle: Path, folder: Path) -> None:
    video, frames = folder / "video.avi", 300
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 30.0, SIZE_WH)
    shown = numbered_images(10)
    for number in range(frames):
        writer.write(shown[number % len(shown)])
    writer.release()
    results = _take_turns(chosen, bundle, ["--file", str(video)])
    print(f"video file of {frames} frames\n")
    print("| loop | frames/s | answered | CPU per answer (ms) |")
    print("|---|---|---|---|")
    for name, rounds in results.items():
        answered = "/".join(str(each["answers"]) for each in rounds)
        print(
            f"| {name} | {_middle(rounds, 'per_second')} | {answered} "
            f"| {_middle(rounds, 'cpu_ms')} |"
        )
    print()


def _middle(rounds: list[dict[str, Any]], key: str) -> str:
    values = sorted(each[key] for each in rounds)
    return f"{statistics.median(values):.1f} ({values[0]:.1f}..{values[-1]:.1f})"


class Decoding(BaseSource):
    """Decodes the same images again and again."""

    def __init__(self, jpegs: list[Any], count: int) -> None:
        super().__init__("jpegs")
        self._jpegs = jpegs
        self._count = count

    def _read(self) -> Frame | None:
        if self._delivered == self._count:
            return None
        jpeg = self._jpegs[self._delivered % len(self._jpegs)]
        return Frame(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), self._delivered, self.name)


class Noting:
    """A sink that does next to nothing."""

    name = "noting"

    def __init__(self) -> None:
        self.count = 0

    def open(self, _: Any) -> None:
        """Do nothing."""

    def __call__(self, _: Any) -> None:
        """Count."""
        self.count += 1

    def close(self) -> None:
        """Do nothing."""


def _overhead(bundle: Path, blocks: int) -> None:
    import onnxruntime

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    jpegs = [cv2.imencode(".jpg", image)[1] for image in numbered_images(4)]
    opened = edge_fg.Bundle(bundle)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(opened.graph("fp32"), options)
    preprocess = CpuPreprocessor(opened.manifest.preprocess)
    name = opened.manifest.input.name
    classifier = edge_fg.load(opened, backend="onnxruntime", threads=1)

    def bare() -> None:
        for number in range(BLOCK):
            image = cv2.imdecode(jpegs[number % len(jpegs)], cv2.IMREAD_COLOR)
            session.run(None, {name: preprocess([image])})

    def calls() -> None:
        for number in range(BLOCK):
            classifier(cv2.imdecode(jpegs[number % len(jpegs)], cv2.IMREAD_COLOR))

    def piped() -> None:
        sink = Noting()
        Pipeline(Decoding(jpegs, BLOCK), classifier, sinks=[sink]).run()
        assert sink.count == BLOCK

    ways = {"bare calls": bare, "edge_fg classifier": calls, "edge_fg pipeline": piped}
    took: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for number in range(blocks + 1):
        order = list(ways) if number % 2 else list(reversed(ways))
        for way in order:
            began, used = time.perf_counter(), time.process_time()
            ways[way]()
            pair = (time.perf_counter() - began, time.process_time() - used)
            if number:
                took[way].append(pair)
    _tell_overhead(took)
    classifier.close()


def _tell_overhead(took: dict[str, list[tuple[float, float]]]) -> None:
    print("| way, on one core | CPU per frame (ms) | more than bare | wall (ms) | more than bare |")
    print("|---|---|---|---|---|")
    for way, pairs in took.items():
        cells = []
        for column in (1, 0):
            own = [pair[column] for pair in pairs]
            bare = [pair[column] for pair in took["bare calls"]]
            # Each block against the bare one beside it: what slows both cancels out.
            more = statistics.median(a / b - 1 for a, b in zip(own, bare, strict=True))
            cells += [f"{1e3 * statistics.median(own) / BLOCK:.2f}", f"{100 * more:+.1f} %"]
        print(f"| {way} | " + " | ".join(cells) + " |")
    print()


class Synthetic(BaseSource):
    """New frames without end, as fast as they are taken."""

    def __init__(self, count: int) -> None:
        super().__init__("synthetic")
        self._count = count

    def _read(self) -> Frame | None:
        if self._delivered == self._count:
            return None
        return Frame(np.full((48, 64, 3), self._delivered % 256, np.uint8), self._delivered, "s")


def _growth(frames: int) -> None:
    """Run two sources and two sinks, and look at the process ten times."""
    print("| frames answered | resident (MiB) | threads | descriptors |")
    print("|---|---|---|---|")
    pipeline = Pipeline(
        [Synthetic(frames // 2), Synthetic(frames // 2)],
        lambda image: int(image[0, 0, 0]),
        sinks=[Noting(), Noting()],
    )
    step = max(1, frames // 10)
    for result in pipeline:
        done = pipeline.stats().answered if result.frame.number % 500 == 0 else 0
        if done >= step:
            step += max(1, frames // 10)
            memory = (resident_bytes() or 0) / 2**20
            print(f"| {done} | {memory:.1f} | {threading.active_count()} | {open_descriptors()} |")
    print(f"\nat the end: {threading.active_count()} threads, {open_descriptors()} descriptors")


if __name__ == "__main__":
    main()
