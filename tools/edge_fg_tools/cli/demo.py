"""`edge-fg demo`: the main job on the built-in model and clip."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from edge_fg_tools.cli.command import Command
from edge_fg_tools.cli.progress import shown_progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("demo-out"),
        metavar="DIR",
        help="folder for the results",
    )


def execute(arguments: argparse.Namespace) -> int:
    """Carry the command out and return the exit code."""
    from edge_fg_tools.fieldguide.demonstration import demonstrate

    with shown_progress() as progress:
        summary = demonstrate(arguments.output, progress)
    print(json.dumps(summary, indent=2))
    return 0


COMMAND = Command(
    "build, prove and run the built-in model on the built-in clip",
    add_arguments,
    execute,
    example="edge-fg demo --output demo-out",
)
