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
import hashlib
import io
import sys
import zipfile
from typing import Final, NamedTuple

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
from edge_fg_tools.kernels.toolkits import NvccToolkit, NvrtcToolkit, Toolkit

CUDA12: Final = (72, 75, 80, 86, 87, 89, 90)
CUDA12_PTX: Final = (72, 90)
CUDA13: Final = (100, 103, 110, 120, 121)
CUDA13_PTX: Final = (120,)


class _Job(NamedTuple):
    toolkit: Toolkit
    architecture: int
    ptx: bool

    @property
    def name(self) -> str:
        kind = f"compute_{self.architecture}.ptx" if self.ptx else f"sm_{self.architecture}.cubin"
        return f"cuda{self.toolkit.version // 1000}/{kind}"


def build(cuda12: Toolkit, cuda13: Toolkit) -> tuple[bytes, Record]:
    """Compile everything; the archive is the same bytes for the same images.

    Raises UsageError where a toolkit has the wrong version or can't compile, or a kernel spills
    registers.
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
