"""Check edge_fg on this machine's GPU, offline: one table and a JSON file.

::

    python tools/gpu_check.py [--quick] [--json gpu-check.json]

Works from a checkout too, where edge_fg is not installed. See ``docs/gpu-results.md``.
"""

import importlib.util
import os
import sys
from pathlib import Path


def find_edge_fg() -> None:
    """Let this process and its children find edge_fg: what is installed, or else the checkout."""
    tools = Path(__file__).resolve().parent
    if sys.path and Path(sys.path[0]).resolve() == tools:
        del sys.path[0]  # what is installed is checked, not the folder beside this file
    if importlib.util.find_spec("edge_fg") is None:
        paths = [str(tools.parent), str(tools.parent / "calibration"), str(tools)]
        sys.path += paths
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join([*paths, *([before] if before else [])])


if __name__ == "__main__":
    find_edge_fg()
    from edge_fg_tools.gpu_check.command import main

    sys.exit(main())
