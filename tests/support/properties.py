"""How many examples a property test tries, and how many seeds a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import settings

_USUAL = 100


def examples(number: int) -> settings:
    """Decorate a property that needs more or fewer than 100 examples.

    The exploring profile tries ten times as many, see `tests/conftest.py`.
    """
    return settings(max_examples=number * settings.default.max_examples // _USUAL)


def sweep(values: Sequence[Any]) -> list[Any]:
    """Parameters of which the first is always tested, and the others in the slow part."""
    return [values[0], *(pytest.param(value, marks=pytest.mark.slow) for value in values[1:])]
