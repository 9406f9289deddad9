"""Arguments that several commands share."""

from __future__ import annotations

import argparse
from typing import TypeAlias

from edge_fg.backends.selection import BACKENDS
from edge_fg.bundle import PRECISIONS

# argparse has no public name for what add_subparsers returns.
Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001


def add_format(parser: argparse.ArgumentParser, *choices: str) -> None:
    """Add ``--format``; the first of `choices` is the default."""
    parser.add_argument("--format", choices=choices, default=choices[0])


def add_backend(parser: argparse.ArgumentParser) -> None:
    """Add what `edge_fg.load` can be asked for."""
    parser.add_argument("--backend", choices=BACKENDS, help="default: the first that works here")
    parser.add_argument("--precision", choices=PRECISIONS, help="variant; default: the best there")


def add_model_choices(parser: argparse.ArgumentParser) -> None:
    """Add what some ONNX models leave open."""
    parser.add_argument(
        "--input-size",
        type=positive,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="for a model that leaves its input size open",
    )
    parser.add_argument("--model-output", metavar="NAME", help="for a model with several outputs")


def model_choices(
    arguments: argparse.Namespace,
) -> tuple[tuple[int, int] | None, str | None]:
    """Return the input size and output that were chosen, None where they were not."""
    size = arguments.input_size
    return (size[0], size[1]) if size else None, arguments.model_output


def positive(text: str) -> int:
    """Parse a whole number above zero."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return number
