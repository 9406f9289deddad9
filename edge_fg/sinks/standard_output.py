"""Standard output: answers go there, each line whole."""

from __future__ import annotations

import io
from typing import TextIO

from edge_fg.errors import OutputError
from edge_fg.files import write_whole
from edge_fg.printing import printable, reason


def opened(stream: TextIO | None) -> TextIO:
    """Return a standard output that is open, or raise an `OutputError`.

    Python gives None to a program that was started with it closed.
    """
    if stream is None:
        raise OutputError("standard output is closed: send it to a file, or to /dev/null")
    return stream


def print_line(line: str, stream: TextIO) -> None:
    """Write a line at once, with control characters escaped; see `print_text`."""
    print_text(printable(line), stream)


def print_text(text: str, stream: TextIO) -> None:
    """Write text and the end of its line to standard output at once.

    An `OutputError` says that the disk is full, for example: a file that it was sent to then ends
    with a whole line. A `BrokenPipeError` says that its reader has gone.
    """
    text += "\n"
    try:
        stream.flush()
        if isinstance(getattr(getattr(stream, "buffer", None), "raw", None), io.FileIO):
            write_whole(stream.fileno(), text.encode(stream.encoding, stream.errors or "strict"))
        else:  # what a test or a notebook has put in its place
            stream.write(text)
            stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"can't write to standard output: {reason(error)}") from error
