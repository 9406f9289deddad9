"""How long-running work reports its progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

ProgressCallback: TypeAlias = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)``: a short stage name, steps done, steps in all."""


def no_progress(stage: str, done: int, total: int) -> None:
    """Show nothing: the default."""
