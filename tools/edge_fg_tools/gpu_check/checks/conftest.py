"""What checks take as arguments."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edge_fg.backends.tensorrt.library import Library
from edge_fg.bundle import Bundle
from edge_fg.cuda import Device, Stream
from edge_fg_tools.gpu_check import bundles
from edge_fg_tools.gpu_check.findings import Findings
from edge_fg_tools.gpu_check.plugin import FOUND, SETTINGS
from edge_fg_tools.gpu_check.settings import Settings


@pytest.fixture
def settings(pytestconfig: pytest.Config) -> Settings:
    """Return how thoroughly to check."""
    return pytestconfig.stash[SETTINGS]


@pytest.fixture
def found(request: pytest.FixtureRequest) -> Findings:
    """Return what collects what the check finds."""
    return request.node.stash[FOUND]  # type: ignore[no-any-return]


@pytest.fixture
def device() -> Iterator[Device]:
    """Open the GPU."""
    with Device() as opened:
        yield opened


@pytest.fixture
def stream(device: Device) -> Iterator[Stream]:
    """Open a stream of the GPU."""
    with Stream(device) as opened:
        yield opened


@pytest.fixture
def libraries() -> list[Library]:
    """Return which of TensorRT and TensorRT-RTX run here; the check is skipped if none does."""
    usable = bundles.usable_libraries()
    if not usable:
        pytest.skip(bundles.why_no_engine())
    return usable


@pytest.fixture
def bundle(settings: Settings) -> Bundle:
    """Return the bundle that was given, or one of the reference model."""
    return bundles.open_bundle(settings)
