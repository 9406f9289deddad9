"""The clocks and the power mode in effect: no time means much without them.

Each fact is a value, or ``unknown`` with the reason.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

from edge_fg.cuda import Device
from edge_fg.errors import CudaError
from edge_fg.telemetry.jetson import JetsonSensors

_SMI_FIELDS: Final[dict[str, str]] = {
    "GPU clock": "clocks.sm",
    "GPU clock, highest": "clocks.max.sm",
    "memory clock now": "clocks.mem",
    "memory clock, highest": "clocks.max.mem",
    "power": "power.draw",
    "power limit": "power.limit",
    "performance state": "pstate",
    "clocks limited by": "clocks_throttle_reasons.active",
    "persistence mode": "persistence_mode",
    "GPU temperature": "temperature.gpu",
}
_SMI_LIMIT_S: Final = 20
_GPU_FOLDER: Final = re.compile(r"gpu|ga10b|gv11b|gp10b|gm20b")
# Numbers of ``CUdevice_attribute``: PCI domain, bus and device.
_PCI: Final = (50, 33, 34)


def read(device: Device, root: Path = Path("/")) -> dict[str, str]:
    """Return the clocks, the power mode and what limits them, now.

    ``sys``, ``etc`` and ``var`` are looked for in `root`.
    """
    jetson = (root / "etc/nv_tegra_release").exists()
    cpufreq = root / "sys/devices/system/cpu/cpu0/cpufreq"
    return {
        **(_jetson(root) if jetson else _from_smi(device)),
        "CPU governor": _text(cpufreq / "scaling_governor"),
        "CPU clock, highest": _mhz(_text(cpufreq / "scaling_max_freq"), 1e3),
    }


def _from_smi(device: Device) -> dict[str, str]:
    """Ask nvidia-smi, by the PCI address: CUDA may number the GPUs in another order."""
    command = ["nvidia-smi", f"--query-gpu={','.join(_SMI_FIELDS.values())}"]
    try:
        domain, bus, slot = (device.attribute(number) for number in _PCI)
        command += ["--format=csv,noheader", f"--id={domain:08x}:{bus:02x}:{slot:02x}.0"]
        asked = subprocess.run(
            command, capture_output=True, text=True, timeout=_SMI_LIMIT_S, check=False
        )
    except (CudaError, OSError, subprocess.TimeoutExpired) as error:
        return dict.fromkeys(_SMI_FIELDS, f"unknown (nvidia-smi can't be asked: {error})")
    values = [value.strip() for value in asked.stdout.split(",")]
    if asked.returncode or len(values) != len(_SMI_FIELDS):
        said = " ".join((asked.stdout + asked.stderr).split()) or "nothing"
        return dict.fromkeys(_SMI_FIELDS, f"unknown (nvidia-smi said {said})")
    # What a GPU doesn't tell is written in brackets.
    pairs = zip(_SMI_FIELDS, values, strict=True)
    return {name: f"unknown ({text})" if text.startswith("[") else text for name, text in pairs}


def _jetson(root: Path) -> dict[str, str]:
    """Read what nvpmodel and jetson_clocks leave in files; none of it needs root."""
    state = JetsonSensors(root).read()
    unknown = "unknown (no sensor tells it)"
    return {
        "power mode (nvpmodel)": _power_mode(root),
        "GPU clock fixed (jetson_clocks)": _fixed_clock(root),
        "GPU clock": unknown if state.gpu_hz is None else f"{state.gpu_hz / 1e6:g} MHz",
        "power": unknown if state.total_power_w is None else f"{state.total_power_w:.2f} W",
        "GPU temperature": unknown if state.hottest_c is None else f"{state.hottest_c:.1f} C",
    }


def _power_mode(root: Path) -> str:
    status = _text(root / "var/lib/nvpmodel/status")
    found = re.search(r"pmode:(\d+)", status)
    if found is None:
        return status if status.startswith("unknown") else f"unknown (status says {status!r})"
    number = int(found[1])
    modes = _text(root / "etc/nvpmodel.conf")
    name = re.search(rf"POWER_MODEL\s+ID={number}\s+NAME=(\S+)", modes)
    return f"{number} {name[1]}" if name else str(number)


def _fixed_clock(root: Path) -> str:
    """Return whether the GPU's clock may change: jetson_clocks sets its least to its highest."""
    for folder in sorted((root / "sys/class/devfreq").glob("*")):
        if _GPU_FOLDER.search(folder.name):
            low, high = _text(folder / "min_freq"), _text(folder / "max_freq")
            return f"{'yes' if low == high else 'no'}, {_mhz(low, 1.0)} to {_mhz(high, 1.0)}"
    return "unknown (the kernel lists no clock of the GPU in /sys/class/devfreq)"


def _mhz(text: str, hz: float) -> str:
    return f"{int(text) * hz / 1e6:g} MHz" if text.isdigit() else text


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError as error:
        return f"unknown ({error.strerror}: {file.name})"
