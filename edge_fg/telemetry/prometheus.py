"""Figures for Prometheus: https://prometheus.io/docs/practices/naming/ says how they are named."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
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
_POLL_SECONDS = 0.1
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
        yield self._single("edge_fg_build_info", "Version.", 1.0, {"version": __version__})
        yield self._single("edge_fg_uptime_seconds", "Since the start.", stats.uptime)
        yield self._single("edge_fg_batch_size", "Frames given to the model at once.", stats.batch)
        if stats.rss_bytes is not None:
            yield self._single(
                "edge_fg_resident_memory_bytes", "Memory of the process.", stats.rss_bytes
            )
        if stats.engine_bytes is not None:
            yield self._single(
                "edge_fg_engine_memory_bytes", "Memory of the model on its device.",
                stats.engine_bytes,
            )  # fmt: skip
        yield from self._sources(stats)
        yield from self._sinks(stats)
        yield from self._latencies(stats)
        yield from self._throttle(stats)
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

    def _throttle(self, stats: PipelineStats) -> Iterator[Any]:
        if stats.throttle is not None:
            yield self._single(
                "edge_fg_throttle_ratio", "Share of the full rate allowed.", stats.throttle.share
            )

    def _sensors(self, state: DeviceState) -> Iterator[Any]:
        gauge = self._core.GaugeMetricFamily
        heat = gauge("edge_fg_device_temperature_celsius", "Of a zone.", labels=("zone",))
        for zone, value in state.temperatures_c.items():
            heat.add_metric((zone,), value)
        power = gauge("edge_fg_device_power_watts", "Of a rail.", labels=("rail",))
        for rail, value in state.power_w.items():
            power.add_metric((rail,), value)
        clocks = gauge("edge_fg_device_cpu_clock_hertz", "Of a core.", labels=("core",))
        for i, value in enumerate(state.cpu_hz):
            clocks.add_metric((str(i),), value)
        yield from (heat, power, clocks)
        for name, text, single in (
            ("total_power_watts", "Of the module.", state.total_power_w),
            ("gpu_load_ratio", "Share of the time that the GPU is busy.", state.gpu_load),
            ("gpu_clock_hertz", "Clock of the GPU.", state.gpu_hz),
            ("memory_used_bytes", "Main memory in use.", state.memory_used_bytes),
        ):
            if single is not None:
                yield self._single(f"edge_fg_device_{name}", text, single)

    def _single(
        self, name: str, text: str, value: float, labels: Mapping[str, str] | None = None
    ) -> Any:
        labels = labels or {}
        family = self._core.GaugeMetricFamily(name, text, labels=tuple(labels))
        family.add_metric(tuple(labels.values()), value)
        return family


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
        handler = _make_handler(client, registry, HostNames(host))
        self._server = BoundedServer((host, port), handler, "metrics", most=_MOST_CONNECTIONS)
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            args=(_POLL_SECONDS,),
            name="edge_fg-metrics",
            daemon=True,
        )
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens on."""
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    def close(self) -> None:
        """Stop serving; may be called again."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


def _make_handler(client: Any, registry: Any, hosts: HostNames) -> type[BoundedHandler]:
    class Handler(BoundedHandler):
        def do_GET(self) -> None:  # noqa: N802  the name that http.server calls
            status, kind, body = 200, client.CONTENT_TYPE_LATEST, b""
            if not hosts.allows(self.headers.get("Host")):
                status, kind, body = 421, "text/plain", b"this is not the host asked for\n"
            elif self.path.partition("?")[0] not in ("/", "/metrics"):
                status, kind, body = 404, "text/plain", b"see /metrics\n"
            else:
                body = client.generate_latest(registry)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

    return Handler


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
