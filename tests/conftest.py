"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout that the tests belong to."""
    return REPOSITORY


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real models, photographs and clips; the test is skipped where there are none."""
    folder = Path(os.environ.get("EDGE_FG_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "models").is_dir():
        pytest.skip("real models and photographs are absent (set EDGE_FG_DATA)")
    return folder
