"""`edge-fg run`: recognise what cameras, videos or images show."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import edge_fg
from edge_fg.errors import MissingDependencyError, OutputError
from edge_fg.opencv import quiet_ffmpeg
from edge_fg.sources import parse_source
from edge_fg.sources.folders import files_matching
from edge_fg_tools.cli.arguments import (
    above_zero,
    add_backend,
    add_bundle,
    add_format,
    address,
    is_table,
    policy,
    positive,
    share,
)
from edge_fg_tools.cli.command import Command

_SOURCES = """image, folder (with all in it), quoted glob, CSV with a column `file`, video file,
camera number or name (/dev/v4l/by-id/...), csi://0,
rtsp://USER@HOST/...#password_file=FILE; several share one model"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_bundle(parser)
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help=_SOURCES)
    parser.add_argument(
        "--top-k",
        type=positive,
        default=5,
        metavar="N",
        help="most classes in a JSON line",
    )
    parser.add_argument(
        "--min-confidence",
        type=share,
        default=0.0,
        metavar="P",
        help="leave out classes below this confidence (0 to 1), and lines and rows without any; "
        "videos and images keep every frame",
    )
    add_backend(parser)
    add_format(parser, "text", "jsonl")
    _add_frames(parser)
    _add_outputs(parser)
    _add_watching(parser)


def _add_frames(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "which frames are answered", "Without limits: until the sources end."
    )
    group.add_argument(
        "--policy",
        type=policy,
        metavar="POLICY",
        help="latest, every, queue(N,drop=oldest|newest|block) or rate(FPS); "
        "default: latest for cameras, every for files",
    )
    group.add_argument(
        "--events",
        choices=("visits",),
        help="follow individuals and report their visits instead of frames; needs a fixed camera; "
        "default: frames",
    )
    limits = (
        ("--max-frames", positive, "N", "stop after N answers"),
        ("--duration", above_zero, "S", "stop after S seconds"),
        ("--max-temperature", float, "C", "answer less often above C °C"),
        ("--max-power", above_zero, "W", "answer less often above W watts"),
    )
    for name, kind, unit, what in limits:
        group.add_argument(name, type=kind, metavar=unit, help=f"{what}; default: no limit")


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where answers go besides standard output")
    outputs = (
        ("--save", "OUT.mp4", "write an annotated video"),
        ("--save-frames", "DIR", "write annotated images into a folder"),
        ("--jsonl", "FILE", "add JSON lines to a file"),
        ("--csv", "FILE", "add rows to a table"),
    )
    for name, path, what in outputs:
        group.add_argument(name, type=Path, metavar=path, help=f"{what}; default: none")


def _add_watching(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("watching")
    group.add_argument("--display", action="store_true", help="show an annotated window")
    group.add_argument(
        "--preview",
        type=address,
        metavar="[HOST:]PORT",
        help="show annotated frames to browsers, on this machine unless HOST says otherwise; "
        "default: off",
    )
    group.add_argument(
        "--metrics",
        type=address,
        metavar="[HOST:]PORT",
        help="serve metrics to Prometheus; default: off",
    )
    group.add_argument(
        "--status", action="store_true", help="keep a line on standard error up to date"
    )


def execute(arguments: argparse.Namespace) -> int:
    """Carry the command out and return the exit code."""
    named = [_named(source) for source in arguments.sources]
    _check_outputs(arguments.save, arguments.save_frames, named)
    with contextlib.suppress(MissingDependencyError):  # images need no OpenCV
        quiet_ffmpeg()
    with contextlib.ExitStack() as opened:
        classifier = opened.enter_context(
            edge_fg.load(arguments.bundle, backend=arguments.backend, precision=arguments.precision)
        )
        sources = [opened.enter_context(edge_fg.open_source(source)) for source in named]
        # Only this command needs windows, servers and tables.
        from edge_fg_tools.cli.run_session import Session

        Session(arguments, classifier, sources).run()
    return 0


def _named(source: str) -> str | list[Path]:
    """Return what `open_source` takes: instead of a table of images, the images in it."""
    if not is_table(source):
        return source
    from edge_fg_calibration import read_image_set

    return [image.path for image in read_image_set(Path(source)).items]


def _check_outputs(
    save: Path | None, frames: Path | None, sources: Sequence[str | list[Path]]
) -> None:
    """Refuse to write over what is being read, or to read what an earlier run has written."""
    from edge_fg.sinks.video import video_paths  # takes long to import

    outputs = [] if save is None else video_paths(save, len(sources))
    outputs = [path for path in [*outputs, *([] if frames is None else [frames])] if path.exists()]
    for read, is_match in (place for one in sources if outputs for place in _places(one)):
        for path in outputs:
            if read.exists() and path.samefile(read):
                raise OutputError(f"{path} would replace a source: name another place")
            if read.resolve() in path.resolve().parents:
                raise OutputError(f"{path} lies in {read}, which is read: name another place")
            if is_match and path.resolve() in read.resolve().parents:
                raise OutputError(f"{read} lies in {path}, which is written: name another place")


def _places(source: str | list[Path]) -> Iterator[tuple[Path, bool]]:
    """Yield the files and folders that are read, and whether a glob matches them."""
    described = parse_source(source)
    if described.kind == "glob":
        yield from ((path, True) for path in files_matching(described.name))
    elif described.kind in ("directory", "video"):
        yield Path(str(described.target)), False
    yield from ((path, False) for path in described.paths)


COMMAND = Command(
    "recognise what cameras, videos or images show",
    add_arguments,
    execute,
    extra="cpu",
    example="edge-fg run birds.edgefg photos/ --min-confidence 0.5 --csv answers.csv",
)
