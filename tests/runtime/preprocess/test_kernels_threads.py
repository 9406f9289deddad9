"""The kernels with a real thread for each of a GPU's: no race, and the same bits."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edge_fg.backends.base import cut
from edge_fg.preprocess import CpuPreprocessor, PreprocessSpec, Resize, kernels
from edge_fg.preprocess.launch import SAMPLE, LaunchPlan, LaunchPlanner
from edge_fg.preprocess.pixel_layout import PixelFormat, PixelLayout
from edge_fg.preprocess.yuv import ColorStandard
from support import compiled

PROGRAM = Path(__file__).with_name("kernels_threads.cpp")


@pytest.fixture(scope="module")
def compiler() -> str:
    found = compiled.compiler("g++")
    answer = subprocess.run(
        [found, "-print-file-name=libtsan.so"], capture_output=True, text=True, check=True
    )
    if not Path(answer.stdout.strip()).is_absolute():
        pytest.skip("the C++ compiler has no thread sanitizer")
    return found


def build(compiler: str, sources: Path) -> Path:
    command = [compiler, "-std=c++17", "-O1", "-g", "-fsanitize=thread", "-Wno-unknown-pragmas"]

    def link(folder: Path) -> None:
        program = ["-o", str(folder / PROGRAM.stem)]
        subprocess.run([*command, f"-I{sources}", str(PROGRAM), *program, "-lpthread"], check=True)

    return compiled.kept("threads", [*command, PROGRAM, sources], link) / PROGRAM.stem


def write_input(path: Path, plan: LaunchPlan, frames: list[np.ndarray]) -> None:
    offsets = np.cumsum([0, *(frame.size for frame in frames)])
    samples = plan.descriptors([int(offset) for offset in offsets[:-1]])
    counts = [len(frames), plan.tables.nbytes, plan.scratch_bytes]
    counts += [int(np.prod(plan.shape)) * plan.dtype.itemsize, int(offsets[-1])]
    launches = []
    for launch in plan.launches:
        bits = 0 if launch.kernel == "resample_across" else int(launch.kernel.split("_")[-1])
        launches.append([bits, *launch.grid])
    assert samples.nbytes == len(frames) * SAMPLE.itemsize
    parts = [np.array([*counts, len(launches)], np.int64), samples, plan.tables, *frames]
    path.write_bytes(b"".join(part.tobytes() for part in [*parts, np.array(launches, np.int32)]))


def run(program: Path, folder: Path, plan: LaunchPlan, frames: list[np.ndarray]):
    source, target = folder / "in.bin", folder / "out.bin"
    write_input(source, plan, frames)
    result = subprocess.run(
        [program, source, target],
        capture_output=True,
        text=True,
        check=False,
        env={"TSAN_OPTIONS": "halt_on_error=1"},
    )
    if "unexpected memory mapping" in result.stderr:
        pytest.skip("this kernel lays memory out as the thread sanitizer doesn't know")
    return result, target


def sources() -> list[PixelLayout]:
    standard = ColorStandard.BT709_LIMITED
    return [
        PixelLayout(PixelFormat.BGR, 30, 700, region=(1, 2, 690, 25)),
        PixelLayout(PixelFormat.NV12, 33, 45, standard=standard, region=(5, 3, 39, 29)),
        PixelLayout(PixelFormat.YUYV, 20, 31, standard=standard),
        PixelLayout(PixelFormat.GRAY, 9, 600),
    ]


SPEC = PreprocessSpec(
    Resize("letterbox", (21, 40), "bicubic"), mean=(120, 110, 100), std=(58, 57, 56)
)


@pytest.mark.slow
def test_no_two_threads_race_and_the_bits_are_the_references(compiler, tmp_path: Path):
    program = build(compiler, kernels.FOLDER)
    rng = np.random.default_rng(0)
    wanted = sources()
    frames = [rng.integers(0, 256, source.nbytes, dtype=np.uint8) for source in wanted]
    plan = LaunchPlanner(SPEC).plan(wanted)
    result, target = run(program, tmp_path, plan, frames)
    assert result.returncode == 0, result.stderr[:3000]
    tensor = np.fromfile(target, plan.dtype).reshape(plan.shape)
    images = [cut(s.to_bgr(frame), s.region) for s, frame in zip(wanted, frames, strict=True)]
    np.testing.assert_array_equal(tensor, CpuPreprocessor(SPEC)(images))


@pytest.mark.slow
def test_without_barriers_the_race_would_be_seen(compiler, tmp_path: Path):
    copied = tmp_path / "sources"
    copied.mkdir()
    for name in kernels.SOURCES:
        shutil.copy(kernels.FOLDER / name, copied / name)
    threads = copied / "threads.h"
    text = threads.read_text()
    assert "} __syncthreads();" in text
    threads.write_text(text.replace("} __syncthreads();", "}"))
    program = build(compiler, copied)
    wanted = sources()
    frames = [np.zeros(source.nbytes, np.uint8) for source in wanted]
    result, _ = run(program, tmp_path, LaunchPlanner(SPEC).plan(wanted), frames)
    assert result.returncode != 0
    assert "data race" in result.stderr
