"""Scenarios of the whole GPU path, run in a child under the software CUDA driver.

Real: `edge_fg.load`, PyCUDA, the streams, buffers, graphs and kernels of `edge_fg.cuda`. The
engine is the stand-in; its work waits in the stream, as the driver's own does.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import sys
import threading
from pathlib import Path

import numpy as np
import tensorrt

import edge_fg
from edge_fg.backends.base import Backend, cut
from edge_fg.backends.options import EngineOptions
from edge_fg.backends.tensorrt.backend import TensorRTBackend
from edge_fg.boxes import Region
from edge_fg.errors import BackendError, EdgeFGError
from edge_fg.preprocess import CpuPreprocessor
from edge_fg.preprocess.pixel_layout import PixelFormat, PixelLayout
from edge_fg.preprocess.raw_frame import Pixels, RawFrame, all_bgr
from edge_fg.preprocess.yuv import ColorStandard
from edge_fg.recognition.prediction import Prediction

COUNTERS = ["buffers", "page_locked", "streams", "events", "modules", "graphs", "retains", "pushed"]
IMAGE = b"""// PTX
.version 8.0
.target sm_72
.address_size 64
.visible .entry call(.param .u64 function, .param .u64 number) { ret; }
.visible .entry fold(.param .u64 input, .param .u64 output, .param .u32 rows, .param .u32 inputs,
    .param .u32 outputs) { ret; }
"""


class Queue:
    """Puts the stand-in's work into the driver's streams."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libcuda.so.1")
        self.module = ctypes.c_void_p()
        self.functions: dict[bytes, ctypes.c_void_p] = {}
        self.works: list[object] = []
        self.callback = ctypes.CFUNCTYPE(None, ctypes.c_uint64)(self.call)

    def call(self, number: int) -> None:
        self.works[number]()

    def is_current(self) -> bool:
        context = ctypes.c_void_p()
        return self.library.cuCtxGetCurrent(ctypes.byref(context)) == 0 and bool(context.value)

    def launch(self, name: bytes, stream: int, *arguments: object) -> None:
        if not self.module:
            image = ctypes.create_string_buffer(IMAGE)
            assert self.library.cuModuleLoadData(ctypes.byref(self.module), image) == 0
            for known in (b"call", b"fold"):
                found = ctypes.c_void_p()
                code = self.library.cuModuleGetFunction(ctypes.byref(found), self.module, known)
                assert code == 0
                self.functions[known] = found
        places = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
        one = [ctypes.c_uint(1)] * 6
        code = self.library.cuLaunchKernel(
            self.functions[name], *one, ctypes.c_uint(0), ctypes.c_void_p(stream), places, None
        )
        assert code in (0, 700, 719), code

    def enqueue(self, stream: int, work) -> None:
        self.works.append(work)
        address = ctypes.cast(self.callback, ctypes.c_void_p).value
        number = ctypes.c_uint64(len(self.works) - 1)
        self.launch(b"call", stream, ctypes.c_uint64(address), number)

    def fold(self, context, stream_handle: int) -> bool:
        """Execute the engine `fold` in the place of a context's graph."""
        source, target = context.engine.inputs[0], context.engine.outputs[0]
        rows, *sizes = context.shape
        self.launch(
            b"fold",
            stream_handle,
            ctypes.c_uint64(context.addresses[source.name]),
            ctypes.c_uint64(context.addresses[target.name]),
            *map(ctypes.c_int, (rows, int(np.prod(sizes)), target.shape[1])),
        )
        return True


QUEUE = Queue()
tensorrt.Hooks.enqueue = staticmethod(QUEUE.enqueue)
tensorrt.Hooks.is_current = staticmethod(QUEUE.is_current)


def left() -> dict[str, int]:
    found = {name: QUEUE.library.software_cuda_count(i) for i, name in enumerate(COUNTERS)}
    found["modules"] -= 1  # ours, with the kernel that calls back
    return found


def frames(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(17)
    sizes = random.integers(3, 120, (count, 2))
    return [random.integers(0, 256, (height, width, 3), np.uint8) for height, width in sizes]


def answers(bundle: str, folder: str) -> dict[str, object]:
    """The same answers as ONNX Runtime's, for single frames, batches, regions and graphs."""
    options = EngineOptions(max_batch=4, plan_cache=Path(folder))
    images = frames(10)
    regions = [None if i % 2 else (0, 0, 2, 3) for i in range(10)]
    worst = 0.0
    with (
        edge_fg.load(bundle, backend="onnxruntime", threads=1) as oracle,
        edge_fg.load(bundle, options=options) as classifier,
    ):
        chosen = classifier.choice.backend
        for wanted in (None, regions):
            pairs = zip(classifier.batch(images, wanted), oracle.batch(images, wanted), strict=True)
            for found, expected in pairs:
                difference = np.abs(found.probabilities - expected.probabilities).max()
                worst = max(worst, float(difference))
        for image in images * 3:
            found, expected = classifier(image), oracle(image)
            difference = np.abs(found.probabilities - expected.probabilities).max()
            worst = max(worst, float(difference))
        graphs = left()["graphs"]
        assert found.latency.inference_ms > 0
    return {
        "backend": chosen,
        "worst": worst,
        "graphs": graphs,
        "left": left(),
        "violations": tensorrt.violations,
        "builds": len(tensorrt.builds),
    }


def raw(bundle: str, folder: str) -> dict[str, object]:
    """A camera's own bytes go to the GPU as they are, and the answers are the pixels' own."""
    random = np.random.default_rng(23)
    kinds = (
        PixelLayout(PixelFormat.NV12, 41, 67, standard=ColorStandard.BT601_LIMITED),
        PixelLayout(PixelFormat.I420, 41, 67, 80, ColorStandard.BT601_FULL),
        PixelLayout(PixelFormat.YUYV, 41, 67, standard=ColorStandard.BT709_LIMITED),
        PixelLayout(PixelFormat.GRAY, 30, 20),
    )
    images = frames(1)
    options = EngineOptions(max_batch=4, plan_cache=Path(folder))
    seen: list[tuple[list[Pixels], list[Region | None], list[Prediction]]] = []
    to_bgr, converted = RawFrame.to_bgr, []
    RawFrame.to_bgr = lambda self: converted.append(self) or to_bgr(self)
    with edge_fg.load(bundle, backend="tensorrt", options=options) as classifier:
        for turn in range(24):
            chosen = [RawFrame(random.integers(0, 256, k.nbytes, np.uint8), k) for k in kinds]
            batch: list[Pixels] = [[*chosen, images[0]], chosen[:1], chosen[1:2]][turn % 3]
            regions = [(2 * (turn % 5), 1, 9, 12) if turn % 2 else None for _ in batch]
            seen.append((batch, regions, classifier.batch(batch, regions)))
        graphs = left()["graphs"]
        gauges = {"takes_raw": classifier.takes_raw, "engine_bytes": classifier.engine_bytes}
    assert not converted, "a raw frame was converted on the host"
    worst = 0.0
    with edge_fg.load(bundle, backend="onnxruntime", threads=1) as oracle:
        for batch, regions, found in seen:
            pairs = zip(found, oracle.batch(all_bgr(batch), regions), strict=True)
            apart = [np.abs(a.probabilities - b.probabilities).max() for a, b in pairs]
            worst = max(worst, *map(float, apart))
        assert not oracle.takes_raw
        assert oracle.engine_bytes is None
    found = {"worst": worst, "graphs": graphs, "violations": tensorrt.violations}
    return {**found, **gauges, "left": left()}


def second(bundle: str, folder: str) -> dict[str, object]:
    """The second GPU is current wherever TensorRT builds, loads and executes."""
    current: list[int] = []

    def note() -> bool:
        device = ctypes.c_int(-1)
        QUEUE.library.cuCtxGetDevice(ctypes.byref(device))
        current.append(device.value)
        return device.value == 1

    tensorrt.Hooks.is_current = staticmethod(note)
    build = tensorrt.Builder.build_serialized_network
    tensorrt.Builder.build_serialized_network = lambda *given: note() and build(*given)
    options = EngineOptions(plan_cache=Path(folder))
    with edge_fg.load(bundle, device=1, options=options) as classifier:
        reason = classifier.choice.reason
        for image in frames(2) * 4:
            classifier(image)
    return {
        "reason": reason,
        "current": sorted(set(current)),
        "violations": tensorrt.violations,
        "left": left(),
    }


def threads(bundle: str, folder: str, contexts: str) -> dict[str, object]:
    """Many threads, each with its own images: real slots, streams, events, graphs and kernels."""
    tensorrt.IExecutionContext.execute_async_v3 = lambda self, stream: QUEUE.fold(self, stream)
    opened = edge_fg.Bundle(bundle)
    on_cpu = CpuPreprocessor(opened.manifest.preprocess)
    options = EngineOptions(plan_cache=Path(folder), contexts=int(contexts), max_batch=3)
    wrong: list[str] = []
    rounds = [0]

    def work(backend: Backend, number: int) -> None:
        images = frames(40)[number * 5 : number * 5 + 5]
        for turn in range(60):
            count = 1 + (turn // 7 + number) % 4
            chosen = [images[(turn // 5 + i) % 5] for i in range(count)]
            regions = [(1, 0, 2, 3) if (turn + i) % 9 == 0 else None for i in range(count)]
            found = backend.infer(chosen, regions).tensors["logits"]
            pairs = zip(chosen, regions, strict=True)
            tensor = on_cpu([cut(*pair) for pair in pairs]).reshape(count, -1, 4)
            if not np.allclose(found, tensor.sum(axis=1), rtol=1e-4, atol=1e-3):
                wrong.append(f"thread {number}, turn {turn}, {count} images")
            rounds[0] += 1

    with contextlib.closing(TensorRTBackend(opened, "fp32", options=options)) as backend:
        workers = [threading.Thread(target=work, args=(backend, n)) for n in range(6)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        graphs = left()["graphs"]
    return {"wrong": wrong, "rounds": rounds[0], "graphs": graphs, "left": left()}


def lost(bundle: str, folder: str, code: str) -> dict[str, object]:
    """The device is lost while it executes: the classifier closes, and says so ever after."""
    classifier = edge_fg.load(bundle, options=EngineOptions(plan_cache=Path(folder)))
    image = frames(1)[0]
    classifier(image)
    fail = QUEUE.library.software_cuda_fail
    fail(b"cuEventSynchronize", ctypes.c_long(0), int(code), 0)
    said = []
    for _ in range(3):
        with contextlib.suppress(BackendError):
            try:
                classifier(image)
            except BackendError as error:
                said.append([type(error).__name__, str(error)])
                raise
    classifier.close()
    return {"said": said, "pushed": left()["pushed"]}


def full(bundle: str, folder: str) -> dict[str, object]:
    """The GPU has no memory for the engine's buffers: the CPU takes over and says why."""
    fail = QUEUE.library.software_cuda_fail
    fail(b"cuMemAlloc", ctypes.c_long(0), 2, 0)
    options = EngineOptions(plan_cache=Path(folder))
    with edge_fg.load(bundle, options=options) as classifier:
        found = classifier(frames(1)[0])
        chosen = [classifier.choice.backend, classifier.choice.reason]
    failed = None
    try:
        edge_fg.load(bundle, backend="tensorrt", options=options)
    except EdgeFGError as error:
        failed = [type(error).__name__, str(error)]
    return {"chosen": chosen, "classes": len(found.probabilities), "failed": failed, "left": left()}


def unclosed(bundle: str, folder: str) -> str:
    """A program that closes nothing ends quietly."""
    global kept  # alive until the interpreter ends
    kept = edge_fg.load(bundle, options=EngineOptions(plan_cache=Path(folder)))
    kept(frames(1)[0])
    return kept.choice.backend


def dropped(bundle: str, folder: str) -> dict[str, int]:
    """A classifier that is dropped gives everything back."""
    classifier = edge_fg.load(bundle, options=EngineOptions(plan_cache=Path(folder)))
    for _ in range(5):
        classifier(frames(1)[0])
    del classifier
    return left()


if __name__ == "__main__":
    logging.getLogger("edge_fg").addHandler(logging.NullHandler())
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
