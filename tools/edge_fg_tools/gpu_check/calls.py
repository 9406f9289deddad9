"""Times of whole calls: from frames in memory to outputs, from one or more threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final

from edge_fg.cuda import Stream
from edge_fg.errors import EdgeFGError
from edge_fg.preprocess import PreprocessSpec, presets
from edge_fg.preprocess.batch_factory import transfer_for
from edge_fg.preprocess.pixel_layout import PixelFormat
from edge_fg.preprocess.raw_frame import Pixels, RawFrame
from edge_fg_tools.gpu_check.cases import PRESET, full_hd_case
from edge_fg_tools.gpu_check.findings import Findings, percentile
from edge_fg_tools.gpu_check.settings import Settings
from edge_fg_tools.gpu_check.timing import host_step_us, measure_upload

HOST_STEPS: Final = 800
"""Steps of plain Python (`host_step_us`) that a frame may cost the host beyond the GPU's time.

The host's part is Python and the driver's calls, so it grows with the time that this CPU takes
for a step of Python: 60 us where a step takes 0.075 us, as on one core of a server (AMD EPYC)
with Python 3.11, and 150 us on a core that is 2.5 times slower.
"""
GRAPH_MARGIN: Final = 1.10
"""How much longer than the GPU's time a frame may take."""
_PERCENTS: Final = (50, 90, 99)
_WARM_UP: Final = 10

Infer = Callable[[Sequence[Pixels]], float]
"""Runs frames to their outputs; returns the milliseconds that the engine took on the GPU."""


@dataclass
class CallTimes:
    """Milliseconds of single calls, and the seconds that all of them took."""

    wall_ms: list[float] = field(default_factory=list)
    engine_ms: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def note(self, found: Findings, name: str, batch: int) -> None:
        """Note percentiles and the throughput."""
        found.spread(name, self.wall_ms, "ms", _PERCENTS)
        found.spread(f"{name} engine", self.engine_ms, "ms", (50,))
        rate = batch * len(self.wall_ms) / max(self.seconds, 1e-9)
        found.figure(f"{name} throughput", rate, "frames/s", 1)


def measure_calls(
    infer: Infer, frames: Sequence[Pixels], batch: int, threads: int, repeats: int
) -> CallTimes:
    """Call `infer` from some threads at once, each `repeats` times; raise what a call raises."""
    ready = threading.Barrier(threads)
    times = CallTimes()

    def work(number: int) -> float:
        turns = [
            [frames[(turn * batch + i + number) % len(frames)] for i in range(batch)]
            for turn in range(len(frames))
        ]
        try:
            for turn in range(_WARM_UP):
                infer(turns[turn % len(turns)])
            ready.wait()
        except EdgeFGError:
            ready.abort()
            raise
        started = time.perf_counter()
        for turn in range(repeats):
            before = time.perf_counter()
            times.engine_ms.append(infer(turns[turn % len(turns)]))
            times.wall_ms.append(1e3 * (time.perf_counter() - before))
        return time.perf_counter() - started

    with ThreadPoolExecutor(threads) as pool:
        working = [pool.submit(work, number) for number in range(threads)]
    # A thread that finds the barrier broken does not know why; another one does.
    working.sort(key=lambda one: isinstance(one.exception(), threading.BrokenBarrierError))
    times.seconds = max(one.result() for one in working)
    return times


def measure_kinds(
    found: Findings,
    spec: PreprocessSpec,
    stream: Stream,
    opened: Callable[[bool], AbstractContextManager[Infer]],
    batches: Sequence[int],
    *,
    judge_whole: bool,
) -> None:
    """Measure full-HD frames, BGR and NV12, in batches, with CUDA graphs and without.

    Preprocessing with `spec` is measured by itself first. `opened` opens what is called, and is
    told whether it uses CUDA graphs. What single frames with CUDA graphs cost the host is judged,
    and their whole time too (`judge_whole`) where the engine takes time on the GPU.
    """
    settings = found.settings
    step_us = host_step_us()
    found.figure("one step of Python", step_us, "us", 4)
    for kind in (PixelFormat.BGR, PixelFormat.NV12):
        case = full_hd_case(spec, kind, 1, settings.seed)
        uploads_us, fill_us = measure_upload(stream, case, transfer_for(stream.device), settings)
        preprocess_us = percentile(uploads_us, 50)
        found.figure(f"{kind.value} x1 preprocessing on the GPU p50", preprocess_us, "us", 1)
        found.figure(f"{kind.value} x1 host's copy of the frame", fill_us, "us", 1)
        frames = full_hd_frames(kind, max(batches), settings)
        for cuda_graph in (False, True):
            with opened(cuda_graph) as infer:
                for batch in batches:
                    name = f"{kind.value} {'graph' if cuda_graph else 'no graph'} x{batch}"
                    times = measure_calls(infer, frames, batch, 1, settings.repeats)
                    times.note(found, name, batch)
                    if batch > 1:
                        continue
                    gpu_us = preprocess_us + 1e3 * percentile(times.engine_ms, 50)
                    wall_us = 1e3 * percentile(times.wall_ms, 50)
                    host = f"{name} host,"
                    found.figure(f"{host} all that it does", wall_us - gpu_us, "us", 1)
                    # The copy takes what 6 MB take at the rate of the host's memory, however
                    # work is launched: it is left out of the targets.
                    wall_us -= fill_us
                    found.figure(f"{host} less its copy of the frame", wall_us - gpu_us, "us", 1)
                    if cuda_graph:
                        _judge_host(found, kind, wall_us - gpu_us, HOST_STEPS * step_us, fill_us)
                    if cuda_graph and judge_whole:
                        _judge_whole(found, kind, wall_us, gpu_us)


def _judge_host(
    found: Findings, kind: PixelFormat, host_us: float, allowed_us: float, fill_us: float
) -> None:
    found.target(
        f"{kind.value}: host overhead of a frame, CUDA graphs, p50, less its copy",
        f"<= {allowed_us:.0f} us ({HOST_STEPS} steps of Python here)",
        f"{host_us:.1f} us (the copy: {fill_us:.1f} us)",
        host_us <= allowed_us,
        timed=True,
    )


def _judge_whole(found: Findings, kind: PixelFormat, wall_us: float, gpu_us: float) -> None:
    found.target(
        f"{kind.value}: a frame, CUDA graphs, p50, less its copy, against the GPU's time",
        f"<= {100 * GRAPH_MARGIN - 100:.0f} % above",
        f"{100 * wall_us / gpu_us - 100:+.1f} % ({wall_us:.1f} us, {gpu_us:.1f} us)",
        wall_us <= GRAPH_MARGIN * gpu_us,
        timed=True,
    )


def full_hd_frames(kind: PixelFormat, count: int, settings: Settings) -> list[Pixels]:
    """Return different full-HD frames; a camera's are raw ones."""
    case = full_hd_case(presets()[PRESET], kind, count, settings.seed)
    raw = [RawFrame(frame, source) for frame, source in zip(case.data, case.sources, strict=True)]
    return [frame.to_bgr() for frame in raw] if kind is PixelFormat.BGR else [*raw]
