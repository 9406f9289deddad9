"""Each range method against a slow, literal computation."""

from __future__ import annotations

import numpy as np
import pytest

from edge_fg.errors import CalibrationError
from edge_fg_calibration import Histogram
from edge_fg_calibration.int8 import ranges

random = np.random.default_rng(5)
SAMPLES = {
    "normal": random.normal(size=20000),
    "heavy tail": random.standard_t(2, size=20000),
    "relu": np.maximum(random.normal(size=20000), 0),
    "relu6": np.clip(random.normal(2, 3, size=20000), 0, 6),
    "one outlier": np.append(random.normal(size=20000), 60.0),
    "few": np.array([0.5, -1.25, 3.0]),
}


def filled(data: np.ndarray, bins: int = 512) -> Histogram:
    histogram = Histogram(bins)
    histogram.add(data)
    return histogram


def candidate_bins(histogram: Histogram) -> range:
    last = int(np.flatnonzero(histogram.counts)[-1]) + 1
    return range(min(128, last), last + 1)


def edge(histogram: Histogram, bins: int) -> float:
    return histogram.amax if bins == candidate_bins(histogram)[-1] else bins * histogram.width


def literal_mse(histogram: Histogram, amax: float) -> float:
    step = amax / 127
    total = 0.0
    for place, count in enumerate(histogram.counts.tolist()):
        count -= histogram.zeros if place == 0 else 0
        if count:
            centre = (place + 0.5) * histogram.width
            total += count * (min(round(centre / step), 127) * step - centre) ** 2
    return total


def literal_divergence(histogram: Histogram, bins: int) -> float:
    counts = histogram.counts.astype(np.float64)
    counts[0] -= histogram.zeros
    clipped = counts[:bins].copy()
    clipped[-1] += counts[bins:].sum()
    quantised = np.zeros(bins)
    for level in range(128):
        members = [n for n in range(bins) if n * 128 // bins == level and counts[n] > 0]
        for n in members:
            quantised[n] = counts[members].sum() / len(members)
    p, q = clipped / clipped.sum(), quantised / max(quantised.sum(), 1e-300)
    if np.any((p > 0) & (q == 0)):
        return float("inf")
    return float(sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0))


@pytest.mark.parametrize("name", SAMPLES)
def test_minmax_is_the_largest_magnitude(name: str) -> None:
    expected = np.abs(SAMPLES[name].astype(np.float32)).max()
    assert ranges.minmax(filled(SAMPLES[name])) == expected


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("percent", [50.0, 99.0, 99.99, 100.0])
def test_percentile_is_the_order_statistic_to_a_bin(name: str, percent: float) -> None:
    histogram = filled(SAMPLES[name])
    ordered = np.sort(np.abs(SAMPLES[name].astype(np.float32)))
    rank = max(1, int(np.ceil(len(ordered) * percent / 100)))
    exact = float(ordered[rank - 1])
    found = ranges.percentile(histogram, percent)
    assert exact <= found <= exact + histogram.width
    assert found <= histogram.amax


@pytest.mark.parametrize("name", SAMPLES)
def test_mse_is_the_best_of_all_edges(name: str) -> None:
    histogram = filled(SAMPLES[name])
    edges = [edge(histogram, bins) for bins in candidate_bins(histogram)]
    losses = [literal_mse(histogram, one) for one in edges]
    found = ranges.mse(histogram)
    assert found in edges
    assert literal_mse(histogram, found) <= min(losses) * (1 + 1e-9) + 1e-12


@pytest.mark.parametrize("name", ["normal", "relu", "one outlier", "heavy tail"])
def test_mse_is_near_the_best_on_the_values_themselves(name: str) -> None:
    data = np.abs(SAMPLES[name])

    def loss(amax: float) -> float:
        step = amax / 127
        return float(np.square(np.minimum(np.rint(data / step), 127) * step - data).mean())

    best = min(loss(one) for one in np.linspace(data.max() / 16, data.max(), 600))
    assert loss(ranges.mse(filled(SAMPLES[name], 2048))) <= best * 1.05


@pytest.mark.parametrize("name", ["normal", "relu", "one outlier", "few"])
def test_entropy_is_the_least_divergence_of_all_edges(name: str) -> None:
    histogram = filled(SAMPLES[name], 256)
    losses = {
        edge(histogram, bins): literal_divergence(histogram, bins)
        for bins in candidate_bins(histogram)
    }
    found = ranges.entropy(histogram)
    assert losses[found] == pytest.approx(min(losses.values()), abs=1e-12)


@pytest.mark.parametrize("method", ranges.METHODS)
def test_every_method_handles_nothing_and_zeros(method: str) -> None:
    choose = ranges.METHODS[method]
    with pytest.raises(CalibrationError, match="no values"):
        choose(Histogram())
    assert choose(filled(np.zeros(100))) == ranges.DEAD_TENSOR_AMAX
    assert choose(filled(np.full(100, -2.5))) == 2.5


def test_a_percentile_outside_its_range_is_refused() -> None:
    for percent in (0.0, 101.0):
        with pytest.raises(CalibrationError, match="percentile"):
            ranges.percentile(filled(np.ones(3)), percent)


def test_clipped_share_counts_what_lies_above() -> None:
    histogram = filled(np.array([0.1] * 98 + [5.0, 7.9]))
    assert ranges.clipped_share(histogram, 4.0) == pytest.approx(0.02)
    assert ranges.clipped_share(histogram, 7.9) == 0.0
