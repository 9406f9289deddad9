"""`edge-fg demo`: the main job on the built-in model and clip."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge_fg.opencv import quiet_ffmpeg
from edge_fg.printing import printable
from edge_fg_tools.cli.command import Command, answer
from edge_fg_tools.cli.progress import shown_progress

_FILES = {
    "report.html": "what the build did and proved; start here",
    "annotated.mp4": "the clip with the answers drawn on it",
    "predictions.jsonl": "the answers, a line for each frame",
    "clip.mp4": "the clip; clip-truth.jsonl says what it shows",
    "fieldguide.edgefg": "the bundle, for `edge-fg run`",
    "summary.json": "the figures below",
}


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

    quiet_ffmpeg()  # which would list the encoders that aren't there
    with shown_progress() as progress:
        summary = demonstrate(arguments.output, progress)
    answer(arguments, "\n".join(_in_words(summary, arguments.output)))
    answer(arguments, json.dumps(summary, indent=2))
    answer(arguments, f"open {printable(str(arguments.output / 'report.html'))}")
    return 0


def _in_words(summary: dict[str, Any], output: Path) -> Iterator[str]:
    """Yield the lines that say to people what the figures mean."""
    yield f"Proof, on {summary['proof_images']} images that were kept out of the calibration:"
    for variant in ("fp32", "fp16", "int8"):
        line = f"  {variant.upper()} is right on {summary[f'accuracy_{variant}']:.1%}"
        agreement = summary.get(f"agreement_{variant}")
        yield line if agreement is None else f"{line} and agrees with FP32 on {agreement:.1%}"
    right, single = summary["clip_frames_right"], summary["clip_frames_with_one_answer"]
    yield f"Clip: right on {right} of the {single} frames that show one species or none,"
    rate = summary["frames_per_second"]
    yield f"  at {rate} frames a second ({summary['precision']} on {summary['backend']})"
    yield f"In {printable(str(output))}:"
    for name, what in _FILES.items():
        yield f"  {name:<18} {what}"


COMMAND = Command(
    "build, prove and run the built-in model on the built-in clip",
    add_arguments,
    execute,
    example="edge-fg demo --output demo-out",
)
