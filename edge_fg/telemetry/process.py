"""Memory, threads and descriptors of this process, from the kernel."""

from __future__ import annotations

import os
from pathlib import Path

_STATM = Path("/proc/self/statm")
_DESCRIPTORS = Path("/proc/self/fd")


def resident_bytes() -> int | None:
    """Return the memory that the process occupies; None where there is no Linux ``/proc``."""
    try:
        pages = int(_STATM.read_bytes().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def open_descriptors() -> int | None:
    """Return how many files and sockets the process holds; None where there is no ``/proc``."""
    try:
        # Listing the directory holds one more.
        return len(os.listdir(_DESCRIPTORS)) - 1  # noqa: PTH208
    except OSError:
        return None
