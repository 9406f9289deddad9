"""`edge-fg evaluate`: accuracy on a set of images, and agreement with another variant."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import Any

import edge_fg
from edge_fg.bundle import PRECISIONS
from edge_fg.labels import Labels
from edge_fg_tools.cli.arguments import add_backend, add_bundle, add_format
from edge_fg_tools.cli.command import Command, show
from edge_fg_tools.cli.progress import shown_progress
from edge_fg_tools.evaluation.evaluate import evaluate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_bundle(parser)
    parser.add_argument(
        "images",
        type=Path,
        metavar="DIR|CSV",
        help="images, in folders by class or in a table: each class by its label, common name, "
        "scientific name or index",
    )
    add_backend(parser)
    parser.add_argument(
        "--against",
        metavar="BUNDLE|VARIANT",
        help="also measure how often the answers are those of this bundle or variant; "
        "default: accuracy alone",
    )
    add_format(parser, "text", "json")


def execute(arguments: argparse.Namespace) -> int:
    """Carry the command out and return the exit code."""
    with contextlib.ExitStack() as stack:
        classifier = stack.enter_context(
            edge_fg.load(arguments.bundle, backend=arguments.backend, precision=arguments.precision)
        )
        against = None
        if arguments.against:
            of_this = arguments.against in PRECISIONS
            against = stack.enter_context(
                edge_fg.load(
                    arguments.bundle if of_this else arguments.against,
                    backend=arguments.backend,
                    precision=arguments.against if of_this else None,
                )
            )
        progress = stack.enter_context(shown_progress())
        document = evaluate(
            classifier,
            arguments.images,
            against=against,
            against_name=arguments.against or "",
            progress=progress,
        )
    show(arguments, document, lambda it: _as_text(it, classifier.labels))
    return 0


def _as_text(document: dict[str, Any], labels: Labels) -> str:
    lines = [f"{document['images']} images, {document['labelled']} of a known class"]
    if document["labelled"]:
        lines.append(f"top-1 {document['top1']:.2%}, top-5 {document['top5']:.2%}")
        worst = sorted(document["per_class"], key=lambda c: (c["top1"], -c["images"]))[:5]
        lines += [
            f"  {c['top1']:7.1%} of {c['images']:<4} {labels.shown(c['index'])}" for c in worst
        ]
    if "against" in document:
        against = document["against"]
        lines.append(
            f"same answer as {against['name']} on {against['agreement']:.2%}, "
            f"mean KL {against['mean_kl']:.5f}"
        )
    return "\n".join(lines)


COMMAND = Command(
    "measure accuracy on a set of images",
    add_arguments,
    execute,
    example="edge-fg evaluate birds.edgefg photos/ --against fp32",
)
