"""Reading the output of NVIDIA's tegrastats, which differs from release to release.

Formats: "tegrastats Utility" in the Jetson Linux Developer Guides r32 to r38. What differs:
upper-case zone names up to JetPack 5 and lower-case ones since; power in mW without the unit in
JetPack 4 (``182/182``), with it since (``182mW/182mW``), with a third number in JetPack 7;
``GR3D_FREQ`` with load and clock (``0%@[305]``), load only, clock only (``@[314,314,314]``
on Thor) or not at all; a date before the line since JetPack 5.
"""

from __future__ import annotations

import re

from edge_fg.telemetry.device import DeviceState

_LONGEST_LINE = 8192
_OFF_C = -256.0  # reading of a zone that is powered down
_MEGA = 1_000_000

_TEMPERATURE = re.compile(r"(?<!\S)([A-Za-z][\w.-]*)@(-?\d+(?:\.\d+)?)C(?:/-?[\d.]+C)?(?!\S)")
_POWER = re.compile(r"(?<!\S)([A-Z0-9][A-Z0-9_]*) (?:(-?\d+)mW(?:/-?\d+mW)*|(-?\d+)/-?\d+)(?!\S)")
_CPUS = re.compile(r"(?<!\S)CPU \[([^\]]*)\](?:@(\d+))?")
_CORE = re.compile(r"(\d+)%(?:@(\d+))?")
_GPU = re.compile(r"(?<!\S)GR3D_FREQ (?:(\d+)%)?(?:@(?:\[([\d,]*)\]|(\d+)))?")
_MEMORY = re.compile(r"(?<!\S)EMC_FREQ (?:(\d+)%)?(?:@(\d+))?")
_RAM = re.compile(r"(?<!\S)RAM (\d+)/(\d+)MB")
# Not connected; and words that in a cut line look like a rail without a unit.
_NO_RAILS = ("NC", "RAM", "SWAP", "IRAM")


def parse_tegrastats(line: str) -> DeviceState | None:
    """Return the readings of one line, as JetPack 4 to 7 print it; None if it is no such line."""
    if len(line) > _LONGEST_LINE or (ram := _RAM.search(line)) is None:
        return None
    gpu_load, gpu_hz = _gpu(line)
    cpu_load, cpu_hz = _cpus(line)
    memory = _MEMORY.search(line)
    temperatures = {zone: float(text) for zone, text in _TEMPERATURE.findall(line)}
    milliwatts = {rail: int(new or old) for rail, new, old in _POWER.findall(line)}
    return DeviceState(
        temperatures_c={zone: c for zone, c in temperatures.items() if c > _OFF_C},
        power_w={rail: mw / 1000 for rail, mw in milliwatts.items() if rail not in _NO_RAILS},
        gpu_load=gpu_load,
        gpu_hz=gpu_hz,
        cpu_hz=cpu_hz,
        cpu_load=cpu_load,
        memory_hz=_mega(memory[2]) if memory else None,
        memory_load=_percent(memory[1]) if memory else None,
        memory_used_bytes=int(ram[1]) << 20,
        memory_bytes=int(ram[2]) << 20,
    )


def _gpu(line: str) -> tuple[float | None, float | None]:
    found = _GPU.search(line)
    if found is None:
        return None, None
    clocks = [int(word) for word in (found[2] or found[3] or "").split(",") if word]
    return _percent(found[1]), float(max(clocks) * _MEGA) if clocks else None


def _cpus(line: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    found = _CPUS.search(line)
    if found is None:
        return (), ()
    # A core that is off prints "off" and has neither.
    cores = [core for word in found[1].split(",") if (core := _CORE.fullmatch(word.strip()))]
    loads = tuple(int(core[1]) / 100 for core in cores)
    clocks = [_mega(core[2] or found[2]) for core in cores]
    return loads, tuple(clock for clock in clocks if clock is not None)


def _percent(text: str | None) -> float | None:
    return None if text is None else int(text) / 100


def _mega(text: str | None) -> float | None:
    return None if text is None else float(int(text) * _MEGA)
