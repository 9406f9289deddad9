"""The HTTP server of the preview."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from edge_fg.http_server import BoundedHandler, BoundedServer
from edge_fg.sinks.preview.latest_results import LatestResults
from edge_fg.sinks.preview.page import SCRIPT, STYLE, index_page

StatsFunction = Callable[[], Mapping[str, Any]]

_BOUNDARY = "edge-fg-frame"
_MAX_CONNECTIONS = 32
_IDLE_SECONDS = 1.0
_STALE_SECONDS = 10.0
# Small, so that a slow viewer's images wait here, where newer ones replace them.
_SEND_BUFFER_BYTES = 1 << 17


class PreviewServer(BoundedServer):
    """Serves the latest image of each source; see `BoundedServer` and `PreviewSink`."""

    def __init__(
        self,
        address: tuple[str, int],
        latest: LatestResults,
        *,
        allowed_hosts: tuple[str, ...],
        max_viewers: int,
        max_fps: float,
        stats: StatsFunction | None,
    ) -> None:
        self.latest = latest
        self.pause = 1 / max_fps
        self.stats = stats
        self.max_viewers = max_viewers
        self.viewers = 0
        self._counting = threading.Lock()
        super().__init__(address, _Handler, "preview", _MAX_CONNECTIONS, allowed_hosts)

    @contextlib.contextmanager
    def viewing(self) -> Iterator[bool]:
        """Count a viewer; gives False where the limit is reached."""
        with self._counting:
            admitted = self.viewers < self.max_viewers
            self.viewers += admitted
        try:
            yield admitted
        finally:
            with self._counting:
                self.viewers -= admitted

    def statistics(self) -> dict[str, Any]:
        """Return what ``/stats.json`` says."""
        pipeline = dict(self.stats()) if self.stats is not None else None
        states = [source.get("state") for source in (pipeline or {}).get("sources", ())]
        ages = [None if age is None else round(age, 3) for age in self.latest.ages()]
        sources = itertools.zip_longest(self.latest.names, ages, states[: len(ages)])
        return {
            "viewers": self.viewers,
            "sources": [{"name": n, "age_s": age, "state": state} for n, age, state in sources],
            "pipeline": pipeline,
        }


class _Handler(BoundedHandler):
    """Answers one request."""

    server: PreviewServer

    def answer(self, path: str) -> None:
        """Send the page, image or document at `path`."""
        latest = self.server.latest
        match path:
            case "/" | "/index.html":
                self.send(HTTPStatus.OK, "text/html; charset=utf-8", index_page(latest.names))
            case "/preview.css":
                self.send(HTTPStatus.OK, "text/css; charset=utf-8", STYLE)
            case "/preview.js":
                self.send(HTTPStatus.OK, "text/javascript; charset=utf-8", SCRIPT)
            case "/stats.json":
                document = json.dumps(_jsonable(self.server.statistics()), allow_nan=False)
                self.send(HTTPStatus.OK, "application/json", document + "\n")
            case "/stream.mjpg":
                self._stream()
            case "/snapshot.jpg":
                self._snapshot()
            case "/healthz":
                self._health()
            case _:
                self.send_text(HTTPStatus.NOT_FOUND, "there is no such page")

    def _health(self) -> None:
        """Say whether frames still come from every source; for process supervisors."""
        ages = self.server.latest.ages()
        late = [i for i, age in enumerate(ages) if age is None or age > _STALE_SECONDS]
        if late or self.server.latest.closed:
            where = ", ".join(map(str, late)) or "all"
            self.send_text(HTTPStatus.SERVICE_UNAVAILABLE, f"no fresh frames of source {where}")
        else:
            self.send_text(HTTPStatus.OK, "ok")

    def _snapshot(self) -> None:
        source = self._source()
        if source is None or (image := self.server.latest.image(source)) is None:
            self.send_text(HTTPStatus.NOT_FOUND, "there is no such image yet")
        else:
            self.send(HTTPStatus.OK, "image/jpeg", image)

    def _stream(self) -> None:
        source = self._source()
        if source is None:
            self.send_text(HTTPStatus.NOT_FOUND, "there is no such source")
            return
        with self.server.viewing() as admitted:
            if not admitted:
                self.send_text(HTTPStatus.SERVICE_UNAVAILABLE, "too many viewers")
                return
            self.send_head(HTTPStatus.OK, f"multipart/x-mixed-replace; boundary={_BOUNDARY}", None)
            if self.command != "HEAD":
                self._send_images(source)

    def _send_images(self, source: int) -> None:
        """Send images until the viewer or the pipeline goes."""
        latest = self.server.latest
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        seen = 0
        # An error ends the thread of a viewer that hung up, or that takes no image for long.
        while not latest.closed:
            started = time.monotonic()
            newest = latest.wait(source, seen, _IDLE_SECONDS)
            if newest == seen and not self._still_there():
                return
            if newest != seen and (image := latest.image(source)) is not None:
                seen = newest
                head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\n"
                head += f"Content-Length: {len(image)}\r\n\r\n"
                self.wfile.write(head.encode() + image + b"\r\n")
            time.sleep(max(0.0, self.server.pause - (time.monotonic() - started)))

    def _still_there(self) -> bool:
        """Return whether the viewer has not hung up: nothing else shows it without images."""
        self.connection.setblocking(False)
        try:
            return bool(self.connection.recv(1))
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            self.connection.settimeout(self.timeout)

    def _source(self) -> int | None:
        number = parse_qs(self.url.query).get("source", ["0"])[0]
        if not (number.isascii() and number.isdigit() and len(number) < 5):
            return None
        return int(number) if int(number) < len(self.server.latest.names) else None


def _jsonable(value: Any) -> Any:
    """Return the same with None for NaN and infinity, which JSON doesn't have."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
