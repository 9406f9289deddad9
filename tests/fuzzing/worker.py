"""A process that tries cases, one after the other, within limits that protect the machine."""

from __future__ import annotations

import faulthandler
import os
import resource
import socket
from multiprocessing.connection import Connection
from typing import Any

from fuzzing.cases import Case, try_case

_MOST_ADDRESSES = 4 << 30
_MOST_FILE_BYTES = 1 << 30
_OURS = {"127.0.0.1", "localhost", "::1"}


def work(descriptor: int, kind: str, seed: int, first: int, end: int) -> None:
    """Try the cases from `first` to before `end`, and send the outcome of each."""
    # What is imported by the first case that needs it would count as its memory.
    import av  # noqa: F401
    import cv2  # noqa: F401
    import onnxruntime  # noqa: F401

    faulthandler.enable()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    addresses = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()  # noqa: SIM115, PTH123
    for limit, most in [
        (resource.RLIMIT_AS, addresses + _MOST_ADDRESSES),
        (resource.RLIMIT_FSIZE, _MOST_FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ]:
        resource.setrlimit(limit, (most, most))
    _keep_off_the_network()
    results = Connection(descriptor)
    results.send(None)  # begun: from here on each case has its time
    for number in range(first, end):
        results.send(try_case(Case(kind, seed, number)))


def _keep_off_the_network() -> None:
    """Let a spoilt redirect lead nowhere."""
    before = socket.getaddrinfo

    def only_here(host: Any, *rest: Any, **more: Any) -> Any:
        if host not in _OURS:
            raise socket.gaierror(socket.EAI_NONAME, "not of this test")
        return before(host, *rest, **more)

    socket.getaddrinfo = only_here
