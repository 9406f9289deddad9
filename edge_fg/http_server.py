"""HTTP servers that whoever can reach them can't bring down: the preview and the figures."""

from __future__ import annotations

import contextlib
import http.server
import logging
import socket
import sys
import threading
import time
from typing import Any

from edge_fg.errors import OutputError
from edge_fg.printing import reason

_LOGGER = logging.getLogger("edge_fg")

REQUEST_SECONDS = 10.0
"""For a whole request to come, and for each answer, or image of one, to be taken."""


class BoundedServer(http.server.ThreadingHTTPServer):
    """Serves each connection in a thread of its own, and not more than some at a time.

    A client that sends its request drop by drop is cut off; closing the server waits for none.

    Parameters
    ----------
    address
        Host and port; port 0 takes a free one.
    handler
        Answers a request.
    what
        What is served, for errors and the log.
    most
        Connections at a time; others are hung up on.

    Raises
    ------
    OutputError
        The address is taken, or not one of this machine's.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(
        self, address: tuple[str, int], handler: type[BoundedHandler], what: str, *, most: int
    ) -> None:
        self._what = what
        self._free = threading.BoundedSemaphore(most)
        self._asking: dict[Any, float] = {}  # connections whose request is still to come
        self._lock = threading.Lock()
        self.request_queue_size = most
        host, port = address
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__(address, handler)
        except (OSError, OverflowError) as error:
            where = f"{host} port {port}"
            raise OutputError(f"can't serve {what} on {where}: {reason(error)}") from error

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a connection; refuse it where there are too many already."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        with self._lock:
            self._asking[request] = time.monotonic()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.heard(request)
            self._free.release()

    def heard(self, request: Any) -> None:
        """Note that the whole request of this connection has come."""
        with self._lock:
            self._asking.pop(request, None)

    def service_actions(self) -> None:
        """Cut off who doesn't get to the end of a request; called now and then while serving."""
        latest = time.monotonic() - REQUEST_SECONDS
        with self._lock:
            for request, since in self._asking.items():
                if since < latest:
                    # Its thread finds the end of the stream, and closes it.
                    with contextlib.suppress(OSError):
                        request.shutdown(socket.SHUT_RD)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Say nothing of a client who went away; what else fails is a defect of ours."""
        if not isinstance(sys.exc_info()[1], OSError):
            _LOGGER.exception("a request to %s failed", self._what)


class BoundedHandler(http.server.BaseHTTPRequestHandler):
    """Reads a request for a `BoundedServer`; a subclass has `do_GET`."""

    server: BoundedServer
    timeout = REQUEST_SECONDS
    server_version = "edge-fg"
    sys_version = ""

    def parse_request(self) -> bool:
        """Read the rest of a request."""
        whole = super().parse_request()
        self.server.heard(self.connection)
        return whole

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Say nothing: browsers and Prometheus ask all the time."""
