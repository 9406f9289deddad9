"""`edge-fg run`: recognise what a camera, a video or pictures show."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import edge_fg
from edge_fg.capture import Frame, Source, quiet_ffmpeg
from edge_fg.errors import MissingDependencyError, OutputError, SourceError
from edge_fg.printing import printable
from edge_fg.recognition.classifier import Classifier
from edge_fg.recognition.prediction import Prediction
from edge_fg_tools.cli.arguments import Subparsers, add_backend, add_format, positive
from edge_fg_tools.viewing import Recorder, Window, WindowClosed

View = Callable[[Frame, Prediction], None]

_LOGGER = logging.getLogger("edge_fg")


def add_parser(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("run", help="recognise what a camera, video or pictures show")
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="picture, folder, quoted glob, video file, camera number, csi://0, rtsp://...",
    )
    parser.add_argument("--top-k", type=positive, default=5, metavar="N", help="default 5")
    add_backend(parser)
    add_format(parser, "text", "jsonl")
    parser.add_argument("--save", type=Path, metavar="OUT.mp4", help="write an annotated video")
    parser.add_argument("--display", action="store_true", help="show an annotated window")
    parser.add_argument("--max-frames", type=positive, metavar="N")
    parser.set_defaults(execute=execute)


def execute(arguments: argparse.Namespace) -> int:
    """Carry the command out and return the exit code."""
    _check_save(arguments.save, arguments.source)
    with contextlib.suppress(MissingDependencyError):  # pictures need no OpenCV
        quiet_ffmpeg()
    with (
        edge_fg.load(
            arguments.bundle, backend=arguments.backend, precision=arguments.precision
        ) as classifier,
        edge_fg.open_source(arguments.source) as source,
        contextlib.ExitStack() as views,
    ):
        shown: list[View] = []
        if arguments.save:
            shown.append(views.enter_context(Recorder(arguments.save, source.fps)))
        if arguments.display:
            shown.append(views.enter_context(Window("edge-fg")))
        failure = _show_all(arguments, source, classifier, shown)
    # Raised only here, so that what was saved before the failure is complete.
    if failure is not None:
        raise failure
    return 0


def _show_all(
    arguments: argparse.Namespace, source: Source, classifier: Classifier, views: list[View]
) -> SourceError | None:
    """Print every answer; return the failure that ended the source, if one did."""
    line = json_line if arguments.format == "jsonl" else _text_line
    answered = 0
    try:
        for frame, prediction in edge_fg.stream(
            source, classifier, max_frames=arguments.max_frames
        ):
            print(line(frame, prediction, arguments.top_k), flush=True)
            answered += 1
            for view in views:
                view(frame, prediction)
    except SourceError as error:
        return error
    except WindowClosed:
        return None
    if source.skipped and not answered:
        return SourceError(f"{source.name}: none of its {len(source.skipped)} pictures can be read")
    if source.skipped:
        _LOGGER.warning("%d pictures could not be read", len(source.skipped))
    return None


def _check_save(save: Path | None, source: str) -> None:
    """Refuse to write the video over what is being read."""
    if save is not None and save.exists() and Path(source).exists() and save.samefile(source):
        raise OutputError(f"--save {save} would replace the source itself: name another file")


def json_line(frame: Frame, prediction: Prediction, top_k: int) -> str:
    """Return one line of ``--format jsonl``."""
    latency = prediction.latency
    return json.dumps(
        {
            "frame": frame.number,
            "time": frame.time.isoformat() if frame.time else None,
            "source": frame.source,
            "top": [
                {"index": a.index, "label": a.label, "confidence": a.confidence}
                for a in prediction.top(top_k)
            ],
            "latency_ms": {
                "preprocess": round(latency.preprocess_ms, 3),
                "inference": round(latency.inference_ms, 3),
                "total": round(latency.total_ms, 3),
            },
        }
    )


def _text_line(frame: Frame, prediction: Prediction, top_k: int) -> str:
    first, *others = prediction.top(top_k)
    where = Path(frame.source).name if "://" not in frame.source else frame.source
    line = f"{printable(where)} [{frame.number}]  {first.label}  {first.confidence:.1%}"
    if others and sys.stdout.isatty():
        line += "   (" + ", ".join(f"{a.label} {a.confidence:.1%}" for a in others[:2]) + ")"
    return f"{line}  {prediction.latency.total_ms:.1f} ms"
