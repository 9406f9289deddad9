"""The CUDA kernels: their source, which also compiles for the CPU, and what was built of it.

``kernels.zip`` holds one cubin for each architecture and PTX for those to come, made ahead by
``edge_fg_tools.kernels.build``, so that a device needs no compiler; ``kernels.json`` says of
which sources, by which toolkit and with how many registers.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from edge_fg.errors import BackendError, BackendUnavailableError

FOLDER: Final = Path(__file__).parent
ARCHIVE: Final = "kernels.zip"
RECORD: Final = "kernels.json"
SOURCES: Final = ("pixels.h", "resample.cu", "sample.h", "threads.h")
"""What a kernel is made of; ``cpu_shim.h`` is only for processors."""

# NVIDIA's CUDA C++ programming guide, "Binary compatibility": a cubin runs on later minor
# revisions of its architecture, but not between the systems-on-chip and the desktop.
_SYSTEMS_ON_CHIP: Final = {(5, 3), (6, 2), (7, 2), (8, 7), (8, 8), (10, 1), (11, 0)}


class Usage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one kernel takes on one architecture: registers a thread, and bytes."""

    registers: int
    spill_stores: int
    spill_loads: int
    stack_bytes: int
    shared_bytes: int


class ImageRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of the archive."""

    toolkit: int  # CUDA version that made it, as a driver states its own: 12020 is 12.2
    capability: tuple[int, int]  # (major, minor) compute capability that it was made for
    ptx: bool  # Whether it is PTX, which a driver translates, rather than machine code
    # Of the file.
    bytes: int
    sha256: str
    kernels: dict[str, Usage]  # By the kernel's name; empty for PTX


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was built, of what and with what."""

    source_digest: str  # `source_digest` when it was built
    toolkits: dict[str, str]  # Name and version of the compilers, by CUDA version
    images: dict[str, ImageRecord]  # By the file's name in the archive


@dataclass(frozen=True)
class KernelImage:
    """What a driver loads."""

    name: str  # Such as ``cuda12/sm_87.cubin``
    data: bytes  # For ``cuModuleLoadData``; PTX ends with a zero byte, as that wants it


def source_digest(folder: Path = FOLDER) -> str:
    """Return the SHA-256 over the names and contents of the kernels' sources."""
    digest = hashlib.sha256()
    for name in SOURCES:
        content = (folder / name).read_bytes()
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def read_record() -> Record:
    """Return what was built.

    Raises `BackendError` if the record is missing or damaged: the installation is incomplete.
    """
    try:
        return msgspec.json.decode((FOLDER / RECORD).read_bytes(), type=Record)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _incomplete(RECORD, error) from error


def choose_image(record: Record, compute_capability: str, driver_version: int) -> str:
    """Return the name of the image that suits a GPU best.

    Machine code comes before PTX, and of both what was made for the nearest architecture.
    `compute_capability` is such as ``"8.7"``; `driver_version` is the latest CUDA version that the
    driver knows, as ``cuDriverGetVersion`` states it: 12060. Raises `BackendUnavailableError` if
    nothing suits: the GPU or its driver is too old.
    """
    parts = re.fullmatch(r"(\d+)\.(\d+)", compute_capability)
    if parts is None:
        raise BackendUnavailableError(f"compute capability `{compute_capability}` is not like 8.7")
    gpu = (int(parts[1]), int(parts[2]))
    suitable = {
        name: image for name, image in record.images.items() if _runs(image, gpu, driver_version)
    }
    if not suitable:
        oldest = min(image.capability for image in record.images.values())
        raise BackendUnavailableError(
            f"no kernel was built for compute capability {compute_capability} with a driver for "
            f"CUDA {driver_version // 1000}.{driver_version % 1000 // 10}: it takes a GPU of "
            f"{oldest[0]}.{oldest[1]} or newer and a driver for CUDA 12 or newer"
        )
    return max(suitable, key=lambda name: (not suitable[name].ptx, suitable[name].capability, name))


def load_image(compute_capability: str, driver_version: int) -> KernelImage:
    """Return what a driver loads for a GPU; parameters and errors as for `choose_image`.

    Raises `BackendError` if the archive is missing or damaged: the installation is incomplete.
    """
    record = read_record()
    name = choose_image(record, compute_capability, driver_version)
    expected = record.images[name]
    try:
        with zipfile.ZipFile(io.BytesIO((FOLDER / ARCHIVE).read_bytes())) as archive:
            data = archive.read(name)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise _incomplete(ARCHIVE, error) from error
    if hashlib.sha256(data).hexdigest() != expected.sha256:
        raise _incomplete(ARCHIVE, f"{name} has another SHA-256 than {RECORD} says")
    return KernelImage(name, data + b"\0" if expected.ptx else data)


def _runs(image: ImageRecord, gpu: tuple[int, int], driver_version: int) -> bool:
    if image.ptx:
        return image.capability <= gpu and image.toolkit <= driver_version
    # Machine code of any 12.x runs with any driver for 12.x or later.
    if image.toolkit // 1000 > driver_version // 1000:
        return False
    if image.capability == gpu:
        return True
    desktop = not {image.capability, gpu} & _SYSTEMS_ON_CHIP
    return desktop and image.capability[0] == gpu[0] and image.capability[1] < gpu[1]


def _incomplete(name: str, error: object) -> BackendError:
    return BackendError(
        f"the CUDA kernels can't be read from {FOLDER / name} ({error}): install edge-fg again"
    )
