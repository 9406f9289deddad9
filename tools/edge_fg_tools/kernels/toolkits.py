"""The CUDA compilers that the kernels are built with."""

from __future__ import annotations

import ctypes
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Final, Protocol

from edge_fg.errors import UsageError
from edge_fg.preprocess.kernels import FOLDER, Usage

# Each instance of a kernel in ptxas's report with -v.
_REPORT: Final = re.compile(
    r"Compiling entry function '(\w+)'.*?"
    r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads.*?"
    r"Used (\d+) registers([^\n]*)",
    re.DOTALL,
)


class Toolkit(Protocol):
    """A compiler for CUDA."""

    version: int
    """As a driver states its own: 12020 is 12.2."""
    description: str

    def cubin(self, architecture: int) -> tuple[bytes, dict[str, Usage]]:
        """Return machine code for ``sm_<architecture>`` and what each kernel takes."""
        ...

    def ptx(self, architecture: int) -> bytes:
        """Return PTX for ``compute_<architecture>``."""
        ...


class NvccToolkit:
    """A whole toolkit, from its compiler's path."""

    def __init__(self, nvcc: str) -> None:
        self._nvcc = nvcc
        output = _run([nvcc, "--version"])
        self.version = _release(output, nvcc)
        self.description = f"nvcc {_full_version(output)}"

    def architectures(self) -> tuple[int, ...]:
        """Return what it compiles for, such as 87 for ``sm_87``."""
        return tuple(
            int(name) for name in re.findall(r"sm_(\d+)\b", _run([self._nvcc, "--list-gpu-code"]))
        )

    def cubin(self, architecture: int) -> tuple[bytes, dict[str, Usage]]:
        """Return machine code for ``sm_<architecture>`` and what each kernel takes."""
        return self._compile(["-cubin", f"-arch=sm_{architecture}"])

    def ptx(self, architecture: int) -> bytes:
        """Return PTX for ``compute_<architecture>``."""
        return self._compile(["-ptx", f"-arch=compute_{architecture}"])[0]

    def _compile(self, flags: list[str]) -> tuple[bytes, dict[str, Usage]]:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "image"
            source = str(FOLDER / "resample.cu")
            command = [self._nvcc, *flags, "-Xptxas", "-v", "-Werror", "all-warnings", source]
            report = _run([*command, "-o", str(target)])
            return target.read_bytes(), usage_in(report)


class NvrtcToolkit:
    """NVRTC (a library) and ptxas (a program) of one version, for where there are only those."""

    def __init__(self, nvrtc: str, ptxas: str) -> None:
        try:
            self._nvrtc = ctypes.CDLL(nvrtc)
        except OSError as error:
            raise UsageError(f"can't load NVRTC from {nvrtc}: {error}") from error
        self._ptxas = ptxas
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        output = _run([ptxas, "--version"])
        self.version = _release(output, ptxas)
        if self.version != major.value * 1000 + minor.value * 10:
            raise UsageError(
                f"NVRTC {major.value}.{minor.value} and ptxas {_full_version(output)} are of "
                "different toolkits"
            )
        self.description = f"NVRTC {major.value}.{minor.value}, ptxas {_full_version(output)}"

    def cubin(self, architecture: int) -> tuple[bytes, dict[str, Usage]]:
        """Return machine code for ``sm_<architecture>`` and what each kernel takes."""
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "kernels.ptx", Path(folder) / "kernels.cubin"
            source.write_bytes(self.ptx(architecture))
            command = [self._ptxas, "-v", f"-arch=sm_{architecture}", str(source)]
            report = _run([*command, "-o", str(target)])
            return target.read_bytes(), usage_in(report)

    def ptx(self, architecture: int) -> bytes:
        """Return PTX for ``compute_<architecture>``."""
        program = ctypes.c_void_p()
        source = (FOLDER / "resample.cu").read_bytes()
        self._nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"resample.cu", 0, None, None)
        options = [f"--gpu-architecture=compute_{architecture}".encode(), b"--std=c++17"]
        options.append(f"--include-path={FOLDER}".encode())
        array = (ctypes.c_char_p * len(options))(*options)
        failed = self._nvrtc.nvrtcCompileProgram(program, len(options), array)
        log = self._text(program, "ProgramLog")
        if failed:
            raise UsageError(f"NVRTC could not compile the kernels: {log.decode()[:500]}")
        ptx = self._text(program, "PTX")
        self._nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
        return ptx

    def _text(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        getattr(self._nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        getattr(self._nvrtc, f"nvrtcGet{what}")(program, buffer)
        return buffer.value


def usage_in(report: str) -> dict[str, Usage]:
    """Read what each kernel takes from what ``ptxas -v`` printed."""
    found = {}
    for name, stack, stores, loads, registers, rest in _REPORT.findall(report):
        shared = re.search(r"(\d+) bytes smem", rest)
        found[name] = Usage(
            registers=int(registers),
            spill_stores=int(stores),
            spill_loads=int(loads),
            stack_bytes=int(stack),
            shared_bytes=int(shared[1]) if shared else 0,
        )
    return found


def _run(command: list[str]) -> str:
    """Return what a compiler printed, on either stream."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise UsageError(f"can't run {command[0]}: {error}") from error
    if result.returncode != 0:
        raise UsageError(f"`{' '.join(command)}` failed: {(result.stderr or result.stdout)[:500]}")
    return result.stdout + result.stderr


def _release(output: str, program: str) -> int:
    found = re.search(r"release (\d+)\.(\d+)", output)
    if found is None:
        raise UsageError(f"{program} doesn't say which CUDA release it is of")
    return int(found[1]) * 1000 + int(found[2]) * 10


def _full_version(output: str) -> str:
    found = re.search(r"\bV(\d+\.\d+\.\d+)", output)
    return found[1] if found else "of unknown version"
