"""Preprocessing on the software CUDA driver against Pillow's pixels; see ordering.py."""

from __future__ import annotations

import contextlib
import gc
import threading

import numpy as np
from ordering import attempt, counts, driver, fail, heal, main

from edge_fg.backends.base import cut
from edge_fg.cuda import Device, DeviceBuffer, Graph, HostBuffer, Stream, copy_to_host
from edge_fg.preprocess import CpuPreprocessor, PreprocessSpec, Resize, presets
from edge_fg.preprocess.cuda import CudaPreprocessor
from edge_fg.preprocess.pixel_layout import PixelFormat, PixelLayout
from edge_fg.preprocess.yuv import ColorStandard

YUV = {PixelFormat.NV12, PixelFormat.YUYV, PixelFormat.I420}
SMALL = PreprocessSpec(Resize("squash", (24, 32)), mean=(120.5, 110.25, 99.0), std=(58.0,) * 3)


class Setup:
    """A device, a stream and a preprocessor with room for its tensor."""

    def __init__(self, spec=SMALL, max_batch=8, transfer="auto", device=None):
        self.spec = spec
        self.on_cpu = CpuPreprocessor(spec)
        nbytes = max_batch * int(np.prod(spec.tensor_shape)) * np.dtype(spec.dtype).itemsize
        with contextlib.ExitStack() as stack:
            self.device = device or stack.enter_context(Device())
            self.stream = stack.enter_context(Stream(self.device))
            self.output = stack.enter_context(DeviceBuffer(self.device, nbytes))
            self.gpu = stack.enter_context(
                CudaPreprocessor(self.device, spec, max_batch, transfer=transfer)
            )
            self.close = stack.pop_all().close

    def result(self, count, stream=None):
        stream = stream or self.stream
        tensor = np.empty((count, *self.spec.tensor_shape), self.spec.dtype)
        copy_to_host(tensor, self.output, stream)
        stream.synchronize()
        return tensor

    def check(self, frames, regions=None):
        every = [None] * len(frames) if regions is None else regions
        expected = self.on_cpu([cut(*pair) for pair in zip(frames, every, strict=True)])
        self.gpu(frames, regions, self.output.pointer, self.stream)
        for frame in {id(frame): frame for frame in frames}.values():
            frame[:] = 255 - frame  # ours again as soon as the call returns
        np.testing.assert_array_equal(self.result(len(frames)), expected)


def random_spec(random):
    modes = ["squash", "shortest-side+center-crop", "letterbox"]
    mode = str(random.choice(modes))
    height, width = (int(side) for side in random.integers(1, 40, 2))
    crop = None
    if mode == modes[1] or random.random() < 0.3:
        limits = (height, height) if mode == modes[1] else (height, width)
        crop = tuple(int(random.integers(1, limit + 1)) for limit in limits)
    dtype = str(random.choice(["float32", "float16", "uint8"]))
    values = {} if dtype == "uint8" else {"mean": (120.5, 110.25, 99.0), "std": (58.4, 57.1, 61.0)}
    resize = Resize(
        mode,
        height if mode == modes[1] else (height, width),
        str(random.choice(["bilinear", "bicubic", "lanczos", "box"])),
        antialias=bool(random.random() < 0.75),
        fill=int(random.integers(0, 256)),
    )
    color, layout = str(random.choice(["rgb", "bgr"])), str(random.choice(["nchw", "nhwc"]))
    return PreprocessSpec(resize, crop=crop, color=color, layout=layout, dtype=dtype, **values)


def random_region(random, height, width):
    if random.random() < 0.3:
        return None
    x, y = int(random.integers(0, width)), int(random.integers(0, height))
    return (x, y, int(random.integers(1, width - x + 1)), int(random.integers(1, height - y + 1)))


def random_frame(random, longest=90):
    height, width = (int(side) for side in random.integers(1, longest, 2))
    frame = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    kind = random.integers(0, 4)
    if kind == 0:
        return frame[:, ::-1]
    if kind == 1 and min(height, width) > 2:
        return frame[1:, :-1]
    if kind == 2:
        return np.asfortranarray(frame)
    return frame


def frames(seed, specs="40", calls="4"):
    """BGR frames: random specifications, sizes, strides, regions and batches."""
    random = np.random.default_rng(int(seed))
    images = 0
    device = Device()
    for _ in range(int(specs)):
        transfer = str(random.choice(["mapped", "staged"]))
        setup = Setup(random_spec(random), transfer=transfer, device=device)
        for _ in range(int(calls)):
            batch = [random_frame(random) for _ in range(int(random.integers(1, 9)))]
            if random.random() < 0.5:  # several regions of some frames
                batch = [batch[i] for i in random.integers(0, len(batch), len(batch))]
            regions = [random_region(random, *frame.shape[:2]) for frame in batch]
            setup.check(batch, None if random.random() < 0.2 else regions)
            images += len(batch)
        setup.close()
    left = counts()
    device.close()
    return {"images": images, "left": left, "end": counts()}


def random_source(random, kind):
    height, width = (int(side) for side in random.integers(1, 70, 2))
    standards = [standard.value for standard in ColorStandard]
    standard = ColorStandard(random.choice(standards)) if kind in YUV else None
    tight = PixelLayout(kind, height, width, standard=standard)
    pitch = None if random.random() < 0.5 else tight.row_bytes + int(random.integers(0, 20))
    region = random_region(random, height, width)
    return PixelLayout(kind, height, width, pitch, standard, region)


def raw(seed, batches="60"):
    """Every pixel format, mixed in a batch; on the host, and on the device already."""
    random = np.random.default_rng(int(seed))
    setup = Setup(transfer=str(random.choice(["mapped", "staged"])))
    kinds = [kind.value for kind in PixelFormat]
    images = 0
    for _ in range(int(batches)):
        size = int(random.integers(1, 7))
        sources = [random_source(random, PixelFormat(k)) for k in random.choice(kinds, size)]
        data = [random.integers(0, 256, s.nbytes + 3, dtype=np.uint8) for s in sources]
        expected = setup.on_cpu(
            [cut(s.to_bgr(d), s.region) for s, d in zip(sources, data, strict=True)]
        )
        setup.gpu.raw(sources, data, setup.output.pointer, setup.stream)
        np.testing.assert_array_equal(setup.result(size), expected)
        held = [HostBuffer(setup.device, (s.nbytes,), np.uint8, mapped=True) for s in sources]
        for buffer, bytes_ in zip(held, data, strict=True):
            buffer.array[:] = bytes_[: buffer.nbytes]
        pointers = [buffer.device_pointer for buffer in held]
        setup.gpu.on_device(sources, pointers, setup.output.pointer, setup.stream)
        np.testing.assert_array_equal(setup.result(size), expected)
        for buffer in held:
            buffer.close()
        images += size
    setup.close()
    return {"images": images, "end": counts()}


def real_size():
    """A full-HD frame through well-known presets, in place and copied; all of it, and a part."""
    random = np.random.default_rng(0)
    frame = random.integers(0, 256, (1080, 1920, 3), dtype=np.uint8)
    regions = [None, (301, 77, 640, 480)]
    device = Device()
    for name in ("torchvision", "timm", "keras-tf"):
        for transfer in ("mapped", "staged"):
            setup = Setup(presets()[name], 2, transfer, device)
            setup.check([frame, frame.copy()], regions)
            setup.close()
    device.close()
    return counts()


def steady(frames_="300"):
    """After the first batch of each geometry nothing is allocated and one copy is made."""
    results = {}
    for transfer in ("mapped", "staged"):
        random = np.random.default_rng(1)
        setup = Setup(transfer=transfer)
        sizes = [(48, 64), (31, 90), (120, 20), (48, 64)]
        batches = [
            [random.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(1 + i)]
            for i, size in enumerate(sizes)
        ]
        regions = [(3, 2, 15, 11)] * 4
        for batch in batches * 2:
            setup.check(batch)
            setup.check(batch, regions[: len(batch)])
        before, ever = counts(), counts(["allocations", "copies", "launches"])
        for i in range(int(frames_)):
            batch = batches[i % len(batches)]
            part = None if i % 3 else [(i % 5, i % 4, 15, 11)] * len(batch)
            setup.gpu(batch, part, setup.output.pointer, setup.stream)
        setup.stream.synchronize()
        now = counts(["allocations", "copies", "launches"])
        results[transfer] = {
            "alive": [before, counts()],
            "made": {name: now[name] - ever[name] for name in now},
        }
        setup.close()
    return {**results, "end": counts()}


def bounded():
    """More geometries than are kept: the device's memory stays bounded, the pixels right."""
    setup = Setup(max_batch=1)
    random = np.random.default_rng(2)
    alive = []
    for height in range(10, 110):
        setup.check([random.integers(0, 256, (height, 33, 3), dtype=np.uint8)])
        alive.append(counts()["buffers"])
    setup.check([random.integers(0, 256, (10, 33, 3), dtype=np.uint8)])
    setup.close()
    return {"alive": alive, "end": counts()}


def threads(transfer):
    """Six threads share one preprocessor, each with its own stream, output and geometries."""
    setup = Setup(transfer=transfer)
    failures, done = [], []

    def work(seed):
        try:
            random = np.random.default_rng(seed)
            nbytes = setup.output.nbytes
            with Stream(setup.device) as stream, DeviceBuffer(setup.device, nbytes) as output:
                for _ in range(25):
                    batch = [random_frame(random, 60) for _ in range(int(random.integers(1, 5)))]
                    setup.gpu(batch, None, output.pointer, stream)
                    tensor = np.empty((len(batch), *setup.spec.tensor_shape), setup.spec.dtype)
                    copy_to_host(tensor, output, stream)
                    stream.synchronize()
                    np.testing.assert_array_equal(tensor, setup.on_cpu(batch))
                    done.append(len(batch))
        except BaseException as error:  # noqa: BLE001 (told by the main thread)
            failures.append(repr(error))

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    setup.close()
    return {"failures": failures, "images": sum(done), "end": counts()}


def pipelined(transfer):
    """Batches queued without waiting for any, on two streams in turn, then looked at."""
    setup = Setup(transfer=transfer)
    random = np.random.default_rng(5)
    with contextlib.ExitStack() as stack:
        streams = [setup.stream, stack.enter_context(Stream(setup.device))]
        for size in (1, 2, 3, 4):
            setup.check(list(random.integers(0, 256, (size, 41, 53, 3), dtype=np.uint8)))
        queued = []
        for i in range(40):
            # Few geometries: bringing the tables of a new one waits.
            batch = list(random.integers(0, 256, (1 + i % 4, 41, 53, 3), dtype=np.uint8))
            output = stack.enter_context(DeviceBuffer(setup.device, setup.output.nbytes))
            expected = setup.on_cpu(batch)
            setup.gpu(batch, None, output.pointer, streams[i % 2])
            for frame in batch:
                frame[:] = 0
            queued.append((expected, output, streams[i % 2]))
        launched = counts(["launches"])["launches"]
        for expected, output, stream in queued:
            tensor = np.empty_like(expected)
            copy_to_host(tensor, output, stream)
            stream.synchronize()
            np.testing.assert_array_equal(tensor, expected)
        waiting = counts(["launches"])["launches"] - launched
    setup.close()
    return {"waiting": waiting, "end": counts()}


def captured(transfer):
    """A prepared batch, captured once, replayed with other images; its tables outlive others."""
    setup = Setup(transfer=transfer)
    random = np.random.default_rng(3)
    bgr = PixelLayout(PixelFormat.BGR, 50, 70)
    nv12 = PixelLayout(PixelFormat.NV12, 40, 60, standard=ColorStandard.BT709_LIMITED)
    part = PixelLayout(PixelFormat.BGR, 50, 70, region=(5, 6, 30, 20))
    sources = [bgr, nv12, part]
    batch = setup.gpu.prepare(sources, setup.output.pointer, setup.stream, at=[0, 1, 0])
    graph = Graph.capture(setup.stream, lambda: batch.queue(setup.stream))
    ever = counts(["allocations"])
    for i in range(20):
        frame = random.integers(0, 256, (50, 70, 3), dtype=np.uint8)
        raw_frame = random.integers(0, 256, nv12.nbytes, dtype=np.uint8)
        if i % 2:
            batch.fill([frame, raw_frame])
        else:
            batch.places[0].reshape(frame.shape)[:] = frame
            batch.places[1][:] = raw_frame
        graph.launch(setup.stream)
        expected = setup.on_cpu([frame, nv12.to_bgr(raw_frame), cut(frame, part.region)])
        np.testing.assert_array_equal(setup.result(3), expected)
    allocated = counts(["allocations"])["allocations"] - ever["allocations"]
    for height in range(1, 60):  # more geometries than are kept
        setup.check([random.integers(0, 256, (height, 33, 3), dtype=np.uint8)])
    graph.launch(setup.stream)
    np.testing.assert_array_equal(setup.result(3), expected)
    errors = [
        attempt(lambda: batch.fill([frame])),
        attempt(lambda: batch.fill([frame[1:], raw_frame])),
        attempt(lambda: batch.fill([frame, raw_frame.astype(np.int8)])),
    ]
    graph.close()
    batch.close()
    batch.close()
    setup.close()
    return {"allocated": allocated, "errors": errors, "end": counts()}


def refused():
    """What can't be used is said in one line, and the next batch works."""
    setup = Setup(max_batch=2)
    frame = np.zeros((20, 30, 3), np.uint8)
    nv12 = PixelLayout(PixelFormat.NV12, 40, 60, standard=ColorStandard.BT601_FULL)
    data = np.zeros(nv12.nbytes, np.uint8)

    def call(frames, regions=None):
        return attempt(lambda: setup.gpu(frames, regions, setup.output.pointer, setup.stream))

    def call_raw(sources, images):
        pointer = setup.output.pointer
        return attempt(lambda: setup.gpu.raw(sources, images, pointer, setup.stream))

    before = counts()
    errors = {
        "none": call([]),
        "too many": call([frame] * 3),
        "grey": call([frame[..., 0]]),
        "float": call([frame.astype(np.float32)]),
        "empty": call([frame[:0]]),
        "outside": call([frame], [(20, 0, 20, 5)]),
        "odd region": call([frame], [(1, 2, 3)]),
        "regions": call([frame], [None, None]),
        "short": call_raw([nv12], [data[:-1]]),
        "not bytes": call_raw([nv12], [data.astype(np.uint16)]),
        "sources": call_raw([nv12, nv12], [data]),
        "places": attempt(
            lambda: setup.gpu.prepare([nv12], setup.output.pointer, setup.stream, at=[1])
        ),
        "pointers": attempt(
            lambda: setup.gpu.on_device([nv12], [], setup.output.pointer, setup.stream)
        ),
        "batch size": attempt(lambda: CudaPreprocessor(setup.device, SMALL, 0)),
    }
    after = counts()
    setup.check([np.full((20, 30, 3), 7, np.uint8)])
    setup.gpu.close()
    setup.gpu.close()
    errors["closed"] = call([frame])
    setup.close()
    return {"errors": errors, "before": before, "after": after, "end": counts()}


def failing():
    """Each call of the driver in turn fails once: an error each time, nothing lost for good."""
    random = np.random.default_rng(4)
    device = Device()
    seen = {}
    for function, code in {
        "cuMemAlloc": 2,
        "cuMemHostAlloc": 2,
        "cuMemHostGetDevicePointer": 1,
        "cuModuleLoadData": 200,
        "cuModuleGetFunction": 500,
        "cuEventCreate": 2,
        "cuEventRecord": 400,
        "cuEventSynchronize": 400,
        "cuMemcpyHtoDAsync": 1,
        "cuLaunchKernel": 1,
        "cuStreamSynchronize": 400,
    }.items():
        for transfer in ("mapped", "staged"):
            seen[f"{function} {transfer}"] = _failing(device, transfer, function, code, random)
    left = counts()
    device.close()
    return {"seen": seen, "left": left, "end": counts()}


def _failing(device, transfer, function, code, random):
    failed = 0
    for calls_before in range(8):
        fail(function, code, calls_before, once=function != "cuMemAlloc")
        setups = []

        def work(setups=setups):
            setups.append(Setup(transfer=transfer, device=device, max_batch=2))
            for size in ((20, 30), (41, 90), (20, 30), (130, 190)):
                frames = [random.integers(0, 256, (*size, 3), dtype=np.uint8)] * 2
                setups[0].gpu(frames, None, setups[0].output.pointer, setups[0].stream)

        failed += attempt(work) is not None
        heal()
        for setup in setups:
            for size in ((20, 30), (41, 90)):  # seen before, by the staging memory that failed too
                setup.check([random.integers(0, 256, (*size, 3), dtype=np.uint8)] * 2)
            setup.check([random.integers(0, 256, (33, 21, 3), dtype=np.uint8)])
            setup.close()
    gc.collect()
    return failed


def lost(where, code):
    """The device breaks in the middle of a batch: said once it is waited for, closed quietly."""
    setup = Setup()
    frame = np.zeros((20, 30, 3), np.uint8)
    setup.check([frame])
    fail(where, int(code))
    errors = [
        attempt(lambda: setup.gpu([frame], None, setup.output.pointer, setup.stream)),
        attempt(setup.stream.synchronize),
        attempt(lambda: setup.gpu([frame], None, setup.output.pointer, setup.stream)),
        attempt(lambda: setup.gpu([frame], None, setup.output.pointer, setup.stream)),
        attempt(lambda: setup.gpu([frame], None, setup.output.pointer, setup.stream)),
    ]
    setup.close()
    assert driver().software_cuda_count(6) == 0
    return [error and error["kinds"][0] for error in errors]


def chosen_transfer():
    with Device() as device, CudaPreprocessor(device, SMALL, 1) as preprocessor:
        return preprocessor.transfer


def real_images(folder):
    """Photographs as a decoder gives them, through every filter."""
    from pathlib import Path

    from PIL import Image

    paths = sorted(Path(folder).rglob("*.jpg"))[:12]
    assert paths
    count = 0
    device = Device()
    for name in ("bilinear", "bicubic", "lanczos", "box"):
        setup = Setup(PreprocessSpec(Resize("squash", (224, 224), name)), 4, device=device)
        for start in range(0, len(paths), 4):
            batch = [
                np.array(Image.open(path).convert("RGB"))[..., ::-1]
                for path in paths[start : start + 4]
            ]
            setup.gpu(batch, None, setup.output.pointer, setup.stream)
            np.testing.assert_array_equal(setup.result(len(batch)), setup.on_cpu(batch))
            count += len(batch)
        setup.close()
    device.close()
    return {"images": count, "end": counts()}


if __name__ == "__main__":
    main(globals())
