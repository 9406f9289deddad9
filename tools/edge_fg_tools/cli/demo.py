"""`edge-fg demo`: the main job on the built-in model and clip."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from edge_fg.errors import MissingDependencyError
from edge_fg_tools.cli.arguments import Subparsers
from edge_fg_tools.progress import shown_progress


def add_parser(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("demo", help="the main job on the built-in model and clip")
    parser.add_argument("--output", type=Path, default=Path("demo-out"), metavar="DIR")
    parser.set_defaults(execute=execute)


def execute(arguments: argparse.Namespace) -> int:
    """Carry the command out and return the exit code."""
    try:
        from edge_fg_tools.demonstration import demonstrate
    except ModuleNotFoundError as error:
        raise MissingDependencyError(str(error.name), "build", "run the demo") from error
    with shown_progress() as progress:
        summary = demonstrate(arguments.output, progress)
    print(json.dumps(summary, indent=2))
    return 0
