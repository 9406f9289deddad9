"""Latency and throughput of the whole path: from a full-HD frame in memory to the answer."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from edge_fg.backends.options import EngineOptions
from edge_fg.backends.selection import GPU_PREFERENCE
from edge_fg.backends.tensorrt.backend import TensorRTBackend
from edge_fg.backends.tensorrt.library import Library
from edge_fg.bundle import Bundle, Precision
from edge_fg.cuda import Device, Stream
from edge_fg.errors import EdgeFGError
from edge_fg.preprocess.cuda import transfer_for
from edge_fg.preprocess.pixel_layout import PixelFormat
from edge_fg.preprocess.raw_frame import Pixels, RawFrame
from edge_fg_tools.gpu_check.bundles import find_bundle, options, usable_libraries, why_no_engine
from edge_fg_tools.gpu_check.results import (
    CheckResult,
    Figure,
    Settings,
    Target,
    not_measured,
    percentile,
    spread,
    target,
    timed,
)
from edge_fg_tools.gpu_check.speed import full_hd, measure_way

HOST_OVERHEAD_US: Final = 60.0
GRAPH_MARGIN: Final = 1.10
_PERCENTS: Final = (50, 90, 99)
_KINDS: Final = (PixelFormat.BGR, PixelFormat.NV12)
_BATCHES: Final = (1, 4, 8)
_THREADS: Final = (1, 2, 3, 4)
_WARM_UP: Final = 10


@dataclass
class Times:
    """Milliseconds of single calls, and the seconds that all of them took."""

    wall_ms: list[float] = field(default_factory=list)
    engine_ms: list[float] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class _GpuTimes:
    """Median GPU microseconds of one frame's preprocessing, and the host's copy of it."""

    preprocess_us: float
    fill_us: float


def check_latency(settings: Settings) -> CheckResult:
    """Measure calls with and without CUDA graphs, batches, and threads with contexts."""
    bundle = find_bundle(settings)
    libraries = usable_libraries()
    if not libraries or bundle is None:
        return not_measured(
            why_no_engine() if not libraries else "there is no bundle, see `bundle`"
        )
    library, precision = libraries[0], best_variant(bundle)
    figures: list[Figure] = []
    targets: list[Target] = []
    bgr = _frames(settings, PixelFormat.BGR)
    for kind in _KINDS:
        gpu = _gpu_times(bundle, settings, kind)
        figures += [
            Figure(
                f"{kind.value} x1 preprocessing on the GPU p50", round(gpu.preprocess_us, 1), "us"
            ),
            Figure(f"{kind.value} x1 host's copy of the frame", round(gpu.fill_us, 1), "us"),
        ]
        frames = bgr if kind is PixelFormat.BGR else _frames(settings, kind)
        for cuda_graph in (False, True):
            chosen = options(settings, cuda_graph=cuda_graph)
            with _opened(bundle, precision, library, chosen) as backend:
                for batch in _BATCHES:
                    name = f"{kind.value} {'graph' if cuda_graph else 'no graph'} x{batch}"
                    times = measure(backend, frames, batch, 1, settings.repeats)
                    figures += _figures(name, times, batch)
                    if batch == 1:
                        figures += _overhead(name, times, gpu)
                        targets += _targets(kind, times, gpu, settings) if cuda_graph else ()
    for count in _THREADS:
        with _opened(bundle, precision, library, options(settings, contexts=count)) as backend:
            times = measure(backend, bgr, 1, count, settings.repeats)
            figures += _figures(f"{count} threads and contexts", times, 1)
    best = next(figure for figure in figures if figure.name == "bgr graph x1 p50")
    text = f"{library} {precision}: 1080p BGR to the answer in {best.value:g} ms (p50, CUDA graph)"
    return timed(settings, text, figures, targets)


def best_variant(bundle: Bundle) -> Precision:
    """Return the variant that edge_fg takes on a GPU by itself."""
    return next(name for name in GPU_PREFERENCE if name in bundle.manifest.variants)


def measure(
    backend: TensorRTBackend,
    frames: Sequence[Pixels],
    batch: int,
    threads: int,
    repeats: int,
) -> Times:
    """Call `infer` from some threads at once, each `repeats` times, and take the times.

    Raises
    ------
    EdgeFGError
        What a call failed with, in whichever thread.
    """
    times = Times()
    errors: list[EdgeFGError] = []
    ready = threading.Barrier(threads + 1)

    def work(number: int) -> None:
        wall: list[float] = []
        engine: list[float] = []
        chosen = [
            [frames[(turn * batch + i + number) % len(frames)] for i in range(batch)]
            for turn in range(len(frames))
        ]
        try:
            for turn in range(_WARM_UP):
                backend.infer(chosen[turn % len(chosen)])
            ready.wait()
            for turn in range(repeats):
                started = time.perf_counter()
                outputs = backend.infer(chosen[turn % len(chosen)])
                wall.append(1e3 * (time.perf_counter() - started))
                engine.append(outputs.inference_ms)
        except EdgeFGError as error:
            errors.append(error)
            ready.abort()
        except threading.BrokenBarrierError:
            return  # another thread failed and says why
        times.wall_ms.extend(wall)
        times.engine_ms.extend(engine)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    with contextlib.suppress(threading.BrokenBarrierError):
        ready.wait()
    started = time.perf_counter()
    for worker in workers:
        worker.join()
    times.seconds = time.perf_counter() - started
    if errors:
        raise errors[0]
    return times


def _opened(
    bundle: Bundle, precision: Precision, library: Library, chosen: EngineOptions
) -> contextlib.closing[TensorRTBackend]:
    return contextlib.closing(TensorRTBackend(bundle, precision, library, options=chosen))


def _frames(settings: Settings, kind: PixelFormat) -> list[Pixels]:
    """Return as many different frames as the largest batch has; a camera's are raw ones."""
    sources, data = full_hd(kind, max(_BATCHES), settings.seed)
    pairs = zip(data, sources, strict=True)
    raw = [RawFrame(frame, source) for frame, source in pairs]
    return [frame.to_bgr() for frame in raw] if kind is PixelFormat.BGR else [*raw]


def _gpu_times(bundle: Bundle, settings: Settings, kind: PixelFormat) -> _GpuTimes:
    """Measure one frame's preprocessing for this bundle, the way that the backend takes."""
    sources, data = full_hd(kind, 1, settings.seed)
    with Device() as device, Stream(device) as stream:
        spec = bundle.manifest.preprocess
        way = measure_way(stream, spec, sources, data, transfer_for(device), settings)
    return _GpuTimes(percentile(way.gpu_us, 50), way.fill_us)


def _figures(name: str, times: Times, batch: int) -> tuple[Figure, ...]:
    rate = batch * len(times.wall_ms) / max(times.seconds, 1e-9)
    return (
        *spread(name, times.wall_ms, "ms", _PERCENTS),
        *spread(f"{name} engine", times.engine_ms, "ms", (50,)),
        Figure(f"{name} throughput", round(rate, 1), "frames/s"),
    )


def _overhead(name: str, times: Times, gpu: _GpuTimes) -> tuple[Figure, ...]:
    """Return what a frame costs beyond the GPU's time, with the host's copy of it and without."""
    overhead = 1e3 * percentile(times.wall_ms, 50) - _gpu_us(times, gpu)
    return (
        Figure(f"{name} host, all that it does", round(overhead, 1), "us"),
        Figure(f"{name} host, less its copy of the frame", round(overhead - gpu.fill_us, 1), "us"),
    )


def _targets(
    kind: PixelFormat, times: Times, gpu: _GpuTimes, settings: Settings
) -> tuple[Target, ...]:
    """Judge the path with CUDA graphs.

    The host's copy of the frame into page-locked memory is not held against it: it takes what
    6 MB take at the rate of the host's memory, which no way of launching changes.
    """
    wall_us = 1e3 * percentile(times.wall_ms, 50) - gpu.fill_us
    gpu_us = _gpu_us(times, gpu)
    return (
        target(
            f"{kind.value}: host overhead of a frame, CUDA graphs, p50, less its copy",
            f"<= {HOST_OVERHEAD_US:g} us",
            f"{wall_us - gpu_us:.1f} us (the copy: {gpu.fill_us:.1f} us)",
            wall_us - gpu_us <= HOST_OVERHEAD_US,
            settings,
        ),
        target(
            f"{kind.value}: a frame, CUDA graphs, p50, less its copy, against the GPU's time",
            f"<= {100 * GRAPH_MARGIN - 100:.0f} % above",
            f"{100 * wall_us / gpu_us - 100:+.1f} % ({wall_us:.1f} us, {gpu_us:.1f} us)",
            wall_us <= GRAPH_MARGIN * gpu_us,
            settings,
        ),
    )


def _gpu_us(times: Times, gpu: _GpuTimes) -> float:
    return gpu.preprocess_us + 1e3 * percentile(times.engine_ms, 50)
