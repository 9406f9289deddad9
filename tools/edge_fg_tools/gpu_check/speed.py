"""How fast the card copies, and how fast frames become tensors on it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_fg.cuda import Device, DeviceBuffer, Graph, Stream
from edge_fg.preprocess import PreprocessSpec, presets
from edge_fg.preprocess.cuda import CudaPreprocessor, transfer_for
from edge_fg.preprocess.pixel_layout import PixelFormat, PixelLayout
from edge_fg.preprocess.staging import Transfer
from edge_fg.preprocess.yuv import ColorStandard
from edge_fg_tools.gpu_check.cases import FULL_HD, Case, random_bytes
from edge_fg_tools.gpu_check.resident import ResidentBatches, bytes_to_move
from edge_fg_tools.gpu_check.results import (
    CheckResult,
    Figure,
    Settings,
    Target,
    Verdict,
    percentile,
    spread,
    target,
    timed,
)
from edge_fg_tools.gpu_check.timing import (
    CopyRates,
    burst_us,
    gpu_times_us,
    keeping_busy,
    measure_copy_rates,
)

GPU_TIME_US: Final = 30.0
COPY_SHARE: Final = 0.60
PRESET: Final = "torchvision"
"""Shortest side to 256, centre crop of 224, bilinear: the most usual way to 224."""

_BATCHES: Final = (1, 8)
_FRAMES: Final = 8
_MIB: Final = 1 << 20


class WayTimes(NamedTuple):
    """What one way of the images took.

    Parameters
    ----------
    gpu_us
        GPU time of each sample: the copy, where there is one, and the kernels.
    fill_us
        Median of the host's copy of the frames into page-locked memory.
    """

    gpu_us: list[float]
    fill_us: float


def check_copies(settings: Settings) -> CheckResult:
    """Measure what the card reaches, against which the kernels are judged."""
    with Device() as device:
        rates = measure_copy_rates(device, settings.copy_mib * _MIB)
    figures = (
        Figure("device to device (read + written)", round(rates.device / 1e9, 2), "GB/s"),
        Figure("host to device, page-locked", round(rates.to_device / 1e9, 2), "GB/s"),
        Figure("device to host, page-locked", round(rates.to_host / 1e9, 2), "GB/s"),
    )
    text = ", ".join(f"{figure.name} {figure.value:g} GB/s" for figure in figures)
    return timed(settings, text, figures)


def check_preprocessing(settings: Settings) -> CheckResult:
    """Measure the GPU's time from full-HD frames to tensors of 224, each way."""
    figures: list[Figure] = []
    targets: list[Target] = []
    spec = presets()[PRESET]
    with Device() as device, Stream(device) as stream:
        rates = measure_copy_rates(device, settings.copy_mib * _MIB)
        for kind in (PixelFormat.BGR, PixelFormat.NV12):
            for batch in _BATCHES:
                sources, data = full_hd(kind, batch, settings.seed)
                name = f"{kind.value} x{batch}"
                found, judged = _resident(device, stream, spec, sources, data, settings, rates)
                figures += (_named(name, figure) for figure in found)
                targets += judged if batch == 1 else judged[:1]
                figures += _ways(name, device, stream, spec, sources, data, settings, rates)
        chosen = transfer_for(device)
    best = next(figure for figure in figures if figure.name == "bgr x1 kernels p50")
    text = (
        f"1080p BGR to 224: {best.value:g} us of GPU time in the kernels (p50); "
        f"by itself edge_fg takes the way `{chosen}` here"
    )
    return timed(settings, text, figures, targets)


def full_hd(
    kind: PixelFormat, batch: int, seed: int
) -> tuple[list[PixelLayout], list[NDArray[np.uint8]]]:
    """Return random frames of 1920 x 1080 and what they are."""
    random = np.random.default_rng(seed)
    standard = ColorStandard.BT709_LIMITED if kind is PixelFormat.NV12 else None
    sources = [PixelLayout(kind, *FULL_HD, standard=standard)] * batch
    return sources, [random_bytes(random, source) for source in sources]


def measure_way(
    stream: Stream,
    spec: PreprocessSpec,
    sources: Sequence[PixelLayout],
    data: Sequence[NDArray[np.uint8]],
    transfer: Transfer,
    settings: Settings,
) -> WayTimes:
    """Measure a captured batch as the backends queue it: the copy, if any, and the kernels."""
    device, repeats = stream.device, settings.repeats
    # As a camera's frames do, they come from elsewhere each time.
    turns = [[frame.copy() for frame in data] for _ in range(max(1, _FRAMES // len(data)))]
    nbytes = len(sources) * int(np.prod(spec.tensor_shape)) * np.dtype(spec.dtype).itemsize
    with (
        DeviceBuffer(device, nbytes) as output,
        CudaPreprocessor(device, spec, len(sources), transfer=transfer) as gpu,
        gpu.prepare(sources, output.pointer, stream) as batch,
        keeping_busy(stream, settings.copy_mib * _MIB) as busy,
    ):
        fills = []
        for turn in range(max(3, repeats // 10)):
            started = time.perf_counter()
            batch.fill(turns[turn % len(turns)])
            fills.append(1e6 * (time.perf_counter() - started))
        with Graph.capture(stream, lambda: batch.queue(stream)) as graph:
            times = gpu_times_us(device, stream, [lambda: graph.launch(stream)], repeats, busy)
    return WayTimes(times, statistics.median(fills))


def _resident(
    device: Device,
    stream: Stream,
    spec: PreprocessSpec,
    sources: Sequence[PixelLayout],
    data: Sequence[NDArray[np.uint8]],
    settings: Settings,
    rates: CopyRates,
) -> tuple[tuple[Figure, ...], tuple[Target, ...]]:
    """Measure the kernels on frames in the GPU's memory, cold as far as caches go.

    The first target is that what was timed is right, the second the time itself.
    """
    cache = settings.copy_mib * _MIB
    with (
        ResidentBatches(device, stream, spec, sources, data, cache) as batches,
        keeping_busy(stream, cache) as busy,
    ):
        times = gpu_times_us(device, stream, batches.works, settings.repeats, busy)
        burst = burst_us(device, stream, batches.works, settings.repeats)
        right = (
            batches.tensor().tobytes()
            == Case(spec, tuple(sources), tuple(data)).expected().tobytes()
        )
    read, written = bytes_to_move(spec, sources)
    median = percentile(times, 50)
    share = (read + written) / (median * 1e-6) / rates.device
    figures = (
        *spread("kernels", times, "us"),
        Figure("kernels back to back", round(burst, 3), "us"),
        Figure("bytes to move", read + written, "bytes"),
        Figure("share of the copy rate", round(100 * share, 1), "%"),
    )
    name = f"1080p {sources[0].format.value} x{len(sources)} -> 224"
    verdict: Verdict = "passed" if right else "failed"
    same = Target(
        f"{name}, what was timed", "Pillow's bits", "the same" if right else "others", verdict
    )
    wanted = f"<= {GPU_TIME_US:g} us or >= {100 * COPY_SHARE:g} % of the copy rate"
    measured = f"{median:.1f} us, {100 * share:.0f} %"
    met = median <= GPU_TIME_US or share >= COPY_SHARE
    return figures, (same, target(f"{name}, kernels p50", wanted, measured, met, settings))


def _ways(
    name: str,
    device: Device,
    stream: Stream,
    spec: PreprocessSpec,
    sources: Sequence[PixelLayout],
    data: Sequence[NDArray[np.uint8]],
    settings: Settings,
    rates: CopyRates,
) -> list[Figure]:
    """Measure images that come from the host, read in place and copied."""
    figures: list[Figure] = []
    for transfer in ("mapped", "staged"):
        times = measure_way(stream, spec, sources, data, transfer, settings)
        read, _ = bytes_to_move(spec, sources)
        # A copy brings all of a frame; kernels that read it in place fetch what they need.
        moved = sum(frame.nbytes for frame in data) if transfer == "staged" else read
        rate = rates.device if device.integrated else rates.to_device
        share = moved / (percentile(times.gpu_us, 50) * 1e-6) / rate
        figures += spread(f"{name} {transfer}", times.gpu_us, "us")
        figures.append(
            Figure(f"{name} {transfer} share of the copy rate", round(100 * share, 1), "%")
        )
        figures.append(
            Figure(f"{name} {transfer} host's copy", round(times.fill_us, 1), "us of the host")
        )
    return figures


def _named(name: str, figure: Figure) -> Figure:
    return Figure(f"{name} {figure.name}", figure.value, figure.unit)
