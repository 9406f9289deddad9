"""Text from files on its way to a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return `text` with control characters and lone surrogates escaped.

    File names and labels come from anywhere: an escape sequence in one must not reach the
    terminal, nor a line break tear a line apart.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode()
        for c in text
    )
