"""What a pipeline is doing: the status line, the summary, and metrics for Prometheus."""

from __future__ import annotations

import contextlib
import http.client
import io
import select
import socket
import sys
from dataclasses import replace

import pytest

from edge_fg import http_server
from edge_fg.errors import MissingDependencyError, OutputError, UsageError
from edge_fg.pipeline import Pipeline
from edge_fg.sinks import CallbackSink
from edge_fg.telemetry.device import DeviceState
from edge_fg.telemetry.histogram import Summary
from edge_fg.telemetry.prometheus import MetricsServer, PipelineCollector
from edge_fg.telemetry.stats import PipelineStats, SinkStats, SourceStats, ThrottleStats
from edge_fg.telemetry.status_line import StatusLine, status_text, summary_text
from support import pipeline_fakes as fakes
from support import sink_results as results
from support.waiting import HANG

AGE = Summary(250, 0.02, 0.018, 0.03, 0.2, 12.5)
STATS = PipelineStats(
    state="running",
    uptime=20.0,
    answered=250,
    rate=12.34,
    batch=2,
    sources=(
        SourceStats(
            "rtsp://10.0.0.7/nest",
            "lost",
            None,
            "latest",
            400,
            240,
            {"overtaken": 150, "stale": 10},
            1,
            {"frames": 400, "reconnects": 3, "stalls": 0, "size_changes": 1},
        ),
        SourceStats("b\x1b.mp4", "ended", "b.mp4 is torn", "every", 10, 10, {}, 0, {}),
    ),
    sinks=(
        SinkStats("video to a.mp4", "failing", 200, 40, 10, "the disk is full", 0, AGE),
        SinkStats("preview", "open", 250, 0, 0, None, 0, AGE),
    ),
    stages={"inference": AGE, "visits": Summary(0, 0, 0, 0, 0, 0)},
    age=AGE,
    throttle=ThrottleStats(0.5, 6.0, "81.0 °C is over 80 °C", 81.0, 7.5),
    rss_bytes=410_000_000,
    engine_bytes=25_000_000,
)
DEVICE = DeviceState(
    temperatures_c={"cpu": 80.0, "tj": 81.0},
    power_w={"VDD_IN": 7.5},
    gpu_load=0.75,
    gpu_hz=612e6,
    cpu_hz=(1.4e9, 1.5e9),
)


def test_one_line_says_what_matters() -> None:
    assert status_text(STATS, DEVICE) == (
        "250 answers, 12.3/s | age 18 ms (p99 200 ms) | 160 dropped | rtsp://10.0.0.7/nest lost "
        "(3 reconnects) | b\\x1b.mp4 ended | video to a.mp4 is failing | "
        "throttled to 50%: 81.0 °C is over 80 °C | 81 °C | 7.5 W | 410 MB"
    )


def test_the_summary_says_what_became_of_every_frame() -> None:
    text = summary_text(STATS, {"Wren": 2, None: 1, "Little\nOwl": 5})
    lines = [line.strip() for line in text.splitlines()]
    assert lines[0] == "250 answers in 20.0 s (12.5/s)"
    assert lines[1] == (
        "rtsp://10.0.0.7/nest: 400 frames, 240 answered, 160 dropped (150 overtaken, 10 stale), "
        "3 reconnects, 1 size changes"
    )
    assert lines[2] == "b\\x1b.mp4: 10 frames, 10 answered; b.mp4 is torn"
    assert "frame age at the answer: p50 18 ms, p90 30 ms, p99 200 ms, max 12 s" in lines[3]
    assert lines[4].startswith("inference: p50")
    assert lines[5] == "video to a.mp4: 200 written, 40 dropped, 10 failed (the disk is full)"
    assert lines[6] == "visits: 5 Little\\nOwl, 2 Wren, 1 undecided"
    assert len(lines) == 7
    assert "visits: none" in summary_text(STATS, {})


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_one_line(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    line = StatusLine(stream)
    line.update(STATS)
    line.update(STATS)
    shown = stream.getvalue()
    assert "\n" not in shown
    assert shown.count("\r\x1b[K") == 2
    assert len(shown.split("\r\x1b[K")[1]) == 39
    line.clear()
    line.clear()
    assert stream.getvalue() == shown + "\r\x1b[K"


def test_elsewhere_a_plain_line_comes_now_and_then() -> None:
    now = [0.0]
    stream = io.StringIO()
    line = StatusLine(stream, every_seconds=10, clock=lambda: now[0])
    for second in range(25):
        now[0] = float(second)
        line.update(STATS)
    line.clear()
    assert len(stream.getvalue().splitlines()) == 3
    assert "\x1b" not in stream.getvalue()


# ---------------------------------------------------------------- Prometheus


def scrape(server, path="/metrics", host=None):
    connection = http.client.HTTPConnection(*server.address, timeout=HANG)
    connection.request("GET", path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    parser = pytest.importorskip("prometheus_client.parser")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_prometheus_reads_what_is_served() -> None:
    pytest.importorskip("prometheus_client")
    with MetricsServer(PipelineCollector(lambda: STATS, lambda: DEVICE), 0) as server:
        status, body = scrape(server)
    assert status == 200
    found = samples(body)

    def value(name, /, **labels):
        return found[f"edge_fg_{name}", tuple(sorted(labels.items()))]

    assert value("frames_total", source="0") == 400
    assert value("answers_total", source="1") == 10
    assert value("dropped_frames_total", source="0", reason="stale") == 10
    assert value("source_events_total", source="0", event="reconnects") == 3
    assert value("source_state", source="0", state="lost") == 1
    assert value("source_state", source="0", state="live") == 0
    assert value("source_info", source="0", name="rtsp://10.0.0.7/nest", policy="latest") == 1
    assert value("waiting_frames", source="0") == 1
    assert value("frame_age_seconds", quantile="0.99") == 0.2
    assert value("frame_age_seconds_count") == 250
    assert value("frame_age_seconds_sum") == pytest.approx(5.0)
    assert value("stage_duration_seconds", stage="inference", quantile="0.5") == 0.018
    assert value("stage_duration_seconds_count", stage="visits") == 0
    assert value("sink_results_total", sink="0", name="video to a.mp4", outcome="failed") == 10
    assert value("throttle_ratio") == 0.5
    assert value("resident_memory_bytes") == 410_000_000
    assert value("engine_memory_bytes") == 25_000_000
    assert value("device_temperature_celsius", zone="tj") == 81
    assert value("device_power_watts", rail="VDD_IN") == 7.5
    assert value("device_total_power_watts") == 7.5
    assert value("device_gpu_load_ratio") == 0.75
    assert value("device_cpu_clock_hertz", core="1") == 1.5e9
    # What is not known is not there, rather than zero.
    assert not [name for name, _ in found if "memory_used" in name]


def test_the_figures_are_those_of_the_moment() -> None:
    pytest.importorskip("prometheus_client")
    seen = []
    pipeline = Pipeline(
        fakes.Numbers(25), lambda image: results.prediction(), sinks=[CallbackSink(seen.append)]
    )
    with MetricsServer(PipelineCollector(pipeline.stats), 0) as server:
        assert samples(scrape(server)[1])["edge_fg_answers_total", (("source", "0"),)] == 0
        pipeline.run()
        after = samples(scrape(server)[1])
    assert after["edge_fg_answers_total", (("source", "0"),)] == len(seen) == 25
    assert after["edge_fg_frame_age_seconds_count", ()] == 25


def test_only_metrics_are_served_and_only_to_us() -> None:
    pytest.importorskip("prometheus_client")
    collector = PipelineCollector(lambda: STATS)
    with MetricsServer(collector, 0) as server:
        assert scrape(server, "/other")[0] == 404
        assert scrape(server, host="evil.example")[0] == 421
        assert scrape(server, "/metrics?x=1")[0] == 200
        with pytest.raises(OutputError, match="Address already in use"):
            MetricsServer(collector, server.address[1])
    with pytest.raises(UsageError, match="allow_remote"):
        MetricsServer(collector, 0, "0.0.0.0")
    server.close()


def test_an_address_that_is_none_is_answered_and_not_logged(caplog) -> None:
    pytest.importorskip("prometheus_client")
    with (
        MetricsServer(PipelineCollector(lambda: STATS), 0) as server,
        socket.create_connection(server.address, timeout=HANG) as connection,
    ):
        connection.sendall(b"GET http://[x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 400 ")
    assert "Traceback" not in caplog.text


def test_names_that_are_not_utf8_are_served_escaped() -> None:
    pytest.importorskip("prometheus_client")
    odd = replace(STATS, sinks=(replace(STATS.sinks[0], name="video to \udcff.mp4"),))
    odd = replace(odd, sources=(replace(STATS.sources[0], name="\udcff.mp4"),))
    with MetricsServer(PipelineCollector(lambda: odd), 0) as server:
        status, body = scrape(server)
    assert status == 200
    assert 'name="\\\\udcff.mp4"' in body
    assert 'name="video to \\\\udcff.mp4"' in body


def test_a_client_that_never_gets_to_the_end_holds_up_nobody(monkeypatch) -> None:
    pytest.importorskip("prometheus_client")
    monkeypatch.setattr(http_server, "REQUEST_SECONDS", 0.5)
    with MetricsServer(PipelineCollector(lambda: STATS), 0) as server:
        slow = socket.create_connection(server.address, timeout=HANG)
        slow.sendall(b"GET /metrics HTTP/1.1\r\n")
        assert scrape(server)[0] == 200
        with contextlib.suppress(ConnectionError):  # a line every 50 ms, until it is sent away
            while not select.select([slow], [], [], 0.05)[0]:
                slow.sendall(b"X: 1\r\n")
        slow.close()
        another = socket.create_connection(server.address)
        another.sendall(b"GET /metrics HTTP/1.1\r\n")
    another.close()


def test_prometheus_client_is_asked_for_when_missing(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MissingDependencyError, match=r"edge-fg\[metrics\]"):
        PipelineCollector(lambda: STATS)
