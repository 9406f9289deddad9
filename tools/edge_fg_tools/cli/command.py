"""What a command of `edge-fg` is."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edge_fg.printing import printable, printable_lines
from edge_fg.sinks.standard_output import opened, print_text

GROUP = "edge_fg.commands"
"""Group of the entry points; each names a `Command` and has the command's name."""


@dataclass(frozen=True)
class Command:
    """A command of `edge-fg`.

    Modules that hold one import what is heavy or optional inside `execute`, so that the command
    line starts fast and other commands work without it.
    """

    summary: str  # What it is for, in one line
    add_arguments: Callable[[argparse.ArgumentParser], None]  # Declares its arguments
    # Carries it out with the parsed arguments, and returns the exit code. What it prints as its
    # answer goes to `arguments.stdout`, by `answer`: `print` alone prints to standard error.
    execute: Callable[[argparse.Namespace], int]
    extra: str = "build"  # The extra of edge-fg that brings the packages it needs
    example: str = ""  # A whole command line, shown at the end of its help


def show(
    arguments: argparse.Namespace,
    document: dict[str, Any],
    as_text: Callable[[dict[str, Any]], str],
    *,
    indent: int | None = None,
) -> None:
    """Print a result as ``--format`` asks: as JSON, or as text."""
    if arguments.format == "json":
        answer(arguments, json.dumps(document, indent=indent, default=str))
    else:
        answer(arguments, printable_lines(as_text(_escaped(document))))


def answer(arguments: argparse.Namespace, text: str) -> None:
    """Print a command's answer to standard output, whole or not at all where that is a file.

    An `OutputError` says that standard output is closed or full, for example.
    """
    print_text(text, opened(arguments.stdout))


def _escaped(value: Any) -> Any:
    """Return the document with its texts escaped: a name's line break must not make a line."""
    if isinstance(value, dict):
        return {key: _escaped(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_escaped(inner) for inner in value]
    return printable(value) if isinstance(value, str) else value
