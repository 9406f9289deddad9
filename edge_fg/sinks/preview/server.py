"""The HTTP server of the preview."""

from __future__ import annotations

import contextlib
import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from edge_fg.http_hosts import HostNames
from edge_fg.http_server import BoundedHandler, BoundedServer
from edge_fg.sinks.preview.hub import Hub
from edge_fg.sinks.preview.page import SCRIPT, STYLE, index_page

StatsFunction = Callable[[], Mapping[str, Any]]

_BOUNDARY = "edge-fg-frame"
_MOST_CONNECTIONS = 32
_IDLE_SECONDS = 1.0
_STALE_SECONDS = 10.0
# Small, so that a slow viewer's images wait in our hands, where newer ones replace them.
_SEND_BUFFER_BYTES = 1 << 17
_POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_HEADERS = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    # Other sites may neither show our images nor read them.
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Content-Security-Policy", _POLICY),
)


class PreviewServer(BoundedServer):
    """Serves the images of a hub.

    Parameters
    ----------
    address
        Host and port; port 0 takes a free one.
    hub
        Where the images come from.
    hosts
        Names that it may be called by.
    max_viewers
        Streams at a time.
    max_fps
        Images a second for one viewer.
    stats
        What ``/stats.json`` tells of the pipeline; None for nothing.

    Raises
    ------
    OutputError
        The address is taken, or not one of this machine's.
    """

    def __init__(
        self,
        address: tuple[str, int],
        hub: Hub,
        hosts: HostNames,
        *,
        max_viewers: int,
        max_fps: float,
        stats: StatsFunction | None,
    ) -> None:
        self.hub = hub
        self.hosts = hosts
        self.pause = 1 / max_fps
        self.stats = stats
        self.max_viewers = max_viewers
        self.viewers = 0
        self._counting = threading.Lock()
        super().__init__(address, _Handler, "the preview", most=_MOST_CONNECTIONS)

    @contextlib.contextmanager
    def viewing(self) -> Iterator[bool]:
        """Count a viewer; gives False where there are as many as may be."""
        with self._counting:
            welcome = self.viewers < self.max_viewers
            self.viewers += welcome
        try:
            yield welcome
        finally:
            with self._counting:
                self.viewers -= welcome

    def statistics(self) -> dict[str, Any]:
        """Return what ``/stats.json`` tells."""
        pipeline = dict(self.stats()) if self.stats is not None else None
        states = [source.get("state") for source in (pipeline or {}).get("sources", ())]
        return {
            "viewers": self.viewers,
            "sources": [
                {
                    "name": name,
                    "age_s": None if age is None else round(age, 3),
                    "state": states[i] if i < len(states) else None,
                }
                for i, (name, age) in enumerate(zip(self.hub.names, self.hub.ages(), strict=True))
            ],
            "pipeline": pipeline,
        }


class _Handler(BoundedHandler):
    """Answers one request."""

    server: PreviewServer
    protocol_version = "HTTP/1.1"

    _ROUTES: ClassVar[dict[str, str]] = {
        "/": "_index",
        "/index.html": "_index",
        "/preview.css": "_style",
        "/preview.js": "_script",
        "/stream.mjpg": "_stream",
        "/snapshot.jpg": "_snapshot",
        "/stats.json": "_stats",
        "/healthz": "_health",
    }

    def do_GET(self) -> None:  # noqa: N802  the name that http.server calls
        """Answer."""
        self.close_connection = True  # one request a connection, so that they are easy to count
        if not self.server.hosts.allows(self.headers.get("Host")):
            self._text(HTTPStatus.MISDIRECTED_REQUEST, "this is not the host that was asked for\n")
            return
        answer = self._ROUTES.get(urlsplit(self.path).path)
        if answer is None:
            self._text(HTTPStatus.NOT_FOUND, "there is no such page\n")
            return
        getattr(self, answer)()

    do_HEAD = do_GET  # noqa: N815  the name that http.server calls

    def _index(self) -> None:
        self._send(HTTPStatus.OK, "text/html; charset=utf-8", index_page(self.server.hub.names))

    def _style(self) -> None:
        self._send(HTTPStatus.OK, "text/css; charset=utf-8", STYLE)

    def _script(self) -> None:
        self._send(HTTPStatus.OK, "text/javascript; charset=utf-8", SCRIPT)

    def _stats(self) -> None:
        document = json.dumps(_jsonable(self.server.statistics()), allow_nan=False)
        self._send(HTTPStatus.OK, "application/json", document + "\n")

    def _health(self) -> None:
        """Say whether frames still come from every source: for supervisors."""
        ages = self.server.hub.ages()
        late = [i for i, age in enumerate(ages) if age is None or age > _STALE_SECONDS]
        if late or self.server.hub.closed:
            where = ", ".join(map(str, late)) or "all"
            self._text(HTTPStatus.SERVICE_UNAVAILABLE, f"no fresh frames of source {where}\n")
        else:
            self._text(HTTPStatus.OK, "ok\n")

    def _snapshot(self) -> None:
        source = self._source()
        image = None if source is None else self.server.hub.image(source)
        if image is None:
            self._text(HTTPStatus.NOT_FOUND, "there is no such image yet\n")
        else:
            self._send(HTTPStatus.OK, "image/jpeg", image)

    def _stream(self) -> None:
        source = self._source()
        if source is None:
            self._text(HTTPStatus.NOT_FOUND, "there is no such source\n")
            return
        with self.server.viewing() as welcome:
            if not welcome:
                self._text(HTTPStatus.SERVICE_UNAVAILABLE, "too many viewers\n")
                return
            self._start(HTTPStatus.OK, f"multipart/x-mixed-replace; boundary={_BOUNDARY}", None)
            if self.command != "HEAD":
                self._send_images(source)

    def _send_images(self, source: int) -> None:
        """Send images until the viewer or the pipeline goes."""
        hub = self.server.hub
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        seen = 0
        # Whoever is gone, or takes no image for long, has his thread ended by an error.
        while not hub.closed:
            started = time.monotonic()
            newest = hub.wait(source, seen, _IDLE_SECONDS)
            if newest == seen and not self._still_there():
                return
            if newest != seen and (image := hub.image(source)) is not None:
                seen = newest
                head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\n"
                head += f"Content-Length: {len(image)}\r\n\r\n"
                self.wfile.write(head.encode() + image + b"\r\n")
            time.sleep(max(0.0, self.server.pause - (time.monotonic() - started)))

    def _still_there(self) -> bool:
        """Return whether the viewer has not hung up: without images nothing else would tell."""
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
        asked = parse_qs(urlsplit(self.path).query).get("source", ["0"])[0]
        if not (asked.isascii() and asked.isdigit() and len(asked) < 5):
            return None
        return int(asked) if int(asked) < len(self.server.hub.names) else None

    def _text(self, status: HTTPStatus, text: str) -> None:
        self._send(status, "text/plain; charset=utf-8", text)

    def _send(self, status: HTTPStatus, kind: str, body: str | bytes) -> None:
        content = body.encode(errors="backslashreplace") if isinstance(body, str) else body
        self._start(status, kind, len(content))
        if self.command != "HEAD":
            self.wfile.write(content)

    def _start(self, status: HTTPStatus, kind: str, length: int | None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        for name, value in _HEADERS:
            self.send_header(name, value)
        self.end_headers()


def _jsonable(value: Any) -> Any:
    """Return the same with None for what JSON doesn't know: NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
