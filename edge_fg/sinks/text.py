"""JSON lines and tables."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_fg.errors import OutputError, UsageError
from edge_fg.printing import printable
from edge_fg.result import Result
from edge_fg.sinks.base import BaseSink
from edge_fg.sinks.line_file import LineFile
from edge_fg.sinks.records import (
    FRAME_COLUMNS,
    VISIT_COLUMNS,
    Content,
    check_content,
    records,
    rows,
)
from edge_fg.sources import Source


class JsonLinesSink(BaseSink):
    """Writes one JSON object a line: of each frame, or of each event of a visit.

    The keys are those of ``edge-fg run --format jsonl`` and of `VisitEvent.to_dict`. An existing
    file is added to; see `LineFile` for what survives a crash.

    Parameters
    ----------
    path
        The file; ``-`` for standard output.
    content
        ``frames`` or ``visits``.
    top_k
        Classes a frame.
    lossless
        See `edge_fg.pipeline.Sink`.

    Raises
    ------
    UsageError
        An argument makes no sense.
    OutputError
        From `open`: the file can't be written to or holds something else. From the calls: the
        disk is full, for example; once there is space, later results are written again.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        content: Content = "frames",
        top_k: int = 5,
        lossless: bool | None = None,
    ) -> None:
        check_content(content)
        if top_k < 1:
            raise UsageError(f"top_k must be at least 1, not {top_k}")
        super().__init__(f"JSON lines to {_shown(path)}", lossless)
        self._content = content
        self._top_k = top_k
        self._lines = None if str(path) == "-" else LineFile(Path(path), begins='{"')

    def open(self, sources: Sequence[Source]) -> None:  # noqa: ARG002  the protocol's
        """Open the file."""
        if self._lines is None:
            check_standard_output()
        else:
            self._lines.open()

    def __call__(self, result: Result[Any], /) -> None:
        """Write what the result tells."""
        for record in records(result, self._content, self._top_k):
            line = json.dumps(record)
            if self._lines is None:
                print_line(line)
            else:
                self._lines.write(line)

    def close(self) -> None:
        """Force what was written onto the disk."""
        if self._lines is not None:
            self._lines.close()


class CsvSink(BaseSink):
    """Writes one row of comma-separated values for each frame or event of a visit.

    UTF-8 with a header; what would tear a row apart, like the line break in a file's name, is
    escaped. An existing file with the same header is added to.

    Parameters
    ----------
    path
        The file.
    content
        ``frames`` or ``visits``.
    lossless
        See `edge_fg.pipeline.Sink`.

    Raises
    ------
    UsageError
        `content` makes no sense.
    OutputError
        As of `JsonLinesSink`.
    """

    def __init__(
        self, path: Path | str, *, content: Content = "frames", lossless: bool | None = None
    ) -> None:
        check_content(content)
        super().__init__(f"CSV to {_shown(path)}", lossless)
        self._content = content
        columns = FRAME_COLUMNS if content == "frames" else VISIT_COLUMNS
        self._lines = LineFile(Path(path), header=_row(columns))

    def open(self, sources: Sequence[Source]) -> None:  # noqa: ARG002  the protocol's
        """Open the file."""
        self._lines.open()

    def __call__(self, result: Result[Any], /) -> None:
        """Write what the result tells."""
        for row in rows(result, self._content):
            self._lines.write(_row(row))

    def close(self) -> None:
        """Force what was written onto the disk."""
        self._lines.close()


def check_standard_output() -> None:
    """Refuse to print where there is nowhere to print to.

    Raises
    ------
    OutputError
        The program was started with its standard output closed.
    """
    if sys.stdout is None:
        raise OutputError("standard output is closed: send it to a file, or to /dev/null")


def print_line(line: str) -> None:
    """Write a line to standard output at once.

    Raises
    ------
    OSError
        It is closed or full; `BrokenPipeError` where nobody reads it any more.
    """
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _row(values: Sequence[object]) -> str:
    buffer = io.StringIO()
    escaped = [printable(value) if isinstance(value, str) else value for value in values]
    csv.writer(buffer, lineterminator="").writerow(escaped)
    return buffer.getvalue()


def _shown(path: Path | str) -> str:
    return "standard output" if str(path) == "-" else Path(path).name
