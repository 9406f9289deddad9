"""The child process of a build: what `edge_fg.backends.tensorrt.build_apart` starts."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from edge_fg.backends.tensorrt.build import build_here
from edge_fg.errors import BackendUnavailableError, EdgeFGError, MissingDependencyError

_KILL_ME_FIRST: Final = "800"  # of 1000, for the kernel's choice of what to kill


def serve(descriptor: int) -> None:
    """Build what the parent sends over a connection; send progress, log and plan or error back."""
    parent = Connection(descriptor)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_KILL_ME_FIRST)
    sending = threading.Lock()

    def send(*what: object) -> None:
        with sending:
            parent.send(what)

    # The parent may end at any time: then there is no one to build for.
    with contextlib.suppress(ConnectionError, EOFError):
        settings, level = parent.recv()
        _log_to(send, level)
        onnx_bytes = parent.recv_bytes()
        try:
            plan = build_here(onnx_bytes, settings, lambda *step: send("progress", *step))
        except MissingDependencyError as error:
            send("error", BackendUnavailableError.__name__, str(error))
        except EdgeFGError as error:
            send("error", type(error).__name__, str(error))
        else:
            send("plan", plan)


def _log_to(send: Callable[..., None], level: int) -> None:
    """Send what edge_fg logs from `level` on to the parent, and to nobody else."""

    class Sender(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with contextlib.suppress(ConnectionError):
                send("log", record.name, record.levelno, record.getMessage())

    logger = logging.getLogger("edge_fg")
    logger.setLevel(level)
    logger.propagate = False
    logger.addHandler(Sender())
