"""Build the CUDA kernels for every architecture, ahead of time and without a GPU.

::

    python -m edge_fg_tools.kernels.build --nvrtc libnvrtc.so.12 --ptxas ptxas --nvcc nvcc

A driver for CUDA 12 loads nothing that a CUDA 13 toolkit made, and CUDA 12 doesn't know the
newest GPUs. So two toolkits build: NVRTC and ptxas of a CUDA 12 (its wheels on PyPI,
``nvidia-cuda-nvrtc-cu12`` and ``nvidia-cuda-nvcc-cu12``, have no nvcc; the older the version, the
older the drivers that take its PTX), and nvcc of CUDA 13.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import io
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import msgspec

from edge_fg.errors import EdgeFGError, UsageError
from edge_fg.files import write_atomically
from edge_fg.preprocess.kernels import (
    ARCHIVE,
    FOLDER,
    RECORD,
    SOURCES,
    ImageRecord,
    Record,
    Usage,
    read_record,
    source_digest,
)

CUDA12: Final = (72, 75, 80, 86, 87, 89, 90)
CUDA12_PTX: Final = (72, 90)
CUDA13: Final = (100, 103, 110, 120, 121)
CUDA13_PTX: Final = (120,)
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
    """A whole toolkit.

    Parameters
    ----------
    nvcc
        The compiler's path.
    """

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
    """NVRTC and ptxas, for where there are only those.

    Parameters
    ----------
    nvrtc, ptxas
        Paths of the library and of the assembler, of one version.
    """

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


class _Job(NamedTuple):
    toolkit: Toolkit
    architecture: int
    ptx: bool

    @property
    def name(self) -> str:
        kind = f"compute_{self.architecture}.ptx" if self.ptx else f"sm_{self.architecture}.cubin"
        return f"cuda{self.toolkit.version // 1000}/{kind}"


def build(cuda12: Toolkit, cuda13: Toolkit) -> tuple[bytes, Record]:
    """Compile everything.

    Returns
    -------
    tuple
        The archive and its record. The archive is the same bytes for the same images.

    Raises
    ------
    UsageError
        A toolkit has the wrong version or can't compile, or a kernel spills registers.
    """
    for toolkit, major in ((cuda12, 12), (cuda13, 13)):
        if toolkit.version // 1000 != major:
            raise UsageError(f"{toolkit.description} is not of CUDA {major}")
    jobs = [_Job(cuda12, number, False) for number in CUDA12]
    jobs += [_Job(cuda12, number, True) for number in CUDA12_PTX]
    jobs += [_Job(cuda13, number, False) for number in CUDA13]
    jobs += [_Job(cuda13, number, True) for number in CUDA13_PTX]
    images: dict[str, ImageRecord] = {}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for job in jobs:
            data, kernels = _compile(job)
            # A fixed date (ZIP's earliest) keeps the archive the same from build to build.
            entry = zipfile.ZipInfo(job.name, (1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED, 9)
            images[job.name] = ImageRecord(
                toolkit=job.toolkit.version,
                capability=divmod(job.architecture, 10),
                ptx=job.ptx,
                bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
                kernels=kernels,
            )
    versions = {str(toolkit.version): toolkit.description for toolkit in (cuda12, cuda13)}
    return file.getvalue(), Record(source_digest(), versions, images)


def _compile(job: _Job) -> tuple[bytes, dict[str, Usage]]:
    if job.ptx:
        return job.toolkit.ptx(job.architecture), {}
    data, kernels = job.toolkit.cubin(job.architecture)
    for kernel, usage in kernels.items():
        if usage.spill_stores or usage.spill_loads:
            raise UsageError(f"{kernel} spills registers on sm_{job.architecture}: {usage}")
    return data, kernels


def usage_table(record: Record) -> str:
    """Return the registers of each kernel on each architecture as a Markdown table."""
    cubins = {name: image for name, image in record.images.items() if not image.ptx}
    kernels = sorted({kernel for image in cubins.values() for kernel in image.kernels})
    lines = [f"| image | {' | '.join(kernels)} | spills (bytes) | stack (bytes) | file (bytes) |"]
    lines.append("|---" * (len(kernels) + 4) + "|")
    for name, image in cubins.items():
        used = [str(image.kernels[kernel].registers) for kernel in kernels]
        spills = sum(usage.spill_stores + usage.spill_loads for usage in image.kernels.values())
        stack = sum(usage.stack_bytes for usage in image.kernels.values())
        lines.append(f"| {name} | {' | '.join(used)} | {spills} | {stack} | {image.bytes} |")
    return "\n".join(lines) + "\n"


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


def main(arguments: list[str] | None = None) -> int:
    """Build the archive in place, or print the table for the documentation."""
    parser = argparse.ArgumentParser(prog="edge_fg_tools.kernels.build", description=__doc__)
    parser.add_argument("--nvrtc", default="libnvrtc.so.12", help="NVRTC of CUDA 12")
    parser.add_argument("--ptxas", default="ptxas", help="ptxas of the same CUDA 12")
    parser.add_argument("--nvcc", default="nvcc", help="nvcc of CUDA 13")
    parser.add_argument("--table", action="store_true", help="print the table of what was built")
    options = parser.parse_args(arguments)
    try:
        if options.table:
            sys.stdout.write(usage_table(read_record()))
            return 0
        cuda12 = NvrtcToolkit(options.nvrtc, options.ptxas)
        archive, record = build(cuda12, NvccToolkit(options.nvcc))
        write_atomically(FOLDER / ARCHIVE, archive)
        text = msgspec.json.format(msgspec.json.encode(record), indent=1)
        write_atomically(FOLDER / RECORD, text + b"\n")
    except EdgeFGError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(f"{len(record.images)} images of {', '.join(SOURCES)}: {len(archive)} bytes\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
