"""Puts the stand-ins in place of TensorRT and of `edge_fg.cuda`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from edge_fg.backends import plan_provider, selection
from edge_fg.backends.tensorrt import (
    backend,
    execution_slot,
    library,
    slot_contexts,
)
from edge_fg.backends.tensorrt.message_log import MessageLog
from edge_fg.cuda.device import Gpu

SITE = Path(__file__).resolve().parent / "site"
CUDA_NAMES = (
    "CudaPreprocessor",
    "Device",
    "DeviceBuffer",
    "Event",
    "Graph",
    "HostBuffer",
    "Stream",
    "copy_to_host",
)


class StandIn:
    """A machine with the stand-ins: `trt` is the module, `cuda` its GPU."""

    def __init__(self, trt: ModuleType, host_cuda: ModuleType) -> None:
        self.trt = trt
        self.host_cuda = host_cuda

    @property
    def cuda(self):
        return self.host_cuda.machine

    def check(self) -> None:
        """Nothing was done that TensorRT or CUDA leave undefined."""
        assert self.trt.violations == []


def put_in_place(patch: pytest.MonkeyPatch, host_cuda: ModuleType) -> StandIn:
    """Import the stand-in as ``tensorrt`` and give the backend the stand-in of CUDA."""
    patch.syspath_prepend(SITE)
    # Set first, so that afterwards there is what was there before, or nothing.
    patch.setitem(sys.modules, "tensorrt", None)
    del sys.modules["tensorrt"]
    trt = importlib.import_module("tensorrt")
    assert Path(trt.__file__).is_relative_to(SITE)
    for happened in (trt.violations, trt.events, trt.builds, trt.configs):
        happened.clear()
    patch.setattr(trt, "faults", trt.Faults())
    # TensorRT keeps one log per process and library; each test has a library of its own.
    log, real = MessageLog(trt, "TensorRT"), library._message_log
    patch.setattr(
        library,
        "_message_log",
        lambda name: log if name == "tensorrt" else real(name),
    )
    patch.setattr(host_cuda, "machine", host_cuda.Machine())
    machine = host_cuda.machine
    patch.setattr(trt.Hooks, "enqueue", staticmethod(machine.enqueue))
    patch.setattr(trt.Hooks, "is_current", staticmethod(machine.current))
    for name in CUDA_NAMES:
        for module in (slot_contexts, execution_slot, backend):
            if hasattr(module, name):
                patch.setattr(module, name, getattr(host_cuda, name))
    gpus = [
        Gpu("Stand-in", "8.7", 8, 8 << 30, integrated=False),
        Gpu("Second stand-in", "8.9", 16, 8 << 30, integrated=False),
    ]
    patch.setattr(selection, "find_gpus", lambda: (gpus, ""))
    patch.setattr(
        plan_provider, "gpu_description", lambda device=0: f"{gpus[device].name}, driver 12060"
    )
    return StandIn(trt, host_cuda)
