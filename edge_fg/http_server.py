"""HTTP servers that no client can exhaust or deceive: for the preview and for the metrics."""

from __future__ import annotations

import contextlib
import http.server
import ipaddress
import logging
import socket
import sys
import threading
import time
from abc import ABC, abstractmethod
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from edge_fg.closing import Closing
from edge_fg.errors import OutputError, UsageError
from edge_fg.printing import reason

_LOGGER = logging.getLogger("edge_fg")
_POLL_SECONDS = 0.1
_LOOPBACK_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})

REQUEST_SECONDS = 10.0
"""Longest time for a request to arrive, and for the client to take each part of an answer."""

_POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_HEADERS = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    # Other sites may neither show what we serve nor read it.
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Content-Security-Policy", _POLICY),
)


def is_loopback(host: str) -> bool:
    """Return whether only programs on this machine can reach a server bound to `host`."""
    if host.lower() in _LOOPBACK_NAMES:
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def check_bindable(host: str, allow_remote: bool) -> None:
    """Raise a `UsageError` instead of showing a camera to the network by accident."""
    if not (allow_remote or is_loopback(host)):
        raise UsageError(
            f"with {host or 'an empty host'} everybody on the network can see what is served: bind "
            "to 127.0.0.1, or set allow_remote=True"
        )


class HostNames:
    """Names that requests may carry in their Host header.

    A foreign web page can let its own name resolve to this machine and so read what the machine
    serves (DNS rebinding). Requests of that page carry that name; others carry an address, or a
    name of the `host` that the server is bound to, or one of `more`: a proxy's, for example.
    """

    def __init__(self, host: str, more: tuple[str, ...] = ()) -> None:
        self._remote = not is_loopback(host)
        self._names = {name.lower() for name in (*_LOOPBACK_NAMES, *more)}
        if self._remote:
            own = socket.gethostname().lower()
            self._names |= {host.lower(), own, own.partition(".")[0], f"{own}.local"}

    def allows(self, header: str | None) -> bool:
        """Return whether a Host header names this server."""
        if header is None:
            return False
        name = _without_port(header.strip().lower()).rstrip(".")
        address = _address(name)
        if address is not None:
            # An address is not resolved, so a foreign page can't point it at this machine.
            return self._remote or address.is_loopback
        return name in self._names


def _without_port(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0]
    name, colon, port = header.rpartition(":")
    return name if colon and port.isdigit() else header


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


class BoundedServer(Closing, http.server.ThreadingHTTPServer):
    """Serves at once, each connection in a thread of its own, up to `max_connections` at a time.

    Further ones are closed at once, and a client that sends its request too slowly is cut off;
    `close` waits for no client. Requests may call the server by `allowed_hosts` too, see
    `HostNames`. Port 0 takes a free one. Errors and the log name what is served (`what`); an
    `OutputError` says that the address is taken, or not one of this machine's.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        address: tuple[str, int],
        handler: type[BoundedHandler],
        what: str,
        max_connections: int,
        allowed_hosts: tuple[str, ...] = (),
    ) -> None:
        host, port = address
        self.hosts = HostNames(host, allowed_hosts)
        self._what = what
        self._free = threading.BoundedSemaphore(max_connections)
        self._pending: dict[Any, float] = {}  # connections whose request is not complete
        self._lock = threading.Lock()
        self.request_queue_size = max_connections
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__(address, handler)
        except (OSError, OverflowError) as error:
            where = f"{host} port {port}"
            raise OutputError(f"can't serve the {what} on {where}: {reason(error)}") from error
        self._thread = threading.Thread(
            target=self.serve_forever, args=(_POLL_SECONDS,), name=f"edge_fg-{what}", daemon=True
        )
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens on."""
        host, port = self.server_address[:2]
        return str(host), int(port)

    def close(self) -> None:
        """Stop serving; may be called again."""
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join()
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a connection; refuse it where there are too many already."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        with self._lock:
            self._pending[request] = time.monotonic()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.received(request)
            self._free.release()

    def received(self, request: Any) -> None:
        """Note that the request of this connection is complete."""
        with self._lock:
            self._pending.pop(request, None)

    def service_actions(self) -> None:
        """Cut off connections whose request takes too long; called regularly while serving."""
        latest = time.monotonic() - REQUEST_SECONDS
        with self._lock:
            for request, started in self._pending.items():
                if started < latest:
                    # Its thread finds the end of the stream, and closes it.
                    with contextlib.suppress(OSError):
                        request.shutdown(socket.SHUT_RD)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Ignore a client that hung up; everything else that fails is a defect of ours."""
        if not isinstance(sys.exc_info()[1], OSError):
            _LOGGER.exception("a request to the %s failed", self._what)


class BoundedHandler(http.server.BaseHTTPRequestHandler, ABC):
    """Answers one request to a `BoundedServer`; a subclass has `answer`."""

    server: BoundedServer
    protocol_version = "HTTP/1.1"
    timeout = REQUEST_SECONDS
    server_version = "edge-fg"
    sys_version = ""

    @abstractmethod
    def answer(self, path: str) -> None:
        """Answer a GET request for `path`; the whole address stands in `url`."""

    def parse_request(self) -> bool:
        """Read the rest of a request."""
        complete = super().parse_request()
        self.server.received(self.connection)
        return complete

    def do_GET(self) -> None:
        """Answer, if the request is meant for this server."""
        self.close_connection = True  # one request a connection, so that they are easy to count
        if self.server.hosts.allows(self.headers.get("Host")):
            try:
                self.url = urlsplit(self.path)
            except ValueError:  # a broken IPv6 address, for instance
                self.send_text(HTTPStatus.BAD_REQUEST, "this is no address")
            else:
                self.answer(self.url.path)
        else:
            self.send_text(HTTPStatus.MISDIRECTED_REQUEST, "this server has another name")

    do_HEAD = do_GET  # noqa: N815  the name that http.server calls

    def send_text(self, status: HTTPStatus, text: str) -> None:
        """Send one line of text."""
        self.send(status, "text/plain; charset=utf-8", text + "\n")

    def send(self, status: HTTPStatus, kind: str, body: str | bytes) -> None:
        """Send a whole answer of the content type `kind`."""
        content = body.encode(errors="backslashreplace") if isinstance(body, str) else body
        self.send_head(status, kind, len(content))
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_head(self, status: HTTPStatus, kind: str, length: int | None) -> None:
        """Send what comes before the body; `length` is None where the body ends only with it."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        for name, value in _HEADERS:
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Log nothing: browsers and Prometheus send requests all the time."""
