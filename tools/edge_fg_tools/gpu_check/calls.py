"""Times of whole calls: from frames in memory to outputs, from one or more threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final, NamedTuple

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
    """Call `infer` from some threads at once, each `repeats` times, and measure the times.

    Raises
    ------
    EdgeFGError
        What a call failed with, in any of the threads.
    """
    ready = threading.Barrier(threads)

    def work(number: int) -> CallTimes:
        turns = [
            [frames[(turn * batch + i + number) % len(frames)] for i in range(batch)]
            for turn in range(len(frames))
        ]
        times = CallTimes()
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
        times.seconds = time.perf_counter() - started
        return times

    with ThreadPoolExecutor(threads) as pool:
        working = [pool.submit(work, number) for number in range(threads)]
    # A thread that finds the barrier broken does not know why; another one does.
    working.sort(key=lambda one: isinstance(one.exception(), threading.BrokenBarrierError))
    found = [one.result() for one in working]
    return CallTimes(
        [ms for times in found for ms in times.wall_ms],
        [ms for times in found for ms in times.engine_ms],
        max(times.seconds for times in found),
    )


class HostOverhead(NamedTuple):
    """What one frame costs beyond the GPU's time."""

    kind: PixelFormat  # Its pixels
    preprocess_us: float  # Median GPU time of its preprocessing, the upload included
    # Median of the host's copy of it into page-locked memory. It is left out of the targets: it
    # takes what 6 MB take at the rate of the host's memory, however work is launched.
    fill_us: float
    allowed_us: float  # What the host may take

    def compare(self, found: Findings, name: str, times: CallTimes) -> None:
        """Note what a call costs, with the host's copy of the frame and without."""
        overhead = 1e3 * percentile(times.wall_ms, 50) - self._gpu_us(times)
        found.figure(f"{name} host, all that it does", overhead, "us", 1)
        found.figure(f"{name} host, less its copy of the frame", overhead - self.fill_us, "us", 1)

    def judge_host(self, found: Findings, times: CallTimes) -> None:
        """Judge the host's part of calls with CUDA graphs."""
        host_us = self._wall_us(times) - self._gpu_us(times)
        found.target(
            f"{self.kind.value}: host overhead of a frame, CUDA graphs, p50, less its copy",
            f"<= {self.allowed_us:.0f} us ({HOST_STEPS} steps of Python here)",
            f"{host_us:.1f} us (the copy: {self.fill_us:.1f} us)",
            host_us <= self.allowed_us,
            timed=True,
        )

    def judge_whole(self, found: Findings, times: CallTimes) -> None:
        """Judge calls with CUDA graphs against the GPU's time."""
        wall_us, gpu_us = self._wall_us(times), self._gpu_us(times)
        found.target(
            f"{self.kind.value}: a frame, CUDA graphs, p50, less its copy, against the GPU's time",
            f"<= {100 * GRAPH_MARGIN - 100:.0f} % above",
            f"{100 * wall_us / gpu_us - 100:+.1f} % ({wall_us:.1f} us, {gpu_us:.1f} us)",
            wall_us <= GRAPH_MARGIN * gpu_us,
            timed=True,
        )

    def _wall_us(self, times: CallTimes) -> float:
        return 1e3 * percentile(times.wall_ms, 50) - self.fill_us

    def _gpu_us(self, times: CallTimes) -> float:
        return self.preprocess_us + 1e3 * percentile(times.engine_ms, 50)


def measure_kinds(
    found: Findings,
    settings: Settings,
    spec: PreprocessSpec,
    stream: Stream,
    opened: Callable[[bool], AbstractContextManager[Infer]],
    batches: Sequence[int],
) -> Iterator[tuple[HostOverhead, CallTimes]]:
    """Measure full-HD frames, BGR and NV12, in batches, with CUDA graphs and without.

    Parameters
    ----------
    found, settings
        Of the check.
    spec, stream
        What is preprocessed how, to measure that by itself first.
    opened
        Opens what is called; told whether it uses CUDA graphs.
    batches
        Batch sizes, 1 first.

    Yields
    ------
    HostOverhead, CallTimes
        For each kind of frame, those of single frames with CUDA graphs.
    """
    step_us = host_step_us()
    found.figure("one step of Python", step_us, "us", 4)
    for kind in (PixelFormat.BGR, PixelFormat.NV12):
        case = full_hd_case(spec, kind, 1, settings.seed)
        times_us, fill_us = measure_upload(stream, case, transfer_for(stream.device), settings)
        gpu_us = percentile(times_us, 50)
        overhead = HostOverhead(kind, gpu_us, fill_us, HOST_STEPS * step_us)
        found.figure(f"{kind.value} x1 preprocessing on the GPU p50", gpu_us, "us", 1)
        found.figure(f"{kind.value} x1 host's copy of the frame", fill_us, "us", 1)
        frames = full_hd_frames(kind, max(batches), settings)
        for cuda_graph in (False, True):
            with opened(cuda_graph) as infer:
                for batch in batches:
                    name = f"{kind.value} {'graph' if cuda_graph else 'no graph'} x{batch}"
                    times = measure_calls(infer, frames, batch, 1, settings.repeats)
                    times.note(found, name, batch)
                    if batch == 1:
                        overhead.compare(found, name, times)
                        if cuda_graph:
                            yield overhead, times


def full_hd_frames(kind: PixelFormat, count: int, settings: Settings) -> list[Pixels]:
    """Return different full-HD frames; a camera's are raw ones."""
    case = full_hd_case(presets()[PRESET], kind, count, settings.seed)
    raw = [RawFrame(frame, source) for frame, source in zip(case.data, case.sources, strict=True)]
    return [frame.to_bgr() for frame in raw] if kind is PixelFormat.BGR else [*raw]
