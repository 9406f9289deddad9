"""TensorRT and TensorRT-RTX through one interface: import, version, log, GPU.

Only names are used that exist in tensorrt 10.3 to 11.4 and in tensorrt_rtx 1.x; see
`edge_fg.backends.tensorrt.api`.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import importlib.util
import sys
import threading
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from edge_fg.backends.tensorrt.message_log import MessageLog
from edge_fg.cuda import libcuda
from edge_fg.cuda.device import find_gpus
from edge_fg.errors import BackendUnavailableError, MissingDependencyError

if TYPE_CHECKING:
    from edge_fg.backends.tensorrt.api import TensorRT

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
    except (ImportError, OSError, RuntimeError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == _MODULES[library]:
            raise _missing(library) from error
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
        return MissingDependencyError(
            "tensorrt-rtx-cu13", "rtx", "use TensorRT-RTX", "tensorrt_rtx"
        )
    return MissingDependencyError(
        "tensorrt",
        "tensorrt",
        "use TensorRT (on a Jetson it comes with JetPack instead: `sudo apt install "
        "python3-libnvinfer`, in a venv made with --system-site-packages)",
    )


def message_log(library: Library) -> MessageLog:
    """Return the process's log of a library, the same on each call; raises as `import_library`."""
    with _creating:
        return _message_log(library)


@functools.cache
def _message_log(library: Library) -> MessageLog:
    return MessageLog(import_library(library), title(library))


def gpu_description(device: int = 0) -> str:
    """Describe a GPU and the driver, which TensorRT tunes a plan for, or return ``"none"``.

    Asks the driver and makes no CUDA context. All Orins have one name and capability: their
    multiprocessors, of which a power mode may switch some off, and their memory tell them apart.
    The memory is rounded, for what the system keeps of it differs a little from start to start.
    """
    gpus, _ = find_gpus()
    if device >= len(gpus):
        return "none"
    version = ctypes.c_int()
    libcuda.load().cuDriverGetVersion(ctypes.byref(version))
    gpu = gpus[device]
    return (
        f"{gpu.name}, compute capability {gpu.compute_capability}, "
        f"{gpu.multiprocessors} multiprocessors, {round(gpu.total_bytes / 2**30)} GiB, "
        f"driver {version.value}"
    )
