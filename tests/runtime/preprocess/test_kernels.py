"""The CUDA kernels' source, compiled for the processor: the same bits as Pillow's."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_fg.backends.base import cut
from edge_fg.preprocess import CpuPreprocessor, PreprocessSpec, Resize, presets
from edge_fg.preprocess.launch import LaunchPlanner
from edge_fg.preprocess.pixel_layout import PixelFormat, PixelLayout
from edge_fg.preprocess.yuv import ColorStandard
from edge_fg_tools.kernels.cpu_form import CpuForm
from support import compiled
from support.properties import examples

FILTERS = ["bilinear", "bicubic", "lanczos", "box"]
MODES = ["squash", "shortest-side+center-crop", "letterbox"]
FORMATS = list(PixelFormat)
YUV = {PixelFormat.NV12, PixelFormat.YUYV, PixelFormat.I420}
# 4 filters x 3 modes x 6 formats x these = 3,024 images.
LAUNCHES, BATCH = 7, 6


@pytest.fixture(scope="module")
def cpu_form() -> CpuForm:
    return CpuForm(compiled.cpu_form())


def random_spec(rng: np.random.Generator, name: str, mode: str, longest: int) -> PreprocessSpec:
    height, width = (int(side) for side in rng.integers(1, longest, 2))
    crop = None
    if mode == "shortest-side+center-crop" or rng.random() < 0.3:
        limits = (height, height) if mode == "shortest-side+center-crop" else (height, width)
        crop = tuple(int(rng.integers(1, limit + 1)) for limit in limits)
    size = height if mode == "shortest-side+center-crop" else (height, width)
    dtype = str(rng.choice(["float32", "float16", "uint8"]))
    values = {} if dtype == "uint8" else {"mean": (120.5, 110.25, 99.0), "std": (58.4, 57.1, 61.0)}
    resize = Resize(
        mode, size, name, antialias=bool(rng.random() < 0.75), fill=int(rng.integers(0, 256))
    )
    color, layout = str(rng.choice(["rgb", "bgr"])), str(rng.choice(["nchw", "nhwc"]))
    return PreprocessSpec(resize, crop=crop, color=color, layout=layout, dtype=dtype, **values)


def random_source(rng: np.random.Generator, kind: PixelFormat, longest: int) -> PixelLayout:
    height, width = (int(side) for side in rng.integers(1, longest, 2))
    standard = ColorStandard(rng.choice([s.value for s in ColorStandard])) if kind in YUV else None
    tight = PixelLayout(kind, height, width, standard=standard)
    pitch = None if rng.random() < 0.5 else tight.row_bytes + int(rng.integers(0, 20))
    region = None
    if rng.random() < 0.7:
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        region = (x, y, int(rng.integers(1, width - x + 1)), int(rng.integers(1, height - y + 1)))
    return PixelLayout(kind, height, width, pitch, standard, region)


class GuardedFrames:
    """Random frames, each ending where unreadable memory begins: reading beyond is a crash.

    At the other end a page is unreadable too; `slack` bytes lie between it and the frame, as
    many as the alignment asks for.
    """

    PAGE = mmap.PAGESIZE

    def __init__(self) -> None:
        self._maps: list[mmap.mmap] = []
        self._protect = ctypes.CDLL(None, use_errno=True).mprotect

    def place(self, rng: np.random.Generator, source: PixelLayout, at_start: bool) -> np.ndarray:
        pages = -(-source.nbytes // self.PAGE) + 2
        memory = mmap.mmap(-1, pages * self.PAGE)
        whole = np.frombuffer(memory, np.uint8)
        for page in (0, pages - 1):
            address = ctypes.c_void_p(whole.ctypes.data + page * self.PAGE)
            assert self._protect(address, ctypes.c_size_t(self.PAGE), 0) == 0
        end = (pages - 1) * self.PAGE
        start = self.PAGE if at_start else end - source.nbytes
        frame = whole[start : start + source.nbytes]
        frame[:] = rng.integers(0, 256, source.nbytes, dtype=np.uint8)
        self._maps.append(memory)
        return frame


def random_frame(rng: np.random.Generator, source: PixelLayout) -> np.ndarray:
    """Bytes at an address of any alignment."""
    skip = int(rng.integers(0, 4))
    frame = rng.integers(0, 256, source.nbytes + skip, dtype=np.uint8)[skip:]
    if rng.random() < 0.2:  # extremes, where rounding and limits show
        frame[:] = np.where(frame < 128, 0, 255)
    return frame


def expected_tensor(spec: PreprocessSpec, sources: list[PixelLayout], frames: list[np.ndarray]):
    images = [
        cut(source.to_bgr(frame), source.region)
        for source, frame in zip(sources, frames, strict=True)
    ]
    return CpuPreprocessor(spec)(images)


def check(cpu_form: CpuForm, spec: PreprocessSpec, sources: list[PixelLayout], frames) -> None:
    plan = LaunchPlanner(spec).plan(sources)
    tensor = cpu_form.run(plan, [frame.ctypes.data for frame in frames])
    expected = expected_tensor(spec, sources, frames)
    assert tensor.dtype == expected.dtype
    np.testing.assert_array_equal(tensor, expected, err_msg=f"{spec} {sources}")


@pytest.mark.parametrize("kind", FORMATS, ids=[kind.value for kind in FORMATS])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FILTERS)
def test_batches_of_random_regions_equal_the_reference(cpu_form, name, mode, kind):
    seed = [FILTERS.index(name), MODES.index(mode), FORMATS.index(kind)]
    rng = np.random.default_rng(seed)
    for _ in range(LAUNCHES):
        spec = random_spec(rng, name, mode, 48)
        sources = [random_source(rng, kind, 64) for _ in range(BATCH)]
        check(cpu_form, spec, sources, [random_frame(rng, source) for source in sources])


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FILTERS)
def test_larger_frames_equal_the_reference(cpu_form, name, mode):
    rng = np.random.default_rng([FILTERS.index(name), MODES.index(mode), 99])
    for _ in range(20):
        spec = random_spec(rng, name, mode, 300)
        sources = [random_source(rng, FORMATS[i % 6], 1500) for i in range(6)]
        check(cpu_form, spec, sources, [random_frame(rng, source) for source in sources])


sides = st.integers(1, 70)


@examples(150)
@given(sides, sides, sides, sides, st.sampled_from(FILTERS), st.integers(0, 1000))
def test_the_pixels_are_pillows(cpu_form, height, width, out_height, out_width, name, seed):
    frame = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    kernel = getattr(Image.Resampling, name.upper())
    across = Image.fromarray(frame).resize((out_width, height), kernel)
    expected = np.asarray(across.resize((out_width, out_height), kernel))
    size = Resize("squash", (out_height, out_width), name)
    spec = PreprocessSpec(size, color="rgb", layout="nhwc", dtype="uint8")
    plan = LaunchPlanner(spec).plan([PixelLayout(PixelFormat.RGB, height, width)])
    tensor = cpu_form.run(plan, [frame.ctypes.data])
    np.testing.assert_array_equal(tensor[0], expected)


@examples(100)
@given(st.data(), st.integers(0, 10_000))
def test_any_mixture_of_formats_equals_the_reference(cpu_form, data, seed):
    rng = np.random.default_rng(seed)
    spec = random_spec(
        rng, data.draw(st.sampled_from(FILTERS)), data.draw(st.sampled_from(MODES)), 40
    )
    kinds = data.draw(st.lists(st.sampled_from(FORMATS), min_size=1, max_size=5))
    sources = [random_source(rng, kind, 50) for kind in kinds]
    check(cpu_form, spec, sources, [random_frame(rng, source) for source in sources])


@pytest.mark.parametrize("preset", sorted(presets()))
@pytest.mark.parametrize("kind", ["bgr", "nv12", "yuyv", "i420"])
def test_full_hd_through_the_presets(cpu_form, preset, kind):
    kind = PixelFormat(kind)
    standard = ColorStandard.BT709_LIMITED if kind in YUV else None
    source = PixelLayout(kind, 1080, 1920, standard=standard, pitch=8192)
    frame = np.random.default_rng(5).integers(0, 256, source.nbytes, dtype=np.uint8)
    check(cpu_form, presets()[preset], [source], [frame])


def test_strong_shrinking_reads_a_row_in_several_chunks(cpu_form):
    rng = np.random.default_rng(8)
    for name, antialias in itertools.product(FILTERS, [True, False]):
        spec = PreprocessSpec(Resize("squash", (3, 5), name, antialias=antialias))
        source = PixelLayout(PixelFormat.BGR, 40, 5000, region=(3, 1, 4990, 38))
        check(cpu_form, spec, [source], [random_frame(rng, source)])


def test_regions_of_one_frame_in_one_launch(cpu_form):
    rng = np.random.default_rng(9)
    regions = [(5, 7, 31, 20), (0, 0, 101, 77), (100, 76, 1, 1), (33, 2, 8, 75)]
    sources = [
        PixelLayout(PixelFormat.NV12, 77, 101, standard=ColorStandard.BT601_LIMITED, region=region)
        for region in regions
    ]
    frame = random_frame(rng, sources[0])
    check(cpu_form, presets()["timm"], sources, [frame] * len(sources))


def test_a_region_that_starts_at_an_odd_pixel_keeps_its_own_chroma(cpu_form):
    standard = ColorStandard.BT601_FULL
    luma = np.full((4, 4), 128, np.uint8)
    # The left and right 2 x 4 pixels differ in chroma only.
    chroma = np.array([[[0, 128], [255, 128]]] * 2, np.uint8)
    frame = np.concatenate([luma.ravel(), chroma.ravel()])
    spec = PreprocessSpec(Resize("squash", (2, 2)), color="bgr", layout="nhwc", dtype="uint8")
    source = PixelLayout(PixelFormat.NV12, 4, 4, standard=standard, region=(1, 1, 2, 2))
    tensor = cpu_form.run(LaunchPlanner(spec).plan([source]), [frame.ctypes.data])
    assert (tensor[0, :, 0, 0] == 0).all()
    assert (tensor[0, :, 1, 0] == 255).all()


@pytest.mark.parametrize("at_start", [True, False], ids=["first byte", "last byte"])
@pytest.mark.parametrize("kind", FORMATS, ids=[kind.value for kind in FORMATS])
def test_nothing_beyond_the_frame_is_read(cpu_form, kind, at_start):
    rng = np.random.default_rng(11)
    frames = GuardedFrames()
    for _ in range(12):
        spec = random_spec(rng, "bicubic", "squash", 20)
        source = random_source(rng, kind, 60)
        check(cpu_form, spec, [source], [frames.place(rng, source, at_start)])


def test_nothing_beyond_the_output_and_the_scratch_is_written(cpu_form):
    rng = np.random.default_rng(12)
    for dtype, layout in itertools.product(["uint8", "float16", "float32"], ["nchw", "nhwc"]):
        spec = PreprocessSpec(Resize("letterbox", (37, 45)), layout=layout, dtype=dtype)
        sources = [random_source(rng, PixelFormat.GRAY, 90) for _ in range(3)]
        frames = [random_frame(rng, source) for source in sources]
        plan = LaunchPlanner(spec).plan(sources)
        scratch = np.full(plan.scratch_bytes + 64, 0xA5, np.uint8)
        count = int(np.prod(plan.shape))
        output = np.full(count + 64, 77, plan.dtype)
        pointers = [frame.ctypes.data for frame in frames]
        cpu_form.launch(plan, pointers, scratch, output)
        expected = expected_tensor(spec, sources, frames).ravel()
        np.testing.assert_array_equal(output[:count], expected)
        assert (output[count:] == 77).all()
        assert (scratch[plan.scratch_bytes :] == 0xA5).all()


def test_real_photographs_equal_pillow(cpu_form, data_dir: Path):
    photographs = sorted((data_dir).rglob("*.jpg"))[:12]
    if not photographs:
        pytest.skip("no photographs in the data folder")
    images = []
    for path in photographs:
        with Image.open(path) as opened:
            images.append(np.ascontiguousarray(np.asarray(opened.convert("RGB"))[..., ::-1]))
    sources = [PixelLayout(PixelFormat.BGR, *image.shape[:2]) for image in images]
    for name in ("timm", "torchvision", "keras-tf"):
        spec = presets()[name]
        plan = LaunchPlanner(spec).plan(sources)
        tensor = cpu_form.run(plan, [image.ctypes.data for image in images])
        np.testing.assert_array_equal(tensor, CpuPreprocessor(spec)(images))


SANITIZERS = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
ADDRESS_CHECKED = """
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(sys.argv[2]).parent))
import test_kernels as here

form = here.CpuForm(Path(sys.argv[1]))
rng = np.random.default_rng(13)
for i in range(240):
    kind = here.FORMATS[i % 6]
    spec = here.random_spec(rng, here.FILTERS[i % 4], here.MODES[i % 3], 24)
    sources = [here.random_source(rng, kind, 40) for _ in range(2)]
    frames = [rng.integers(0, 256, source.nbytes, dtype=np.uint8) for source in sources]
    plan = here.LaunchPlanner(spec).plan(sources)
    # From malloc, each with forbidden bytes right behind it.
    form.run(plan, [frame.ctypes.data for frame in frames])
print("read nothing beyond")
"""


@pytest.mark.slow
def test_no_byte_beyond_any_array_is_touched():
    """Under the address sanitizer, which sees what guard pages can't: aligned words.

    And under the one for undefined behaviour: overflowing sums, shifts, misaligned words.
    """
    compiler = compiled.compiler("g++")
    found = subprocess.run(
        [compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    )
    if not Path(found.stdout.strip()).is_absolute():
        pytest.skip("the C++ compiler has no address sanitizer")
    library = compiled.cpu_form(SANITIZERS)
    result = subprocess.run(
        [sys.executable, "-c", ADDRESS_CHECKED, str(library), __file__],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "LD_PRELOAD": found.stdout.strip(),
            "ASAN_OPTIONS": "detect_leaks=0",
            "PYTHONMALLOC": "malloc",
            "PYTHONPATH": str(Path(compiled.__file__).parents[1]),
        },
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.strip() == "read nothing beyond"
