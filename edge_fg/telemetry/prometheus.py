"""Figures for Prometheus: https://prometheus.io/docs/practices/naming/ says how they are named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

from edge_fg._version import __version__
from edge_fg.closing import Closing
from edge_fg.errors import MissingDependencyError
from edge_fg.http_hosts import HostNames, check_bindable
from edge_fg.http_server import BoundedHandler, BoundedServer
from edge_fg.printing import printable
from edge_fg.telemetry.device import DeviceState
from edge_fg.telemetry.histogram import Summary
from edge_fg.telemetry.stats import PipelineStats

_MOST_CONNECTIONS = 8  # a scrape takes one, for an instant
_STATES = ("connecting", "live", "stalled", "lost", "ended")


class PipelineCollector:
    """Turns a pipeline's statistics into metrics, each time they are asked for.

    To be registered with a `prometheus_client.CollectorRegistry`. Sources are told apart by their
    number (``source="0"``): names need not differ.

    Parameters
    ----------
    stats
        A pipeline's method `stats`.
    device
        Reads the device's sensors; None leaves them out.

    Raises
    ------
    MissingDependencyError
        prometheus-client is not installed.
    """

    def __init__(
        self,
        stats: Callable[[], PipelineStats],
        device: Callable[[], DeviceState] | None = None,
    ) -> None:
        self._core = _client()[1]
        self._stats = stats
        self._device = device

    def describe(self) -> list[Any]:
        """Return nothing: asking the pipeline when registering would be too early."""
        return []

    def collect(self) -> Iterator[Any]:
        """Yield the metrics of this moment."""
        stats = self._stats()
        share = stats.throttle.share if stats.throttle is not None else None
        yield from self._single("edge_fg_build_info", "Version.", 1.0, version=__version__)
        for name, text, value in (
            ("uptime_seconds", "Since the start.", stats.uptime),
            ("batch_size", "Frames given to the model at once.", stats.batch),
            ("resident_memory_bytes", "Memory of the process.", stats.rss_bytes),
            ("engine_memory_bytes", "Memory of the model on its device.", stats.engine_bytes),
            ("throttle_ratio", "Share of the full rate allowed.", share),
        ):
            yield from self._single(f"edge_fg_{name}", text, value)
        yield from self._sources(stats)
        yield from self._sinks(stats)
        yield from self._latencies(stats)
        if self._device is not None:
            yield from self._sensors(self._device())

    def _sources(self, stats: PipelineStats) -> Iterator[Any]:
        counter, gauge = self._core.CounterMetricFamily, self._core.GaugeMetricFamily
        frames = counter("edge_fg_frames", "Frames that a source gave.", labels=("source",))
        answers = counter("edge_fg_answers", "Frames that were answered.", labels=("source",))
        dropped = counter("edge_fg_dropped_frames", "Frames left out.", labels=("source", "reason"))
        happened = counter(
            "edge_fg_source_events", "What happened to a source.", labels=("source", "event")
        )
        waiting = gauge("edge_fg_waiting_frames", "Frames in the queue.", labels=("source",))
        state = gauge(
            "edge_fg_source_state", "1 for the state it is in.", labels=("source", "state")
        )
        info = gauge("edge_fg_source_info", "Names.", labels=("source", "name", "policy"))
        for i, source in enumerate(stats.sources):
            number = str(i)
            frames.add_metric((number,), source.frames)
            answers.add_metric((number,), source.answered)
            waiting.add_metric((number,), source.waiting)
            info.add_metric((number, printable(source.name), source.policy), 1)
            for reason, count in source.dropped.items():
                dropped.add_metric((number, reason), count)
            for name, count in source.counters.items():
                if name != "frames":
                    happened.add_metric((number, name), count)
            for name in dict.fromkeys((*_STATES, source.state)):
                state.add_metric((number, name), float(name == source.state))
        yield from (frames, answers, dropped, happened, waiting, state, info)

    def _sinks(self, stats: PipelineStats) -> Iterator[Any]:
        labels = ("sink", "name", "outcome")
        results = self._core.CounterMetricFamily(
            "edge_fg_sink_results", "Results given to a sink.", labels=labels
        )
        for i, sink in enumerate(stats.sinks):
            outcomes = {"written": sink.written, "dropped": sink.dropped, "failed": sink.failures}
            for outcome, count in outcomes.items():
                results.add_metric((str(i), printable(sink.name), outcome), count)
        yield results

    def _latencies(self, stats: PipelineStats) -> Iterator[Any]:
        stages = self._core.SummaryMetricFamily(
            "edge_fg_stage_duration_seconds", "Time that a stage took.", labels=("stage",)
        )
        for stage, summary in stats.stages.items():
            _add_summary(stages, {"stage": stage}, summary)
        age = self._core.SummaryMetricFamily(
            "edge_fg_frame_age_seconds", "From a frame's capture to its answer."
        )
        _add_summary(age, {}, stats.age)
        yield from (stages, age)

    def _sensors(self, state: DeviceState) -> Iterator[Any]:
        clocks = {str(core): value for core, value in enumerate(state.cpu_hz)}
        for name, text, label, values in (
            ("temperature_celsius", "Of a zone.", "zone", state.temperatures_c),
            ("power_watts", "Of a rail.", "rail", state.power_w),
            ("cpu_clock_hertz", "Of a core.", "core", clocks),
        ):
            family = self._core.GaugeMetricFamily(f"edge_fg_device_{name}", text, labels=(label,))
            for key, value in values.items():
                family.add_metric((key,), value)
            yield family
        for name, text, single in (
            ("total_power_watts", "Of the module.", state.total_power_w),
            ("gpu_load_ratio", "Share of the time that the GPU is busy.", state.gpu_load),
            ("gpu_clock_hertz", "Clock of the GPU.", state.gpu_hz),
            ("memory_used_bytes", "Main memory in use.", state.memory_used_bytes),
        ):
            yield from self._single(f"edge_fg_device_{name}", text, single)

    def _single(self, name: str, text: str, value: float | None, **labels: str) -> Iterator[Any]:
        """Yield a metric of one value; nothing where it is not known."""
        if value is not None:
            family = self._core.GaugeMetricFamily(name, text, labels=tuple(labels))
            family.add_metric(tuple(labels.values()), value)
            yield family


class MetricsServer(Closing):
    """Serves ``/metrics`` for Prometheus; a context manager.

    Parameters
    ----------
    collector
        What is served.
    port
        TCP port; 0 takes a free one, see `address`.
    host
        Address to bind to.
    allow_remote
        Let `host` be an address that others can reach.

    Raises
    ------
    MissingDependencyError
        prometheus-client is not installed.
    UsageError
        `host` is reachable by others and `allow_remote` is False.
    OutputError
        The port is taken, or `host` is not an address of this machine.
    """

    def __init__(
        self,
        collector: PipelineCollector,
        port: int = 9464,
        host: str = "127.0.0.1",
        *,
        allow_remote: bool = False,
    ) -> None:
        client, _ = _client()
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

        self._server = BoundedServer(
            (host, port), Handler, "metrics", HostNames(host), most=_MOST_CONNECTIONS
        )
        self._server.start("edge_fg-metrics")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens on."""
        return self._server.address

    def close(self) -> None:
        """Stop serving; may be called again."""
        self._server.close()


def _add_summary(family: Any, labels: dict[str, str], summary: Summary) -> None:
    quantiles = (("0.5", summary.p50), ("0.9", summary.p90), ("0.99", summary.p99))
    for quantile, value in quantiles if summary.count else ():
        family.add_sample(family.name, {**labels, "quantile": quantile}, value)
    family.add_metric(tuple(labels.values()), summary.count, summary.mean * summary.count)


def _client() -> tuple[Any, Any]:
    """Return prometheus_client and its module of metric families."""
    try:
        import prometheus_client
        from prometheus_client import core
    except ImportError as error:
        raise MissingDependencyError("prometheus-client", "metrics", "serve metrics") from error
    return prometheus_client, core
