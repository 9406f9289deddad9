"""A camera on standard input, and a run that reads it."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
from PIL import Image

RUN = [sys.executable, "-m", "edge_fg_tools", "run"]


class Feed:
    """A run that reads a camera on its standard input, and that camera.

    `options` are those of `subprocess.Popen`.
    """

    def __init__(self, *arguments: object, command: list[str] = RUN, **options: Any) -> None:
        self.process = subprocess.Popen(
            [*command, *map(str, arguments)],
            **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            | options,
        )
        buffer = io.BytesIO()
        Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(buffer, "JPEG")
        self._jpeg = buffer.getvalue()
        self._thread = threading.Thread(target=self._film, daemon=True)
        self._thread.start()

    def _film(self) -> None:
        try:
            while True:
                self.process.stdin.write(self._jpeg)
                self.process.stdin.flush()
                time.sleep(0.02)
        except (BrokenPipeError, ValueError):
            pass  # it has ended

    def line(self) -> str:
        return self.process.stdout.readline().decode()

    def told(self) -> str:
        return self.process.stderr.readline().decode()

    def end(self, sent: int | None = None) -> tuple[int, str, str]:
        if sent is not None:
            self.process.send_signal(sent)
        out, errors = (
            b"" if stream is None else stream.read()
            for stream in (self.process.stdout, self.process.stderr)
        )
        code = self.process.wait(60)
        self._thread.join(10)
        return code, out.decode(), errors.decode()
