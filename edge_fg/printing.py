"""Text from outside that is shown: on a terminal, in a log, in a message."""

from __future__ import annotations

_QUOTED_CHARACTERS = 300


def printable(text: str) -> str:
    """Return `text` with control characters and lone surrogates escaped.

    File names and labels come from outside: their escape sequences must not reach the terminal, and
    their line breaks must not break a line.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode()
        for c in text
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:_QUOTED_CHARACTERS] if lines else type(error).__name__


def reason(error: BaseException) -> str:
    """Return why a call failed: the system's message, or else the first line of the error's."""
    return str(getattr(error, "strerror", None) or first_line(error))
