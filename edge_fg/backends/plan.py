"""Plans: compiled TensorRT engines."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Plan:
    """A compiled engine."""

    data: bytes = field(repr=False)  # The plan as TensorRT serialised it, without a header of ours
    library: str  # ``"tensorrt"`` or ``"tensorrt-rtx"``
    version: str  # The library's version; another can't load the plan
    layers: int | None  # Layers of the network that was built, or None where unknown
    seconds: float  # How long the build took
    warnings: tuple[str, ...] = ()  # What TensorRT warned of
    # The builder's timing cache after the build, where it keeps one.
    timings: bytes | None = field(repr=False, default=None)
    # What the library lists of its kernels while it builds; empty where it says nothing.
    kernels: str = field(repr=False, default="")

    @property
    def sha256(self) -> str:
        """SHA-256 of the plan, 64 hexadecimal digits."""
        return hashlib.sha256(self.data).hexdigest()
