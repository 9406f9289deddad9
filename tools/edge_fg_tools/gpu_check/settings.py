"""Which checks there are, and how thoroughly they check."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

DEVICE: Final = "device"
"""The check that all others need: whether there is a GPU."""

CHECKS: Final[dict[str, str]] = {
    DEVICE: "test_device.py",
    "kernels": "test_kernels.py",
    "copies": "test_speed.py",
    "preprocessing": "test_speed.py",
    "torchvision": "test_peers.py",
    "cupy": "test_peers.py",
    "slots": "test_slots.py",
    "overhead": "test_slots.py",
    "bundle": "test_engines.py",
    "fidelity": "test_engines.py",
    "latency": "test_latency.py",
    "leaks": "test_leaks.py",
    "leaks-engine": "test_leaks.py",
    "torch": "test_peers.py",
}
"""The module of each check, in the order in which they run."""

QUICK: Final = {
    "cases": 150,
    "repeats": 60,
    "inferences": 600,
    "cycles": 3,
    "per_class": 3,
    "copy_mib": 128,
}
"""What ``--quick`` sets."""


def function_of(check: str) -> str:
    """Return the name of a check's function."""
    return f"test_{check.replace('-', '_')}"


def _about(text: str) -> Any:
    return msgspec.Meta(description=text)


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How thoroughly to check. Each field is an option of the command line."""

    work: Annotated[str, _about("folder to keep plans and images in (a temporary one)")]
    bundle: Annotated[str, _about("bundle to run (built from the reference model)")] = ""
    images: Annotated[str, _about("folder of images for the engines (rendered)")] = ""
    untimed: Annotated[
        str, _about("judge no times, for this reason: no real GPU, for instance")
    ] = ""
    seed: Annotated[int, _about("seed of all random numbers")] = 0
    cases: Annotated[int, _about("random cases of the kernels, of up to four images each")] = 1500
    repeats: Annotated[int, _about("samples of each latency")] = 500
    inferences: Annotated[int, _about("frames between two readings of the memory")] = 5000
    cycles: Annotated[int, _about("how many times everything is opened and closed")] = 10
    per_class: Annotated[int, _about("images of each class for the engines")] = 10
    copy_mib: Annotated[
        int,
        _about(
            "MiB of the copies whose rate is measured, and of the "
            "frames that take turns: more than any cache holds"
        ),
    ] = 256

    @property
    def copy_bytes(self) -> int:
        """`copy_mib` in bytes."""
        return self.copy_mib << 20
