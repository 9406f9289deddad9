"""Metrics for Prometheus, named as https://prometheus.io/docs/practices/naming/ says."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from typing import Any

from edge_fg._version import __version__
from edge_fg.errors import import_optional
from edge_fg.http_server import BoundedHandler, BoundedServer, check_bindable
from edge_fg.printing import printable
from edge_fg.telemetry.device import DeviceState
from edge_fg.telemetry.histogram import Summary
from edge_fg.telemetry.stats import PipelineStats

_MAX_CONNECTIONS = 8  # a scrape takes one, for an instant
_STATES = ("connecting", "live", "stalled", "lost", "ended")


class PipelineCollector:
    """Turns a pipeline's statistics into metrics, at each request.

    To be registered with a `prometheus_client.CollectorRegistry`. Sources are identified by their
    number (``source="0"``), because two may have the same name. `stats` is a pipeline's method;
    `device` reads the device's sensors. A `MissingDependencyError` says that prometheus-client is
    not installed.
    """

    def __init__(
        self,
        stats: Callable[[], PipelineStats],
        device: Callable[[], DeviceState] | None = None,
    ) -> None:
        self._families = _client().core
        self._stats = stats
        self._device = device

    def describe(self) -> list[Any]:
        """Return nothing: when the collector is registered, the pipeline has no statistics yet."""
        return []

    def collect(self) -> Iterator[Any]:
        """Yield the metrics of this moment."""
        stats = self._stats()
        yield from self._totals(stats)
        yield from self._sources(stats)
        yield from self._sinks(stats)
        yield from self._latencies(stats)
        if self._device is not None:
            yield from self._sensors(self._device())

    def _totals(self, stats: PipelineStats) -> Iterator[Any]:
        share = stats.throttle.share if stats.throttle is not None else None
        yield self._family("Gauge", "build_info", "Version.", "version", [(__version__, 1.0)])
        yield from self._gauges(
            ("uptime_seconds", "Since the start.", stats.uptime),
            ("batch_size", "Frames given to the model at once.", stats.batch),
            ("resident_memory_bytes", "Memory of the process.", stats.rss_bytes),
            ("engine_memory_bytes", "Memory of the model on its device.", stats.engine_bytes),
            ("throttle_ratio", "Share of the full rate allowed.", share),
        )

    def _sources(self, stats: PipelineStats) -> Iterator[Any]:
        samples: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
        for i, source in enumerate(stats.sources):
            number = str(i)
            samples["frames"].append((number, source.frames))
            samples["answers"].append((number, source.answered))
            samples["waiting"].append((number, source.waiting))
            samples["info"].append((number, printable(source.name), source.policy, 1))
            samples["dropped"] += [(number, why, n) for why, n in source.dropped.items()]
            happened = {name: n for name, n in source.counters.items() if name != "frames"}
            samples["events"] += [(number, event, n) for event, n in happened.items()]
            states = dict.fromkeys((*_STATES, source.state))
            samples["state"] += [(number, one, float(one == source.state)) for one in states]
        for kind, name, text, labels, key in (
            ("Counter", "frames", "Frames that a source gave.", "source", "frames"),
            ("Counter", "answers", "Frames that were answered.", "source", "answers"),
            ("Counter", "dropped_frames", "Frames left out.", "source reason", "dropped"),
            ("Counter", "source_events", "What happened to a source.", "source event", "events"),
            ("Gauge", "waiting_frames", "Frames in the queue.", "source", "waiting"),
            ("Gauge", "source_state", "1 for the state it is in.", "source state", "state"),
            ("Gauge", "source_info", "Names.", "source name policy", "info"),
        ):
            yield self._family(kind, name, text, labels, samples[key])

    def _sinks(self, stats: PipelineStats) -> Iterator[Any]:
        samples: list[tuple[Any, ...]] = []
        for i, sink in enumerate(stats.sinks):
            outcomes = {"written": sink.written, "dropped": sink.dropped, "failed": sink.failures}
            samples += [(str(i), printable(sink.name), one, n) for one, n in outcomes.items()]
        labels = "sink name outcome"
        yield self._family("Counter", "sink_results", "Results given to a sink.", labels, samples)

    def _latencies(self, stats: PipelineStats) -> Iterator[Any]:
        name, text = "stage_duration_seconds", "Time that a stage took."
        stages = self._family("Summary", name, text, "stage")
        for stage, summary in stats.stages.items():
            _add_summary(stages, {"stage": stage}, summary)
        age = self._family("Summary", "frame_age_seconds", "From a frame's capture to its answer.")
        _add_summary(age, {}, stats.age)
        yield from (stages, age)

    def _sensors(self, state: DeviceState) -> Iterator[Any]:
        clocks = {str(core): value for core, value in enumerate(state.cpu_hz)}
        for name, text, label, values in (
            ("device_temperature_celsius", "Of a zone.", "zone", state.temperatures_c),
            ("device_power_watts", "Of a rail.", "rail", state.power_w),
            ("device_cpu_clock_hertz", "Of a core.", "core", clocks),
        ):
            yield self._family("Gauge", name, text, label, list(values.items()))
        yield from self._gauges(
            ("device_total_power_watts", "Of the module.", state.total_power_w),
            ("device_gpu_load_ratio", "Share of the time that the GPU is busy.", state.gpu_load),
            ("device_gpu_clock_hertz", "Clock of the GPU.", state.gpu_hz),
            ("device_memory_used_bytes", "Main memory in use.", state.memory_used_bytes),
        )

    def _gauges(self, *gauges: tuple[str, str, float | None]) -> Iterator[Any]:
        """Yield gauges of one value each: name, text, value; what is not known is left out."""
        for name, text, value in gauges:
            if value is not None:
                yield self._family("Gauge", name, text, "", [(value,)])

    def _family(
        self, kind: str, name: str, text: str, labels: str = "", samples: Sequence[Any] = ()
    ) -> Any:
        """Return a metric; each sample is the values of its labels, and then its own."""
        make = getattr(self._families, f"{kind}MetricFamily")
        family = make(f"edge_fg_{name}", text, labels=tuple(labels.split()))
        for *values, value in samples:
            family.add_metric(tuple(values), value)
        return family


class MetricsServer(BoundedServer):
    """Serves ``/metrics`` for Prometheus; a context manager.

    Port 0 takes a free one, see `address`. A `MissingDependencyError` says that prometheus-client
    is not installed; a `UsageError`, that other machines can reach `host` and `allow_remote` is
    False. See `BoundedServer` for the rest.
    """

    def __init__(
        self,
        collector: PipelineCollector,
        port: int = 9464,
        host: str = "127.0.0.1",
        *,
        allow_remote: bool = False,
    ) -> None:
        client = _client()
        check_bindable(host, allow_remote)
        registry = client.CollectorRegistry()
        registry.register(collector)

        class Handler(BoundedHandler):
            def answer(self, path: str) -> None:
                if path in ("/", "/metrics"):
                    metrics = client.generate_latest(registry)
                    self.send(HTTPStatus.OK, client.CONTENT_TYPE_LATEST, metrics)
                else:
                    self.send_text(HTTPStatus.NOT_FOUND, "see /metrics")

        super().__init__((host, port), Handler, "metrics", _MAX_CONNECTIONS)


def _add_summary(family: Any, labels: dict[str, str], summary: Summary) -> None:
    quantiles = (("0.5", summary.p50), ("0.9", summary.p90), ("0.99", summary.p99))
    for quantile, value in quantiles if summary.count else ():
        family.add_sample(family.name, {**labels, "quantile": quantile}, value)
    family.add_metric(tuple(labels.values()), summary.count, summary.mean * summary.count)


def _client() -> Any:
    import_optional("prometheus_client.core", "prometheus-client", "metrics", "serve metrics")
    return sys.modules["prometheus_client"]
