"""What the child processes of a test are given."""

from __future__ import annotations

import os
from pathlib import Path


def environment(*paths: Path | str, **variables: str) -> dict[str, str]:
    """Return this process's variables, with `paths` before all that Python finds by itself."""
    before = os.environ.get("PYTHONPATH", "")
    searched = os.pathsep.join(filter(None, [*map(str, paths), before]))
    return {**os.environ, "PYTHONPATH": searched, **variables}
