"""A build in a process of its own, where the GPU shares the memory of all programs.

There a build can take so much memory that the kernel kills it, and the program with it. In a child
process the build alone dies: it offers itself to the kernel first, and the parent says so.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from dataclasses import replace
from multiprocessing.connection import Connection, Pipe
from typing import Final

from edge_fg import errors
from edge_fg.backends.plan import Plan
from edge_fg.backends.tensorrt.build_job import BuildSettings
from edge_fg.errors import CompileError, DeviceMemoryError, EdgeFGError
from edge_fg.printing import reason
from edge_fg.progress import ProgressCallback

_LESS: Final = 4  # What the workspace is divided by where memory ran out
_ADVICE: Final = "close other programs, add swap, or choose a smaller max_batch"
# The child looks for modules where this process does, and imports nothing of the program's own.
_START: Final = (
    "import sys; sys.path[:] = {path!r}; "
    "from edge_fg.backends.tensorrt.build_child import serve; serve({descriptor})"
)
_log = logging.getLogger("edge_fg")


def build_apart(onnx_bytes: bytes, settings: BuildSettings, progress: ProgressCallback) -> Plan:
    """Build a plan in a child process, once more with a smaller workspace if memory runs out.

    `settings` say how large it is at first. What the caller's thread raises meanwhile ends the
    child.

    Raises what `edge_fg.backends.tensorrt.build.build_plan` does; `DeviceMemoryError`
    also if the child was killed, and `CompileError` if it died in another way.
    """
    try:
        return _build(onnx_bytes, settings, progress)
    except DeviceMemoryError as error:
        less = max((settings.workspace_bytes or 0) // _LESS, 1)
        _log.warning("building once more with a workspace of %.0f MB: %s", less / 1e6, error)
    return _build(onnx_bytes, replace(settings, workspace_bytes=less), progress)


def _build(onnx_bytes: bytes, settings: BuildSettings, progress: ProgressCallback) -> Plan:
    ours, theirs = Pipe()
    with ours:
        with theirs:
            child = _start(theirs.fileno())
        try:
            try:
                ours.send((settings, _log.getEffectiveLevel()))
                ours.send_bytes(onnx_bytes)
            except OSError:
                raise _death(child) from None
            return _answer(ours, child, progress)
        finally:
            child.kill()
            child.wait()


def _start(descriptor: int) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [sys.executable, "-c", _START.format(path=sys.path, descriptor=descriptor)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[descriptor],
            start_new_session=True,  # Ctrl-C reaches this process, which ends the child
        )
    except OSError as error:
        raise CompileError(
            f"the process that builds the plan can't be started with {sys.executable}: "
            f"{reason(error)}"
        ) from error


def _answer(connection: Connection, child: subprocess.Popen[bytes], show: ProgressCallback) -> Plan:
    """Return the plan that the child sends at last; may raise what `show` raises."""
    while True:
        try:
            kind, *said = connection.recv()
        except (EOFError, OSError):
            raise _death(child) from None
        if kind == "progress":
            show(*said)
        elif kind == "log":
            logger, level, text = said
            logging.getLogger(logger).log(level, "%s", text)
        elif kind == "error":
            name, text = said
            raise getattr(errors, name)(text)
        else:
            plan: Plan = said[0]
            return plan


def _death(child: subprocess.Popen[bytes]) -> EdgeFGError:
    """Return the error to raise for a child that ended without an answer."""
    code = child.wait()
    if code == -signal.SIGKILL:
        return DeviceMemoryError(
            "the process that built the plan was killed (SIGKILL), most likely by the kernel "
            f"because the memory was full: {_ADVICE}"
        )
    ended = f"died ({signal.strsignal(-code)})" if code < 0 else f"ended with exit code {code}"
    return CompileError(
        f"the process that built the plan {ended}: standard error may say why; "
        "try another precision"
    )
