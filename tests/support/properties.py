"""How many examples a property test tries."""

from __future__ import annotations

from hypothesis import settings

_USUAL = 100


def examples(number: int) -> settings:
    """Decorate a property that needs more or fewer than 100 examples.

    The exploring profile tries ten times as many, see `tests/conftest.py`.
    """
    return settings(max_examples=number * settings.default.max_examples // _USUAL)
