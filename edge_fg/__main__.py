"""`python -m edge_fg` is `edge-fg`."""

import sys
from importlib.metadata import entry_points

# The runtime knows no tools: their command line is found as `edge-fg` itself finds it.
(command,) = entry_points(group="console_scripts", name="edge-fg")
sys.exit(command.load()())
