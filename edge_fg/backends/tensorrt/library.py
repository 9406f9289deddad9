"""TensorRT and TensorRT-RTX through one interface: import, version, messages, GPU.

Only names are used that exist in tensorrt 10.3 to 11.4 and in tensorrt_rtx 1.x; see
`edge_fg.backends.tensorrt.api`.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import importlib.util
import logging
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, SupportsInt, TypeAlias, cast

from edge_fg.cuda import libcuda
from edge_fg.cuda.device import find_gpus
from edge_fg.errors import BackendUnavailableError, MissingDependencyError

if TYPE_CHECKING:
    from edge_fg.backends.tensorrt.api import Logger, TensorRT

Library: TypeAlias = Literal["tensorrt", "tensorrt-rtx"]

_MODULES: dict[Library, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_TITLES: dict[Library, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
# The packages that may bring each module, for their version.
_DISTRIBUTIONS: dict[Library, tuple[str, ...]] = {
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt-rtx": ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx"),
}
_HINTS: dict[Library, str] = {
    "tensorrt": "JetPack brings it, elsewhere pip install 'edge-fg[tensorrt]'",
    "tensorrt-rtx": "pip install 'edge-fg[rtx]'",
}
_KEPT_MESSAGES = 100
_QUOTED_CHARACTERS = 300
_LEVELS = (logging.ERROR, logging.ERROR, logging.WARNING, logging.DEBUG, logging.DEBUG)
_log = logging.getLogger("edge_fg.tensorrt")
_creating = threading.Lock()


def title(library: Library) -> str:
    """Return the library's name as people write it."""
    return _TITLES[library]


def import_library(library: Library) -> TensorRT:
    """Import ``tensorrt`` or ``tensorrt_rtx``.

    Raises `MissingDependencyError` if it is not installed, and `BackendUnavailableError` if one of
    its shared libraries can't be loaded.
    """
    try:
        module = importlib.import_module(_MODULES[library])
    except ModuleNotFoundError as error:
        raise _missing(library) from error
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendUnavailableError(
            f"{title(library)} is installed but can't be loaded ({error}): its shared libraries "
            "must match the Python package"
        ) from error
    if not hasattr(module, "Builder"):
        raise BackendUnavailableError(
            f"the module {_MODULES[library]} is not {title(library)}: reinstall it"
        )
    return cast("TensorRT", module)


def available(library: Library) -> tuple[bool, str]:
    """Tell whether a library is installed, and its version or why not; never raises.

    It is not loaded for that (hundreds of megabytes), so that a shared library which it
    lacks shows only in `import_library`.
    """
    name = _MODULES[library]
    loaded = sys.modules.get(name)
    if loaded is not None:
        return True, f"{title(library)} {getattr(loaded, '__version__', '(unknown version)')}"
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        return False, f"{title(library)} is not installed ({_HINTS[library]})"
    from importlib import metadata  # slow, and only asked for when a bundle is loaded

    for distribution in _DISTRIBUTIONS[library]:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return True, f"{title(library)} {metadata.version(distribution)}"
    return True, f"{title(library)} (unknown version)"


def _missing(library: Library) -> MissingDependencyError:
    if library == "tensorrt-rtx":
        return MissingDependencyError("tensorrt-rtx-cu13", "rtx", "use TensorRT-RTX")
    return MissingDependencyError(
        "tensorrt",
        "tensorrt",
        "use TensorRT (on a Jetson it comes with JetPack instead: `sudo apt install "
        "python3-libnvinfer`, in a venv made with --system-site-packages)",
    )


@dataclass(frozen=True)
class Message:
    """One message of TensorRT: its level in Python's logging, and the text on one line."""

    level: int
    text: str


class MessageLog:
    """Receives what one of the libraries says in this process.

    TensorRT keeps the first logger that a process registers and ignores the others, so there
    is one for each library (`message_log`), which passes every message to Python's logging
    (``edge_fg.tensorrt``) and to a `collect` that is under way. Thread-safe.

    Attributes
    ----------
    handle
        The ``ILogger`` to give to TensorRT.
    """

    def __init__(self, trt: TensorRT) -> None:
        self._collecting = threading.Lock()
        self._kept: deque[Message] | None = None
        self._errors = threading.local()
        receive = self._receive

        class Receiver(trt.ILogger):  # type: ignore[misc,name-defined]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: SupportsInt, msg: str) -> None:
                receive(int(severity), msg)

        self.handle: Logger = Receiver()

    def _receive(self, severity: int, text: str) -> None:
        level = _LEVELS[severity] if 0 <= severity < len(_LEVELS) else logging.DEBUG
        message = Message(level, " ".join(text.split()))
        # An error becomes an exception of ours; in the log it is a detail.
        _log.log(min(level, logging.INFO), "%s", message.text)
        kept = self._kept
        if kept is not None and level >= logging.WARNING:
            kept.append(message)
        if level >= logging.ERROR:
            self._errors.last = message.text

    def forget_error(self) -> None:
        """Forget what `last_error` would return, before a call that may fail."""
        self._errors.last = ""

    def last_error(self) -> str:
        """Return the last error that a call in this thread met, or an empty text."""
        text: str = getattr(self._errors, "last", "")
        return shortened(text)

    @contextlib.contextmanager
    def collect(self) -> Iterator[deque[Message]]:
        """Collect warnings and errors while the block runs, one block at a time.

        Messages carry no mark of the object that they are about; blocks in other threads
        wait, so that none reads the errors of another.
        """
        with self._collecting:
            self._kept = deque(maxlen=_KEPT_MESSAGES)
            try:
                yield self._kept
            finally:
                self._kept = None


def message_log(library: Library) -> MessageLog:
    """Return the process's log of a library, the same on each call; raises as `import_library`."""
    with _creating:
        return _message_log(library)


@functools.cache
def _message_log(library: Library) -> MessageLog:
    return MessageLog(import_library(library))


def quote(messages: Iterable[Message]) -> str:
    """Return the first errors among `messages` on one line, or an empty text."""
    errors = dict.fromkeys(m.text for m in messages if m.level >= logging.ERROR)
    return shortened("; ".join(list(errors)[:3]))


def shortened(text: str) -> str:
    """Return `text` on one line, of a length that fits a message."""
    text = " ".join(text.split())
    return text if len(text) <= _QUOTED_CHARACTERS else f"{text[: _QUOTED_CHARACTERS - 3]}..."


def gpu_description(device: int = 0) -> str:
    """Describe a GPU and the driver, which TensorRT tunes a plan for, or return ``"none"``.

    Asks the driver and makes no CUDA context.
    """
    gpus, _ = find_gpus()
    if device >= len(gpus):
        return "none"
    version = ctypes.c_int()
    libcuda.load().cuDriverGetVersion(ctypes.byref(version))
    gpu = gpus[device]
    return f"{gpu.name}, compute capability {gpu.compute_capability}, driver {version.value}"
