"""All checks, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from edge_fg.errors import EdgeFGError
from edge_fg_tools.gpu_check import (
    beside_torch,
    bundles,
    engines,
    exactness,
    facts,
    latency,
    leaks,
    rivals,
    speed,
)
from edge_fg_tools.gpu_check.results import CheckResult, Settings


class Check(NamedTuple):
    """One check: what it is called, what it is about, and the function that does it."""

    name: str
    title: str
    run: Callable[[Settings], CheckResult]


DEVICE: Final = "device"
"""The check that all others stand on."""

CHECKS: Final = (
    Check(DEVICE, "the GPU and the versions", facts.check_device),
    Check("kernels", "kernels against Pillow, bit by bit", exactness.check_kernels),
    Check("copies", "the card's copy rates", speed.check_copies),
    Check("preprocessing", "1080p to 224 on the GPU", speed.check_preprocessing),
    Check("torchvision", "the same by torchvision", rivals.check_torchvision),
    Check("cupy", "the same by CuPy", rivals.check_cupy),
    Check("bundle", "the bundle that engines are built of", bundles.check_bundle),
    Check("fidelity", "engines against ONNX Runtime", engines.check_fidelity),
    Check("latency", "the whole path", latency.check_latency),
    Check("leaks", "memory over many frames, preprocessing", leaks.check_leaks_preprocessing),
    Check("leaks-engine", "memory over many frames, engine", leaks.check_leaks_engine),
    Check("torch", "beside PyTorch", beside_torch.check_torch),
)


def run_check(name: str, settings: Settings) -> CheckResult:
    """Run one check here; what edge_fg fails with is a result, not an error."""
    check = next(check for check in CHECKS if check.name == name)
    try:
        return check.run(settings)
    except EdgeFGError as error:
        return CheckResult("failed", str(error))
