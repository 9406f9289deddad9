"""`edge-fg compile`: build a TensorRT plan ahead of time."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from edge_fg.bundle import PRECISIONS, Bundle
from edge_fg_tools.cli.arguments import Subparsers, add_format, positive
from edge_fg_tools.compiling import compile_graph
from edge_fg_tools.progress import shown_progress

# What pays most on a GPU comes first.
_PREFERENCE = ("int8-fp16", "int8", "fp16", "fp32")


def add_parser(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("compile", help="build a TensorRT plan ahead of time")
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--target", choices=("tensorrt-rtx", "tensorrt"), required=True)
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="default: the smallest that the bundle has"
    )
    parser.add_argument("--max-batch", type=positive, default=8, metavar="N", help="default 8")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write the plan there, not to the plan cache"
    )
    add_format(parser, "text", "json")
    parser.set_defaults(execute=execute)


def execute(arguments: argparse.Namespace) -> int:
    """Carry the command out and return the exit code."""
    bundle = Bundle(arguments.bundle)
    have = bundle.manifest.variants
    precision = arguments.precision or next(name for name in _PREFERENCE if name in have)
    with shown_progress() as progress:
        plan = compile_graph(
            bundle.graph(precision),
            arguments.target,
            precision=precision,
            batch=(1, 1, arguments.max_batch),
            output=arguments.output,
            progress=progress,
        )
    if arguments.format == "json":
        print(json.dumps({"precision": precision, **asdict(plan)}, default=str))
    else:
        how = "found in the cache" if plan.from_cache else f"built in {plan.seconds:.1f} s"
        print(f"{plan.path}: {precision}, {plan.bytes / 1e6:.1f} MB, {plan.version}, {how}")
    return 0
