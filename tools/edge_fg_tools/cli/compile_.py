"""`edge-fg compile`: build a TensorRT plan ahead of time."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_fg.backends.options import EngineOptions
from edge_fg.backends.selection import GPU_PREFERENCE
from edge_fg.bundle import PRECISIONS, Bundle
from edge_fg_tools.cli.arguments import add_bundle, add_format, add_overwrite, positive
from edge_fg_tools.cli.command import Command, show
from edge_fg_tools.cli.progress import shown_progress
from edge_fg_tools.compiling import compile_graph

_MEBIBYTE = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_bundle(parser)
    parser.add_argument(
        "--target", choices=("tensorrt-rtx", "tensorrt"), required=True, help="what runs the plan"
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="variant of the model; default: the fastest that the bundle has",
    )
    parser.add_argument(
        "--max-batch",
        type=positive,
        default=8,
        metavar="N",
        help="most images at once",
    )
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--output", type=Path, metavar="FILE", help="write the plan there; default: the plan cache"
    )
    place.add_argument(
        "--beside", action="store_true", help="keep the plan in BUNDLE.plans beside the bundle"
    )
    parser.add_argument(
        "--workspace",
        type=positive,
        metavar="MIB",
        help="most GPU memory for one layer, in MiB; default: no limit",
    )
    parser.add_argument(
        "--level",
        type=int,
        choices=range(6),
        metavar="0-5",
        help="0: quick build, 5: slow build and fastest plan; default: the library's",
    )
    add_overwrite(parser, "the file of --output")
    add_format(parser, "text", "json")


def execute(arguments: argparse.Namespace) -> int:
    """Carry the command out and return the exit code."""
    bundle = Bundle(arguments.bundle)
    have = bundle.manifest.variants
    options = EngineOptions(plan_cache="beside" if arguments.beside else None)
    precision = arguments.precision or next(p for p in GPU_PREFERENCE if p in have)
    with shown_progress() as progress:
        plan = compile_graph(
            bundle.graph(precision),
            arguments.target,
            precision=precision,
            batch=(1, 1, arguments.max_batch),
            workspace_bytes=arguments.workspace and arguments.workspace * _MEBIBYTE,
            builder_optimization_level=arguments.level,
            output=arguments.output,
            overwrite=arguments.overwrite,
            cache=None if arguments.output else options.open_cache(bundle.path),
            progress=progress,
        )
    show(arguments, {"precision": precision, **asdict(plan)}, _as_text)
    return 0


def _as_text(plan: dict[str, Any]) -> str:
    how = "found in the cache" if plan["from_cache"] else f"built in {plan['seconds']:.1f} s"
    size = f"{plan['bytes'] / 1e6:.1f} MB"
    return f"{plan['path']}: {plan['precision']}, {size}, {plan['version']}, {how}"


COMMAND = Command(
    "build a TensorRT plan ahead of time",
    add_arguments,
    execute,
    extra="tensorrt",
    example="edge-fg compile birds.edgefg --target tensorrt-rtx",
)
