"""How fast the card copies, and how fast frames become tensors on it."""

from __future__ import annotations

from typing import Final

from edge_fg.cuda import Device, Stream
from edge_fg.preprocess import presets
from edge_fg.preprocess.batch_factory import transfer_for
from edge_fg.preprocess.pixel_layout import PixelFormat
from edge_fg.preprocess.staging import Transfer
from edge_fg_tools.gpu_check import clocks
from edge_fg_tools.gpu_check.cases import PRESET, Case, full_hd_case
from edge_fg_tools.gpu_check.findings import Findings, percentile
from edge_fg_tools.gpu_check.resident import bytes_to_move, resident_batches
from edge_fg_tools.gpu_check.timing import (
    CopyRates,
    burst_us,
    gpu_times_us,
    keeping_busy,
    measure_copy_rates,
    measure_upload,
)

COPY_SHARE: Final = 0.60
"""Share of the card's own pace that the kernels must reach.

They may take ``(time of two copies of nothing + bytes to move / copy rate) / COPY_SHARE``, all
measured on the card that is judged. Two launches that depend on each other can't end before two
copies do, and no byte moves faster than in a copy. For a 1080p BGR frame (3.3 MB to move) that is
30 us on a card that copies 240 GB/s and takes 4 us for two copies of nothing; it is more on a
Jetson, and less on a large card, where launching is most of it.
"""
_BATCHES: Final = (1, 8)


def test_copies(found: Findings, device: Device) -> None:
    """Measure what the card reaches by itself, against which the kernels are judged."""
    rates = measure_copy_rates(device, found.settings.copy_bytes)
    found.figure("device to device (read + written)", rates.device / 1e9, "GB/s", 2)
    found.figure("host to device, page-locked", rates.to_device / 1e9, "GB/s", 2)
    found.figure("device to host, page-locked", rates.to_host / 1e9, "GB/s", 2)
    said = ", ".join(f"{figure.name} {figure.value:g} GB/s" for figure in found.entry.figures)
    found.figure("two copies of nothing in a CUDA graph", rates.two_copies_us, "us")
    found.facts(clocks.read(device))
    found.conclude(said, timed=True)


def test_preprocessing(found: Findings, device: Device, stream: Stream) -> None:
    """Measure the GPU's time from full-HD frames to tensors of 224, each way."""
    rates = measure_copy_rates(device, found.settings.copy_bytes)
    for kind in (PixelFormat.BGR, PixelFormat.NV12):
        for batch in _BATCHES:
            case = full_hd_case(presets()[PRESET], kind, batch, found.settings.seed)
            _measure_kernels(found, stream, case, rates)
            _measure_upload(found, stream, case, "mapped", rates)
            _measure_upload(found, stream, case, "staged", rates)
    found.facts(clocks.read(device))
    best = found.value("bgr x1 kernels p50")
    found.conclude(
        f"1080p BGR to 224: {best:g} us of GPU time in the kernels (p50); by itself edge_fg "
        f"takes the way `{transfer_for(device)}` here",
        timed=True,
    )


def _measure_kernels(found: Findings, stream: Stream, case: Case, rates: CopyRates) -> None:
    """Measure the kernels on frames in the GPU's memory that no cache holds."""
    cache, repeats = found.settings.copy_bytes, found.settings.repeats
    with (
        resident_batches(stream, case, cache) as (works, last_tensor),
        keeping_busy(stream, cache) as busy,
    ):
        times = gpu_times_us(stream, works, repeats, busy)
        burst = burst_us(stream, works, repeats)
        right = last_tensor().tobytes() == case.expected().tobytes()
    nbytes = sum(bytes_to_move(case))
    median, name = percentile(times, 50), _name(case)
    found.spread(f"{name} kernels", times, "us")
    found.figure(f"{name} kernels back to back", burst, "us")
    found.figure(f"{name} bytes to move", nbytes, "bytes")
    found.figure(f"{name} share of the copy rate", _share(nbytes, median, rates.device), "%")
    target = f"1080p {name} -> 224"
    words = "the same" if right else "others"
    found.target(f"{target}, what was timed", "Pillow's bits", words, right)
    if len(case.sources) == 1:
        pace = rates.pace_us(nbytes)
        found.target(
            f"{target}, kernels p50",
            f"<= {pace / COPY_SHARE:.1f} us ({100 * COPY_SHARE:g} % of the card's own pace)",
            f"{median:.1f} us ({100 * pace / median:.0f} %)",
            median <= pace / COPY_SHARE,
            timed=True,
        )


def _measure_upload(
    found: Findings, stream: Stream, case: Case, transfer: Transfer, rates: CopyRates
) -> None:
    """Measure frames that come from the host, read in place or copied."""
    times, fill_us = measure_upload(stream, case, transfer, found.settings)
    # A copy brings all of a frame; kernels that read it in place fetch what they need.
    moved = sum(frame.nbytes for frame in case.data)
    if transfer == "mapped":
        moved, _ = bytes_to_move(case)
    rate = rates.device if stream.device.integrated else rates.to_device
    name = f"{_name(case)} {transfer}"
    found.spread(name, times, "us")
    share = _share(moved, percentile(times, 50), rate)
    found.figure(f"{name} share of the copy rate", share, "%")
    found.figure(f"{name} host's copy", fill_us, "us of the host", 1)


def _name(case: Case) -> str:
    return f"{case.sources[0].format.value} x{len(case.sources)}"


def _share(nbytes: int, us: float, rate: float) -> float:
    """Return the percentage of a copy rate that some bytes in some time are."""
    return 100 * nbytes / (us * 1e-6) / rate
