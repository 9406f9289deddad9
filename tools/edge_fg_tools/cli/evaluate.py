"""`edge-fg evaluate`: accuracy on a set of images, and agreement with another variant."""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path
from typing import Any

import edge_fg
from edge_fg.bundle import PRECISIONS
from edge_fg_tools.cli.arguments import Subparsers, add_backend, add_format
from edge_fg_tools.evaluation.evaluate import evaluate
from edge_fg_tools.progress import shown_progress


def add_parser(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("evaluate", help="accuracy on a set of images")
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("images", type=Path, metavar="DIR|CSV")
    add_backend(parser)
    parser.add_argument(
        "--against", metavar="BUNDLE|VARIANT", help="also measure how often both answer alike"
    )
    add_format(parser, "text", "json")
    parser.set_defaults(execute=execute)


def execute(arguments: argparse.Namespace) -> int:
    """Carry the command out and return the exit code."""
    with contextlib.ExitStack() as stack:
        classifier = stack.enter_context(
            edge_fg.load(arguments.bundle, backend=arguments.backend, precision=arguments.precision)
        )
        against = None
        if arguments.against in PRECISIONS:
            against = edge_fg.load(
                arguments.bundle, backend=arguments.backend, precision=arguments.against
            )
        elif arguments.against:
            against = edge_fg.load(arguments.against, backend=arguments.backend)
        if against is not None:
            stack.enter_context(against)
        progress = stack.enter_context(shown_progress())
        document = evaluate(
            classifier,
            arguments.images,
            against=against,
            against_name=arguments.against or "",
            progress=progress,
        )
    print(json.dumps(document) if arguments.format == "json" else _as_text(document))
    return 0


def _as_text(document: dict[str, Any]) -> str:
    lines = [f"{document['images']} images, {document['labelled']} of a known class"]
    if document["labelled"]:
        lines.append(f"top-1 {document['top1']:.2%}, top-5 {document['top5']:.2%}")
        worst = sorted(document["per_class"], key=lambda c: (c["top1"], -c["images"]))[:5]
        lines += [f"  {c['top1']:7.1%} of {c['images']:<4} {c['label']}" for c in worst]
    if "against" in document:
        against = document["against"]
        lines.append(
            f"answers as {against['name']} on {against['agreement']:.2%}, "
            f"mean KL {against['mean_kl']:.5f}"
        )
    return "\n".join(lines)
