"""A camera on loopback that can be killed, stalled, slowed, and made to talk rubbish."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from types import ModuleType

from support.waiting import joined


class CameraServer:
    """What the servers of both protocols have in common; one thread a client.

    A subclass implements `serve(client)`, which answers a request and then sends what
    `next_image` gives, until `gone`.
    """

    def __init__(self, images: ModuleType, interval: float = 0.03) -> None:
        self.images = images
        self.interval = interval
        self.size_wh = images.SMALL
        self.sent: set[int] = set()
        self.connections = 0
        self.requests: list[str] = []
        self.frozen = self.black = False
        self.garbage = 0  # how many of the next images are to be spoilt
        self.cut = False  # die in the middle of the next image
        self.end_after: int | None = None  # images after which each connection ends
        self._number = 0
        self._flowing = threading.Event()
        self._flowing.set()
        self._lock = threading.Lock()
        self._clients: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        # Never listens: it keeps the port from other programs while the camera is away.
        self._keeper = bound(0)
        self.port = self._keeper.getsockname()[1]
        self.start()

    def start(self) -> None:
        """Listen, at the same port each time."""
        listener = bound(self.port)
        listener.listen(16)
        self._listener = listener
        thread = threading.Thread(target=self._accept, args=(listener,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def kill(self) -> None:
        """Vanish at once: no listener, and every connection reset."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self._lock:
            clients = list(self._clients)
        for client in clients:
            reset(client)

    def stall(self) -> None:
        """Keep the connections, and send nothing any more."""
        self._flowing.clear()

    def resume(self) -> None:
        """Send again."""
        self._flowing.set()

    def close(self) -> None:
        """Kill it and wait for its threads."""
        self.kill()
        self.resume()
        self._keeper.close()
        for thread in self._threads:
            joined(thread)

    def next_image(self) -> bytes | None:
        """Wait for the next image; None when there is none any more."""
        time.sleep(self.interval)
        while not self._flowing.wait(0.05):
            if self._listener is None:
                return None
        if self._listener is None:
            return None
        with self._lock:
            if not self.frozen:
                self._number += 1
            self.sent.add(self._number)
            image = self.images.numbered(self._number, self.size_wh)
        return self.images.jpeg(image // 32 if self.black else image)

    def spoil(self) -> bool:
        """Whether this image is to be spoilt."""
        with self._lock:
            spoilt = self.garbage > 0
            self.garbage -= spoilt
            return spoilt

    def serve(self, client: socket.socket) -> None:
        raise AssertionError("a protocol serves")

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads = [other for other in self._threads if other.is_alive()]
            self._threads.append(thread)
            with self._lock:
                self._clients.add(client)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.serve(client)
        except OSError:
            pass  # the other side went, or we were killed
        finally:
            with self._lock:
                self._clients.discard(client)
            client.close()


def bound(port: int) -> socket.socket:
    """A socket at a port of loopback, which several of this program may share."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made


def reset(client: socket.socket) -> None:
    """End a connection as a pulled plug's other side does: with a reset."""
    with contextlib.suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)


def read_head(client: socket.socket, limit: int = 1 << 16) -> str:
    """Read a request up to its empty line."""
    data = b""
    while b"\r\n\r\n" not in data:
        got = client.recv(4096)
        if not got or len(data) > limit:
            raise ConnectionError("no request")
        data += got
    return data.decode("latin-1")
