"""Fixtures of the runtime's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.software_cuda import harness
from support.standin_tensorrt import fixtures, host_cuda


@pytest.fixture(scope="session")
def software_cuda(tmp_path_factory: pytest.TempPathFactory):
    """A CUDA driver whose device is the processor; see software_cuda/."""
    if reason := harness.why_not():
        pytest.skip(reason)
    return harness.build(tmp_path_factory.mktemp("software-cuda"))


@pytest.fixture
def old_software_cuda(software_cuda, tmp_path: Path):
    """Builds a driver that lacks the given functions, as an older one would."""

    def build(*lacking: str):
        flags = ["-DOLD_DRIVER"] if "cuGraphInstantiateWithFlags" in lacking else []
        return harness.build(tmp_path, "old", *flags, lacking=lacking)

    return build


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch):
    """TensorRT and CUDA as stand-ins over host memory; see standin_tensorrt/."""
    made = fixtures.put_in_place(monkeypatch, host_cuda)
    yield made
    made.check()
