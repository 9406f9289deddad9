"""The kernels compiled for the processor against Pillow and NumPy, in one run.

::

    python tools/benchmarks/preprocessing.py [--rounds 15]

Both ways take turns on the same frames, on one thread, and ours is compared with the reference
before any time is taken. What counts is the thread's processor time, which other programs disturb
least. For NV12 frames the other way is OpenCV's conversion and then Pillow.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from common import in_turns, parser_of, table
from numpy.typing import NDArray

from edge_fg.preprocess import CpuPreprocessor, presets
from edge_fg.preprocess.launch import LaunchPlanner
from edge_fg.preprocess.pixel_layout import PixelFormat, PixelLayout
from edge_fg.preprocess.yuv import ColorStandard
from edge_fg_tools.kernels.cpu_form import CpuForm, compile_cpu_form

SIZES = ((1080, 1920), (2160, 3840), (480, 640))
PRESETS = ("torchvision", "timm", "clip", "keras-tf")


def main() -> None:
    """Measure and print a Markdown table."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    columns = ("frame", "preset", "Pillow + NumPy (ms)", "kernels on the CPU (ms)", "ratio")
    with tempfile.TemporaryDirectory() as folder:
        form = CpuForm(compile_cpu_form(Path(folder)))
        cases = [(PixelFormat.BGR, *size, preset) for size in SIZES for preset in PRESETS]
        cases.append((PixelFormat.NV12, 1080, 1920, "torchvision"))
        print(table(columns, (_measure(form, *case, rounds) for case in cases)))
        _measure_plans(rounds)


def _measure(
    form: CpuForm, kind: PixelFormat, height: int, width: int, preset: str, rounds: int
) -> tuple[str, ...]:
    spec = presets()[preset]
    standard = ColorStandard.BT601_LIMITED if kind is PixelFormat.NV12 else None
    source = PixelLayout(kind, height, width, standard=standard)
    frame = np.random.default_rng(0).integers(0, 256, source.nbytes, dtype=np.uint8)
    reference = CpuPreprocessor(spec)
    plan = LaunchPlanner(spec).plan([source])
    output = np.empty(plan.shape, plan.dtype)
    scratch = np.empty(plan.scratch_bytes, np.uint8)

    def ours() -> None:
        form.launch(plan, [frame.ctypes.data], scratch, output)

    other = _other_way(source, frame, reference)
    ours()
    expected = reference([source.to_bgr(frame)])
    if not np.array_equal(output, expected):
        raise SystemExit(f"{kind.value} {preset}: the kernels differ from Pillow")
    theirs_ms, ours_ms = _medians({"other": other, "ours": ours}, rounds)
    times = (f"{theirs_ms:.2f}", f"{ours_ms:.2f}", f"{theirs_ms / ours_ms:.2f}")
    return (f"{width} x {height} {kind.value}", preset, *times)


def _other_way(
    source: PixelLayout, frame: NDArray[np.uint8], reference: CpuPreprocessor
) -> Callable[[], Any]:
    if source.format is PixelFormat.BGR:
        image = source.to_bgr(frame)
        return lambda: reference([image])
    import cv2

    cv2.setNumThreads(1)
    planes = frame.reshape(-1, source.width)
    return lambda: reference([cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_NV12)])


def _medians(ways: Mapping[str, Callable[[], object]], rounds: int) -> list[float]:
    """Return the median of each in milliseconds of processor time."""
    times = in_turns(ways, rounds, time.thread_time)
    return [1e3 * statistics.median(one for (one,) in taken) for taken in times.values()]


def _measure_plans(rounds: int) -> None:
    """Print what a batch costs the host before anything is launched."""
    planner = LaunchPlanner(presets()["torchvision"])
    source = PixelLayout(PixelFormat.BGR, 1080, 1920)
    plan = planner.plan([source])
    target = np.empty(plan.descriptor_bytes, np.uint8)
    sides = iter(range(300, 300 + rounds))

    def known() -> None:
        planner.plan([source]).descriptors([4096], target)

    def new() -> None:
        planner.plan([PixelLayout(PixelFormat.BGR, 1080, 1920, region=(1, 1, next(sides), 200))])

    (known_ms,) = _medians({"known": known}, 100 * rounds)
    (new_ms,) = _medians({"new": new}, rounds)
    print(f"\nplan and descriptors of a known geometry: {known_ms * 1e3:.1f} us")
    print(f"plan of a region of a new size: {new_ms * 1e3:.0f} us")


if __name__ == "__main__":
    main()
