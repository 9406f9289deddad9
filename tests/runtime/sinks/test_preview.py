"""The preview for browsers: what it serves, to whom, and that nobody waits for anybody."""

from __future__ import annotations

import gc
import http.client
import io
import json
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_fg.errors import OutputError, UsageError
from edge_fg.http_server import HostNames, is_loopback
from edge_fg.sinks import PreviewSink
from edge_fg.sinks.preview import server as server_module
from support import sink_results as results
from support.waiting import HANG, new_threads, unchanged, until


@pytest.fixture
def preview():
    """Makes and opens previews; closes them at the end."""
    with ExitStack() as opened:

        def make(*sources: str, **options) -> PreviewSink:
            options.setdefault("annotate", lambda result: result.frame.image)
            sink = PreviewSink(0, **options)
            sink.open([results.Camera(name, live=True) for name in sources or ("cam",)])
            opened.callback(sink.close)
            return sink

        yield make


def ask(sink, path="/", host=None, method="GET"):
    connection = http.client.HTTPConnection(*sink.address, timeout=HANG)
    headers = {} if host is None else {"Host": host}
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body


class Viewer:
    """Reads a stream image by image."""

    def __init__(self, sink, path="/stream.mjpg", buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.settimeout(10)
        self.socket.connect(sink.address)
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        self.file = self.socket.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        self.headers = http.client.parse_headers(self.file)

    def receive(self) -> np.ndarray:
        assert self.file.readline() == b"--edge-fg-frame\r\n"
        length = int(http.client.parse_headers(self.file)["Content-Length"])
        data = self.file.read(length)
        assert self.file.read(2) == b"\r\n"
        return np.asarray(Image.open(io.BytesIO(data)))

    def close(self) -> None:
        self.file.close()
        self.socket.close()


def value(image: np.ndarray) -> int:
    return round(float(image.mean()))


def test_the_page_shows_every_source(preview) -> None:
    sink = preview("nest <1>", 'a"b')
    status, headers, body = ask(sink)
    page = body.decode()
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert "nest &lt;1&gt;" in page
    assert "a&quot;b" in page
    assert page.count("<img") == 2
    for path in ("preview.css", "preview.js"):
        assert path in page
        assert ask(sink, f"/{path}")[0] == 200


def test_nothing_may_be_embedded_or_kept_elsewhere(preview) -> None:
    headers = ask(preview())[1]
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert "Python" not in headers["Server"]


def test_a_snapshot_is_the_newest_image(preview) -> None:
    sink = preview("a", "b")
    assert ask(sink, "/snapshot.jpg")[0] == 404
    sink(results.result(0, results.grey(value=10)))
    sink(results.result(1, results.grey(value=200)))
    sink(results.result(0, results.grey(value=90), source_index=1))
    for path, wanted in (("/snapshot.jpg", 200), ("/snapshot.jpg?source=1", 90)):
        status, headers, body = ask(sink, path)
        assert (status, headers["Content-Type"]) == (200, "image/jpeg")
        assert value(np.asarray(Image.open(io.BytesIO(body)))) == wanted
    for wrong in ("2", "-1", "x", "99999999999", "%00"):
        assert ask(sink, f"/snapshot.jpg?source={wrong}")[0] == 404


def test_a_stream_gives_each_new_image(preview) -> None:
    sink = preview(max_fps=1000)
    viewer = Viewer(sink)
    assert viewer.status == 200
    assert "multipart/x-mixed-replace" in viewer.headers["Content-Type"]
    for number in range(5):
        sink(results.result(number, results.grey(value=40 * number)))
        assert value(viewer.receive()) == 40 * number
    viewer.close()


def test_several_viewers_share_one_drawing(preview) -> None:
    drawn = []

    def annotate(result):
        drawn.append(result.frame.number)
        return result.frame.image

    sink = preview(annotate=annotate, max_fps=1000)
    sink(results.result(0))
    assert unchanged(lambda: len(drawn)) == 0  # nobody looks
    viewers = [Viewer(sink) for _ in range(4)]
    for viewer in viewers:
        viewer.receive()
    assert drawn == [0]
    for viewer in viewers:
        viewer.close()


def test_a_slow_viewer_gets_fewer_images_and_nobody_waits(preview) -> None:
    sink = preview(max_fps=1000)
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    slow = Viewer(sink, buffer=1 << 16)
    fast = Viewer(sink)
    for number in range(40):
        sink(results.result(number, np.roll(noise, number, axis=1)))
        fast.receive()  # each one comes, although the other takes none
    taken = 0
    slow.socket.settimeout(1.0)
    try:
        while True:
            slow.receive()
            taken += 1
    except (TimeoutError, OSError):
        pass
    assert 0 < taken < 40
    for viewer in (slow, fast):
        viewer.close()


def test_images_come_no_faster_than_asked(preview) -> None:
    sink = preview(max_fps=20)
    started = time.monotonic()
    viewer = Viewer(sink)
    stop = threading.Event()

    def feed():
        number = 0
        while not stop.is_set():
            sink(results.result(number))
            number += 1
            time.sleep(0.002)

    thread = threading.Thread(target=feed)
    thread.start()
    for _ in range(11):
        viewer.receive()
    seconds = time.monotonic() - started
    stop.set()
    thread.join()
    assert seconds > 0.45
    viewer.close()


def test_more_viewers_than_allowed_are_sent_away_and_may_come_back(preview) -> None:
    sink = preview(max_viewers=2)
    viewers = [Viewer(sink) for _ in range(3)]
    assert [viewer.status for viewer in viewers] == [200, 200, 503]
    for viewer in viewers:
        viewer.close()
    # A viewer who hangs up is noticed though no image comes.
    until(lambda: json.loads(ask(sink, "/stats.json")[2])["viewers"] == 0)
    again = Viewer(sink)
    assert again.status == 200
    again.close()


def test_connections_that_say_nothing_are_bounded(preview, monkeypatch) -> None:
    monkeypatch.setattr(server_module._Handler, "timeout", 1.0)
    sink = preview()
    before = set(threading.enumerate())
    idle = [socket.create_connection(sink.address) for _ in range(60)]
    until(lambda: new_threads(before))
    assert unchanged(lambda: len(new_threads(before))) <= server_module._MAX_CONNECTIONS
    until(lambda: not new_threads(before))
    assert ask(sink)[0] == 200
    for one in idle:
        one.close()


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "localhost.evil", "10.0.0.9"]
)
def test_foreign_host_names_are_refused(preview, host) -> None:
    sink = preview()
    sink(results.result())
    for path in ("/", "/snapshot.jpg", "/stats.json", "/stream.mjpg", "/healthz"):
        status, _, body = ask(sink, path, host=host)
        assert status == 421
        assert b"JFIF" not in body


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]:8080", "[::1]"]
)
def test_our_own_host_names_are_taken(preview, host) -> None:
    assert ask(preview(), host=host)[0] == 200


def test_names_of_a_server_for_the_network() -> None:
    hosts = HostNames("0.0.0.0", ("nest.example",))
    for name in ("nest.example:8080", "192.168.1.5", socket.gethostname(), "[fe80::1]"):
        assert hosts.allows(name), name
    assert not hosts.allows("evil.example")
    assert not hosts.allows(None)
    assert not hosts.allows("")


def test_the_network_is_only_served_when_asked() -> None:
    for host in ("0.0.0.0", "::", "", "192.168.1.5", "nest.local"):
        assert not is_loopback(host)
        with pytest.raises(UsageError, match="allow_remote"):
            PreviewSink(0, host)
    assert is_loopback("127.9.9.9")
    assert PreviewSink(0, "0.0.0.0", allow_remote=True).url == "http://localhost:0/"


def test_ports_that_can_not_be_had(preview) -> None:
    taken = preview()
    with pytest.raises(OutputError, match=r"127\.0\.0\.1 port \d+: Address already in use"):
        PreviewSink(taken.address[1]).open([results.Camera("a")])
    with pytest.raises(OutputError, match="can't serve the preview on 192"):
        PreviewSink(0, "192.0.2.1", allow_remote=True).open([results.Camera("a")])


@pytest.mark.parametrize(
    "wrong", [{"port": 70000}, {"quality": 0}, {"max_fps": 0}, {"max_viewers": 0}]
)
def test_arguments_that_make_no_sense(wrong) -> None:
    with pytest.raises(UsageError):
        PreviewSink(**wrong)


def test_statistics_are_json_whatever_they_hold(preview) -> None:
    stats = {"rate": float("nan"), "sources": ({"state": "live"},), 3: [float("inf"), "é"]}
    sink = preview(stats=lambda: stats)
    sink(results.result())
    document = json.loads(ask(sink, "/stats.json")[2], parse_constant=pytest.fail)
    assert document["sources"][0]["name"] == "cam"
    assert document["sources"][0]["state"] == "live"
    assert 0 <= document["sources"][0]["age_s"] < 5
    assert document["pipeline"] == {
        "rate": None,
        "sources": [{"state": "live"}],
        "3": [None, "é"],
    }


def test_health_says_whether_frames_come(preview, monkeypatch) -> None:
    sink = preview("a", "b")
    sink(results.result())
    assert ask(sink, "/healthz")[::2] == (503, b"no fresh frames of source 1\n")
    sink(results.result(source_index=1))
    assert ask(sink, "/healthz")[::2] == (200, b"ok\n")
    monkeypatch.setattr(server_module, "_STALE_SECONDS", 0.0)
    assert ask(sink, "/healthz")[0] == 503


def test_heads_unknown_pages_and_other_methods(preview) -> None:
    sink = preview()
    sink(results.result())
    for path in ("/", "/snapshot.jpg", "/stream.mjpg"):
        status, _, body = ask(sink, path, method="HEAD")
        assert (status, body) == (200, b"")
    assert ask(sink, "/../etc/passwd")[0] == 404
    assert ask(sink, "/", method="POST")[0] == 501


def test_garbage_is_survived(preview) -> None:
    sink = preview()
    for garbage in (
        b"\0" * 100,
        b"GET\r\n\r\n",
        b"G" * 70_000 + b"\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ):
        with socket.create_connection(sink.address, timeout=HANG) as raw:
            raw.sendall(garbage)
            raw.shutdown(socket.SHUT_WR)
            raw.recv(1000)
    assert ask(sink)[0] == 200


def test_closing_ends_the_streams_and_frees_the_port() -> None:
    before = set(threading.enumerate())
    sink = PreviewSink(0, annotate=lambda result: result.frame.image)
    sink.open([results.Camera("a")])
    address = sink.address
    sink(results.result())
    viewer = Viewer(sink)
    viewer.receive()
    sink.close()
    sink.close()
    assert viewer.file.read() == b""
    viewer.close()
    until(lambda: not new_threads(before))
    again = PreviewSink(address[1])
    again.open([results.Camera("a")])
    again.close()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.slow
def test_a_thousand_viewers_leave_nothing(preview) -> None:
    sink = preview(max_fps=1000)
    sink(results.result())
    for _ in range(50):
        Viewer(sink).close()
    gc.collect()
    until(lambda: json.loads(ask(sink, "/stats.json")[2])["viewers"] == 0)
    before = descriptors(), threading.active_count()
    for number in range(1000):
        viewer = Viewer(sink)
        sink(results.result(number))
        viewer.receive()
        viewer.close()
    until(lambda: threading.active_count() <= before[1] + 1)
    assert descriptors() <= before[0] + 2


def test_it_serves_over_ipv6_too() -> None:
    sink = PreviewSink(0, "::1", annotate=lambda result: result.frame.image)
    try:
        sink.open([results.Camera("a")])
    except OutputError:
        pytest.skip("this machine has no IPv6")
    assert sink.url == f"http://[::1]:{sink.address[1]}/"
    assert ask(sink, host=f"[::1]:{sink.address[1]}")[0] == 200
    assert ask(sink, host="evil.example")[0] == 421
    sink.close()
