"""Plans: compiled TensorRT engines, and the key of all that one depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
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

    @property
    def sha256(self) -> str:
        """SHA-256 of the plan, 64 hexadecimal digits."""
        return hashlib.sha256(self.data).hexdigest()


def plan_key(
    *,
    graph_sha256: str,
    library: str,
    version: str,
    precision: str = "",
    profile: tuple[int, ...] = (),
    flags: Mapping[str, int | str | None] | None = None,
    gpu: str = "any",
) -> str:
    """Return the cache key: SHA-256 over all that a plan depends on.

    `graph_sha256` is the digest of the ONNX graph, `precision` the name of the variant, `profile`
    the smallest, usual and largest batch, `flags` the builder settings that change the plan, and
    `gpu` what the plan was tuned on (name, compute capability, driver), or ``"any"``.
    """
    parts = {
        "graph": graph_sha256,
        "library": library,
        "version": version,
        "precision": precision,
        "profile": list(profile),
        "flags": dict(flags or {}),
        "gpu": gpu,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
