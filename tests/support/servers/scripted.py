"""A server on loopback that gives prepared answers, whatever it is asked."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from support.servers import numbered_images
from support.servers.camera import CameraServer, read_head


class ScriptedServer(CameraServer):
    """Gives the next of `answers` to each request; an HTTP one then ends the connection."""

    def __init__(self, answers: Iterable[bytes], *, http: bool) -> None:
        self._answers = iter(answers)
        self._http = http
        super().__init__(numbered_images)

    def serve(self, client: socket.socket) -> None:
        while True:
            read_head(client)
            with self._lock:
                answer = next(self._answers, None)
            if answer is None:
                return
            client.sendall(answer)
            if self._http:
                return
