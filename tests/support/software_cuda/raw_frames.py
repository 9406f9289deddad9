"""Raw frames on the software CUDA driver against Pillow on their pixels; see ordering.py."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
from ordering import attempt, counts, main
from preprocessing import YUV, Setup, random_frame, random_region, random_spec

from edge_fg.backends.base import cut
from edge_fg.backends.tensorrt.engine_context import Binding
from edge_fg.backends.tensorrt.execution_slot import ExecutionSlot
from edge_fg.cuda import Device
from edge_fg.preprocess.pixel_layout import PixelFormat, PixelLayout
from edge_fg.preprocess.raw_frame import RawFrame
from edge_fg.preprocess.yuv import ColorStandard


def converted(frame):
    """The frame as BGR by the oracle; on the way to the GPU nothing may convert it."""
    return frame.layout.to_bgr(frame.data) if isinstance(frame, RawFrame) else frame


def forbidden(self):
    raise AssertionError("a raw frame was converted on the host")


RawFrame.to_bgr = forbidden


def random_raw(random, longest=90):
    kind = PixelFormat(str(random.choice([one.value for one in PixelFormat])))
    height, width = (int(side) for side in random.integers(1, longest, 2))
    standards = [one.value for one in ColorStandard]
    standard = ColorStandard(str(random.choice(standards))) if kind in YUV else None
    layout = PixelLayout(kind, height, width, standard=standard)
    if random.random() < 0.5:
        layout = replace(layout, pitch=layout.row_bytes + int(random.integers(0, 20)))
    if kind is PixelFormat.I420 and random.random() < 0.5:  # YV12
        layout = replace(layout, chroma_offsets=layout.chroma_planes[::-1])
    spare = int(random.integers(0, 5))
    return RawFrame(random.integers(0, 256, layout.nbytes + spare, dtype=np.uint8), layout)


def expected(setup, frames, regions):
    every = [None] * len(frames) if regions is None else regions
    pairs = zip(frames, every, strict=True)
    return setup.on_cpu([cut(converted(frame), region) for frame, region in pairs])


class Identity:
    """An engine whose output is its input; what an execution slot asks of one."""

    captures_itself, fixed_batch = False, None

    def __init__(self, setup):
        self.device, self.max_batch = setup.device, setup.gpu.max_batch
        shape = (-1, *setup.spec.tensor_shape)
        self.input = Binding("image", np.dtype(setup.spec.dtype), shape)
        self.outputs = (Binding("tensor", np.dtype(setup.spec.dtype), shape),)

    def new_context(self):
        return IdentityContext(self.input)


class IdentityContext:
    def __init__(self, binding):
        self.binding = binding

    def bind(self, addresses, stream):
        self.source, self.target = addresses["image"], addresses["tensor"]

    def set_batch(self, batch):
        self.nbytes = self.binding.nbytes(batch)

    def enqueue(self, stream):
        stream.device.pycuda.memcpy_dtod_async(self.target, self.source, self.nbytes, stream.pycuda)

    def close(self):
        pass


def identity_slot(setup):
    lock = threading.Lock()
    return ExecutionSlot(Identity(setup), setup.gpu, cuda_graph=True, sleep=False, setting_up=lock)


def close(slot):
    slot.close_execution()
    slot.close_memory()


def growing(transfer):
    """Larger frames move the staging memory: what was captured before is captured again."""
    setup = Setup(transfer=transfer)
    slot = identity_slot(setup)
    random = np.random.default_rng(12)
    launched = []
    for size in [(20, 30)] * 5 + [(300, 400)] * 2 + [(20, 30)] * 4 + [(300, 400)] * 4:
        frame = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        before = counts(["allocations"])["allocations"]
        found = slot.run([frame], [None])[0]["tensor"]
        launched.append(counts(["allocations"])["allocations"] - before)
        np.testing.assert_array_equal(found, setup.on_cpu([frame]))
    alive = counts()["graphs"]
    close(slot)
    setup.close()
    return {"graphs": alive, "allocated": launched, "end": counts()}


def mixed(seed, specs="25", calls="5"):
    """Raw and BGR frames in one batch: random layouts, regions, and frames that come twice."""
    random = np.random.default_rng(int(seed))
    images = 0
    device = Device()
    for _ in range(int(specs)):
        transfer = str(random.choice(["mapped", "staged"]))
        setup = Setup(random_spec(random), transfer=transfer, device=device)
        for _ in range(int(calls)):
            batch = [
                random_raw(random) if random.random() < 0.7 else random_frame(random)
                for _ in range(int(random.integers(1, 9)))
            ]
            if random.random() < 0.5:
                batch = [batch[i] for i in random.integers(0, len(batch), len(batch))]
            sizes = [converted(frame).shape[:2] for frame in batch]
            regions = [random_region(random, *size) for size in sizes]
            if random.random() < 0.2:
                regions = None
            wanted = expected(setup, batch, regions)
            setup.gpu(batch, regions, setup.output.pointer, setup.stream)
            for frame in batch:  # ours again as soon as the call returns
                (frame.data if isinstance(frame, RawFrame) else frame)[:] = 99
            np.testing.assert_array_equal(setup.result(len(batch)), wanted)
            images += len(batch)
        setup.close()
    device.close()
    return {"images": images, "end": counts()}


def graphs(transfer):
    """What comes again and again is captured, each layout of a size by itself."""
    setup = Setup(transfer=transfer)
    random = np.random.default_rng(8)
    standard = ColorStandard.BT601_FULL
    nv12 = PixelLayout(PixelFormat.NV12, 41, 67, standard=standard)
    i420 = PixelLayout(PixelFormat.I420, 41, 67, standard=standard)
    yuyv = PixelLayout(PixelFormat.YUYV, 41, 67, standard=ColorStandard.BT709_LIMITED)
    kinds = [
        ((nv12, None),),
        ((i420, None),),
        (((41, 67), None), (yuyv, (3, 5, 20, 11))),
        ((replace(nv12, standard=ColorStandard.BT709_FULL), (4, 6, 21, 13)),),
    ]
    slot = identity_slot(setup)
    launched = []
    for turn in range(40):
        chosen = kinds[turn % len(kinds)]
        frames, regions = [], []
        for what, region in chosen:
            if isinstance(what, PixelLayout):
                data = random.integers(0, 256, what.nbytes, dtype=np.uint8)
                frames.append(RawFrame(data, what))
            else:
                frames.append(random.integers(0, 256, (*what, 3), dtype=np.uint8))
            if region is not None:  # it moves: by whole pairs of pixels it stays one geometry
                region = (region[0] + turn // 4 % 3 * 2, region[1] + turn // 4 % 5 * 2, *region[2:])
            regions.append(region)
        wanted = expected(setup, frames, regions)
        before = counts(["allocations"])["allocations"]
        np.testing.assert_array_equal(slot.run(frames, regions)[0]["tensor"], wanted)
        launched.append(counts(["allocations"])["allocations"] - before)
    alive = counts()["graphs"]
    close(slot)
    setup.close()
    return {"graphs": alive, "allocated late": sum(launched[16:]), "end": counts()}


def moving():
    """A region that moves over a raw frame makes four geometries, however far it goes."""
    setup = Setup(transfer="staged")
    random = np.random.default_rng(9)
    layout = PixelLayout(PixelFormat.NV12, 90, 120, standard=ColorStandard.BT601_LIMITED)
    allocated = []
    for turn in range(60):
        frame = RawFrame(random.integers(0, 256, layout.nbytes, dtype=np.uint8), layout)
        regions = [(int(random.integers(0, 80)), int(random.integers(0, 60)), 40, 30)]
        if turn < 4:
            regions = [(10 + turn % 2, 20 + turn // 2, 40, 30)]
        wanted = expected(setup, [frame], regions)
        before = counts(["allocations"])["allocations"]
        setup.gpu([frame], regions, setup.output.pointer, setup.stream)
        np.testing.assert_array_equal(setup.result(1), wanted)
        allocated.append(counts(["allocations"])["allocations"] - before)
    setup.close()
    return {"first four": sum(allocated[:4]), "later": sum(allocated[4:])}


def lying():
    """A frame whose bytes are gone is refused, on the usual way and on the captured one."""
    setup = Setup()
    slot = identity_slot(setup)
    layout = PixelLayout(PixelFormat.NV12, 40, 60, standard=ColorStandard.BT601_FULL)

    def honest():
        return RawFrame(np.full(layout.nbytes, 77, np.uint8), layout)

    def liar():
        frame = honest()
        frame.data.resize((layout.nbytes - 1,), refcheck=False)
        return frame

    def usual(frame, region):
        return attempt(lambda: setup.gpu([frame], [region], setup.output.pointer, setup.stream))

    def captured(frame, region):
        return attempt(lambda: slot.run([frame], [region]))

    errors = []
    for region in (None, (1, 1, 30, 20)):
        errors.append(usual(liar(), region))
        assert not any(captured(honest(), region) for _ in range(5))
        errors.append(captured(liar(), region))
        frame = honest()
        found = slot.run([frame], [region])[0]["tensor"]
        np.testing.assert_array_equal(found, expected(setup, [frame], [region]))
    outside = (40, 0, 21, 5)
    errors += [usual(honest(), outside), captured(honest(), outside)]
    prepared = counts()["graphs"]
    close(slot)
    setup.close()
    return {"errors": errors, "graphs": prepared, "end": counts()}


if __name__ == "__main__":
    main(globals())
