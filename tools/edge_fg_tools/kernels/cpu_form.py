"""The CUDA kernels compiled for this machine's processor, to check and to measure them."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edge_fg.preprocess.kernels
from edge_fg.errors import UsageError
from edge_fg.preprocess.launch import LaunchPlan

SOURCES = Path(edge_fg.preprocess.kernels.__file__).parent


def compile_cpu_form(folder: Path, flags: Sequence[str] = ("-O2",)) -> Path:
    """Compile the kernels as C++ into a shared library in `folder`.

    Raises UsageError where there is no g++, or it refused; the message quotes it.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        raise UsageError("g++ is needed to compile the kernels for the processor: install it")
    library = folder / "kernels.so"
    command = [compiler, *flags, "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-x", "c++"]
    command += ["-include", str(SOURCES / "cpu_shim.h"), str(SOURCES / "resample.cu")]
    result = subprocess.run(
        [*command, "-o", str(library)], capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise UsageError(f"g++ could not compile the kernels: {result.stderr[:500]}")
    return library


class CpuForm:
    """Runs launch plans on host memory with a library from `compile_cpu_form`."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))

    def run(self, plan: LaunchPlan, frame_pointers: Sequence[int]) -> NDArray[Any]:
        """Return the tensor for frames at these addresses.

        The caller keeps the frames alive and says their true size in the plan's sources.
        """
        output = np.empty(plan.shape, plan.dtype)
        scratch = np.empty(plan.scratch_bytes, np.uint8)
        self.launch(plan, frame_pointers, scratch, output)
        return output

    def launch(
        self,
        plan: LaunchPlan,
        frame_pointers: Sequence[int],
        scratch: NDArray[np.uint8],
        output: NDArray[Any],
    ) -> None:
        """Write the tensor to `output`, with memory that the caller owns."""
        memory: dict[str, NDArray[Any]] = {
            "descriptors": plan.descriptors(frame_pointers),
            "tables": plan.tables,
            "scratch": scratch,
            "output": output,
        }
        for launch in plan.launches:
            pointers = [ctypes.c_void_p(memory[name].ctypes.data) for name in launch.arguments]
            addresses = [ctypes.addressof(pointer) for pointer in pointers]
            arguments = (ctypes.c_void_p * len(addresses))(*addresses)
            run = getattr(self._library, f"cpu_launch_{launch.kernel}")
            run(*launch.grid, *launch.block, launch.shared_bytes, arguments)
