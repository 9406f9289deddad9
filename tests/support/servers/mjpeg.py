"""An MJPEG camera over HTTP."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable
from types import ModuleType


def make(camera: ModuleType, images: ModuleType, **options: object):  # noqa: C901
    """A running server; see `camera.CameraServer`."""

    class MjpegServer(camera.CameraServer):
        with_length = True
        boundary = "--frame"
        stated_boundary = "frame"
        content_type = "multipart/x-mixed-replace; boundary="
        check: Callable[[str], tuple[int, list[str]] | None] | None = None  # for logins
        clock_behind: float | None = None  # states its clock, so many seconds late
        drip = 0.0  # seconds between single bytes of an image

        @property
        def url(self) -> str:
            return f"http://127.0.0.1:{self.port}/mjpeg"

        def serve(self, client: socket.socket) -> None:
            head = camera.read_head(client)
            self.requests.append(head)
            if self.check is not None and (refusal := self.check(head)) is not None:
                status, headers = refusal
                lines = [f"HTTP/1.1 {status} No", *headers, "Content-Length: 0", "", ""]
                client.sendall("\r\n".join(lines).encode())
                return
            kind = self.content_type
            if kind.endswith("boundary="):
                kind += self.stated_boundary
            client.sendall(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n".encode())
            count = 0
            while (data := self.next_image()) is not None:
                if self.end_after is not None and count >= self.end_after:
                    return
                count += 1
                self._send(client, data)

        def _send(self, client: socket.socket, data: bytes) -> None:
            if self.spoil():
                data = spoilt(data)
            head = f"{self.boundary}\r\nContent-Type: image/jpeg\r\n"
            if self.clock_behind is not None:
                head += f"X-Timestamp: {time.time() - self.clock_behind:.6f}\r\n"
            head += f"Content-Length: {len(data)}\r\n\r\n" if self.with_length else "\r\n"
            part = head.encode() + data + b"\r\n"
            if self.cut:
                self.cut = False
                client.sendall(part[: len(part) // 2])
                self.kill()
                return
            if self.drip:
                for byte in part:
                    client.sendall(bytes([byte]))
                    time.sleep(self.drip)
            else:
                client.sendall(part)

    server = MjpegServer(images)
    for name, value in options.items():
        setattr(server, name, value)
    return server


def spoilt(data: bytes) -> bytes:
    """An image whose inner part was overwritten with rubbish that holds markers."""
    middle = len(data) // 2
    rubbish = re.sub(rb"\xff.", b"\x12\x34", os.urandom(60)) + b"\xff\x01\xff\x07"
    return data[:middle] + rubbish + data[middle + len(rubbish) :]
