"""JSON lines and CSV."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

from edge_fg.errors import UsageError
from edge_fg.printing import printable
from edge_fg.result import Result
from edge_fg.sinks.base import BaseSink
from edge_fg.sinks.line_file import LineFile
from edge_fg.sinks.records import FRAME_COLUMNS, VISIT_COLUMNS, Content, records, rows
from edge_fg.sinks.standard_output import opened, print_line
from edge_fg.sources import Source

_RUN = re.compile(r'(?:"run": |,)([0-9]{1,9})\}?$')


class _LineSink(BaseSink):
    """Writes the lines of each result to a file or an open stream; None is standard output."""

    def __init__(
        self,
        kind: str,
        file: LineFile | TextIO | None,
        content: Content,
        min_confidence: float,
        lossless: bool | None,
        lines: Callable[[Result[Any], int], Iterable[str]],
    ) -> None:
        if content not in ("frames", "visits"):
            raise UsageError(f"content must be frames or visits, not {content!r}")
        if not 0 <= min_confidence <= 1:
            raise UsageError(f"min_confidence must be from 0 to 1, not {min_confidence}")
        where = file.path.name if isinstance(file, LineFile) else "standard output"
        super().__init__(f"{kind} to {where}", lossless)
        self._file = file
        self._lines = lines
        self._run = 1

    def open(self, sources: Sequence[Source]) -> None:  # noqa: ARG002  the protocol's
        """Open the file."""
        if isinstance(self._file, LineFile):
            self._file.open()
            self._run = _next_run(self._file.last_line)
        else:
            opened(self._file or sys.stdout)

    def __call__(self, result: Result[Any], /) -> None:
        """Write the lines of a result."""
        for line in self._lines(result, self._run):
            if isinstance(self._file, LineFile):
                self._file.write(line)
            else:
                print_line(line, opened(self._file or sys.stdout))

    def close(self) -> None:
        """Force what was written onto the disk."""
        if isinstance(self._file, LineFile):
            self._file.close()


class JsonLinesSink(_LineSink):
    """Writes one JSON object a line, for each frame or each event of a visit.

    The keys are those of ``edge-fg run --format jsonl`` and of `VisitEvent.to_dict`. An existing
    file is added to, and the lines of such a later run have its number as ``run``, from 2; see
    `LineFile` for what survives a crash.

    Parameters
    ----------
    path
        The file; ``-`` for standard output; or an open text stream in its place.
    content
        ``frames`` or ``visits``.
    top_k
        Classes a frame.
    min_confidence
        From 0 to 1: classes below it are left out, and lines without any.
    lossless
        See `edge_fg.Sink`.

    Raises
    ------
    UsageError
        `content`, `top_k` or `min_confidence` is wrong.
    OutputError
        From `open`: the file can't be written to or holds something else. From the calls: the disk
        is full, for example; later results are written once there is space.
    """

    def __init__(
        self,
        path: Path | str | TextIO,
        *,
        content: Content = "frames",
        top_k: int = 5,
        min_confidence: float = 0.0,
        lossless: bool | None = None,
    ) -> None:
        if top_k < 1:
            raise UsageError(f"top_k must be at least 1, not {top_k}")
        file: LineFile | TextIO | None = None
        if not isinstance(path, (Path, str)):
            file = path
        elif str(path) != "-":
            file = LineFile(Path(path), prefix='{"')
        super().__init__(
            "JSON lines",
            file,
            content,
            min_confidence,
            lossless,
            lambda result, run: (
                json.dumps(record if run == 1 else {**record, "run": run})
                for record in records(result, content, top_k, min_confidence)
            ),
        )


class CsvSink(_LineSink):
    """Writes one row of comma-separated values for each frame or event of a visit.

    UTF-8 with a header. Control characters, like a line break in a file's name, are escaped. An
    existing file with the same header is added to; ``run`` counts the runs that wrote to it.

    Parameters
    ----------
    path
        The file.
    content
        ``frames`` or ``visits``.
    min_confidence
        From 0 to 1: classes below it are left out, and rows without any.
    lossless
        See `edge_fg.Sink`.

    Raises
    ------
    UsageError
        `content` or `min_confidence` is wrong.
    OutputError
        As of `JsonLinesSink`.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        content: Content = "frames",
        min_confidence: float = 0.0,
        lossless: bool | None = None,
    ) -> None:
        columns = FRAME_COLUMNS if content == "frames" else VISIT_COLUMNS
        file = LineFile(Path(path), header=_row(columns))
        super().__init__(
            "CSV",
            file,
            content,
            min_confidence,
            lossless,
            lambda result, run: (
                _row([*row, run]) for row in rows(result, content, min_confidence)
            ),
        )


def _row(values: Sequence[object]) -> str:
    buffer = io.StringIO()
    escaped = [printable(value) if isinstance(value, str) else value for value in values]
    csv.writer(buffer, lineterminator="").writerow(escaped)
    return buffer.getvalue()


def _next_run(last_line: str | None) -> int:
    """Return the number of the run that adds to a file, from 1, by the last line in it."""
    if last_line is None or last_line.endswith(",run"):  # a new file, or the header alone
        return 1
    found = _RUN.search(last_line)
    return int(found[1]) + 1 if found else 2  # JSON lines of the first run don't say so
