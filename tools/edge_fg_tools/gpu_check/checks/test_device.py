"""What the machine is: the GPU, its driver, and the versions of what the checks use."""

from __future__ import annotations

import contextlib
import platform
from importlib import metadata
from pathlib import Path
from typing import Final

import edge_fg
from edge_fg.cuda import Device
from edge_fg.errors import CudaError
from edge_fg.preprocess.batch_factory import transfer_for
from edge_fg.preprocess.kernels import load_image
from edge_fg_tools.gpu_check import clocks
from edge_fg_tools.gpu_check.findings import Findings

_DISTRIBUTIONS: Final = (
    *("numpy", "Pillow", "onnxruntime", "pycuda"),
    *("tensorrt", "tensorrt-rtx", "tensorrt_rtx", "tensorrt-rtx-cu12", "tensorrt-rtx-cu13"),
    *("torch", "torchvision", "cupy-cuda12x", "cupy-cuda13x", "cupy"),
)
# Numbers of ``CUdevice_attribute`` in the CUDA driver API, and how to write their values.
_ATTRIBUTES: Final[dict[str, tuple[int, str, float]]] = {
    "multiprocessors": (16, "", 1.0),
    "clock": (13, " MHz", 1e-3),
    "memory clock": (36, " MHz", 1e-3),
    "memory bus": (37, " bits", 1.0),
    "L2 cache": (38, " MiB", 1.0 / (1 << 20)),
}


def test_device(found: Findings, device: Device) -> None:
    """Open the GPU; note what it is, its clocks and power mode, and the versions."""
    facts = _describe(device)
    found.facts({**facts, **clocks.read(device), **_versions()})
    cuda = facts["CUDA of the driver"]
    found.conclude(f"{device.name}, compute capability {device.compute_capability}, CUDA {cuda}")


def _describe(device: Device) -> dict[str, str]:
    """Return what the GPU is, what its driver is, and how edge_fg uses it."""
    return {
        "GPU": device.name,
        "compute capability": device.compute_capability,
        "CUDA of the driver": _version(device.driver_version),
        "driver": _kernel_driver(),
        "memory": f"{device.total_bytes / (1 << 30):.1f} GiB",
        "memory free": f"{device.free_bytes() / (1 << 30):.1f} GiB",
        "shares the host's memory": "yes" if device.integrated else "no",
        **_attributes(device),
        "kernels": load_image(device.compute_capability, device.driver_version).name,
        "frames reach the GPU": transfer_for(device),
    }


def _versions() -> dict[str, str]:
    """Return the versions of what is installed here, by name."""
    found = {
        "edge_fg": edge_fg.__version__,
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    for name in _DISTRIBUTIONS:
        try:
            found.setdefault(name.replace("_", "-"), metadata.version(name))
        except metadata.PackageNotFoundError:
            continue
    return found


def _attributes(device: Device) -> dict[str, str]:
    """Return what the driver says; newer ones no longer know every attribute."""
    found = {}
    for name, (number, unit, factor) in _ATTRIBUTES.items():
        with contextlib.suppress(CudaError):
            found[name] = f"{device.attribute(number) * factor:g}{unit}"
    return found


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _kernel_driver() -> str:
    """Return the version of the kernel's module, as its file in /proc states it."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "unknown"
    return next((word for word in text.split() if word[0].isdigit() and "." in word), "unknown")
