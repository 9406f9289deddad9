"""The command line `edge-fg`."""

from edge_fg_tools.cli.main import main

__all__ = ["main"]
