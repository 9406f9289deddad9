"""The way to get a package that only some uses need."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from edge_fg.errors import MissingDependencyError


def import_optional(module: str, package: str, extra: str, purpose: str) -> Any:
    """Return `module`, which `package` (its name on PyPI) and `extra` of ``edge-fg`` bring.

    `purpose` says what it is needed for, to be read after "to". Raises `MissingDependencyError`,
    which tells a package that is not installed from one whose import fails, and why that does.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:  # a broken package raises whatever it likes
        # What OpenCV leaves of a failed import makes the next one fail for another reason.
        if module == "cv2" and hasattr(sys, "OpenCV_LOADER"):
            del sys.OpenCV_LOADER
        name = module.partition(".")[0]
        raise MissingDependencyError(package, extra, purpose, name) from error
