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
    "GPU clock set for programs": "clocks.applications.graphics",
    "memory clock now": "clocks.mem",
    "power": "power.draw",
    "power limit": "power.limit",
    "performance state": "pstate",
    "clocks held back by": "clocks_throttle_reasons.active",
    "persistence mode": "persistence_mode",
    "GPU temperature": "temperature.gpu",
}
_SMI_LIMIT_S: Final = 20
_JETSON: Final = "etc/nv_tegra_release"
_GPU_FOLDER: Final = re.compile(r"gpu|ga10b|gv11b|gp10b|gm20b")
# Numbers of ``CUdevice_attribute``: PCI domain, bus and device.
_PCI: Final = (50, 33, 34)


def read(device: Device, root: Path = Path("/")) -> dict[str, str]:
    """Return the clocks, the power mode and what limits them, now.

    Parameters
    ----------
    device
        The GPU that is meant.
    root
        Where ``sys``, ``etc`` and ``var`` are.
    """
    if (root / _JETSON).exists():
        return {**_jetson(root), **_cpu(root)}
    return {**_from_smi(device), **_cpu(root)}


def _from_smi(device: Device) -> dict[str, str]:
    """Ask nvidia-smi, one field at a time if need be: older ones refuse all for one."""
    facts = {}
    for name, field in _SMI_FIELDS.items():
        facts[name] = _ask_smi(device, field)
        if facts[name].startswith("unknown (nvidia-smi can't be run"):
            return dict.fromkeys(_SMI_FIELDS, facts[name])
    return facts


def _ask_smi(device: Device, field: str) -> str:
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader", *_which(device)]
    try:
        asked = subprocess.run(
            command, capture_output=True, text=True, timeout=_SMI_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unknown (nvidia-smi can't be run: {error})"
    lines = [line.strip() for line in (asked.stdout + asked.stderr).splitlines() if line.strip()]
    if asked.returncode or not lines:
        return f"unknown (nvidia-smi: {lines[0] if lines else f'exit code {asked.returncode}'})"
    return f"unknown (nvidia-smi: {lines[0]})" if lines[0].startswith("[") else lines[0]


def _which(device: Device) -> list[str]:
    """Return nvidia-smi's option for this GPU: CUDA may count them in another order."""
    try:
        domain, bus, slot = (device.attribute(number) for number in _PCI)
    except CudaError:
        return []
    return [f"--id={domain:08x}:{bus:02x}:{slot:02x}.0"] if bus or slot else []


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
    try:
        status = (root / "var/lib/nvpmodel/status").read_text(errors="replace")
        number = int(re.findall(r"pmode:(\d+)", status)[0])
    except (OSError, IndexError) as error:
        return f"unknown ({error})"
    try:
        modes = (root / "etc/nvpmodel.conf").read_text(errors="replace")
    except OSError:
        modes = ""
    names = dict(re.findall(r"POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)", modes))
    return f"{number} {names.get(str(number), '')}".strip()


def _fixed_clock(root: Path) -> str:
    """Return whether the GPU's clock may change: jetson_clocks sets its least to its highest."""
    folders = sorted((root / "sys/class/devfreq").glob("*"))
    for folder in folders:
        if _GPU_FOLDER.search(folder.name):
            try:
                low, high = (int((folder / name).read_text()) for name in ("min_freq", "max_freq"))
            except (OSError, ValueError) as error:
                return f"unknown ({error})"
            return f"{'yes' if low == high else 'no'}, {low / 1e6:g} to {high / 1e6:g} MHz"
    return "unknown (the kernel lists no clock of the GPU in /sys/class/devfreq)"


def _cpu(root: Path) -> dict[str, str]:
    folder = root / "sys/devices/system/cpu/cpu0/cpufreq"
    facts = {}
    for name, file in (
        ("CPU governor", "scaling_governor"),
        ("CPU clock, highest", "scaling_max_freq"),
    ):
        try:
            text = (folder / file).read_text().strip()
        except OSError:
            facts[name] = f"unknown (the kernel has no cpufreq/{file})"
        else:
            facts[name] = f"{int(text) / 1e3:g} MHz" if text.isdigit() else text
    return facts
