"""Temperatures, power and clocks from the kernel's files, of a Jetson or another Linux machine.

Nothing here needs root. Files and units are those of the kernel's documentation: thermal zones in
thousandths of a degree (Documentation/driver-api/thermal/sysfs-api.rst), hwmon in mV, mA and
millionths of a watt (Documentation/hwmon/sysfs-interface.rst, ina3221.rst, ina238.rst), devfreq
in Hz, cpufreq in kHz. NVIDIA's own: the GPU's ``load`` in thousandths, and the older
``ina3221x`` driver of JetPack 4 with its rails in mW.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_fg.telemetry.device import DeviceState, Reading

# ga10b is Orin's GPU, gv11b Xavier's, gp10b TX2's, gm20b Nano's; Thor names its clock domains.
_GPU_NAME = re.compile(r"(\.(gpu|ga10b|gv11b|gp10b|gm20b)|^gpu-gpc-\d+)$")
_ZONE_SUFFIX = re.compile(r"[-_](thermal|therm)$", re.IGNORECASE)
# Below this a sensor is off (-256 on Jetsons, -274 elsewhere), not cold.
_COLDEST_C = -100.0
_LOADS = ("sys/devices/gpu.0/load", "sys/devices/platform/gpu.0/load")


@dataclass(frozen=True)
class _Rail:
    """A power rail: a file of watts, or two whose product is."""

    name: str
    files: tuple[Path, ...]
    scale: float

    def watts(self) -> float | None:
        values = _readable(self.files)
        return math.prod(values, start=self.scale) if len(values) == len(self.files) else None


class JetsonSensors:
    """Reads the sensors of this machine, which it looks for once, when it is made.

    Other machines than Jetsons have fewer, perhaps none. ``sys`` and ``proc`` are in `root`.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._zones = list(_zones(root))
        self._rails = [*_hwmon_rails(root), *_iio_rails(root)]
        devfreq = [one for one in _entries(root, "sys/class/devfreq") if _GPU_NAME.search(one.name)]
        self._gpu_clocks = [entry / "cur_freq" for entry in devfreq]
        loads = [root / path for path in _LOADS] + [entry / "device" / "load" for entry in devfreq]
        self._gpu_load = next((path for path in loads if _number(path) is not None), None)
        cpus = [
            entry / "cpufreq" / "scaling_cur_freq"
            for entry in _entries(root, "sys/devices/system/cpu")
            if re.fullmatch(r"cpu\d+", entry.name)
        ]
        self._cpu_clocks = sorted(cpus, key=lambda path: int(path.parents[1].name[3:]))

    @property
    def found(self) -> bool:
        """Whether there is any thermal zone or power rail."""
        return bool(self._zones or self._rails)

    def reading(self) -> Reading:
        """Return temperature and power now, as a `Throttle` needs them."""
        state = self.read()
        return Reading(state.hottest_c, state.total_power_w)

    def read(self) -> DeviceState:
        """Return the readings of now; sensors that can't be read are left out."""
        used, total = _memory(self._root / "proc/meminfo")
        load = _number(self._gpu_load) if self._gpu_load else None
        rails = ((rail.name, rail.watts()) for rail in self._rails)
        return DeviceState(
            temperatures_c={
                name: value
                for name, file in self._zones
                # A zone that is powered down can't be read, or reads far below zero.
                if (value := _number(file, 1e-3)) is not None and value > _COLDEST_C
            },
            power_w={name: watts for name, watts in rails if watts is not None},
            gpu_load=None if load is None else min(load / 1000, 1.0),
            gpu_hz=max(_readable(self._gpu_clocks), default=None),
            cpu_hz=tuple(_readable(self._cpu_clocks, 1e3)),
            memory_used_bytes=used,
            memory_bytes=total,
        )


def _zones(root: Path) -> Iterator[tuple[str, Path]]:
    taken = Counter[str]()
    for zone in _entries(root, "sys/class/thermal"):
        if zone.name.startswith("thermal_zone") and (kind := _text(zone / "type")):
            yield _unique(_ZONE_SUFFIX.sub("", kind), taken), zone / "temp"


def _hwmon_rails(root: Path) -> Iterator[_Rail]:
    taken = Counter[str]()
    for monitor in _entries(root, "sys/class/hwmon"):
        if not (_text(monitor / "name") or "").lower().startswith("ina"):
            continue
        labels = sorted(monitor.glob("in*_label"))
        for file in labels:
            channel = file.name[len("in") : -len("_label")]
            current = monitor / f"curr{channel}_input"
            # The channel "sum of shunt voltages" has no current.
            if (label := _text(file)) and label != "NC" and current.exists():
                name = _unique(label, taken)
                yield _Rail(name, (monitor / f"in{channel}_input", current), 1e-6)
        if not labels and (label := _text(monitor / "label")):
            yield _Rail(_unique(label, taken), (monitor / "power1_input",), 1e-6)


def _iio_rails(root: Path) -> Iterator[_Rail]:
    drivers = root / "sys/bus/i2c/drivers/ina3221x"
    taken = Counter[str]()
    for file in sorted(drivers.glob("*/iio:device*/rail_name_*")):
        channel = file.name.rpartition("_")[2]
        if (label := _text(file)) and label != "NC":
            power = file.with_name(f"in_power{channel}_input")
            yield _Rail(_unique(label, taken), (power,), 1e-3)


def _memory(file: Path) -> tuple[int | None, int | None]:
    """Return (used, total) bytes."""
    found = dict(re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB$", _text(file) or "", re.M))
    if len(found) < 2:
        return None, None
    total, free = int(found["MemTotal"]) << 10, int(found["MemAvailable"]) << 10
    return total - free, total


def _entries(root: Path, folder: str) -> list[Path]:
    try:
        # zone2 before zone10, so that names are given in the device's order.
        return sorted((root / folder).iterdir(), key=lambda path: (len(path.name), path.name))
    except OSError:
        return []


def _unique(name: str, taken: Counter[str]) -> str:
    taken[name] += 1
    return name if taken[name] == 1 else f"{name}-{taken[name]}"


def _readable(files: Sequence[Path], scale: float = 1.0) -> list[float]:
    return [value for file in files if (value := _number(file, scale)) is not None]


def _number(file: Path, scale: float = 1.0) -> float | None:
    try:
        value = float(_text(file) or "")
    except ValueError:
        return None
    return value * scale if math.isfinite(value) else None


def _text(file: Path) -> str | None:
    """Return the content; None where there is none: a sensor that is off raises EAGAIN."""
    try:
        return file.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return None
