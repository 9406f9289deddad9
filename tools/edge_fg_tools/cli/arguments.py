"""Arguments that several commands share, and how arguments are read."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import Literal, NamedTuple

from edge_fg.backends.selection import BACKENDS
from edge_fg.bundle import PRECISIONS
from edge_fg.errors import UsageError
from edge_fg.pipeline import Policy, parse_policy


class Address(NamedTuple):
    """Where to listen; `remote` if other machines are meant to reach it."""

    host: str
    port: int
    remote: bool


def add_format(parser: argparse.ArgumentParser, *choices: str) -> None:
    """Add ``--format``; the first of `choices` is the default."""
    parser.add_argument(
        "--format",
        choices=choices,
        default=choices[0],
        help="how results are printed on standard output",
    )


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """Add the bundle that the command works on."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder or .zip file")


def add_backend(parser: argparse.ArgumentParser) -> None:
    """Add what `edge_fg.load` can be asked for."""
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        help="what runs the model; default: the first that works on this machine",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="variant of the model; default: the best that the backend can run",
    )


def add_overwrite(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``--overwrite``: without it, `what` is kept where it exists."""
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help=f"replace {what} that exists, once the new one is complete",
    )


def add_model_choices(parser: argparse.ArgumentParser) -> None:
    """Add what some ONNX models leave open."""
    parser.add_argument(
        "--input-size",
        type=positive,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="size of the input in pixels, for a model that leaves it open; "
        "default: the model's own",
    )
    parser.add_argument(
        "--model-output",
        metavar="NAME",
        help="output with the classes, for a model with several; default: the only one",
    )
    parser.add_argument(
        "--output-kind",
        choices=("logits", "probabilities"),
        help="what the output holds, where a build can't tell; default: found from the graph and "
        "its values",
    )


def model_choices(
    arguments: argparse.Namespace,
) -> tuple[tuple[int, int] | None, str | None, Literal["logits", "probabilities"] | None]:
    """Return the input size, output and its kind that were chosen, None where they were not."""
    size = arguments.input_size
    return (size[0], size[1]) if size else None, arguments.model_output, arguments.output_kind


def positive(text: str) -> int:
    """Parse a whole number above zero."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return number


def address(text: str) -> Address:
    """Parse ``[HOST:]PORT``; without a host only this machine is meant."""
    host, colon, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port[:6]) <= 65535) or (colon and not host):
        raise argparse.ArgumentTypeError(f"{text!r} is not [HOST:]PORT")
    if not host:
        return Address("127.0.0.1", int(port), remote=False)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise argparse.ArgumentTypeError(f"write [{host}]:{port} for an IPv6 address")
    from edge_fg.http_server import is_loopback  # here, because most runs serve nothing

    return Address(host, int(port), remote=not is_loopback(host))


def above_zero(text: str) -> float:
    """Parse a number above zero."""
    number = float(text)
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"{text} is not a number above zero")
    return number


def share(text: str) -> float:
    """Parse a number from 0 to 1."""
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return number


def is_table(source: str) -> bool:
    """Say whether a source is a CSV file of images."""
    return source.lower().endswith(".csv") and os.path.isfile(source)  # noqa: PTH113  any text


def policy(text: str) -> Policy:
    """Parse a policy."""
    try:
        return parse_policy(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
