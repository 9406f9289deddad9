"""Readings of a device's temperatures, power and clocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

# The rail that feeds everything, by the names it has had from the Nano to Thor.
_INPUT_RAILS = ("VIN", "VDD_IN", "POM_5V_IN", "5V_IN")
# Modules without a monitor of the input: the rails that add up to it. Other rails, like
# VDDQ_VDD2_1V8AO, are fed by one of these and would count twice.
# Jetson Linux Developer Guide, "Software-Based Power Consumption Modeling".
_PARTS = (
    frozenset({"VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"}),
    frozenset({"VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"}),
    frozenset({"GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"}),
)
_FIXED_ZONE = "pmic"  # always reads the same: a placeholder of the device tree


@dataclass(frozen=True)
class DeviceState:
    """Readings of one moment. A value that the device doesn't give is missing or None, never zero.

    A load is the share of the time that a part is busy, 0..1.
    """

    temperatures_c: Mapping[str, float] = field(default_factory=dict)  # of each zone
    # Of each rail; an idle one may read slightly negative (the monitor's offset).
    power_w: Mapping[str, float] = field(default_factory=dict)
    gpu_load: float | None = None
    gpu_hz: float | None = None  # the highest clock, where its parts have several
    cpu_hz: tuple[float, ...] = ()  # of each core that is on
    cpu_load: tuple[float, ...] = ()
    memory_hz: float | None = None  # of the memory controller
    memory_load: float | None = None
    memory_used_bytes: int | None = None  # of the main memory, which a Jetson's GPU shares
    memory_bytes: int | None = None

    @property
    def hottest_c(self) -> float | None:
        """Temperature of the hottest zone; None if there is none."""
        zones = self.temperatures_c.items()
        real = (value for name, value in zones if not name.lower().startswith(_FIXED_ZONE))
        return max(real, default=None)

    @property
    def total_power_w(self) -> float | None:
        """Watts of the whole module; None where the rails don't add up to it."""
        for rail in _INPUT_RAILS:
            if rail in self.power_w:
                return self.power_w[rail]
        for parts in _PARTS:
            if parts <= self.power_w.keys():
                return sum(self.power_w[rail] for rail in parts)
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return the readings for JSON, with units in the keys."""
        known = {"hottest_c": self.hottest_c, "total_power_w": self.total_power_w}
        return {**known, **asdict(self)}


@dataclass(frozen=True)
class Reading:
    """The hottest place and the power that is drawn; None where there is no such sensor.

    Parameters
    ----------
    temperature_c
        Degrees Celsius.
    power_w
        Watts of the whole board.
    """

    temperature_c: float | None = None
    power_w: float | None = None
