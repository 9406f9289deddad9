"""Fixtures of the runtime's tests."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _harness() -> ModuleType:
    return _helper("software_cuda_harness", "software_cuda/harness.py")


def _helper(name: str, place: str) -> ModuleType:
    """Import a helper that lies beside the tests, under a name of its own."""
    if name not in sys.modules:
        path = Path(__file__).parent / place
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def software_cuda(tmp_path_factory: pytest.TempPathFactory):
    """A CUDA driver whose device is the processor; see software_cuda/."""
    harness = _harness()
    if reason := harness.why_not():
        pytest.skip(reason)
    return harness.build(tmp_path_factory.mktemp("software-cuda"))


@pytest.fixture
def old_software_cuda(software_cuda, tmp_path: Path):
    """Builds a driver that lacks the given functions, as an older one would."""

    def build(*lacking: str):
        flags = ["-DOLD_DRIVER"] if "cuGraphInstantiateWithFlags" in lacking else []
        return _harness().build(tmp_path, "old", *flags, lacking=lacking)

    return build


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch):
    """TensorRT and CUDA as stand-ins over host memory; see standin_tensorrt/."""
    host_cuda = _helper("standin_host_cuda", "standin_tensorrt/host_cuda.py")
    fixtures = _helper("standin_fixtures", "standin_tensorrt/fixtures.py")
    made = fixtures.put_in_place(monkeypatch, host_cuda)
    yield made
    made.check()


@pytest.fixture(scope="session")
def fakes() -> ModuleType:
    """Sources, models and sinks of a pipeline that do what a test tells them."""
    return _helper("pipeline_fakes", "pipeline_fakes.py")


@pytest.fixture(scope="session")
def results() -> ModuleType:
    """Results as a pipeline hands them on, with real predictions."""
    return _helper("sink_results", "sink_results.py")
