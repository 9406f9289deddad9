"""Building TensorRT plans."""

from __future__ import annotations

import importlib.util
from typing import Literal

Library = Literal["tensorrt", "tensorrt-rtx"]


def available(library: Library) -> tuple[bool, str]:
    """Return whether `library` is installed, and its version or what is missing."""
    module = library.replace("-", "_")
    if importlib.util.find_spec(module) is None:
        return False, f"{module} is not installed"
    return True, module
