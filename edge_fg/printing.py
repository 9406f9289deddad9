"""Text from files on its way to a terminal."""

from __future__ import annotations

_QUOTED_CHARACTERS = 300


def printable(text: str) -> str:
    """Return `text` with control characters and lone surrogates escaped.

    File names and labels come from anywhere: an escape sequence in one must not reach the
    terminal, nor a line break tear a line apart.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode()
        for c in text
    )


def first_line(error: BaseException) -> str:
    """Return what `error` says first, at most 300 characters of it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:_QUOTED_CHARACTERS] if lines else type(error).__name__


def reason(error: BaseException) -> str:
    """Return why a call failed: in the system's words, or what `error` says first."""
    return str(getattr(error, "strerror", None) or first_line(error))
