"""Where `edge-fg run` puts its answers."""

from __future__ import annotations

import argparse
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from edge_fg.errors import OutputError
from edge_fg.pipeline import Result, Sink, VisitEvent
from edge_fg.printing import printable
from edge_fg.sinks import CsvSink, ImagesSink, JsonLinesSink, VideoSink
from edge_fg.sinks.base import BaseSink
from edge_fg.sinks.records import Content, is_sure, records
from edge_fg.sinks.result_annotator import SharedAnnotator
from edge_fg.sinks.standard_output import opened, print_line
from edge_fg.sources import Source

Lines = Callable[[Result[Any]], Sequence[str]]
_STANDARD_OUTPUT = ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
Shown = Callable[[int], str]
"""Gives the name of a class for people."""


class StandardOutput(BaseSink):
    """Prints the lines of results; when that fails, `failed` is set and the command ends.

    They go to `stream`, which is None where standard output is closed. `before` is called before
    lines are printed: it clears the status line, where both share a terminal.
    """

    def __init__(
        self, stream: TextIO | None, lines: Lines, before: Callable[[], None] | None = None
    ) -> None:
        super().__init__("standard output")
        self._stream = stream
        self.failed = threading.Event()
        self.error: OSError | OutputError | None = None
        self._lines = lines
        self._before = before

    def open(self, sources: Sequence[Source]) -> None:  # noqa: ARG002  the protocol's
        """Check that there is a standard output."""
        opened(self._stream)

    def __call__(self, result: Result[Any], /) -> None:
        """Print a result."""
        if self.error is not None:
            return
        lines = self._lines(result)
        if lines and self._before is not None:
            self._before()
        try:
            for line in lines:
                print_line(line, opened(self._stream))
        except (OSError, OutputError) as error:
            # Raised in the main thread: the reader of our output has gone, or its disk is full.
            self.error = error
            self.failed.set()


class VisitCounter(BaseSink):
    """Counts visits by species as they end."""

    def __init__(self, shown: Shown) -> None:
        super().__init__("visits")
        self._shown = shown
        self.visits: Counter[str | None] = Counter()

    def __call__(self, result: Result[Any], /) -> None:
        """Count."""
        ended = (event.class_id for event in result.events if event.kind == "visit_ended")
        self.visits.update(None if one is None else self._shown(one) for one in ended)


def file_sinks(
    arguments: argparse.Namespace, content: Content, annotate: SharedAnnotator
) -> list[Sink]:
    """Return the sinks of ``--save``, ``--save-frames``, ``--jsonl`` and ``--csv``."""
    sinks: list[Sink] = []
    sure = arguments.min_confidence
    if arguments.save is not None:
        sinks.append(VideoSink(arguments.save, annotate=annotate))
    if arguments.save_frames is not None:
        sinks.append(ImagesSink(arguments.save_frames, annotate=annotate))
    if arguments.jsonl is not None:
        sinks.append(
            JsonLinesSink(
                opened(arguments.stdout)
                if str(arguments.jsonl) == "-"
                else _place(arguments.jsonl, arguments.stdout),
                content=content,
                top_k=arguments.top_k,
                min_confidence=sure,
            )
        )
    if arguments.csv is not None:
        place = _place(arguments.csv, arguments.stdout)
        sinks.append(CsvSink(place, content=content, min_confidence=sure))
    return sinks


def _place(path: Path, stdout: TextIO | None) -> Path:
    """Return the place of a file; what names standard output must mean ours (see `Command`)."""
    if stdout is not None and str(path) in _STANDARD_OUTPUT:
        return Path(f"/dev/fd/{stdout.fileno()}")
    return path


def printed_lines(
    arguments: argparse.Namespace, content: Content, shown: Shown, roots: Sequence[Path]
) -> Lines:
    """Return what makes the lines of ``--format``; `roots` as of `root_of`, one a source."""
    sure = arguments.min_confidence
    if arguments.format == "jsonl":
        return lambda result: [
            json.dumps(record) for record in records(result, content, arguments.top_k, sure)
        ]
    if content == "visits":
        return partial(visit_lines, shown=shown, min_confidence=sure, roots=roots)
    wide = arguments.stdout is not None and arguments.stdout.isatty()
    return partial(frame_lines, shown=shown, min_confidence=sure, roots=roots, wide=wide)


def frame_lines(
    result: Result[Any], shown: Shown, min_confidence: float, roots: Sequence[Path], wide: bool
) -> Sequence[str]:
    """Return what ``--format text`` prints of a frame; if `wide`, with the next answers."""
    if result.closing or result.prediction is None:
        return ()
    answers = [a for a in result.prediction.top(3) if is_sure(a, min_confidence)]
    if not answers:
        return ()
    first, *others = answers
    where = f"{_shown(result.frame.source, roots[result.source_index])} [{result.frame.number}]"
    line = f"{where}  {shown(first.class_id)}  {first.confidence:.1%}"
    if others and wide:
        line += "   (" + ", ".join(f"{shown(a.class_id)} {a.confidence:.1%}" for a in others) + ")"
    return (f"{line}  {result.prediction.latency}",)


def visit_lines(
    result: Result[Any], shown: Shown, min_confidence: float, roots: Sequence[Path]
) -> Sequence[str]:
    """Return what ``--format text --events visits`` prints."""
    sure = (event for event in result.events if is_sure(event, min_confidence))
    root, in_a_file = roots[result.source_index], result.frame.position is not None
    return [_visit_line(event, _shown(event.source, root), in_a_file, shown) for event in sure]


def _visit_line(event: VisitEvent, where: str, in_a_file: bool, shown: Shown) -> str:
    when = ""
    if event.ended_at is not None:
        when = event.ended_at.strftime(" %Y-%m-%d %H:%M:%S")
    elif in_a_file:  # the clock of anything else means nothing to the user
        when = f" {event.ended_s:.1f} s"
    name = "undecided" if event.class_id is None else printable(shown(event.class_id))
    sure = f"  {event.confidence:.1%}" if event.confidence is not None else ""
    what = event.kind.replace("visit_", "")
    stayed = f"  stayed {event.ended_s - event.started_s:.1f} s" if what == "ended" else ""
    return f"{where}{when}  visit {event.visit} {what}  {name}{sure}{stayed}"


def root_of(name: str) -> Path:
    """Return the folder that a source of this name reads; of a glob, that before its wildcards."""
    wildcard = re.search(r"[*?[]", name)
    return Path(name) if wildcard is None else Path(name[: wildcard.start()] + "_").parent


def _shown(source: str, root: Path) -> str:
    """Return a source's name for a line: a file's place in the folder read, or a whole address."""
    if "://" in source:
        return printable(source)
    path = Path(source)
    inside = path != root and path.is_relative_to(root)
    return printable(str(path.relative_to(root)) if inside else path.name)
