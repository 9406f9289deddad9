"""`edge-fg inspect`: what a bundle, a model or a plan holds."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from edge_fg.printing import printable
from edge_fg_tools.cli.arguments import Subparsers, add_format, add_model_choices, model_choices
from edge_fg_tools.inspection import inspect


def add_parser(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("inspect", help="what a bundle, an ONNX model or a plan holds")
    parser.add_argument("path", type=Path, metavar="BUNDLE|MODEL.onnx|PLAN")
    add_model_choices(parser)
    add_format(parser, "text", "json")
    parser.set_defaults(execute=execute)


def execute(arguments: argparse.Namespace) -> int:
    """Carry the command out and return the exit code."""
    size, output = model_choices(arguments)
    facts = inspect(arguments.path, input_size=size, output=output)
    if arguments.format == "json":
        print(json.dumps(facts, indent=2))
    else:
        for key, value in facts.items():
            for i, line in enumerate(value if isinstance(value, list) else [value]):
                print(f"{key if i == 0 else '':<14}{printable(line)}")
    return 0
