"""What the machine is."""

from __future__ import annotations

from edge_fg.cuda import Device
from edge_fg_tools.gpu_check import clocks, machine
from edge_fg_tools.gpu_check.findings import Findings


def test_device(found: Findings, device: Device) -> None:
    """Open the GPU; note what it is, its clocks and power mode, and the versions."""
    facts = machine.describe(device)
    found.facts({**facts, **clocks.read(device), **machine.versions()})
    cuda = facts["CUDA of the driver"]
    found.conclude(f"{device.name}, compute capability {device.compute_capability}, CUDA {cuda}")
