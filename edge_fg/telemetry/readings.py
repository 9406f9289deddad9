"""What the sensors of a device say at one moment."""

from __future__ import annotations

from dataclasses import dataclass


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
