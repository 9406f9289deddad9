"""Latency and throughput of the whole path: from a full-HD frame in memory to the answer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from edge_fg.backends.tensorrt.backend import TensorRTBackend
from edge_fg.backends.tensorrt.library import Library
from edge_fg.bundle import Bundle
from edge_fg.cuda import Stream
from edge_fg.preprocess.pixel_layout import PixelFormat
from edge_fg_tools.gpu_check import clocks
from edge_fg_tools.gpu_check.bundles import best_variant, options
from edge_fg_tools.gpu_check.calls import Infer, full_hd_frames, measure_calls, measure_kinds
from edge_fg_tools.gpu_check.findings import Findings

_BATCHES: Final = (1, 4, 8)
_THREADS: Final = (1, 2, 3, 4)


def test_latency(found: Findings, libraries: list[Library], bundle: Bundle, stream: Stream) -> None:
    """Measure calls with and without CUDA graphs, batches, and threads with contexts."""
    library, precision, settings = libraries[0], best_variant(bundle), found.settings

    @contextlib.contextmanager
    def opened(cuda_graph: bool, contexts: int = 1) -> Iterator[Infer]:
        chosen = options(settings, contexts=contexts, cuda_graph=cuda_graph)
        backend = TensorRTBackend(bundle, precision, library, options=chosen)
        with contextlib.closing(backend):
            yield lambda frames: backend.infer(frames).inference_ms

    spec = bundle.manifest.preprocess
    measure_kinds(found, spec, stream, opened, _BATCHES, judge_whole=True)
    frames = full_hd_frames(PixelFormat.BGR, max(_BATCHES), settings)
    for count in _THREADS:
        with opened(cuda_graph=True, contexts=count) as infer:
            times = measure_calls(infer, frames, 1, count, settings.repeats)
            times.note(found, f"{count} threads and contexts", 1)
    found.facts(clocks.read(stream.device))
    best = found.value("bgr graph x1 p50")
    found.conclude(
        f"{library} {precision}: 1080p BGR to the answer in {best:g} ms (p50, CUDA graph)",
        timed=True,
    )
